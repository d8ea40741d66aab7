//! Sources of events: bound to configured registries (T-17), never open by omission (T-01).

use url::Url;

use super::{Reader, flag, text, texts};
use crate::config::secret::Secret;
use crate::config::types::{HmacAlgorithm, HmacEncoding, Reach, Registry, SourceAuth, SourceConfig, Tls};
use crate::document::{Fault, Node, Span, quoted};
use crate::image::Host;

/// Formats whose payloads never name the registry (../events): the configuration must.
const NAMELESS_FORMATS: [&str; 3] = ["zot", "nexus", "angos"];
/// Formats whose senders ask before they write.
const ASKING_FORMATS: [&str; 1] = ["angos"];

impl Reader<'_> {
    pub(super) fn sources(&mut self, node: &Node, registries: &[Registry], tls: Option<&Tls>) -> Vec<SourceConfig> {
        let items = node.get("sources").map(Node::items).unwrap_or_default();
        self.unique_names(items, "sources");
        items.iter().filter_map(|item| self.event_source(item, registries, tls)).collect()
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
            if registries.is_empty() && self.hosts.as_ref().is_some_and(Vec::is_empty) {
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
        let admission = flag(node, "admission");
        if let Some((key, _)) = node.entry("admission").filter(|_| admission) {
            if !ASKING_FORMATS.contains(&format) {
                let message = format!("senders of the format `{format}` do not ask before they write");
                self.fault(key.span, "contradiction", message, "remove it");
            }
            if open {
                // Whoever may ask may probe what is on record (T-01).
                let message = "`admission` answers from the record, and this source answers anybody";
                self.fault(key.span, "contradiction", message, "add `auth` in place of `allowUnauthenticated`");
            }
        }
        Some(SourceConfig {
            name: name.as_str()?.to_owned(),
            format: format.to_owned(),
            registry: one,
            registries,
            auth,
            admission,
        })
    }

    fn known_registry(&mut self, node: &Node, known: &[Registry]) -> Option<Host> {
        let host: Host = self.parsed(node)?;
        let found = known.iter().find(|r| r.host == host || r.aliases.contains(&host));
        // A registry with a fault of its own is there all the same.
        let elsewhere = self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|name| name == host.as_str()));
        if found.is_none() && !elsewhere {
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
            allowed.extend(["algorithm", "encoding", "prefix"]);
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
                encoding: if text(node, "encoding") == "base64" { HmacEncoding::Base64 } else { HmacEncoding::Hex },
                prefix: text(node, "prefix").to_owned(),
                keys: self.values(node, whose)?,
            },
            "oidc" => {
                let issuer = chosen.get("issuer")?;
                self.https(issuer, "an issuer is an https address without query")?;
                let jwks = match chosen.get("jwks") {
                    Some(node) => Some(self.https(node, "keys are fetched by https, from an address without query")?),
                    None => None,
                };
                SourceAuth::Oidc {
                    issuer: issuer.as_str()?.to_owned(),
                    jwks,
                    reach: self.reach(chosen),
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
            _ => SourceAuth::Sns { topics: texts(chosen, "topics"), reach: self.reach(chosen) },
        })
    }

    /// An https address of a host, with nothing that could carry a secret.
    fn https(&mut self, node: &Node, rule: &str) -> Option<Url> {
        let plain = |url: &Url| {
            url.scheme() == "https"
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        let url = Url::parse(node.as_str().unwrap_or_default()).ok().filter(plain);
        if url.is_none() {
            self.fault(node.span, "wrong-value", rule, "");
        }
        url
    }

    fn reach(&self, node: &Node) -> Reach {
        Reach { ca: node.get("ca").map(|n| self.path(n)), allow_private: flag(node, "allowPrivate") }
    }

    /// The one or two secrets of a source.
    fn values(&mut self, node: &Node, whose: Span) -> Option<Vec<Secret>> {
        self.some_secrets(node, "value", whose)
    }
}
