//! Alerts that wait to be delivered, and the daemon's own named values.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{nanos, time};
use super::writer::Writing;
use crate::store::{NewAlert, OutboxItem, StoreError};

/// Adds alerts; one whose sink and key wait already is the same alert.
pub(super) fn add(w: &mut Writing<'_>, alerts: &[NewAlert]) -> Result<(), StoreError> {
    let mut insert = w
        .conn
        .prepare_cached("INSERT INTO outbox(sink, key, body) VALUES (?1, ?2, ?3) ON CONFLICT(sink, key) DO NOTHING")?;
    for alert in alerts {
        if insert.execute(params![&*alert.sink, alert.key, alert.body])? > 0 {
            w.change.alert(&alert.sink, 1);
            failpoint!("outbox-added");
            w.deliver = true;
        }
    }
    Ok(())
}

/// What is due for a sink, in order.
pub(super) fn due(conn: &Connection, sink: &str, now: Timestamp, limit: usize) -> Result<Vec<OutboxItem>, StoreError> {
    let name: Arc<str> = sink.into();
    let mut select = conn.prepare_cached(
        "SELECT id, key, body, attempts FROM outbox WHERE sink = ?1 AND due <= ?2 ORDER BY id LIMIT ?3",
    )?;
    let rows = select.query_map(params![sink, nanos(now), limit as i64], |row| {
        let alert = NewAlert { sink: name.clone(), key: row.get(1)?, body: row.get(2)? };
        Ok(OutboxItem { id: row.get(0)?, alert, attempts: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// When the next alert is due.
pub(super) fn next_due(conn: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let due: Option<i64> = conn.prepare_cached("SELECT min(due) FROM outbox")?.query_row([], |row| row.get(0))?;
    Ok(due.map(time))
}

/// Removes alerts.
pub(super) fn done(w: &mut Writing<'_>, ids: &[i64]) -> Result<(), StoreError> {
    failpoint!("outbox-done-before");
    let mut delete = w.conn.prepare_cached("DELETE FROM outbox WHERE id = ?1 RETURNING sink")?;
    for id in ids {
        if let Some(sink) = delete.query_row([id], |row| row.get::<_, String>(0)).optional()? {
            w.change.alert(&sink, -1);
            failpoint!("outbox-done");
        }
    }
    Ok(())
}

/// Puts an alert off.
pub(super) fn retry(w: &mut Writing<'_>, id: i64, at: Timestamp) -> Result<(), StoreError> {
    w.conn
        .prepare_cached("UPDATE outbox SET due = ?2, attempts = attempts + 1 WHERE id = ?1")?
        .execute(params![id, nanos(at)])?;
    w.deliver = true;
    Ok(())
}

/// A named value.
pub(super) fn setting(conn: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    let mut select = conn.prepare_cached("SELECT value FROM settings WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?)
}

/// Sets a named value.
pub(super) fn set(conn: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    failpoint!("setting-before");
    conn.prepare_cached("INSERT INTO settings VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value")?
        .execute([name, value])?;
    Ok(())
}
