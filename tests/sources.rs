//! Senders beside the whole program: what a push told several times, a push asked about beforehand, and a body that
//! cannot be read come to, with a real registry behind.

#![expect(clippy::disallowed_methods, reason = "events are dated by the real time, as a sender dates them")]

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::daemon::Daemon;
use support::fake::{Fake, Reply};
use support::http::{Http, Response};
use support::program::{eventually, free_port};
use support::real::{RealRegistry, Setup};
use support::stage::{PATIENCE, write};
use support::tls::Ca;
use tidewaiter::image::Digest;

/// The registry by the name that its events have for it; it is reached elsewhere.
const HOST: &str = "contoso.azurecr.io";
const SECRET: &str = "Bearer example-shared-secret";
const PLATFORMS: &[&str] = &["linux/amd64", "linux/arm64"];

const POLICY: &str = r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: gate}
spec:
  repositories: ["contoso.azurecr.io/iot/**"]
  mode: MODE
  classes:
    - name: version
      form: "{major}.{minor}.{patch}"
      require:
        index: {enforce: [deny]}
        platforms: {all: [linux/amd64, linux/arm64], enforce: [deny]}
        immutable: {enforce: [deny]}
        present: {enforce: [deny]}
    - name: patient
      form: "p{major}"
      require: {immutable: {for: 10m, enforce: [deny]}}
    - name: unforced
      form: "u{major}"
      require: {immutable: true}
  otherTags: {enforce: [deny]}
"#;

struct Scene {
    folder: tempfile::TempDir,
    registry: RealRegistry,
    daemon: Daemon,
    http: Http,
    events: String,
    sink: Fake,
    issuer: Fake,
    signer: EcdsaKeyPair,
    config: PathBuf,
}

async fn scene(mode: &str) -> Scene {
    let ca = Ca::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let issued = ca.issue(&["localhost", "127.0.0.1"]);
    for (name, text) in
        [("ca.crt", ca.pem()), ("tls.crt", &issued.certificate), ("tls.key", &issued.key), ("secret", SECRET)]
    {
        write(&path(name), text).unwrap();
    }
    write(&path("policy.yaml"), &POLICY.replace("MODE", mode)).unwrap();
    let registry = RealRegistry::start(Setup { tls: Some(&ca), ..Setup::default() }).await;
    let sink = Fake::http(|_| Reply::new(200, "{}")).await;
    let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = signer.public_key().as_ref().to_vec();
    let issuer = Fake::https(&ca, move |seen| {
        let base = format!("https://{}", seen.header("host").unwrap());
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        match seen.path() {
            "/.well-known/openid-configuration" => {
                Reply::new(200, json!({"issuer": base, "jwks_uri": format!("{base}/keys")}).to_string())
            }
            "/keys" => Reply::new(
                200,
                json!({"keys": [{"kty": "EC", "kid": "k", "crv": "P-256", "x": x, "y": y}]}).to_string(),
            ),
            _ => Reply::new(404, ""),
        }
    })
    .await;
    let (events, admin) = (free_port().unwrap(), format!("127.0.0.1:{}", free_port().unwrap()));
    let config = format!(
        r#"listen: {{events: "127.0.0.1:{events}", admin: "{admin}"}}
tls: {{certificate: tls.crt, key: tls.key}}
store: {{url: "sqlite:tidewaiter.db"}}
policies: [policy.yaml]
registries:
  - host: {HOST}
    endpoint: {}
    ca: ca.crt
    allowPrivate: true
    reconcile: {{every: 0s}}
sources:
  - name: acr
    format: acr
    auth: {{header: Authorization, valueFiles: [secret]}}
  - name: angos
    format: angos
    registry: {HOST}
    admission: true
    auth: {{header: Authorization, valueFiles: [secret]}}
  - name: google
    format: google-artifact-registry
    auth: {{oidc: {{issuer: "{}", audience: tidewaiter, emails: [push@example.com], ca: ca.crt, allowPrivate: true}}}}
sinks:
  - name: oncall
    kind: webhook
    url: {}
    allowPrivate: true
"#,
        registry.url(""),
        issuer.url(""),
        sink.url("/hook"),
    );
    write(&path("tidewaiter.yaml"), &config).unwrap();
    let http = Http::new(Some(ca.pem())).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidewaiter"));
    let file = path("tidewaiter.yaml");
    let daemon = Daemon::start(binary, &file, &format!("http://{admin}"), http.clone()).await.unwrap();
    let events = format!("https://localhost:{events}/v1/events");
    Scene { folder, registry, daemon, http, events, sink, issuer, signer, config: file }
}

/// What Azure Container Registry says of a push.
fn pushed(id: &str, at: Timestamp, host: &str, repository: &str, tag: &str, digest: &Digest) -> String {
    json!({
        "id": id, "timestamp": at.to_string(), "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.index.v1+json", "size": 1000, "length": 1000,
            "digest": digest.as_str(), "repository": repository, "tag": tag,
        },
        "request": {"id": id, "host": host, "method": "PUT", "useragent": "docker"},
    })
    .to_string()
}

/// What angos asks, as captured when it refused a push, with other names.
fn intent(kind: &str, repository: &str, reference: &str, digest: Option<&Digest>) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events/angos");
    let captured = std::fs::read_to_string(folder.join("captured-refused-push.json")).unwrap();
    let mut body: Value = serde_json::from_str(&captured).unwrap();
    body["kind"] = json!(kind);
    body["namespace"] = json!(repository);
    body["reference"] = json!(reference);
    if kind == "tag.delete" {
        body["tag"] = json!(reference);
    }
    match digest {
        Some(digest) => body["digest"] = json!(digest.as_str()),
        None => {
            body.as_object_mut().unwrap().remove("digest");
        }
    }
    body.to_string()
}

impl Scene {
    async fn post(&self, source: &str, authorization: &str, body: &str) -> Response {
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        self.http.send(Method::POST, &format!("{}/{source}", self.events), &headers, body.to_owned()).await.unwrap()
    }

    async fn tell(&self, body: &str) {
        let answer = self.post("acr", SECRET, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }

    /// Pushes an index and tells of it, and waits until it is judged.
    async fn push(&self, repository: &str, tag: &str, salt: &str) -> Digest {
        let digest = self.registry.push_index(repository, tag, PLATFORMS, salt).await;
        let id = format!("{repository}:{tag} {salt}");
        self.tell(&pushed(&id, Timestamp::now(), HOST, repository, tag, &digest)).await;
        self.settled().await;
        digest
    }

    /// Waits until every event is judged.
    async fn settled(&self) -> Vec<Value> {
        eventually("all events judged", PATIENCE, async || {
            let events = self.daemon.list("events", &[]).await?;
            Ok(events.iter().all(|event| event["state"] == "judged").then_some(events))
        })
        .await
        .unwrap()
    }

    async fn history(&self, repository: &str, tag: &str) -> Vec<String> {
        let reference = format!("{HOST}/{repository}:{tag}");
        let periods = self.daemon.list("history", &[("reference", &reference)]).await.unwrap_or_default();
        periods.iter().rev().map(|p| p["digest"].as_str().unwrap_or("gone").to_owned()).collect()
    }

    async fn metric(&self, series: &str) -> u64 {
        let text = self.daemon.metrics().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("no {series}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

const PASSES: &str = r#"tidewaiter_verdicts_total{origin="event",outcome="pass",policy="gate"}"#;

#[tokio::test]
async fn t03_replicas_that_tell_of_one_push_are_one_push_and_a_b_a_is_two_moves() {
    let scene = scene("alert").await;
    let began = Timestamp::now();
    let a = scene.push("iot/sensor", "1.0.0", "a").await;
    assert_eq!(scene.metric(PASSES).await, 1);
    // Each replica tells of it as it catches up: another id, a later time.
    for n in 1..=4 {
        let at = began.checked_add(SignedDuration::from_secs(n)).unwrap();
        scene.tell(&pushed(&format!("replica {n}"), at, HOST, "iot/sensor", "1.0.0", &a)).await;
    }
    assert_eq!(scene.settled().await.len(), 5);
    assert_eq!(scene.metric(PASSES).await, 1, "one push, one verdict");
    assert_eq!(scene.history("iot/sensor", "1.0.0").await, [a.as_str()]);

    let b = scene.push("iot/sensor", "1.0.0", "b").await;
    assert_eq!(scene.history("iot/sensor", "1.0.0").await, [a.as_str(), b.as_str()]);
    let firing = scene.daemon.list("violations", &[("state", "firing")]).await.unwrap();
    assert_eq!(firing.len(), 1, "{firing:?}");
    // Late replicas of the first push change nothing.
    for n in 5..=6 {
        let at = began.checked_add(SignedDuration::from_secs(n)).unwrap();
        scene.tell(&pushed(&format!("replica {n}"), at, HOST, "iot/sensor", "1.0.0", &a)).await;
    }
    scene.settled().await;
    assert_eq!(scene.history("iot/sensor", "1.0.0").await, [a.as_str(), b.as_str()]);

    let again = scene.registry.push_index("iot/sensor", "1.0.0", PLATFORMS, "a").await;
    assert_eq!(again, a);
    scene.tell(&pushed("back", Timestamp::now(), HOST, "iot/sensor", "1.0.0", &a)).await;
    scene.settled().await;
    assert_eq!(scene.history("iot/sensor", "1.0.0").await, [a.as_str(), b.as_str(), a.as_str()]);
    let alerts = scene.sink.seen();
    let fired = alerts.iter().filter(|a| String::from_utf8_lossy(&a.body).contains("\"firing\"")).count();
    assert!(fired <= 1, "{fired} alerts for one move");
}

#[tokio::test]
async fn a_push_asked_about_is_refused_by_the_policy_and_leaves_no_trace() {
    let scene = scene("enforce").await;
    let a = scene.push("iot/press", "4.0.2", "a").await;
    for tag in ["p1", "u1"] {
        scene.push("iot/press", tag, "a").await;
    }
    let before = scene.settled().await.len();
    let other = Digest::of(b"another manifest, which nobody can read yet");
    let ask = async |kind: &str, reference: &str, digest: Option<&Digest>| {
        scene.post("angos", SECRET, &intent(kind, "iot/press", reference, digest)).await
    };

    // What the record and the question can tell is refused, with the reason, each time it is asked.
    for _ in 0..4 {
        let answer = ask("manifest.push", "4.0.2", Some(&other)).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        let reason = serde_json::from_slice::<Value>(&answer.body).unwrap()["error"].as_str().unwrap().to_owned();
        assert!(reason.starts_with(&format!("{HOST}/iot/press:4.0.2: the tag moved from ")), "{reason}");
        assert!(reason.contains("(gate, immutable)"), "{reason}");
    }
    let answer = ask("manifest.push", "4.0.2-linux-amd64", Some(&other)).await;
    assert_eq!(answer.status, 403, "an unknown form: {}", answer.text());
    assert_eq!(ask("tag.delete", "4.0.2", None).await.status, 403);
    assert_eq!(scene.settled().await.len(), before, "nothing is recorded of what was refused");
    assert_eq!(scene.history("iot/press", "4.0.2").await, [a.as_str()]);
    assert!(scene.history("iot/press", "4.0.2-linux-amd64").await.is_empty());
    assert_eq!(
        scene
            .metric(&format!(r#"tidewaiter_enforcements_total{{action="refuse",registry="{HOST}",result="done"}}"#))
            .await,
        6
    );

    let events = |result: &str| format!(r#"tidewaiter_events_total{{action="none",result="{result}",source="angos"}}"#);
    assert_eq!(scene.metric(&events("denied")).await, 6, "refused by a policy");
    assert_eq!(scene.metric(&events("rejected")).await, 0, "and nobody's credential was refused");

    // Everything else may happen: what cannot be known yet, what changes nothing, what is given time, what no
    // policy with `deny` is against, and what nobody governs.
    for (kind, reference, digest) in [
        ("manifest.push", "4.0.3", Some(&other)),
        ("manifest.push", "4.0.2", Some(&a)),
        ("manifest.push", "p1", Some(&other)),
        ("manifest.push", "u1", Some(&other)),
        ("manifest.push", other.as_str(), Some(&other)),
        ("tag.create", "4.0.2", Some(&other)),
        ("tag.delete", "u1", None),
    ] {
        let answer = ask(kind, reference, digest).await;
        assert_eq!(answer.status, 202, "{kind} {reference}: {}", answer.text());
    }
    let ungoverned = intent("manifest.push", "elsewhere/app", "4.0.2", Some(&other));
    assert_eq!(scene.post("angos", SECRET, &ungoverned).await.status, 202);
    // An intent is no history, even where it was allowed: none of it happened.
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.settled().await;
    for (tag, expected) in [("4.0.2", vec![a.as_str()]), ("4.0.3", vec![])] {
        let history = scene.history("iot/press", tag).await;
        assert_eq!(history.iter().filter(|d| *d != "gone").collect::<Vec<_>>(), expected, "{tag}");
    }
    // Who may not ask is not told.
    let body = intent("manifest.push", "iot/press", "4.0.2", Some(&other));
    assert_eq!(scene.post("angos", "Bearer wrong", &body).await.status, 401);
}

#[tokio::test]
async fn without_mode_enforce_nothing_is_refused() {
    let scene = scene("alert").await;
    scene.push("iot/press", "4.0.2", "a").await;
    let other = Digest::of(b"another");
    let body = intent("manifest.push", "iot/press", "4.0.2", Some(&other));
    assert_eq!(scene.post("angos", SECRET, &body).await.status, 202);
}

#[tokio::test]
async fn dead_letters_are_kept_alerted_once_and_read_again() {
    let mut scene = scene("alert").await;
    let digest = scene.registry.push_index("iot/sensor", "1.0.0", PLATFORMS, "a").await;
    let later = pushed("1", Timestamp::now(), "contoso-abc.azurecr.io", "iot/sensor", "1.0.0", &digest);
    for body in ["no json", "[1, 2", later.as_str()] {
        let answer = scene.post("acr", SECRET, body).await;
        assert_eq!((answer.status.as_u16(), answer.text().contains("\"dead\":1")), (202, true), "{}", answer.text());
    }
    let listed = scene.daemon.get("/api/v1/dead-letters").await.unwrap();
    let letters = listed["dead-letters"].as_array().unwrap();
    assert_eq!(letters.len(), 3);
    assert_eq!((&letters[2]["excerpt"], &letters[2]["bytes"]), (&json!("no json"), &json!(7)));
    assert!(letters[0]["fault"].as_str().unwrap().contains("contoso-abc.azurecr.io"), "{}", letters[0]);
    assert!(!listed.to_string().contains("example-shared-secret"));
    assert_eq!(scene.metric("tidewaiter_dead_letters ").await, 3);
    let alerts = || {
        let seen = scene.sink.seen();
        seen.iter().filter(|seen| String::from_utf8_lossy(&seen.body).contains("dead-letter")).count()
    };
    eventually("the alert", PATIENCE, async || Ok((alerts() > 0).then_some(()))).await.unwrap();

    let retry = async |scene: &Scene| {
        let token = std::fs::read_to_string(scene.folder.path().join("admin-token")).unwrap_or_default();
        let url = format!("{}/api/v1/dead-letters/retry", scene.daemon.admin());
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        scene.http.send(Method::POST, &url, &headers, "{}").await.unwrap()
    };
    let answer = retry(&scene).await;
    assert_eq!((answer.status.as_u16(), answer.text().trim()), (200, r#"{"read":0,"recorded":0,"kept":3}"#));
    assert_eq!(alerts(), 1, "one alert for one source");

    // The name was the same registry's: said in the configuration, the event counts.
    assert!(scene.daemon.stop().await.unwrap().success());
    let config = std::fs::read_to_string(&scene.config).unwrap();
    let aliased = config.replace(
        "    ca: ca.crt\n    allowPrivate: true\n    reconcile",
        "    ca: ca.crt\n    allowPrivate: true\n    aliases: [contoso-abc.azurecr.io]\n    reconcile",
    );
    assert_ne!(config, aliased);
    write(&scene.config, &aliased).unwrap();
    scene.daemon.again().await.unwrap();
    let binary = env!("CARGO_BIN_EXE_tidewaiter");
    let verb = |words: &[&str]| {
        let mut command = std::process::Command::new(binary);
        let output = command.arg("dead-letters").args(words).arg("--config").arg(&scene.config).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (shown, said) = verb(&["--retry"]);
    assert!(said.contains("1 could be read now, with 1 new event; 2 still cannot"), "{said}");
    assert_eq!(shown, "", "what could not be read either is listed when it is asked for");
    let (shown, _) = verb(&[]);
    assert!(shown.contains("acr   7 bytes") && shown.contains("no json") && !shown.contains("contoso-abc"), "{shown}");
    assert_eq!(scene.settled().await.len(), 1);
    // What cannot be read stays, and the command does the same without a daemon.
    assert!(scene.daemon.stop().await.unwrap().success());
    let (shown, said) = verb(&["--retry", "-o", "json"]);
    assert!(said.contains("0 could be read now"), "{said}");
    let listed: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(listed["dead-letters"].as_array().unwrap().len(), 2);
    scene.daemon.again().await.unwrap();
    assert_eq!(scene.history("iot/sensor", "1.0.0").await, [digest.as_str()]);

    let url = format!("{}/api/v1/dead-letters/retry", scene.daemon.admin());
    let headers = [("content-type", "application/json")];
    assert_eq!(scene.http.send(Method::POST, &url, &headers, "{}").await.unwrap().status, 401);
}

#[tokio::test]
async fn a_policy_broken_and_mended_is_told_at_both_edges_also_across_a_restart() {
    let mut scene = scene("alert").await;
    let file = scene.folder.path().join("policy.yaml");
    let valid = std::fs::read_to_string(&file).unwrap();
    let told = async |scene: &Scene, kinds: &[&str]| {
        let of = || -> Vec<String> {
            let bodies = scene.sink.seen().into_iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned());
            let about = bodies.filter(|body| body.contains("policy-reload-failed"));
            about
                .map(|body| serde_json::from_str::<Value>(&body).unwrap()["type"].as_str().unwrap().to_owned())
                .collect()
        };
        let wanted: Vec<String> = kinds.iter().map(|kind| format!("dev.tidewaiter.daemon.{kind}.v1")).collect();
        eventually("it is told", PATIENCE, async || Ok((of() == wanted).then_some(()))).await.unwrap();
    };
    write(&file, "kind: [").unwrap();
    told(&scene, &["firing"]).await;
    write(&file, &valid).unwrap();
    told(&scene, &["firing", "resolved"]).await;
    write(&file, "kind: [").unwrap();
    told(&scene, &["firing", "resolved", "firing"]).await;
    assert!(scene.daemon.stop().await.unwrap().success());
    write(&file, &valid).unwrap();
    scene.daemon.again().await.unwrap();
    told(&scene, &["firing", "resolved", "firing", "resolved"]).await;
}

#[tokio::test]
async fn t01_a_token_of_the_configured_issuer_is_let_in() {
    let scene = scene("alert").await;
    let now = Timestamp::now().as_second();
    let token = |email: &str, audience: &str| {
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({
            "iss": scene.issuer.url(""), "aud": audience, "sub": "1", "email": email, "email_verified": true,
            "exp": now + 600,
        });
        let signed = format!("{}.{}", encode(json!({"alg": "ES256", "kid": "k"})), encode(claims));
        let signature = scene.signer.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let event = json!({"action": "INSERT", "tag": format!("{HOST}/iot/sensor:1.0.0")}).to_string();
    let body = json!({"message": {"data": STANDARD.encode(event), "messageId": "1", "publishTime": "2026-11-22T10:00:00Z"},
                      "subscription": "projects/p/subscriptions/s"});
    for (authorization, status) in [
        (token("push@example.com", "tidewaiter"), 202),
        (token("other@example.com", "tidewaiter"), 401),
        (token("push@example.com", "others"), 401),
        (SECRET.to_owned(), 401),
    ] {
        let answer = scene.post("google", &authorization, &body.to_string()).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    assert_eq!(scene.issuer.seen().len(), 2, "discovery and keys, once");
}
