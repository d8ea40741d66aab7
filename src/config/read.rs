//! A validated document to a [`Config`]: values parsed, secrets read, and the checks that a schema cannot make.
//!
//! The schema has already said yes, so a value that is there has its type; what is missing has its default.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use super::secret::{Origin, Outside, Secret, trimmed};
use super::types::*;
use crate::document::{Fault, Node, Source, Span, duration, quoted};
use crate::image::Host;
use crate::policy::Severity;

/// The store's file where the configuration names none.
pub(super) const STORE_FILE: &str = "tidewaiter.db";
/// Formats whose payloads never name the registry (../events): the configuration must.
const NAMELESS_FORMATS: [&str; 3] = ["zot", "nexus", "angos"];
/// PagerDuty's address for the world outside the European Union.
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Length of a signing key in bytes, by Standard Webhooks (T-57).
const SIGNING_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Reads a document that the schema accepts.
pub(super) fn config(source: &Source, node: &Node, folder: &Path, outside: &dyn Outside) -> Result<Config, Vec<Fault>> {
    let readable = node.get("allowReadableSecrets").and_then(Node::as_bool).unwrap_or(false);
    let mut reader = Reader { source, folder, outside, readable, faults: Vec::new(), warnings: Vec::new() };
    let registries = reader.registries(node);
    let tls = node.get("tls").map(|n| reader.tls(n));
    let sources = reader.sources(node, &registries, tls.as_ref());
    let config = Config {
        listen: reader.listen(node),
        store: reader.store(node),
        policies: match node.get("policies") {
            Some(paths) => Policies::Paths(paths.items().iter().map(|p| reader.path(p)).collect()),
            None => Policies::Shipped,
        },
        sinks: reader.sinks(node),
        limits: reader.limits(node.get("limits")),
        retention: reader.retention(node.get("retention")),
        log: log(node.get("log")),
        admin: reader.admin(node),
        tls,
        registries,
        sources,
        warnings: Vec::new(),
    };
    if reader.faults.is_empty() {
        Ok(Config { warnings: reader.warnings, ..config })
    } else {
        reader.faults.sort_by_key(|fault| fault.span);
        Err(reader.faults)
    }
}

struct Reader<'a> {
    source: &'a Source,
    folder: &'a Path,
    outside: &'a dyn Outside,
    /// Secret files may be readable by group and others.
    readable: bool,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

/// The text of an entry; empty where there is none.
fn text<'n>(node: &'n Node, key: &str) -> &'n str {
    node.get(key).and_then(Node::as_str).unwrap_or_default()
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    let items = node.get(key).map(Node::items).unwrap_or_default();
    items.iter().filter_map(Node::as_str).map(str::to_owned).collect()
}

fn flag(node: &Node, key: &str) -> bool {
    node.get(key).and_then(Node::as_bool).unwrap_or(false)
}

impl Reader<'_> {
    fn fault(&mut self, span: Span, code: &'static str, message: impl Into<String>, label: impl Into<String>) {
        self.faults.push(Fault::error(self.source, span, code, message).label(label));
    }

    /// A fault about a value that may be a secret: the place is named and the text is not shown (T-62).
    fn secret_fault(&mut self, span: Span, code: &'static str, message: impl Into<String>, label: impl Into<String>) {
        self.faults.push(Fault::error(self.source, span, code, message).label(label).concealed());
    }

    fn path(&self, node: &Node) -> PathBuf {
        self.folder.join(node.as_str().unwrap_or_default())
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, node: &Node) -> Option<T> {
        match node.as_str().unwrap_or_default().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(node.span, "wrong-value", error.to_string(), "");
                None
            }
        }
    }

    fn duration(&mut self, node: Option<&Node>, default: Duration) -> Duration {
        let Some(node) = node else { return default };
        match duration(node.as_str().unwrap_or_default()) {
            Ok(value) => value,
            Err(error) => {
                self.fault(node.span, "wrong-value", error.to_string(), "");
                default
            }
        }
    }

    /// A duration of which zero means never or for ever.
    fn period(&mut self, node: Option<&Node>, default: Option<Duration>) -> Option<Duration> {
        node.map(|n| self.duration(Some(n), Duration::ZERO)).map_or(default, |d| (!d.is_zero()).then_some(d))
    }

    /// A timeout, which cannot be zero.
    fn timeout(&mut self, node: Option<&Node>, default: Duration) -> Duration {
        let value = self.duration(node, default);
        if let Some(node) = node.filter(|_| value.is_zero()) {
            self.fault(node.span, "wrong-value", "a time limit of zero lets nothing through", "");
        }
        value
    }

    fn size(&mut self, node: Option<&Node>, default: u64) -> u64 {
        let Some(node) = node else { return default };
        let written = node.as_str().unwrap_or_default();
        let (digits, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
            .into_iter()
            .find_map(|(unit, shift)| Some((written.strip_suffix(unit)?, shift)))
            .unwrap_or((written, 0));
        let value = node.as_u64().or_else(|| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
        match value {
            Some(value) if value > 0 => value,
            _ => {
                self.fault(node.span, "wrong-value", "a size of nothing lets nothing through", "");
                default
            }
        }
    }

    fn count<T: TryFrom<u64>>(&self, node: Option<&Node>, default: T) -> T {
        node.and_then(Node::as_u64).and_then(|n| T::try_from(n).ok()).unwrap_or(default)
    }

    // Secrets

    /// All secrets that a node gives under `base`: `…File`, `…Env`, `…Files`, `…Envs`.
    fn secrets(&mut self, node: &Node, base: &str) -> Vec<Secret> {
        let mut found = Vec::new();
        for (key, value) in node.entries() {
            let Some(rest) = key.text.strip_prefix(base) else { continue };
            let places: &[Node] = if rest.ends_with('s') { value.items() } else { std::slice::from_ref(value) };
            for place in places {
                found.extend(match rest {
                    "File" | "Files" => self.secret_file(place),
                    "Env" | "Envs" => self.secret_variable(place),
                    _ => None,
                });
            }
        }
        found
    }

    /// The one secret under `base`; a fault where there are several.
    fn secret(&mut self, node: &Node, base: &str) -> Option<Secret> {
        let (file, variable) = (format!("{base}File"), format!("{base}Env"));
        if let (Some(_), Some((key, _))) = (node.get(&file), node.entry(&variable)) {
            self.fault(
                key.span,
                "contradiction",
                format!("both `{file}` and `{variable}` are given"),
                "give one of them",
            );
            return None;
        }
        self.secrets(node, base).pop()
    }

    /// The secret under `base`, a fault where there is none.
    fn needed_secret(&mut self, node: &Node, base: &str, whose: Span) -> Option<Secret> {
        let faults = self.faults.len();
        let secret = self.secret(node, base);
        if secret.is_none() && self.faults.len() == faults {
            let message = format!("the secret is missing: `{base}File` or `{base}Env`");
            self.fault(whose, "missing-secret", message, format!("add `{base}File` or `{base}Env`"));
        }
        secret
    }

    fn secret_file(&mut self, node: &Node) -> Option<Secret> {
        let path = self.path(node);
        let loose = match self.outside.mode(&path) {
            Ok(mode) => mode.is_some_and(|mode| mode & 0o077 != 0),
            Err(error) => {
                self.fault(node.span, "unreadable-secret", format!("cannot read the secret: {error}"), "");
                return None;
            }
        };
        if loose && !self.readable {
            let message = "this secret can be read by group or others";
            self.faults.push(
                Fault::error(self.source, node.span, "readable-secret", message)
                    .label("chmod 600")
                    .help("where that is meant, as with some volumes of secrets, set `allowReadableSecrets: true`"),
            );
            return None;
        }
        match self.outside.read(&path) {
            Ok(text) => self.not_empty(node, trimmed(&text), Origin::File(path)),
            Err(error) => {
                self.fault(node.span, "unreadable-secret", format!("cannot read the secret: {error}"), "");
                None
            }
        }
    }

    fn secret_variable(&mut self, node: &Node) -> Option<Secret> {
        let name = node.as_str().unwrap_or_default();
        match self.outside.variable(name) {
            Some(text) => self.not_empty(node, trimmed(&text), Origin::Variable(name.to_owned())),
            None => {
                let message = format!("the environment variable {} is not set", quoted(name));
                self.fault(node.span, "unreadable-secret", message, "");
                None
            }
        }
    }

    /// T-02: an empty secret would be matched by anybody who sends nothing.
    fn not_empty(&mut self, node: &Node, text: &str, origin: Origin) -> Option<Secret> {
        if text.trim().is_empty() {
            self.fault(node.span, "empty-secret", "this secret is empty", "");
            return None;
        }
        Some(Secret::new(text, origin))
    }

    // Parts

    fn listen(&mut self, node: &Node) -> Listen {
        let default = Listen::default();
        let events = node.at("/listen/events").and_then(|n| self.address(n));
        let admin = node.at("/listen/admin").and_then(|n| self.address(n));
        Listen { events: events.unwrap_or(default.events), admin: admin.unwrap_or(default.admin) }
    }

    fn address(&mut self, node: &Node) -> Option<SocketAddr> {
        let written = node.as_str().unwrap_or_default();
        let address = match written.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse(),
            None => written.parse(),
        };
        if address.is_err() {
            let message = format!("{} is not an address with a port", quoted(written));
            self.fault(
                node.span,
                "wrong-value",
                message,
                "write ADDRESS:PORT, as in \"0.0.0.0:8443\" or \"[::]:8443\"",
            );
        }
        address.ok()
    }

    fn tls(&mut self, node: &Node) -> Tls {
        let path = |key: &str| node.get(key).map(|n| self.path(n));
        Tls {
            certificate: path("certificate").unwrap_or_default(),
            key: path("key").unwrap_or_default(),
            client_ca: path("clientCa"),
        }
    }

    fn store(&mut self, node: &Node) -> StoreUrl {
        let default = StoreUrl::Sqlite(self.folder.join(STORE_FILE));
        let Some((key, store)) = node.entry("store") else { return default };
        let inline = store.get("url");
        let secret = self.secret(store, "url");
        if let (Some(_), Some(_)) = (inline, &secret) {
            self.fault(key.span, "contradiction", "the store has more than one address", "give `url` or `urlFile`");
        }
        let span = inline.map_or(key.span, |n| n.span);
        let Some(url) = secret.or_else(|| Some(Secret::new(inline?.as_str()?, Origin::Configuration))) else {
            return default;
        };
        if let Some(path) = url.expose().strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains(['?', '#']) {
                self.secret_fault(span, "wrong-value", "the store's address names no file", "write sqlite:FILE");
            }
            return StoreUrl::Sqlite(self.folder.join(path));
        }
        match Url::parse(url.expose()) {
            Ok(parsed) if matches!(parsed.scheme(), "postgres" | "postgresql") && parsed.has_host() => {
                if parsed.password().is_some() && *url.origin() == Origin::Configuration {
                    let label = "put the address into a file and name it as `urlFile`";
                    self.secret_fault(span, "inline-secret", "a password does not belong in the configuration", label);
                }
                StoreUrl::Postgres(url)
            }
            _ => {
                let label = "write sqlite:FILE or postgres://HOST/DATABASE";
                self.secret_fault(span, "wrong-value", "this is no address of a store", label);
                default
            }
        }
    }

    fn registries(&mut self, node: &Node) -> Vec<Registry> {
        let mut seen: HashMap<Host, Span> = HashMap::new();
        let mut registries = Vec::new();
        for item in node.get("registries").map(Node::items).unwrap_or_default() {
            let named = item.get("host").into_iter().chain(item.get("aliases").map(Node::items).unwrap_or_default());
            let mut hosts = Vec::new();
            for name in named {
                let Some(host) = self.parsed::<Host>(name) else { continue };
                if let Some(first) = seen.insert(host.clone(), name.span) {
                    let message = format!("two registries are called {}", quoted(host.as_str()));
                    self.faults.push(
                        Fault::error(self.source, name.span, "duplicate-name", message)
                            .label("second")
                            .also(first, "first"),
                    );
                }
                hosts.push(host);
            }
            if let [host, aliases @ ..] = &hosts[..] {
                registries.extend(self.registry(item, host.clone(), aliases.to_vec()));
            }
        }
        registries
    }

    fn registry(&mut self, node: &Node, host: Host, aliases: Vec<Host>) -> Option<Registry> {
        let insecure = flag(node, "insecure");
        let auth = self.registry_auth(node);
        if insecure
            && !matches!(auth, Some(RegistryAuth::Anonymous))
            && let Some((key, _)) = node.entry("insecure")
        {
            let message = "plain http would send the credentials in the clear";
            self.fault(
                key.span,
                "insecure-credentials",
                message,
                "remove `insecure`, or use `auth: {kind: anonymous}`",
            );
        }
        let endpoint = match node.get("endpoint") {
            Some(written) => self.endpoint(written, insecure)?,
            None => {
                let scheme = if insecure { "http" } else { "https" };
                Url::parse(&format!("{scheme}://{}", host.as_str())).ok()?
            }
        };
        let limits = node.get("limits");
        let reconcile = node.get("reconcile");
        let six_hours = Some(Duration::from_secs(6 * 3600));
        Some(Registry {
            host,
            aliases,
            endpoint,
            ca: node.get("ca").map(|n| self.path(n)),
            insecure,
            allow_private: flag(node, "allowPrivate"),
            auth: auth?,
            limits: RegistryLimits {
                concurrency: self.count(limits.and_then(|l| l.get("concurrency")), 8),
                requests_per_second: self.count(limits.and_then(|l| l.get("requestsPerSecond")), 50),
            },
            reconcile: Reconcile {
                every: self.period(reconcile.and_then(|r| r.get("every")), six_hours),
                repositories: reconcile.map(|r| texts(r, "repositories")).unwrap_or_default(),
            },
        })
    }

    /// An origin: scheme, host and port and nothing else, because requests are built on it.
    fn endpoint(&mut self, node: &Node, insecure: bool) -> Option<Url> {
        let url = Url::parse(node.as_str().unwrap_or_default()).ok().filter(Url::has_host);
        let problem = match &url {
            None => "this is no address; write one as in https://10.0.0.5:5000",
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                "credentials do not belong in an address; use `auth`"
            }
            Some(url) if url.path() != "/" || url.query().is_some() || url.fragment().is_some() => {
                "an endpoint is scheme, host and port, without a path"
            }
            Some(url) if url.scheme() == "http" && !insecure => {
                "plain http needs `insecure: true`, and goes without credentials"
            }
            Some(url) if url.scheme() == "https" && insecure => "`insecure` says http and the address says https",
            Some(url) if !matches!(url.scheme(), "http" | "https") => "only https and http are spoken",
            Some(_) => return url,
        };
        self.secret_fault(node.span, "wrong-endpoint", problem, "");
        None
    }

    fn registry_auth(&mut self, node: &Node) -> Option<RegistryAuth> {
        let Some((key, auth)) = node.entry("auth") else { return Some(RegistryAuth::Anonymous) };
        let kind = text(auth, "kind");
        let allowed: &[&str] = match kind {
            "basic" => &["kind", "username", "passwordFile", "passwordEnv"],
            "token" => &["kind", "tokenFile", "tokenEnv"],
            "azure" => &["kind", "tenantId", "clientId", "clientSecretFile", "clientSecretEnv", "authority"],
            _ => &["kind"],
        };
        self.only(auth, allowed, kind);
        match kind {
            "basic" => {
                if auth.get("username").is_none() {
                    self.fault(key.span, "missing-key", "`auth` lacks `username`", "add `username`");
                }
                let password = self.needed_secret(auth, "password", key.span)?;
                Some(RegistryAuth::Basic { username: text(auth, "username").to_owned(), password })
            }
            "token" => self.needed_secret(auth, "token", key.span).map(RegistryAuth::Token),
            "azure" => {
                let owned = |name: &str| auth.get(name).and_then(Node::as_str).map(str::to_owned);
                let (tenant_id, client_id) = (owned("tenantId"), owned("clientId"));
                let client_secret = self.secret(auth, "clientSecret");
                let authority = auth.get("authority").and_then(|n| self.endpoint(n, false));
                Some(RegistryAuth::Azure { tenant_id, client_id, client_secret, authority })
            }
            _ => Some(RegistryAuth::Anonymous),
        }
    }

    /// Faults for keys that do not belong to the kind chosen: silently ignored, they would mislead.
    fn only(&mut self, node: &Node, allowed: &[&str], kind: &str) {
        for (key, _) in node.entries() {
            if !allowed.contains(&&*key.text) {
                let message = format!("{} does not belong to `{kind}`", quoted(&key.text));
                self.fault(key.span, "contradiction", message, "remove it, or change the kind");
            }
        }
    }

    fn sources(&mut self, node: &Node, registries: &[Registry], tls: Option<&Tls>) -> Vec<SourceConfig> {
        let items = node.get("sources").map(Node::items).unwrap_or_default();
        self.unique_names(items, "sources");
        items.iter().filter_map(|item| self.event_source(item, registries, tls)).collect()
    }

    fn unique_names(&mut self, items: &[Node], what: &str) {
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for name in items.iter().filter_map(|item| item.get("name")) {
            let called = name.as_str().unwrap_or_default();
            if let Some(first) = seen.insert(called, name.span) {
                let message = format!("two {what} are called {}", quoted(called));
                self.faults.push(
                    Fault::error(self.source, name.span, "duplicate-name", message)
                        .label("second")
                        .also(first, "first"),
                );
            }
        }
    }

    fn event_source(&mut self, node: &Node, known: &[Registry], tls: Option<&Tls>) -> Option<SourceConfig> {
        let name = node.get("name")?;
        let format = text(node, "format");
        if let (Some(_), Some((key, _))) = (node.get("registry"), node.entry("registries")) {
            self.fault(key.span, "contradiction", "both `registry` and `registries` are given", "give one of them");
        }
        let one = node.get("registry").and_then(|n| self.known_registry(n, known));
        let mut registries: Vec<Host> = one.iter().cloned().collect();
        for item in node.get("registries").map(Node::items).unwrap_or_default() {
            registries.extend(self.known_registry(item, known));
        }
        if node.get("registry").is_none() && node.get("registries").is_none() {
            registries = known.iter().map(|r| r.host.clone()).collect();
            if registries.is_empty() {
                let label = "add its registry to `registries`";
                self.fault(name.span, "no-registry", "no registry is configured whose events could come here", label);
            }
        }
        if NAMELESS_FORMATS.contains(&format) && node.get("registry").is_none() {
            let message = format!("events of the format `{format}` do not name their registry");
            self.fault(name.span, "no-registry", message, "add `registry`");
        }
        let open = flag(node, "allowUnauthenticated");
        let auth = match node.entry("auth") {
            Some((key, _)) if open => {
                let message = "`auth` and `allowUnauthenticated: true` contradict each other";
                self.fault(key.span, "contradiction", message, "remove one of them");
                None
            }
            Some((key, auth)) => Some(self.source_auth(auth, key.span, tls)?),
            None if open => None,
            None => {
                let message =
                    format!("the source {} takes events from anybody", quoted(name.as_str().unwrap_or_default()));
                let fault = Fault::error(self.source, name.span, "no-credential", message).label("add `auth`");
                self.faults.push(fault.help("where that is meant, say so: `allowUnauthenticated: true`"));
                None
            }
        };
        Some(SourceConfig {
            name: name.as_str()?.to_owned(),
            format: format.to_owned(),
            registry: one,
            registries,
            auth,
        })
    }

    fn known_registry(&mut self, node: &Node, known: &[Registry]) -> Option<Host> {
        let host: Host = self.parsed(node)?;
        let found = known.iter().find(|r| r.host == host || r.aliases.contains(&host));
        if found.is_none() {
            let message = format!("{} is not a configured registry", quoted(host.as_str()));
            let mut fault =
                Fault::error(self.source, node.span, "unknown-registry", message).label("add it to `registries`");
            if !known.is_empty() {
                let names: Vec<String> = known.iter().take(10).map(|r| quoted(r.host.as_str())).collect();
                fault = fault.help(format!("configured: {}", names.join(", ")));
            }
            self.faults.push(fault);
        }
        found.map(|r| r.host.clone())
    }

    fn source_auth(&mut self, node: &Node, whose: Span, tls: Option<&Tls>) -> Option<SourceAuth> {
        let kinds = ["header", "basic", "query", "hmac", "oidc", "clientCertificate", "sns"];
        let kind = kinds.into_iter().find(|kind| node.get(kind).is_some())?;
        let mut allowed = vec![kind];
        if matches!(kind, "header" | "basic" | "query" | "hmac") {
            allowed.extend(["valueFile", "valueEnv", "valueFiles", "valueEnvs"]);
        }
        if kind == "hmac" {
            allowed.extend(["algorithm", "prefix"]);
        }
        self.only(node, &allowed, kind);
        let chosen = node.get(kind)?;
        let written = chosen.as_str().unwrap_or_default();
        Some(match kind {
            "header" => SourceAuth::Header { name: written.to_ascii_lowercase(), values: self.values(node, whose)? },
            "basic" => SourceAuth::Basic { username: written.to_owned(), passwords: self.values(node, whose)? },
            "query" => SourceAuth::Query { parameter: written.to_owned(), values: self.values(node, whose)? },
            "hmac" => SourceAuth::Hmac {
                header: written.to_ascii_lowercase(),
                algorithm: if text(node, "algorithm") == "sha1" { HmacAlgorithm::Sha1 } else { HmacAlgorithm::Sha256 },
                prefix: text(node, "prefix").to_owned(),
                keys: self.values(node, whose)?,
            },
            "oidc" => {
                let issuer = chosen.get("issuer")?;
                let url = Url::parse(issuer.as_str()?).ok().filter(|u| u.scheme() == "https" && u.has_host());
                if url.is_none() {
                    self.fault(issuer.span, "wrong-value", "an issuer is an https address", "");
                }
                SourceAuth::Oidc {
                    issuer: url?,
                    audience: text(chosen, "audience").to_owned(),
                    subjects: texts(chosen, "subjects"),
                    emails: texts(chosen, "emails"),
                }
            }
            "clientCertificate" => {
                if tls.is_none_or(|tls| tls.client_ca.is_none()) {
                    let message = "client certificates need an authority that they are checked against";
                    self.fault(whose, "no-client-ca", message, "add `clientCa` to `tls`");
                }
                SourceAuth::ClientCertificate(texts(chosen, "names"))
            }
            _ => SourceAuth::Sns(texts(chosen, "topics")),
        })
    }

    /// The one or two secrets of a source.
    fn values(&mut self, node: &Node, whose: Span) -> Option<Vec<Secret>> {
        self.some_secrets(node, "value", whose)
    }

    /// One or two secrets, which may be valid at once.
    fn some_secrets(&mut self, node: &Node, base: &str, whose: Span) -> Option<Vec<Secret>> {
        let faults = self.faults.len();
        let secrets = self.secrets(node, base);
        if self.faults.len() > faults {
            return None;
        }
        match secrets.len() {
            1 | 2 => return Some(secrets),
            0 => {
                let message = format!("the secret is missing: `{base}File` or `{base}Env`");
                self.fault(whose, "missing-secret", message, format!("add `{base}File` or `{base}Env`"));
            }
            _ => self.fault(
                whose,
                "too-many-secrets",
                "at most two secrets are valid at once",
                "keep the new and the old one",
            ),
        }
        None
    }

    fn sinks(&mut self, node: &Node) -> Vec<Sink> {
        let items = node.get("sinks").map(Node::items).unwrap_or_default();
        self.unique_names(items, "sinks");
        items.iter().filter_map(|item| self.sink(item)).collect()
    }

    fn sink(&mut self, node: &Node) -> Option<Sink> {
        let name = node.get("name")?;
        let word = text(node, "kind");
        let mut allowed = vec!["name", "kind", "url", "urlFile", "urlEnv", "severities", "ca", "allowPrivate"];
        allowed.extend(match word {
            "alertmanager" => &["urls", "username", "passwordFile", "passwordEnv", "tokenFile", "tokenEnv"][..],
            "pagerduty" => &["routingKeyFile", "routingKeyEnv"],
            "webhook" => &[
                "username",
                "passwordFile",
                "passwordEnv",
                "tokenFile",
                "tokenEnv",
                "signingKeyFile",
                "signingKeyEnv",
                "signingKeyFiles",
                "signingKeyEnvs",
            ],
            _ => &[],
        });
        self.only(node, &allowed, word);
        let kind = match word {
            "alertmanager" => SinkKind::Alertmanager,
            "slack" => SinkKind::Slack,
            "teams" => SinkKind::Teams,
            "pagerduty" => SinkKind::PagerDuty(self.needed_secret(node, "routingKey", name.span)?),
            _ => SinkKind::Webhook(self.signing_keys(node, name.span)?),
        };
        let auth = self.sink_auth(node)?;
        let urls = self.sink_urls(node, &kind, !matches!(auth, SinkAuth::None))?;
        let severities = match node.get("severities") {
            Some(list) => list.items().iter().filter_map(Node::as_str).filter_map(Severity::from_word).collect(),
            None => vec![Severity::Warning, Severity::Critical],
        };
        let ca = node.get("ca").map(|n| self.path(n));
        let allow_private = flag(node, "allowPrivate");
        Some(Sink { name: name.as_str()?.to_owned(), kind, urls, severities, auth, ca, allow_private })
    }

    fn signing_keys(&mut self, node: &Node, whose: Span) -> Option<Vec<Secret>> {
        use base64::Engine;
        if !node.entries().iter().any(|(key, _)| key.text.starts_with("signingKey")) {
            let message = "what this sink is sent cannot be told from a forgery: it is not signed";
            let fault = Fault::error(self.source, whose, "unsigned-sink", message).warning();
            self.warnings.push(fault.label("add `signingKeyFile` or `signingKeyEnv`"));
            return Some(Vec::new());
        }
        let keys = self.some_secrets(node, "signingKey", whose)?;
        for key in &keys {
            let bytes = match key.expose().strip_prefix("whsec_") {
                Some(encoded) => base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default().len(),
                None => key.expose().len(),
            };
            if !SIGNING_KEY_BYTES.contains(&bytes) {
                let label = "24 to 64 bytes; `whsec_` and base64, or the bytes themselves";
                self.fault(
                    whose,
                    "signing-key-length",
                    "a signing key of this sink is too short, too long or no base64",
                    label,
                );
            }
        }
        Some(keys)
    }

    fn sink_auth(&mut self, node: &Node) -> Option<SinkAuth> {
        let token = self.secret(node, "token");
        let password = self.secret(node, "password");
        let username = node.entry("username");
        match (token, username, password) {
            (None, None, None) => Some(SinkAuth::None),
            (Some(token), None, None) => Some(SinkAuth::Bearer(token)),
            (None, Some((_, username)), Some(password)) => {
                Some(SinkAuth::Basic { username: username.as_str()?.to_owned(), password })
            }
            (_, username, _) => {
                let span = username.map_or_else(|| node.get("name").map_or(node.span, |n| n.span), |(key, _)| key.span);
                let label = "give `username` with a password, or a token";
                self.fault(
                    span,
                    "contradiction",
                    "this sink's credentials are not complete or contradict each other",
                    label,
                );
                None
            }
        }
    }

    fn sink_urls(&mut self, node: &Node, kind: &SinkKind, credentials: bool) -> Option<Vec<Secret>> {
        let name = node.get("name")?.span;
        let mut urls: Vec<(Span, Secret)> = Vec::new();
        let inline = node.get("url").into_iter().chain(node.get("urls").map(Node::items).unwrap_or_default());
        urls.extend(inline.filter_map(|n| Some((n.span, Secret::new(n.as_str()?, Origin::Configuration)))));
        let ways = ["url", "urls", "urlFile", "urlEnv"].iter().filter(|key| node.get(key).is_some()).count();
        if ways > 1 {
            self.fault(
                name,
                "contradiction",
                "this sink's address is given more than once",
                "give one of `url`, `urls`, `urlFile` and `urlEnv`",
            );
            return None;
        }
        let faults = self.faults.len();
        urls.extend(self.secret(node, "url").map(|secret| (name, secret)));
        if urls.is_empty() && matches!(kind, SinkKind::PagerDuty(_)) {
            urls.push((name, Secret::new(PAGERDUTY_URL, Origin::Configuration)));
        }
        if urls.is_empty() {
            if self.faults.len() == faults {
                self.fault(name, "missing-key", "this sink has no address", "add `url`, `urlFile` or `urlEnv`");
            }
            return None;
        }
        // The addresses of these are secrets, and the others carry one when they have credentials.
        let secret = credentials || !matches!(kind, SinkKind::Alertmanager | SinkKind::Webhook(_));
        for (span, url) in &urls {
            let parsed = Url::parse(url.expose()).ok().filter(Url::has_host);
            let loopback = |url: &Url| url.host_str().is_some_and(|h| h.parse::<Host>().is_ok_and(|h| h.is_loopback()));
            let problem = match &parsed {
                None => "this sink's address is no http or https address",
                Some(url) if !matches!(url.scheme(), "http" | "https") => {
                    "this sink's address is no http or https address"
                }
                Some(url) if !url.username().is_empty() || url.password().is_some() => {
                    "credentials do not belong in an address; use `username` and `passwordFile`"
                }
                Some(url) if url.scheme() == "http" && secret && !loopback(url) => {
                    "plain http would send a secret in the clear; use https"
                }
                Some(_) => continue,
            };
            self.secret_fault(*span, "wrong-sink-address", problem, "");
        }
        Some(urls.into_iter().map(|(_, url)| url).collect())
    }

    fn limits(&mut self, node: Option<&Node>) -> Limits {
        let get = |key: &str| node.and_then(|n| n.get(key));
        let default = Limits::default();
        Limits {
            event_body: self.size(get("eventBody"), default.event_body),
            batch_body: self.size(get("batchBody"), default.batch_body),
            connections: self.count(get("connections"), default.connections),
            connections_per_address: self.count(get("connectionsPerAddress"), default.connections_per_address),
            events_in_flight: self.count(get("eventsInFlight"), default.events_in_flight),
            backlog_events: self.count(get("backlogEvents"), default.backlog_events),
            backlog_bytes: self.size(get("backlogBytes"), default.backlog_bytes),
            handshake_timeout: self.timeout(get("handshakeTimeout"), default.handshake_timeout),
            header_timeout: self.timeout(get("headerTimeout"), default.header_timeout),
            body_timeout: self.timeout(get("bodyTimeout"), default.body_timeout),
            idle_timeout: self.timeout(get("idleTimeout"), default.idle_timeout),
            answer_deadline: self.timeout(get("answerDeadline"), default.answer_deadline),
            manifest: self.size(get("manifest"), default.manifest),
            requests_per_event: self.count(get("requestsPerEvent"), default.requests_per_event),
            bytes_per_event: self.size(get("bytesPerEvent"), default.bytes_per_event),
            resolution_timeout: self.timeout(get("resolutionTimeout"), default.resolution_timeout),
            undetermined_after: self.timeout(get("undeterminedAfter"), default.undetermined_after),
        }
    }

    fn retention(&mut self, node: Option<&Node>) -> Retention {
        let get = |key: &str| node.and_then(|n| n.get(key));
        let default = Retention::default();
        Retention {
            events: self.period(get("events"), default.events),
            dead_letters: self.period(get("deadLetters"), default.dead_letters),
            verdicts: self.period(get("verdicts"), default.verdicts),
            manifests: self.period(get("manifests"), default.manifests),
            alerts: self.period(get("alerts"), default.alerts),
        }
    }

    fn admin(&mut self, node: &Node) -> Admin {
        let admin = node.get("admin");
        let token = admin.and_then(|n| self.secret(n, "token"));
        let tls = admin.and_then(|n| n.get("tls")).map(|n| self.tls(n));
        if let Some(address) = node.at("/listen/admin")
            && token.is_none()
            && address.as_str().and_then(|a| a.parse::<SocketAddr>().ok()).is_some_and(|a| !a.ip().is_loopback())
        {
            let message = "the admin listener can be reached from elsewhere and asks for no token";
            let fault = Fault::error(self.source, address.span, "open-admin", message).warning();
            self.warnings.push(fault.label("add `admin: {tokenFile: …}`"));
        }
        Admin { tls, token }
    }
}

fn log(node: Option<&Node>) -> Log {
    let word = |key: &str| node.map(|n| text(n, key)).unwrap_or_default();
    Log {
        format: match word("format") {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        },
        level: match word("level") {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => LogLevel::Info,
        },
    }
}
