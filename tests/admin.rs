//! The admin listener over real sockets.

#[expect(dead_code, reason = "what only the tests of intake need")]
mod common;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Memory, Reply, read_reply, until};
use secrecy::SecretString;
use serde_json::{Value, json};
use tidewaiter::admin::{
    Access, Admin, Check, CheckError, HookFuture, Hooks, ROUTES, Readiness, ReadyLimits, Retry, Tokens,
};
use tidewaiter::clock::SystemClock;
use tidewaiter::history::{Known, Origin, Sighting, TagHistory};
use tidewaiter::image::{Digest, Reference};
use tidewaiter::metrics::{Metrics, Names};
use tidewaiter::policy::violation::{Violation, ViolationKey};
use tidewaiter::policy::{Reason, Rule, Severity, State, TagRecord};
use tidewaiter::store::{DeadLetter, StoreError, ViolationCount, ViolationRow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Echo;

impl Check for Echo {
    fn check(&self, references: Vec<Reference>) -> HookFuture<'_, Result<String, CheckError>> {
        Box::pin(async move {
            match references[0].repository.host.as_str() {
                "unknown.example" => Err(CheckError::Refused("unknown.example is not configured".into())),
                "down.example" => Err(CheckError::Unavailable("down.example does not answer".into())),
                _ => Ok(json!({ "kind": "Report", "of": references.len() }).to_string()),
            }
        })
    }
}

impl Retry for Echo {
    fn retry(&self) -> HookFuture<'_, Result<String, CheckError>> {
        Box::pin(async { Ok(json!({ "read": 2, "recorded": 3, "kept": 1 }).to_string()) })
    }
}

struct Running {
    address: SocketAddr,
    store: Arc<Memory>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
}

async fn start(tokens: Tokens) -> Running {
    let metrics = Arc::new(Metrics::new().unwrap());
    metrics.announce(Names {
        policies: ["iot".to_owned()].into(),
        requirements: [("iot".to_owned(), Rule::Immutable, Severity::Critical)].into(),
        ..Names::default()
    });
    let store = Arc::new(Memory::default());
    let stop = CancellationToken::new();
    let limits =
        ReadyLimits { backlog_events: 10, every: Duration::from_millis(20), fresh: Duration::from_millis(500) };
    let readiness = Arc::new(Readiness::new(limits, stop.clone()));
    let (watched, probed) = (readiness.clone(), store.clone());
    tokio::spawn(async move { watched.watch(&*probed).await });
    let open = Arc::new(HashSet::from(["open".to_owned()]));
    let hooks = Hooks { check: Arc::new(Echo), retry: Arc::new(Echo), open };
    let admin = Admin::new(store.clone(), readiness.clone(), hooks, tokens, metrics, Arc::new(SystemClock));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(admin.serve(socket, None, stop.clone()));
    Running { address, store, readiness, stop }
}

impl Running {
    async fn raw(&self, request: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_reply(&mut stream).await.unwrap()
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Reply {
        let token = token.map(|t| format!("Authorization: {t}\r\n")).unwrap_or_default();
        let content = if method == "POST" {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        } else {
            String::new()
        };
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n{token}{content}\r\n{body}")).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, None, "").await
    }
}

fn configured() -> Tokens {
    Tokens { configured: Some(SecretString::from("right")), local: None }
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn body_for(path: &str) -> String {
    match path {
        "/api/v1/acceptances" => {
            json!({ "reference": format!("a.example/b:1@{DIGEST}"), "reason": "rebuilt" }).to_string()
        }
        "/api/v1/check" => json!({ "targets": ["a.example/b:1"] }).to_string(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn t63_every_route_asks_for_what_its_entry_says() {
    let with = start(configured()).await;
    let without = start(Tokens::default()).await;
    let local = start(Tokens { configured: None, local: Some(SecretString::from("right")) }).await;
    for running in [&with, &without, &local] {
        running.readiness.started();
        until("ready", || running.readiness.reasons().is_empty()).await;
    }
    for route in ROUTES {
        for token in [
            None,
            Some(""),
            Some("Bearer wrong"),
            Some("Bearer righ"),
            Some("Bearer rightt"),
            Some("Basic right"),
            Some("Bearer  right"),
            Some("Bearer right"),
        ] {
            let right = token == Some("Bearer right");
            let body = body_for(route.path);
            let path =
                if route.path == "/api/v1/history" { "/api/v1/history?reference=a.example/b:1" } else { route.path };
            let entry = format!("{} {} {token:?}", route.method, route.path);
            // History has nothing on record here.
            let let_in =
                |reply: &Reply| !matches!(reply.status, 401 | 403) && (reply.status < 400 || reply.status == 404);

            let reply = with.ask(route.method, path, token, &body).await;
            assert_eq!(let_in(&reply), right || route.access == Access::Open, "configured, {entry}: {reply:?}");
            assert!(let_in(&reply) || (reply.status == 401 && reply.header("www-authenticate").is_some()));

            let reply = without.ask(route.method, path, token, &body).await;
            assert_eq!(let_in(&reply), route.access != Access::Write, "none, {entry}: {reply:?}");
            assert!(let_in(&reply) || (reply.status == 403 && reply.body.contains("admin.tokenFile")));

            let reply = local.ask(route.method, path, token, &body).await;
            assert_eq!(let_in(&reply), right || route.access != Access::Write, "local, {entry}: {reply:?}");
        }
    }
    assert_eq!(without.store.accepted.lock().unwrap().len(), 0);
    let two =
        "GET /api/v1/events HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer right\r\nAuthorization: Bearer wrong\r\n\r\n";
    assert_eq!(with.raw(two).await.status, 401);
}

#[tokio::test]
async fn t63_a_page_elsewhere_cannot_read_or_write() {
    let r = start(Tokens::default()).await;
    for (host, status) in [
        ("evil.example", 403),
        ("evil.example:9464", 403),
        ("localhost.evil.example", 403),
        ("localhost:9464", 200),
        ("127.0.0.1:9464", 200),
        ("[::1]:9464", 200),
    ] {
        let reply = r.raw(&format!("GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, status, "{host}");
        assert!(reply.header("access-control-allow-origin").is_none());
    }
    let form =
        "POST /api/v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(r.raw(form).await.status, 415);
}

#[tokio::test]
async fn t64_ready_means_that_events_can_be_recorded() {
    let r = start(Tokens::default()).await;
    assert_eq!(r.get("/livez").await.status, 200);
    let reply = r.get("/readyz").await;
    assert_eq!(reply.status, 503);
    assert!(reply.json()["reasons"].as_array().unwrap().contains(&json!("starting")), "{reply:?}");
    r.readiness.started();
    until("ready", || r.readiness.reasons().is_empty()).await;
    assert_eq!((r.get("/readyz").await.status, r.get("/readyz").await.json()["ready"].clone()), (200, json!(true)));

    *r.store.broken.lock().unwrap() = Some(|| StoreError::DiskFull);
    until("not ready", || !r.readiness.reasons().is_empty()).await;
    assert!(r.get("/readyz").await.body.contains("no space left"));
    *r.store.broken.lock().unwrap() = None;
    until("ready again", || r.readiness.reasons().is_empty()).await;

    r.store.stats.lock().unwrap().queued = 10;
    until("not ready", || !r.readiness.reasons().is_empty()).await;
    assert!(r.get("/readyz").await.body.contains("backlog"));
    r.store.stats.lock().unwrap().queued = 9;
    until("ready again", || r.readiness.reasons().is_empty()).await;

    assert_eq!(r.get("/livez").await.body, "ok\n");
    r.stop.cancel();
    assert_eq!(r.readiness.reasons(), ["stopping"]);
}

#[tokio::test]
async fn unknown_parameters_paths_and_methods_are_said_so() {
    let r = start(Tokens::default()).await;
    for (path, status, word) in [
        ("/api/v1/violations?stat=firing", 400, "state, registry, repository, policy, limit, cursor"),
        ("/api/v1/violations?state=firing&state=pending", 400, "more than once"),
        ("/api/v1/violations?state=burning", 400, "pending, firing, resolved"),
        ("/api/v1/violations?registry=not+a+host", 400, "registry"),
        ("/api/v1/violations?repository=A", 400, "repository"),
        ("/api/v1/violations?limit=0", 400, "1 to 1000"),
        ("/api/v1/violations?limit=1001", 400, "1 to 1000"),
        ("/api/v1/violations?limit=x%0a%1b", 400, "x\\\\n"),
        (
            "/api/v1/violations?state=firing,resolved&registry=a.example&repository=b/c&policy=p&limit=1000&cursor=x",
            200,
            "",
        ),
        ("/api/v1/violations?state=", 200, ""),
        ("/api/v1/verdicts?tag=.bad", 400, "tag"),
        ("/api/v1/events?since=yesterday", 400, "24h"),
        ("/api/v1/events?since=24h", 200, ""),
        ("/api/v1/events?since=2026-11-22T10:00:00Z", 200, ""),
        ("/api/v1/events?source=a&id=b", 200, ""),
        ("/api/v1/history", 400, "reference"),
        ("/api/v1/history?reference=a.example/b", 400, "names no image"),
        ("/api/v1/history?reference=a.example/b:1", 404, "no record"),
        ("/api/v1/nothing", 404, "openapi"),
        ("/debug/pprof", 404, ""),
    ] {
        let reply = r.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert!(reply.body.contains(word), "{path}: {}", reply.body);
    }
    let reply = r.ask("DELETE", "/api/v1/events", None, "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
    assert_eq!(r.ask("GET", "/api/v1/check", None, "").await.status, 405);
}

fn violation() -> ViolationRow {
    ViolationRow {
        repository: "a.example/iot/sensor".parse().unwrap(),
        violation: Violation {
            key: ViolationKey {
                policy: "iot".into(),
                tag: Some("1.0.1".parse().unwrap()),
                class: "version".into(),
                rule: Rule::Immutable,
            },
            reason: Reason::from_code("missing-platform").unwrap(),
            severity: Severity::Critical,
            state: State::Firing,
            digest: Some(DIGEST.parse().unwrap()),
            message: "moved \"<b>".into(),
            advice: "mend it".into(),
            expected: vec!["a".into()],
            actual: vec!["b".into()],
            since: "2026-11-22T10:00:00Z".parse().unwrap(),
            fires_at: None,
            fired_at: Some("2026-11-22T10:00:00Z".parse().unwrap()),
            resolved_at: None,
            preview: false,
        },
    }
}

#[tokio::test]
async fn lists_have_their_published_shape() {
    let r = start(Tokens::default()).await;
    r.store.violations.lock().unwrap().push(violation());
    let list = r.get("/api/v1/violations?policy=iot").await.json();
    assert_eq!(list["next"], "more");
    let row = list["violations"][0].as_object().unwrap();
    for field in [
        "policy",
        "class",
        "requirement",
        "reason",
        "severity",
        "state",
        "registry",
        "repository",
        "tag",
        "digest",
        "message",
        "expected",
        "actual",
        "since",
        "firedAt",
        "resolvedAt",
    ] {
        assert!(row.contains_key(field), "{field}");
    }
    assert_eq!(
        (&row["registry"], &row["repository"], &row["requirement"]),
        (&json!("a.example"), &json!("iot/sensor"), &json!("immutable"))
    );
    assert_eq!(r.get("/api/v1/violations?policy=other").await.json()["violations"], json!([]));
    assert_eq!(r.get("/api/v1/verdicts").await.json(), json!({ "verdicts": [{ "policy": "iot" }], "next": null }));
    assert_eq!(r.get("/api/v1/events").await.json(), json!({ "events": [], "next": null }));

    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let sighting = |digest: Option<&str>, when: &str| Sighting {
        digest: digest.map(|d| Digest::of(d.as_bytes())),
        at: at(when),
        known: Known::Observed,
        looked: true,
        origin: Origin::Event,
        actor: Some("ci".into()),
    };
    let history = TagHistory::from_sightings(vec![
        sighting(Some("a"), "2026-11-20T10:00:00Z"),
        sighting(Some("b"), "2026-11-21T10:00:00Z"),
        sighting(None, "2026-11-22T10:00:00Z"),
    ]);
    let record = TagRecord {
        current: None,
        history: Some(history),
        accepted: None,
        judged_moves: Default::default(),
        locked: None,
    };
    r.store.tags.lock().unwrap().push(("1.0.1".parse().unwrap(), record));
    let path = "/api/v1/history?reference=a.example/iot/sensor:1.0.1";
    let list = r.get(path).await.json();
    let digests: Vec<&Value> = list["history"].as_array().unwrap().iter().map(|p| &p["digest"]).collect();
    assert_eq!(digests, [&Value::Null, &json!(Digest::of(b"b").as_str()), &json!(Digest::of(b"a").as_str())]);
    assert_eq!(
        list["history"][1],
        json!({ "digest": Digest::of(b"b").as_str(), "from": "2026-11-21T10:00:00Z", "to": "2026-11-22T10:00:00Z", "known": "observed", "origin": "event", "actor": "ci" })
    );
    let page = r.get(&format!("{path}&limit=2")).await.json();
    assert_eq!((page["history"].as_array().unwrap().len(), &page["next"]), (2, &json!("2")));
    let page = r.get(&format!("{path}&limit=2&cursor=2")).await.json();
    assert_eq!((page["history"].as_array().unwrap().len(), &page["next"]), (1, &Value::Null));
    assert_eq!(r.get(&format!("{path}&cursor=4")).await.status, 400);
}

#[tokio::test]
async fn acceptances_are_checked_and_written() {
    let r = start(configured()).await;
    let accept = async |body: &str| r.ask("POST", "/api/v1/acceptances", Some("Bearer right"), body).await;
    let good = body_for("/api/v1/acceptances");
    let reply = accept(&good).await;
    assert_eq!((reply.status, &reply.json()["reason"]), (201, &json!("rebuilt")));
    assert_eq!(
        *r.store.accepted.lock().unwrap(),
        [("a.example/b:1".to_owned(), DIGEST.to_owned(), "rebuilt".to_owned())]
    );
    for bad in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"reference":"a.example/b:1","reason":"x"}"#,
        &format!(r#"{{"reference":"a.example/b@{DIGEST}","reason":"x"}}"#),
        &good.replace("rebuilt", " "),
        &good.replace("rebuilt", "a\\nb"),
        &good.replace("rebuilt", &"x".repeat(1001)),
        &good.replace("\"reason\"", "\"who\":1,\"reason\""),
    ] {
        assert_eq!(accept(bad).await.status, 400, "{bad}");
    }
    assert_eq!(accept(&"x".repeat(70_000)).await.status, 413);
    assert_eq!(r.store.accepted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn checks_are_done_by_the_hook() {
    let r = start(Tokens::default()).await;
    let check =
        async |targets: &[&str]| r.ask("POST", "/api/v1/check", None, &json!({ "targets": targets }).to_string()).await;
    assert_eq!(check(&["a.example/b:1", "a.example/b:2"]).await.json(), json!({ "kind": "Report", "of": 2 }));
    assert_eq!(check(&[]).await.status, 400);
    assert_eq!(check(&["nothing"]).await.status, 400);
    assert_eq!(check(&["a.example/b:1"; 101]).await.status, 400);
    assert_eq!(check(&["unknown.example/b:1"]).await.status, 400);
    let reply = check(&["down.example/b:1"]).await;
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true));
}

#[tokio::test]
async fn metrics_show_what_the_store_holds() {
    let r = start(Tokens::default()).await;
    {
        let mut stats = r.store.stats.lock().unwrap();
        stats.queued = 7;
        stats.dead_letters = 3;
        stats.violations = vec![ViolationCount {
            policy: "iot".into(),
            rule: Rule::Immutable,
            severity: Severity::Critical,
            state: State::Firing,
            count: 2,
        }];
    }
    let reply = r.get("/metrics").await;
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "tidewaiter_event_queue_depth 7",
        "tidewaiter_dead_letters 3",
        r#"tidewaiter_violations{policy="iot",requirement="immutable",severity="critical",state="firing"} 2"#,
    ] {
        assert!(reply.body.lines().any(|l| l == line), "{line}\n{}", reply.body);
    }
    assert!(reply.body.contains("tidewaiter_build_info"));
}

#[tokio::test]
async fn the_console_is_strict_and_holds_no_data() {
    let r = start(configured()).await;
    for (path, kind) in [("/", "text/html"), ("/console.js", "text/javascript"), ("/console.css", "text/css")] {
        let reply = r.get(path).await;
        assert_eq!(reply.status, 200);
        assert!(reply.header("content-type").unwrap().starts_with(kind));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        for word in
            ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://", "style=\"", "onclick"]
        {
            assert!(!reply.body.contains(word), "{path}: {word}");
        }
    }
    let mut stream = TcpStream::connect(r.address).await.unwrap();
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn the_api_s_description_is_whole() {
    let r = start(configured()).await;
    let reply = r.get("/openapi.json").await;
    let document = reply.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described: BTreeMap<String, Value> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()), operation.clone());
        }
    }
    for route in ROUTES {
        let operation = described
            .remove(&format!("{} {}", route.method, route.path))
            .unwrap_or_else(|| panic!("{} is not described", route.path));
        let token = json!({ "token": [] });
        let security = match route.access {
            Access::Open => json!([]),
            Access::Read => json!([{}, token]),
            Access::Write => json!([token]),
        };
        assert_eq!(operation["security"], security, "{}", route.path);
        assert!(operation["responses"].as_object().is_some_and(|r| !r.is_empty()));
    }
    assert!(described.is_empty(), "{:?} is no route", described.keys());
    let text = reply.body;
    for reference in text.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn dead_letters_are_listed_without_credentials_and_open_sources_are_marked() {
    let r = start(Tokens::default()).await;
    let letter = |id: i64, source: &str| DeadLetter {
        id,
        source: source.into(),
        received_at: "2026-11-22T10:00:00Z".parse().unwrap(),
        fault: "no JSON".into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: [b"{\xff".as_slice(), &b"x".repeat(2_000)].concat().into(),
    };
    *r.store.dead.lock().unwrap() = vec![letter(2, "open"), letter(1, "acr")];
    let listed = r.get("/api/v1/dead-letters").await.json();
    let letters = listed["dead-letters"].as_array().unwrap();
    assert_eq!((&letters[0]["unauthenticated"], &letters[1]["unauthenticated"]), (&json!(true), &Value::Null));
    assert_eq!(letters[1]["bytes"], json!(2_002));
    assert_eq!(letters[1]["excerpt"].as_str().unwrap().chars().count(), 1_000);
    assert_eq!(letters[1]["headers"], json!({ "content-type": "application/json" }));
    let post = "POST /api/v1/dead-letters/retry HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(r.raw(post).await.status, 403, "no token is configured for changes");
}
