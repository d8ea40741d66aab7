//! Many pushes at once: how much of what a registry can feed becomes verdicts, with four requests in flight.

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
    let pushed = push(&registry, &http, &host).await?;
    pin(registry.program().id(), SERVER_CORE)?;

    let config = place.folder.path().join("tidewaiter.yaml");
    let admin = format!("http://127.0.0.1:{}", place.admin);
    let mut daemon = Daemon::start(Path::new(BINARY), &config, &admin, http.clone()).await?;
    pin(daemon.program().id(), LOAD_CORE)?;
    let mut rounds = Vec::new();
    let mut judged = 0;
    for pushes in pushed.chunks(PUSHES) {
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
        eventually("verdicts", PATIENCE, async || {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let text = daemon.metrics().await?;
            let count = "tidewaiter_event_verdict_seconds_count{origin=\"event\"} ";
            let count = text.lines().find_map(|l| l.strip_prefix(count)?.parse::<f64>().ok());
            Ok((count.unwrap_or_default() >= judged as f64).then_some(()))
        })
        .await?;
        rounds.push((pushes.len() as f64 / begun.elapsed().as_secs_f64(), fetched));
    }
    let name = format!("verdicts on {PUSHES} pushes at once, {IN_FLIGHT} requests in flight");
    let peer = format!("index fetches of a plain client, {IN_FLIGHT} in flight");
    Ok(vec![
        Figure::beside(&name, "/s", &Pair::of(&rounds), &peer, Goal::RatioAtLeast(0.95))
            .noted("from the first event sent to the last verdict recorded; the registry has a core of its own"),
    ])
}

/// Indexes under all the tags, one for each repository and each hundred.
async fn push(registry: &RealRegistry, http: &Http, host: &str) -> anyhow::Result<Vec<(String, String, String)>> {
    let platforms: Vec<Platform> =
        ["linux/amd64", "linux/arm64"].iter().map(|p| p.parse()).collect::<anyhow::Result<_>>()?;
    let pusher = registry.pusher(host);
    let (mut pushed, mut bodies) = (Vec::new(), Vec::new());
    for n in 0..PUSHES * ROUNDS {
        let (repository, version) = (format!("iot/r{}", n % REPOSITORIES), format!("1.0.{}", n / REPOSITORIES));
        if n < REPOSITORIES {
            let index =
                Index { platforms: &platforms, version: &repository, form: Form::Oci, attested: false, faults: &[] };
            let built = index.build()?;
            let digest = pusher.push(&repository, &version, &built).await?;
            bodies.push((built.root.bytes.clone(), digest));
        }
        pushed.push((repository, version, bodies[n % REPOSITORIES].1.to_string()));
    }
    in_flight(16, REPOSITORIES..pushed.len(), |n| {
        let (repository, version, _) = &pushed[n];
        let url = format!("https://{host}/v2/{repository}/manifests/{version}");
        let (http, body) = (http.clone(), bodies[n % REPOSITORIES].0.clone());
        async move {
            let kind = [("content-type", "application/vnd.oci.image.index.v1+json")];
            let answer = http.send(Method::PUT, &url, &kind, body).await?;
            anyhow::ensure!(answer.status == 201, "{url}: {}", answer.status);
            Ok(())
        }
    })
    .await?;
    Ok(pushed)
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
