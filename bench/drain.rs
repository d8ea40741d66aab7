//! Many pushes at once: how much of what a registry can feed becomes verdicts, with four requests in flight.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::audit::in_flight;
use crate::daemon::{BINARY, Place, SHALLOW, message};
use crate::harness::{Figure, Goal, Pair};
use crate::roles::{LOAD_CORE, SERVER_CORE};
use crate::support::daemon::Daemon;
use crate::support::http::Http;
use crate::support::images::{Form, Index, Platform};
use crate::support::program::{eventually, free_port};
use crate::support::real::{RealRegistry, Setup};
use crate::support::stage::SECRET;

/// Pushes in a round, each of a tag of its own.
const PUSHES: usize = 3_000;
const ROUNDS: usize = 3;
const REPOSITORIES: usize = 20;
/// Requests in flight at the registry, ours and the plain client's.
const IN_FLIGHT: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

pub fn run() -> anyhow::Result<Vec<Figure>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(drain())
}

async fn drain() -> anyhow::Result<Vec<Figure>> {
    let port = free_port()?;
    let host = format!("localhost:{port}");
    let place = Place::new(&host, SHALLOW, "limits: {concurrency: 4, requestsPerSecond: 10000}, ")?;
    let folder = place.folder.path().join("registry");
    let setup = Setup { tls: Some(&place.ca), folder: Some(&folder), port: Some(port), ..Setup::default() };
    let mut registry = RealRegistry::start(setup).await;
    let http = Http::new(Some(place.ca.pem()))?;
    let (pushed, bodies) = indexes(&registry, &host).await?;
    pin(registry.program().id(), SERVER_CORE)?;

    let config = place.folder.path().join("tidewaiter.yaml");
    let admin = format!("http://127.0.0.1:{}", place.admin);
    let mut daemon = Daemon::start(Path::new(BINARY), &config, &admin, http.clone()).await?;
    pin(daemon.program().id(), LOAD_CORE)?;
    let mut rounds = Vec::new();
    let mut judged = 0;
    let (met, rest) = pushed.split_at(REPOSITORIES);
    for pushes in std::iter::once(met).chain(rest.chunks(PUSHES)) {
        push(&http, &host, pushes, &bodies).await?;
        let begun = Instant::now();
        fetch(&http, &host, pushes).await?;
        let fetched = pushes.len() as f64 / begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        let url = format!("https://localhost:{}/v1/events/local", place.events);
        in_flight(64, 0..pushes.len(), |n| {
            let (http, url, body) = (http.clone(), url.clone(), message(&host, &pushes[n]));
            async move {
                let kind = "application/vnd.docker.distribution.events.v2+json";
                let headers = [("authorization", SECRET), ("content-type", kind)];
                let answer = http.send(Method::POST, &url, &headers, body).await?;
                anyhow::ensure!(answer.status == 202, "an event was answered {}: {}", answer.status, answer.text());
                Ok(())
            }
        })
        .await?;
        judged += pushes.len();
        let mut pause = Duration::from_millis(200);
        eventually("verdicts", PATIENCE, async || {
            // A scrape takes what it measures: nobody scrapes often, and only the end has to be known well.
            tokio::time::sleep(pause).await;
            let text = daemon.metrics().await?;
            let count = "tidewaiter_event_verdict_seconds_count{origin=\"event\"} ";
            let count = text.lines().find_map(|l| l.strip_prefix(count)?.parse::<f64>().ok());
            let left = judged as f64 - count.unwrap_or_default();
            pause = Duration::from_millis(if left > pushes.len() as f64 / 10.0 { 200 } else { 10 });
            Ok((left <= 0.0).then_some(()))
        })
        .await?;
        // What a first look at a repository costs is no part of a push's way.
        if pushes.len() < PUSHES {
            continue;
        }
        rounds.push((pushes.len() as f64 / begun.elapsed().as_secs_f64(), fetched));
    }
    let name = format!("verdicts on {PUSHES} pushes at once, {IN_FLIGHT} requests in flight");
    let peer = format!("index fetches of a plain client, {IN_FLIGHT} in flight");
    Ok(vec![
        Figure::beside(&name, "/s", &Pair::of(&rounds), &peer, Goal::RatioAtLeast(0.95))
            .noted("from the first event sent to the last verdict recorded; the registry has a core of its own"),
    ])
}

/// What is to be pushed, and the bytes of each repository's index, which is there without a tag.
async fn indexes(
    registry: &RealRegistry,
    host: &str,
) -> anyhow::Result<(Vec<(String, String, String)>, HashMap<String, Vec<u8>>)> {
    let platforms: Vec<Platform> =
        ["linux/amd64", "linux/arm64"].iter().map(|p| p.parse()).collect::<anyhow::Result<_>>()?;
    let pusher = registry.pusher(host);
    let (mut digests, mut bodies) = (Vec::new(), HashMap::new());
    for n in 0..REPOSITORIES {
        let repository = format!("iot/r{n}");
        let index =
            Index { platforms: &platforms, version: &repository, form: Form::Oci, attested: false, faults: &[] };
        let index = index.build()?;
        digests.push(pusher.push(&repository, &index.root.digest(), &index).await?);
        bodies.insert(repository, index.root.bytes);
    }
    let push = |n: usize| {
        let version = format!("1.0.{}", n / REPOSITORIES);
        (format!("iot/r{}", n % REPOSITORIES), version, digests[n % REPOSITORIES].clone())
    };
    Ok(((0..REPOSITORIES + PUSHES * ROUNDS).map(push).collect(), bodies))
}

/// Sets the tags, and tells nobody.
async fn push(
    http: &Http,
    host: &str,
    pushed: &[(String, String, String)],
    bodies: &HashMap<String, Vec<u8>>,
) -> anyhow::Result<()> {
    in_flight(16, 0..pushed.len(), |n| {
        let (repository, version, _) = &pushed[n];
        let url = format!("https://{host}/v2/{repository}/manifests/{version}");
        let (http, body) = (http.clone(), bodies[repository].clone());
        async move {
            let kind = [("content-type", "application/vnd.oci.image.index.v1+json")];
            let answer = http.send(Method::PUT, &url, &kind, body).await?;
            anyhow::ensure!(answer.status == 201, "{url}: {}", answer.status);
            Ok(())
        }
    })
    .await
}

async fn fetch(http: &Http, host: &str, pushed: &[(String, String, String)]) -> anyhow::Result<()> {
    in_flight(IN_FLIGHT, 0..pushed.len(), |n| {
        let (repository, version, _) = &pushed[n];
        let (http, url) = (http.clone(), format!("https://{host}/v2/{repository}/manifests/{version}"));
        async move {
            let accept = [("accept", "application/vnd.oci.image.index.v1+json")];
            let answer = http.send(Method::GET, &url, &accept, "").await?;
            anyhow::ensure!(answer.status == 200, "{url}: {}", answer.status);
            Ok(())
        }
    })
    .await
}

/// Gives a process and all its threads a core of its own.
fn pin(process: u32, core: &str) -> anyhow::Result<()> {
    let done =
        Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", core, &process.to_string()]).output()?;
    anyhow::ensure!(done.status.success(), "taskset: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
