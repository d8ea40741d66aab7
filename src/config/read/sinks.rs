//! Sinks of alerts: addresses that may be secrets, keys of a length that signs (T-56, T-57).

use url::Url;

use super::{Reader, flag, text};
use crate::config::secret::{Origin, Secret};
use crate::config::types::{Sink, SinkAuth, SinkKind};
use crate::document::{Fault, Node, Span};
use crate::image::Host;
use crate::policy::Severity;

/// PagerDuty's address for the world outside the European Union.
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Length of a signing key in bytes, by Standard Webhooks (T-57).
const SIGNING_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

impl Reader<'_> {
    pub(super) fn sinks(&mut self, node: &Node) -> Vec<Sink> {
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
        // What could not be read has been told.
        for key in keys.iter().filter(|key| !key.expose().is_empty()) {
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
        // The address of these is the credential (T-62).
        if let (SinkKind::Slack | SinkKind::Teams, Some(plain)) = (kind, node.get("url").or(node.get("urls"))) {
            let message = "the address of a Slack or Teams webhook is a secret, and does not belong in the configuration: use `urlFile` or `urlEnv`";
            let fault = Fault::error(self.source, plain.span, "secret-in-configuration", message).concealed();
            self.faults.push(
                fault.help("write it into a file that only the daemon's user can read, and name that with `urlFile`"),
            );
            return None;
        }
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
        for (span, url) in urls.iter().filter(|(_, url)| !url.expose().is_empty()) {
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
}
