//! The events listener over real sockets, as senders and as attackers see it.

mod common;
#[path = "common/sender.rs"]
mod sender;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Append, Memory, Reply, read_reply, until};
use secrecy::SecretString;
use sender::{Authority, connect, connector, exchange, post, write_private};
use tidewaiter::clock::SystemClock;
use tidewaiter::event::authenticity::{Algorithm, Credential, Encoding, Secrets};
use tidewaiter::event::{Event, Format};
use tidewaiter::image::Host;
use tidewaiter::intake::{Admission, Auth, Decision, HookFuture, Hooks, Intake, Limits, Source, Sources};
use tidewaiter::listen::{Tls, TlsFiles};
use tidewaiter::metrics::{Listener, Metrics, Names};
use tidewaiter::store::StoreError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const QUIET: Duration = Duration::from_millis(300);
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const ACR: &str = r#"{"id":"ID","timestamp":"2026-11-22T10:00:00Z","action":"push","target":{"mediaType":"application/vnd.oci.image.index.v1+json","repository":"iot/sensor","tag":"1.0.1","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"request":{"host":"HOST"}}"#;

fn acr(id: &str) -> String {
    ACR.replace("ID", id).replace("HOST", "contoso.azurecr.io")
}

fn secrets(texts: &[&str]) -> Secrets {
    Secrets::new(texts.iter().map(|t| SecretString::from(*t)).collect()).unwrap()
}

fn header(value: &[&str]) -> Auth {
    Auth::Secret(Credential::Header { name: "Authorization".into(), secrets: secrets(value) })
}

fn source(name: &str, format: Format, auth: Auth) -> Source {
    let registry: Host = "contoso.azurecr.io".parse().unwrap();
    let alias: Host = "contoso-abc.azurecr.io".parse().unwrap();
    Source {
        name: name.into(),
        format,
        auth,
        registry: Some(registry.clone()),
        registries: HashMap::from([(registry.clone(), registry.clone()), (alias, registry)]),
        admission: false,
    }
}

fn sources() -> Vec<Source> {
    vec![
        source("acr", Format::Acr, header(&["Bearer right", "Bearer next"])),
        source("other", Format::Acr, header(&["Bearer others"])),
        source(
            "hub",
            Format::DockerHub,
            Auth::Secret(Credential::Query { name: "k".into(), secrets: secrets(&["hub secret"]) }),
        ),
        source("basic", Format::Acr, Auth::Secret(Credential::Basic { user: "u".into(), passwords: secrets(&["pw"]) })),
        source(
            "github",
            Format::Github,
            Auth::Secret(Credential::Hmac {
                header: "X-Hub-Signature-256".into(),
                algorithm: Algorithm::Sha256,
                encoding: Encoding::Hex,
                prefix: "sha256=".into(),
                secrets: secrets(&["example-shared-secret"]),
            }),
        ),
        source("grid", Format::EventGrid, header(&["grid"])),
        source("mtls", Format::Zot, Auth::ClientCertificate { names: vec!["sender.example".into()] }),
        source("dist", Format::Distribution, header(&["dist"])),
        Source { admission: true, ..source("angos", Format::Angos, header(&["Bearer angos"])) },
        source("open", Format::Acr, Auth::Unauthenticated),
    ]
}

/// A running listener.
struct Running {
    address: SocketAddr,
    store: Arc<Memory>,
    metrics: Arc<Metrics>,
    sources: Sources,
    stop: CancellationToken,
    must_end: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    authority: Authority,
    tls: Arc<Tls>,
    directory: tempfile::TempDir,
}

struct DenyLatest;

impl Admission for DenyLatest {
    fn decide<'a>(&'a self, _: &'a str, events: &'a [(Host, Event)]) -> HookFuture<'a, Result<Decision, StoreError>> {
        let denied = events.iter().any(|(_, e)| e.tag.as_ref().is_some_and(|t| t.as_str() == "latest"));
        Box::pin(async move {
            Ok(if denied { Decision::Deny { reason: "latest is \"moved\" by\nhand".into() } } else { Decision::Allow })
        })
    }
}

async fn start() -> Running {
    start_with(|_| {}).await
}

async fn start_with(change: impl FnOnce(&mut Limits)) -> Running {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let (certificate, key) = authority.issue("localhost");
    write_private(&path("tls.crt"), &certificate);
    write_private(&path("tls.key"), &key);
    write_private(&path("ca.crt"), &authority.pem);
    let metrics = Arc::new(Metrics::new().unwrap());
    metrics.announce(Names { sources: sources().iter().map(|s| s.name.to_string()).collect(), ..Names::default() });
    let clock = Arc::new(SystemClock);
    let files = TlsFiles {
        certificate: path("tls.crt"),
        key: path("tls.key"),
        client_ca: Some(path("ca.crt")),
        allow_readable_key: false,
    };
    let tls = Tls::load(files, Listener::Events, metrics.clone(), clock.clone()).unwrap();
    let store = Arc::new(Memory::default());
    let table = Sources::new(sources(), metrics.clone());
    let mut limits = Limits::default();
    change(&mut limits);
    let must_end = CancellationToken::new();
    let hooks = Hooks { admission: Some(Arc::new(DenyLatest)), ..Hooks::default() };
    let intake = Intake::new(table.clone(), limits, hooks, store.clone(), clock, must_end.clone());
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(intake.serve(socket, Some(tls.clone()), stop.clone()));
    Running { address, store, metrics, sources: table, stop, must_end, served, authority, tls, directory }
}

impl Running {
    fn client(&self) -> TlsConnector {
        connector(self.authority.roots(), VERSIONS, None)
    }

    /// Sends `bytes` over a connection of its own and gives all answers.
    async fn raw(&self, bytes: &[u8]) -> Vec<Reply> {
        let mut stream = connect(&self.client(), self.address).await.unwrap();
        exchange(&mut stream, bytes, QUIET).await
    }

    async fn send(&self, bytes: &[u8]) -> Reply {
        let mut stream = connect(&self.client(), self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let reply = tokio::time::timeout(Duration::from_secs(10), read_reply(&mut stream)).await;
        reply.expect("an answer in time").expect("an answer")
    }

    async fn post(&self, source: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.send(&post(&format!("/v1/events/{source}"), headers, body)).await
    }

    fn events(&self) -> usize {
        self.store.events.lock().unwrap().len()
    }

    fn dead(&self) -> usize {
        self.store.dead.lock().unwrap().len()
    }

    fn counted(&self, series: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("no {series}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

const RIGHT: (&str, &str) = ("Authorization", "Bearer right");

#[tokio::test]
async fn t15_answers_are_what_senders_need() {
    let r = start().await;
    let tally = |recorded, duplicate, ignored, dead| {
        format!("{{\"recorded\":{recorded},\"duplicate\":{duplicate},\"ignored\":{ignored},\"dead\":{dead}}}")
    };
    for (body, want) in [
        (acr("1"), tally(1, 0, 0, 0)),
        (acr("1"), tally(0, 1, 0, 0)),
        (acr("2"), tally(1, 0, 0, 0)),
        (r#"{"id":"3","action":"ping"}"#.to_owned(), tally(0, 0, 1, 0)),
        (r#"{"id":"4","action":"unheard-of"}"#.to_owned(), tally(0, 0, 1, 0)),
        ("no json".to_owned(), tally(0, 0, 0, 1)),
        (String::new(), tally(0, 0, 0, 1)),
        (acr("5").replace("iot/sensor", "../etc"), tally(0, 0, 0, 1)),
    ] {
        let reply = r.post("acr", &[RIGHT, ("Content-Type", "application/json")], &body).await;
        assert_eq!((reply.status, reply.body.as_str()), (202, want.as_str()), "{body}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    assert_eq!((r.events(), r.dead()), (2, 3));
    let letter = r.store.dead.lock().unwrap()[0].clone();
    assert_eq!(&*letter.body, b"no json");
    assert_eq!(letter.headers, [("content-type".to_owned(), "application/json".to_owned())], "never the credential");

    let path = "/v1/events/acr";
    for (request, status) in [
        (post("/v1/events/nobody", &[RIGHT], "{}"), 404),
        (post("/v1/events/", &[RIGHT], "{}"), 404),
        (post("/v1/events/acr/", &[RIGHT], "{}"), 404),
        (post("/v1/events/%61cr", &[RIGHT], "{}"), 404),
        (post("/", &[RIGHT], "{}"), 404),
        (post(path, &[], "{}"), 401),
        (post(path, &[RIGHT, ("Content-Encoding", "gzip")], "{}"), 415),
        (post(path, &[RIGHT, ("Content-Encoding", "identity")], &acr("6")), 202),
        (post(path, &[RIGHT, ("Content-Type", "text/strange")], &acr("7")), 202),
        (post("/v1/events/dist", &[("Authorization", "dist"), ("Content-Type", "text/xml")], "{}"), 415),
        (
            post(
                "/v1/events/dist",
                &[("Authorization", "dist"), ("Content-Type", "application/vnd.docker.distribution.events.v1+json")],
                r#"{"events":[]}"#,
            ),
            202,
        ),
        (post(path, &[RIGHT], &"x".repeat(256 * 1024)), 202),
        (post(path, &[RIGHT], &"x".repeat(256 * 1024 + 1)), 413),
        (post(&format!("{path}?{}", "x".repeat(2048)), &[RIGHT], "{}"), 414),
        (b"GET /v1/events/acr HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 405),
        (b"BREW /v1/events/acr HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 405),
        (b"OPTIONS /v1/events/acr HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 405),
        (b"BREW /v1/events/nobody HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 404),
    ] {
        let reply = r.send(&request).await;
        let head = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert_eq!(reply.status, status, "{head}");
        assert_eq!(reply.header("allow").is_some(), status == 405, "{head}");
        assert!(reply.status < 300 || reply.json()["error"].is_string(), "{head}");
    }
}

#[tokio::test]
async fn t15_a_store_that_cannot_record_is_said_so_with_a_time() {
    let r = start().await;
    type Fault = fn() -> StoreError;
    let kinds: [(Fault, &str); 5] = [
        (|| StoreError::BacklogFull { events: 1 }, "30"),
        (|| StoreError::DiskFull, "30"),
        (|| StoreError::Unavailable("x".into()), "5"),
        (|| StoreError::Damaged { what: "x", why: "secret path".into() }, "5"),
        (|| StoreError::Broken("x".into()), "5"),
    ];
    for (error, after) in kinds {
        assert!(!r.must_end.is_cancelled());
        *r.store.append.lock().unwrap() = Append::Refuse(error);
        for body in [acr("1"), "unreadable".to_owned()] {
            let reply = r.post("acr", &[RIGHT], &body).await;
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some(after)), "{:?}", error());
            assert!(!reply.body.contains("secret"));
        }
    }
    assert!(r.must_end.is_cancelled(), "a broken store ends the process");
    // What is of no interest needs no store.
    assert_eq!(r.post("acr", &[RIGHT], r#"{"action":"ping"}"#).await.status, 202);
}

#[tokio::test]
async fn a_late_store_is_503_within_the_senders_patience() {
    let r = start_with(|l| {
        l.answer_time = Duration::from_millis(200);
        l.answer_time_impatient = Duration::from_millis(50);
    })
    .await;
    *r.store.append.lock().unwrap() = Append::Wait(Duration::from_secs(60));
    let began = Instant::now();
    let body = format!(
        r#"{{"events":[{{"id":"1","action":"push","target":{{"repository":"a","digest":"sha256:{0}","url":"https://h/v2/a/manifests/x"}},"request":{{"host":"contoso.azurecr.io"}}}}]}}"#,
        "0".repeat(64)
    );
    let reply = r.post("dist", &[("Authorization", "dist")], &body).await;
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true), "{reply:?}");
    assert!(began.elapsed() < Duration::from_millis(190));
    assert_eq!(r.post("acr", &[RIGHT], &acr("1")).await.status, 503);
    assert_eq!(r.counted(r#"tidewaiter_limit_reached_total{limit="answer-time"}"#), 2);
}

#[tokio::test]
async fn t01_only_the_right_credential_of_the_right_source_is_let_in() {
    let r = start().await;
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, bool);
    let cases: Vec<Case<'_>> = vec![
        ("acr", vec![], false),
        ("acr", vec![("Authorization", "")], false),
        ("acr", vec![("Authorization", "Bearer wrong")], false),
        ("acr", vec![("Authorization", "Bearer righ")], false),
        ("acr", vec![("Authorization", "Bearer rightt")], false),
        ("acr", vec![("Authorization", "bearer right")], false),
        ("acr", vec![("Authorization", "Bearer others")], false),
        ("acr", vec![("X-Authorization", "Bearer right")], false),
        ("acr", vec![("Authorization", "Bearer right")], true),
        ("acr", vec![("Authorization", "Bearer next")], true),
        ("other", vec![("Authorization", "Bearer right")], false),
        ("other", vec![("Authorization", "Bearer others")], true),
        ("hub", vec![], false),
        ("hub?k=", vec![], false),
        ("hub?k=hub", vec![], false),
        ("hub?k=hub+secret&k=hub+secret", vec![], false),
        ("hub?K=hub+secret", vec![], false),
        ("hub?k=hub+secret", vec![], true),
        ("hub?x=1&k=hub%20secret", vec![], true),
        ("basic", vec![("Authorization", "Basic dTpwdw==")], true),
        ("basic", vec![("Authorization", "Basic dTpwdw=")], false),
        ("basic", vec![("Authorization", "Basic dTp4")], false),
        ("basic", vec![("Authorization", "Bearer dTpwdw==")], false),
        ("mtls", vec![], false),
        ("mtls", vec![("Authorization", "Bearer right"), ("X-Client-Cert", "sender.example")], false),
        ("github", vec![], false),
        ("github", vec![("X-Hub-Signature-256", "sha256=")], false),
        ("github", vec![("X-Hub-Signature-256", "sha256=00")], false),
        ("open", vec![], true),
        // A duplicated header is refused, whichever of the two is right (T-02).
        ("acr", vec![("Authorization", "Bearer right"), ("Authorization", "Bearer wrong")], false),
        ("acr", vec![("Authorization", "Bearer wrong"), ("Authorization", "Bearer right")], false),
        ("acr", vec![("Authorization", "Bearer right"), ("Authorization", "Bearer right")], false),
    ];
    let mut refused: Option<Reply> = None;
    for (source, headers, right) in cases {
        let reply = r.post(source, &headers, r#"{"action":"ping"}"#).await;
        assert_eq!(reply.status, if right { 202 } else { 401 }, "{source} {headers:?}");
        if !right {
            let mut same = reply;
            same.head = same.head.lines().filter(|l| !l.to_lowercase().starts_with("date:")).collect();
            assert_eq!(refused.get_or_insert_with(|| same.clone()), &same, "refusals must not differ");
        }
    }
    assert_eq!(r.dead(), 2, "two authentic bodies that are no Docker Hub event");
    assert!(r.counted(r#"tidewaiter_events_total{action="none",result="rejected",source="acr"}"#) > 5);
}

#[tokio::test]
async fn t01_a_refusal_does_not_wait_for_the_body() {
    let r = start().await;
    let began = Instant::now();
    let head = "POST /v1/events/acr HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\nAuthorization: Bearer wrong\r\n\r\n";
    assert_eq!(r.send(head.as_bytes()).await.status, 401);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn t01_a_signature_covers_the_body_as_sent() {
    let r = start().await;
    let body = r#"{"zen":"x"}"#;
    let sign = |body: &str| {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"example-shared-secret").unwrap();
        mac.update(body.as_bytes());
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    };
    let signature = sign(body);
    let ping = ("X-GitHub-Event", "ping");
    assert_eq!(r.post("github", &[ping, ("X-Hub-Signature-256", &signature)], body).await.status, 202);
    assert_eq!(r.post("github", &[ping, ("X-Hub-Signature-256", &signature)], r#"{"zen":"y"}"#).await.status, 401);
    assert_eq!(r.post("github", &[ping, ("X-Hub-Signature-256", &signature)], r#"{"zen": "x"}"#).await.status, 401);
}

#[tokio::test]
async fn t01_client_certificates_are_verified_and_named() {
    let r = start().await;
    let zot = [
        ("Ce-Type", "zotregistry.repository.created"),
        ("Ce-Id", "1"),
        ("Ce-Source", "zotregistry.dev"),
        ("Content-Type", "application/json"),
    ];
    let request = post("/v1/events/mtls", &zot, r#"{"name":"a"}"#);
    for (name, status) in [("sender.example", 202), ("sender.example.evil", 401)] {
        let client = connector(r.authority.roots(), VERSIONS, Some(r.authority.issue(name)));
        let mut stream = connect(&client, r.address).await.unwrap();
        assert_eq!(exchange(&mut stream, &request, QUIET).await[0].status, status, "{name}");
    }
    // Of another authority: refused before any byte of HTTP.
    let client = connector(r.authority.roots(), VERSIONS, Some(Authority::new().issue("sender.example")));
    if let Ok(mut stream) = connect(&client, r.address).await {
        assert_eq!(exchange(&mut stream, &request, QUIET).await, []);
    }
}

#[tokio::test]
async fn t04_bodies_that_lie_or_do_not_end() {
    let r = start_with(|l| l.connection.body_time = Duration::from_millis(150)).await;
    let head = "POST /v1/events/acr HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer right\r\n";
    for length in ["9223372036854775808", "9223372036854775807", "262145"] {
        let request = format!("{head}Content-Length: {length}\r\n\r\nabc");
        let reply = r.raw(request.as_bytes()).await;
        assert_eq!(reply[0].status, 413, "{length}");
        assert_eq!(reply[0].header("connection"), Some("close"));
    }
    // Shorter than it says: nobody waits for the rest for ever.
    let began = Instant::now();
    let reply = r.raw(format!("{head}Content-Length: 1000\r\n\r\nabc").as_bytes()).await;
    assert_eq!(reply[0].status, 408);
    assert!(began.elapsed() < Duration::from_secs(3));
    // Chunked without end.
    let mut stream = connect(&r.client(), r.address).await.unwrap();
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let (mut read, mut write) = tokio::io::split(stream);
    let writer = tokio::spawn(async move {
        let mut sent = 0u64;
        while sent < 1 << 30 && write.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len() as u64;
        }
        sent
    });
    assert_eq!(read_reply(&mut read).await.unwrap().status, 413);
    assert!(writer.await.unwrap() < 32 << 20, "the connection must be closed soon");
    assert_eq!((r.events(), r.dead()), (0, 0));
    assert_eq!(r.post("acr", &[RIGHT], &acr("1")).await.status, 202);
}

#[tokio::test]
async fn t04_all_bodies_together_are_bounded() {
    let r = start_with(|l| l.buffered_bytes = 1000).await;
    assert_eq!(r.post("acr", &[RIGHT], &"x".repeat(1001)).await.status, 503);
    assert_eq!(r.post("acr", &[RIGHT], &"x".repeat(1000)).await.status, 202, "what was held is given back");
}

#[tokio::test]
async fn t05_encoded_bodies_are_refused() {
    let r = start().await;
    for encoding in ["gzip", "zstd", "br", "deflate", "gzip, identity", "identity, gzip", "x"] {
        assert_eq!(r.post("acr", &[RIGHT, ("Content-Encoding", encoding)], "{}").await.status, 415, "{encoding}");
    }
    let twice = [RIGHT, ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")];
    assert_eq!(r.post("acr", &twice, "{}").await.status, 415);
}

#[tokio::test]
async fn t08_a_panic_is_confined_to_its_request() {
    let r = start().await;
    *r.store.append.lock().unwrap() = Append::Panic;
    let mut stream = connect(&r.client(), r.address).await.unwrap();
    let replies = exchange(&mut stream, &post("/v1/events/acr", &[RIGHT], &acr("1")), QUIET).await;
    assert_eq!(replies[0].status, 500);
    *r.store.append.lock().unwrap() = Append::Record;
    assert_eq!(r.post("acr", &[RIGHT], &acr("1")).await.status, 202);
    assert_eq!(r.counted("tidewaiter_panics_total"), 1);
}

#[tokio::test]
async fn t09_nothing_is_smuggled() {
    let r = start().await;
    let text = include_str!("data/smuggling.txt");
    let canary = "POST /v1/events/open HTTP/1.1\r\nHost: h\r\nContent-Length: 17\r\n\r\n{\"action\":\"ping\"}";
    let mut cases = 0;
    for case in text.split("\n---\n") {
        let (name, raw) = case.split_once('\n').unwrap();
        let Some(name) = name.strip_prefix("# ") else { continue };
        cases += 1;
        let raw = raw
            .replace('\n', "")
            .replace("\\r", "\r")
            .replace("\\n", "\n")
            .replace("\\0", "\0")
            .replace("\\t", "\t")
            .replace("\\x0b", "\x0b");
        let mut bytes = raw.into_bytes();
        let good = name.starts_with("good: ");
        bytes.extend_from_slice(canary.as_bytes());
        let replies = r.raw(&bytes).await;
        let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
        if good {
            assert_eq!(statuses, [202, 202], "{name}");
        } else {
            // At most one refusal, and the canary is never answered: the connection is at its end.
            assert!(statuses.len() <= 1 && statuses.iter().all(|s| *s >= 400), "{name}: {statuses:?}");
        }
    }
    assert!(cases >= 60, "{cases}");
    assert_eq!(r.events(), 0);
}

#[tokio::test]
async fn t10_slow_clients_are_shed_and_others_served() {
    let r = start_with(|l| {
        l.connection.handshake_time = Duration::from_millis(300);
        l.connection.head_time = Duration::from_millis(300);
        l.connection.body_time = Duration::from_millis(300);
        l.connection.idle_time = Duration::from_millis(600);
    })
    .await;
    let client = r.client();
    let began = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(tokio::net::TcpStream::connect(r.address).await.unwrap());
    }
    let mut slow = Vec::new();
    for part in [
        "",
        "POST /v1",
        "POST /v1/events/acr HTTP/1.1\r\nHost: h\r\n",
        "POST /v1/events/acr HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer right\r\nContent-Length: 5\r\n\r\nab",
    ] {
        for _ in 0..5 {
            let mut stream = connect(&client, r.address).await.unwrap();
            stream.write_all(part.as_bytes()).await.unwrap();
            slow.push(stream);
        }
    }
    assert_eq!(r.post("acr", &[RIGHT], &acr("1")).await.status, 202);
    let mut rest = Vec::new();
    for mut stream in stalled {
        let _ = stream.read_to_end(&mut rest).await;
    }
    for mut stream in slow {
        let _ = stream.read_to_end(&mut rest).await;
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    until("all are gone", || r.counted(r#"tidewaiter_connections{listener="events"}"#) == 0).await;
    assert!(r.counted(r#"tidewaiter_limit_reached_total{limit="handshake-time"}"#) >= 20);
    assert!(r.counted(r#"tidewaiter_limit_reached_total{limit="head-time"}"#) >= 10);

    // A connection may idle for longer than a head may take.
    let mut stream = connect(&client, r.address).await.unwrap();
    for id in ["2", "3"] {
        stream.write_all(&post("/v1/events/acr", &[RIGHT], &acr(id))).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.unwrap().status, 202);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test]
async fn t10_an_address_has_its_share_of_connections() {
    let r = start_with(|l| l.connection.connections_per_address = 3).await;
    let client = r.client();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(connect(&client, r.address).await.unwrap());
    }
    assert!(connect(&client, r.address).await.is_err());
    held.pop();
    until("a place is free", || r.counted(r#"tidewaiter_connections{listener="events"}"#) < 3).await;
    assert!(connect(&client, r.address).await.is_ok());
}

#[tokio::test]
async fn t11_only_tls_1_2_and_1_3_and_http_1_1() {
    let r = start().await;
    for version in VERSIONS {
        let client = connector(r.authority.roots(), &[version], None);
        let stream = connect(&client, r.address).await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        let name = format!("{suite:?}");
        assert!(name.contains("GCM") || name.contains("POLY1305"), "{name}");
    }
    // Plain http, an old hello (SSLv3/TLS 1.0 only) and garbage get no answer of HTTP.
    let tls_1_0 = hex::decode(
        "160301002f0100002b0301000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00000400 2f000a0100"
            .replace(' ', ""),
    )
    .unwrap();
    for bytes in [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), tls_1_0, vec![0; 100], vec![0x16; 100]] {
        let mut stream = tokio::net::TcpStream::connect(r.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(7), stream.read_to_end(&mut rest)).await.unwrap();
        assert!(!rest.starts_with(b"HTTP") && rest.len() < 64, "{rest:?}");
    }
    // A client that speaks only HTTP/2 is told so in the handshake (T-12).
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_root_certificates(r.authority.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(&TlsConnector::from(Arc::new(config)), r.address).await.is_err());
}

#[tokio::test]
async fn t13_unknown_paths_and_methods_make_no_series() {
    let r = start().await;
    let client = r.client();
    let mut stream = connect(&client, r.address).await.unwrap();
    let count = |r: &Running| r.metrics.encode().unwrap().lines().filter(|l| !l.starts_with('#')).count();
    let mut before = 0;
    for n in 0..3_000 {
        let request = format!(
            "M{n} /v1/events/p{n} HTTP/1.1\r\nHost: h\r\nA{n}: x\r\n\r\nM{n} /v1/events/acr HTTP/1.1\r\nHost: h{n}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let statuses = (read_reply(&mut stream).await.unwrap().status, read_reply(&mut stream).await.unwrap().status);
        assert_eq!(statuses, (404, 405));
        if n == 0 {
            before = count(&r);
        }
    }
    assert_eq!(count(&r), before);
}

#[tokio::test]
async fn t14_over_capacity_is_said_at_once() {
    let r = start_with(|l| l.in_flight = 2).await;
    *r.store.append.lock().unwrap() = Append::Wait(Duration::from_millis(1500));
    let client = r.client();
    let mut busy = Vec::new();
    for id in ["1", "2"] {
        let mut stream = connect(&client, r.address).await.unwrap();
        stream.write_all(&post("/v1/events/acr", &[RIGHT], &acr(id))).await.unwrap();
        busy.push(stream);
    }
    until("two are in flight", || r.store.waiting.load(Ordering::SeqCst) == 2).await;
    let mut stream = connect(&client, r.address).await.unwrap();
    let began = Instant::now();
    stream.write_all(&post("/v1/events/acr", &[RIGHT], &acr("3"))).await.unwrap();
    let reply = read_reply(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    for mut stream in busy {
        assert_eq!(read_reply(&mut stream).await.unwrap().status, 202);
    }
}

#[tokio::test]
async fn t16_forwarding_headers_change_nothing() {
    let r = start_with(|l| l.connection.connections_per_address = 1).await;
    let forged = [RIGHT, ("X-Forwarded-For", "10.9.8.7"), ("Forwarded", "for=10.9.8.7"), ("X-Real-IP", "10.9.8.7")];
    let mut stream = connect(&r.client(), r.address).await.unwrap();
    stream.write_all(&post("/v1/events/acr", &forged, &acr("1"))).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.unwrap().status, 202);
    assert!(connect(&r.client(), r.address).await.is_err(), "still the same address");
}

#[tokio::test]
async fn t17_event_host_is_never_contacted() {
    let r = start().await;
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap_address = trap.local_addr().unwrap();
    let touched = Arc::new(AtomicBool::new(false));
    let flag = touched.clone();
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            flag.store(true, Ordering::SeqCst);
        }
    });
    for host in ["contoso.azurecr.io", "CONTOSO.azurecr.io", "contoso-abc.azurecr.io"] {
        let body = acr(&format!("good-{host}")).replace("\"contoso.azurecr.io\"", &format!("\"{host}\""));
        assert_eq!(r.post("acr", &[RIGHT], &body).await.json()["recorded"], 1, "{host}");
    }
    assert!(r.store.events.lock().unwrap().iter().all(|e| e.repository.host.as_str() == "contoso.azurecr.io"));
    let before = r.events();
    let mut hosts: Vec<String> = [
        "evil.azurecr.io",
        "contoso.azurecr.io.evil.example",
        "evil-contoso.azurecr.io",
        "xcontoso.azurecr.io",
        "contoso.azurecr.io:443",
        "contoso.azurecr.io:5000",
        "contoso.azurecr.io.",
        "contoso.azurecr.i",
        "contoso.azurecr.io@evil.example",
        "evil.example@contoso.azurecr.io",
        "contoso.azurecr.io#",
        "contoso.azurecr.io?",
        "contoso.azurecr.io%2eevil.example",
        "contoso%2eazurecr.io",
        "azurecr.io",
        "*.azurecr.io",
        "*",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "metadata.google.internal",
        "0",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "xn--contoso-azurecr-io",
        "сontoso.azurecr.io",
        "contoso。azurecr。io",
        "contoso.azurecr.io\u{200b}",
        "contoso.azurecr.io\\u0000",
        " contoso.azurecr.io",
        "contoso.azurecr.io ",
        "http://contoso.azurecr.io@evil.example",
        "//evil.example",
        "\\\\evil.example",
        "contoso.azurecr.io\\\\.evil.example",
    ]
    .map(str::to_owned)
    .to_vec();
    hosts.push(trap_address.to_string());
    hosts.push(format!("localhost:{}", trap_address.port()));
    hosts.extend((0..160).map(|n| format!("contoso{n}.azurecr.io")));
    let mut stream = connect(&r.client(), r.address).await.unwrap();
    assert!(hosts.len() >= 200);
    for host in hosts {
        let body = acr(&host).replace("\"contoso.azurecr.io\"", &format!("\"{host}\""));
        stream.write_all(&post("/v1/events/acr", &[RIGHT], &body)).await.unwrap();
        let reply = read_reply(&mut stream).await.unwrap();
        assert_eq!((reply.status, reply.json()["dead"].as_u64()), (202, Some(1)), "{host}: {}", reply.body);
    }
    assert_eq!(r.events(), before);
    assert!(!touched.load(Ordering::SeqCst));
}

#[tokio::test]
async fn events_that_name_no_registry_are_of_the_configured_one() {
    let r = start().await;
    let body = r#"{"push_data":{"pushed_at":1700000000,"tag":"1.0"},"repository":{"repo_name":"iot/sensor"}}"#;
    let reply = r.post("hub?k=hub+secret", &[], body).await;
    let recorded = r.store.events.lock().unwrap().first().map(|e| e.repository.to_string());
    match recorded {
        Some(repository) => assert_eq!(repository, "contoso.azurecr.io/iot/sensor"),
        // Docker Hub's events name its own registry implicitly.
        None => assert_eq!(reply.json()["dead"], 1),
    }
}

#[tokio::test]
async fn handshakes_are_answered_exactly() {
    let r = start().await;
    let body = r#"[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"512d38b6","validationUrl":"https://x.eventgrid.azure.net/v"},"eventTime":"2026-11-22T10:00:00Z","topic":"/subscriptions/x","subject":""}]"#;
    let headers = [("aeg-event-type", "SubscriptionValidation"), ("Content-Type", "application/json; charset=utf-8")];
    assert_eq!(r.post("grid", &headers, body).await.status, 401, "the handshake is no authentication");
    let with = [headers[0], headers[1], ("Authorization", "grid")];
    let reply = r.post("grid", &with, body).await;
    assert_eq!((reply.status, reply.json()["validationResponse"].as_str()), (200, Some("512d38b6")));
    let options = b"OPTIONS /v1/events/grid HTTP/1.1\r\nHost: h\r\nWebHook-Request-Origin: eventgrid.azure.net\r\n\r\n";
    let reply = r.send(options).await;
    assert_eq!((reply.status, reply.header("webhook-allowed-origin")), (200, Some("eventgrid.azure.net")));
    assert_eq!(r.send(b"OPTIONS /v1/events/grid HTTP/1.1\r\nHost: h\r\n\r\n").await.status, 405);
    assert_eq!((r.events(), r.dead()), (0, 0));
}

#[tokio::test]
async fn a_gate_refuses_what_the_hook_refuses() {
    let r = start().await;
    let push = |tag: &str| {
        format!(
            r#"{{"id":"{tag}","kind":"manifest.push","timestamp":"2026-11-22T10:00:00Z","namespace":"iot/sensor","repository":"iot","reference":"{tag}","digest":"sha256:{}"}}"#,
            "0".repeat(64)
        )
    };
    let headers = [("Authorization", "Bearer angos"), ("X-Registry-Event", "manifest.push")];
    let reply = r.post("angos", &headers, &push("latest")).await;
    assert_eq!(reply.status, 403, "{reply:?}");
    assert_eq!(reply.json()["error"], "latest is \"moved\" byhand");
    assert_eq!(r.events(), 0);
    assert_eq!(r.post("angos", &headers, &push("1.0")).await.status, 202);
}

#[tokio::test]
async fn sources_are_replaced_while_connections_go_on() {
    let r = start().await;
    let mut stream = connect(&r.client(), r.address).await.unwrap();
    let request = post("/v1/events/acr", &[RIGHT], &acr("1"));
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.unwrap().status, 202);
    r.sources.replace(vec![source("acr", Format::Acr, header(&["Bearer newer"]))]);
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.unwrap().status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_certificates_rotate_under_load_without_a_failed_request() {
    let r = start().await;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(r.tls.clone().watch(stop.clone()));
    let failed = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (client, address, failed, done, stop) = (r.client(), r.address, failed.clone(), done.clone(), stop.clone());
        clients.push(tokio::spawn(async move {
            let request = post("/v1/events/acr", &[RIGHT], r#"{"action":"ping"}"#);
            while !stop.is_cancelled() {
                let Ok(mut stream) = connect(&client, address).await else {
                    failed.fetch_add(1, Ordering::SeqCst);
                    continue;
                };
                for _ in 0..3 {
                    let sent = stream.write_all(&request).await.is_ok();
                    match read_reply(&mut stream).await {
                        Some(reply) if sent && reply.status == 202 => done.fetch_add(1, Ordering::SeqCst),
                        _ => failed.fetch_add(1, Ordering::SeqCst),
                    };
                }
            }
        }));
    }
    let reloads = r#"tidewaiter_tls_certificate_reloads_total{listener="events",result="ok"}"#;
    for n in 0..100 {
        let (certificate, key) = r.authority.issue("localhost");
        let path = |name: &str| r.directory.path().join(name);
        if n % 10 == 0 {
            // As a cluster's secret volumes do it: a link to another directory is swapped.
            let version = path(&format!("v{n}"));
            std::fs::create_dir(&version).unwrap();
            write_private(&version.join("tls.crt"), &certificate);
            write_private(&version.join("tls.key"), &key);
            for name in ["tls.key", "tls.crt"] {
                std::os::unix::fs::symlink(version.join(name), path("link")).unwrap();
                std::fs::rename(path("link"), path(name)).unwrap();
            }
        } else {
            for name in ["tls.crt", "tls.key"] {
                let _ = std::fs::remove_file(path(name));
            }
            write_private(&path("tls.key"), &key);
            write_private(&path("tls.crt"), &certificate);
        }
        let (before, requests) = (r.counted(reloads), done.load(Ordering::SeqCst));
        if n % 20 == 0 {
            until("the certificate was replaced", || r.counted(reloads) >= before.max(2)).await;
        } else {
            let _ = r.tls.reload();
        }
        until("requests go on", || done.load(Ordering::SeqCst) >= requests + 12).await;
    }
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    watching.await.unwrap();
    assert_eq!(failed.load(Ordering::SeqCst), 0);
    assert!(done.load(Ordering::SeqCst) > 1_000, "{done:?}");
    assert!(r.counted(reloads) > 90);
}

#[tokio::test]
async fn t65_a_pair_that_does_not_match_keeps_the_old_one() {
    let r = start().await;
    let stop = CancellationToken::new();
    tokio::spawn(r.tls.clone().watch(stop.clone()));
    let path = |name: &str| r.directory.path().join(name);
    let good = std::fs::read_to_string(path("tls.crt")).unwrap();
    let failures = r#"tidewaiter_tls_certificate_reloads_total{listener="events",result="failed"}"#;
    let (other, key) = r.authority.issue("localhost");
    for (n, bad) in [other.as_str(), &good[..good.len() / 2], "", "garbage"].into_iter().enumerate() {
        assert!(r.tls.reload().is_err() || n == 0);
        write_private(&path("tls.crt"), bad);
        assert!(r.tls.reload().is_err(), "{bad}");
        assert_eq!(r.post("acr", &[RIGHT], r#"{"action":"ping"}"#).await.status, 202);
    }
    let began = Instant::now();
    until("the fault is counted", || r.counted(failures) >= 1).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    write_private(&path("tls.key"), &key);
    write_private(&path("tls.crt"), &other);
    until("the good pair is taken", || matches!(r.tls.reload(), Ok(false))).await;
    assert_eq!(r.post("acr", &[RIGHT], r#"{"action":"ping"}"#).await.status, 202);

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path("tls.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = r.tls.reload().unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    stop.cancel();
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_accepts_no_more() {
    let r = start().await;
    *r.store.append.lock().unwrap() = Append::Wait(Duration::from_millis(500));
    let client = r.client();
    let mut idle = connect(&client, r.address).await.unwrap();
    let mut busy = connect(&client, r.address).await.unwrap();
    busy.write_all(&post("/v1/events/acr", &[RIGHT], &acr("1"))).await.unwrap();
    until("it is in flight", || r.store.waiting.load(Ordering::SeqCst) == 1).await;
    r.stop.cancel();
    let reply = read_reply(&mut busy).await.unwrap();
    assert_eq!(reply.status, 202);
    tokio::time::timeout(Duration::from_secs(3), r.served).await.expect("serving ends").unwrap();
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap_or(0), 0);
    assert!(connect(&client, r.address).await.is_err());
    assert_eq!(r.store.events.lock().unwrap().len(), 1);
}
