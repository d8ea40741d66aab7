//! What a client is told: one registry, where it is reached, who asks, and how fast. Made by the
//! configuration or by the command line, checked once when the client is built.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::azure::Azure;
use crate::image::Host;

/// `http` or `https`; the latter is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// Scheme, host and port: what a credential is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// The origin of `host` under `scheme`, at its own port or the scheme's usual one.
    pub fn of_host(scheme: Scheme, host: &Host) -> Origin {
        let usual = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        Origin { scheme, host: host.name().into(), port: host.port().unwrap_or(usual) }
    }

    /// The origin of an address; `None` for schemes that are neither http nor https.
    pub fn of_url(url: &Url) -> Option<Origin> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Some(Origin { scheme, host: url.host_str()?.into(), port: url.port_or_known_default()? })
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        self.host.parse::<Host>().is_ok_and(|host| host.is_loopback())
    }

    /// The address of `path_and_query` here.
    pub(super) fn url(&self, path_and_query: &str) -> Result<Url, url::ParseError> {
        Url::parse(&format!("{self}{path_and_query}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

impl FromStr for Origin {
    type Err = SettingsError;

    /// Parses `https://HOST[:PORT]` with nothing after it.
    fn from_str(text: &str) -> Result<Origin, SettingsError> {
        let fault = || SettingsError::Endpoint(text.chars().take(160).flat_map(char::escape_default).collect());
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            _ => return Err(fault()),
        };
        let host: Host = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| fault())?;
        Ok(Origin::of_host(scheme, &host))
    }
}

/// A token service that is not at the registry's own origin, as Docker Hub has. Both values come from the
/// configuration, never from an answer (T-25).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenService {
    /// The realm that the registry's challenge must name, exactly.
    pub realm: Url,
    /// The service that the challenge must name, exactly.
    pub service: String,
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Nobody in particular: public content.
    Anonymous,
    /// A user name with a password, an access token in the place of one, or a robot account.
    Basic {
        /// The user name.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// A bearer token that the registry takes as it is.
    Token {
        /// The token.
        token: SecretString,
    },
    /// A refresh token that the token service turns into access tokens: `identitytoken` of the container tools'
    /// files.
    Identity {
        /// The refresh token.
        token: SecretString,
    },
    /// An Entra identity, at an Azure Container Registry.
    Azure(Azure),
}

impl Auth {
    /// Whether there is a secret that must not go in the clear.
    pub fn is_credential(&self) -> bool {
        !matches!(self, Auth::Anonymous)
    }
}

/// Requests in flight at one registry: what container tools use for one pull, times two or so.
const CONCURRENCY_DEFAULT: usize = 8;
/// Requests a second at one registry: 3,000 a minute, below the 5,000 that Azure's basic tier allows one identity.
const REQUESTS_PER_SECOND_DEFAULT: u32 = 50;
/// Requests a second at a registry on this machine, which nobody else pays for: as many as it answers.
const REQUESTS_PER_SECOND_LOCAL: u32 = 10_000;
/// One request with its answer. Registries answer metadata in well under a second; 10 s leaves room for two
/// attempts in a resolution of 30 s.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// One registry as a client is to use it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The registry's name in references.
    pub host: Host,
    /// Where it is really reached, if not at its name.
    pub endpoint: Option<Origin>,
    /// Who asks.
    pub auth: Auth,
    /// A token service elsewhere.
    pub token_service: Option<TokenService>,
    /// Certificate authorities in PEM, in addition to the system's.
    pub ca: Option<Vec<u8>>,
    /// Plain http. Never with a credential.
    pub insecure: bool,
    /// Whether loopback and private addresses may be reached.
    pub allow_private: bool,
    /// Most requests in flight.
    pub concurrency: usize,
    /// Most requests a second.
    pub requests_per_second: u32,
    /// Longest time for one request with its answer.
    pub timeout: Duration,
}

/// Requests a second where nothing is said.
fn usual_pace(host: &Host) -> u32 {
    if host.is_loopback() { REQUESTS_PER_SECOND_LOCAL } else { REQUESTS_PER_SECOND_DEFAULT }
}

impl Settings {
    /// `host` with the defaults: anonymous, https, public addresses only. `docker.io` is the one name that is
    /// not where its registry is; its endpoint and token service are well known and set here.
    pub fn new(host: Host) -> Settings {
        let (endpoint, token_service) = if host.as_str() == "docker.io" {
            let realm = Url::parse("https://auth.docker.io/token").ok();
            let service = realm.map(|realm| TokenService { realm, service: "registry.docker.io".to_owned() });
            ("https://registry-1.docker.io".parse().ok(), service)
        } else {
            (None, None)
        };
        Settings {
            requests_per_second: usual_pace(&host),
            host,
            endpoint,
            auth: Auth::Anonymous,
            token_service,
            ca: None,
            insecure: false,
            allow_private: false,
            concurrency: CONCURRENCY_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
        }
    }

    /// The origin that requests and the credential go to.
    pub fn origin(&self) -> Origin {
        let scheme = if self.insecure { Scheme::Http } else { Scheme::Https };
        self.endpoint.clone().unwrap_or_else(|| Origin::of_host(scheme, &self.host))
    }

    /// What the types do not rule out.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let origin = self.origin();
        if origin.scheme() == Scheme::Http {
            if !self.insecure {
                return Err(SettingsError::Insecure(origin.to_string()));
            }
            if self.auth.is_credential() {
                return Err(SettingsError::CredentialInClear(origin.to_string()));
            }
        }
        if let Some(service) = &self.token_service
            && (service.realm.scheme() != "https" || !service.realm.username().is_empty())
        {
            return Err(SettingsError::Realm);
        }
        if let Auth::Azure(azure) = &self.auth {
            azure.check()?;
        }
        if self.concurrency == 0 || self.requests_per_second == 0 {
            return Err(SettingsError::NoPace);
        }
        Ok(())
    }
}

/// Why settings make no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not an origin.
    #[error("`{0}` is not an endpoint: write `https://HOST` or `https://HOST:PORT`, without a path")]
    Endpoint(String),
    /// Plain http without saying so.
    #[error("`{0}` is plain http: set `insecure: true` if that is meant")]
    Insecure(String),
    /// A credential that anybody on the way could read.
    #[error("no credential is sent to `{0}` over plain http: use https, or `auth: {{kind: anonymous}}`")]
    CredentialInClear(String),
    /// A token service that is not https.
    #[error("the realm of a token service must be an https address without user information")]
    Realm,
    /// An Entra identity that cannot be.
    #[error("the Azure identity is not usable: {0}")]
    Azure(String),
    /// A limit of nothing.
    #[error("`concurrency` and `requestsPerSecond` must be at least 1")]
    NoPace,
    /// The private authorities are not certificates.
    #[error("`ca` holds no usable certificate in PEM: {0}")]
    Ca(String),
}

/// What one resolution may use. The defaults are those of the threat model, section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most requests, token requests and redirects included.
    pub requests: u32,
    /// Most bytes of bodies.
    pub bytes: u64,
    /// Longest time, waiting for other work included.
    pub time: Duration,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { requests: 64, bytes: 32 << 20, time: Duration::from_secs(30) }
    }
}

/// What a request was for: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `HEAD` of a manifest.
    HeadManifest,
    /// `GET` of a manifest.
    GetManifest,
    /// `HEAD` of a blob.
    HeadBlob,
    /// `GET` of a blob.
    GetBlob,
    /// A page of tags.
    ListTags,
    /// A page of repositories.
    Catalog,
    /// The write lock of a tag or manifest.
    GetLock,
    /// A sign-in.
    Token,
    /// Whether a registry is there at all: asked by people, never by the daemon.
    Greet,
}

impl Operation {
    /// The stable lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::HeadManifest => "head-manifest",
            Operation::GetManifest => "get-manifest",
            Operation::HeadBlob => "head-blob",
            Operation::GetBlob => "get-blob",
            Operation::ListTags => "list-tags",
            Operation::Catalog => "catalog",
            Operation::GetLock => "get-lock",
            Operation::Token => "token",
            Operation::Greet => "greet",
        }
    }
}

/// How a request ended: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusClass {
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirect,
    /// 429.
    Throttled,
    /// 400 to 499.
    Client,
    /// 500 to 599, and what is no status at all.
    Server,
    /// No answer, or none that could be used.
    None,
}

impl StatusClass {
    /// The class of a status.
    pub fn of(status: u16) -> StatusClass {
        match status {
            200..=299 => StatusClass::Success,
            300..=399 => StatusClass::Redirect,
            429 => StatusClass::Throttled,
            400..=499 => StatusClass::Client,
            _ => StatusClass::Server,
        }
    }

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            StatusClass::Success => "2xx",
            StatusClass::Redirect => "3xx",
            StatusClass::Throttled => "429",
            StatusClass::Client => "4xx",
            StatusClass::Server => "5xx",
            StatusClass::None => "none",
        }
    }
}

/// What is told about requests as they end: the seam to the metrics. Called inline, so it must not block.
pub trait Observer: Send + Sync + 'static {
    /// A request ended.
    fn request(&self, registry: &Host, operation: Operation, status: StatusClass, took: Duration);
    /// The registry asked for a pause.
    fn throttled(&self, registry: &Host, pause: Duration);
    /// A sign-in ended.
    fn token_refresh(&self, registry: &Host, good: bool);
}

/// Nobody listens.
impl Observer for () {
    fn request(&self, _: &Host, _: Operation, _: StatusClass, _: Duration) {}
    fn throttled(&self, _: &Host, _: Duration) {}
    fn token_refresh(&self, _: &Host, _: bool) {}
}

impl<T: Observer + ?Sized> Observer for Arc<T> {
    fn request(&self, registry: &Host, operation: Operation, status: StatusClass, took: Duration) {
        (**self).request(registry, operation, status, took);
    }
    fn throttled(&self, registry: &Host, pause: Duration) {
        (**self).throttled(registry, pause);
    }
    fn token_refresh(&self, registry: &Host, good: bool) {
        (**self).token_refresh(registry, good);
    }
}
