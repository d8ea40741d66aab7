//! The conductor: resolve, judge, record.
//!
//! One repository at a time, in order, and different repositories side by side. An event is a hint; the
//! registry is the truth. The pipeline asks where the tag points now, fetches by digest what is not on record,
//! and hands the judge what it asks for; everything that follows is one transaction. A crash anywhere repeats
//! work and loses none. Touches nothing of its own: registries through `registry`, the record through `store`.

mod admit;
mod away;
mod end;
mod facts;
mod live;
mod look;
mod portion;
mod reconcile;
mod refresh;
mod rejudged;
mod unknown;
mod work;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alert::SinkInfo;
use crate::clock::Clock;
use crate::image::{Host, Repository};
use crate::metrics::Metrics;
use crate::policy::PolicySet;
use crate::registry::Client;
use crate::store::{Store, StoreError};

pub use admit::Objection;
pub use away::Reach;
pub use live::{Live, LiveError, Source};
pub use reconcile::{Plan, Progress, Reconcile, Sweep};
pub use rejudged::Rejudged;

/// Repositories worked on side by side. Each registry has a limit of its own; this bounds memory.
const REPOSITORIES_MAX: usize = 16;
/// Events of one repository taken in one step: a storm on one tag is one look and one verdict.
const EVENTS_MAX: usize = 256;
/// How long a claim is held. Longer than the longest step, so that nobody takes over one that is still under way:
/// a baseline's list and pages ([`refresh::BASELINE_TIME`] and what its last page may take) and then [`STEP_TIME`].
/// What fails is given back, so only a lost process makes anybody wait for it.
const LEASE: Duration = Duration::from_secs(150);
/// The longest that a step asks registries.
const STEP_TIME: Duration = Duration::from_secs(60);
/// A clock that differs by so much from the time that passed was set.
const CLOCK_STEP: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);
/// How often to look for work when nothing wakes: a floor under lost wake-ups.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a stop waits for steps under way: half of what stopping may take. A long one, such as a baseline, is left
/// and done again at the next start.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// The pause after the store did not answer.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// The registries that the daemon may talk to, each with its client.
#[derive(Clone, Default)]
pub struct Registries {
    clients: Arc<HashMap<Host, Client>>,
}

impl Registries {
    /// These clients, found by their host.
    pub fn new(clients: impl IntoIterator<Item = Client>) -> Registries {
        Registries { clients: Arc::new(clients.into_iter().map(|c| (c.host().clone(), c)).collect()) }
    }

    /// The client of a host.
    pub fn get(&self, host: &Host) -> Option<&Client> {
        self.clients.get(host)
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.clients.keys()
    }
}

/// The pipeline with all that it needs. Clones share everything.
pub struct Pipeline<S> {
    /// The record.
    pub store: Arc<S>,
    /// The registries.
    pub registries: Registries,
    /// The policies in force, swapped as a whole.
    pub policies: Arc<ArcSwap<PolicySet>>,
    /// The sinks that take alerts.
    pub sinks: Arc<[SinkInfo]>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The series.
    pub metrics: Arc<Metrics>,
    /// Repositories whose tags are on record, so that the store need not be asked again.
    pub baselined: Arc<Mutex<HashSet<Repository>>>,
    /// Registries of which one step finds out whether they are back.
    pub proving: Arc<Mutex<HashSet<Host>>>,
    /// When each registry's latest event was worked on.
    pub heard: Arc<Mutex<HashMap<Host, Timestamp>>>,
    /// What was judged of the latest change of policies.
    pub rejudged: Arc<Rejudged>,
}

impl<S> Clone for Pipeline<S> {
    fn clone(&self) -> Pipeline<S> {
        Pipeline {
            store: self.store.clone(),
            registries: self.registries.clone(),
            policies: self.policies.clone(),
            sinks: self.sinks.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            baselined: self.baselined.clone(),
            proving: self.proving.clone(),
            heard: self.heard.clone(),
            rejudged: self.rejudged.clone(),
        }
    }
}

impl<S: Store> Pipeline<S> {
    /// Works until `stop`, then lets the repositories at hand finish their step, for a few seconds, and returns.
    pub async fn run(self, stop: CancellationToken) {
        let (tasks, left) = (TaskTracker::new(), CancellationToken::new());
        let slots = Arc::new(tokio::sync::Semaphore::new(REPOSITORIES_MAX));
        let mut watched = (tokio::time::Instant::now(), self.clock.now());
        while !stop.is_cancelled() {
            let now = self.clock.now();
            let passed = jiff::SignedDuration::try_from(watched.0.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
            let step = now.duration_since(watched.1).saturating_sub(passed);
            watched = (tokio::time::Instant::now(), now);
            if step.abs() > CLOCK_STEP {
                tracing::warn!(seconds = step.as_secs(), "the clock was set");
                // Leases are told by the clock: what is under way ends before anything is claimed by the new time.
                let all = slots.acquire_many(REPOSITORIES_MAX as u32).await;
                drop(all);
            }
            let free = tokio::select! {
                () = stop.cancelled() => break,
                free = slots.clone().acquire_owned() => free,
            };
            let Ok(first) = free else { break };
            let wanted = 1 + slots.available_permits();
            match self.store.claim(self.clock.now(), wanted, EVENTS_MAX, LEASE).await {
                Ok(claims) if claims.is_empty() => {
                    drop(first);
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.store.work(self.clock.now(), LOOK_EVERY) => {}
                    }
                }
                Ok(claims) => {
                    let mut first = Some(first);
                    for claim in claims {
                        let permit = match first.take() {
                            Some(permit) => permit,
                            None => match slots.clone().acquire_owned().await {
                                Ok(permit) => permit,
                                Err(_) => break,
                            },
                        };
                        let this = self.clone();
                        let left = left.clone();
                        tasks.spawn(async move {
                            tokio::select! {
                                () = left.cancelled() => {}
                                () = this.step(claim) => {}
                            }
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot claim work; trying again");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(STORE_PAUSE) => {}
                    }
                }
            }
        }
        tasks.close();
        if tokio::time::timeout(STOP_WAIT, tasks.wait()).await.is_err() {
            tracing::info!(steps = tasks.len(), "steps that take long are left; they are done again at the next start");
            left.cancel();
            tasks.wait().await;
        }
    }

    /// Works until nothing is due, where nobody else works: what `audit --record` asked for is then on record.
    /// What failed is on record as due later.
    ///
    /// # Errors
    /// The store's.
    pub async fn drain(&self) -> Result<(), StoreError> {
        loop {
            let claims = self.store.claim(self.clock.now(), REPOSITORIES_MAX, EVENTS_MAX, LEASE).await?;
            if claims.is_empty() {
                return Ok(());
            }
            futures_util::future::join_all(claims.into_iter().map(|claim| self.step(claim))).await;
        }
    }
}
