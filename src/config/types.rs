//! What a configuration holds once it was checked. The meaning of each part is in `schema.json`, which users
//! and editors read; here it is said only where the type adds something.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::secret::Secret;
use crate::document::Fault;
use crate::image::Host;
use crate::policy::Severity;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The two listeners.
    pub listen: Listen,
    /// The certificate of the events listener; `None`: self-signed, kept beside the store.
    pub tls: Option<Tls>,
    /// Where everything is recorded.
    pub store: StoreUrl,
    /// Where policies come from.
    pub policies: Policies,
    /// The registries that the daemon may talk to. No host and no alias occurs twice.
    pub registries: Vec<Registry>,
    /// Who may send events. No name occurs twice.
    pub sources: Vec<SourceConfig>,
    /// Where alerts go. No name occurs twice.
    pub sinks: Vec<Sink>,
    /// Bounds (threat model, section 5).
    pub limits: Limits,
    /// How long things are kept.
    pub retention: Retention,
    /// The log.
    pub log: Log,
    /// The admin listener.
    pub admin: Admin,
    /// What is probably not meant, though it can be used.
    pub warnings: Vec<Fault>,
    /// SHA-256 of the text that was read, in hexadecimal digits; empty where there was none.
    pub hash: String,
}

impl Config {
    /// The registry that a host means, by its name or an alias.
    pub fn registry(&self, host: &Host) -> Option<&Registry> {
        self.registries.iter().find(|r| r.host == *host || r.aliases.contains(host))
    }
}

/// Addresses of the listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Events, with TLS.
    pub events: SocketAddr,
    /// Health, metrics, API, console.
    pub admin: SocketAddr,
    /// Names and addresses of the events listener, for the self-signed certificate. In lower case.
    pub names: Vec<String>,
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            events: (Ipv4Addr::LOCALHOST, 8443).into(),
            admin: (Ipv4Addr::LOCALHOST, 9464).into(),
            names: Vec::new(),
        }
    }
}

/// Files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
    /// Authorities of client certificates, PEM.
    pub client_ca: Option<PathBuf>,
}

/// The store.
#[derive(Debug, Clone)]
pub enum StoreUrl {
    /// The embedded store, in this file.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by its whole URL, which may hold a password.
    Postgres(Secret),
}

/// Where policies come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policies {
    /// Those that the program brings.
    Shipped,
    /// Files and folders.
    Paths(Vec<PathBuf>),
}

/// A registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Its name in references.
    pub host: Host,
    /// Other names that events may use for it.
    pub aliases: Vec<Host>,
    /// Where it is reached: an origin without user, query and fragment. `http` only if `insecure`.
    pub endpoint: Url,
    /// Further authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Plain http; never with credentials.
    pub insecure: bool,
    /// Loopback and private addresses are allowed.
    pub allow_private: bool,
    /// How to sign in.
    pub auth: RegistryAuth,
    /// How much it is asked.
    pub limits: RegistryLimits,
    /// Finding what no event told.
    pub reconcile: Reconcile,
}

/// Signing in at a registry.
#[derive(Debug, Clone)]
pub enum RegistryAuth {
    /// Not at all.
    Anonymous,
    /// A user name and a password.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token.
    Token(Secret),
    /// Azure: a client secret where there is one, else workload identity, else managed identity. What is
    /// `None` comes from the environment that Azure sets.
    Azure {
        /// The directory.
        tenant_id: Option<String>,
        /// The application or user-assigned identity.
        client_id: Option<String>,
        /// The client secret.
        client_secret: Option<Secret>,
        /// The sign-in host.
        authority: Option<Url>,
    },
}

/// How much a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Most requests at once.
    pub concurrency: u32,
    /// Most requests a second; `None` is what is usual for the host.
    pub requests_per_second: Option<u32>,
}

/// Finding what no event told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconcile {
    /// How often; `None`: never.
    pub every: Option<Duration>,
    /// Globs over repository names; empty: all that a policy governs.
    pub repositories: Vec<String>,
}

/// A source of events.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Its name, the last part of its path.
    pub name: String,
    /// The format of its payloads, one of those in the schema.
    pub format: String,
    /// The one registry its events are about, where the configuration says one.
    pub registry: Option<Host>,
    /// The registries its events may be about, by their configured names. Never empty.
    pub registries: Vec<Host>,
    /// How senders prove themselves; `None` only with `allowUnauthenticated`.
    pub auth: Option<SourceAuth>,
    /// Whether the sender asks before it writes, and acts by the answer.
    pub admission: bool,
}

/// How a sender proves itself. Lists of secrets have one or two: both are valid while one is being changed.
#[derive(Debug, Clone)]
pub enum SourceAuth {
    /// A header that carries the secret word for word.
    Header {
        /// The header, in lower case.
        name: String,
        /// The values accepted.
        values: Vec<Secret>,
    },
    /// HTTP basic authentication.
    Basic {
        /// The user name.
        username: String,
        /// The passwords accepted.
        passwords: Vec<Secret>,
    },
    /// A query parameter.
    Query {
        /// The parameter.
        parameter: String,
        /// The values accepted.
        values: Vec<Secret>,
    },
    /// An HMAC of the body.
    Hmac {
        /// The header, in lower case.
        header: String,
        /// The hash.
        algorithm: HmacAlgorithm,
        /// How it is written.
        encoding: HmacEncoding,
        /// What stands before it.
        prefix: String,
        /// The keys accepted.
        keys: Vec<Secret>,
    },
    /// An OpenID Connect identity token.
    Oidc {
        /// The issuer as written, an https address: `iss` is compared with it letter by letter.
        issuer: String,
        /// Where its keys are; `None` where its discovery document is to say.
        jwks: Option<Url>,
        /// How it is reached.
        reach: Reach,
        /// The audience.
        audience: String,
        /// Subjects accepted; not empty unless `emails` is not.
        subjects: Vec<String>,
        /// Verified e-mail addresses accepted.
        emails: Vec<String>,
    },
    /// A TLS client certificate with one of these names.
    ClientCertificate(Vec<String>),
    /// Amazon SNS signatures.
    Sns {
        /// For one of these topics.
        topics: Vec<String>,
        /// How the service is reached.
        reach: Reach,
    },
}

/// How something outside is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Further authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Loopback and private addresses are allowed.
    pub allow_private: bool,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacEncoding {
    /// Hexadecimal.
    Hex,
    /// Base64.
    Base64,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-1, for senders that know no better.
    Sha1,
}

/// A sink of alerts.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// What stands there.
    pub kind: SinkKind,
    /// Where; one, or for Alertmanager all members. Each was parsed once and is an http or https URL.
    pub urls: Vec<Secret>,
    /// Which findings are sent.
    pub severities: Vec<Severity>,
    /// What is sent as `Authorization`.
    pub auth: SinkAuth,
    /// Further authorities, PEM.
    pub ca: Option<PathBuf>,
    /// Loopback and private addresses are allowed.
    pub allow_private: bool,
}

/// What stands behind a sink.
#[derive(Debug, Clone)]
pub enum SinkKind {
    /// Prometheus Alertmanager, API v2.
    Alertmanager,
    /// A Slack incoming webhook.
    Slack,
    /// A Teams workflow.
    Teams,
    /// PagerDuty Events API v2, with its integration key.
    PagerDuty(Secret),
    /// CloudEvents, signed with each of these keys (Standard Webhooks); one or two, or none with a warning.
    Webhook(Vec<Secret>),
}

/// What a sink is given as `Authorization`.
#[derive(Debug, Clone)]
pub enum SinkAuth {
    /// Nothing.
    None,
    /// A user name and a password.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token.
    Bearer(Secret),
}

/// Bounds of the threat model, section 5. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of one event.
    pub event_body: u64,
    /// Largest body of a batch.
    pub batch_body: u64,
    /// Most connections at once.
    pub connections: u32,
    /// Most connections from one address.
    pub connections_per_address: u32,
    /// Most events read and not yet answered.
    pub events_in_flight: u32,
    /// Most events recorded and not yet judged.
    pub backlog_events: u64,
    /// Most bytes of them.
    pub backlog_bytes: u64,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest wait for the headers.
    pub header_timeout: Duration,
    /// Longest wait for the body.
    pub body_timeout: Duration,
    /// Longest silence on an open connection.
    pub idle_timeout: Duration,
    /// Latest answer to a sender.
    pub answer_deadline: Duration,
    /// Largest manifest or index.
    pub manifest: u64,
    /// Most requests to a registry for one event.
    pub requests_per_event: u32,
    /// Most bytes read from a registry for one event.
    pub bytes_per_event: u64,
    /// Longest time for the registry's part of one event.
    pub resolution_timeout: Duration,
    /// When what could not be determined raises an alert of its own.
    pub undetermined_after: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits {
            event_body: 256 << 10,
            batch_body: 1 << 20,
            connections: 8192,
            connections_per_address: 256,
            events_in_flight: 1024,
            backlog_events: 1_000_000,
            backlog_bytes: 2 << 30,
            handshake_timeout: seconds(5),
            header_timeout: seconds(5),
            body_timeout: seconds(5),
            idle_timeout: seconds(30),
            answer_deadline: seconds(2),
            manifest: 4 << 20,
            requests_per_event: 64,
            bytes_per_event: 32 << 20,
            resolution_timeout: seconds(30),
            undetermined_after: seconds(15 * 60),
        }
    }
}

/// How long things are kept (`None`: for ever), and how many or how much of them. The history of tags is always kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Events that were judged.
    pub events: Option<Duration>,
    /// Most of them.
    pub events_max: u64,
    /// Events that could not be read.
    pub dead_letters: Option<Duration>,
    /// Most of them.
    pub dead_letters_max: u64,
    /// Verdicts of tags that are gone, and violations that are over.
    pub verdicts: Option<Duration>,
    /// Most verdicts, and most violations; those of tags that are there, and open ones, are kept beyond it.
    pub verdicts_max: u64,
    /// Manifests that no tag leads or ever led to.
    pub manifests: Option<Duration>,
    /// Most bytes of manifests, in bytes; beyond it the same ones are kept for a shorter time.
    pub manifests_bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        let days = |n: u64| Some(Duration::from_secs(n * 86_400));
        Retention {
            events: days(30),
            events_max: 10_000_000,
            dead_letters: days(90),
            dead_letters_max: 10_000,
            verdicts: days(400),
            verdicts_max: 1_000_000,
            manifests: days(90),
            manifests_bytes_max: 8 << 30,
        }
    }
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Log {
    /// How it is written.
    pub format: LogFormat,
    /// How much.
    pub level: LogLevel,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text.
    Text,
    /// JSON lines.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the levels say it")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The admin listener.
#[derive(Debug, Clone, Default)]
pub struct Admin {
    /// Its certificate; `None`: plain http.
    pub tls: Option<Tls>,
    /// The bearer token that API and console ask for.
    pub token: Option<Secret>,
}
