//! What the tests of the listeners share: a store in memory, and answers read by hand.

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tidewaiter::image::{Digest, Host, Repository, Tag};
use tidewaiter::policy::violation::Violation;
use tidewaiter::policy::{Answer, Fact, Question, TagRecord};
use tidewaiter::store::*;
use tokio::io::AsyncReadExt;

/// What the store does when asked to append.
#[derive(Default, Clone)]
pub enum Append {
    #[default]
    Record,
    Refuse(fn() -> StoreError),
    Wait(Duration),
    Panic,
}

/// A store in memory.
#[derive(Default)]
pub struct Memory {
    pub append: Mutex<Append>,
    pub broken: Mutex<Option<fn() -> StoreError>>,
    pub events: Mutex<Vec<Incoming>>,
    pub dead: Mutex<Vec<DeadLetter>>,
    pub accepted: Mutex<Vec<(String, String, String)>>,
    pub violations: Mutex<Vec<ViolationRow>>,
    pub tags: Mutex<Vec<(Tag, TagRecord)>>,
    pub stats: Mutex<Stats>,
    pub keys: Mutex<HashSet<(String, String)>>,
    pub waiting: AtomicUsize,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store for Memory {
    fn append(&self, events: Vec<Incoming>, dead: Vec<DeadLetter>) -> impl Future<Output = Result<Appended>> + Send {
        let how = self.append.lock().unwrap().clone();
        async move {
            match how {
                Append::Record => {}
                Append::Refuse(error) => return Err(error()),
                Append::Wait(time) => {
                    self.waiting.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(time).await;
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                }
                Append::Panic => panic!("planted"),
            }
            let mut appended = Appended::default();
            for event in events {
                let key = (event.source.to_string(), event.key.clone());
                if self.keys.lock().unwrap().insert(key) {
                    appended.recorded += 1;
                    self.events.lock().unwrap().push(event);
                } else {
                    appended.duplicate += 1;
                }
            }
            let mut kept = self.dead.lock().unwrap();
            for letter in dead {
                let id = kept.last().map_or(1, |last| last.id + 1);
                kept.push(DeadLetter { id, ..letter });
            }
            Ok(appended)
        }
    }

    async fn claim(&self, _: Timestamp, _: usize, _: usize, _: Duration) -> Result<Vec<Claim>> {
        Ok(Vec::new())
    }

    async fn work(&self, _: Timestamp, _: Duration) {}

    async fn complete(&self, _: &Claim, _: Step, _: bool) -> Result<()> {
        Ok(())
    }

    async fn answer(&self, _: &Repository, questions: Vec<Question>) -> Result<Vec<(Question, Answer)>> {
        let tags = self.tags.lock().unwrap();
        let answers = questions.into_iter().filter_map(|question| {
            let Question::Tag(tag) = &question else { return None };
            let (_, record) = tags.iter().find(|(known, _)| known == tag)?;
            let answer = Answer::Tag(Fact::Known(Arc::new(record.clone())));
            Some((question, answer))
        });
        Ok(answers.collect())
    }

    async fn put_off(&self, _: &Claim, _: Timestamp) -> Result<()> {
        Ok(())
    }

    async fn listed(&self, _: &Repository, _: Option<Digest>, _: usize) -> Result<Vec<Digest>> {
        Ok(Vec::new())
    }

    async fn gone(&self, _: &Repository, _: Vec<Digest>) -> Result<()> {
        Ok(())
    }

    async fn open_violations(&self, _: &Repository, _: Vec<Option<Tag>>) -> Result<Vec<Violation>> {
        Ok(Vec::new())
    }

    async fn tags(&self, _: &Repository, after: Option<Tag>, limit: usize) -> Result<Vec<(Tag, TagRecord)>> {
        let tags = self.tags.lock().unwrap();
        Ok(tags.iter().filter(|(tag, _)| after.as_ref().is_none_or(|after| tag > after)).take(limit).cloned().collect())
    }

    async fn repositories(&self, _: Option<&Host>, _: Option<Repository>, _: usize) -> Result<Vec<Repository>> {
        Ok(Vec::new())
    }

    async fn recheck(&self, _: &Repository, _: Vec<Recheck>) -> Result<()> {
        Ok(())
    }

    async fn accept(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        reason: &str,
        _: Timestamp,
    ) -> Result<()> {
        let accepted = (format!("{repository}:{tag}"), digest.to_string(), reason.to_owned());
        self.accepted.lock().unwrap().push(accepted);
        Ok(())
    }

    async fn violations(&self, filter: ViolationFilter, paging: Paging) -> Result<Page<ViolationRow>> {
        let all = self.violations.lock().unwrap().clone();
        let items = all
            .into_iter()
            .filter(|row| filter.policy.as_deref().is_none_or(|p| p == &*row.violation.key.policy))
            .take(paging.limit)
            .collect();
        Ok(Page { items, next: Some("more".into()) })
    }

    async fn verdicts(&self, _: Option<Host>, _: Option<String>, _: Option<Tag>, _: Paging) -> Result<Page<String>> {
        Ok(Page { items: vec![r#"{"policy":"iot"}"#.into()], next: None })
    }

    async fn events(
        &self,
        _: Option<Timestamp>,
        source: Option<String>,
        _: Option<String>,
        paging: Paging,
    ) -> Result<Page<EventRow>> {
        let events = self.events.lock().unwrap();
        let items = events
            .iter()
            .rev()
            .enumerate()
            .filter(|(_, e)| source.as_deref().is_none_or(|s| s == &*e.source))
            .take(paging.limit)
            .map(|(n, e)| EventRow {
                number: n as i64,
                id: e.event.id.clone(),
                unauthenticated: false,
                source: e.source.to_string(),
                received_at: e.received_at,
                action: e.event.action,
                repository: e.repository.clone(),
                tag: e.event.tag.clone(),
                digest: e.event.digest.clone(),
                state: "queued".into(),
                fault: None,
            })
            .collect();
        Ok(Page { items, next: None })
    }

    async fn dead_letters(&self, _: Paging) -> Result<Page<DeadLetter>> {
        Ok(Page { items: self.dead.lock().unwrap().clone(), next: None })
    }

    async fn forget_dead_letter(&self, id: i64) -> Result<()> {
        self.dead.lock().unwrap().retain(|letter| letter.id != id);
        Ok(())
    }

    async fn outbox(&self, _: &str, _: Timestamp, _: usize) -> Result<Vec<OutboxItem>> {
        Ok(Vec::new())
    }

    async fn outbox_work(&self, _: Timestamp, _: Duration) {}

    async fn outbox_done(&self, _: Vec<i64>) -> Result<()> {
        Ok(())
    }

    async fn outbox_retry(&self, _: i64, _: Timestamp) -> Result<()> {
        Ok(())
    }

    async fn outbox_add(&self, _: Vec<NewAlert>) -> Result<()> {
        Ok(())
    }

    async fn get(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }

    async fn set(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn stats(&self) -> Result<Stats> {
        Ok(self.stats.lock().unwrap().clone())
    }

    async fn prune(&self, _: Retention, _: Timestamp) -> Result<Pruned> {
        Ok(Pruned::default())
    }

    async fn broken(&self) -> String {
        std::future::pending().await
    }

    async fn probe(&self) -> Result<()> {
        self.broken.lock().unwrap().map_or(Ok(()), |error| Err(error()))
    }
}

/// An answer, read by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Reads one answer and not a byte more; `None` at the connection's end.
pub async fn read_reply(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Reply> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut reply = Reply { status, head, body: String::new() };
    let mut body = vec![0; reply.header("content-length").map_or(0, |l| l.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    reply.body = String::from_utf8(body).unwrap();
    Some(reply)
}

/// Waits until `done`, for at most ten seconds.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain: {what}");
}
