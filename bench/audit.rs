//! `audit` of a large repository, against a plain client that fetches the same manifests.

use std::process::Command;
use std::time::Instant;

use hyper::Method;

use crate::daemon::{BINARY, SHALLOW};
use crate::harness::{Figure, Goal, Pair, of_this_disk};
use crate::support::http::Http;
use crate::support::images::{Form, Index, Platform};
use crate::support::real::{RealRegistry, Setup};
use crate::support::stage::write;
use crate::support::tls::Ca;

const TAGS: usize = 10_000;
/// Different images under these tags.
const IMAGES: usize = 50;
/// Requests in flight of the plain client, and of the pushes before it.
const IN_FLIGHT: usize = 16;
const REPOSITORY: &str = "iot/large";

pub fn run() -> anyhow::Result<Vec<Figure>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(audit())
}

async fn audit() -> anyhow::Result<Vec<Figure>> {
    let folder = of_this_disk()?;
    let ca = Ca::new();
    let registry = RealRegistry::start(Setup { tls: Some(&ca), ..Setup::default() }).await;
    let host = registry.host();
    let http = Http::new(Some(ca.pem()))?;
    let platforms: Vec<Platform> =
        ["linux/amd64", "linux/arm64"].iter().map(|p| p.parse()).collect::<anyhow::Result<_>>()?;
    let pusher = registry.pusher(&host);
    let mut indexes = Vec::new();
    for n in 0..IMAGES {
        let salt = n.to_string();
        let index =
            Index { platforms: &platforms, version: &salt, form: Form::Oci, attested: false, faults: &[] }.build()?;
        pusher.push(REPOSITORY, &tag(n), &index).await?;
        indexes.push(index.root.bytes.clone());
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    in_flight(IN_FLIGHT, IMAGES..TAGS, |n| {
        let (http, body) = (http.clone(), indexes[n % IMAGES].clone());
        let url = format!("https://{host}/v2/{REPOSITORY}/manifests/{}", tag(n));
        async move {
            let answer = http.send(Method::PUT, &url, &[("content-type", media_type)], body).await?;
            anyhow::ensure!(answer.status == 201, "{url}: {}", answer.status);
            Ok(())
        }
    })
    .await?;
    write(&folder.path().join("ca.crt"), ca.pem())?;
    write(&folder.path().join("policy.yaml"), SHALLOW)?;

    let mut rounds = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let output = Command::new(BINARY)
            .args(["audit", &format!("{host}/{REPOSITORY}"), "--exit-zero", "-o", "json=audit.json"])
            .args(["--policy", "policy.yaml", "--ca", "ca.crt"])
            .current_dir(folder.path())
            .output()?;
        let audited = begun.elapsed().as_secs_f64();
        anyhow::ensure!(output.status.success(), "audit: {}", String::from_utf8_lossy(&output.stderr));
        let begun = Instant::now();
        in_flight(IN_FLIGHT, 0..TAGS, |n| {
            let (http, url) = (http.clone(), format!("https://{host}/v2/{REPOSITORY}/manifests/{}", tag(n)));
            async move {
                let answer = http.send(Method::GET, &url, &[("accept", media_type)], "").await?;
                anyhow::ensure!(answer.status == 200, "{url}: {}", answer.status);
                Ok(())
            }
        })
        .await?;
        let fetched = begun.elapsed().as_secs_f64();
        rounds.push((TAGS as f64 / audited, TAGS as f64 / fetched));
    }
    let report = std::fs::read(folder.path().join("audit.json"))?;
    let outcomes = String::from_utf8_lossy(&report).matches("\"outcome\"").count();
    anyhow::ensure!(outcomes >= TAGS, "the report has {outcomes} verdicts");
    Ok(vec![Figure::beside(
        "audit of 10,000 tags",
        "tags/s",
        &Pair::of(&rounds),
        "manifests of a plain pooled client",
        Goal::RatioAtLeast(0.8),
    )])
}

fn tag(n: usize) -> String {
    format!("1.{}.{}", n / 100, n % 100)
}

/// Runs a job for each number, so many at once.
pub async fn in_flight<F>(
    at_once: usize,
    numbers: std::ops::Range<usize>,
    job: impl Fn(usize) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut lanes: Vec<Vec<F>> = (0..at_once).map(|_| Vec::new()).collect();
    for n in numbers {
        lanes[n % at_once].push(job(n));
    }
    let mut running = tokio::task::JoinSet::new();
    for lane in lanes {
        running.spawn(async move {
            for job in lane {
                job.await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}
