//! Tells people of a registry that has answered nothing for long, and that it answers again.
//!
//! It asks nothing itself: what waits for the registry asks it again and again, and the client knows how that ended.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::alert::{Alert, Topic, alerts_about_self};
use crate::image::Host;
use crate::registry::Client;
use crate::store::{Store, StoreError};

/// How often to look, at most: the alert is about minutes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The watch over one registry.
pub struct Reach<S> {
    /// The pipeline that asks it.
    pub pipeline: Pipeline<S>,
    /// The registry.
    pub host: Host,
    /// People are told after this time without an answer.
    pub after: Duration,
}

impl<S: Store> Reach<S> {
    /// Watches until `stop`. What was told before a restart is told to be over after it.
    pub async fn run(self, stop: CancellationToken) {
        let Some(client) = self.pipeline.registries.get(&self.host).cloned() else { return };
        let told = self.pipeline.store.get(&self.name()).await.ok().flatten();
        let mut since: Option<Timestamp> = told.and_then(|text| text.parse().ok());
        let every = LOOK_EVERY.min(self.after / 4).max(Duration::from_millis(10));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => since = self.look(&client, since).await,
            }
        }
    }

    fn name(&self) -> String {
        format!("away {}", self.host)
    }

    /// Since when people know that it is away, after a look.
    async fn look(&self, client: &Client, since: Option<Timestamp>) -> Option<Timestamp> {
        let now = self.pipeline.clock.now();
        match (since, client.unanswered()) {
            (None, Some(time)) if time >= self.after => {
                let message = format!(
                    "the registry {} has answered nothing for {} s; events wait and nothing of it is judged",
                    self.host,
                    time.as_secs()
                );
                tracing::warn!(registry = %self.host, seconds = time.as_secs(), "the registry has answered nothing for long");
                let alert = Alert::about_self(Topic::RegistryUnreachable, self.host.as_str(), &message, now);
                self.tell(&alert, &now.to_string()).await.then_some(now)
            }
            (Some(began), None) if client.answers() => {
                let message = format!("the registry {} answers again", self.host);
                tracing::info!(registry = %self.host, "the registry answers again");
                let alert = Alert::about_self(Topic::RegistryUnreachable, self.host.as_str(), &message, began);
                (!self.tell(&alert.resolved(now), "").await).then_some(began)
            }
            _ => since,
        }
    }

    /// The alert goes out first: told twice is better than never, and its id is the same.
    async fn tell(&self, alert: &Alert, value: &str) -> bool {
        let store = &self.pipeline.store;
        let told: Result<(), StoreError> = async {
            store.outbox_add(alerts_about_self(alert, &self.pipeline.sinks, None)).await?;
            store.set(&self.name(), value).await
        }
        .await;
        if let Err(error) = &told {
            tracing::error!(%error, "the alert about the registry could not be recorded");
        }
        told.is_ok()
    }
}
