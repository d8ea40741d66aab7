//! The admin listener: health, metrics, the JSON API and a page for people.
//!
//! On an own port, loopback unless configured otherwise. Every route stands in one table with what it asks of
//! the caller (`routes`); whatever changes state needs a credential, always (T-63). It reads and writes the
//! store, and has `check` done by a hook; it calls nobody.

mod access;
mod api;
mod query;
mod readiness;
mod respond;
mod routes;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::image::Reference;
use crate::listen::{self, Answer, Peer, Server, Service, Tls};
use crate::metrics::{Listener, Metrics};
use crate::store::Store;

pub use access::{Tokens, local_token};
pub use readiness::{Readiness, ReadyLimits};
pub use routes::{Access, ROUTES, Route};

use respond::Fault;
use routes::Handler;

/// Largest body: a hundred references and a reason.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Time for reading a body.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Time for an answer out of the record.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Time for a check, which asks registries, and for reading everything again that could not be read.
const CHECK_TIME: Duration = Duration::from_secs(120);

/// Why a check gave no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A reference names a registry that is not configured, or the like: the caller's to mend.
    #[error("{0}")]
    Refused(String),
    /// It may work later.
    #[error("{0}")]
    Unavailable(String),
}

/// A future that a hook returns.
pub type HookFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Judges images now, against the daemon's record.
pub trait Check: Send + Sync + 'static {
    /// The report, as JSON, of `references`.
    fn check(&self, references: Vec<Reference>) -> HookFuture<'_, Result<String, CheckError>>;
}

/// Reads dead letters again.
pub trait Retry: Send + Sync + 'static {
    /// All of them, by what the daemon knows now; what became of them, as JSON.
    fn retry(&self) -> HookFuture<'_, Result<String, CheckError>>;
}

/// What the rest of the program does for the listener.
#[derive(Clone)]
pub struct Hooks {
    /// For `POST /api/v1/check`.
    pub check: Arc<dyn Check>,
    /// For `POST /api/v1/dead-letters/retry`.
    pub retry: Arc<dyn Retry>,
    /// The sources that take events from anybody: marked so wherever they are listed.
    pub open: Arc<HashSet<String>>,
}

/// The listener's service.
pub struct Admin<S> {
    store: Arc<S>,
    readiness: Arc<Readiness>,
    hooks: Hooks,
    tokens: Tokens,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl<S: Store> Admin<S> {
    /// A listener that shows what `store` and `metrics` hold.
    pub fn new(
        store: Arc<S>,
        readiness: Arc<Readiness>,
        hooks: Hooks,
        tokens: Tokens,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Admin<S> {
        Admin { store, readiness, hooks, tokens, metrics, clock }
    }

    /// Serves until `stop`, then accepts no more, finishes the requests at hand and returns.
    pub async fn serve(self, socket: TcpListener, tls: Option<Arc<Tls>>, stop: CancellationToken) {
        let limits = listen::Limits {
            // Scrapers, probes, a few people: small numbers keep descriptors for senders.
            connections: 512,
            connections_per_address: 256,
            connections_fresh: 512,
            ..listen::Limits::default()
        };
        let metrics = self.metrics.clone();
        Server { socket, tls, listener: Listener::Admin, limits, metrics }.serve(self, stop).await;
    }

    async fn route(&self, request: Request<Incoming>, peer: &Peer) -> Result<Answer, Fault> {
        let (head, body) = request.into_parts();
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let route = routes::find(head.uri.path(), method.as_str())?;
        self.tokens.check(route.access, &head.headers, peer)?;

        let handler = route.handler;
        let time = if matches!(handler, Handler::Check | Handler::Retry) { CHECK_TIME } else { ANSWER_TIME };
        let body = if method == Method::POST {
            let json = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|text| {
                text.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
            });
            // A page elsewhere can send forms here without asking the browser's leave, but not this type.
            if !json {
                return Err(Fault::MediaType);
            }
            read(body).await?
        } else {
            Bytes::new()
        };
        let query = head.uri.query().unwrap_or_default();
        let answered = tokio::time::timeout(time, self.handle(handler, query, &body));
        answered.await.map_err(|_| Fault::Unavailable("it took too long".to_owned()))?
    }

    async fn handle(&self, handler: Handler, query: &str, body: &[u8]) -> Result<Answer, Fault> {
        match handler {
            Handler::Live => Ok(respond::text("ok\n")),
            Handler::Ready => Ok(respond::ready(&self.readiness.reasons())),
            Handler::Metrics => self.metrics().await,
            Handler::OpenApi => Ok(respond::file("application/json", include_str!("openapi.json"))),
            Handler::Console => Ok(respond::page("text/html; charset=utf-8", include_str!("console.html"))),
            Handler::ConsoleScript => Ok(respond::page("text/javascript; charset=utf-8", include_str!("console.js"))),
            Handler::ConsoleStyle => Ok(respond::page("text/css; charset=utf-8", include_str!("console.css"))),
            Handler::Violations => api::violations(&*self.store, query).await,
            Handler::Verdicts => api::verdicts(&*self.store, query).await,
            Handler::History => api::history(&*self.store, query).await,
            Handler::Events => api::events(&*self.store, &self.hooks.open, query, self.clock.now()).await,
            Handler::Accept => api::accept(&*self.store, body, self.clock.now()).await,
            Handler::Check => api::check(&*self.hooks.check, body).await,
            Handler::DeadLetters => api::dead_letters(&*self.store, &self.hooks.open, query).await,
            Handler::Retry => api::retry(&*self.hooks.retry).await,
        }
    }

    async fn metrics(&self) -> Result<Answer, Fault> {
        // What the store holds is read for the scrape; without it the other series still tell what is wrong.
        if let Ok(stats) = self.store.stats().await {
            let age = stats.oldest.map_or(Duration::ZERO, |oldest| {
                Duration::try_from(self.clock.now().duration_since(oldest)).unwrap_or(Duration::ZERO)
            });
            self.metrics.queue(stats.queued, age);
            self.metrics.rejudging(stats.rejudging);
            self.metrics.store(stats.bytes, stats.available, stats.dead_letters);
            self.metrics
                .violations(stats.violations.iter().map(|v| (v.policy.as_str(), v.rule, v.severity, v.state, v.count)));
            self.metrics.alert_backlog(stats.outbox.iter().map(|(sink, count)| (sink.as_str(), *count)));
        }
        match self.metrics.encode() {
            Ok(text) => Ok(respond::metrics(text)),
            Err(error) => Err(Fault::Unavailable(error.to_string())),
        }
    }
}

impl<S: Store> Service for Admin<S> {
    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        self.route(request, peer).await.unwrap_or_else(|fault| fault.answer())
    }
}

async fn read(body: Incoming) -> Result<Bytes, Fault> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Fault::TooLarge),
        _ => Err(Fault::Body),
    }
}
