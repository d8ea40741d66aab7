//! A validated document to a [`Config`]: values parsed, secrets read, and the checks that a schema cannot make.
//!
//! The schema has already said yes, so a value that is there has its type; what is missing has its default.

mod registries;
mod sinks;
mod sources;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use url::Url;

use super::secret::{Origin, Outside, Secret, trimmed};
use super::types::{Admin, Config, Limits, Listen, Log, LogFormat, LogLevel, Policies, Retention, StoreUrl, Tls};
use crate::document::{Fault, Node, Source, Span, duration, quoted};

/// The store's file where the configuration names none.
pub(in crate::config) const STORE_FILE: &str = "tidewaiter.db";

/// Reads a document that the schema accepts; with faults the configuration is only good for looking at: what they are
/// about is missing, and secrets that cannot be read are empty.
pub(in crate::config) fn config(
    source: &Source,
    node: &Node,
    folder: &Path,
    outside: &dyn Outside,
) -> (Config, Vec<Fault>) {
    let readable = node.get("allowReadableSecrets").and_then(Node::as_bool).unwrap_or(false);
    let mut reader = Reader {
        source,
        folder,
        outside,
        readable,
        hosts: registries::written(node),
        faults: Vec::new(),
        warnings: Vec::new(),
    };
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
        hash: String::new(),
    };
    let hash = hex::encode(Sha256::digest(source.text.as_bytes()));
    reader.faults.sort_by_key(|fault| fault.span);
    (Config { warnings: reader.warnings, hash, ..config }, reader.faults)
}

struct Reader<'a> {
    source: &'a Source,
    folder: &'a Path,
    outside: &'a dyn Outside,
    /// Secret files may be readable by group and others.
    readable: bool,
    /// What the registries are called, those with faults too; `None` where one is called nothing.
    hosts: Option<Vec<String>>,
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

    /// The secret of a file; an empty one, with a fault, where it cannot be read.
    fn secret_file(&mut self, node: &Node) -> Option<Secret> {
        let path = self.path(node);
        let shown = path.display().to_string();
        let unreadable = |reader: &mut Self, error: std::io::Error| {
            let message = format!("cannot read the secret {}: {error}", quoted(&shown));
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("put the secret into `{shown}`, readable by the daemon's user only (`chmod 600`)")
                }
                _ => format!("let the daemon's user, and nobody else, read `{shown}`"),
            };
            reader.faults.push(Fault::error(reader.source, node.span, "unreadable-secret", message).help(help));
        };
        let origin = Origin::File(path.clone());
        let loose = match self.outside.mode(&path) {
            Ok(mode) => mode.is_some_and(|mode| mode & 0o077 != 0),
            Err(error) => {
                unreadable(self, error);
                return Some(Secret::new("", origin));
            }
        };
        if loose && !self.readable {
            let message = format!("the secret {} can be read by group or others", quoted(&shown));
            self.faults.push(
                Fault::error(self.source, node.span, "readable-secret", message).help(format!(
                    "`chmod 600 {shown}`; where that is meant, as with some volumes of secrets, set `allowReadableSecrets: true`"
                )),
            );
        }
        match self.outside.read(&path) {
            Ok(text) => Some(self.not_empty(node, trimmed(&text), origin)),
            Err(error) => {
                unreadable(self, error);
                Some(Secret::new("", origin))
            }
        }
    }

    fn secret_variable(&mut self, node: &Node) -> Option<Secret> {
        let name = node.as_str().unwrap_or_default();
        let origin = Origin::Variable(name.to_owned());
        match self.outside.variable(name) {
            Some(text) => Some(self.not_empty(node, trimmed(&text), origin)),
            None => {
                let message = format!("the environment variable {} is not set", quoted(name));
                let help = format!("set {name}, or name a file that holds the secret");
                self.faults.push(Fault::error(self.source, node.span, "unreadable-secret", message).help(help));
                Some(Secret::new("", origin))
            }
        }
    }

    /// T-02: an empty secret would be matched by anybody who sends nothing.
    fn not_empty(&mut self, node: &Node, text: &str, origin: Origin) -> Secret {
        if text.trim().is_empty() {
            let (message, help) = match &origin {
                Origin::File(path) => {
                    let shown = path.display().to_string();
                    (format!("the secret {} is empty", quoted(&shown)), format!("write the secret into `{shown}`"))
                }
                Origin::Variable(name) => {
                    (format!("the secret in {} is empty", quoted(name)), format!("give {name} the secret"))
                }
                Origin::Configuration => ("this secret is empty".to_owned(), "write it".to_owned()),
            };
            self.faults.push(Fault::error(self.source, node.span, "empty-secret", message).help(help));
            return Secret::new("", origin);
        }
        Secret::new(text, origin)
    }

    /// One or two secrets, which may be valid at once.
    fn some_secrets(&mut self, node: &Node, base: &str, whose: Span) -> Option<Vec<Secret>> {
        let faults = self.faults.len();
        let secrets = self.secrets(node, base);
        match secrets.len() {
            1 | 2 => return Some(secrets),
            0 if self.faults.len() > faults => {}
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

    // Parts

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

    /// Faults for keys that do not belong to the kind chosen: silently ignored, they would mislead.
    fn only(&mut self, node: &Node, allowed: &[&str], kind: &str) {
        for (key, _) in node.entries() {
            if !allowed.contains(&&*key.text) {
                let message = format!("{} does not belong to `{kind}`", quoted(&key.text));
                self.fault(key.span, "contradiction", message, "remove it, or change the kind");
            }
        }
    }

    fn listen(&mut self, node: &Node) -> Listen {
        let default = Listen::default();
        let events = node.at("/listen/events").and_then(|n| self.address(n));
        let admin = node.at("/listen/admin").and_then(|n| self.address(n));
        let names = node.at("/listen/names").map(Node::items).unwrap_or_default();
        let names: Vec<String> = names.iter().filter_map(|name| self.own_name(name)).collect();
        if let (Some((key, _)), true, true) =
            (node.get("listen").and_then(|n| n.entry("names")), !names.is_empty(), node.get("tls").is_some())
        {
            let message = "these names are for the self-signed certificate, and `tls` brings another";
            let fault = Fault::error(self.source, key.span, "without-effect", message).warning();
            self.warnings.push(fault.label("remove one of the two"));
        }
        Listen { events: events.unwrap_or(default.events), admin: admin.unwrap_or(default.admin), names }
    }

    /// A name that a certificate can be made for: a host name (RFC 1123) or an address.
    fn own_name(&mut self, node: &Node) -> Option<String> {
        let name = node.as_str().unwrap_or_default().to_ascii_lowercase();
        let label = |label: &str| {
            let inside = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            (1..=63).contains(&label.len()) && inside && !label.starts_with('-') && !label.ends_with('-')
        };
        if name.parse::<std::net::IpAddr>().is_ok() || name.split('.').all(label) {
            return Some(name);
        }
        let message = format!("{} is not a host name or an address", quoted(&name));
        self.fault(node.span, "wrong-value", message, "write it without a port, as in \"tidewaiter.example\"");
        None
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
            events_max: self.count(get("eventsMax"), default.events_max),
            dead_letters: self.period(get("deadLetters"), default.dead_letters),
            dead_letters_max: self.count(get("deadLettersMax"), default.dead_letters_max),
            verdicts: self.period(get("verdicts"), default.verdicts),
            verdicts_max: self.count(get("verdictsMax"), default.verdicts_max),
            manifests: self.period(get("manifests"), default.manifests),
            manifests_bytes_max: self.size(get("manifestsBytesMax"), default.manifests_bytes_max),
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
