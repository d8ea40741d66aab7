//! The ground that end-to-end tests stand on: that images made for them are what other programs take for images, that
//! each fault is there and no other, and that the real programs start and answer.

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::alertmanager::Alertmanager;
use support::http::Http;
use support::images::{self, Build, Fault, Form, Index, Platform};
use support::program::eventually;
use support::prometheus::{Prometheus, Target};
use support::real::{RealRegistry, Setup};
use support::tls::Ca;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn platforms() -> Vec<Platform> {
    ["linux/amd64", "linux/arm64", "linux/arm/v7"].iter().map(|text| text.parse().unwrap()).collect()
}

fn index(version: &str, form: Form, faults: &[Fault]) -> Build {
    Index { platforms: &platforms(), version, form, attested: false, faults }.build().unwrap()
}

fn root(build: &Build) -> Value {
    serde_json::from_slice(&build.root.bytes).unwrap()
}

#[test]
fn the_same_words_give_the_same_bytes() {
    assert_eq!(index("1.0.0", Form::Oci, &[]), index("1.0.0", Form::Oci, &[]));
    assert_ne!(index("1.0.0", Form::Oci, &[]).root.digest(), index("1.0.1", Form::Oci, &[]).root.digest());
    // Written down once: a change of this digest is a change of every recorded expectation.
    assert_eq!(
        images::image(&"linux/arm/v7".parse().unwrap(), "1.0.0", Form::Oci).root.digest(),
        "sha256:7a5f05376a94bcf6354a38f81390e8522d0c6213d431d99acf9571acec2761c1"
    );
}

#[test]
fn each_fault_is_there_and_no_other() {
    let sound = index("1.0.0", Form::Oci, &[]);
    let sizes_agree = |build: &Build| {
        build.children.iter().all(|child| {
            let entries = root(build)["manifests"].as_array().unwrap().clone();
            let entry = entries.iter().find(|entry| entry["digest"] == child.manifest.digest()).unwrap();
            entry["size"] == child.manifest.bytes.len()
        })
    };
    let truthful = |build: &Build| {
        let entries = root(build)["manifests"].as_array().unwrap().clone();
        build.children.iter().zip(entries).all(|(child, entry)| {
            let manifest: Value = serde_json::from_slice(&child.manifest.bytes).unwrap();
            let config = build.blobs.iter().find(|blob| manifest["config"]["digest"] == blob.digest()).unwrap();
            let config: Value = serde_json::from_slice(&config.bytes).unwrap();
            entry["platform"]["architecture"] == config["architecture"]
        })
    };
    let faults_of = |build: &Build| {
        [!sizes_agree(build), !truthful(build), build.children.len() != 3, build.children.iter().any(|c| c.vanishes)]
    };
    assert_eq!(faults_of(&sound), [false, false, false, false]);
    for (fault, expected) in [
        (Fault::WrongSize, [true, false, false, false]),
        (Fault::LyingPlatform, [false, true, false, false]),
        (Fault::DuplicatePlatform, [false, false, true, false]),
        (Fault::MissingChild, [false, false, false, true]),
    ] {
        assert_eq!(faults_of(&index("1.0.0", Form::Oci, &[fault])), expected, "{fault:?}");
    }
}

/// skopeo checks every digest and size on the way, and tar reads the layers.
#[tokio::test]
async fn skopeo_takes_what_is_made_for_images() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let registry = RealRegistry::start(Setup { tls: Some(&ca), ..Setup::default() }).await;
    let pusher = registry.pusher(&registry.host());
    let certificates = folder.path().join("certs");
    std::fs::create_dir(&certificates).unwrap();
    std::fs::write(certificates.join("ca.crt"), ca.pem()).unwrap();
    for form in [Form::Oci, Form::Docker] {
        let attested = form == Form::Oci;
        let build = Index { platforms: &platforms(), version: "1.0.0", form, attested, faults: &[] }.build().unwrap();
        assert_eq!(pusher.push("iot/sensor", "1.0.0", &build).await.unwrap(), build.root.digest());
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--all", "--src-cert-dir"])
            .arg(&certificates)
            .arg(format!("docker://{}/iot/sensor:1.0.0", registry.host()))
            .arg(format!("dir:{}", folder.path().join(format!("{form:?}")).display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{form:?}: {}", String::from_utf8_lossy(&output.stderr));
        let copied = folder.path().join(format!("{form:?}"));
        assert_eq!(std::fs::read(copied.join("manifest.json")).unwrap(), build.root.bytes, "{form:?}");
        let layer = build.blobs.iter().find(|blob| blob.media_type.ends_with("gzip")).unwrap().digest();
        let layer = copied.join(layer.trim_start_matches("sha256:"));
        let output = Command::new("tar").arg("-xzOf").arg(layer).arg("etc/release").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1.0.0 linux-amd64\n", "{form:?}");
    }
}

#[tokio::test]
async fn charts_signatures_second_tags_and_deletions_arrive() {
    let registry = RealRegistry::start(Setup { user: Some(("pat", "secret")), ..Setup::default() }).await;
    let pusher = registry.pusher(&registry.host());
    let digest = pusher.push("iot/sensor", "1.0.0", &index("1.0.0", Form::Oci, &[])).await.unwrap();
    let name = format!("{}/iot/sensor", registry.host());
    let signature = images::signature(&name, &digest);
    pusher.push("iot/sensor", &images::signature_tag(&digest), &signature).await.unwrap();
    pusher.push("charts/app", "1.0.0", &images::chart("app", "1.0.0")).await.unwrap();

    assert_eq!(pusher.tag("iot/sensor", "1.0.0", "latest").await.unwrap(), digest);
    assert_eq!(pusher.resolve("iot/sensor", "latest").await.unwrap(), digest);
    pusher.delete("iot/sensor", &digest).await.unwrap();
    assert!(pusher.resolve("iot/sensor", "latest").await.is_err());

    let faulty = index("1.0.1", Form::Oci, &[Fault::MissingChild]);
    pusher.push("iot/sensor", "1.0.1", &faulty).await.unwrap();
    let missing = faulty.children.iter().find(|child| child.vanishes).unwrap().manifest.digest();
    assert!(pusher.resolve("iot/sensor", &missing).await.is_err());
}

#[tokio::test]
async fn alertmanager_and_prometheus_start_and_answer() {
    let folder = tempfile::tempdir().unwrap();
    let alertmanager = Alertmanager::start(&folder.path().join("alertmanager")).await.unwrap();
    assert_eq!(alertmanager.alerts().await.unwrap(), Vec::<Value>::new());
    let alert = json!([{"labels": {"alertname": "Test", "repository": "iot/sensor"}}]).to_string();
    let url = format!("{}/api/v2/alerts", alertmanager.url());
    let headers = [("content-type", "application/json")];
    let posted = Http::new(None).unwrap().send(hyper::Method::POST, &url, &headers, alert).await.unwrap();
    assert_eq!(posted.status, 200, "{}", posted.text());
    let held = eventually("the alert", PATIENCE, async || Ok(alertmanager.alerts().await?.pop())).await.unwrap();
    assert_eq!(held["labels"]["repository"], "iot/sensor");

    // Alertmanager has metrics of its own to scrape.
    let address = alertmanager.url().trim_start_matches("http://");
    let target = Target { address, ca: None };
    let prometheus = Prometheus::start(&folder.path().join("prometheus"), target).await.unwrap();
    let up = eventually("a scrape", PATIENCE, async || {
        Ok(prometheus.query("sum by (job) (up)").await?.pop().filter(|(_, value)| *value > 0.0))
    });
    assert_eq!(up.await.unwrap(), ("{}".to_owned(), 1.0));
}
