//! How a step ends that did not go through: its claim is given back, what spoiled it is tried again by itself, and
//! what can never be done is kept for people. Nothing waits for a lease to run out.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use super::portion::resolutions;
use super::work::{AGAIN, WorkError, after, fraction};
use super::{LEASE, Pipeline, STORE_PAUSE};
use crate::alert::{self, Alert, Topic, Trouble};
use crate::registry::Health;
use crate::store::{Claim, EventEnd, Recheck, Step, Store, StoreError};

/// Attempts after which an event is given up that makes the program itself fail: with the pauses of `AGAIN`, over an
/// hour. What the registry does not answer is never given up.
const ATTEMPTS_MAX: u32 = 16;
/// How long people are told of an event that was given up: nothing mends it, and the next sweep finds what it told.
const GIVEN_UP_STAYS: Duration = Duration::from_secs(24 * 60 * 60);
/// When a step is tried again while another one finds out whether its registry is back.
const UNPROVEN_PAUSE: Duration = Duration::from_millis(500);

impl<S: Store> Pipeline<S> {
    /// One step of one repository, whatever comes.
    pub(super) async fn step(&self, claim: Claim) {
        let host = claim.repository.host.clone();
        let health = self.registries.get(&host).map_or(Health::Well, |client| client.health());
        let proves = match health {
            Health::Well => false,
            // Asking would only hold a place that other registries could use.
            Health::Paused(pause) => return self.give_back(&claim, pause).await,
            Health::Unproven if self.proving().insert(host.clone()) => true,
            Health::Unproven => return self.give_back(&claim, UNPROVEN_PAUSE).await,
        };
        let part = super::portion::portion(&claim);
        let result = AssertUnwindSafe(self.work(&part)).catch_unwind().await;
        if proves {
            self.proving().remove(&host);
        }
        match result {
            Ok(Ok(())) => {}
            Ok(Err(endless @ WorkError::Endless(_))) => self.spoiled(&part, &endless.to_string()).await,
            Ok(Err(WorkError::Store(error))) => self.unrecorded(&claim, &part, error).await,
            Err(panic) => {
                self.metrics.panicked();
                self.spoiled(&part, &format!("a fault of the program: {}", words(&*panic))).await;
            }
        }
    }

    /// What the store's fault means for a step.
    async fn unrecorded(&self, claim: &Claim, part: &Claim, error: StoreError) {
        match error {
            StoreError::Fenced(repository) => {
                tracing::warn!(image.repository = %repository, "the claim was lost; the step is done elsewhere");
            }
            error @ StoreError::Broken(_) => {
                tracing::error!(image.repository = %claim.repository, %error, "the step could not be recorded; it is repeated at the next start");
            }
            error if error.is_transient() => {
                tracing::error!(image.repository = %claim.repository, %error, "the step could not be recorded; it will be repeated");
                self.give_back(claim, STORE_PAUSE).await;
            }
            error => self.spoiled(part, &error.to_string()).await,
        }
    }

    fn proving(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<crate::image::Host>> {
        self.proving.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives a claim back untouched, for so long.
    pub(super) async fn give_back(&self, claim: &Claim, pause: Duration) {
        self.insist(|| async {
            // Spread, so that all repositories of a registry do not come back in one moment.
            let until = after(self.clock.now(), pause + pause.mul_f64(fraction() / 5.0));
            self.store.put_off(claim, until).await
        })
        .await;
    }

    /// Tries what spoiled a step again by itself, later and later.
    async fn spoiled(&self, part: &Claim, fault: &str) {
        let repository = &part.repository;
        tracing::error!(image.repository = %repository, fault, subjects = resolutions(part), "the step failed; what is in it is tried again one by one");
        let now = self.clock.now();
        let mut given_up = None;
        for queued in part.events.iter().filter(|queued| queued.attempts + 1 >= ATTEMPTS_MAX) {
            let message = format!("the event {} of {repository} is given up: {fault}", queued.id);
            // Beside what cannot be determined of the repository itself, which is over by being determined.
            let alert = Alert::about_self(Topic::UndeterminedForLong, &format!("{repository} (event)"), &message, now);
            given_up = Some(Trouble { until: Some(after(now, GIVEN_UP_STAYS)), ..alert.into() });
        }
        if let Some(trouble) = given_up {
            alert::begins(&*self.store, &self.sinks, trouble).await;
        }
        self.insist(|| async {
            let now = self.clock.now();
            let mut step = Step::default();
            for queued in &part.events {
                let failures = queued.attempts + 1;
                let end = if failures < ATTEMPTS_MAX {
                    EventEnd::Retry { at: after(now, AGAIN.delay(failures, fraction())), fault: fault.to_owned() }
                } else {
                    EventEnd::Dead { fault: fault.to_owned() }
                };
                step.events.push((queued.id, end));
            }
            for recheck in &part.rechecks {
                let attempts = recheck.attempts + 1;
                let due = after(now, AGAIN.delay(attempts, fraction()));
                step.rechecked.push(recheck.tag.clone());
                step.rechecks.push(Recheck { due, attempts, ..recheck.clone() });
            }
            self.store.complete(part, step, false).await
        })
        .await;
    }

    /// Writes what gives a claim back, until it is written, the claim is lost or the store is broken: at the end of
    /// the lease the work comes back in any case.
    async fn insist<F: Future<Output = Result<(), StoreError>>>(&self, mut write: impl FnMut() -> F) {
        if cfg!(sabotage = "no_giving_back") {
            return;
        }
        let start = tokio::time::Instant::now();
        while start.elapsed() < LEASE {
            match write().await {
                Err(error) if error.is_transient() => tokio::time::sleep(STORE_PAUSE).await,
                Ok(()) | Err(StoreError::Fenced(_)) => return,
                Err(error) => {
                    tracing::error!(%error, "a claim could not be given back; its work waits for the end of the lease");
                    return;
                }
            }
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
