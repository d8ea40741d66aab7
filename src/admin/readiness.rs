//! Whether the daemon can take events: a durable write succeeded recently and the backlog has room (T-64).
//!
//! It never depends on a registry or a sink: their outages are what the backlog is for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// When the daemon counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyLimits {
    /// Events waiting from which on new ones are refused.
    pub backlog_events: u64,
    /// How often a write is tried.
    pub every: Duration,
    /// How old the last success may be; a fault must show within 5 s.
    pub fresh: Duration,
}

impl Default for ReadyLimits {
    fn default() -> ReadyLimits {
        ReadyLimits { backlog_events: 1_000_000, every: Duration::from_secs(2), fresh: Duration::from_secs(4) }
    }
}

/// What is known of the daemon's health.
#[derive(Debug)]
pub struct Readiness {
    limits: ReadyLimits,
    started: AtomicBool,
    stopping: CancellationToken,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    wrote_at: Option<Instant>,
    fault: Option<String>,
    queued: u64,
}

impl Readiness {
    /// Not ready until [`Readiness::started`], and no longer from `stopping` on.
    pub fn new(limits: ReadyLimits, stopping: CancellationToken) -> Readiness {
        Readiness { limits, started: AtomicBool::new(false), stopping, seen: Mutex::default() }
    }

    /// Everything is wired and listens: from now on only the store decides.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Why the daemon is not ready, for people; nothing when it is.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.started.load(Ordering::Acquire) {
            reasons.push("starting".to_owned());
        }
        if self.stopping.is_cancelled() {
            reasons.push("stopping".to_owned());
        }
        let seen = self.seen();
        if let Some(fault) = &seen.fault {
            reasons.push(format!("the store cannot record: {fault}"));
        } else if seen.wrote_at.is_none_or(|at| at.elapsed() > self.limits.fresh) {
            reasons.push("no write to the store has succeeded lately".to_owned());
        }
        if seen.queued >= self.limits.backlog_events {
            reasons.push(format!("the backlog is full: {} events wait", seen.queued));
        }
        reasons
    }

    /// Tries a durable write again and again until the end.
    pub async fn watch<S: Store>(&self, store: &S) {
        loop {
            self.look(store).await;
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(self.limits.every) => {}
            }
        }
    }

    async fn look<S: Store>(&self, store: &S) {
        let probed = tokio::time::timeout(self.limits.fresh, store.probe()).await;
        let queued = tokio::time::timeout(self.limits.fresh, store.stats()).await;
        let mut seen = self.seen();
        let before = seen.fault.is_some();
        seen.fault = match probed {
            Ok(Ok(())) => {
                seen.wrote_at = Some(Instant::now());
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("a write took too long".to_owned()),
        };
        if let Ok(Ok(stats)) = queued {
            seen.queued = stats.queued;
        }
        match &seen.fault {
            Some(fault) if !before => tracing::error!(fault, "the store cannot record; events are refused"),
            None if before => tracing::info!("the store records again"),
            _ => {}
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
