//! Amazon SNS: the certificates it signs with, and subscriptions that wait to be confirmed.
//!
//! Both addresses come in messages. They are followed only at the service's own hosts, and of those only in the
//! regions of the configured topics (T-17, T-18).

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::future::Cache;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::{Fetch, FetchError};
use crate::backoff::Backoff;
use crate::event::authenticity::{signing_cert_url_is_trusted, sns_url_is_trusted};
use crate::intake::{CertificateSource, Confirm, HookFuture, NoCertificate};

/// Largest certificate, as PEM, in bytes; the service's have 2 KiB.
const CERTIFICATE_BYTES_MAX: usize = 32 * 1024;
/// Certificates kept: each region has one or two.
const CERTIFICATES_MAX: u64 = 32;
/// How long one is kept. The service renews them about once a year, under another address.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Fetches in one second, of addresses that anybody can make up; a burst is a start with several regions.
const PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
const BURST: NonZeroU32 = NonZeroU32::new(8).unwrap();
/// Largest answer to a confirmation, in bytes: a short XML document.
const CONFIRMED_BYTES_MAX: usize = 64 * 1024;
/// Tries of one confirmation, and the pauses between them. The service can be asked to send the request again.
const TRIES: u32 = 5;
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// Confirmations under way at once: a topic is subscribed to once in its life.
const CONFIRMING_MAX: usize = 4;

/// The hosts of the regions of `topics` (ARN: `arn:PARTITION:sns:REGION:ACCOUNT:NAME`).
fn hosts(topics: &[String]) -> HashSet<String> {
    let region = |topic: &String| topic.split(':').nth(3).map(str::to_owned);
    let both = |region: String| [format!("sns.{region}.amazonaws.com"), format!("sns.{region}.amazonaws.com.cn")];
    topics.iter().filter_map(region).flat_map(both).collect()
}

fn at(url: &str, hosts: &HashSet<String>) -> Option<Url> {
    Url::parse(url).ok().filter(|url| url.host_str().is_some_and(|host| hosts.contains(host)))
}

/// The certificates, kept for a day.
pub struct Certificates {
    fetch: Fetch,
    hosts: HashSet<String>,
    kept: Cache<String, Arc<[u8]>>,
    rate: DefaultDirectRateLimiter,
}

impl Certificates {
    /// Those of the regions of `topics`.
    pub fn new(topics: &[String], fetch: Fetch) -> Certificates {
        Certificates {
            fetch,
            hosts: hosts(topics),
            kept: Cache::builder().max_capacity(CERTIFICATES_MAX).time_to_live(KEPT).build(),
            rate: RateLimiter::direct(Quota::per_second(PER_SECOND).allow_burst(BURST)),
        }
    }

    async fn fetched(&self, url: &Url) -> Result<Arc<[u8]>, NoCertificate> {
        if self.rate.check().is_err() {
            tracing::warn!("too many signing certificates are asked for; messages with unknown ones are to come again");
            return Err(NoCertificate::Unavailable);
        }
        let refused = |why: NoCertificate, error: String| {
            tracing::warn!(host = url.host_str(), error, "a signing certificate of Amazon SNS cannot be had");
            why
        };
        let pem = self.fetch.get(url, CERTIFICATE_BYTES_MAX).await.map_err(|error| {
            let why = match error {
                FetchError::Timeout | FetchError::Connection(_) | FetchError::Status(429 | 500..) => {
                    NoCertificate::Unavailable
                }
                FetchError::Refused | FetchError::Status(_) | FetchError::TooLarge(_) => NoCertificate::Wrong,
            };
            refused(why, error.to_string())
        })?;
        let certificate = CertificateDer::from_pem_slice(&pem);
        Ok(certificate.map_err(|error| refused(NoCertificate::Wrong, error.to_string()))?.as_ref().into())
    }
}

impl CertificateSource for Certificates {
    fn certificate<'a>(&'a self, url: &'a str) -> HookFuture<'a, Result<Arc<[u8]>, NoCertificate>> {
        Box::pin(async move {
            if !signing_cert_url_is_trusted(url) {
                return Err(NoCertificate::Wrong);
            }
            let parsed = at(url, &self.hosts).ok_or(NoCertificate::Wrong)?;
            // One fetch for all who wait for the same; what could not be had is not kept.
            self.kept.try_get_with(url.to_owned(), self.fetched(&parsed)).await.map_err(|why| *why)
        })
    }
}

/// Subscriptions of configured topics, confirmed by calling the address that the service sent.
pub struct Subscriptions {
    wanted: HashMap<String, (Vec<String>, Fetch)>,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Subscriptions {
    /// For these sources, each with its topics. Calls are made in the background until `stop`.
    pub fn new(
        sources: impl IntoIterator<Item = (String, Vec<String>, Fetch)>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Subscriptions {
        Subscriptions {
            wanted: sources.into_iter().map(|(name, topics, fetch)| (name, (topics, fetch))).collect(),
            tasks,
            places: Arc::new(Semaphore::new(CONFIRMING_MAX)),
            stop,
        }
    }
}

impl Confirm for Subscriptions {
    fn confirm(&self, source: &str, topic: &str, url: &str) -> bool {
        let Some((topics, fetch)) = self.wanted.get(source) else { return false };
        if !topics.iter().any(|wanted| wanted == topic) || !sns_url_is_trusted(url) {
            return false;
        }
        let Some(url) = at(url, &hosts(std::slice::from_ref(&topic.to_owned()))) else { return false };
        let Ok(place) = self.places.clone().try_acquire_owned() else { return false };
        let (source, topic, fetch, stop) = (source.to_owned(), topic.to_owned(), fetch.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                () = call(&fetch, &url, &source, &topic) => {}
            }
        });
        true
    }
}

/// Calls the address until it answers. It holds a token, so it is never shown.
async fn call(fetch: &Fetch, url: &Url, source: &str, topic: &str) {
    for attempt in 1..=TRIES {
        match fetch.get(url, CONFIRMED_BYTES_MAX).await {
            Ok(_) => {
                tracing::info!(source, topic, "the subscription is confirmed");
                return;
            }
            Err(error) if attempt == TRIES => {
                tracing::error!(source, topic, %error, "the subscription could not be confirmed; have the topic request confirmation again");
            }
            Err(error) => {
                tracing::warn!(source, topic, %error, "the subscription could not be confirmed yet");
                tokio::time::sleep(AGAIN.delay(attempt, 0.5)).await;
            }
        }
    }
}
