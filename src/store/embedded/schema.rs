//! The tables, how a connection is set up, and the steps from one format to the next.
//!
//! Each step of the format is one transaction that ends with the new number, so a step that is cut short is
//! done again at the next start. A step, once released, never changes.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::codec::damaged;
use super::{file, maintain};
use crate::store::StoreError;

/// Marks the file as a store of this program, for `file` and for whoever opens it by mistake: "TWDR".
const APPLICATION_ID: i64 = 0x5457_4452;

/// How long a connection waits for another one's lock. Only the checkpoint at the end of a log ever makes one wait.
const BUSY: Duration = Duration::from_secs(5);

/// Statements kept prepared per connection: all that the store has, with room.
const STATEMENTS: usize = 128;

/// The steps from nothing to the newest format; the number of a format is the number of steps before it.
pub(super) const STEPS: &[&str] = &[FIRST, SECOND];

const FIRST: &str = "
CREATE TABLE repositories(
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    name TEXT NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,   -- while somebody has it
    ready INTEGER,          -- when it may be claimed, 0 for at once; NULL when nothing waits
    lane TEXT NOT NULL DEFAULT '',   -- the source of its oldest new event; '' for retries, rechecks, leases
    first INTEGER NOT NULL DEFAULT 0,  -- the number of that event
    UNIQUE(host, name)
) STRICT;
CREATE INDEX repositories_ready ON repositories(lane, ready, first) WHERE ready IS NOT NULL;

CREATE TABLE events(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    repo INTEGER NOT NULL REFERENCES repositories(id),
    source TEXT NOT NULL,
    key TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    action TEXT NOT NULL,
    registry TEXT,
    tag TEXT,
    digest BLOB,
    id TEXT,
    at INTEGER,
    intended INTEGER NOT NULL DEFAULT 0,
    actor TEXT,
    state INTEGER NOT NULL DEFAULT 0,   -- 0 queued, 1 retrying, 2 judged, 3 dead
    due INTEGER NOT NULL DEFAULT 0,     -- 0 at once
    attempts INTEGER NOT NULL DEFAULT 0,
    fault TEXT,
    bytes INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_key ON events(repo, source, key);
CREATE INDEX events_waiting ON events(repo, due, number, bytes) WHERE state < 2;
CREATE INDEX events_oldest ON events(number) WHERE state < 2;
CREATE INDEX events_by_id ON events(id, number) WHERE id IS NOT NULL;

CREATE TABLE dead_letters(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    fault TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE rechecks(
    repo INTEGER NOT NULL REFERENCES repositories(id),
    tag TEXT NOT NULL,      -- '' for the whole repository
    due INTEGER NOT NULL,
    origin TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL, -- the repository's when it was asked for: a claim only removes what is older than itself
    PRIMARY KEY(repo, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX rechecks_due ON rechecks(repo, due);

CREATE TABLE tags(
    repo INTEGER NOT NULL REFERENCES repositories(id),
    tag TEXT NOT NULL,
    digest BLOB,            -- NULL when it is not there
    judged_moves INTEGER NOT NULL DEFAULT 0,
    locked INTEGER,
    accepted BLOB,
    accepted_at INTEGER,
    accepted_reason TEXT,
    places BLOB NOT NULL DEFAULT x'',
    sightings BLOB NOT NULL DEFAULT x'',
    PRIMARY KEY(repo, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags(repo, digest) WHERE digest IS NOT NULL;

CREATE TABLE lines(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE members(       -- the tags that are there now, in their lines
    repo INTEGER NOT NULL REFERENCES repositories(id),
    line INTEGER NOT NULL REFERENCES lines(id),
    grp BLOB NOT NULL,
    rank BLOB NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY(repo, line, grp, rank, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE contents(
    id INTEGER PRIMARY KEY,
    repo INTEGER NOT NULL REFERENCES repositories(id),
    digest BLOB NOT NULL,
    config INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0,   -- the registry says that it no longer has it
    media_type TEXT NOT NULL,
    bytes BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX contents_key ON contents(repo, digest, config);
CREATE TABLE children(
    repo INTEGER NOT NULL REFERENCES repositories(id),
    child BLOB NOT NULL,
    parent BLOB NOT NULL,
    PRIMARY KEY(repo, child, parent)
) STRICT, WITHOUT ROWID;
CREATE INDEX children_of ON children(repo, parent);

CREATE TABLE verdicts(      -- the latest of each tag and policy
    number INTEGER PRIMARY KEY,
    repo INTEGER NOT NULL REFERENCES repositories(id),
    tag TEXT NOT NULL,      -- '' for a class that lacks any
    policy TEXT NOT NULL,
    class TEXT NOT NULL,    -- tells tagless verdicts apart, else ''
    outcome TEXT NOT NULL,
    judged_at INTEGER NOT NULL,
    report TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX verdicts_key ON verdicts(repo, tag, policy, class);
CREATE INDEX verdicts_listed ON verdicts(repo, number);

CREATE TABLE violations(
    number INTEGER PRIMARY KEY,
    repo INTEGER NOT NULL REFERENCES repositories(id),
    tag TEXT NOT NULL,
    policy TEXT NOT NULL,
    class TEXT NOT NULL,
    rule TEXT NOT NULL,
    state INTEGER NOT NULL, -- 0 pending, 1 firing, 2 resolved
    reason TEXT NOT NULL,
    severity TEXT NOT NULL,
    digest BLOB,
    message TEXT NOT NULL,
    advice TEXT NOT NULL,
    expected TEXT NOT NULL,
    actual TEXT NOT NULL,
    since INTEGER NOT NULL,
    fires_at INTEGER,
    fired_at INTEGER,
    resolved_at INTEGER,
    preview INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX violations_open ON violations(repo, tag, policy, class, rule) WHERE state < 2;
CREATE INDEX violations_open_listed ON violations(number) WHERE state < 2;
CREATE INDEX violations_listed ON violations(repo, number);

CREATE TABLE outbox(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    key TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due INTEGER NOT NULL DEFAULT 0,
    UNIQUE(sink, key)
) STRICT;
CREATE INDEX outbox_by_sink ON outbox(sink, id, due);
CREATE INDEX outbox_due ON outbox(due);

CREATE TABLE settings(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// The journal beside the file: entries below `filed` are among the record; `salt` is in its checksums.
const SECOND: &str = "
CREATE TABLE journal(filed INTEGER NOT NULL, salt BLOB NOT NULL) STRICT;
INSERT INTO journal VALUES (0, randomblob(16));
";

/// What every connection has: nothing in the file's schema is trusted, what is wrong is said and not guessed.
pub(super) fn set_up(conn: &Connection) -> Result<(), StoreError> {
    wait_as_usual(conn)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    Ok(())
}

/// Waits for locks as long as usual, after an exception.
pub(super) fn wait_as_usual(conn: &Connection) -> Result<(), StoreError> {
    Ok(conn.busy_timeout(BUSY)?)
}

/// What the writer has besides: the log is synced at each commit, and brought home by another thread.
pub(super) fn set_up_writer(conn: &Connection) -> Result<(), StoreError> {
    /// The log shrinks to this after it was brought home, in bytes.
    const LOG_KEPT: i64 = 64 << 20;
    set_up(conn)?;
    if format(conn)? == 0 {
        // Only takes before the first table is made: pruning gives pages back little by little.
        conn.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
    conn.pragma_update(None, "cache_size", -65_536)?;
    Ok(())
}

/// The number of the format.
pub(super) fn format(conn: &Connection) -> Result<u32, StoreError> {
    let number: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    u32::try_from(number).map_err(|e| damaged("the format number", e))
}

/// Refuses what is no store of this program, and formats that it does not know.
pub(super) fn check(conn: &Connection, path: &Path, steps: &[&str]) -> Result<u32, StoreError> {
    let id: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let found = format(conn)?;
    if id != APPLICATION_ID && (id != 0 || tables > 0 || found != 0) {
        return Err(damaged("its head", format!("{} is a database of another program", path.display())));
    }
    let known = steps.len() as u32;
    if found > known {
        return Err(StoreError::Newer { path: path.display().to_string(), found, known });
    }
    if found > 0 && tables == 0 {
        return Err(damaged("its tables", "there are none"));
    }
    Ok(found)
}

/// Brings the store to the newest format, keeping a copy of an older one beside it.
pub(super) fn migrate(conn: &mut Connection, path: Option<&Path>, steps: &[&str]) -> Result<(), StoreError> {
    let found = check(conn, path.unwrap_or(Path::new("in memory")), steps)?;
    if let Some(path) = path
        && (1..steps.len() as u32).contains(&found)
    {
        let copy = file::beside(path, &format!(".before-v{}", steps.len()));
        if !copy.exists() {
            maintain::copy(conn, &copy)?;
        }
    }
    for (number, step) in steps.iter().enumerate().skip(found as usize) {
        let step_tx = conn.transaction()?;
        step_tx.execute_batch(step)?;
        failpoint!("format-step-before-commit");
        step_tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        step_tx.pragma_update(None, "user_version", number as i64 + 1)?;
        step_tx.commit()?;
        failpoint!("format-step-committed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t67_an_older_store_is_brought_forward_and_a_copy_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let mut conn = Connection::open(&path).unwrap();
        set_up_writer(&conn).unwrap();
        migrate(&mut conn, Some(&path), STEPS).unwrap();
        conn.execute("INSERT INTO settings VALUES ('a', 'b')", []).unwrap();

        // A step that fails leaves the format as it was, and may be tried again.
        let broken = [FIRST, SECOND, "CREATE TABLE extra(a); nonsense"];
        assert!(migrate(&mut conn, Some(&path), &broken).is_err());
        assert_eq!(format(&conn).unwrap(), 2);
        let good = [FIRST, SECOND, "CREATE TABLE extra(a)", "UPDATE settings SET value = 'c'"];
        migrate(&mut conn, Some(&path), &good).unwrap();
        assert_eq!(format(&conn).unwrap(), 4);

        let copy = Connection::open(dir.path().join("s.db.before-v4")).unwrap();
        assert_eq!(format(&copy).unwrap(), 2);
        let value: String = copy.query_row("SELECT value FROM settings", [], |r| r.get(0)).unwrap();
        assert_eq!(value, "b");
        assert!(matches!(migrate(&mut conn, Some(&path), STEPS), Err(StoreError::Newer { found: 4, known: 2, .. })));
    }

    /// Steps of which each takes a while and can only be done once: from one format to the next, and so on.
    fn slow_steps() -> Vec<&'static str> {
        vec![
            FIRST,
            SECOND,
            "CREATE TABLE grown(a INTEGER, b BLOB); UPDATE settings SET value = value || '2';
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 6000)
             INSERT INTO grown SELECT n, zeroblob(200) FROM n",
            "UPDATE settings SET value = value || '3'; UPDATE grown SET b = randomblob(200)",
            "UPDATE settings SET value = value || '4'; CREATE INDEX grown_a ON grown(a); DELETE FROM grown WHERE a % 2",
        ]
    }

    /// Set for the child that migrates until it is killed.
    const CHILD: &str = "TIDEWAITER_TEST_MIGRATE";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the child is told by its environment what to open")]
    fn child_that_migrates() {
        let Ok(path) = std::env::var(CHILD) else { return };
        let path = Path::new(&path);
        let mut conn = Connection::open(path).unwrap();
        set_up_writer(&conn).unwrap();
        println!("\nready");
        migrate(&mut conn, Some(path), &slow_steps()).unwrap();
    }

    #[test]
    fn g33_killed_in_any_step_of_an_upgrade_nothing_is_lost_and_no_step_done_twice() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        const ROUNDS: u32 = 20;
        let (mut cut, mut whole_time) = ([0_u32; 6], Duration::ZERO);
        for round in 0..=ROUNDS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s.db");
            let mut conn = Connection::open(&path).unwrap();
            set_up_writer(&conn).unwrap();
            migrate(&mut conn, Some(&path), STEPS).unwrap();
            conn.execute("INSERT INTO settings VALUES ('a', 'b')", []).unwrap();
            drop(conn);
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::embedded::schema::tests::child_that_migrates", "--nocapture"])
                .env(CHILD, &path)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            while lines.next().unwrap().unwrap() != "ready" {}
            let begun = std::time::Instant::now();
            if round == 0 {
                // How long it takes is seen once; the kills are then spread over that time.
                child.wait().unwrap();
                whole_time = begun.elapsed();
            } else {
                std::thread::sleep(whole_time * round / (ROUNDS + 1));
                child.kill().unwrap();
                child.wait().unwrap();
            }

            let mut conn = Connection::open(&path).unwrap();
            set_up_writer(&conn).unwrap();
            cut[format(&conn).unwrap() as usize] += 1;
            migrate(&mut conn, Some(&path), &slow_steps()).unwrap();
            let value: String = conn.query_row("SELECT value FROM settings", [], |r| r.get(0)).unwrap();
            let grown: i64 = conn.query_row("SELECT count(*) FROM grown", [], |r| r.get(0)).unwrap();
            let whole: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
            assert_eq!((format(&conn).unwrap(), value.as_str(), grown, whole.as_str()), (5, "b234", 3_000, "ok"));
            // What is beside it is the store as it was, whole.
            let copy = Connection::open(dir.path().join("s.db.before-v5")).unwrap();
            let value: String = copy.query_row("SELECT value FROM settings", [], |r| r.get(0)).unwrap();
            assert_eq!((format(&copy).unwrap(), value.as_str()), (2, "b"));
        }
        println!("upgrade: {ROUNDS} kills, found at format 2 to 5: {:?}; lost 0, done twice 0", &cut[2..]);
        assert!(cut[2..5].iter().sum::<u32>() >= ROUNDS / 4, "too few were cut short: {cut:?}");
    }
}
