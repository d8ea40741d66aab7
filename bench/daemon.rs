//! The daemon itself: how soon it is ready, what it holds when idle, and how long a push takes to its verdict at a
//! real registry.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::acknowledge::sync_of_a_kibibyte;
use crate::harness::{Figure, Goal, Pair, median, of_this_disk};
use crate::support::daemon::Daemon;
use crate::support::http::Http;
use crate::support::images::{Form, Index, Platform};
use crate::support::program::{eventually, free_port};
use crate::support::real::{RealRegistry, Setup};
use crate::support::stage::{SECRET, write};
use crate::support::tls::Ca;

pub const BINARY: &str = env!("CARGO_BIN_EXE_tidewaiter");
const STARTS: usize = 9;
/// Events a second: where one request tells everything, and where seven do, which docker-registry answers about 1,000
/// of in a second; and how many.
const RATE: u32 = 100;
const RATE_DEEP: u32 = 20;
/// Fetches a second that are measured meanwhile.
const FETCHES: u32 = 20;
const EVENTS: usize = 400;
const REPOSITORIES: usize = 20;
/// Pushes that the script is asked about.
const SCRIPTED: usize = 15;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the images of a push have.
const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
/// A policy for which one request tells everything.
pub const SHALLOW: &str = "apiVersion: tidewaiter.dev/v1\nkind: TagPolicy\nmetadata: {name: shallow}\nspec:\n  repositories: [\"*/**\"]\n  classes:\n    - {name: version, form: \"{major}.{minor}.{patch}\", require: {immutable: true, index: true}}\n";
/// One that has to see every image.
const DEEP: &str = "apiVersion: tidewaiter.dev/v1\nkind: TagPolicy\nmetadata: {name: deep}\nspec:\n  repositories: [\"*/**\"]\n  classes:\n    - {name: version, form: \"{major}.{minor}.{patch}\", require: {immutable: true, index: true, intact: true, platforms: {all: [linux/amd64, linux/arm64, linux/arm/v7]}}}\n";

pub struct Place {
    pub folder: TempDir,
    pub ca: Ca,
    pub events: u16,
    pub admin: u16,
}

impl Place {
    /// A folder with everything that the daemon needs to serve one registry, with `more` settings of it.
    pub fn new(host: &str, policy: &str, more: &str) -> anyhow::Result<Place> {
        let place = Place { folder: of_this_disk()?, ca: Ca::new(), events: free_port()?, admin: free_port()? };
        place.write(host, policy, more)?;
        Ok(place)
    }

    fn write(&self, host: &str, policy: &str, more: &str) -> anyhow::Result<()> {
        let path = |name: &str| self.folder.path().join(name);
        let issued = self.ca.issue(&["localhost", "127.0.0.1"]);
        write(&path("ca.crt"), self.ca.pem())?;
        write(&path("tls.crt"), &issued.certificate)?;
        write(&path("tls.key"), &issued.key)?;
        write(&path("secret"), SECRET)?;
        write(&path("policy.yaml"), policy)?;
        let (events, admin) = (self.events, self.admin);
        let config = format!(
            "listen: {{events: \"127.0.0.1:{events}\", admin: \"127.0.0.1:{admin}\"}}\ntls: {{certificate: tls.crt, key: tls.key}}\nstore: {{url: \"sqlite:tidewaiter.db\"}}\npolicies: [policy.yaml]\nregistries:\n  - {{host: \"{host}\", {more}ca: ca.crt, allowPrivate: true}}\nsources:\n  - {{name: local, format: distribution, registry: \"{host}\", auth: {{header: Authorization, valueFiles: [secret]}}}}\n"
        );
        write(&path("tidewaiter.yaml"), &config)
    }
}

pub fn run() -> anyhow::Result<Vec<Figure>> {
    let mut figures = start_and_rest()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    figures.extend(runtime.block_on(verdicts())?);
    Ok(figures)
}

fn start_and_rest() -> anyhow::Result<Vec<Figure>> {
    let place = Place::new("localhost:5000", include_str!("../policies/iot-edge-module.yaml"), "")?;
    let mut starts = Vec::new();
    let mut resident = 0.0;
    for n in 0..STARTS {
        let begun = Instant::now();
        let log = std::fs::File::create(place.folder.path().join("log"))?;
        let mut child = Command::new(BINARY)
            .args(["serve", "--config"])
            .arg(place.folder.path().join("tidewaiter.yaml"))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        while !ready(place.admin) {
            if begun.elapsed() > PATIENCE || child.try_wait()?.is_some() {
                let said = std::fs::read_to_string(place.folder.path().join("log"))?;
                anyhow::bail!("the daemon is not ready; it said:\n{said}");
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        starts.push(begun.elapsed().as_secs_f64() * 1e3);
        if n + 1 == STARTS {
            std::thread::sleep(Duration::from_secs(5));
            resident = memory(child.id());
        }
        child.kill()?;
        child.wait()?;
    }
    let (first, rest) = starts.split_first().expect("starts");
    Ok(vec![
        Figure::absolute("idle resident memory", resident, "MiB", Goal::AtMost(20.0)),
        Figure::absolute("start to ready", median(rest.to_vec()), "ms", Goal::AtMost(150.0))
            .noted(&format!("the first start, which makes the store: {first:.0} ms")),
    ])
}

fn memory(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1_024.0
}

fn ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 12];
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer.ends_with(b" 200")
}

/// Pushes at a steady rate to a registry that holds the images already: events are sent as it would send them.
async fn verdicts() -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (policy, what, needed, rate) in [(SHALLOW, "one request", 1.0, RATE), (DEEP, "seven requests", 7.0, RATE_DEEP)]
    {
        let port = free_port()?;
        let host = format!("localhost:{port}");
        let place = Place::new(&host, policy, "")?;
        let folder = place.folder.path().join("registry");
        let setup = Setup { tls: Some(&place.ca), folder: Some(&folder), port: Some(port), ..Setup::default() };
        let registry = RealRegistry::start(setup).await;
        let pusher = registry.pusher(&host);
        let platforms: Vec<Platform> = PLATFORMS.iter().map(|p| p.parse()).collect::<anyhow::Result<_>>()?;
        // Everything is there but the tags: each is set when its event is sent, as a push does.
        let (mut pushed, mut bodies) = (Vec::with_capacity(EVENTS), Vec::with_capacity(EVENTS));
        for n in 0..EVENTS {
            let (repository, version) = (format!("iot/r{}", n % REPOSITORIES), format!("1.0.{}", n / REPOSITORIES));
            let salt = format!("{repository} {version}");
            let index = Index { platforms: &platforms, version: &salt, form: Form::Oci, attested: false, faults: &[] };
            let index = index.build()?;
            let digest = pusher.push(&repository, &index.root.digest(), &index).await?;
            pushed.push((repository, version, digest));
            bodies.push(index.root.bytes);
        }
        let http = Http::new(Some(place.ca.pem()))?;
        let alone = fetch(&http, &host, &pushed[..REPOSITORIES]).await?;
        let sync = sync_of_a_kibibyte(place.folder.path())?;
        let config = place.folder.path().join("tidewaiter.yaml");
        let daemon =
            Daemon::start(Path::new(BINARY), &config, &format!("http://127.0.0.1:{}", place.admin), http.clone())
                .await?;
        // What a first look at a repository costs is no part of a push's way.
        let (first, rest) = pushed.split_at(REPOSITORIES);
        send(&http, place.events, &host, first, &bodies, (rate, first.len())).await?;
        let before = settled(&daemon, REPOSITORIES as f64).await?;
        // What a fetch takes meanwhile: the registry takes pushes and answers the daemon besides.
        let (sent, fetch) = tokio::join!(
            send(&http, place.events, &host, rest, &bodies[REPOSITORIES..], (rate, 0)),
            fetch(&http, &host, &pushed[..(rest.len() as u32 / rate * FETCHES) as usize]),
        );
        sent?;
        let fetch = fetch?;
        let after = settled(&daemon, EVENTS as f64).await?;
        let events = after.count - before.count;
        let mean = (after.sum - before.sum) / events;
        let requests = (after.requests - before.requests) / events;
        let pair = |value: f64, baseline: f64| Pair::of(&[(value, baseline)]);
        if needed == 1.0 {
            figures.push(
                Figure::beside(
                    &format!("event to verdict at {rate} events a second, {what} needed"),
                    "ms",
                    &pair(mean * 1e3, fetch * 1e3),
                    "one manifest fetch",
                    Goal::RatioAtMost(3.0),
                )
                .noted(&format!("the mean, which is above the median; median between {}; a fetch with nothing else going on {:.2} ms", after.middle(&before), alone * 1e3)),
            );
        }
        figures.push(
            Figure::beside(
                &format!("event to verdict at {rate} events a second, {what} needed"),
                "ms",
                &pair(mean * 1e3, (needed * fetch + 2.0 * sync) * 1e3),
                "those requests one after another and two syncs",
                Goal::RatioAtMost(1.5),
            )
            .noted(&format!(
                "mean; median between {}; one sync {:.2} ms",
                after.middle(&before),
                sync * 1e3
            )),
        );
        if needed > 1.0 {
            let theirs = crate::peers::script(&http, place.folder.path(), &host, &pushed[..SCRIPTED]).await?;
            figures.push(
                Figure::beside(
                    "event to verdict, three checks",
                    "ms",
                    &pair(mean * 1e3, theirs * 1e3),
                    "webhook + bash + skopeo + jq",
                    Goal::RatioAtMost(1.0 / 60.0),
                )
                .noted("the goal is 60 times faster; the script is asked for one push at a time"),
            );
        }
        figures.push(Figure::beside(
            &format!("requests for a push that needs {what}"),
            "",
            &pair(requests, needed),
            "needed",
            Goal::RatioAtMost(1.001),
        ));
    }
    Ok(figures)
}

/// Seconds for one manifest over a kept connection, the median of many.
async fn fetch(http: &Http, host: &str, pushed: &[(String, String, String)]) -> anyhow::Result<f64> {
    let accept = [("accept", "application/vnd.oci.image.index.v1+json")];
    let mut times = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / FETCHES);
    for (repository, _, digest) in pushed {
        tick.tick().await;
        let url = format!("https://{host}/v2/{repository}/manifests/{digest}");
        let begun = Instant::now();
        let answer = http.send(Method::GET, &url, &accept, "").await?;
        times.push(begun.elapsed().as_secs_f64());
        anyhow::ensure!(answer.status == 200, "{url}: {}", answer.status);
    }
    Ok(median(times))
}

/// Sets each tag and sends its event, `at_once` of them without a pause.
async fn send(
    http: &Http,
    port: u16,
    host: &str,
    pushed: &[(String, String, String)],
    bodies: &[Vec<u8>],
    (rate, at_once): (u32, usize),
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut sent = tokio::task::JoinSet::new();
    for (n, push) in pushed.iter().enumerate() {
        if n >= at_once {
            tick.tick().await;
        }
        let body = message(host, push);
        let (http, index) = (http.clone(), bodies[n].clone());
        let tag = format!("https://{host}/v2/{}/manifests/{}", push.0, push.1);
        sent.spawn(async move {
            let kind = [("content-type", "application/vnd.oci.image.index.v1+json")];
            let answer = http.send(Method::PUT, &tag, &kind, index).await?;
            anyhow::ensure!(answer.status == 201, "{tag}: {}", answer.status);
            let headers =
                [("authorization", SECRET), ("content-type", "application/vnd.docker.distribution.events.v2+json")];
            let url = format!("https://localhost:{port}/v1/events/local");
            http.send(Method::POST, &url, &headers, body).await
        });
    }
    while let Some(answer) = sent.join_next().await {
        let answer = answer??;
        anyhow::ensure!(answer.status == 202, "an event was answered {}: {}", answer.status, answer.text());
    }
    Ok(())
}

/// What the registry would say of a push: repository, tag, digest.
pub fn message(host: &str, (repository, version, digest): &(String, String, String)) -> String {
    json!({"events": [{
        "id": format!("{repository}:{version}"),
        "timestamp": jiff::Timestamp::now().to_string(),
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest,
            "size": 1_000,
            "length": 1_000,
            "repository": repository,
            "tag": version,
            "url": format!("https://{host}/v2/{repository}/manifests/{digest}"),
        },
        "request": {"id": "1", "host": host, "method": "PUT"},
        "actor": {},
        "source": {},
    }]})
    .to_string()
}

/// What the metrics say of events judged.
struct Judged {
    sum: f64,
    count: f64,
    requests: f64,
    buckets: Vec<(f64, f64)>,
}

impl Judged {
    /// Between which bounds the median since `before` lies.
    fn middle(&self, before: &Judged) -> String {
        let half = (self.count - before.count) / 2.0;
        let mut lower = 0.0;
        for ((bound, count), (_, earlier)) in self.buckets.iter().zip(&before.buckets) {
            if count - earlier >= half {
                return format!("{} and {} ms", lower * 1e3, bound * 1e3);
            }
            lower = *bound;
        }
        "the last bucket and more".to_owned()
    }
}

/// Waits until so many events are judged.
async fn settled(daemon: &Daemon, count: f64) -> anyhow::Result<Judged> {
    eventually("verdicts", PATIENCE, async || {
        // Looking costs the daemon's processor as well.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let text = daemon.metrics().await?;
        let value = |line: &str| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
        let one = |name: &str| text.lines().find(|l| l.starts_with(name)).and_then(value).unwrap_or_default();
        let judged = Judged {
            sum: one("tidewaiter_event_verdict_seconds_sum{origin=\"event\"}"),
            count: one("tidewaiter_event_verdict_seconds_count{origin=\"event\"}"),
            requests: text
                .lines()
                .filter(|l| l.starts_with("tidewaiter_registry_requests_total{"))
                .filter_map(value)
                .sum(),
            buckets: text
                .lines()
                .filter_map(|l| l.strip_prefix("tidewaiter_event_verdict_seconds_bucket{origin=\"event\",le=\""))
                .filter_map(|l| Some((l.split('"').next()?.parse().ok()?, value(l)?)))
                .collect(),
        };
        Ok((judged.count >= count).then_some(judged))
    })
    .await
}
