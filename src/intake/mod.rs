//! The events listener: who may send, what was sent, and an answer only after it is durably recorded.
//!
//! A request goes route → head → credential → body → signature → format → registry → store → answer. What
//! goes wrong on the way is a `respond::Refusal`, and only `respond` turns one into a status. This room
//! touches incoming connections and the store; it never calls anybody, least of all a host that an event names.

mod auth;
mod body;
mod receive;
mod record;
mod reread;
mod respond;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::event::{Event, Format};
use crate::image::Host;
use crate::listen::{self, Server, Tls};
use crate::metrics::{EventCounters, Listener, Metrics};
use crate::store::{Store, StoreError};

pub use auth::{Auth, CertificateSource, KeySource, NoCertificate};
pub use reread::Retried;

/// What the listener grants (threat model, section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections and their times.
    pub connection: listen::Limits,
    /// Bytes of a body of a sender that tells of one thing at a time.
    pub event_bytes: usize,
    /// Bytes of a body of a sender that batches: Event Grid, Distribution, GitLab.
    pub batch_bytes: usize,
    /// Bytes of all bodies being read or recorded.
    pub buffered_bytes: usize,
    /// Requests being recorded at once; beyond, the answer is 503 at once instead of a queue (T-14).
    pub in_flight: usize,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// Time for recording and answering, from the body's last byte.
    pub answer_time: Duration,
    /// The same for senders that wait for 1 s by default and stall behind an event that fails (Distribution).
    pub answer_time_impatient: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connection: listen::Limits::default(),
            event_bytes: 256 * 1024,
            batch_bytes: 1024 * 1024,
            buffered_bytes: 64 * 1024 * 1024,
            in_flight: 1_024,
            target_bytes: 2 * 1024,
            answer_time: Duration::from_secs(2),
            answer_time_impatient: Duration::from_millis(800),
        }
    }
}

/// A configured sender.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, as in `POST /v1/events/{name}`.
    pub name: Arc<str>,
    /// The shape of its payloads; never guessed.
    pub format: Format,
    /// What its requests must carry.
    pub auth: Auth,
    /// The registry of events that name none.
    pub registry: Option<Host>,
    /// The registries that its events may name, each under its own name and its aliases: name → configured
    /// registry. What an event names is looked up here and used for nothing else (T-17).
    pub registries: HashMap<Host, Host>,
    /// Whether the sender asks before it acts and is to be answered by the [`Admission`].
    pub admission: bool,
}

/// Whether what a sender is about to do may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may, or nothing is known against it.
    Allow,
    /// It may not.
    Deny {
        /// Why, for the one who pushes.
        reason: String,
    },
}

/// A future that a hook returns.
pub type HookFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Answers senders that ask before they act, from the record alone, within the answer deadline.
pub trait Admission: Send + Sync + 'static {
    /// Decides about the events of one request at their configured registries.
    ///
    /// An error is the store's: the sender is told to ask again.
    fn decide<'a>(
        &'a self,
        source: &'a str,
        events: &'a [(Host, Event)],
    ) -> HookFuture<'a, Result<Decision, StoreError>>;
}

/// Confirms subscriptions that wait for a call. The address is checked to be the service's own.
pub trait Confirm: Send + Sync + 'static {
    /// Begins to call `url` and returns at once; `false` where the topic is not one that the source takes.
    fn confirm(&self, source: &str, topic: &str, url: &str) -> bool;
}

/// Hears of dead letters once they are kept.
pub trait Buried: Send + Sync + 'static {
    /// One was kept; returns at once.
    fn buried(&self, source: &str, fault: &str);
}

/// What the rest of the program does for the listener.
#[derive(Clone, Default)]
pub struct Hooks {
    /// For sources with `admission`; without it everything is allowed.
    pub admission: Option<Arc<dyn Admission>>,
    /// For SNS; without it a subscription is kept as a dead letter that says what to do.
    pub confirm: Option<Arc<dyn Confirm>>,
    /// Told of dead letters.
    pub buried: Option<Arc<dyn Buried>>,
}

/// A source with what it is counted by.
struct Known {
    source: Source,
    counters: EventCounters,
}

/// The sources in force, replaced as a whole. Clones are the same.
#[derive(Clone)]
pub struct Sources {
    table: Arc<ArcSwap<HashMap<Box<str>, Arc<Known>>>>,
    metrics: Arc<Metrics>,
}

impl Sources {
    /// These sources; their names must have been announced to `metrics`.
    pub fn new(sources: Vec<Source>, metrics: Arc<Metrics>) -> Sources {
        let this = Sources { table: Arc::default(), metrics };
        this.replace(sources);
        this
    }

    /// Puts other sources in force, for requests from now on.
    pub fn replace(&self, sources: Vec<Source>) {
        let table = sources
            .into_iter()
            .map(|source| {
                let counters = self.metrics.event_counters(&source.name);
                (source.name.as_ref().into(), Arc::new(Known { source, counters }))
            })
            .collect();
        self.table.store(Arc::new(table));
    }

    fn find(&self, name: &str) -> Option<Arc<Known>> {
        self.table.load().get(name).cloned()
    }
}

/// The listener's service.
pub struct Intake<S> {
    sources: Sources,
    limits: Limits,
    hooks: Hooks,
    store: Arc<S>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    must_end: CancellationToken,
    in_flight: Semaphore,
    buffered: AtomicUsize,
}

impl<S: Store> Intake<S> {
    /// A listener of `sources` that records in `store`. `must_end` is cancelled when the store is broken:
    /// nothing more may be acknowledged, and the process must end with an error.
    pub fn new(
        sources: Sources,
        limits: Limits,
        hooks: Hooks,
        store: Arc<S>,
        clock: Arc<dyn Clock>,
        must_end: CancellationToken,
    ) -> Intake<S> {
        Intake {
            in_flight: Semaphore::new(limits.in_flight),
            buffered: AtomicUsize::new(0),
            metrics: sources.metrics.clone(),
            sources,
            limits,
            hooks,
            store,
            clock,
            must_end,
        }
    }

    /// Serves until `stop`, then accepts no more, finishes the requests at hand and returns. Whoever does not
    /// wait that long ends the process: nothing that was acknowledged is lost.
    pub async fn serve(self, socket: TcpListener, tls: Option<Arc<Tls>>, stop: CancellationToken) {
        let server = Server {
            socket,
            tls,
            listener: Listener::Events,
            limits: self.limits.connection.clone(),
            metrics: self.metrics.clone(),
        };
        server.serve(self, stop).await;
    }
}
