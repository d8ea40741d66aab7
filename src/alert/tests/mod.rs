//! Tests of the room, and the doubles they share: an outbox in memory, a way out that is a function.

mod alertmanager;
mod delivery;
mod encoding;
mod faults;
mod injection;
mod messages;
mod signing;
mod troubles;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::deliver::{Clock, Delivery, Observer};
use super::http::{Answer, Outgoing, SendError, Transport};
use super::outbox::Outbox;
use super::settings::{Links, SigningKey, SinkKind, SinkSettings, Target};
use crate::policy::violation::{Change, Edge, Violation, ViolationKey};
use crate::policy::{Reason, Rule, Severity, State};
use crate::store::{NewAlert, OutboxItem, Page, Paging, StoreError, ViolationRow};

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn violation(tag: &str) -> Violation {
    Violation {
        key: ViolationKey {
            policy: "iot-edge-module".into(),
            tag: Some(tag.parse().unwrap()),
            class: "version".into(),
            rule: Rule::Immutable,
        },
        reason: Reason::TagMoved,
        severity: Severity::Critical,
        state: State::Firing,
        digest: Some(crate::image::Digest::of(b"now")),
        message: "the tag pointed to sha256:aaaa and now points to sha256:bbbb".into(),
        advice: "Publish the change under a new version and point this tag back to its first digest.".into(),
        expected: vec!["sha256:aaaa".into()],
        actual: vec!["sha256:bbbb".into()],
        since: at("2026-11-22T12:00:00Z"),
        fires_at: None,
        fired_at: Some(at("2026-11-22T12:00:00.123Z")),
        resolved_at: None,
        preview: false,
    }
}

pub fn resolved(mut violation: Violation, when: &str) -> Violation {
    violation.state = State::Resolved;
    violation.resolved_at = Some(at(when));
    violation
}

pub fn change(violation: Violation, edges: &[Edge]) -> Change {
    Change { violation, edges: edges.to_vec() }
}

pub fn repository() -> crate::image::Repository {
    "contoso.azurecr.io/iot/sensor".parse().unwrap()
}

pub fn links() -> Links {
    Links::new(Some("https://tidewaiter.example.com/"), Some("https://docs.example.com/reasons")).unwrap()
}

pub fn target(text: &str) -> Target {
    Target::new(text.into()).unwrap()
}

pub fn key() -> SigningKey {
    SigningKey::parse(&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()).unwrap()
}

pub fn settings(name: &str, base: &str) -> SinkSettings {
    let url = target(base);
    let kind = match name.split('-').next().unwrap() {
        "alertmanager" => SinkKind::Alertmanager { urls: vec![url], auth: None },
        "slack" => SinkKind::Slack { url },
        "teams" => SinkKind::Teams { url },
        "pagerduty" => SinkKind::PagerDuty { url, routing_key: "R0000000000000000000000000000000".into() },
        "webhook" => SinkKind::Webhook { url, keys: vec![key()], auth: None, source: "/tidewaiter/prod-eu".into() },
        other => panic!("no such kind: {other}"),
    };
    SinkSettings { name: name.into(), kind, severities: Severity::ALL.to_vec(), ca_pem: None }
}

/// A clock that follows tokio's, real or paused.
pub fn clock() -> Clock {
    let (start, begin) = (at("2026-11-22T12:00:00Z"), Instant::now());
    Arc::new(move || start + SignedDuration::try_from(begin.elapsed()).unwrap())
}

/// An outbox in memory.
#[derive(Default)]
pub struct Memory {
    pub items: Mutex<Vec<(OutboxItem, Timestamp)>>,
    pub firing: Mutex<Vec<ViolationRow>>,
    pub next: Mutex<i64>,
    pub values: Mutex<std::collections::HashMap<String, String>>,
    pub woken: Notify,
}

impl Memory {
    pub fn push(&self, alerts: Vec<NewAlert>) {
        for alert in alerts {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            let item = OutboxItem { id: *next, alert, attempts: 0 };
            self.items.lock().unwrap().push((item, Timestamp::MIN));
        }
        self.woken.notify_waiters();
    }

    pub fn left(&self, sink: &str) -> usize {
        self.items.lock().unwrap().iter().filter(|(item, _)| &*item.alert.sink == sink).count()
    }
}

impl Outbox for Memory {
    async fn waiting(&self, sink: &str, horizon: Timestamp, limit: usize) -> Result<Vec<OutboxItem>, StoreError> {
        let items = self.items.lock().unwrap();
        let due = items.iter().filter(|(item, due)| &*item.alert.sink == sink && *due <= horizon);
        Ok(due.take(limit).map(|(item, _)| item.clone()).collect())
    }

    async fn work(&self, _now: Timestamp, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.woken.notified()).await;
    }

    async fn done(&self, ids: Vec<i64>) -> Result<(), StoreError> {
        self.items.lock().unwrap().retain(|(item, _)| !ids.contains(&item.id));
        Ok(())
    }

    async fn retry(&self, id: i64, at: Timestamp) -> Result<(), StoreError> {
        for (item, due) in self.items.lock().unwrap().iter_mut().filter(|(item, _)| item.id == id) {
            item.attempts += 1;
            *due = at;
        }
        Ok(())
    }

    async fn add(&self, alerts: Vec<NewAlert>) -> Result<(), StoreError> {
        self.push(alerts);
        Ok(())
    }

    async fn firing(&self, paging: Paging) -> Result<Page<ViolationRow>, StoreError> {
        let rows = self.firing.lock().unwrap();
        let from: usize = paging.cursor.map_or(0, |c| c.parse().unwrap());
        let to = rows.len().min(from + paging.limit);
        Ok(Page { items: rows[from..to].to_vec(), next: (to < rows.len()).then(|| to.to_string()) })
    }

    async fn value(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.values.lock().unwrap().get(name).cloned())
    }

    async fn set_value(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.values.lock().unwrap().insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

type Respond = dyn Fn(&Outgoing) -> Result<Answer, SendError> + Send + Sync;

/// A way out that is a function, and keeps what went through it.
#[derive(Clone)]
pub struct Way {
    answer: Arc<Respond>,
    pub sent: Arc<Mutex<Vec<(Instant, Outgoing)>>>,
}

impl Way {
    pub fn new(answer: impl Fn(&Outgoing) -> Result<Answer, SendError> + Send + Sync + 'static) -> Way {
        Way { answer: Arc::new(answer), sent: Arc::default() }
    }

    pub fn open() -> Way {
        Way::new(|_| answer(200, "ok"))
    }
}

pub fn answer(status: u16, body: &str) -> Result<Answer, SendError> {
    Ok(Answer { status: hyper::StatusCode::from_u16(status).unwrap(), retry_after: None, body: body.into() })
}

impl Transport for Way {
    async fn send(&self, request: Outgoing) -> Result<Answer, SendError> {
        let answer = (self.answer)(&request);
        self.sent.lock().unwrap().push((Instant::now(), request));
        answer
    }
}

/// Counts what became of alerts.
#[derive(Default)]
pub struct Counts(Mutex<std::collections::HashMap<(String, Delivery), u64>>);

impl Counts {
    pub fn of(&self, sink: &str, delivery: Delivery) -> u64 {
        self.0.lock().unwrap().get(&(sink.to_owned(), delivery)).copied().unwrap_or(0)
    }
}

impl Observer for Counts {
    fn alerts(&self, sink: &str, delivery: Delivery, count: u64) {
        *self.0.lock().unwrap().entry((sink.to_owned(), delivery)).or_default() += count;
    }
}
