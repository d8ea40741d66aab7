//! Answers to what judging asks, each by a seek in one index, all from one moment of the record.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{self, damaged, time};
use super::list;
use super::queue::known_repo;
use crate::history::TagHistory;
use crate::image::{Digest, ImageConfig, Manifest, MediaType, Repository, Tag};
use crate::policy::violation::Violation;
use crate::policy::{Answer, Fact, LineId, Question, SPAN_MAX, Span, StoredConfig, StoredManifest, TagRecord};
use crate::store::StoreError;

/// Answers the questions; manifests and configs that are not on record are left out, and locks.
pub(super) fn answer(
    conn: &Connection,
    repository: &Repository,
    questions: Vec<Question>,
) -> Result<Vec<(Question, Answer)>, StoreError> {
    let moment = conn.unchecked_transaction()?;
    // A repository never seen has the number that none has.
    let repo = known_repo(&moment, repository)?.unwrap_or(-1);
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let answer = match &question {
            Question::Tag(tag) => Some(Answer::Tag(Fact::Known(Arc::new(record(&moment, repo, tag)?)))),
            Question::Manifest(digest) => {
                manifest(&moment, repo, digest)?.map(|m| Answer::Manifest(Fact::Known(Arc::new(m))))
            }
            Question::Config(digest) => {
                config(&moment, repo, digest)?.map(|c| Answer::Config(Fact::Known(Arc::new(c))))
            }
            Question::Line { line, group, span } => {
                Some(Answer::Tags(Fact::Known(span_of(&moment, repo, line, group, span)?.into())))
            }
            Question::Tagged(digest) => Some(Answer::Tags(Fact::Known(tagged(&moment, repo, digest)?.into()))),
            Question::Parents(digest) => Some(Answer::Digests(Fact::Known(parents(&moment, repo, digest)?.into()))),
            // Set and taken away without an event: only the registry knows.
            Question::Locked(..) => None,
        };
        answers.extend(answer.map(|a| (question, a)));
    }
    Ok(answers)
}

const RECORD: &str = "digest, accepted, accepted_at, judged_moves, locked, sightings";

/// Reads the columns of [`RECORD`] from the first on.
fn record_of(row: &rusqlite::Row<'_>) -> Result<TagRecord, StoreError> {
    let accepted = match (codec::digest_column(row, 1)?, row.get::<_, Option<i64>>(2)?) {
        (Some(digest), Some(at)) => Some((digest, time(at))),
        _ => None,
    };
    let sightings = codec::sightings(row.get_ref(5)?.as_blob().map_err(|e| damaged("a tag's history", e))?)?;
    Ok(TagRecord {
        current: codec::digest_column(row, 0)?,
        history: Some(TagHistory::from_sightings(sightings)),
        accepted,
        judged_moves: row.get(3)?,
        locked: row.get(4)?,
    })
}

/// A tag's record; that of a tag never seen is empty, which is not the same as having none.
fn record(conn: &Connection, repo: i64, tag: &Tag) -> Result<TagRecord, StoreError> {
    let mut select = conn.prepare_cached(&format!("SELECT {RECORD} FROM tags WHERE repo = ?1 AND tag = ?2"))?;
    let mut rows = select.query(params![repo, tag.as_str()])?;
    match rows.next()? {
        Some(row) => record_of(row),
        None => Ok(TagRecord { history: Some(TagHistory::default()), ..TagRecord::default() }),
    }
}

/// The tags of a repository in name order.
pub(super) fn tags(
    conn: &Connection,
    repository: &Repository,
    after: Option<&Tag>,
    limit: usize,
) -> Result<Vec<(Tag, TagRecord)>, StoreError> {
    let Some(repo) = known_repo(conn, repository)? else { return Ok(Vec::new()) };
    let mut select = conn.prepare_cached(&format!(
        "SELECT {RECORD}, tag FROM tags WHERE repo = ?1 AND tag > ?2 ORDER BY tag LIMIT ?3"
    ))?;
    let mut rows = select.query(params![repo, codec::tag_text(after), limit as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((codec::named_tag(&row.get::<_, String>(6)?)?, record_of(row)?));
    }
    Ok(found)
}

/// A content as it lies in the file.
struct Stored {
    media_type: String,
    bytes: Arc<[u8]>,
}

/// A content, verified against its digest: a page that was changed on disk must not be judged.
fn content(conn: &Connection, repo: i64, digest: &Digest, config: bool) -> Result<Option<Stored>, StoreError> {
    let mut select = conn.prepare_cached(
        "SELECT media_type, bytes FROM contents
            WHERE repo = ?1 AND digest = ?2 AND config = ?3 AND gone = 0",
    )?;
    let found = select
        .query_row(params![repo, codec::digest_bytes(digest), config], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    let Some((media_type, bytes)) = found else { return Ok(None) };
    if !digest.matches(&bytes) {
        // One bad page must not keep a repository from being judged: the registry is asked again, and what comes
        // from there mends the record. `verify` tells of it too.
        tracing::error!(%digest, "the bytes on record do not hash to their digest; the registry is asked again");
        return Ok(None);
    }
    Ok(Some(Stored { media_type, bytes: bytes.into() }))
}

fn manifest(conn: &Connection, repo: i64, digest: &Digest) -> Result<Option<StoredManifest>, StoreError> {
    Ok(content(conn, repo, digest, false)?.map(|Stored { media_type, bytes }| {
        let served_as = (!media_type.is_empty()).then(|| MediaType::parse(&media_type));
        StoredManifest {
            digest: digest.clone(),
            size: bytes.len() as u64,
            parsed: Manifest::parse(&bytes, served_as.as_ref()),
            bytes,
        }
    }))
}

fn config(conn: &Connection, repo: i64, digest: &Digest) -> Result<Option<StoredConfig>, StoreError> {
    Ok(content(conn, repo, digest, true)?.map(|Stored { bytes, .. }| StoredConfig {
        size: bytes.len() as u64,
        parsed: ImageConfig::parse(&bytes).map_err(|e| e.to_string()),
        bytes,
    }))
}

/// What each span asks the members' key; the parameters are repository, line, group, limit, rank.
pub(super) const ALL: &str = "SELECT tag FROM members
    WHERE repo = ?1 AND line = ?2 AND grp = ?3 ORDER BY rank, tag LIMIT ?4";
pub(super) const HIGHEST: &str = "SELECT tag FROM members
    WHERE repo = ?1 AND line = ?2 AND grp = ?3 ORDER BY rank DESC, tag DESC LIMIT ?4";
pub(super) const BELOW: &str = "SELECT tag FROM members
    WHERE repo = ?1 AND line = ?2 AND grp = ?3 AND rank < ?5 ORDER BY rank DESC, tag DESC LIMIT ?4";
pub(super) const ABOVE: &str = "SELECT tag FROM members
    WHERE repo = ?1 AND line = ?2 AND grp = ?3 AND rank > ?5 ORDER BY rank, tag LIMIT ?4";

fn span_of(conn: &Connection, repo: i64, line: &LineId, group: &[u8], span: &Span) -> Result<Vec<Tag>, StoreError> {
    let number: Option<i64> = conn
        .prepare_cached("SELECT id FROM lines WHERE name = ?1")?
        .query_row([&*line.0], |row| row.get(0))
        .optional()?;
    let Some(number) = number else { return Ok(Vec::new()) };
    let (sql, count, rank): (_, _, Option<&[u8]>) = match span {
        Span::All => (ALL, SPAN_MAX, None),
        Span::Highest(count) => (HIGHEST, *count, None),
        Span::Below(rank, count) => (BELOW, *count, Some(rank)),
        Span::Above(rank, count) => (ABOVE, *count, Some(rank)),
    };
    let limit = count.min(SPAN_MAX) as i64;
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = match rank {
        None => select.query(params![repo, number, group, limit])?,
        Some(rank) => select.query(params![repo, number, group, limit, rank])?,
    };
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(codec::named_tag(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}

fn tagged(conn: &Connection, repo: i64, digest: &Digest) -> Result<Vec<Tag>, StoreError> {
    let mut select =
        conn.prepare_cached("SELECT tag FROM tags WHERE repo = ?1 AND digest = ?2 ORDER BY tag LIMIT ?3")?;
    let mut rows = select.query(params![repo, codec::digest_bytes(digest), SPAN_MAX as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(codec::named_tag(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}

fn parents(conn: &Connection, repo: i64, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
    let mut select =
        conn.prepare_cached("SELECT parent FROM children WHERE repo = ?1 AND child = ?2 ORDER BY parent LIMIT ?3")?;
    let mut rows = select.query(params![repo, codec::digest_bytes(digest), SPAN_MAX as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(codec::digest_column(row, 0)?);
    }
    Ok(found)
}

/// Manifests listed by indexes to which tags lead now.
pub(super) fn listed(
    conn: &Connection,
    repository: &Repository,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<Digest>, StoreError> {
    let Some(repo) = known_repo(conn, repository)? else { return Ok(Vec::new()) };
    let mut select = conn.prepare_cached(
        "SELECT DISTINCT child FROM children c WHERE repo = ?1 AND child > ?2
            AND EXISTS (SELECT 1 FROM tags t WHERE t.repo = c.repo AND t.digest = c.parent)
            AND EXISTS (SELECT 1 FROM contents o WHERE o.repo = c.repo AND o.digest = c.child AND o.config = 0 AND o.gone = 0)
         ORDER BY child LIMIT ?3",
    )?;
    let after = after.map(codec::digest_bytes).unwrap_or_default();
    let mut rows = select.query(params![repo, after, limit as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(codec::digest_column(row, 0)?);
    }
    Ok(found)
}

/// The open violations of these tags.
pub(super) fn open_violations(
    conn: &Connection,
    repository: &Repository,
    tags: &[Option<Tag>],
) -> Result<Vec<Violation>, StoreError> {
    let moment = conn.unchecked_transaction()?;
    let Some(repo) = known_repo(&moment, repository)? else { return Ok(Vec::new()) };
    let mut select = moment.prepare_cached(&format!(
        "SELECT {} FROM violations v WHERE repo = ?1 AND tag = ?2 AND state < 2 ORDER BY number",
        list::VIOLATION
    ))?;
    let mut found = Vec::new();
    for tag in tags {
        let mut rows = select.query(params![repo, codec::tag_text(tag.as_ref())])?;
        while let Some(row) = rows.next()? {
            found.push(list::violation(row)?);
        }
    }
    Ok(found)
}
