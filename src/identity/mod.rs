//! Fetches what proves who sends: the keys of token issuers, the certificates that Amazon SNS signs with, and
//! the page that confirms a subscription there.
//!
//! Addresses come from the configuration, or from a message that was found to name the service's own; https
//! only, no redirect, no credential, bounded in bytes, time and rate. It knows nothing of sources and events.

mod issuer;
mod sns;

use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{ACCEPT_ENCODING, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;
use url::Url;

use crate::registry::{AddressRule, Resolver, Scheme, SettingsError, connector};

pub use issuer::Issuer;
pub use sns::{Certificates, Subscriptions};

/// From the beginning of a request to the end of its answer.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Longest text of a fault, in characters.
const FAULT_CHARS_MAX: usize = 200;

/// How the outside is reached.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// PEM of authorities trusted beside the system's.
    pub ca: Option<Vec<u8>>,
    /// Whether loopback and private addresses may be connected to.
    pub allow_private: bool,
    /// Where connections go instead of where names lead: a private endpoint of the service. Certificates are
    /// verified for the name all the same.
    pub endpoint: Option<SocketAddr>,
}

/// Why nothing was fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The address is written as an address that may not be connected to.
    #[error("the address is a private one: set `allowPrivate` if that is meant")]
    Refused,
    /// No answer in time.
    #[error("no answer within {} s", REQUEST_TIME.as_secs())]
    Timeout,
    /// No connection, or one that broke.
    #[error("{0}")]
    Connection(String),
    /// An answer other than 200. A redirect is one.
    #[error("the answer was {0}")]
    Status(u16),
    /// More than is ever needed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// GET over https, and nothing else.
#[derive(Clone)]
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector<Names>>, Empty<Bytes>>,
    rule: AddressRule,
}

impl Fetch {
    /// A way outside.
    ///
    /// # Errors
    /// `reach.ca` holds no certificate, or one that cannot be read.
    pub fn new(reach: &Reach) -> Result<Fetch, SettingsError> {
        let rule = if reach.allow_private { AddressRule::Private } else { AddressRule::Public };
        let names = Names { system: Resolver::new(rule), endpoint: reach.endpoint };
        let connector = connector(names, reach.ca.as_deref(), Scheme::Https)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Asked once an hour: no connection is worth keeping.
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Fetch { client, rule })
    }

    /// The body at `url`, of at most `limit` bytes.
    async fn get(&self, url: &Url, limit: usize) -> Result<Vec<u8>, FetchError> {
        self.rule.check_literal(url).map_err(|_| FetchError::Refused)?;
        let got = tokio::time::timeout(REQUEST_TIME, self.exchange(url, limit)).await;
        got.unwrap_or(Err(FetchError::Timeout))
    }

    async fn exchange(&self, url: &Url, limit: usize) -> Result<Vec<u8>, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url.as_str().parse().map_err(|_| FetchError::Connection("no address".to_owned()))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidewaiter/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let response = self.client.request(request).await.map_err(|error| broken(&error))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = response.into_body();
        // Grows as bytes come; a declared length reserves nothing.
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            if read.len() + data.len() > limit {
                return Err(FetchError::TooLarge(limit));
            }
            read.extend_from_slice(&data);
        }
        Ok(read)
    }
}

/// The innermost cause, which says it in the words of the system or of TLS and knows no path or query.
fn broken(error: &(dyn Error + 'static)) -> FetchError {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    FetchError::Connection(text.chars().filter(|c| !c.is_control()).take(FAULT_CHARS_MAX).collect())
}

/// Addresses of names: the permitted ones, or the endpoint's.
#[derive(Debug, Clone, Copy)]
struct Names {
    system: Resolver,
    endpoint: Option<SocketAddr>,
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        match self.endpoint {
            Some(endpoint) => Box::pin(async move { Ok(vec![endpoint].into_iter()) }),
            None => self.system.call(name),
        }
    }
}
