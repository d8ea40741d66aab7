//! Listings: violations, verdicts, events, dead letters, repositories; newest first, page by page.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::codec::{self, damaged, nanos, time};
use super::queue::known_repo;
use crate::image::{Host, Repository, RepositoryName, Tag};
use crate::policy::violation::{Violation, ViolationKey};
use crate::policy::{Reason, Rule, Severity, State};
use crate::store::{DeadLetter, EventRow, Page, Paging, StoreError, ViolationFilter, ViolationRow};

/// Most items of one page.
const PAGE_MAX: usize = 1_000;

/// Events are listed by number, and a clock that stepped may have stamped an older one later: how far a listing
/// looks on after the first event that is too old.
const CLOCK_STEP: SignedDuration = SignedDuration::from_hours(24);

/// The requirement in a column.
pub(super) fn rule(row: &Row<'_>, column: usize) -> Result<Rule, StoreError> {
    let word: String = row.get(column)?;
    Rule::from_word(&word).ok_or_else(|| damaged("a requirement", word))
}

/// The severity in a column.
pub(super) fn severity(row: &Row<'_>, column: usize) -> Result<Severity, StoreError> {
    let word: String = row.get(column)?;
    Severity::from_word(&word).ok_or_else(|| damaged("a severity", word))
}

/// The state in a column.
pub(super) fn state(row: &Row<'_>, column: usize) -> Result<State, StoreError> {
    match row.get(column)? {
        0 => Ok(State::Pending),
        1 => Ok(State::Firing),
        2 => Ok(State::Resolved),
        other => Err(damaged("a state", other)),
    }
}

/// The number that [`state`] reads.
pub(super) fn state_number(state: State) -> i64 {
    match state {
        State::Pending => 0,
        State::Firing => 1,
        State::Resolved => 2,
    }
}

/// A list of texts as one.
pub(super) fn texts_json(texts: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(texts).map_err(|e| damaged("a list of texts", e))
}

fn texts(row: &Row<'_>, column: usize) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|e| damaged("a list of texts", e))
}

/// The columns that [`violation`] reads, from the first on.
pub(super) const VIOLATION: &str = "v.policy, v.tag, v.class, v.rule, v.reason, v.severity, v.state, v.digest,
    v.message, v.advice, v.expected, v.actual, v.since, v.fires_at, v.fired_at, v.resolved_at, v.preview";

/// Reads a violation.
pub(super) fn violation(row: &Row<'_>) -> Result<Violation, StoreError> {
    let moment = |column| Ok::<_, StoreError>(row.get::<_, Option<i64>>(column)?.map(time));
    let code: String = row.get(4)?;
    Ok(Violation {
        key: ViolationKey {
            policy: row.get::<_, String>(0)?.into(),
            tag: codec::tag(&row.get::<_, String>(1)?)?,
            class: row.get::<_, String>(2)?.into(),
            rule: rule(row, 3)?,
        },
        reason: Reason::from_code(&code).ok_or_else(|| damaged("a reason", code))?,
        severity: severity(row, 5)?,
        state: state(row, 6)?,
        digest: codec::digest_column(row, 7)?,
        message: row.get(8)?,
        advice: row.get(9)?,
        expected: texts(row, 10)?,
        actual: texts(row, 11)?,
        since: time(row.get(12)?),
        fires_at: moment(13)?,
        fired_at: moment(14)?,
        resolved_at: moment(15)?,
        preview: row.get(16)?,
    })
}

/// Conditions put together from fixed texts, with their values bound.
#[derive(Default)]
struct Where {
    sql: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Where {
    /// Adds a condition that holds no value.
    fn plain(&mut self, condition: &str) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
    }

    /// Adds a condition that ends where its value goes.
    fn value(&mut self, condition: &str, value: impl ToSql + 'static) {
        self.plain(condition);
        self.sql.push('?');
        self.values.push(Box::new(value));
    }

    fn values(&self) -> impl rusqlite::Params + '_ {
        rusqlite::params_from_iter(self.values.iter())
    }
}

/// The number before which a page begins.
fn before(paging: &Paging) -> Result<Option<i64>, StoreError> {
    let Some(cursor) = &paging.cursor else { return Ok(None) };
    cursor
        .parse()
        .map(Some)
        .map_err(|_| StoreError::Cursor(cursor.chars().take(40).flat_map(char::escape_default).collect()))
}

/// A page out of rows that each begin anew with their number; `read` gives `None` for rows to pass over, and an
/// error of its own to end with.
fn page<T>(
    conn: &Connection,
    sql: &str,
    conditions: &Where,
    paging: &Paging,
    mut read: impl FnMut(&Row<'_>) -> Result<Listed<T>, StoreError>,
) -> Result<Page<T>, StoreError> {
    let limit = paging.limit.clamp(1, PAGE_MAX);
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = select.query(conditions.values())?;
    let mut items = Vec::new();
    let mut next = None;
    let mut last = 0_i64;
    while let Some(row) = rows.next()? {
        match read(row)? {
            Listed::Item(number, item) => {
                if items.len() == limit {
                    next = Some(last.to_string());
                    break;
                }
                last = number;
                items.push(item);
            }
            Listed::Skip => {}
            Listed::End => break,
        }
    }
    Ok(Page { items, next })
}

/// What a row of a listing is.
enum Listed<T> {
    /// An item with its number.
    Item(i64, T),
    /// Not asked for.
    Skip,
    /// Nothing asked for comes after it.
    End,
}

/// Narrows a listing to a registry, a repository name or both; `false` when nothing can match.
fn narrow(
    conn: &Connection,
    conditions: &mut Where,
    column: &str,
    registry: Option<&Host>,
    name: Option<&str>,
) -> Result<bool, StoreError> {
    if let (Some(host), Some(name)) = (registry, name) {
        let Ok(name) = name.parse::<RepositoryName>() else { return Ok(false) };
        let Some(repo) = known_repo(conn, &Repository::new(host.clone(), name))? else { return Ok(false) };
        conditions.value(column, repo);
        return Ok(true);
    }
    if let Some(host) = registry {
        conditions.value("r.host = ", host.as_str().to_owned());
    }
    if let Some(name) = name {
        conditions.value("r.name = ", name.to_owned());
    }
    Ok(true)
}

/// Lists violations.
pub(super) fn violations(
    conn: &Connection,
    filter: &ViolationFilter,
    paging: &Paging,
) -> Result<Page<ViolationRow>, StoreError> {
    let mut conditions = Where::default();
    let mut states: Vec<i64> = filter.states.iter().map(|s| state_number(*s)).collect();
    if states.is_empty() {
        states = vec![0, 1];
    }
    if states.iter().all(|s| *s < 2) {
        // Said so that the index over the open ones serves.
        conditions.plain("v.state < 2");
    }
    let listed: Vec<String> = states.iter().map(i64::to_string).collect();
    conditions.plain(&format!("v.state IN ({})", listed.join(", ")));
    if let Some(number) = before(paging)? {
        conditions.value("v.number < ", number);
    }
    if !narrow(conn, &mut conditions, "v.repo = ", filter.registry.as_ref(), filter.repository.as_deref())? {
        return Ok(Page { items: Vec::new(), next: None });
    }
    if let Some(policy) = &filter.policy {
        conditions.value("v.policy = ", policy.clone());
    }
    let sql = format!(
        "SELECT {VIOLATION}, v.number, r.host, r.name FROM violations v CROSS JOIN repositories r ON r.id = v.repo{}
         ORDER BY v.number DESC",
        conditions.sql
    );
    page(conn, &sql, &conditions, paging, |row| {
        let repository = codec::repository(&row.get::<_, String>(18)?, &row.get::<_, String>(19)?)?;
        Ok(Listed::Item(row.get(17)?, ViolationRow { repository, violation: violation(row)? }))
    })
}

/// Lists the latest verdicts.
pub(super) fn verdicts(
    conn: &Connection,
    registry: Option<&Host>,
    repository: Option<&str>,
    tag: Option<&Tag>,
    paging: &Paging,
) -> Result<Page<String>, StoreError> {
    let mut conditions = Where::default();
    if let Some(number) = before(paging)? {
        conditions.value("v.number < ", number);
    }
    if !narrow(conn, &mut conditions, "v.repo = ", registry, repository)? {
        return Ok(Page { items: Vec::new(), next: None });
    }
    if let Some(tag) = tag {
        conditions.value("v.tag = ", tag.as_str().to_owned());
    }
    let sql = format!(
        "SELECT v.number, v.report FROM verdicts v CROSS JOIN repositories r ON r.id = v.repo{}
         ORDER BY v.number DESC",
        conditions.sql
    );
    page(conn, &sql, &conditions, paging, |row| Ok(Listed::Item(row.get(0)?, row.get(1)?)))
}

/// Lists events.
pub(super) fn events(
    conn: &Connection,
    since: Option<Timestamp>,
    source: Option<&str>,
    id: Option<&str>,
    paging: &Paging,
) -> Result<Page<EventRow>, StoreError> {
    let mut conditions = Where::default();
    if let Some(number) = before(paging)? {
        conditions.value("e.number < ", number);
    }
    if let Some(source) = source {
        conditions.value("e.source = ", source.to_owned());
    }
    if let Some(id) = id {
        conditions.value("e.id = ", id.to_owned());
    }
    let since = since.map_or(i64::MIN, nanos);
    let end = since.saturating_sub(i64::try_from(CLOCK_STEP.as_nanos()).unwrap_or(i64::MAX));
    let sql = format!(
        "SELECT e.number, e.id, e.source, e.received_at, e.action, r.host, r.name, e.tag, e.digest, e.state, e.fault
         FROM events e CROSS JOIN repositories r ON r.id = e.repo{} ORDER BY e.number DESC",
        conditions.sql
    );
    page(conn, &sql, &conditions, paging, |row| {
        let received_at: i64 = row.get(3)?;
        if received_at < end {
            return Ok(Listed::End);
        }
        if received_at < since {
            return Ok(Listed::Skip);
        }
        let state = match row.get(9)? {
            0 => "queued",
            1 => "retrying",
            2 => "judged",
            3 => "dead",
            other => return Err(damaged("an event's state", other)),
        };
        let number = row.get(0)?;
        let event = EventRow {
            number,
            id: row.get(1)?,
            source: row.get(2)?,
            unauthenticated: false,
            received_at: time(received_at),
            action: codec::action(&row.get::<_, String>(4)?)?,
            repository: codec::repository(&row.get::<_, String>(5)?, &row.get::<_, String>(6)?)?,
            tag: codec::tag(&row.get::<_, Option<String>>(7)?.unwrap_or_default())?,
            digest: codec::digest_column(row, 8)?,
            state: state.into(),
            fault: row.get(10)?,
        };
        Ok(Listed::Item(number, event))
    })
}

/// Lists dead letters.
pub(super) fn dead_letters(conn: &Connection, paging: &Paging) -> Result<Page<DeadLetter>, StoreError> {
    let mut conditions = Where::default();
    if let Some(number) = before(paging)? {
        conditions.value("id < ", number);
    }
    let sql = format!(
        "SELECT id, source, received_at, fault, headers, body FROM dead_letters{} ORDER BY id DESC",
        conditions.sql
    );
    page(conn, &sql, &conditions, paging, |row| {
        let headers: String = row.get(4)?;
        let id = row.get(0)?;
        let letter = DeadLetter {
            id,
            source: Arc::from(row.get::<_, String>(1)?),
            received_at: time(row.get(2)?),
            fault: row.get(3)?,
            headers: serde_json::from_str(&headers).map_err(|e| damaged("a dead letter's headers", e))?,
            body: row.get::<_, Vec<u8>>(5)?.into(),
        };
        Ok(Listed::Item(id, letter))
    })
}

/// The repositories on record, in order.
pub(super) fn repositories(
    conn: &Connection,
    registry: Option<&Host>,
    after: Option<&Repository>,
    limit: usize,
) -> Result<Vec<Repository>, StoreError> {
    let mut conditions = Where::default();
    if let Some(host) = registry {
        conditions.value("host = ", host.as_str().to_owned());
    }
    if let Some(after) = after {
        conditions.value("(host, name) > (", after.host.as_str().to_owned());
        conditions.sql.push_str(", ?)");
        conditions.values.push(Box::new(after.name.as_str().to_owned()));
    }
    conditions.values.push(Box::new(limit as i64));
    let sql = format!("SELECT host, name FROM repositories{} ORDER BY host, name LIMIT ?", conditions.sql);
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query(conditions.values())?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(codec::repository(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?)?);
    }
    Ok(found)
}

/// When the oldest waiting event was received: one seek.
pub(super) fn oldest(conn: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let first: Option<i64> = conn
        .prepare_cached(
            "SELECT received_at FROM events INDEXED BY events_oldest WHERE state < 2 ORDER BY number LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(first.map(time))
}
