//! What the listeners have done by other rooms: answers to senders that ask first, alerts about dead letters, and
//! reading those again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::admin::{CheckError, Retry};
use crate::alert::{self, Alert, Topic, Trouble};
use crate::event::{Event, Stage};
use crate::image::{Host, Repository};
use crate::intake::{Admission, Buried, Decision, HookFuture, Sources};
use crate::metrics::{Enforcement, EnforcementResult};
use crate::pipeline::{Objection, Pipeline};
use crate::store::{Store, StoreError};

/// Dead letters of one source are told of at most so often; they are counted and listed all the same.
const ALERT_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// How long people are told of a source's dead letters after the last one, unless none is kept any more.
const ALERT_STAYS: SignedDuration = SignedDuration::from_hours(24);

/// Answers senders that ask before they act.
pub(super) struct Gate<S> {
    pub pipeline: Pipeline<S>,
}

impl<S: Store> Admission for Gate<S> {
    fn decide<'a>(
        &'a self,
        source: &'a str,
        events: &'a [(Host, Event)],
    ) -> HookFuture<'a, Result<Decision, StoreError>> {
        Box::pin(async move {
            for (host, event) in events.iter().filter(|(_, event)| event.stage == Stage::Intended) {
                let repository = Repository::new(host.clone(), event.repository.clone());
                let objections = self.pipeline.objections(&repository, event).await?;
                if objections.is_empty() {
                    continue;
                }
                let reason = reason(&repository, &objections);
                self.pipeline.metrics.enforcement(host.as_str(), Enforcement::Refuse, EnforcementResult::Done);
                tracing::info!(source, image.repository = %repository, reason, "a push was refused");
                return Ok(Decision::Deny { reason });
            }
            Ok(Decision::Allow)
        })
    }
}

/// Why it is refused, and what to do instead, for the one who pushes.
fn reason(repository: &Repository, objections: &[Objection]) -> String {
    let told: Vec<String> = objections
        .iter()
        .map(|Objection { policy, tag, finding }| {
            format!("{repository}:{tag}: {} ({policy}, {}). {}", finding.message, finding.rule, finding.advice)
        })
        .collect();
    told.join(" ").trim_end().to_owned()
}

/// Has people told of dead letters.
pub(super) struct DeadLetters<S> {
    pipeline: Pipeline<S>,
    tasks: TaskTracker,
    /// When each source's were last told of.
    told: Mutex<HashMap<String, Timestamp>>,
    /// Sources that take events from anybody.
    open: Arc<HashSet<String>>,
}

impl<S: Store> DeadLetters<S> {
    pub fn new(pipeline: Pipeline<S>, tasks: TaskTracker, open: Arc<HashSet<String>>) -> DeadLetters<S> {
        DeadLetters { pipeline, tasks, told: Mutex::default(), open }
    }

    /// Whether it is time to tell of `source` again.
    fn due(&self, source: &str, now: Timestamp) -> bool {
        let mut told = self.told.lock().unwrap_or_else(|e| e.into_inner());
        let due = told.get(source).is_none_or(|last| now.duration_since(*last) >= ALERT_EVERY);
        if due {
            told.insert(source.to_owned(), now);
        }
        due
    }
}

impl<S: Store> Buried for DeadLetters<S> {
    fn buried(&self, source: &str, fault: &str) {
        let now = self.pipeline.clock.now();
        if !self.due(source, now) {
            return;
        }
        let mark = if self.open.contains(source) { " (unauthenticated)" } else { "" };
        let message = format!("an event of the source {source}{mark} could not be read and is kept: {fault}");
        let alert = Alert::about_self(Topic::DeadLetter, source, &message, now);
        let trouble = Trouble { until: now.checked_add(ALERT_STAYS).ok(), ..alert.into() };
        let (store, sinks) = (self.pipeline.store.clone(), self.pipeline.sinks.clone());
        self.tasks.spawn(async move { alert::begins(&*store, &sinks, trouble).await });
    }
}

/// Reads dead letters again.
pub(super) struct Reread<S> {
    pub sources: Sources,
    pub store: Arc<S>,
}

impl<S: Store> Retry for Reread<S> {
    fn retry(&self) -> crate::admin::HookFuture<'_, Result<String, CheckError>> {
        Box::pin(async move {
            let retried = self.sources.retry(&*self.store).await;
            let retried = retried.map_err(|error| CheckError::Unavailable(error.to_string()))?;
            tracing::info!(?retried, "dead letters were read again");
            let (read, recorded, kept) = (retried.read, retried.recorded, retried.kept);
            Ok(json!({ "read": read, "recorded": recorded, "kept": kept }).to_string())
        })
    }
}
