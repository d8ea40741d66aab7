//! The way out: one POST to a sink, under one deadline, with no redirect followed, no proxy and no credential
//! that was not configured, reading no more of the answer than is needed (T-56).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::settings::{SettingsError, Target};

/// From the first byte of the connection to the end of the answer: Standard Webhooks asks for 15 to 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may take to be made, so that one dead address of several leaves time for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer is read: the longest useful one is a sentence.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Longest `Retry-After` that is obeyed: a sink that says a year is mistaken.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// A request that is ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub target: Target,
    pub content_type: &'static str,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// The beginning of the body, as text.
    pub body: String,
}

/// Why nothing came back. No address is in it: addresses are secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    #[error("no connection: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The way to a sink; tests put another in its place.
pub(super) trait Transport: Send + Sync + 'static {
    /// Sends one request, once.
    fn send(&self, request: Outgoing) -> impl Future<Output = Result<Answer, SendError>> + Send;
}

/// HTTP over TLS, or plain where the address says so.
#[derive(Clone)]
pub(super) struct HttpTransport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpTransport {
    /// A client that trusts the system's certificates and those in `ca_pem`.
    pub fn new(ca_pem: Option<&[u8]>) -> Result<HttpTransport, SettingsError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = ca_pem {
            let mut found = false;
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| SettingsError::Ca(e.to_string()))?;
                roots.add(certificate).map_err(|e| SettingsError::Ca(e.to_string()))?;
                found = true;
            }
            if !found {
                return Err(SettingsError::Ca("there is no certificate in it".to_owned()));
            }
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| SettingsError::Ca(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .pool_max_idle_per_host(2)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(HttpTransport { client })
    }

    async fn exchange(&self, outgoing: Outgoing) -> Result<Answer, SendError> {
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = outgoing.target.uri()?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(outgoing.content_type));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("tidewaiter/", env!("CARGO_PKG_VERSION"))));
        headers.extend(outgoing.headers);
        let response = self.client.request(request).await.map_err(send_error)?;
        let (head, mut body) = response.into_parts();
        let mut read = Vec::new();
        // The status decides; a body that breaks off or does not end takes nothing from it. What is not read to its
        // end closes the connection.
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                let room = ANSWER_BYTES_MAX - read.len();
                read.extend_from_slice(&data[..data.len().min(room)]);
                if read.len() == ANSWER_BYTES_MAX {
                    break;
                }
            }
        }
        Ok(Answer {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body: String::from_utf8_lossy(&read).into_owned(),
        })
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: Outgoing) -> Result<Answer, SendError> {
        tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request)).await.unwrap_or(Err(SendError::Timeout))
    }
}

fn send_error(error: hyper_util::client::legacy::Error) -> SendError {
    // The innermost cause says it in the words of the system or of TLS; none of them knows the path or query.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = super::text::fit(&cause.to_string(), 200, super::text::plain);
    if error.is_connect() { SendError::Connect(text) } else { SendError::Broken(text) }
}

/// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3), bounded. A date is compared with the answer's own,
/// so that our clock need not agree with the sink's; without one it says nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let wait = date(text)?.duration_since(date(headers.get(header::DATE)?.to_str().ok()?)?);
            Duration::try_from(wait).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// A date of HTTP, whose `GMT` readers of RFC 2822 take as UTC.
fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}
