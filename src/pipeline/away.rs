//! Tells people of a registry that has answered nothing for long, and that it answers again.
//!
//! It asks nothing itself: what waits for the registry asks it again and again, and the client knows how that ended.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::alert::{self, Alert, Topic};
use crate::image::Host;
use crate::registry::Client;
use crate::store::Store;

/// How often to look, at most: the alert is about minutes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What people are told.
const TOPIC: Topic = Topic::RegistryUnreachable;

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
        let mut told = alert::since(&*self.pipeline.store, TOPIC, self.host.as_str()).await.is_some();
        let every = LOOK_EVERY.min(self.after / 4).max(Duration::from_millis(10));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => told = self.look(&client, told).await,
            }
        }
    }

    /// Whether people know that it is away, after a look.
    async fn look(&self, client: &Client, told: bool) -> bool {
        let Pipeline { store, sinks, clock, .. } = &self.pipeline;
        let (now, host) = (clock.now(), self.host.as_str());
        match (told, client.unanswered()) {
            (false, Some(time)) if time >= self.after => {
                let seconds = time.as_secs();
                let message = format!(
                    "the registry {host} has answered nothing for {seconds} s; events wait and nothing of it is judged"
                );
                tracing::warn!(registry = host, seconds, "the registry has answered nothing for long");
                alert::begins(&**store, sinks, Alert::about_self(TOPIC, host, &message, now).into()).await
            }
            (true, None) if client.answers() => {
                tracing::info!(registry = host, "the registry answers again");
                !alert::ends(&**store, sinks, (TOPIC, host), &format!("the registry {host} answers again"), now).await
            }
            _ => told,
        }
    }
}
