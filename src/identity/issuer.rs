//! The keys of a token issuer: fetched in the background, kept, and renewed at a bounded rate. No request ever
//! waits for them, and no token can make us fetch more often than once a minute.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Fetch, FetchError};
use crate::backoff::Backoff;
use crate::event::authenticity::{JwksError, KeySet};
use crate::intake::KeySource;

/// How often keys are fetched without being asked for: issuers publish a new key a day or more before they use it.
const EVERY: Duration = Duration::from_secs(3600);
/// The shortest time between two fetches because of a token with an unknown key, which anybody can send.
const RENEW_AT_MOST: Duration = Duration::from_secs(60);
/// Pauses while the issuer cannot be reached.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(300) };
/// After this long out of reach, what is at hand is no longer trusted: a key may have been withdrawn.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Largest document, in bytes; the known ones have 1 to 20 KiB.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// The path of a discovery document below its issuer (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Issuers whose keys are at another host, which their documentation names: where somebody configured the issuer,
/// that is configured as well.
const KNOWN: &[(&str, &str)] = &[("https://accounts.google.com", "https://www.googleapis.com/oauth2/v3/certs")];

/// Why an issuer's keys are not at hand.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("{0}: {1}")]
    Fetch(&'static str, FetchError),
    #[error("the discovery document is not one")]
    Discovery,
    #[error("the discovery document is of another issuer")]
    OtherIssuer,
    #[error("the discovery document names keys at another host than the issuer's: set `jwks` to their address")]
    OtherHost,
    #[error(transparent)]
    Keys(#[from] JwksError),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// One issuer.
pub struct Issuer {
    issuer: String,
    jwks: Option<Url>,
    fetch: Fetch,
    keys: ArcSwap<KeySet>,
    wanted: Notify,
    tried: watch::Sender<bool>,
}

impl Issuer {
    /// The issuer named `issuer`, an https address; its keys are at `jwks`, or where its discovery document says.
    /// Nothing is fetched before [`run`](Issuer::run).
    pub fn new(issuer: &str, jwks: Option<Url>, fetch: Fetch) -> Issuer {
        Issuer {
            issuer: issuer.to_owned(),
            jwks,
            fetch,
            keys: ArcSwap::default(),
            wanted: Notify::new(),
            tried: watch::Sender::new(false),
        }
    }

    /// Waits until the keys were fetched for the first time, in vain or not, for at most `time`.
    pub async fn first(&self, time: Duration) {
        let mut tried = self.tried.subscribe();
        // Late or ended is as good as in vain: the fetching goes on.
        let _ = tokio::time::timeout(time, tried.wait_for(|tried| *tried)).await;
    }

    /// Fetches the keys now and then until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0_u32;
        let mut known_at = Instant::now();
        loop {
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = self.fetched() => fetched,
            };
            let pause = match fetched {
                Ok(keys) => {
                    if failures > 0 {
                        tracing::info!(issuer = self.issuer, "the issuer's keys are at hand again");
                    }
                    (failures, known_at) = (0, Instant::now());
                    self.keys.store(Arc::new(keys));
                    EVERY
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(issuer = self.issuer, %error, "the issuer's keys could not be fetched; tried again");
                    if known_at.elapsed() > STALE {
                        self.keys.store(Arc::default());
                    }
                    AGAIN.delay(failures, 0.5)
                }
            };
            self.tried.send_replace(true);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = async {
                    tokio::time::sleep(RENEW_AT_MOST).await;
                    self.wanted.notified().await;
                } => {}
            }
        }
    }

    async fn fetched(&self) -> Result<KeySet, KeysError> {
        let known = KNOWN.iter().find(|(issuer, _)| *issuer == self.issuer).and_then(|(_, jwks)| Url::parse(jwks).ok());
        let jwks = match self.jwks.clone().or(known) {
            Some(jwks) => jwks,
            None => self.discovered().await?,
        };
        let bytes = self.fetch.get(&jwks, DOCUMENT_BYTES_MAX).await.map_err(|e| KeysError::Fetch("keys", e))?;
        Ok(KeySet::from_json(&bytes)?)
    }

    /// Where the keys are, by the discovery document. An answer does not choose a host: only the configuration
    /// does.
    async fn discovered(&self) -> Result<Url, KeysError> {
        let at = format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/'));
        let url = Url::parse(&at).map_err(|_| KeysError::Discovery)?;
        let bytes = self.fetch.get(&url, DOCUMENT_BYTES_MAX).await;
        let bytes = bytes.map_err(|e| KeysError::Fetch("discovery", e))?;
        let found: Discovery = serde_json::from_slice(&bytes).map_err(|_| KeysError::Discovery)?;
        if found.issuer != self.issuer {
            return Err(KeysError::OtherIssuer);
        }
        let jwks = Url::parse(&found.jwks_uri).map_err(|_| KeysError::Discovery)?;
        let plain = jwks.username().is_empty() && jwks.password().is_none();
        if jwks.origin() == url.origin() && plain { Ok(jwks) } else { Err(KeysError::OtherHost) }
    }
}

impl KeySource for Issuer {
    fn keys(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    fn renew(&self) {
        self.wanted.notify_one();
    }
}
