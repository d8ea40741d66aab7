//! The daemon's own ports: accepting, TLS, limits per connection, strict HTTP/1.1 framing, draining.
//!
//! Knows connections, not what is said over them: that is a [`Service`] handed in by `intake` or `admin`. It
//! touches incoming connections and the certificate files, and calls nobody.

mod gate;
mod guard;
mod scan;
mod self_signed;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{Limit, Listener, Metrics};
use gate::{Gate, Permit};
use guard::Guard;

pub use self_signed::{SelfSigned, SelfSignedError};
pub use tls::{ClientCertificate, Tls, TlsError, TlsFiles};

/// An answer: its body is at hand as a whole.
pub type Answer = Response<Full<Bytes>>;

/// How long to wait after the system refused to accept (descriptors are used up): long enough not to spin,
/// short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one listener grants its clients (threat model, section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address; of one /64 network with IPv6.
    pub connections_per_address: usize,
    /// Connections that have not yet had a request answered with success: the rest is kept for those that have.
    pub connections_fresh: usize,
    /// TLS handshakes at once: each costs memory and a signature.
    pub handshakes: usize,
    /// Time for a TLS handshake.
    pub handshake_time: Duration,
    /// Time for a request's head, and for the first one to begin.
    pub head_time: Duration,
    /// Time for a request's body.
    pub body_time: Duration,
    /// Time between requests.
    pub idle_time: Duration,
    /// Time that a written answer may wait for the client to take it.
    pub write_time: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Fields of a request's head.
    pub head_fields: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 8_192,
            connections_per_address: 256,
            connections_fresh: 6_144,
            handshakes: 1_024,
            handshake_time: Duration::from_secs(5),
            head_time: Duration::from_secs(5),
            body_time: Duration::from_secs(5),
            idle_time: Duration::from_secs(30),
            write_time: Duration::from_secs(5),
            head_bytes: 16 * 1024,
            head_fields: 64,
        }
    }
}

/// Who is at the other end.
#[derive(Debug)]
pub struct Peer {
    /// The address of the connection; forwarding headers are not believed (T-16).
    pub address: SocketAddr,
    /// The client's certificate, verified against the configured authorities, where it showed one.
    pub certificate: Option<ClientCertificate>,
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. A panic in it is confined to the request: answered 500, logged and counted (T-08).
    fn answer(&self, request: Request<Incoming>, peer: &Peer) -> impl Future<Output = Answer> + Send;
}

/// A bound port and how it is served.
pub struct Server {
    /// The port.
    pub socket: TcpListener,
    /// TLS; `None` for plain http.
    pub tls: Option<Arc<Tls>>,
    /// Which of the daemon's ports this is, for metrics.
    pub listener: Listener,
    /// What clients are granted.
    pub limits: Limits,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

/// What the tasks of one server share.
struct Shared<S> {
    service: S,
    tls: Option<Arc<Tls>>,
    listener: Listener,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    gate: Arc<Gate>,
    stop: CancellationToken,
}

impl Server {
    /// Serves until `stop`, then accepts no more, finishes the requests at hand and returns.
    pub async fn serve<S: Service>(self, service: S, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let gate = Gate::new(&self.limits, self.metrics.connections(self.listener));
        let shared = Arc::new(Shared {
            service,
            tls: self.tls,
            listener: self.listener,
            limits: Arc::new(self.limits),
            metrics: self.metrics,
            gate,
            stop: stop.clone(),
        });
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => match shared.gate.enter(address.ip()) {
                    Ok(permit) => {
                        connections.spawn(Shared::connection(shared.clone(), stream, address, permit));
                    }
                    // Closed at once: an answer would cost a handshake.
                    Err(limit) => shared.metrics.limited(limit),
                },
                Err(error) => {
                    tracing::warn!(%error, listener = shared.listener.as_str(), "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

impl<S: Service> Shared<S> {
    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, permit: Permit) {
        // Answers are small and waited for; a refusal only costs latency.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http(stream, Peer { address, certificate: None }, permit).await;
        };
        let Some(slot) = self.gate.handshake() else {
            return self.metrics.limited(Limit::Handshakes);
        };
        let handshake = tokio::time::timeout(self.limits.handshake_time, tls.accept(stream));
        let shaken = tokio::select! {
            biased;
            shaken = handshake => shaken,
            () = self.stop.cancelled() => return,
        };
        drop(slot);
        match shaken {
            Ok(Ok((stream, certificate))) => self.http(stream, Peer { address, certificate }, permit).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
            Err(_) => self.metrics.limited(Limit::HandshakeTime),
        }
    }

    async fn http<T>(&self, stream: T, peer: Peer, permit: Permit)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let guarded = Guard::new(stream, self.limits.clone(), self.metrics.clone());
        let proven = AtomicBool::new(false);
        let service = hyper::service::service_fn(|request| {
            let (peer, permit, proven) = (&peer, &permit, &proven);
            async move {
                let answer = self.confined(request, peer).await;
                if answer.status().is_success() && !proven.swap(true, Ordering::Relaxed) {
                    permit.prove();
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.half_close(false).header_read_timeout(None).max_headers(self.limits.head_fields);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(guarded), service));
        let served = tokio::select! {
            biased;
            served = connection.as_mut() => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(address = %peer.address, %error, "a connection ended early");
        }
    }

    /// Answers, with a panic turned into 500.
    async fn confined(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let began = Instant::now();
        // Boxed for as long as it takes: its place would else be kept for each connection that is kept.
        let mut answering = Box::pin(self.service.answer(request, peer));
        // What a panic leaves half done is dropped with the future; shared state is behind locks that are
        // taken over when poisoned, and the store keeps its own.
        let answered = std::future::poll_fn(|context| {
            match std::panic::catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context))) {
                Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
                Ok(Poll::Pending) => Poll::Pending,
                Err(_) => Poll::Ready(Err(())),
            }
        })
        .await;
        let answer = answered.unwrap_or_else(|()| {
            self.metrics.panicked();
            tracing::error!(
                listener = self.listener.as_str(),
                "a request met a fault of the program; please report it"
            );
            fault_of_the_program()
        });
        self.metrics.answered(self.listener, answer.status().as_u16(), began.elapsed());
        answer
    }
}

fn fault_of_the_program() -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"{\"error\":\"a fault of the program\"}\n")));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
