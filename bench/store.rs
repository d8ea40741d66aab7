//! How fast the embedded store is: `cargo bench --bench store [-- TAGS]`, one million tags unless told otherwise.
//!
//! Goals: compare-and-set of a tag with a durable commit at 15,000 a second in batches of 16; `/metrics` in 10 ms;
//! ready in 3 s.

#![expect(clippy::disallowed_methods, reason = "a bench measures by the real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidewaiter::event::{Action, Event, Stage};
use tidewaiter::history::{Known, Origin, Sighting};
use tidewaiter::image::{Digest, Repository};
use tidewaiter::policy::{LineId, LineKey, Question, Span};
use tidewaiter::store::embedded::{EmbeddedStore, Options};
use tidewaiter::store::{Incoming, Recheck, Step, Store, TagUpdate};

const BATCH: usize = 16;
const TAGS_PER_REPOSITORY: usize = 1_000;
const WORKERS: usize = 64;

fn repository(n: usize) -> Repository {
    format!("contoso.azurecr.io/team/r{n:06}").parse().expect("a repository")
}

fn update(n: usize, content: usize) -> TagUpdate {
    let at = Timestamp::from_second(1_800_000_000).expect("a time");
    let digest = Digest::of(&content.to_be_bytes());
    let n = n as u64;
    TagUpdate {
        tag: format!("1.{}.{}", n / 100, n % 100).parse().expect("a tag"),
        sightings: vec![Sighting {
            digest: Some(digest.clone()),
            at,
            known: Known::Observed,
            looked: false,
            origin: Origin::Event,
            actor: None,
        }],
        current: Some(digest),
        locked: None,
        lines: vec![LineKey { line: LineId("version".into()), group: vec![], rank: n.to_be_bytes().to_vec() }],
        judged_moves: 0,
    }
}

async fn fill(store: &EmbeddedStore, repositories: usize) {
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    for n in 0..repositories {
        let wanted = Recheck { tag: None, due: now, origin: Origin::Audit, attempts: 0 };
        store.recheck(&repository(n), vec![wanted]).await.expect("a recheck");
        for claim in store.claim(now, 1, 1, Duration::from_secs(1_000_000)).await.expect("a claim") {
            let tags = (0..TAGS_PER_REPOSITORY).map(|t| update(t, n * TAGS_PER_REPOSITORY + t)).collect();
            let step = Step { tags, rechecked: vec![None], ..Step::default() };
            store.complete(&claim, step, false).await.expect("a step");
        }
    }
}

fn report(what: &str, count: usize, begun: Instant) {
    let elapsed = begun.elapsed();
    println!("{what}: {count} in {elapsed:.2?}, {:.0} a second", count as f64 / elapsed.as_secs_f64());
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let tags = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(1_000_000_usize);
    let repositories = (tags / TAGS_PER_REPOSITORY).max(1);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.db");
    let store = EmbeddedStore::open(&path, Options::default()).expect("a store");
    let begun = Instant::now();
    fill(&store, repositories).await;
    report("tags filled", repositories * TAGS_PER_REPOSITORY, begun);
    drop(store);
    let bytes = std::fs::metadata(&path).expect("a file").len();
    println!("{} bytes a tag", bytes / (repositories * TAGS_PER_REPOSITORY) as u64);

    let begun = Instant::now();
    let store = Arc::new(EmbeddedStore::open(&path, Options::default()).expect("a store"));
    println!("opened in {:.2?}", begun.elapsed());

    // Claims held, each worker moves tags in its own repositories, a batch a step.
    let now = Timestamp::from_second(1_800_000_001).expect("a time");
    for n in 0..WORKERS.min(repositories) {
        let wanted = Recheck { tag: None, due: now, origin: Origin::Audit, attempts: 0 };
        store
            .recheck(&repository(n * repositories / WORKERS.min(repositories)), vec![wanted])
            .await
            .expect("a recheck");
    }
    let claims = store.claim(now, WORKERS, 1, Duration::from_secs(1_000_000)).await.expect("claims");
    const STEPS: usize = 60;
    let begun = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    let count = claims.len() * STEPS * BATCH;
    for claim in claims {
        let store = store.clone();
        workers.spawn(async move {
            for step in 0..STEPS {
                let tags = (0..BATCH).map(|t| update((step * 97 + t * 61) % TAGS_PER_REPOSITORY, step + 1)).collect();
                store.complete(&claim, Step { tags, ..Step::default() }, true).await.expect("a step");
            }
        });
    }
    while workers.join_next().await.is_some() {}
    report("tags moved, batches of 16, each commit durable", count, begun);

    let begun = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..WORKERS {
        let store = store.clone();
        senders.spawn(async move {
            let mut slowest = Duration::ZERO;
            for n in 0..500_usize {
                let repository = repository((sender * 7_919 + n) % repositories);
                let event = Event {
                    action: Action::Push,
                    stage: Stage::Done,
                    registry: None,
                    repository: repository.name.clone(),
                    tag: Some("1.0.1".parse().expect("a tag")),
                    digest: Some(Digest::of(b"")),
                    id: None,
                    at: None,
                    actor: None,
                };
                let key = Digest::of(format!("{sender} {n}").as_bytes()).hex().to_owned();
                let incoming = Incoming { source: "acr".into(), repository, event, key, received_at: Timestamp::now() };
                let begun = Instant::now();
                store.append(vec![incoming], vec![]).await.expect("an event");
                slowest = slowest.max(begun.elapsed());
            }
            slowest
        });
    }
    let slowest = senders.join_all().await.into_iter().max().unwrap_or_default();
    report("events appended, one a call, 64 senders", WORKERS * 500, begun);
    println!("slowest append {slowest:.2?}");

    let begun = Instant::now();
    for _ in 0..100 {
        store.stats().await.expect("figures");
    }
    println!("figures in {:.2?}", begun.elapsed() / 100);
    let begun = Instant::now();
    for n in 0..1_000_usize {
        let line = |span| Question::Line { line: LineId("version".into()), group: vec![], span };
        let rank = 500_u64.to_be_bytes().to_vec();
        let questions = vec![
            line(Span::Highest(1)),
            line(Span::Below(rank, 1)),
            Question::Tagged(Digest::of(&n.to_be_bytes())),
            Question::Tag("1.1.1".parse().expect("a tag")),
        ];
        store.answer(&repository(n % repositories), questions).await.expect("answers");
    }
    println!("four questions in {:.2?}", begun.elapsed() / 1_000);
}
