//! The figures of `/metrics`, kept by counting along: counted once at the start, changed with each commit.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::policy::{Rule, Severity, State};
use crate::store::StoreError;

/// What kind of violation it is.
pub(super) type Kind = (String, Rule, Severity, State);

/// Counts, or differences of counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    /// Events that wait.
    pub(super) queued: i64,
    /// Their bytes, roughly.
    pub(super) queued_bytes: i64,
    /// Dead letters kept.
    pub(super) dead_letters: i64,
    /// Tags and repositories that wait to be judged again from the record.
    pub(super) rejudging: i64,
    /// Alerts that wait, by sink.
    pub(super) outbox: BTreeMap<String, i64>,
    /// Open violations.
    pub(super) violations: BTreeMap<Kind, i64>,
}

impl Totals {
    /// Counts all there is.
    pub(super) fn count(conn: &Connection) -> Result<Totals, StoreError> {
        let mut totals = Totals::default();
        (totals.queued, totals.queued_bytes) = conn.query_row(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM events INDEXED BY events_waiting WHERE state < 2",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        totals.dead_letters = conn.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0))?;
        totals.rejudging =
            conn.query_row("SELECT count(*) FROM rechecks WHERE origin = 'policy-change'", [], |row| row.get(0))?;
        let mut by_sink = conn.prepare("SELECT sink, count(*) FROM outbox GROUP BY sink")?;
        for row in by_sink.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (sink, count) = row?;
            totals.outbox.insert(sink, count);
        }
        let mut by_kind = conn.prepare(
            "SELECT policy, rule, severity, state, count(*) FROM violations WHERE state < 2
             GROUP BY policy, rule, severity, state",
        )?;
        let mut rows = by_kind.query([])?;
        while let Some(row) = rows.next()? {
            let kind =
                (row.get(0)?, super::list::rule(row, 1)?, super::list::severity(row, 2)?, super::list::state(row, 3)?);
            totals.violations.insert(kind, row.get(4)?);
        }
        Ok(totals)
    }

    /// Counts one alert more or fewer.
    pub(super) fn alert(&mut self, sink: &str, by: i64) {
        *self.outbox.entry(sink.to_owned()).or_default() += by;
    }

    /// Counts one violation more or fewer.
    pub(super) fn violation(&mut self, kind: Kind, by: i64) {
        *self.violations.entry(kind).or_default() += by;
    }

    /// Adds differences.
    pub(super) fn add(&mut self, other: Totals) {
        self.queued += other.queued;
        self.queued_bytes += other.queued_bytes;
        self.dead_letters += other.dead_letters;
        self.rejudging += other.rejudging;
        for (sink, by) in other.outbox {
            *self.outbox.entry(sink).or_default() += by;
        }
        for (kind, by) in other.violations {
            *self.violations.entry(kind).or_default() += by;
        }
        self.violations.retain(|_, count| *count != 0);
    }
}
