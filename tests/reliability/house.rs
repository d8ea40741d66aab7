//! The pipeline in this process: a store, registries that are tables, policies, and a clock.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tidewaiter::alert::{Alert, SinkInfo, Subject};
use tidewaiter::clock::{Clock, SystemClock};
use tidewaiter::document::Source;
use tidewaiter::event::{Action, Event, Stage};
use tidewaiter::image::{Host, Repository};
use tidewaiter::metrics::Metrics;
use tidewaiter::pipeline::{Pipeline, Reconcile, Registries};
use tidewaiter::policy::violation::Edge;
use tidewaiter::policy::{PolicySet, Severity, compile, documents};
use tidewaiter::registry::{Client, Observer, Operation, Settings, StatusClass};
use tidewaiter::store::embedded::{EmbeddedStore, Options};
use tidewaiter::store::{Incoming, Paging, Store, ViolationFilter, ViolationRow};
use tokio_util::sync::CancellationToken;

use crate::shelf::Shelf;
use crate::support::fake::Fake;
use crate::support::program::eventually;

pub const PATIENCE: Duration = Duration::from_secs(120);

/// Versions never change and lead to an index; nothing else is asked.
pub const POLICY: &str = r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: iot}
spec:
  repositories: ["*/iot/**"]
  mode: alert
  severity: critical
  classes:
    - name: version
      form: "{major}.{minor}.{patch}"
      require: {immutable: true, index: true, intact: true}
"#;

pub fn policies(text: &str) -> PolicySet {
    let documents = documents(&Source::new("test", text)).unwrap();
    compile(&documents, &|_, _| Err("no files".into())).unwrap()
}

pub struct Deaf;

impl Observer for Deaf {
    fn request(&self, _: &Host, _: Operation, _: StatusClass, _: Duration) {}
    fn throttled(&self, _: &Host, _: Duration) {}
    fn token_refresh(&self, _: &Host, _: bool) {}
}

/// A client of a table; `timeout` for one request.
pub fn client(fake: &Fake, timeout: Duration, per_second: u32) -> Client {
    let mut settings = Settings::new(fake.host().parse().unwrap());
    settings.insecure = true;
    settings.allow_private = true;
    settings.timeout = timeout;
    settings.requests_per_second = per_second;
    Client::new(settings, Arc::new(Deaf)).unwrap()
}

pub const SMALL: Options =
    Options { backlog_events: 1_000_000, backlog_bytes: 2 << 30, reserve_bytes: 0, file_bytes_max: None };

/// Everything but the listeners.
pub struct House {
    pub store: Arc<EmbeddedStore>,
    pub pipeline: Pipeline<EmbeddedStore>,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl House {
    pub fn new(clients: impl IntoIterator<Item = Client>) -> House {
        House::with(EmbeddedStore::open_in_memory(SMALL).unwrap(), clients, Arc::new(SystemClock), POLICY)
    }

    pub fn on_disk(path: &Path, clients: impl IntoIterator<Item = Client>) -> House {
        House::with(EmbeddedStore::open(path, SMALL).unwrap(), clients, Arc::new(SystemClock), POLICY)
    }

    pub fn with(
        store: EmbeddedStore,
        clients: impl IntoIterator<Item = Client>,
        clock: Arc<dyn Clock>,
        policy: &str,
    ) -> House {
        let store = Arc::new(store);
        let severities = vec![Severity::Info, Severity::Warning, Severity::Critical];
        let pipeline = Pipeline {
            store: store.clone(),
            registries: Registries::new(clients),
            policies: Arc::new(ArcSwap::from_pointee(policies(policy))),
            sinks: Arc::from([SinkInfo { name: "sink".into(), severities }]),
            clock,
            metrics: Arc::new(Metrics::new().unwrap()),
            baselined: Arc::default(),
            proving: Arc::default(),
            heard: Arc::default(),
            rejudged: Arc::default(),
        };
        House { store, pipeline, stop: CancellationToken::new(), running: None }
    }

    /// Lets the pipeline work.
    pub fn start(&mut self) {
        self.stop = CancellationToken::new();
        self.running = Some(tokio::spawn(self.pipeline.clone().run(self.stop.clone())));
    }

    /// Ends it as a shutdown does.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }

    pub async fn tell(&self, events: Vec<Incoming>) {
        self.store.append(events, vec![]).await.unwrap();
    }

    /// Waits until no event waits.
    pub async fn quiet(&self) {
        self.quiet_within(PATIENCE).await;
    }

    /// The same, for long queues.
    pub async fn quiet_within(&self, patience: Duration) {
        eventually("no event waits", patience, async || Ok((self.store.stats().await?.queued == 0).then_some(())))
            .await
            .unwrap();
    }

    /// The tags on record that are there: repository, tag, digest.
    pub async fn tags(&self) -> BTreeSet<(String, String, String)> {
        let mut all = BTreeSet::new();
        for repository in self.store.repositories(None, None, 100_000).await.unwrap() {
            for (tag, record) in self.store.tags(&repository, None, 1_000_000).await.unwrap() {
                if let Some(digest) = record.current {
                    all.insert((repository.name.to_string(), tag.to_string(), digest.to_string()));
                }
            }
        }
        all
    }

    /// Waits until the record is as the registry, and each of so many moves is a violation.
    pub async fn agrees(&self, shelf: &Shelf, moved: usize) {
        let same = async || Ok((self.tags().await == shelf.all()).then_some(()));
        eventually("the record is as the registry", PATIENCE, same).await.unwrap();
        let told = async || Ok((self.violations().await.len() == moved).then_some(()));
        eventually("every move is a violation", PATIENCE, told).await.unwrap();
    }

    pub async fn violations(&self) -> Vec<ViolationRow> {
        let (mut paging, mut rows) = (Paging { cursor: None, limit: 1_000 }, Vec::new());
        loop {
            let page = self.store.violations(ViolationFilter::default(), paging.clone()).await.unwrap();
            rows.extend(page.items);
            match page.next {
                Some(next) => paging.cursor = Some(next),
                None => return rows,
            }
        }
    }

    /// All alerts about images, in order: tag, requirement, edge.
    pub async fn alerts(&self) -> Vec<(String, String, Edge)> {
        let items = self.store.outbox("sink", Timestamp::MAX, 1_000_000).await.unwrap();
        items
            .iter()
            .map(|item| Alert::from_json(&item.alert.body).unwrap())
            .filter_map(|alert| match alert.subject {
                Subject::Image { ref repository, ref tag, requirement, .. } => {
                    let name = tag.as_ref().map_or_else(|| repository.to_string(), |t| format!("{repository}:{t}"));
                    Some((name, requirement.as_str().to_owned(), alert.edge))
                }
                _ => None,
            })
            .collect()
    }

    /// The alerts about the daemon itself: topic and edge.
    pub async fn troubles(&self) -> Vec<(String, Edge)> {
        let items = self.store.outbox("sink", Timestamp::MAX, 1_000_000).await.unwrap();
        let alerts = items.iter().map(|item| Alert::from_json(&item.alert.body).unwrap());
        alerts
            .filter(|alert| matches!(alert.subject, Subject::Daemon { .. }))
            .map(|alert| (alert.reason, alert.edge))
            .collect()
    }

    pub fn reconcile(&self, fake: &Fake, every: Duration, hooked: bool) -> Reconcile<EmbeddedStore> {
        let host: Host = fake.host().parse().unwrap();
        let plan = tidewaiter::pipeline::Plan::new(every, &host, &[]).unwrap();
        Reconcile { pipeline: self.pipeline.clone(), host, plan, hooked }
    }

    pub fn now(&self) -> Timestamp {
        self.pipeline.clock.now()
    }
}

/// An event about a tag; `key` tells redeliveries.
pub fn event(
    fake: &Fake,
    repository: &str,
    tag: Option<&str>,
    digest: Option<&str>,
    key: &str,
    at: Timestamp,
) -> Incoming {
    let repository: Repository = format!("{}/{repository}", fake.host()).parse().unwrap();
    Incoming {
        source: "hook".into(),
        event: Event {
            stage: Stage::Done,
            action: Action::Push,
            registry: None,
            repository: repository.name.clone(),
            tag: tag.map(|t| t.parse().unwrap()),
            digest: digest.map(|d| d.parse().unwrap()),
            id: Some(key.to_owned()),
            at: Some(at),
            actor: None,
        },
        repository,
        key: key.to_owned(),
        received_at: at,
    }
}
