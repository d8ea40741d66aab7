//! End to end: the built program beside the real registry, Alertmanager and Prometheus. What is asked here is what
//! users see: verdicts, violations, alerts, series, exit codes.

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use support::http::Http;
use support::images::{self, Fault, Form};
use support::program::eventually;
use support::stage::{PATIENCE, SECRET, Stage};

const DEVICES: &[&str] = &["linux/amd64", "linux/arm64", "linux/arm/v7"];
const POLICY: &str = include_str!("demo/policies/iot.yaml");
const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v1+json";

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidewaiter"))
}

/// A stage in a temporary folder; the folder is given too, so that it outlives the processes.
async fn stage() -> (Stage, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Stage::set(folder.path(), binary(), POLICY, false).await.unwrap(), folder)
}

/// The outcome, and each finding as `requirement reason`.
fn judged(verdict: &Value) -> (String, BTreeSet<String>) {
    let findings = verdict["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&verdict["outcome"]),
        findings.map(|finding| format!("{} {}", text(&finding["requirement"]), text(&finding["reason"]))).collect(),
    )
}

fn found(outcome: &str, findings: &[&str]) -> (String, BTreeSet<String>) {
    (outcome.to_owned(), findings.iter().map(|finding| (*finding).to_owned()).collect())
}

#[tokio::test]
async fn pushes_are_judged_as_they_arrive() {
    let (stage, _folder) = stage().await;
    for (repository, tag, platforms, faults, outcome, findings) in [
        ("iot/good", "1.0.0", DEVICES, &[][..], "pass", &[][..]),
        ("iot/arm", "1.0.0", &DEVICES[..2], &[], "violation", &["platforms missing-platform"]),
        ("iot/liar", "1.0.0", DEVICES, &[Fault::LyingPlatform], "violation", &["intact", "platforms"]),
        ("iot/twice", "1.0.0", DEVICES, &[Fault::DuplicatePlatform], "violation", &["intact"]),
        ("iot/size", "1.0.0", DEVICES, &[Fault::WrongSize], "violation", &["intact"]),
        ("iot/child", "1.0.0", DEVICES, &[Fault::MissingChild], "violation", &["intact", "platforms"]),
        ("iot/form", "v1.0.0", DEVICES, &[], "violation", &["form"]),
    ] {
        let digest = stage.push(repository, tag, platforms, "1", faults).await.unwrap();
        // A child that vanishes does so after the push, which may be judged before.
        let what = format!("{repository} is a {outcome}");
        let settled = eventually(&what, PATIENCE, async || {
            let verdict = stage.verdict(repository, tag, &digest).await?;
            Ok((judged(&verdict).0 == outcome).then_some(verdict))
        });
        let verdict = settled.await.unwrap();
        let (_, reasons) = judged(&verdict);
        let requirements = |finding: &String| findings.iter().any(|wanted| finding.starts_with(wanted));
        assert!(reasons.iter().all(requirements), "{repository}: {reasons:?} where {findings:?} was expected");
        for wanted in findings {
            assert!(
                reasons.iter().any(|reason| reason.starts_with(wanted)),
                "{repository}: {reasons:?} lacks {wanted}"
            );
        }
    }

    // A single image where an index is asked for.
    let image = images::image(&"linux/amd64".parse().unwrap(), "1", Form::Docker);
    let digest = stage.pusher.push("iot/single", "1.0.0", &image).await.unwrap();
    let (outcome, reasons) = judged(&stage.verdict("iot/single", "1.0.0", &digest).await.unwrap());
    assert_eq!(outcome, "violation");
    assert!(reasons.iter().any(|reason| reason.starts_with("index")), "{reasons:?}");
}

#[tokio::test]
async fn a_moved_tag_fires_reaches_alertmanager_and_prometheus_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::set(folder.path(), binary(), POLICY, true).await.unwrap();
    let first = stage.push("iot/pump", "1.0.0", DEVICES, "1", &[]).await.unwrap();
    assert_eq!(judged(&stage.verdict("iot/pump", "1.0.0", &first).await.unwrap()), found("pass", &[]));
    let second = stage.push("iot/pump", "1.0.0", DEVICES, "2", &[]).await.unwrap();
    let (outcome, reasons) = judged(&stage.verdict("iot/pump", "1.0.0", &second).await.unwrap());
    assert_eq!(outcome, "violation");
    assert!(reasons.iter().any(|reason| reason.starts_with("immutable ")), "{reasons:?}");

    stage.violation("iot/pump", "immutable", "firing").await.unwrap();
    stage.alert("iot/pump", "immutable", true).await.unwrap();
    // Beside the daemon, its configuration says which certificate it has: no authority need be named, and no name fit.
    let config = folder.path().join("tidewaiter.yaml");
    let violations = |config: &Path| {
        let mut command = std::process::Command::new(binary());
        command.args(["violations", "-o", "json", "--config"]).arg(config).output().unwrap()
    };
    let listed = violations(&config);
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("iot/pump"), "{said}");
    let (other, issued) =
        (folder.path().join("other.yaml"), support::tls::Ca::new().issue(&["localhost", "127.0.0.1"]));
    support::stage::write(&folder.path().join("other.crt"), &issued.certificate).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("admin: {tls: {certificate: tls.crt", "admin: {tls: {certificate: other.crt");
    support::stage::write(&other, &text).unwrap();
    let refused = violations(&other);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("not the one that the configuration names"), "{said}");
    let expression = r#"tidewaiter_violations{requirement="immutable", state="firing"} > 0"#;
    let series = eventually("the series", PATIENCE, async || Ok(stage.prometheus.query(expression).await?.pop()));
    assert_eq!(series.await.unwrap().1, 1.0);
}

#[tokio::test]
async fn latest_lags_fires_after_its_time_and_resolves() {
    let (stage, _folder) = stage().await;
    stage.push("iot/sensor", "1.0.0", DEVICES, "1", &[]).await.unwrap();
    let latest = stage.pusher.tag("iot/sensor", "1.0.0", "latest").await.unwrap();
    assert_eq!(judged(&stage.verdict("iot/sensor", "latest", &latest).await.unwrap()), found("pass", &[]));
    stage.push("iot/sensor", "1.1.0", DEVICES, "2", &[]).await.unwrap();
    stage.violation("iot/sensor", "follows", "pending").await.unwrap();
    stage.violation("iot/sensor", "follows", "firing").await.unwrap();
    stage.alert("iot/sensor", "follows", true).await.unwrap();
    stage.pusher.tag("iot/sensor", "1.1.0", "latest").await.unwrap();
    stage.violation("iot/sensor", "follows", "resolved").await.unwrap();
    stage.alert("iot/sensor", "follows", false).await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_what_was_missed_comes_again() {
    let (mut stage, _folder) = stage().await;
    let first = stage.push("iot/pump", "1.0.0", DEVICES, "1", &[]).await.unwrap();
    stage.verdict("iot/pump", "1.0.0", &first).await.unwrap();
    stage.daemon.program().kill().unwrap();
    // The registry repeats what nobody took.
    let second = stage.push("iot/pump", "1.0.0", DEVICES, "2", &[]).await.unwrap();
    stage.daemon.again().await.unwrap();
    let verdict = stage.verdict("iot/pump", "1.0.0", &second).await.unwrap();
    assert_eq!(judged(&verdict).0, "violation", "the first digest is still known: {verdict:#}");
    let reference = format!("{}/iot/pump:1.0.0", stage.host);
    let history = stage.daemon.list("history", &[("reference", &reference)]).await.unwrap();
    let digests: Vec<&str> = history.iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, [second, first], "newest first");
}

#[tokio::test]
async fn a_stop_is_orderly_and_soon() {
    let (mut stage, _folder) = stage().await;
    let status = stage.daemon.stop().await.unwrap();
    assert!(status.success(), "{status}: {}", stage.daemon.program().last_words());
}

#[tokio::test]
async fn a_registry_that_is_down_is_no_pass_and_is_asked_again() {
    let (mut stage, _folder) = stage().await;
    let digest = stage.push("iot/sensor", "1.0.0", DEVICES, "1", &[]).await.unwrap();
    stage.verdict("iot/sensor", "1.0.0", &digest).await.unwrap();
    stage.registry.program().signal("STOP").unwrap();
    let event = event(&stage.host, "iot/other", "1.0.0", &digest);
    assert_eq!(post(&stage, &stage.events, SECRET, MEDIA_TYPE, &event).await, 202);
    let query = [("repository", "iot/other")];
    let passes = async |stage: &Stage| {
        let verdicts = stage.daemon.list("verdicts", &query).await.unwrap();
        verdicts.iter().filter(|verdict| verdict["outcome"] == "pass").count()
    };
    // An error shows, in the record or as requests that failed; and nothing passes.
    eventually("a failed request", PATIENCE, async || {
        let metrics = stage.daemon.metrics().await?;
        let failed = |line: &&str| line.starts_with("tidewaiter_registry_requests_total") && !line.ends_with(" 0");
        Ok(metrics.lines().filter(failed).any(|line| !line.contains(r#"status="2"#)).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(passes(&stage).await, 0);
    stage.registry.program().signal("CONT").unwrap();
    let digest = stage.push("iot/other", "1.0.0", DEVICES, "1", &[]).await.unwrap();
    assert_eq!(judged(&stage.verdict("iot/other", "1.0.0", &digest).await.unwrap()), found("pass", &[]));
}

#[tokio::test]
async fn skopeo_pushes_are_judged() {
    let (stage, folder) = stage().await;
    let certificates = folder.path().join("certs");
    std::fs::create_dir(&certificates).unwrap();
    std::fs::copy(folder.path().join("ca.crt"), certificates.join("ca.crt")).unwrap();
    let digest = stage.push("iot/sensor", "1.0.0", DEVICES, "1", &[]).await.unwrap();
    let image = |name: &str| format!("docker://{}/{name}", stage.host);
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--all", "--src-cert-dir"])
        .arg(&certificates)
        .arg("--dest-cert-dir")
        .arg(&certificates)
        .args([image("iot/sensor:1.0.0"), image("iot/copy:1.0.0")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(judged(&stage.verdict("iot/copy", "1.0.0", &digest).await.unwrap()), found("pass", &[]));
}

#[tokio::test]
async fn what_is_no_event_of_a_source_is_refused() {
    let (stage, _folder) = stage().await;
    let (elsewhere, mute) = (stage.events.replace("/events/local", "/events/nobody"), "{\"events\": [}".to_owned());
    let digest = format!("sha256:{}", "a".repeat(64));
    let good = event(&stage.host, "iot/sensor", "1.0.0", &digest);
    let foreign = event("registry.invalid", "iot/sensor", "1.0.0", &digest);
    for (what, url, secret, media_type, body, status) in [
        ("a wrong secret", &stage.events, "Bearer wrong", MEDIA_TYPE, &good, 401),
        ("an unknown source", &elsewhere, SECRET, MEDIA_TYPE, &good, 404),
        ("a wrong type", &stage.events, SECRET, "text/html", &good, 415),
        ("a body over the limit", &stage.events, SECRET, MEDIA_TYPE, &" ".repeat(2 << 20), 413),
        ("what cannot be read", &stage.events, SECRET, MEDIA_TYPE, &mute, 202),
        ("another registry", &stage.events, SECRET, MEDIA_TYPE, &foreign, 202),
    ] {
        assert_eq!(post(&stage, url, secret, media_type, body).await, status, "{what}");
    }
    assert_eq!(stage.daemon.list("verdicts", &[]).await.unwrap(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_broken_policy_at_reload_leaves_the_old_one_in_force() {
    let (stage, folder) = stage().await;
    let file = folder.path().join("policies/iot.yaml");
    let success = async |wanted: &str| {
        let line = format!("tidewaiter_policy_reload_success {wanted}");
        eventually(&line, PATIENCE, async || Ok(stage.daemon.metrics().await?.contains(&line).then_some(()))).await
    };
    std::fs::write(&file, POLICY.replace("otherTags: deny", "otherTags: forbid")).unwrap();
    success("0").await.unwrap();
    let digest = stage.push("iot/form", "v1", DEVICES, "1", &[]).await.unwrap();
    assert_eq!(judged(&stage.verdict("iot/form", "v1", &digest).await.unwrap()).0, "violation");
    std::fs::write(&file, POLICY.replace("otherTags: deny", "otherTags: allow")).unwrap();
    success("1").await.unwrap();
    let told = "everything on record is judged by the new policies";
    let log = || std::fs::read_to_string(folder.path().join("tidewaiter.log")).unwrap_or_default();
    let line = eventually(told, PATIENCE, async || Ok(log().lines().find(|l| l.contains(told)).map(str::to_owned)));
    let line = line.await.unwrap();
    assert!(line.contains("tags") && line.contains("seconds"), "{line}");
    assert_eq!(log().matches(told).count(), 1, "not at the start, and once for the change");
}

#[test]
fn a_broken_start_tells_every_fault_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("policy.yaml"), POLICY.replace("otherTags: deny", "otherTags: forbid")).unwrap();
    std::fs::write(path("good.yaml"), "policies: [policy.yaml]\n").unwrap();
    std::fs::write(path("bad.yaml"), "listen: {events: nowhere}\npolicys: []\n").unwrap();
    for (config, places) in [
        ("good.yaml", &["policy.yaml:25:14", "forbid"][..]),
        ("bad.yaml", &["bad.yaml:1:18", "bad.yaml:2:1"]),
        ("absent.yaml", &["absent.yaml"]),
    ] {
        let output = Command::new(binary()).args(["serve", "--config"]).arg(path(config)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{config}: {said}");
        for place in places {
            assert!(said.contains(place), "{config} is told with {place}: {said}");
        }
        assert!(!said.contains("error: error:") && !said.contains("\n  |\n  |\n"), "{config}: {said}");
    }
}

/// A push as docker-registry tells it.
fn event(host: &str, repository: &str, tag: &str, digest: &str) -> String {
    serde_json::json!({"events": [{
        "id": "made-by-hand",
        "timestamp": "2026-11-22T10:00:00Z",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "size": 1,
            "digest": digest,
            "length": 1,
            "repository": repository,
            "url": format!("https://{host}/v2/{repository}/manifests/{digest}"),
            "tag": tag,
        },
        "request": {"id": "made-by-hand", "addr": "127.0.0.1:1", "host": host, "method": "PUT", "useragent": "test"},
        "actor": {},
        "source": {"addr": host, "instanceID": "made-by-hand"},
    }]})
    .to_string()
}

async fn post(stage: &Stage, url: &str, secret: &str, media_type: &str, body: &str) -> u16 {
    let ca = std::fs::read_to_string(stage.folder.join("ca.crt")).unwrap();
    let headers = [("authorization", secret), ("content-type", media_type)];
    let http = Http::new(Some(&ca)).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), http.send(Method::POST, url, &headers, body.to_owned()));
    answer.await.unwrap().unwrap().status.as_u16()
}
