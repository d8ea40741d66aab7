//! Looks now and then whether what people were told of the daemon itself is over: dead letters that are gone, what
//! was not heard of for long, and what the configuration no longer names.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::alert::{Topic, Trouble, Troubles};
use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::store::{Store, StoreError};

/// How often to look.
const EVERY: Duration = Duration::from_secs(30);
/// What waits to be determined is tried again within this time after a start.
const GRACE: SignedDuration = SignedDuration::from_mins(30);

/// Looks until `stop`.
pub(super) async fn watch<S: Store>(pipeline: Pipeline<S>, config: Config, stop: CancellationToken) {
    let started = pipeline.clock.now();
    loop {
        if let Err(error) = look(&pipeline, &config, started).await {
            tracing::warn!(%error, "whether the daemon's own troubles are over could not be read; looked at again soon");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn look<S: Store>(pipeline: &Pipeline<S>, config: &Config, started: Timestamp) -> Result<(), StoreError> {
    let mut troubles = Troubles::read(&*pipeline.store, &pipeline.sinks).await?;
    if troubles.open().is_empty() {
        return Ok(());
    }
    let now = pipeline.clock.now();
    let letters = match troubles.open().iter().any(|t| t.about().is_some_and(|(topic, _)| topic == Topic::DeadLetter)) {
        true => pipeline.store.stats().await?.dead_letters,
        false => 0,
    };
    let over = |trouble: &Trouble| {
        let (topic, name) = trouble.about()?;
        if !is_configured(config, topic, name) {
            return Some(format!("the configuration does not name {name} any more"));
        }
        if topic == Topic::DeadLetter && letters == 0 {
            return Some("no dead letter is kept any more".to_owned());
        }
        let until = match topic {
            Topic::UndeterminedForLong => trouble.until?.max(started.checked_add(GRACE).ok()?),
            _ => trouble.until?,
        };
        (until <= now).then(|| match topic {
            Topic::DeadLetter => {
                format!("the source {name} sent nothing unreadable for a day; what it had sent is kept")
            }
            Topic::SinkParked => format!("the sink `{name}` takes alerts again"),
            _ => format!("nothing was heard of it for long: {}", trouble.alert.message),
        })
    };
    troubles.end(now, over);
    troubles.close().await
}

/// Whether what a trouble is about still exists.
fn is_configured(config: &Config, topic: Topic, name: &str) -> bool {
    match topic {
        Topic::DeadLetter => config.sources.iter().any(|source| source.name == name),
        Topic::SinkParked => config.sinks.iter().any(|sink| sink.name == name),
        Topic::RegistryUnreachable => config.registries.iter().any(|registry| registry.host.as_str() == name),
        // A registry whose hook is no more cannot be silent.
        Topic::HookSilent => {
            config.sources.iter().any(|source| source.registries.iter().any(|host| host.as_str() == name))
        }
        Topic::UndeterminedForLong | Topic::PolicyReloadFailed => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::*;
    use crate::alert::{Alert, SinkInfo, begins, since};
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::policy::Severity;
    use crate::store::DeadLetter;
    use crate::store::embedded::{EmbeddedStore, Options};

    struct At(std::sync::Mutex<Timestamp>);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_is_over_is_told_after_a_restart_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "tidewaiter.yaml",
            "registries: [{host: r.example.com}]\nsources: [{name: hook, format: zot, registry: r.example.com, allowUnauthenticated: true}]\nsinks: [{name: sink, kind: webhook, url: 'https://hook.example.com/'}]\n",
        );
        let config = Config::load(&folder.path().join("tidewaiter.yaml")).unwrap_or_else(|faults| panic!("{faults:?}"));
        let clock = Arc::new(At(std::sync::Mutex::new(at("2026-11-22T12:00:00Z"))));
        let pipeline = Pipeline {
            store: Arc::new(EmbeddedStore::open_in_memory(Options::default()).unwrap()),
            registries: crate::pipeline::Registries::default(),
            policies: Arc::new(ArcSwap::from_pointee(
                super::super::load_policies(&crate::config::Policies::Shipped).unwrap(),
            )),
            sinks: Arc::from([SinkInfo { name: "sink".into(), severities: Severity::ALL.to_vec() }]),
            clock: clock.clone(),
            metrics: Arc::new(Metrics::new().unwrap()),
            baselined: Arc::default(),
            proving: Arc::default(),
            heard: Arc::default(),
            rejudged: Arc::default(),
        };
        let store = &*pipeline.store;
        let letter = DeadLetter {
            id: 0,
            source: "hook".into(),
            received_at: clock.now(),
            fault: "no json".into(),
            headers: vec![],
            body: b"?".to_vec().into(),
        };
        store.append(vec![], vec![letter]).await.unwrap();
        let day = clock.now().checked_add(SignedDuration::from_hours(24)).ok();
        let cases: [(Topic, &str, Option<Timestamp>); 8] = [
            (Topic::DeadLetter, "hook", None),
            (Topic::DeadLetter, "gone", None),
            (Topic::UndeterminedForLong, "r.example.com/a:1", day),
            (Topic::SinkParked, "sink", day),
            (Topic::SinkParked, "gone", None),
            (Topic::RegistryUnreachable, "gone.example.com", None),
            (Topic::HookSilent, "gone.example.com", None),
            (Topic::HookSilent, "r.example.com", None),
        ];
        for (topic, name, until) in cases {
            let alert = Alert::about_self(topic, name, "it is so", clock.now());
            begins(store, &pipeline.sinks, Trouble { until, ..alert.into() }).await;
        }
        let open = async |started: Timestamp| {
            look(&pipeline, &config, started).await.unwrap();
            let mut open = Vec::new();
            for (topic, name, _) in cases {
                if since(store, topic, name).await.is_some() {
                    open.push((topic, name));
                }
            }
            open
        };
        let started = clock.now();
        let left = [
            (Topic::DeadLetter, "hook"),
            (Topic::UndeterminedForLong, "r.example.com/a:1"),
            (Topic::SinkParked, "sink"),
            (Topic::HookSilent, "r.example.com"),
        ];
        assert_eq!(open(started).await, left, "what is no longer configured is over");
        *clock.0.lock().unwrap() = at("2026-11-24T12:00:00Z");
        let late = clock.now();
        assert_eq!(open(late).await, [left[0], left[1], left[3]], "after a start, what waits is tried again first");
        assert_eq!(open(started).await, [left[0], left[3]]);
        let page = crate::store::Paging { cursor: None, limit: 10 };
        for letter in store.dead_letters(page).await.unwrap().items {
            store.forget_dead_letter(letter.id).await.unwrap();
        }
        assert_eq!(open(started).await, [left[3]], "no dead letter is left");
        let told = store.outbox("sink", Timestamp::MAX, 100).await.unwrap();
        assert_eq!(told.len(), 8 + 7, "each begin, and each end");
    }
}
