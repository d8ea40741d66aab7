//! One step's changes: content, tags and their places in lines, verdicts, violations, alerts, what became of events.

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{self, Place, nanos};
use super::queue::{known_repo, repo, schedule, want};
use super::writer::Writing;
use super::{list, outbox};
use crate::image::{Digest, Repository, Tag};
use crate::policy::violation::Violation;
use crate::policy::{LineKey, State};
use crate::store::{Claim, Content, ContentKind, EventEnd, Judged, Step, StoreError, TagUpdate};

use jiff::Timestamp;

/// Writes a step under a claim.
pub(super) fn complete(w: &mut Writing<'_>, claim: &Claim, step: &Step, keep: bool) -> Result<(), StoreError> {
    let (repo, fence) = held(w.conn, &claim.repository, claim.fence)?;
    failpoint!("step-held");
    mark_gone(w.conn, repo, &step.gone)?;
    for content in &step.contents {
        keep_content(w.conn, repo, content)?;
    }
    failpoint!("step-contents");
    for update in &step.tags {
        update_tag(w.conn, repo, update)?;
    }
    if let Some(governing) = &step.governing {
        forget_verdicts(w.conn, repo, governing)?;
    }
    for (tag, sightings) in &step.sighted {
        w.conn.prepare_cached("UPDATE tags SET sightings = ?3 WHERE repo = ?1 AND tag = ?2")?.execute(params![
            repo,
            tag.as_str(),
            codec::sightings_bytes(sightings)
        ])?;
    }
    for (tag, digest, locked) in &step.locks {
        w.conn
            .prepare_cached("UPDATE tags SET locked = ?4 WHERE repo = ?1 AND tag = ?2 AND digest = ?3")?
            .execute(params![repo, tag.as_str(), codec::digest_bytes(digest), locked])?;
    }
    failpoint!("step-tags");
    for judged in &step.verdicts {
        record_verdict(w.conn, repo, judged)?;
    }
    failpoint!("step-verdicts");
    for change in &step.changes {
        change_violation(w, repo, &change.violation)?;
    }
    failpoint!("step-violations");
    outbox::add(w, &step.alerts)?;
    failpoint!("step-alerts");
    for (number, end) in &step.events {
        end_event(w, repo, *number, end)?;
    }
    failpoint!("step-events");
    for tag in &step.rechecked {
        let mut remove = w.conn.prepare_cached(
            "DELETE FROM rechecks WHERE repo = ?1 AND tag = ?2 AND fence < ?3 RETURNING origin = 'policy-change'",
        )?;
        let removed = remove.query_row(params![repo, codec::tag_text(tag.as_ref()), fence], |row| row.get(0));
        w.change.rejudging -= i64::from(removed.optional()?.unwrap_or(false));
    }
    w.change.rejudging += want(w.conn, repo, &step.rechecks, fence - 1)?;
    failpoint!("step-rechecks");
    if !keep {
        w.conn.prepare_cached("UPDATE repositories SET fence = fence + 1 WHERE id = ?1")?.execute([repo])?;
        w.work |= schedule(w.conn, repo)?;
        failpoint!("step-given-back");
    }
    Ok(())
}

/// The repository's number and fence, if the claim with this fence still holds it.
fn held(conn: &Connection, repository: &Repository, claimed: u64) -> Result<(i64, i64), StoreError> {
    let fenced = || StoreError::Fenced(repository.clone());
    let repo = known_repo(conn, repository)?.ok_or_else(fenced)?;
    let (fence, held): (i64, bool) = conn
        .prepare_cached("SELECT fence, leased_until IS NOT NULL FROM repositories WHERE id = ?1")?
        .query_row([repo], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if (fence as u64 != claimed || !held) && !cfg!(sabotage = "no_fence") { Err(fenced()) } else { Ok((repo, fence)) }
}

/// Gives a claim back untouched, not to be claimed before a time.
pub(super) fn put_off(
    w: &mut Writing<'_>,
    repository: &Repository,
    fence: u64,
    until: Timestamp,
) -> Result<(), StoreError> {
    let (repo, _) = held(w.conn, repository, fence)?;
    w.conn.prepare_cached("UPDATE repositories SET fence = fence + 1 WHERE id = ?1")?.execute([repo])?;
    if schedule(w.conn, repo)? {
        w.conn
            .prepare_cached("UPDATE repositories SET ready = ?2, lane = '', first = 0 WHERE id = ?1 AND ready < ?2")?
            .execute(params![repo, nanos(until)])?;
        // Whoever waits for work must learn of the new time.
        w.work = true;
    }
    Ok(())
}

/// Takes note of manifests that are no longer at the registry, from outside a step.
pub(super) fn gone(w: &mut Writing<'_>, repository: &Repository, digests: &[Digest]) -> Result<(), StoreError> {
    match known_repo(w.conn, repository)? {
        Some(repo) => mark_gone(w.conn, repo, digests),
        None => Ok(()),
    }
}

fn mark_gone(conn: &Connection, repo: i64, digests: &[Digest]) -> Result<(), StoreError> {
    let mut mark =
        conn.prepare_cached("UPDATE contents SET gone = 1 WHERE repo = ?1 AND digest = ?2 AND config = 0")?;
    for digest in digests {
        mark.execute(params![repo, codec::digest_bytes(digest)])?;
    }
    Ok(())
}

fn keep_content(conn: &Connection, repo: i64, content: &Content) -> Result<(), StoreError> {
    let digest = codec::digest_bytes(&content.digest);
    let config = content.kind == ContentKind::Config;
    // What is fetched although it is on record was gone, or damaged on disk: what came now stands.
    failpoint!("content-before");
    conn.prepare_cached(
        "INSERT INTO contents(repo, digest, config, stored_at, media_type, bytes)
             VALUES (?1, ?2, ?3, unixepoch() * 1000000000, ?4, ?5) ON CONFLICT(repo, digest, config)
             DO UPDATE SET gone = 0, media_type = excluded.media_type, bytes = excluded.bytes",
    )?
    .execute(params![repo, digest, config, content.media_type, &*content.bytes])?;
    let mut child = conn.prepare_cached("INSERT OR IGNORE INTO children(repo, child, parent) VALUES (?1, ?2, ?3)")?;
    for listed in &content.children {
        child.execute(params![repo, codec::digest_bytes(listed), digest])?;
    }
    Ok(())
}

/// The number of a line in the dictionary, given one if it has none.
fn line(conn: &Connection, name: &str) -> Result<i64, StoreError> {
    let found =
        conn.prepare_cached("SELECT id FROM lines WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    conn.prepare_cached("INSERT INTO lines(name) VALUES (?1)")?.execute([name])?;
    Ok(conn.last_insert_rowid())
}

fn places(conn: &Connection, keys: &[LineKey]) -> Result<Vec<Place>, StoreError> {
    let place =
        |key: &LineKey| Ok(Place { line: line(conn, &key.line.0)?, group: key.group.clone(), rank: key.rank.clone() });
    keys.iter().map(place).collect()
}

fn update_tag(conn: &Connection, repo: i64, update: &TagUpdate) -> Result<(), StoreError> {
    let tag = update.tag.as_str();
    let places = places(conn, &update.lines)?;
    let places_bytes = codec::places_bytes(&places);
    let before: Option<(bool, Vec<u8>)> = conn
        .prepare_cached("SELECT digest IS NOT NULL, places FROM tags WHERE repo = ?1 AND tag = ?2")?
        .query_row(params![repo, tag], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let now = (update.current.is_some(), places_bytes);
    if before.as_ref() != Some(&now) {
        if let Some((true, old)) = &before {
            let mut leave = conn.prepare_cached(
                "DELETE FROM members WHERE repo = ?1 AND line = ?2 AND grp = ?3 AND rank = ?4 AND tag = ?5",
            )?;
            for place in codec::places(old)? {
                leave.execute(params![repo, place.line, place.group, place.rank, tag])?;
            }
        }
        if update.current.is_some() {
            let mut enter = conn.prepare_cached(
                "INSERT OR IGNORE INTO members(repo, line, grp, rank, tag) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for place in &places {
                enter.execute(params![repo, place.line, place.group, place.rank, tag])?;
            }
        }
    }
    conn.prepare_cached(
        "INSERT INTO tags(repo, tag, digest, judged_moves, locked, places, sightings)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT(repo, tag) DO UPDATE SET digest = excluded.digest,
            judged_moves = excluded.judged_moves, locked = excluded.locked, places = excluded.places,
            sightings = excluded.sightings",
    )?
    .execute(params![
        repo,
        tag,
        update.current.as_ref().map(codec::digest_bytes),
        update.judged_moves,
        update.locked,
        now.1,
        codec::sightings_bytes(&update.sightings),
    ])?;
    Ok(())
}

/// Removes the verdicts of policies that no longer govern a repository, and those that are about no tag.
fn forget_verdicts(conn: &Connection, repo: i64, governing: &[std::sync::Arc<str>]) -> Result<(), StoreError> {
    let names = serde_json::to_string(&governing.iter().map(|name| &**name).collect::<Vec<_>>()).unwrap_or_default();
    conn.prepare_cached(
        "DELETE FROM verdicts WHERE repo = ?1 AND (tag = '' OR policy NOT IN (SELECT value FROM json_each(?2)))",
    )?
    .execute(params![repo, names])?;
    Ok(())
}

fn record_verdict(conn: &Connection, repo: i64, judged: &Judged) -> Result<(), StoreError> {
    let verdict = &judged.verdict;
    let tag = codec::tag_text(verdict.subject.tag.as_ref());
    let class = if tag.is_empty() { verdict.class.as_deref().unwrap_or_default() } else { "" };
    // Replaced rather than changed: its new number makes it the newest.
    conn.prepare_cached("DELETE FROM verdicts WHERE repo = ?1 AND tag = ?2 AND policy = ?3 AND class = ?4")?
        .execute(params![repo, tag, &*verdict.policy, class])?;
    conn.prepare_cached(
        "INSERT INTO verdicts(repo, tag, policy, class, outcome, judged_at, report) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        repo,
        tag,
        &*verdict.policy,
        class,
        verdict.outcome.as_str(),
        nanos(verdict.judged_at),
        judged.report,
    ])?;
    Ok(())
}

/// Enters a violation, or brings the open one up to date.
fn change_violation(w: &mut Writing<'_>, repo: i64, violation: &Violation) -> Result<(), StoreError> {
    let key = &violation.key;
    let tag = codec::tag_text(key.tag.as_ref());
    let open: Option<(i64, super::totals::Kind)> = {
        let mut find = w.conn.prepare_cached(
            "SELECT number, severity, state FROM violations
             WHERE repo = ?1 AND tag = ?2 AND policy = ?3 AND class = ?4 AND rule = ?5 AND state < 2",
        )?;
        let mut rows = find.query(params![repo, tag, &*key.policy, &*key.class, key.rule.as_str()])?;
        match rows.next()? {
            Some(row) => {
                let kind = (key.policy.to_string(), key.rule, list::severity(row, 1)?, list::state(row, 2)?);
                Some((row.get(0)?, kind))
            }
            None => None,
        }
    };
    let number = open.as_ref().map(|(number, _)| *number);
    if let Some((_, kind)) = open {
        w.change.violation(kind, -1);
    }
    if violation.state != State::Resolved {
        w.change.violation((key.policy.to_string(), key.rule, violation.severity, violation.state), 1);
    }
    w.conn
        .prepare_cached(
            "INSERT INTO violations(number, repo, tag, policy, class, rule, state, reason, severity, digest, message,
                advice, expected, actual, since, fires_at, fired_at, resolved_at, preview)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
             ON CONFLICT(number) DO UPDATE SET state = excluded.state, reason = excluded.reason,
                severity = excluded.severity, digest = excluded.digest, message = excluded.message,
                advice = excluded.advice, expected = excluded.expected, actual = excluded.actual,
                since = excluded.since, fires_at = excluded.fires_at, fired_at = excluded.fired_at,
                resolved_at = excluded.resolved_at, preview = excluded.preview",
        )?
        .execute(params![
            number,
            repo,
            tag,
            &*key.policy,
            &*key.class,
            key.rule.as_str(),
            list::state_number(violation.state),
            violation.reason.as_str(),
            violation.severity.as_str(),
            violation.digest.as_ref().map(codec::digest_bytes),
            violation.message,
            violation.advice,
            list::texts_json(&violation.expected)?,
            list::texts_json(&violation.actual)?,
            nanos(violation.since),
            violation.fires_at.map(nanos),
            violation.fired_at.map(nanos),
            violation.resolved_at.map(nanos),
            violation.preview,
        ])?;
    Ok(())
}

fn end_event(w: &mut Writing<'_>, repo: i64, number: i64, end: &EventEnd) -> Result<(), StoreError> {
    let (state, due, fault) = match end {
        EventEnd::Judged => (2, 0, None),
        // Never 0, which is for events that were not tried yet.
        EventEnd::Retry { at, fault } => (1, nanos(*at).max(1), Some(fault)),
        EventEnd::Dead { fault } => (3, 0, Some(fault)),
    };
    // An event of another repository, or one that ended before, is left alone.
    let bytes: Option<i64> = w
        .conn
        .prepare_cached(
            "UPDATE events SET state = ?3, due = ?4, fault = ?5, attempts = attempts + 1
             WHERE number = ?2 AND repo = ?1 AND state < 2 RETURNING bytes",
        )?
        .query_row(params![repo, number, state, due, fault], |row| row.get(0))
        .optional()?;
    if let (Some(bytes), true) = (bytes, state >= 2) {
        w.change.queued -= 1;
        w.change.queued_bytes -= bytes;
    }
    Ok(())
}

/// Takes a digest as a tag's baseline.
pub(super) fn accept(
    w: &mut Writing<'_>,
    repository: &Repository,
    tag: &Tag,
    digest: &Digest,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let repo = repo(w.conn, repository.host.as_str(), repository.name.as_str())?;
    // Only what the tag points to now: whoever could accept anything could approve a move before it happens.
    let accepted = w
        .conn
        .prepare_cached(
            "UPDATE tags SET accepted = ?3, accepted_at = ?4, accepted_reason = ?5 WHERE repo = ?1 AND tag = ?2 AND digest = ?3",
        )?
        .execute(params![repo, tag.as_str(), codec::digest_bytes(digest), nanos(now), reason])?;
    if accepted == 0 {
        return Err(StoreError::NotCurrent(format!("{repository}:{tag}@{digest}")));
    }
    Ok(())
}
