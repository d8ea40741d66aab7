//! From the configuration to each room's own settings. No room but this one knows both.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use crate::alert::{self, SinkKind, SinkSettings};
use crate::config::{self, Config, LogFormat, RegistryAuth, Secret, SinkAuth, SourceAuth};
use crate::event::Format;
use crate::event::authenticity::{Algorithm, Credential, Encoding, Expected, Identity, Secrets};
use crate::identity::{self, Certificates, Fetch, Issuer};
use crate::image::Host;
use crate::intake::{self, Auth, Source};
use crate::listen::{self, TlsFiles};
use crate::metrics::{AlertResult, Metrics, Names, Operation as Op, RequestStatus, Success};
use crate::pipeline::{Plan, Registries};
use crate::policy::PolicySet;
use crate::registry::{self, Azure, AzureIdentity, Client, Operation, Origin, StatusClass};
use crate::store::Retention;
use crate::telemetry;

fn secret(secret: &Secret) -> SecretString {
    SecretString::from(secret.expose().to_owned())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

pub(super) fn log_format(config: &Config) -> telemetry::Format {
    let no_colour = no_colour();
    match config.log.format {
        LogFormat::Auto => telemetry::Format::for_standard_error(no_colour),
        LogFormat::Text => {
            telemetry::Format::Text { colour: !no_colour && std::io::IsTerminal::is_terminal(&std::io::stderr()) }
        }
        LogFormat::Json => telemetry::Format::Json,
    }
}

#[expect(clippy::disallowed_methods, reason = "the convention of terminals: https://no-color.org")]
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
}

pub(super) fn log_filter(config: &Config) -> &'static str {
    use config::LogLevel::*;
    match config.log.level {
        Error => "error",
        Warn => "warn",
        Info => "info",
        Debug => "info,tidewaiter=debug",
        Trace => "info,tidewaiter=trace",
    }
}

/// Makes the names of the configuration label values, and says what is in force: at the start and after each reload.
pub(super) fn announce(metrics: &Metrics, config: &Config, set: &PolicySet) {
    metrics.announce(names(config, set));
    metrics.config(&in_force(config, set));
}

/// Twelve digits that differ when the text of the configuration or a policy differs, so that one sees whether replicas
/// run the same. Secrets are files of their own and no part of it.
fn in_force(config: &Config, set: &PolicySet) -> String {
    let hash = Sha256::new().chain_update(&config.hash).chain_update([0]).chain_update(set.hash()).finalize();
    hex::encode(&hash[..6])
}

/// The names that label values may be.
fn names(config: &Config, set: &PolicySet) -> Names {
    let mut names = Names {
        sources: config.sources.iter().map(|s| s.name.clone()).collect(),
        registries: config.registries.iter().map(|r| r.host.to_string()).collect(),
        sinks: config.sinks.iter().map(|s| s.name.clone()).collect(),
        ..Names::default()
    };
    for policy in set.policies() {
        names.policies.insert(policy.name.to_string());
        names
            .requirements
            .extend(policy.findable().into_iter().map(|(rule, severity)| (policy.name.to_string(), rule, severity)));
    }
    names
}

/// The client settings of a configured registry.
///
/// # Errors
/// A file that cannot be read, or a setting that does not fit the others.
pub fn registry_settings(registry: &config::Registry) -> anyhow::Result<registry::Settings> {
    let mut settings = registry::Settings::new(registry.host.clone());
    let endpoint = Origin::of_url(&registry.endpoint)
        .ok_or_else(|| anyhow!("`endpoint` of {} is no origin: write https://HOST:PORT", registry.host))?;
    if endpoint != settings.origin() {
        settings.endpoint = Some(endpoint);
    }
    settings.ca = registry.ca.as_deref().map(read).transpose()?;
    settings.insecure = registry.insecure;
    settings.allow_private = registry.allow_private;
    settings.concurrency = registry.limits.concurrency as usize;
    if let Some(pace) = registry.limits.requests_per_second {
        settings.requests_per_second = pace;
    }
    settings.auth = match &registry.auth {
        RegistryAuth::Anonymous => registry::Auth::Anonymous,
        RegistryAuth::Basic { username, password } => {
            registry::Auth::Basic { user: username.clone(), password: secret(password) }
        }
        RegistryAuth::Token(token) => registry::Auth::Token { token: secret(token) },
        RegistryAuth::Azure { tenant_id, client_id, client_secret, authority } => {
            registry::Auth::Azure(azure(tenant_id, client_id, client_secret.as_ref(), authority.as_ref())?)
        }
    };
    Ok(settings)
}

fn azure(
    tenant: &Option<String>,
    client: &Option<String>,
    client_secret: Option<&Secret>,
    authority: Option<&url::Url>,
) -> anyhow::Result<Azure> {
    let mut azure = match (tenant, client, client_secret) {
        (Some(tenant), Some(client), Some(key)) => Azure::new(AzureIdentity::ClientSecret {
            tenant: tenant.clone(),
            client: client.clone(),
            secret: secret(key),
        })?,
        _ => Azure::detect(|name| variable(name, tenant, client))?,
    };
    if let Some(authority) = authority.and_then(Origin::of_url) {
        azure.authority = authority;
    }
    Ok(azure)
}

/// What Azure sets in the environment, with the configuration going first.
#[expect(clippy::disallowed_methods, reason = "Azure tells workloads their identity by the environment")]
fn variable(name: &str, tenant: &Option<String>, client: &Option<String>) -> Option<String> {
    match name {
        "AZURE_TENANT_ID" => tenant.clone(),
        "AZURE_CLIENT_ID" => client.clone(),
        _ => None,
    }
    .or_else(|| std::env::var(name).ok())
}

/// The clients of all configured registries.
pub(super) fn registries(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Registries> {
    let observer: Arc<dyn registry::Observer> = Arc::new(Counted(metrics.clone()));
    let mut clients = Vec::new();
    for registry in &config.registries {
        let settings = registry_settings(registry)?;
        let client = Client::new(settings, observer.clone()).with_context(|| format!("registry {}", registry.host))?;
        clients.push(client);
    }
    Ok(Registries::new(clients))
}

/// Counts what rooms that know no metrics tell.
pub(super) struct Counted(pub Arc<Metrics>);

impl registry::Observer for Counted {
    fn request(&self, registry: &Host, operation: Operation, status: StatusClass, elapsed: Duration) {
        // The two rooms share the words, not the types.
        let words = (Op::from_word(operation.as_str()), RequestStatus::from_word(status.as_str()));
        if let (Some(operation), Some(status)) = words {
            self.0.registry_request(registry.as_str(), operation, status, elapsed);
        }
    }

    fn throttled(&self, registry: &Host, _pause: Duration) {
        self.0.registry_throttled(registry.as_str());
    }

    fn token_refresh(&self, registry: &Host, succeeded: bool) {
        self.0.token_refreshed(registry.as_str(), if succeeded { Success::Ok } else { Success::Failed });
    }
}

impl alert::Observer for Counted {
    fn alerts(&self, sink: &str, delivery: alert::Delivery, count: u64) {
        if let Some(result) = AlertResult::from_word(delivery.as_str()) {
            self.0.alerts(sink, result, count);
        }
    }
}

/// The sinks.
pub(super) fn sinks(config: &Config) -> anyhow::Result<Vec<SinkSettings>> {
    config.sinks.iter().map(|sink| sink_settings(sink).with_context(|| format!("sink `{}`", sink.name))).collect()
}

/// One sink's settings.
///
/// # Errors
/// A file that cannot be read, or a setting that its kind cannot use.
pub fn sink_settings(sink: &config::Sink) -> anyhow::Result<SinkSettings> {
    let mut urls = sink.urls.iter().map(|u| alert::Target::new(secret(u))).collect::<Result<Vec<_>, _>>()?;
    let auth = match &sink.auth {
        SinkAuth::None => None,
        SinkAuth::Basic { username, password } => Some(alert::Auth::basic(username, &secret(password))?),
        SinkAuth::Bearer(token) => Some(alert::Auth::bearer(&secret(token))?),
    };
    let mut one = || urls.pop().ok_or_else(|| anyhow!("it has no url"));
    let kind = match &sink.kind {
        config::SinkKind::Alertmanager => SinkKind::Alertmanager { urls, auth },
        config::SinkKind::Slack => SinkKind::Slack { url: one()? },
        config::SinkKind::Teams => SinkKind::Teams { url: one()? },
        config::SinkKind::PagerDuty(key) => SinkKind::PagerDuty { url: one()?, routing_key: secret(key) },
        config::SinkKind::Webhook(keys) => SinkKind::Webhook {
            url: one()?,
            keys: keys.iter().map(|k| alert::SigningKey::parse(&secret(k))).collect::<Result<_, _>>()?,
            auth,
            source: "/tidewaiter".into(),
        },
    };
    let ca_pem = sink.ca.as_deref().map(read).transpose()?.map(Into::into);
    Ok(SinkSettings { name: sink.name.as_str().into(), kind, severities: sink.severities.clone(), ca_pem })
}

/// The sources of events, with what works for them in the background.
#[derive(Default)]
pub(super) struct Senders {
    /// The sources.
    pub sources: Vec<Source>,
    /// Issuers whose keys are to be fetched.
    pub issuers: Vec<Arc<Issuer>>,
    /// Sources whose topics may be subscribed to, each with its topics.
    pub topics: Vec<(String, Vec<String>, Fetch)>,
}

/// The sources of events. Nothing is fetched yet.
pub(super) fn senders(config: &Config) -> anyhow::Result<Senders> {
    let mut senders = Senders::default();
    for source in &config.sources {
        let made = sender(config, source, &mut senders).with_context(|| format!("source `{}`", source.name))?;
        senders.sources.push(made);
    }
    Ok(senders)
}

fn fetch(reach: &config::Reach) -> anyhow::Result<Fetch> {
    let ca = reach.ca.as_deref().map(read).transpose()?;
    Ok(Fetch::new(&identity::Reach { ca, allow_private: reach.allow_private, endpoint: None })?)
}

fn sender(config: &Config, source: &config::SourceConfig, senders: &mut Senders) -> anyhow::Result<Source> {
    let format: Format = source.format.parse().map_err(|_| anyhow!("unknown format `{}`", source.format))?;
    let mut registries = HashMap::new();
    for host in &source.registries {
        registries.insert(host.clone(), host.clone());
        for alias in config.registry(host).map(|r| r.aliases.clone()).unwrap_or_default() {
            registries.insert(alias, host.clone());
        }
    }
    let auth = match &source.auth {
        None => Auth::Unauthenticated,
        Some(SourceAuth::ClientCertificate(names)) => Auth::ClientCertificate { names: names.clone() },
        Some(SourceAuth::Oidc { issuer, jwks, audience, subjects, emails, reach }) => {
            let keys = Arc::new(Issuer::new(issuer, jwks.clone(), fetch(reach)?));
            senders.issuers.push(keys.clone());
            let subjects = subjects.iter().cloned().map(Identity::Subject);
            let identities = subjects.chain(emails.iter().cloned().map(Identity::Email));
            let expected = |identity| Expected { issuer: issuer.clone(), audience: audience.clone(), identity };
            Auth::Oidc { keys, expected: identities.map(expected).collect() }
        }
        Some(SourceAuth::Sns { topics, reach }) => {
            let fetch = fetch(reach)?;
            senders.topics.push((source.name.clone(), topics.clone(), fetch.clone()));
            Auth::Sns { topics: topics.clone(), certificates: Arc::new(Certificates::new(topics, fetch)) }
        }
        Some(shared) => Auth::Secret(credential(shared)?),
    };
    Ok(Source {
        name: source.name.as_str().into(),
        format,
        auth,
        registry: source.registry.clone(),
        registries,
        admission: source.admission,
    })
}

/// What is checked against a shared secret.
fn credential(auth: &SourceAuth) -> anyhow::Result<Credential> {
    let secrets = |all: &[Secret]| Secrets::new(all.iter().map(secret).collect());
    Ok(match auth {
        SourceAuth::Header { name, values } => Credential::Header { name: name.clone(), secrets: secrets(values)? },
        SourceAuth::Basic { username, passwords } => {
            Credential::Basic { user: username.clone(), passwords: secrets(passwords)? }
        }
        SourceAuth::Query { parameter, values } => {
            Credential::Query { name: parameter.clone(), secrets: secrets(values)? }
        }
        SourceAuth::Hmac { header, algorithm, encoding, prefix, keys } => Credential::Hmac {
            header: header.clone(),
            algorithm: match algorithm {
                config::HmacAlgorithm::Sha256 => Algorithm::Sha256,
                config::HmacAlgorithm::Sha1 => Algorithm::Sha1,
            },
            encoding: match encoding {
                config::HmacEncoding::Hex => Encoding::Hex,
                config::HmacEncoding::Base64 => Encoding::Base64,
            },
            prefix: prefix.clone(),
            secrets: secrets(keys)?,
        },
        SourceAuth::Oidc { .. } | SourceAuth::ClientCertificate(_) | SourceAuth::Sns { .. } => {
            return Err(anyhow!("its `auth` has no shared secret"));
        }
    })
}

/// The listener's bounds.
pub(super) fn intake_limits(config: &Config) -> intake::Limits {
    let limits = &config.limits;
    let fresh = intake::Limits::default();
    intake::Limits {
        connection: listen::Limits {
            connections: limits.connections as usize,
            connections_per_address: limits.connections_per_address as usize,
            handshake_time: limits.handshake_timeout,
            head_time: limits.header_timeout,
            idle_time: limits.idle_timeout,
            ..fresh.connection.clone()
        },
        event_bytes: limits.event_body as usize,
        batch_bytes: limits.batch_body as usize,
        in_flight: limits.events_in_flight as usize,
        answer_time: limits.answer_deadline,
        answer_time_impatient: limits.answer_deadline.min(fresh.answer_time_impatient),
        ..fresh
    }
}

/// The files of a certificate.
pub fn tls_files(tls: &config::Tls) -> TlsFiles {
    TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
        allow_readable_key: false,
    }
}

/// The names that a self-signed certificate is made for: those configured, this host's, and the address listened on.
pub(super) fn own_names(config: &Config) -> Vec<String> {
    let mut names = config.listen.names.clone();
    if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        let name = name.trim().to_owned();
        if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) {
            names.push(name);
        }
    }
    let address = config.listen.events.ip();
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    names
}

/// How long things are kept.
pub(super) fn retention(config: &Config) -> Retention {
    const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 86_400);
    let keep = |time: Option<Duration>| time.unwrap_or(FOR_EVER);
    Retention {
        events: keep(config.retention.events),
        events_max: config.retention.events_max,
        dead_letters: keep(config.retention.dead_letters),
        dead_letters_max: config.retention.dead_letters_max,
        verdicts: keep(config.retention.verdicts),
        verdicts_max: config.retention.verdicts_max,
        contents: keep(config.retention.manifests),
        contents_bytes_max: config.retention.manifests_bytes_max,
    }
}

/// What is swept, and how often.
pub(super) fn reconcile(config: &Config) -> anyhow::Result<Vec<(Host, Plan)>> {
    config
        .registries
        .iter()
        .filter_map(|r| r.reconcile.every.map(|every| (r, every)))
        .map(|(r, every)| {
            let plan = Plan::new(every, &r.host, &r.reconcile.repositories)
                .map_err(|e| anyhow!("`reconcile.repositories` of {}: {e}", r.host))?;
            Ok((r.host.clone(), plan))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_registry_and_the_outbox_is_one_of_the_metrics() {
        use Operation::*;
        for operation in [HeadManifest, GetManifest, HeadBlob, GetBlob, ListTags, Catalog, GetLock, Token] {
            assert!(Op::from_word(operation.as_str()).is_some(), "{}", operation.as_str());
        }
        use StatusClass::{Client, None, Redirect, Server, Throttled};
        for status in [StatusClass::Success, Redirect, Throttled, Client, Server, None] {
            assert!(RequestStatus::from_word(status.as_str()).is_some(), "{}", status.as_str());
        }
        use alert::Delivery::*;
        for delivery in [Delivered, Retried, Dropped] {
            assert!(AlertResult::from_word(delivery.as_str()).is_some(), "{}", delivery.as_str());
        }
    }
}
