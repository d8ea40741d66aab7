//! Tells people of tags that could not be determined for long, and that they are at last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::Pipeline;
use super::work::after;
use crate::alert::{Alert, Topic, Trouble, Troubles};
use crate::image::Tag;
use crate::store::{Claim, Store, StoreError};

/// Attempts after which people are told: with the pauses of [`AGAIN`](super::work::AGAIN), some fifteen minutes.
const ATTEMPTS_TOLD: u32 = 10;
/// What was told counts as over so long after the next attempt, unless that tells of it again: a tag that was asked
/// about anew, or that no policy governs any more, may have lost the number of its attempts.
const TOLD_STAYS: Duration = Duration::from_secs(30 * 60);

impl<S: Store> Pipeline<S> {
    /// Tells what could not be determined, where it was tried `attempts` times before, and of what could be that this
    /// is over. It is tried again at `again`.
    pub(super) async fn tell_undetermined(
        &self,
        claim: &Claim,
        attempts: u32,
        unknown: &BTreeMap<Option<Tag>, String>,
        now: Timestamp,
        again: Timestamp,
    ) -> Result<(), StoreError> {
        if attempts + 1 < ATTEMPTS_TOLD {
            return Ok(());
        }
        let name = |tag: &Option<Tag>| match tag {
            Some(tag) => format!("{}:{tag}", claim.repository),
            None => claim.repository.to_string(),
        };
        let events = claim.events.iter().map(|queued| queued.incoming.event.tag.clone());
        let asked = claim.rechecks.iter().map(|recheck| recheck.tag.clone()).chain(events);
        let known: BTreeSet<String> = asked.filter(|tag| !unknown.contains_key(tag)).map(|tag| name(&tag)).collect();
        let mut troubles = Troubles::read(&*self.store, &self.sinks).await?;
        troubles.end(now, |trouble| match trouble.about() {
            Some((Topic::UndeterminedForLong, name)) if known.contains(name) => {
                Some(format!("{name} is determined again"))
            }
            _ => None,
        });
        for (tag, fault) in unknown {
            let alert = Alert::about_self(Topic::UndeterminedForLong, &name(tag), fault, now);
            troubles.begin(Trouble { until: Some(after(again, TOLD_STAYS)), ..alert.into() });
        }
        troubles.close().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::alert::SinkInfo;
    use crate::clock::SystemClock;
    use crate::history::Origin;
    use crate::metrics::Metrics;
    use crate::pipeline::Registries;
    use crate::policy::Severity;
    use crate::store::Recheck;
    use crate::store::embedded::{EmbeddedStore, Options};

    #[tokio::test]
    async fn what_is_determined_at_last_is_told_to_be_over() {
        let pipeline = Pipeline {
            store: Arc::new(EmbeddedStore::open_in_memory(Options::default()).unwrap()),
            registries: Registries::default(),
            policies: Arc::new(ArcSwap::from_pointee(crate::policy::load(&[], &|_, _| Err(String::new())).unwrap().1)),
            sinks: Arc::from([SinkInfo { name: "sink".into(), severities: Severity::ALL.to_vec() }]),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new().unwrap()),
            baselined: Arc::default(),
            proving: Arc::default(),
            heard: Arc::default(),
            rejudged: Arc::default(),
        };
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let recheck = |tag: &str| Recheck { tag: tag.parse().ok(), due: now, origin: Origin::Event, attempts: 9 };
        let claim = Claim {
            repository: "r.example.com/a".parse().unwrap(),
            fence: 1,
            events: vec![],
            rechecks: vec![recheck("1"), recheck("2"), recheck("")],
        };
        let unknown = |tags: &[&str]| tags.iter().map(|tag| (tag.parse().ok(), "no answer".to_owned())).collect();
        let told = async |attempts, tags: &[&str]| {
            pipeline.tell_undetermined(&claim, attempts, &unknown(tags), now, now).await.unwrap();
            let items = pipeline.store.outbox("sink", Timestamp::MAX, 100).await.unwrap();
            pipeline.store.outbox_done(items.iter().map(|item| item.id).collect()).await.unwrap();
            let alerts = items.iter().map(|item| Alert::from_json(&item.alert.body).unwrap());
            let mut told: Vec<String> = alerts.map(|a| a.title()).collect();
            told.sort();
            told
        };
        assert_eq!(told(8, &["1", "2", ""]).await, Vec::<String>::new(), "not yet for long");
        let fired = |name: &str| format!("Undetermined for long: r.example.com/a{name}");
        assert_eq!(told(9, &["1", "2", ""]).await, [fired(""), fired(":1"), fired(":2")]);
        assert_eq!(told(10, &["2"]).await, [fired(""), fired(":1")].map(|t| t.replace("Und", "Resolved: und")));
        assert_eq!(told(11, &[]).await, ["Resolved: undetermined for long: r.example.com/a:2"]);
    }
}
