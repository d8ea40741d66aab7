//! The record with a million tags: moving tags, opening after a crash, memory, and judging among many tags.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewaiter::history::Origin;
use tidewaiter::image::{Digest, Repository, Tag};
use tidewaiter::policy::{LineId, LineKey, Observation, PolicySet, affected, judge};
use tidewaiter::store::embedded::{EmbeddedStore, Options};
use tidewaiter::store::{Content, ContentKind, Step, Store};

use crate::filled::{claims, fill, update};
use crate::harness::{Figure, Goal, Pair, median, of_this_disk};
use crate::roles::{Process, SERVER_CORE};
use crate::world::{World, now, policy};

const MANY: usize = 1_000_000;
const FEW: usize = 1_000;
const REPOSITORIES: usize = 1_000;
const BATCH: usize = 16;
const WORKERS: usize = 64;
const STEPS: usize = 60;

pub fn run() -> anyhow::Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = of_this_disk()?;
    let mut figures = Vec::new();
    figures.extend(crash(&folder.path().join("crash.db"))?);
    figures.push(runtime.block_on(moved(&folder.path().join("crash.db")))?);
    figures.push(runtime.block_on(judged(folder.path()))?);
    Ok(figures)
}

fn repository(n: usize) -> Repository {
    format!("contoso.azurecr.io/team/r{n:06}").parse().expect("a repository")
}

fn version(n: usize) -> Tag {
    format!("0.{}.{}", n / 100, n % 100).parse().expect("a tag")
}

fn moved_to(n: usize, content: usize) -> tidewaiter::store::TagUpdate {
    let line = LineKey { line: LineId("version".into()), group: vec![], rank: (n as u64).to_be_bytes().to_vec() };
    update(version(n), Digest::of(&content.to_be_bytes()), vec![line])
}

/// The role `fill`: fills a store, moves tags so that the log is long, says so, and waits to be killed.
pub fn fill_and_wait(path: &Path, tags: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let store = EmbeddedStore::open(path, Options::default())?;
    runtime.block_on(async {
        let each = tags / REPOSITORIES;
        for first in (0..REPOSITORIES).step_by(100) {
            let repositories: Vec<Repository> = (first..first + 100).map(repository).collect();
            for (n, claim) in claims(&store, &repositories).await?.iter().enumerate() {
                let from = (first + n) * each;
                fill(&store, claim, each, |t| moved_to(t, from + t)).await?;
            }
        }
        std::fs::write(path.with_extension("filled"), "")?;
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    })
}

/// Opening what a process left that was killed while writing, and what it holds in memory.
fn crash(path: &Path) -> anyhow::Result<Vec<Figure>> {
    let folder = path.parent().unwrap_or(path);
    let arguments = ["fill", &path.display().to_string(), &MANY.to_string()];
    let filler = Process::role(SERVER_CORE, &arguments, folder)?;
    let begun = Instant::now();
    while !path.with_extension("filled").exists() {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(600), "the store is not filled in ten minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let resident = filler.resident() / 1_024.0;
    // SIGKILL: nothing is finished.
    drop(filler);
    let begun = Instant::now();
    drop(EmbeddedStore::open(path, Options::default())?);
    let opened = begun.elapsed().as_secs_f64();
    let mut again = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let store = EmbeddedStore::open(path, Options::default())?;
        again.push(begun.elapsed().as_secs_f64());
        drop(store);
    }
    Ok(vec![
        Figure::absolute("opening a store of 1,000,000 tags after a crash", opened, "s", Goal::AtMost(0.5))
            .noted(&format!("with the closing after it; opening an orderly one takes {:.3} s", median(again))),
        Figure::absolute("memory of a process that wrote 1,000,000 tags", resident, "MiB", Goal::AtMost(160.0)).noted(
            "the goal is for ten times as many; that run takes too long for every day, and the cache is bounded",
        ),
    ])
}

/// Compare-and-set with a durable commit, a batch a step, in several repositories at once.
async fn moved(path: &Path) -> anyhow::Result<Figure> {
    let store = Arc::new(EmbeddedStore::open(path, Options::default())?);
    let each = MANY / REPOSITORIES;
    let repositories: Vec<Repository> = (0..WORKERS).map(|n| repository(n * REPOSITORIES / WORKERS)).collect();
    let claims = Arc::new(claims(&store, &repositories).await?);
    let mut rounds = Vec::new();
    for round in 0..3 {
        let begun = Instant::now();
        let mut workers = tokio::task::JoinSet::new();
        for n in 0..WORKERS {
            let (store, claims) = (store.clone(), claims.clone());
            workers.spawn(async move {
                for step in 0..STEPS {
                    let content = round * STEPS + step + MANY;
                    let tags = (0..BATCH).map(|t| moved_to((step * 97 + t * 61) % each, content)).collect();
                    store.complete(&claims[n], Step { tags, ..Step::default() }, true).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = workers.join_next().await {
            done??;
        }
        rounds.push((WORKERS * STEPS * BATCH) as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(Figure::absolute(
        "tags moved durably, batches of 16, among 1,000,000",
        median(rounds),
        "/s",
        Goal::AtLeast(15_000.0),
    ))
}

/// Judging a push with few and with many tags of the same line in the repository.
async fn judged(folder: &Path) -> anyhow::Result<Figure> {
    let set = policy()?;
    let world = World::new(&set);
    let few = stored(&folder.join("few.db"), &set, &world, FEW).await?;
    let many = stored(&folder.join("many.db"), &set, &world, MANY).await?;
    let mut rounds = Vec::new();
    for _ in 0..101 {
        let mut times = [0.0; 2];
        for (store, time) in [&many, &few].into_iter().zip(&mut times) {
            let begun = Instant::now();
            let passed = push(store, &set, &world).await?;
            *time = begun.elapsed().as_secs_f64() * 1e6;
            anyhow::ensure!(passed, "the push is meant to pass");
        }
        rounds.push((times[0], times[1]));
    }
    Ok(Figure::beside(
        "judging a push with 1,000,000 tags on record, look-ups included",
        "µs",
        &Pair::of(&rounds),
        "with 1,000",
        Goal::RatioAtMost(1.5),
    ))
}

async fn stored(path: &Path, set: &PolicySet, world: &World, tags: usize) -> anyhow::Result<EmbeddedStore> {
    let store = EmbeddedStore::open(path, Options::default())?;
    let claim = claims(&store, std::slice::from_ref(&world.repository)).await?.remove(0);
    let keys = |tag: &Tag| set.line_keys(&world.repository, tag, None);
    let content = Digest::of(b"an older version");
    fill(&store, &claim, tags, |n| update(version(n), content.clone(), keys(&version(n)))).await?;
    let manifests = world.manifests.values().map(|m| Content {
        digest: m.digest.clone(),
        kind: ContentKind::Manifest,
        media_type: m.parsed.as_ref().map(|p| p.media_type.as_str().to_owned()).unwrap_or_default(),
        bytes: m.bytes.clone(),
        children: m
            .parsed
            .iter()
            .filter_map(|p| p.index())
            .flat_map(|index| index.entries.iter().map(|e| e.digest.clone()))
            .collect(),
    });
    let configs = world.configs.iter().map(|(digest, c)| Content {
        digest: digest.clone(),
        kind: ContentKind::Config,
        media_type: String::new(),
        bytes: c.bytes.clone(),
        children: Vec::new(),
    });
    let step = Step {
        contents: manifests.chain(configs).collect(),
        tags: world
            .tags
            .iter()
            .filter_map(|(tag, record)| Some(update(tag.clone(), record.current.clone()?, keys(tag))))
            .collect(),
        ..Step::default()
    };
    store.complete(&claim, step, true).await?;
    Ok(store)
}

/// Judges the push from the record; whether everything passes.
async fn push(store: &EmbeddedStore, set: &PolicySet, world: &World) -> anyhow::Result<bool> {
    let changes = [world.push()];
    let mut observation = Observation::new(world.repository.clone(), now(), true);
    loop {
        let (targets, mut asks) = affected(set, &observation, &changes);
        if asks.is_empty() {
            let judgement = judge(set, &observation, &targets, Origin::Event);
            if judgement.asks.is_empty() {
                return Ok(judgement.verdicts.iter().all(|v| v.outcome == tidewaiter::policy::Outcome::Pass));
            }
            asks = judgement.asks;
        }
        let answers = store.answer(&world.repository, asks.clone()).await?;
        anyhow::ensure!(answers.len() == asks.len(), "the record lacks an answer to one of {asks:?}");
        for (question, answer) in answers {
            observation.tell(question, answer);
        }
    }
}
