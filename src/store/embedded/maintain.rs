//! Care of the file: what is in it, whether it is whole, a copy of it, and what may go.
//!
//! Looking and copying need no lock: they work beside a running daemon, from another process.

use std::collections::HashSet;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};

use super::codec::{self, nanos};
use super::{file, filer, journal, list, schema};
use crate::image::{Manifest, MediaType, Repository};
use crate::store::StoreError;

/// Rows removed in one piece of work: small enough that appends beside it do not wait.
pub(super) const PRUNE_ROWS: usize = 500;
/// Pages given back in one piece of work.
pub(super) const VACUUM_PAGES: i64 = 256;

/// The first format with a journal.
const JOURNAL_SINCE: u32 = 2;

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The number of its format.
    pub format: u32,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the log and the journal beside it.
    pub log_bytes: u64,
    /// Bytes in the file that hold nothing.
    pub free_bytes: u64,
    /// Repositories.
    pub repositories: u64,
    /// Tags on record, gone ones included.
    pub tags: u64,
    /// Events recorded.
    pub events: u64,
    /// Of these, waiting.
    pub waiting: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Manifests and configs.
    pub contents: u64,
    /// Verdicts.
    pub verdicts: u64,
    /// Violations, resolved ones included.
    pub violations: u64,
    /// Of these, pending or firing.
    pub open_violations: u64,
    /// Alerts waiting.
    pub alerts: u64,
}

/// What was found when everything was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// What is wrong, for people; empty when the store is whole.
    pub faults: Vec<String>,
    /// Tags whose evidence was read.
    pub tags: u64,
    /// Manifests and configs that were hashed.
    pub contents: u64,
}

/// Opens a store for reading only, beside whoever writes it.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    if !path.is_file() {
        return Err(file::unusable(path, "there is no such file"));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    schema::set_up(&conn)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// Opens a store of a format that this program knows.
pub(super) fn open_known(path: &Path) -> Result<(Connection, u32), StoreError> {
    let conn = open_to_read(path)?;
    let format = schema::check(&conn, path, schema::STEPS)?;
    if format == 0 {
        return Err(file::unusable(path, "it is empty"));
    }
    Ok((conn, format))
}

/// Says what a store holds.
pub(super) fn info(path: &Path) -> Result<Info, StoreError> {
    let (conn, format) = open_known(path)?;
    let unfiled = if format < JOURNAL_SINCE { None } else { Some(journal::look_beside(path, &conn)?) };
    let unfiled = unfiled.map_or((0, 0), |found| (found.position.events, found.position.dead_letters()));
    let moment = conn.unchecked_transaction()?;
    let count = |sql: &str| -> Result<u64, StoreError> {
        Ok(moment.query_row(sql, [], |row| row.get::<_, i64>(0))?.max(0) as u64)
    };
    let length = |name: &str| std::fs::metadata(file::beside(path, name)).map_or(0, |m| m.len());
    Ok(Info {
        format,
        bytes: length(""),
        log_bytes: ["-wal", journal::FILES[0], journal::FILES[1]].map(length).iter().sum(),
        free_bytes: count("PRAGMA freelist_count")? * count("PRAGMA page_size")?,
        repositories: count("SELECT count(*) FROM repositories")?,
        tags: count("SELECT count(*) FROM tags")?,
        events: count("SELECT count(*) FROM events")? + unfiled.0,
        waiting: count("SELECT count(*) FROM events WHERE state < 2")? + unfiled.0,
        dead_letters: count("SELECT count(*) FROM dead_letters")? + unfiled.1,
        contents: count("SELECT count(*) FROM contents")?,
        verdicts: count("SELECT count(*) FROM verdicts")?,
        violations: count("SELECT count(*) FROM violations")?,
        open_violations: count("SELECT count(*) FROM violations WHERE state < 2")?,
        alerts: count("SELECT count(*) FROM outbox")?,
    })
}

pub(super) fn known(path: &Path, limit: usize) -> Result<Vec<Repository>, StoreError> {
    let (conn, _) = open_known(path)?;
    list::repositories(&conn, None, None, limit)
}

/// Reads everything: pages, relations, each tag's evidence, and each content against its digest.
pub(super) fn verify(path: &Path) -> Result<Verification, StoreError> {
    let mut verification = Verification::default();
    let (conn, format) = match open_known(path) {
        Err(StoreError::Damaged { what, why }) => {
            verification.faults.push(format!("{what}: {why}"));
            return Ok(verification);
        }
        other => other?,
    };
    // One after the other even where one fails: people want to know how much is left.
    for look in [pages, relations, tags, contents] {
        if let Err(fault) = look(&conn, &mut verification) {
            verification.faults.push(fault.to_string());
        }
    }
    if format >= JOURNAL_SINCE
        && let Err(fault) = journal::look_beside(path, &conn)
    {
        verification.faults.push(fault.to_string());
    }
    Ok(verification)
}

fn pages(conn: &Connection, verification: &mut Verification) -> Result<(), StoreError> {
    let mut check = conn.prepare("PRAGMA integrity_check(100)")?;
    let found: Vec<String> = check.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    verification.faults.extend(found.into_iter().filter(|line| line != "ok"));
    Ok(())
}

fn relations(conn: &Connection, verification: &mut Verification) -> Result<(), StoreError> {
    let mut check = conn.prepare("PRAGMA foreign_key_check")?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        verification.faults.push(format!("a row of {table} belongs to none of {parent}"));
    }
    Ok(())
}

fn tags(conn: &Connection, verification: &mut Verification) -> Result<(), StoreError> {
    let mut all = conn.prepare("SELECT tag, places, sightings FROM tags")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        verification.tags += 1;
        let read = codec::places(&row.get::<_, Vec<u8>>(1)?).map(drop);
        if let Err(fault) = read.and_then(|()| codec::sightings(&row.get::<_, Vec<u8>>(2)?).map(drop)) {
            verification.faults.push(format!("tag {:?}: {fault}", row.get::<_, String>(0)?));
        }
    }
    Ok(())
}

fn contents(conn: &Connection, verification: &mut Verification) -> Result<(), StoreError> {
    let mut all = conn.prepare("SELECT digest, bytes FROM contents")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        verification.contents += 1;
        let digest = codec::digest(&row.get::<_, Vec<u8>>(0)?)?;
        if !digest.matches(&row.get::<_, Vec<u8>>(1)?) {
            verification.faults.push(format!("the bytes on record of {digest} do not hash to it"));
        }
    }
    Ok(())
}

/// Copies a store, as of one moment, into a new file; a file that is there is left alone.
pub(super) fn backup(path: &Path, target: &Path) -> Result<(), StoreError> {
    /// What the journal held may be filed and written over between the two looks.
    const TRIES: usize = 3;
    let (conn, format) = open_known(path)?;
    if target.exists() {
        return Err(file::unusable(target, "there is such a file already"));
    }
    let mut done = Ok(());
    for _ in 0..TRIES {
        done = copy_with(
            &conn,
            target,
            |copy| {
                if format < JOURNAL_SINCE { Ok(()) } else { filer::complete_copy(path, copy) }
            },
        );
        if !matches!(done, Err(StoreError::Damaged { .. })) {
            break;
        }
    }
    done
}

/// Copies what `conn` reads.
pub(super) fn copy(conn: &Connection, target: &Path) -> Result<(), StoreError> {
    copy_with(conn, target, |_| Ok(()))
}

/// Copies what `conn` reads and completes it: under another name first, so that a copy that is there is whole.
fn copy_with(
    conn: &Connection,
    target: &Path,
    complete: impl FnOnce(&mut Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let part = file::beside(target, ".part");
    let cannot = |e: std::io::Error| file::unusable(target, e);
    if part.exists() {
        std::fs::remove_file(&part).map_err(cannot)?;
    }
    let held = file::create_new(&part).map_err(cannot)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut to = Connection::open_with_flags(&part, flags)?;
    {
        // All pages in one go: from one moment, whatever is written meanwhile.
        let backup = Backup::new(conn, &mut to)?;
        if !matches!(backup.step(-1)?, StepResult::Done) {
            return Err(StoreError::Unavailable("the store was busy; try the copy again".into()));
        }
    }
    complete(&mut to)?;
    to.close().map_err(|(_, e)| StoreError::from(e))?;
    held.sync_all().map_err(cannot)?;
    std::fs::rename(&part, target).map_err(cannot)?;
    file::sync_directory(target).map_err(cannot)
}

/// What makes a row old: received before a time, or not among so many of the newest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Old {
    pub(super) before: Timestamp,
    pub(super) newest: u64,
}

/// Numbers of rows that may go, found beside the writer; empty when there are no more after `after`.
pub(super) fn old_events(conn: &Connection, old: Old, after: i64) -> Result<Vec<i64>, StoreError> {
    let newest = newest(conn, "SELECT max(number) FROM events", old)?;
    let sql = "SELECT number FROM events WHERE number > ?1 AND state >= 2 AND (received_at < ?2 OR number <= ?4)
         ORDER BY number LIMIT ?3";
    numbers(conn, sql, params![after, nanos(old.before), PRUNE_ROWS as i64, newest])
}

/// The same for dead letters.
pub(super) fn old_dead_letters(conn: &Connection, old: Old, after: i64) -> Result<Vec<i64>, StoreError> {
    let newest = newest(conn, "SELECT max(id) FROM dead_letters", old)?;
    let sql = "SELECT id FROM dead_letters WHERE id > ?1 AND (received_at < ?2 OR id <= ?4) ORDER BY id LIMIT ?3";
    numbers(conn, sql, params![after, nanos(old.before), PRUNE_ROWS as i64, newest])
}

/// The same for verdicts of tags that are gone.
pub(super) fn old_verdicts(conn: &Connection, old: Old, after: i64) -> Result<Vec<i64>, StoreError> {
    let newest = beyond(conn, "verdicts", old)?;
    let sql = "SELECT number FROM verdicts v WHERE number > ?1 AND (judged_at < ?2 OR number <= ?4) AND tag <> ''
            AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repo = v.repo AND t.tag = v.tag AND t.digest IS NOT NULL)
         ORDER BY number LIMIT ?3";
    numbers(conn, sql, params![after, nanos(old.before), PRUNE_ROWS as i64, newest])
}

/// The same for violations that are over.
pub(super) fn old_violations(conn: &Connection, old: Old, after: i64) -> Result<Vec<i64>, StoreError> {
    let newest = beyond(conn, "violations", old)?;
    let sql = "SELECT number FROM violations WHERE number > ?1 AND state = 2 AND (resolved_at < ?2 OR number <= ?4)
         ORDER BY number LIMIT ?3";
    numbers(conn, sql, params![after, nanos(old.before), PRUNE_ROWS as i64, newest])
}

/// The number up to which rows are too many, where numbers have gaps; only counted where there are that many.
fn beyond(conn: &Connection, table: &'static str, old: Old) -> Result<i64, StoreError> {
    let count: i64 = conn.prepare_cached(&format!("SELECT count(*) FROM {table}"))?.query_row([], |row| row.get(0))?;
    let newest = i64::try_from(old.newest).unwrap_or(i64::MAX);
    if count <= newest {
        return Ok(i64::MIN);
    }
    let nth = format!("SELECT number FROM {table} ORDER BY number DESC LIMIT 1 OFFSET ?1");
    Ok(conn.prepare_cached(&nth)?.query_row([newest], |row| row.get(0))?)
}

/// Bytes of all manifests and configs.
pub(super) fn content_bytes(conn: &Connection) -> Result<u64, StoreError> {
    // The length is in each row's head: long ones are not read for it.
    let bytes: i64 = conn.query_row("SELECT coalesce(sum(length(bytes)), 0) FROM contents", [], |row| row.get(0))?;
    Ok(bytes.max(0) as u64)
}

/// The number up to which rows are too many. Numbers only have gaps where rows were removed.
fn newest(conn: &Connection, highest: &str, old: Old) -> Result<i64, StoreError> {
    let highest: Option<i64> = conn.prepare_cached(highest)?.query_row([], |row| row.get(0))?;
    Ok(highest.unwrap_or(0).saturating_sub(i64::try_from(old.newest).unwrap_or(i64::MAX)))
}

fn numbers(conn: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<i64>, StoreError> {
    let mut select = conn.prepare_cached(sql)?;
    let rows = select.query_map(parameters, |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The next repository after one.
pub(super) fn next_repo(conn: &Connection, after: i64) -> Result<Option<i64>, StoreError> {
    Ok(conn.prepare_cached("SELECT min(id) FROM repositories WHERE id > ?1")?.query_row([after], |row| row.get(0))?)
}

/// Contents of a repository, fetched before a time, to which no tag leads or ever led on record.
pub(super) fn unreferenced(conn: &Connection, repo: i64, before: Timestamp) -> Result<Vec<i64>, StoreError> {
    let moment = conn.unchecked_transaction()?;
    let candidates: i64 = moment
        .prepare_cached("SELECT count(*) FROM contents WHERE repo = ?1 AND stored_at < ?2")?
        .query_row(params![repo, nanos(before)], |row| row.get(0))?;
    if candidates == 0 {
        return Ok(Vec::new());
    }
    let mut open: Vec<Vec<u8>> = Vec::new();
    let mut tags = moment.prepare_cached("SELECT digest, accepted, sightings FROM tags WHERE repo = ?1")?;
    let mut rows = tags.query([repo])?;
    while let Some(row) = rows.next()? {
        open.extend(row.get::<_, Option<Vec<u8>>>(0)?);
        open.extend(row.get::<_, Option<Vec<u8>>>(1)?);
        let seen = codec::sightings(&row.get::<_, Vec<u8>>(2)?)?;
        open.extend(seen.iter().filter_map(|s| s.digest.as_ref()).map(codec::digest_bytes));
    }
    drop(rows);
    let mut reached: HashSet<Vec<u8>> = HashSet::new();
    let mut manifest = moment
        .prepare_cached("SELECT media_type, bytes FROM contents WHERE repo = ?1 AND digest = ?2 AND config = 0")?;
    while let Some(digest) = open.pop() {
        if !reached.insert(digest.clone()) {
            continue;
        }
        let mut rows = manifest.query(params![repo, digest])?;
        let Some(row) = rows.next()? else { continue };
        let served_as = Some(row.get::<_, String>(0)?).filter(|t| !t.is_empty()).map(|t| MediaType::parse(&t));
        // What does not parse leads nowhere, here as in judging.
        let Ok(parsed) = Manifest::parse(&row.get::<_, Vec<u8>>(1)?, served_as.as_ref()) else { continue };
        open.extend(parsed.index().into_iter().flat_map(|i| &i.entries).map(|e| codec::digest_bytes(&e.digest)));
        open.extend(parsed.single().map(|s| codec::digest_bytes(&s.config.digest)));
    }
    let mut old = moment.prepare_cached("SELECT id, digest FROM contents WHERE repo = ?1 AND stored_at < ?2")?;
    let mut rows = old.query(params![repo, nanos(before)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if !reached.contains(&row.get::<_, Vec<u8>>(1)?) {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}

/// Removes contents, unless a tag came to point to one meanwhile.
pub(super) fn remove_contents(conn: &Connection, ids: &[i64]) -> Result<u64, StoreError> {
    let mut remove = conn.prepare_cached(
        "DELETE FROM contents AS c WHERE id = ?1
            AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repo = c.repo AND t.digest = c.digest)
         RETURNING repo, digest, config",
    )?;
    let mut orphan = conn.prepare_cached("DELETE FROM children WHERE repo = ?1 AND parent = ?2")?;
    let mut removed = 0;
    for id in ids {
        let mut rows = remove.query([id])?;
        if let Some(row) = rows.next()? {
            removed += 1;
            let (repo, digest, config): (i64, Vec<u8>, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if !config {
                orphan.execute(params![repo, digest])?;
            }
        }
    }
    Ok(removed)
}

/// Removes rows by number.
pub(super) fn remove(conn: &Connection, sql: &str, ids: &[i64]) -> Result<u64, StoreError> {
    let mut remove = conn.prepare_cached(sql)?;
    let mut removed = 0;
    for id in ids {
        removed += remove.execute([id])? as u64;
    }
    Ok(removed)
}

/// Gives some empty pages back to the file system; says whether there are more.
pub(super) fn vacuum(conn: &Connection) -> Result<bool, StoreError> {
    let free = || conn.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
    let before = free()?;
    if before == 0 {
        return Ok(false);
    }
    conn.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let after = free()?;
    // A file made without the setting gives nothing back.
    Ok(after > 0 && after < before)
}
