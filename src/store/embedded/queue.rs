//! What waits: events filed, claims, rechecks, and when a repository may be claimed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::Options;
use super::codec::{self, damaged, nanos, time};
use super::entry::{Entries, Entry, EventEntry};
use super::writer::Writing;
use crate::event::{Event, Stage};
use crate::image::Repository;
use crate::store::{Appended, Claim, Incoming, Queued, Recheck, StoreError};

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backlog {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Backlog {
    pub(super) fn of(options: Options) -> Backlog {
        Backlog { events: options.backlog_events, bytes: options.backlog_bytes }
    }

    /// Refuses what would be too much; `before` is how many events waited without it.
    pub(super) fn admit(&self, events: u64, bytes: u64, before: u64) -> Result<(), StoreError> {
        if events > self.events || bytes > self.bytes {
            return Err(StoreError::BacklogFull { events: before });
        }
        Ok(())
    }
}

/// The number of a repository, `None` when it was never seen.
pub(super) fn known_repo(conn: &Connection, repository: &Repository) -> Result<Option<i64>, StoreError> {
    known(conn, repository.host.as_str(), repository.name.as_str())
}

fn known(conn: &Connection, host: &str, name: &str) -> Result<Option<i64>, StoreError> {
    let mut find = conn.prepare_cached("SELECT id FROM repositories WHERE host = ?1 AND name = ?2")?;
    Ok(find.query_row(params![host, name], |row| row.get(0)).optional()?)
}

/// The number of a repository, given one if it has none.
pub(super) fn repo(conn: &Connection, host: &str, name: &str) -> Result<i64, StoreError> {
    if let Some(id) = known(conn, host, name)? {
        return Ok(id);
    }
    conn.prepare_cached("INSERT INTO repositories(host, name) VALUES (?1, ?2)")?.execute(params![host, name])?;
    Ok(conn.last_insert_rowid())
}

/// Files what was appended among the record, where it can be claimed and listed. What is there already is passed over.
/// Also says what the events count in bytes, those passed over too.
pub(super) fn file(w: &mut Writing<'_>, entries: Entries<'_>) -> Result<(Appended, u64), StoreError> {
    let (mut filed, mut bytes) = (Appended::default(), 0);
    for entry in entries {
        match entry? {
            Entry::Event(event) => {
                bytes += event.counted();
                if insert(w.conn, &event)? {
                    filed.recorded += 1;
                    w.change.queued += 1;
                    w.change.queued_bytes += event.counted() as i64;
                } else {
                    filed.duplicate += 1;
                }
            }
            Entry::Dead(letter) => {
                w.conn
                    .prepare_cached(
                        "INSERT INTO dead_letters(source, received_at, fault, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![letter.source, letter.received_at, letter.fault, letter.headers, letter.body])?;
                w.change.dead_letters += 1;
            }
        }
    }
    failpoint!("entries-filed");
    w.work |= filed.recorded > 0;
    Ok((filed, bytes))
}

/// Inserts one event; `false` for a duplicate.
fn insert(conn: &Connection, event: &EventEntry<'_>) -> Result<bool, StoreError> {
    let repo = repo(conn, event.host, event.name)?;
    failpoint!("event-before");
    let inserted = conn
        .prepare_cached(
            "INSERT INTO events(repo, source, key, received_at, action, registry, tag, digest, id, at, actor, bytes,
                intended)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT(repo, source, key) DO NOTHING",
        )?
        .execute(params![
            repo,
            event.source,
            event.key,
            event.received_at,
            event.action,
            event.registry,
            event.tag,
            event.digest,
            event.id,
            event.at,
            event.actor,
            event.counted() as i64,
            event.intended,
        ])?;
    if inserted == 0 {
        return Ok(false);
    }
    failpoint!("event-inserted");
    // Somebody who has the repository finds the rest when giving it back.
    conn.prepare_cached(
        "UPDATE repositories SET ready = 0, lane = ?2, first = ?3
         WHERE id = ?1 AND leased_until IS NULL AND (ready IS NULL OR ready > 0)",
    )?
    .execute(params![repo, event.source, conn.last_insert_rowid()])?;
    Ok(true)
}

/// Works out when a repository that nobody has may be claimed next.
pub(super) fn schedule(conn: &Connection, repo: i64) -> Result<bool, StoreError> {
    let event: Option<(i64, i64)> = conn
        .prepare_cached("SELECT due, number FROM events WHERE repo = ?1 AND state < 2 ORDER BY due, number LIMIT 1")?
        .query_row([repo], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let recheck: Option<i64> =
        conn.prepare_cached("SELECT min(due) FROM rechecks WHERE repo = ?1")?.query_row([repo], |row| row.get(0))?;
    let (ready, lane, first) = match event {
        Some((0, number)) => {
            let source: String = conn
                .prepare_cached("SELECT source FROM events WHERE number = ?1")?
                .query_row([number], |row| row.get(0))?;
            (Some(0), source, number)
        }
        other => ([other.map(|(due, _)| due), recheck].into_iter().flatten().min(), String::new(), 0),
    };
    conn.prepare_cached(
        "UPDATE repositories SET ready = ?2, lane = ?3, first = ?4, leased_until = NULL WHERE id = ?1",
    )?
    .execute(params![repo, ready, lane, first])?;
    Ok(ready.is_some())
}

/// Gives back what a process that ended held: whoever opens the store is alone.
pub(super) fn release_all(conn: &Connection) -> Result<(), StoreError> {
    let held: Vec<i64> = conn
        .prepare("SELECT id FROM repositories WHERE leased_until IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for repo in held {
        conn.execute("UPDATE repositories SET fence = fence + 1 WHERE id = ?1", [repo])?;
        schedule(conn, repo)?;
    }
    Ok(())
}

/// The lanes in which something waits, each with the time of its first: one seek a lane.
fn lanes(conn: &Connection) -> Result<Vec<(String, i64)>, StoreError> {
    let mut next = conn.prepare_cached(
        "SELECT lane, ready FROM repositories WHERE ready IS NOT NULL AND lane > ?1 ORDER BY lane, ready LIMIT 1",
    )?;
    let mut first = conn.prepare_cached(
        "SELECT lane, ready FROM repositories WHERE ready IS NOT NULL AND lane = '' ORDER BY lane, ready LIMIT 1",
    )?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
    let mut found: Vec<(String, i64)> = first.query_row([], read).optional()?.into_iter().collect();
    let mut after = String::new();
    while let Some(lane) = next.query_row([&after], read).optional()? {
        after.clone_from(&lane.0);
        found.push(lane);
    }
    Ok(found)
}

/// When something may be claimed next; `None` when nothing waits.
pub(super) fn next_ready(conn: &Connection) -> Result<Option<Timestamp>, StoreError> {
    Ok(lanes(conn)?.into_iter().map(|(_, ready)| time(ready)).min())
}

/// Who was served how long ago, so that lanes take turns.
pub(super) type Turns = HashMap<String, u64>;

/// Claims repositories.
pub(super) fn claim(
    w: &mut Writing<'_>,
    turns: &mut Turns,
    now: Timestamp,
    repositories: usize,
    events: usize,
    lease: Duration,
) -> Result<Vec<Claim>, StoreError> {
    failpoint!("claim-before");
    let mut waiting = Vec::new();
    for (lane, ready) in lanes(w.conn)? {
        if ready > nanos(now) {
            continue;
        }
        let repos: Vec<i64> = w
            .conn
            .prepare_cached(
                "SELECT id FROM repositories WHERE lane = ?1 AND ready IS NOT NULL AND ready <= ?2
                 ORDER BY ready, first LIMIT ?3",
            )?
            .query_map(params![lane, nanos(now), repositories as i64], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        waiting.push((turns.get(&lane).copied().unwrap_or(0), lane, repos.into_iter()));
    }
    waiting.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut turn = turns.values().copied().max().unwrap_or(0);
    let mut chosen = Vec::new();
    while chosen.len() < repositories {
        let before = chosen.len();
        for (_, lane, repos) in &mut waiting {
            if let Some(repo) = repos.next()
                && chosen.len() < repositories
            {
                chosen.push(repo);
                turn += 1;
                turns.insert(lane.clone(), turn);
            }
        }
        if chosen.len() == before {
            break;
        }
    }
    let until = nanos(now.checked_add(lease).unwrap_or(Timestamp::MAX));
    chosen.into_iter().map(|repo| take(w.conn, repo, now, until, events)).collect()
}

/// Takes one repository.
fn take(conn: &Connection, repo: i64, now: Timestamp, until: i64, events: usize) -> Result<Claim, StoreError> {
    let (host, name, fence): (String, String, i64) = conn
        .prepare_cached(
            "UPDATE repositories SET fence = fence + 1, leased_until = ?2, ready = ?2, lane = '', first = 0
             WHERE id = ?1 RETURNING host, name, fence",
        )?
        .query_row(params![repo, until], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let repository = codec::repository(&host, &name)?;
    let mut claim = Claim { fence: fence as u64, events: Vec::new(), rechecks: Vec::new(), repository };
    let mut queued = conn.prepare_cached(
        "SELECT number, source, key, received_at, action, registry, tag, digest, id, at, actor, attempts, intended FROM events
         WHERE repo = ?1 AND state < 2 AND due <= ?2 ORDER BY due, number LIMIT ?3",
    )?;
    let mut rows = queued.query(params![repo, nanos(now), events as i64])?;
    while let Some(row) = rows.next()? {
        let registry: Option<String> = row.get(5)?;
        let source: String = row.get(1)?;
        claim.events.push(Queued {
            id: row.get(0)?,
            attempts: row.get(11)?,
            incoming: Incoming {
                source: Arc::from(source),
                repository: claim.repository.clone(),
                key: row.get(2)?,
                received_at: time(row.get(3)?),
                event: Event {
                    action: codec::action(row.get_ref(4)?.as_str().map_err(|e| damaged("an event", e))?)?,
                    stage: if row.get(12)? { Stage::Intended } else { Stage::Done },
                    registry: registry.map(|r| r.parse()).transpose().map_err(|e| damaged("an event", e))?,
                    repository: claim.repository.name.clone(),
                    tag: codec::tag(row.get::<_, Option<String>>(6)?.as_deref().unwrap_or_default())?,
                    digest: codec::digest_column(row, 7)?,
                    id: row.get(8)?,
                    at: row.get::<_, Option<i64>>(9)?.map(time),
                    actor: row.get(10)?,
                },
            },
        });
    }
    claim.events.sort_by_key(|event| event.id);
    let mut due = conn.prepare_cached(
        "SELECT tag, due, origin, attempts FROM rechecks WHERE repo = ?1 AND due <= ?2 ORDER BY due LIMIT ?3",
    )?;
    let mut rows = due.query(params![repo, nanos(now), events as i64])?;
    while let Some(row) = rows.next()? {
        claim.rechecks.push(Recheck {
            tag: codec::tag(&row.get::<_, String>(0)?)?,
            due: time(row.get(1)?),
            origin: codec::origin(&row.get::<_, String>(2)?)?,
            attempts: row.get(3)?,
        });
    }
    Ok(claim)
}

/// Notes rechecks, the earlier of two for one tag; `fence` is what a claim must exceed to remove them. Says by how many
/// there are more that only judge again.
pub(super) fn want(conn: &Connection, repo: i64, rechecks: &[Recheck], fence: i64) -> Result<i64, StoreError> {
    let mut known =
        conn.prepare_cached("SELECT origin = 'policy-change' FROM rechecks WHERE repo = ?1 AND tag = ?2")?;
    let mut upsert = conn.prepare_cached(
        "INSERT INTO rechecks(repo, tag, due, origin, attempts, fence) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT(repo, tag) DO UPDATE SET
            -- Judging again must not swallow a look at the registry; of two looks the earlier one says why.
            origin = CASE
                WHEN origin = 'policy-change' THEN excluded.origin
                WHEN excluded.origin = 'policy-change' OR excluded.due >= due THEN origin
                ELSE excluded.origin END,
            attempts = iif(excluded.due < due, excluded.attempts, attempts),
            due = min(due, excluded.due),
            fence = max(fence, excluded.fence)
         RETURNING origin = 'policy-change'",
    )?;
    let mut more = 0;
    for recheck in rechecks {
        let tag = codec::tag_text(recheck.tag.as_ref());
        let before: Option<bool> = known.query_row(params![repo, tag], |row| row.get(0)).optional()?;
        let after: bool = upsert.query_row(
            params![repo, tag, nanos(recheck.due), recheck.origin.as_str(), recheck.attempts, fence],
            |row| row.get(0),
        )?;
        more += i64::from(after) - i64::from(before == Some(true));
    }
    Ok(more)
}

/// Wants tags judged again, from outside a step.
pub(super) fn recheck(w: &mut Writing<'_>, repository: &Repository, rechecks: &[Recheck]) -> Result<(), StoreError> {
    let Some(earliest) = rechecks.iter().map(|r| nanos(r.due)).min() else { return Ok(()) };
    let repo = repo(w.conn, repository.host.as_str(), repository.name.as_str())?;
    let fence: i64 =
        w.conn.prepare_cached("SELECT fence FROM repositories WHERE id = ?1")?.query_row([repo], |row| row.get(0))?;
    w.change.rejudging += want(w.conn, repo, rechecks, fence)?;
    w.conn
        .prepare_cached(
            "UPDATE repositories SET ready = ?2, lane = '', first = 0
             WHERE id = ?1 AND leased_until IS NULL AND (ready IS NULL OR ready > ?2)",
        )?
        .execute(params![repo, earliest])?;
    w.work = true;
    Ok(())
}
