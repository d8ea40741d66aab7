//! What the configuration says of sinks, checked: addresses, credentials and keys that cannot be wrong. Pure;
//! files are read by `config`, which hands their contents over.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use url::Url;

use super::message::SinkInfo;
use crate::policy::Severity;

/// Key lengths of Standard Webhooks, in bytes (T-57).
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a sink's settings cannot be used. No text of a secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No address that can be posted to.
    #[error("the sink's address is not usable: {0}; write it as `https://host/path`")]
    Address(&'static str),
    /// A key that Standard Webhooks does not allow.
    #[error("the signing key is not usable: {0}; write `whsec_` and the base64 of 24 to 64 random bytes")]
    Key(&'static str),
    /// A credential that no header can carry.
    #[error("the {0} has characters that no header can carry; check the file for stray line breaks")]
    Credential(&'static str),
    /// A base for links that is no web address.
    #[error("`{0}` cannot begin a link: write an address such as `https://tidewaiter.example.com`")]
    Link(String),
    /// The private CA cannot be read.
    #[error("the sink's CA file is not usable: {0}; it must hold PEM certificates")]
    Ca(String),
    /// A sink without what it needs.
    #[error("the sink needs {0}")]
    Missing(&'static str),
}

/// Where a sink is reached: a secret as a whole, sent verbatim. Slack's and Teams' addresses are their own
/// credential, and some carry signatures that break when a URL library writes them anew.
#[derive(Clone)]
pub struct Target {
    uri: SecretString,
}

impl Target {
    /// Checks an address: absolute, https (or http, where it is written so), no user information, no fragment.
    /// Private and loopback addresses are allowed: sinks come from the configuration alone, never from an event
    /// (T-56), and an Alertmanager is usually a neighbour.
    ///
    /// # Errors
    /// [`SettingsError::Address`].
    pub fn new(uri: SecretString) -> Result<Target, SettingsError> {
        let text = uri.expose_secret();
        if text.contains('#') {
            return Err(SettingsError::Address("it has a fragment (`#`), which is never sent"));
        }
        let parsed: Uri = text.parse().map_err(|_| SettingsError::Address("it is no URI"))?;
        if !matches!(parsed.scheme_str(), Some("https" | "http")) {
            return Err(SettingsError::Address("it does not begin with https:// or http://"));
        }
        let authority = parsed.authority().ok_or(SettingsError::Address("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(SettingsError::Address("it holds a user name or password; give them as `auth`"));
        }
        if authority.host().is_empty() {
            return Err(SettingsError::Address("it names no host"));
        }
        Ok(Target { uri })
    }

    /// The address followed by `path`, for a sink with several endpoints under one base.
    pub(super) fn join(&self, path: &str) -> Result<Target, SettingsError> {
        let base = self.uri.expose_secret();
        if base.contains('?') {
            return Err(SettingsError::Address("a path is added to it, so it may have no query"));
        }
        Target::new(format!("{}{path}", base.trim_end_matches('/')).into())
    }

    /// What is connected to. Parsed again each time: it was checked, and the secret is kept in one place only.
    pub(super) fn uri(&self) -> Result<Uri, SettingsError> {
        self.uri.expose_secret().parse().map_err(|_| SettingsError::Address("it is no URI"))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target(..)")
    }
}

/// What is sent as `Authorization`.
#[derive(Clone, Debug)]
pub struct Auth(SecretString);

impl Auth {
    /// `Authorization: Basic`.
    ///
    /// # Errors
    /// [`SettingsError::Credential`] for a colon in the user name, which would end it.
    pub fn basic(user: &str, password: &SecretString) -> Result<Auth, SettingsError> {
        if user.contains(':') {
            return Err(SettingsError::Credential("user name"));
        }
        let pair = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
        Ok(Auth(format!("Basic {pair}").into()))
    }

    /// `Authorization: Bearer`.
    ///
    /// # Errors
    /// [`SettingsError::Credential`].
    pub fn bearer(token: &SecretString) -> Result<Auth, SettingsError> {
        let auth = Auth(format!("Bearer {}", token.expose_secret()).into());
        auth.header().map(|_| auth).ok_or(SettingsError::Credential("token"))
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.0.expose_secret()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// A signing key of Standard Webhooks.
#[derive(Clone, Debug)]
pub struct SigningKey(Arc<SecretSlice<u8>>);

impl SigningKey {
    /// Reads `whsec_…`; the key is what the base64 decodes to.
    ///
    /// # Errors
    /// [`SettingsError::Key`].
    pub fn parse(text: &SecretString) -> Result<SigningKey, SettingsError> {
        let encoded = text
            .expose_secret()
            .trim()
            .strip_prefix("whsec_")
            .ok_or(SettingsError::Key("it does not begin with `whsec_`"))?;
        let key = STANDARD.decode(encoded).map_err(|_| SettingsError::Key("what follows `whsec_` is not base64"))?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(SettingsError::Key("it is shorter than 24 or longer than 64 bytes"));
        }
        Ok(SigningKey(Arc::new(key.into())))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

/// What kind of sink it is, with what that kind needs.
#[derive(Clone, Debug)]
pub enum SinkKind {
    /// Prometheus Alertmanager, API v2.
    Alertmanager {
        /// Every member of the cluster: each is told everything.
        urls: Vec<Target>,
        /// Sent to all of them.
        auth: Option<Auth>,
    },
    /// A Slack incoming webhook.
    Slack {
        /// The webhook's address.
        url: Target,
    },
    /// A Teams workflow.
    Teams {
        /// The workflow's address.
        url: Target,
    },
    /// PagerDuty, Events API v2.
    PagerDuty {
        /// `https://events.pagerduty.com/v2/enqueue`, or `events.eu.pagerduty.com`.
        url: Target,
        /// The integration's key.
        routing_key: SecretString,
    },
    /// CloudEvents in structured mode, signed by Standard Webhooks.
    Webhook {
        /// Where to post.
        url: Target,
        /// The first signs; a second, the previous one, signs as well while keys are changed. Without any nothing is
        /// signed, and the receiver cannot tell our messages from others': `config` warns of it (T-57).
        keys: Vec<SigningKey>,
        /// Sent along, where the receiver asks for it.
        auth: Option<Auth>,
        /// The beginning of every event's `source`, such as `/tidewaiter/prod-eu`.
        source: Arc<str>,
    },
}

/// One configured sink.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// Its configured name, unique.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SinkKind,
    /// The severities it takes.
    pub severities: Vec<Severity>,
    /// PEM certificates to trust besides the system's.
    pub ca_pem: Option<Arc<[u8]>>,
}

impl SinkSettings {
    /// The sink as those see it who build alerts for it.
    pub fn info(&self) -> SinkInfo {
        SinkInfo { name: self.name.clone(), severities: self.severities.clone() }
    }

    /// How fast messages may go to it, and in what portions.
    pub(super) fn pace(&self) -> Pace {
        match self.kind {
            SinkKind::Alertmanager { .. } => Pace { batch: 100, ..Pace::FREE },
            SinkKind::Webhook { .. } => Pace::FREE,
            // Slack asks for no more than one message a second, Teams for no more than four.
            SinkKind::Slack { .. } => Pace { gap: Duration::from_secs(1), ..Pace::PEOPLE },
            SinkKind::Teams { .. } => Pace { gap: Duration::from_millis(300), ..Pace::PEOPLE },
            // Each incident is opened and closed by its own key, so there is nothing to summarise: they wait their turn.
            SinkKind::PagerDuty { .. } => Pace { summarises: false, each_per_minute: 60, ..Pace::PEOPLE },
        }
    }
}

/// How fast messages may go to a sink (T-55).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Most alerts in one request.
    pub batch: usize,
    /// Most single messages in a minute.
    pub each_per_minute: usize,
    /// Whether what is beyond that goes into summaries.
    pub summarises: bool,
    /// Shortest time between two messages.
    pub gap: Duration,
}

impl Pace {
    /// For programs, which are served by speed.
    const FREE: Pace = Pace { batch: 1, each_per_minute: usize::MAX, summarises: false, gap: Duration::ZERO };
    /// For people: 48 single messages and a summary every 5 s are at most 60 messages a minute.
    const PEOPLE: Pace = Pace { batch: 1, each_per_minute: 48, summarises: true, gap: Duration::ZERO };
}

/// Where messages may link to: only configured bases, never a host from outside (T-54).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    console: Option<String>,
    reasons: Option<String>,
}

impl Links {
    /// Links to the console at `console` and to the pages on reasons under `reasons`, where they are given.
    ///
    /// # Errors
    /// [`SettingsError::Link`].
    pub fn new(console: Option<&str>, reasons: Option<&str>) -> Result<Links, SettingsError> {
        Ok(Links { console: console.map(base).transpose()?, reasons: reasons.map(base).transpose()? })
    }

    /// The console's page of a violation, by its fingerprint.
    pub(super) fn violation(&self, fingerprint: &str) -> Option<String> {
        self.console.as_ref().map(|base| format!("{base}/violations/{fingerprint}"))
    }

    /// The console's list.
    pub(super) fn list(&self) -> Option<String> {
        self.console.as_ref().map(|base| format!("{base}/"))
    }

    /// The page on a reason.
    pub(super) fn reason(&self, code: &str) -> Option<String> {
        self.reasons.as_ref().map(|base| format!("{base}/{code}"))
    }
}

/// A base without the slash at its end, in a form that no sink's markup can misread.
fn base(text: &str) -> Result<String, SettingsError> {
    let fault = || SettingsError::Link(super::text::fit(text, 200, super::text::plain));
    let url = Url::parse(text).map_err(|_| fault())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    // `|` ends the address of a link in Slack, `)` in Markdown.
    let written = url.as_str().trim_end_matches('/');
    if plain && !written.contains(['|', '(', ')', '[', ']', '<', '>', '"', '\'', '`']) {
        Ok(written.to_owned())
    } else {
        Err(fault())
    }
}
