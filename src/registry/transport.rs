//! One request and its whole answer, within limits. The only place that opens connections to registries.
//!
//! Follows nothing, decompresses nothing, knows no credential: those decisions are its callers'.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, DATE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;
use url::Url;

use super::address::{AddressRule, RefusedAddress, Resolver};
use super::error::{Exceeded, RegistryError, remote_text};
use super::gate::{Ended, Gate, Health};
use super::settings::{Budget, Observer, Operation, Scheme, Settings, SettingsError, StatusClass};
use crate::image::Host;

/// Most headers of an answer, and most bytes of them: registries send about 15 in 1 KiB.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// How much of an answer that is an error is read: enough to understand it.
const ERROR_BYTES_MAX: u64 = 16 << 10;
/// The pause for a 429 that names none.
const PAUSE_DEFAULT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: shorter than the minute after which common load balancers drop it.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// The pace at identity services: one sign-in an hour is usual; Azure's metadata service allows 20 a second.
const IDENTITY_CONCURRENCY: usize = 2;
const IDENTITY_PER_SECOND: u32 = 5;
/// Longest time for one connection; the next address is tried after it.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What is left of a session's budget.
pub(super) struct Spend {
    budget: Budget,
    requests: AtomicU32,
    bytes: AtomicU64,
    deadline: Instant,
}

impl Spend {
    pub(super) fn new(budget: Budget) -> Spend {
        Spend {
            requests: AtomicU32::new(budget.requests),
            bytes: AtomicU64::new(budget.bytes),
            deadline: Instant::now() + budget.time,
            budget,
        }
    }

    fn request(&self) -> Result<(), RegistryError> {
        let take = |left: u32| left.checked_sub(1);
        let took = self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        took.map(drop).map_err(|_| RegistryError::Budget(Exceeded::Requests(self.budget.requests)))
    }

    fn bytes(&self, n: usize) -> Result<(), RegistryError> {
        let take = |left: u64| left.checked_sub(n as u64);
        let took = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        took.map(drop).map_err(|_| RegistryError::Budget(Exceeded::Bytes(self.budget.bytes)))
    }

    /// The result of `work`, if it comes before the deadline.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, RegistryError> {
        tokio::time::timeout_at(self.deadline, work).await.map_err(|_| self.out_of_time())
    }

    fn out_of_time(&self) -> RegistryError {
        RegistryError::Budget(Exceeded::Time(self.budget.time))
    }
}

/// One request.
pub(super) struct Ask<'a> {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Most bytes of a body that comes with success.
    pub(super) limit: u64,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The value of a header that may occur once; twice has two meanings.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, RegistryError> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next();
        let text = first.map(HeaderValue::to_str).transpose();
        match (values.next(), text) {
            (None, Ok(text)) => Ok(text),
            _ => Err(RegistryError::Protocol(format!("an unusable `{name}` header"))),
        }
    }
}

pub(super) struct Transport {
    pool: Pool<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    rule: AddressRule,
    gate: Gate,
    timeout: Duration,
    registry: Host,
    observer: Arc<dyn Observer>,
}

impl Transport {
    pub(super) fn new(settings: &Settings, observer: Arc<dyn Observer>) -> Result<Transport, SettingsError> {
        let rule = if settings.allow_private { AddressRule::Private } else { AddressRule::Public };
        let gate = Gate::new(settings.concurrency, settings.requests_per_second);
        Transport::with(settings, observer, rule, settings.origin().scheme(), gate)
    }

    /// For the identity services of a registry's credential: at its own pace, which a registry's pause does not touch.
    pub(super) fn identity(settings: &Settings, observer: Arc<dyn Observer>) -> Result<Transport, SettingsError> {
        let gate = Gate::new(IDENTITY_CONCURRENCY, IDENTITY_PER_SECOND);
        Transport::with(settings, observer, AddressRule::Any, Scheme::Http, gate)
    }

    fn with(
        settings: &Settings,
        observer: Arc<dyn Observer>,
        rule: AddressRule,
        weakest: Scheme,
        gate: Gate,
    ) -> Result<Transport, SettingsError> {
        let connector = connector(Resolver::new(rule), settings.ca.as_deref(), weakest)?;
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(settings.concurrency)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEADER_BYTES_MAX)
            .build(connector);
        Ok(Transport { pool, rule, gate, timeout: settings.timeout, registry: settings.host.clone(), observer })
    }

    pub(super) fn registry(&self) -> &Host {
        &self.registry
    }

    pub(super) fn health(&self) -> Health {
        self.gate.health()
    }

    pub(super) fn unanswered(&self) -> Option<std::time::Duration> {
        self.gate.unanswered()
    }

    pub(super) fn answers(&self) -> bool {
        self.gate.answers()
    }

    pub(super) fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// Sends, and reads the answer. After a 429 it waits and sends again if the deadline allows.
    pub(super) async fn send(&self, spend: &Spend, ask: Ask<'_>) -> Result<Answer, RegistryError> {
        self.rule.check_literal(ask.url).map_err(refused)?;
        loop {
            spend.request()?;
            let Some(_permit) = self.gate.enter(spend.deadline).await? else { return Err(spend.out_of_time()) };
            let start = Instant::now();
            let result = self.exchange(spend, &ask).await;
            let status = result.as_ref().map_or(StatusClass::None, |answer| StatusClass::of(answer.status));
            self.observer.request(&self.registry, ask.operation, status, start.elapsed());
            let ended = ended(&result);
            if let Some(ended) = ended {
                self.gate.ended(ended);
            }
            match ended {
                Some(Ended::Throttled(pause)) => self.observer.throttled(&self.registry, pause),
                _ => return result,
            }
        }
    }

    async fn exchange(&self, spend: &Spend, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() =
            ask.url.as_str().parse().map_err(|_| RegistryError::Protocol("an address that is no URI".into()))?;
        *request.headers_mut() = ask.headers.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidewaiter/", env!("CARGO_PKG_VERSION"))));
        // A compressed body would have to be bounded twice; manifests are small.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let end = spend.deadline.min(Instant::now() + self.timeout);
        let work = async {
            let host = ask.url.host_str().unwrap_or_default();
            let response = self.pool.request(request).await.map_err(|error| classify(&error, host))?;
            read(spend, ask, response).await
        };
        match tokio::time::timeout_at(end, work).await {
            Ok(result) => result,
            Err(_) if end == spend.deadline => Err(spend.out_of_time()),
            Err(_) => Err(RegistryError::Timeout(self.timeout)),
        }
    }
}

async fn read(spend: &Spend, ask: &Ask<'_>, response: Response<Incoming>) -> Result<Answer, RegistryError> {
    let (parts, mut incoming) = response.into_parts();
    let status = parts.status.as_u16();
    let encoded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if parts.headers.get_all(CONTENT_ENCODING).iter().any(encoded) {
        return Err(RegistryError::Protocol("a compressed answer, which was not asked for".into()));
    }
    let good = parts.status.is_success();
    let limit = if good { ask.limit } else { ERROR_BYTES_MAX };
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if good && ask.method != Method::HEAD && declared.is_some_and(|n| n > limit) {
        return Err(RegistryError::TooLarge { limit });
    }
    // Grows as bytes come; the declared length reserves nothing.
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| classify(&error, ask.url.host_str().unwrap_or_default()))?;
        let Ok(data) = frame.into_data() else { continue };
        spend.bytes(data.len())?;
        if (body.len() + data.len()) as u64 > limit {
            if good {
                return Err(RegistryError::TooLarge { limit });
            }
            break;
        }
        body.extend_from_slice(&data);
    }
    Ok(Answer { status, headers: parts.headers, body: body.into() })
}

/// What a result says about the registry's health; `None` where it says nothing.
fn ended(result: &Result<Answer, RegistryError>) -> Option<Ended> {
    match result {
        Ok(answer) => Some(match (answer.status, retry_after(&answer.headers)) {
            (429, pause) => Ended::Throttled(pause.unwrap_or(PAUSE_DEFAULT)),
            (503, Some(pause)) => Ended::Throttled(pause),
            (500.., _) => Ended::Failed,
            _ => Ended::Answered,
        }),
        Err(RegistryError::Timeout(_) | RegistryError::Connect(_) | RegistryError::Tls(_)) => Some(Ended::Failed),
        // It answered, only not what we take.
        Err(RegistryError::TooLarge { .. } | RegistryError::Protocol(_)) => Some(Ended::Answered),
        // Our own limits ended it.
        Err(_) => None,
    }
}

/// `Retry-After` in seconds, or as a date, measured against the registry's own clock (RFC 9110, 10.2.3). At
/// least one second, so that a zero is no invitation to a storm.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp().as_second());
            let now = date(headers.get(DATE)?.to_str().ok()?)?;
            u64::try_from(date(text)? - now).unwrap_or_default()
        }
    };
    Some(Duration::from_secs(seconds.max(1)))
}

fn refused(RefusedAddress(host): RefusedAddress) -> RegistryError {
    RegistryError::PrivateAddress { host }
}

/// What went wrong, found in the chain of causes. An `io::Error` hides its inner error from `source`, so it is
/// opened by hand.
fn classify(error: &(dyn Error + 'static), host: &str) -> RegistryError {
    let mut next = Some(error);
    let mut deepest = String::new();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<RefusedAddress>() {
            return refused(found.clone());
        }
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return RegistryError::Tls(tls_words(found));
        }
        deepest = error.to_string();
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    RegistryError::Connect(remote_text(format!("{host}: {deepest}").as_bytes()))
}

/// What is wrong with a certificate, as far as people can mend it; else the library's own words.
fn tls_words(error: &rustls::Error) -> String {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let text = error.to_string();
    let words = match error {
        // The verifier's own error is not part of the library's surface; its name is what it prints.
        _ if text.contains("CaUsedAsEndEntity") => {
            "its certificate is one of an authority (CA:TRUE), which cannot stand for a server: give it a certificate with \
             CA:FALSE that the authority signed"
        }
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            "its certificate is signed by nobody who is trusted here (UnknownIssuer)"
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => "its certificate has expired: renew it",
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "its certificate is not valid yet: check both clocks"
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "its certificate is for other names than the one it was asked by"
        }
        _ => return remote_text(text.as_bytes()),
    };
    words.to_owned()
}

/// What opens connections: to addresses that `resolver` gives, with verified TLS. For rooms that fetch other
/// things by the same rules as well.
///
/// # Errors
/// `ca` holds no certificate, or one that cannot be read.
pub fn connector<R>(
    resolver: R,
    ca: Option<&[u8]>,
    weakest: Scheme,
) -> Result<HttpsConnector<HttpConnector<R>>, SettingsError> {
    let mut http = HttpConnector::new_with_resolver(resolver);
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_MAX));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls(ca)?);
    let builder = match weakest {
        Scheme::Https => builder.https_only(),
        Scheme::Http => builder.https_or_http(),
    };
    Ok(builder.enable_http1().wrap_connector(http))
}

/// Verified TLS with the system's authorities and those of `ca`. There is no way to turn verification off (T-28).
fn tls(ca: Option<&[u8]>) -> Result<ClientConfig, SettingsError> {
    static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
    let mut roots = SYSTEM
        .get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        })
        .clone();
    if let Some(pem) = ca {
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| SettingsError::Ca(error.to_string()))?;
            roots.add(certificate).map_err(|error| SettingsError::Ca(error.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(SettingsError::Ca("no `BEGIN CERTIFICATE` in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError::Ca(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_are_refused_are_told_with_what_to_do() {
        let of = |error: rustls::Error| tls_words(&error);
        let verifier = rustls::Error::General("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))".into());
        assert!(of(verifier).contains("give it a certificate with CA:FALSE"));
        assert!(of(rustls::CertificateError::Expired.into()).contains("has expired"));
        assert!(of(rustls::CertificateError::NotValidForName.into()).contains("for other names"));
        assert!(of(rustls::CertificateError::UnknownIssuer.into()).contains("UnknownIssuer"));
        assert!(of(rustls::CertificateError::Revoked.into()).contains("Revoked"));
    }

    #[test]
    fn t34_retry_after_is_understood_in_both_forms() {
        for (value, date, pause) in [
            ("60", None, Some(60)),
            ("0", None, Some(1)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some("Wed, 21 Oct 2026 07:28:00 GMT"), Some(30)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some("Wed, 21 Oct 2026 07:28:00 GMT"), Some(1)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", None, None),
            ("soon", None, None),
            ("-1", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            date.map(|date| headers.insert(DATE, date.parse().unwrap()));
            assert_eq!(retry_after(&headers), pause.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn t34_only_answers_count_as_health() {
        let answer = |status| Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::new() });
        for (result, expected) in [
            (answer(200), Some(Ended::Answered)),
            (answer(404), Some(Ended::Answered)),
            (answer(429), Some(Ended::Throttled(PAUSE_DEFAULT))),
            (answer(500), Some(Ended::Failed)),
            (answer(503), Some(Ended::Failed)),
            (Err(RegistryError::Timeout(Duration::ZERO)), Some(Ended::Failed)),
            (Err(RegistryError::TooLarge { limit: 1 }), Some(Ended::Answered)),
            (Err(RegistryError::Budget(Exceeded::Time(Duration::ZERO))), None),
            (Err(RegistryError::PrivateAddress { host: String::new() }), None),
        ] {
            assert_eq!(ended(&result), expected);
        }
    }

    #[test]
    fn t31_a_budget_is_spent_once() {
        let spend = Spend::new(Budget { requests: 2, bytes: 10, time: Duration::from_secs(1) });
        assert!(spend.request().is_ok() && spend.request().is_ok());
        assert_eq!(spend.request(), Err(RegistryError::Budget(Exceeded::Requests(2))));
        assert!(spend.bytes(10).is_ok());
        assert_eq!(spend.bytes(1), Err(RegistryError::Budget(Exceeded::Bytes(10))));
    }

    #[test]
    fn t28_a_private_authority_must_be_a_certificate() {
        assert!(matches!(tls(Some(b"")), Err(SettingsError::Ca(_))));
        assert!(matches!(
            tls(Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
            Err(SettingsError::Ca(_))
        ));
        assert!(tls(None).is_ok());
    }
}
