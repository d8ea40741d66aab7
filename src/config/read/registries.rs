//! Registries: names that occur once, origins that are nothing else, credentials that fit their kind.

use std::collections::HashMap;
use std::time::Duration;

use url::Url;

use super::{Reader, flag, text, texts};
use crate::config::types::{Reconcile, Registry, RegistryAuth, RegistryLimits};
use crate::document::{Fault, Node, Span, quoted};
use crate::image::Host;

/// The names of all registries as written, in lower case; `None` where one has none.
pub(super) fn written(node: &Node) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for item in node.get("registries").map(Node::items).unwrap_or_default() {
        hosts.push(item.get("host").and_then(Node::as_str)?.to_ascii_lowercase());
        hosts.extend(texts(item, "aliases").iter().map(|alias| alias.to_ascii_lowercase()));
    }
    Some(hosts)
}

impl Reader<'_> {
    pub(super) fn registries(&mut self, node: &Node) -> Vec<Registry> {
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
                requests_per_second: limits.and_then(|l| l.get("requestsPerSecond")?.as_u64()?.try_into().ok()),
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
}
