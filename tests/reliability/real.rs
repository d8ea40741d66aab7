//! The built program between a registry that is a table and a sink that keeps what it is sent, told of pushes over
//! TLS by a sender that goes on whatever happens, and sends again what was not acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use tidewaiter::store::embedded::EmbeddedStore;
use tidewaiter::store::{Paging, Store};

use crate::house::SMALL;
use crate::shelf::{Shelf, bare};
use crate::support::daemon::Daemon;
use crate::support::fake::{Fake, Reply};
use crate::support::http::Http;
use crate::support::program::free_port;
use crate::support::tls::Ca;
use crate::tape::Clockwork;

const SECRET: &str = "Bearer reliability";

/// Every push violates this, so that each is told exactly once.
fn policy() -> String {
    crate::house::POLICY.replace("index: true, intact: true", "platforms: {all: [linux/amd64]}")
}

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidewaiter"))
}

/// What one sender came to know.
#[derive(Default)]
pub struct Sent {
    /// Ids that were handed over, acknowledged or not.
    pub ids: BTreeSet<String>,
    /// Ids that were acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// How long the record of the disk was by then ([`Clockwork`]).
    pub at: BTreeMap<String, u64>,
    /// Of these, not at the first attempt.
    pub again: usize,
    /// Answers by status; 0 stands for none.
    pub answers: BTreeMap<u16, usize>,
    /// The slowest answer.
    pub slowest: Duration,
}

/// An alert that the sink took.
#[derive(Clone)]
pub struct Delivery {
    /// Fingerprint and edge.
    pub about: String,
    /// Repository and tag.
    pub image: String,
    pub id: String,
    /// How long the record of the disk was by then.
    pub at: u64,
}

pub struct Real {
    pub shelf: Shelf,
    pub registry: Fake,
    pub sink: Fake,
    /// The sink answers 503 while this is set.
    pub sink_away: Arc<AtomicBool>,
    /// What it took, in order.
    pub taken: Arc<Mutex<Vec<Delivery>>>,
    pub clockwork: Clockwork,
    pub daemon: Daemon,
    pub http: Http,
    pub events: String,
    pub store: PathBuf,
    /// Last, so that the program has ended when its folder goes.
    _folder: tempfile::TempDir,
}

impl Real {
    /// Starts everything. The store lies in `store`, or beside the configuration; `binary` may be a script around the
    /// program.
    pub async fn start(store: Option<&Path>, binary: &Path) -> Real {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let issued = ca.issue(&["localhost", "127.0.0.1"]);
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("ca.crt", ca.pem()),
            ("tls.crt", &issued.certificate),
            ("tls.key", &issued.key),
            ("secret", SECRET),
            ("policy.yaml", &policy()),
        ] {
            crate::support::stage::write(&path(name), text).unwrap();
        }
        let shelf = Shelf::default();
        let registry = shelf.serve().await;
        let sink_away = Arc::new(AtomicBool::new(false));
        let (taken, clockwork) = (Arc::new(Mutex::new(Vec::new())), Clockwork::default());
        let (away, into, clock) = (sink_away.clone(), taken.clone(), clockwork.clone());
        let sink = Fake::http(move |seen| {
            if away.load(Ordering::SeqCst) {
                return Reply::new(503, "");
            }
            into.lock().unwrap().extend(delivery(&seen.body, clock.now()));
            Reply::new(202, "")
        })
        .await;
        let (events, admin) = (free_port().unwrap(), free_port().unwrap());
        let store = store.unwrap_or(folder.path()).join("tidewaiter.db");
        let host = registry.host();
        let config = format!(
            r#"listen: {{events: "127.0.0.1:{events}", admin: "127.0.0.1:{admin}"}}
tls: {{certificate: tls.crt, key: tls.key}}
store: {{url: "sqlite:{}"}}
policies: [policy.yaml]
registries:
  - host: {host}
    insecure: true
    allowPrivate: true
    limits: {{concurrency: 16, requestsPerSecond: 10000}}
sources:
  - {{name: hook, format: acr, registry: {host}, auth: {{header: Authorization, valueFiles: [secret]}}}}
sinks:
  - {{name: sink, kind: webhook, url: "http://{}/", allowPrivate: true}}
"#,
            store.display(),
            sink.host()
        );
        fs::write(path("tidewaiter.yaml"), config).unwrap();
        let http = Http::new(Some(ca.pem())).unwrap();
        let admin = format!("http://127.0.0.1:{admin}");
        let daemon = Daemon::start(binary, &path("tidewaiter.yaml"), &admin, http.clone()).await.unwrap();
        let events = format!("https://localhost:{events}/v1/events/hook");
        Real { shelf, registry, sink, sink_away, taken, clockwork, daemon, http, events, store, _folder: folder }
    }

    /// Repository and tag of a push.
    pub fn image(number: usize) -> (String, String) {
        (format!("iot/r{}", number % 20), format!("1.{}.0", number / 20))
    }

    /// Puts a push on the shelf and makes the event that tells of it.
    pub fn push(&self, number: usize) -> (String, String) {
        let (repository, tag) = Real::image(number);
        let digest = self.shelf.put(&repository, &tag, &bare(&number.to_string()));
        let id = format!("event-{number}");
        let event = json!({
            "id": id,
            "timestamp": "2026-11-22T10:00:00Z",
            "action": "push",
            "target": {
                "mediaType": "application/vnd.oci.image.index.v1+json", "size": 100, "length": 100,
                "digest": digest, "repository": repository, "tag": tag,
            },
            "request": {"id": id, "host": self.registry.host(), "method": "PUT"},
        });
        (id, event.to_string())
    }

    /// Sends `count` events from number `first` on at this rate, each again until it is acknowledged or `patience`
    /// is over.
    pub fn send(&self, first: usize, count: usize, per_second: usize, patience: Duration) -> Sending {
        let sent = Arc::new(Mutex::new(Sent::default()));
        let events: Vec<(String, String)> = (first..first + count).map(|number| self.push(number)).collect();
        let (http, url, into, clockwork) =
            (self.http.clone(), self.events.clone(), sent.clone(), self.clockwork.clone());
        let left = Arc::new(AtomicUsize::new(count));
        let waiting = left.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second as u32);
            for (id, event) in events {
                tick.tick().await;
                let (http, url, sent, left) = (http.clone(), url.clone(), into.clone(), left.clone());
                let clockwork = clockwork.clone();
                tokio::spawn(async move {
                    let end = Instant::now() + patience;
                    let mut attempts = 0;
                    while Instant::now() < end {
                        attempts += 1;
                        sent.lock().unwrap().ids.insert(id.clone());
                        let begun = Instant::now();
                        let headers = [("authorization", SECRET), ("content-type", "application/json")];
                        let answer = http.send(Method::POST, &url, &headers, event.clone()).await;
                        let status = answer.map_or(0, |answer| answer.status.as_u16());
                        let now = clockwork.now();
                        {
                            let mut sent = sent.lock().unwrap();
                            *sent.answers.entry(status).or_default() += 1;
                            if status != 0 {
                                sent.slowest = sent.slowest.max(begun.elapsed());
                            }
                            if status == 202 {
                                sent.acknowledged.insert(id.clone());
                                sent.at.insert(id.clone(), now);
                                sent.again += usize::from(attempts > 1);
                                break;
                            }
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    left.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Sending { sent, left: waiting, task }
    }

    /// The ids of alerts that the sink took, by what they are about, and how many deliveries there were.
    pub fn told(&self) -> (BTreeMap<String, BTreeSet<String>>, usize) {
        let (mut told, mut deliveries) = (BTreeMap::<String, BTreeSet<String>>::new(), 0);
        for seen in self.sink.seen() {
            let Ok(body) = serde_json::from_slice::<Value>(&seen.body) else { continue };
            if body["data"]["image"].is_object() {
                deliveries += 1;
                let about = format!("{} {}", body["data"]["fingerprint"], body["data"]["state"]);
                told.entry(about).or_default().insert(body["id"].to_string());
            }
        }
        (told, deliveries)
    }
}

/// The alert about an image that a body is, if it is one.
fn delivery(body: &[u8], at: u64) -> Option<Delivery> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let (data, word) = (&body["data"], |value: &Value| value.as_str().map(str::to_owned));
    Some(Delivery {
        about: format!("{} {}", data["fingerprint"], data["state"]),
        image: format!("{}:{}", word(&data["image"]["repository"])?, word(&data["image"]["tag"])?),
        id: word(&body["id"])?,
        at,
    })
}

/// A sender at work.
pub struct Sending {
    sent: Arc<Mutex<Sent>>,
    left: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Sending {
    pub fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Waits until each event is acknowledged or given up.
    pub async fn done(self) -> Sent {
        self.task.await.unwrap();
        while self.left.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

/// What a store has, read after its daemon ended.
pub struct Recorded {
    /// Events by id, with how often each is there.
    pub ids: BTreeMap<String, usize>,
    /// States of events.
    pub states: BTreeMap<String, usize>,
    /// Tags.
    pub tags: BTreeSet<(String, String, String)>,
}

/// Reads a store from end to end; it must be whole.
pub async fn recorded(path: &Path) -> Recorded {
    assert_eq!(EmbeddedStore::verify(path).unwrap().faults, Vec::<String>::new());
    let store = EmbeddedStore::open(path, SMALL).unwrap();
    let (mut ids, mut states, mut tags) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut paging = Paging { cursor: None, limit: 1_000 };
    loop {
        let page = store.events(None, None, None, paging.clone()).await.unwrap();
        for row in page.items {
            *ids.entry(row.id.unwrap()).or_default() += 1;
            *states.entry(row.state).or_default() += 1;
        }
        let Some(next) = page.next else { break };
        paging.cursor = Some(next);
    }
    for repository in store.repositories(None, None, 100_000).await.unwrap() {
        for (tag, record) in store.tags(&repository, None, 1_000_000).await.unwrap() {
            tags.extend(record.current.map(|d| (repository.name.to_string(), tag.to_string(), d.to_string())));
        }
    }
    Recorded { ids, states, tags }
}
