//! Every format through the listener, with every payload there is: what is recorded is what is expected, and the
//! hostile cases that do not depend on a format meet every one of them.

#[expect(dead_code, reason = "what only the tests of the admin listener need")]
mod common;
#[expect(dead_code, reason = "what only the tests of the listener itself need")]
#[path = "common/sender.rs"]
mod sender;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Memory, Reply, read_reply};
use secrecy::SecretString;
use sender::{Authority, connect, connector, write_private};
use serde_json::{Value, json};
use tidewaiter::clock::SystemClock;
use tidewaiter::event::authenticity::{Credential, Secrets};
use tidewaiter::event::{Format, Headers, Request};
use tidewaiter::image::Host;
use tidewaiter::intake::{
    Auth, CertificateSource, HookFuture, Hooks, Intake, Limits, NoCertificate, Retried, Source, Sources,
};
use tidewaiter::listen::{Tls, TlsFiles};
use tidewaiter::metrics::{Listener, Metrics, Names};
use tidewaiter::store::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The registry of events that name none.
const DEFAULT: &str = "configured.example";
/// The header of the secret, and the secret: of each format its own, with a common beginning.
const HEADER: &str = "x-tidewaiter-test";

fn secret(format: Format) -> String {
    format!("a secret of {format}")
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events")
}

/// A payload as it is sent, and what it means.
struct Sample {
    name: String,
    format: Format,
    method: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    expected: Value,
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for format in Format::ALL {
        let folder = data().join(format.as_str());
        let text = fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        for (name, expected) in expected {
            let lines = fs::read_to_string(folder.join(format!("{name}.http-headers"))).unwrap();
            let mut method = "POST".to_owned();
            let mut headers = Vec::new();
            for line in lines.lines() {
                if let Some(given) = line.strip_prefix(":method:") {
                    method = given.trim().to_owned();
                } else if let Some((name, value)) = line.split_once(':').filter(|(name, _)| !name.is_empty()) {
                    headers.push((name.to_owned(), value.trim().to_owned()));
                }
            }
            let body = fs::read(folder.join(format!("{name}.json"))).unwrap_or_default();
            samples.push(Sample { name: format!("{format}/{name}"), format: *format, method, headers, body, expected });
        }
    }
    samples
}

impl Sample {
    fn bytes(&self, credential: &[(&str, &str)]) -> Vec<u8> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        request(&self.method, self.format, &[&headers, credential].concat(), &self.body)
    }

    /// The events it means, with the registry that each will have.
    fn events(&self) -> Vec<Value> {
        let mut events = self.expected["events"].as_array().cloned().unwrap_or_default();
        for event in &mut events {
            if event["registry"].is_null() {
                event["registry"] = json!(DEFAULT);
            }
        }
        events
    }

    /// How many of its items are of no interest, and how many are faults.
    fn rest(&self) -> (u64, u64) {
        if self.expected.get("error").is_some() {
            return (0, 1);
        }
        const FAULTS: [&str; 6] =
            ["malformed", "contradictory", "invalid-registry", "invalid-repository", "invalid-tag", "invalid-digest"];
        let ignored = self.expected["ignored"].as_array().into_iter().flatten();
        let faults = ignored.clone().filter(|i| FAULTS.contains(&i["reason"].as_str().unwrap())).count() as u64;
        (ignored.count() as u64 - faults, faults)
    }

    /// Whether a second delivery can be told from a second push.
    fn repeats_are_known(&self) -> bool {
        let lines: String = self.headers.iter().map(|(n, v)| format!("{n}: {v}\n")).collect();
        let headers = Headers::from_lines(&lines).unwrap();
        let parsed = self.format.parse(&Request { method: "POST", headers: &headers, body: &self.body }).unwrap();
        parsed.events.iter().all(|event| event.id.is_some() || event.at.is_some())
    }
}

fn request(method: &str, format: Format, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} /v1/events/{format} HTTP/1.1\r\nHost: localhost\r\n");
    text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.into_bytes(), body.to_vec()].concat()
}

/// A listener with a source of each format, named like it.
struct Running {
    address: SocketAddr,
    store: Arc<Memory>,
    sources: Sources,
    authority: Authority,
    _directory: tempfile::TempDir,
}

fn source(format: Format, registries: &[Host]) -> Source {
    let secrets = Secrets::new(vec![SecretString::from(secret(format))]).unwrap();
    Source {
        name: format.as_str().into(),
        format,
        auth: Auth::Secret(Credential::Header { name: HEADER.into(), secrets }),
        registry: Some(DEFAULT.parse().unwrap()),
        registries: registries.iter().map(|host| (host.clone(), host.clone())).collect::<HashMap<_, _>>(),
        admission: false,
    }
}

/// The registries that samples name.
fn named() -> Vec<Host> {
    let events = samples().iter().flat_map(Sample::events).collect::<Vec<_>>();
    events.iter().map(|event| event["registry"].as_str().unwrap().parse().unwrap()).collect()
}

async fn start(registries: &[Host]) -> Running {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (certificate, key) = authority.issue("localhost");
    write_private(&path("tls.crt"), &certificate);
    write_private(&path("tls.key"), &key);
    let metrics = Arc::new(Metrics::new().unwrap());
    let names = Format::ALL.iter().map(|format| format.to_string()).collect();
    metrics.announce(Names { sources: names, ..Names::default() });
    let clock = Arc::new(SystemClock);
    let files =
        TlsFiles { certificate: path("tls.crt"), key: path("tls.key"), client_ca: None, allow_readable_key: false };
    let tls = Tls::load(files, Listener::Events, metrics.clone(), clock.clone()).unwrap();
    let store = Arc::new(Memory::default());
    let sources = Sources::new(Format::ALL.iter().map(|format| source(*format, registries)).collect(), metrics);
    let stop = CancellationToken::new();
    let mut limits = Limits::default();
    // Every request here is a connection of its own, all from one address.
    limits.connection.connections_per_address = 8_192;
    let intake = Intake::new(sources.clone(), limits, Hooks::default(), store.clone(), clock, CancellationToken::new());
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(intake.serve(socket, Some(tls), stop));
    Running { address, store, sources, authority, _directory: directory }
}

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

impl Running {
    async fn connect(&self) -> Stream {
        let versions = &[&rustls::version::TLS13];
        connect(&connector(self.authority.roots(), versions, None), self.address).await.unwrap()
    }

    async fn send(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        // An answer may come before the last byte was taken.
        let _ = stream.write_all(bytes).await;
        let reply = tokio::time::timeout(Duration::from_secs(20), read_reply(&mut stream)).await;
        reply.expect("an answer in time").expect("an answer")
    }

    async fn deliver(&self, sample: &Sample) -> Reply {
        self.send(&sample.bytes(&[(HEADER, &secret(sample.format))])).await
    }

    /// What was recorded since the last time, as the published shape has it.
    fn recorded(&self) -> Vec<Value> {
        std::mem::take(&mut *self.store.events.lock().unwrap()).iter().map(shape).collect()
    }

    fn dead(&self) -> usize {
        self.store.dead.lock().unwrap().len()
    }

    fn forget(&self) {
        self.store.events.lock().unwrap().clear();
        self.store.dead.lock().unwrap().clear();
        self.store.keys.lock().unwrap().clear();
    }
}

fn shape(incoming: &Incoming) -> Value {
    let event = &incoming.event;
    json!({
        "action": event.action.as_str(),
        "registry": incoming.repository.host.as_str(),
        "repository": incoming.repository.name.as_str(),
        "tag": event.tag.as_ref().map(|tag| tag.as_str()),
        "digest": event.digest.as_ref().map(|digest| digest.as_str()),
    })
}

fn tally(recorded: u64, duplicate: u64, ignored: u64, dead: u64) -> Value {
    json!({ "recorded": recorded, "duplicate": duplicate, "ignored": ignored, "dead": dead })
}

#[tokio::test]
async fn every_payload_is_recorded_as_expected() {
    let r = start(&named()).await;
    let all = samples();
    assert!(all.len() > 150, "{} samples", all.len());
    for sample in all {
        r.forget();
        let reply = r.deliver(&sample).await;
        let (events, (ignored, dead)) = (sample.events(), sample.rest());
        assert_eq!(r.recorded(), events, "{}", sample.name);
        let handshake = &sample.expected["handshake"];
        let confirmation = handshake.get("then").is_some();
        // A subscription that nobody here confirms is kept for people.
        let kept = dead > 0 && sample.method == "POST";
        assert_eq!(r.dead(), usize::from(kept || confirmation), "{}", sample.name);
        if let Some(status) = handshake.get("status") {
            assert_eq!(json!(reply.status), *status, "{}", sample.name);
            for (name, value) in handshake["headers"].as_object().into_iter().flatten() {
                assert_eq!(reply.header(name), value.as_str(), "{}", sample.name);
            }
            if let Some(body) = handshake.get("body") {
                assert_eq!(reply.json(), *body, "{}", sample.name);
            }
        } else if sample.method == "OPTIONS" {
            assert_eq!(reply.status, 405, "{}: consent to nobody", sample.name);
        } else {
            let dead = if confirmation { 1 } else { dead };
            let ignored = if confirmation { 0 } else { ignored };
            assert_eq!(
                (reply.status, reply.json()),
                (202, tally(events.len() as u64, 0, ignored, dead)),
                "{}",
                sample.name
            );
        }
        if kept {
            assert_eq!(&*r.store.dead.lock().unwrap()[0].body, sample.body, "{}: the raw bytes", sample.name);
        }
    }
}

/// By the sender's id where it has one, by content and time where not. Two pushes told in the same bytes and
/// without a time are two: a push is never taken for a copy of another.
#[tokio::test]
async fn t03_a_second_delivery_is_a_duplicate_for_every_format() {
    let r = start(&named()).await;
    let mut known = 0;
    for sample in samples().iter().filter(|sample| !sample.events().is_empty()) {
        r.forget();
        let events = sample.events().len() as u64;
        let (ignored, dead) = sample.rest();
        assert_eq!(r.deliver(sample).await.json(), tally(events, 0, ignored, dead), "{}", sample.name);
        for _ in 0..4 {
            let again = r.deliver(sample).await.json();
            if sample.repeats_are_known() {
                known += 1;
                assert_eq!(again, tally(0, events, ignored, dead), "{}", sample.name);
            } else {
                assert_eq!(again["recorded"].as_u64().unwrap() + again["duplicate"].as_u64().unwrap(), events);
            }
        }
        let recorded = r.recorded();
        assert!(recorded.iter().all(|event| sample.events().contains(event)), "{}", sample.name);
    }
    assert!(known > 200, "{known}");
}

#[tokio::test]
async fn t01_t02_no_format_is_let_in_without_its_own_credential() {
    let r = start(&named()).await;
    for format in Format::ALL {
        let all = samples();
        let sample = all.iter().find(|s| s.format == *format && !s.events().is_empty()).unwrap();
        let right = secret(*format);
        let other = secret(if *format == Format::Acr { Format::Zot } else { Format::Acr });
        let (prefix, suffix, padded) = (&right[..right.len() - 1], format!("{right}x"), format!("Bearer {right}"));
        let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
            ("none", vec![]),
            ("empty", vec![(HEADER, "")]),
            ("wrong", vec![(HEADER, "wrong")]),
            ("a prefix", vec![(HEADER, prefix)]),
            ("with a suffix", vec![(HEADER, &suffix)]),
            ("with a scheme", vec![(HEADER, &padded)]),
            ("another source's", vec![(HEADER, &other)]),
            ("in another header", vec![("x-tidewaiter-tests", &right)]),
            ("twice", vec![(HEADER, &right), (HEADER, &right)]),
            ("twice, wrong first", vec![(HEADER, "wrong"), (HEADER, &right)]),
            ("in another case", vec![(HEADER, "A SECRET")]),
        ];
        let mut answers = Vec::new();
        for (what, credential) in cases {
            let reply = r.send(&sample.bytes(&credential)).await;
            assert_eq!(reply.status, 401, "{format}: {what}");
            answers.push((reply.body.clone(), reply.header("www-authenticate").map(str::to_owned)));
        }
        assert!(answers.windows(2).all(|w| w[0] == w[1]), "{format}: every refusal is the same");
        assert!(r.recorded().is_empty() && r.dead() == 0, "{format}");
        assert_eq!(r.deliver(sample).await.status, 202, "{format}");
        r.forget();
    }
}

#[tokio::test]
async fn t04_no_format_takes_more_than_its_limit() {
    let r = start(&named()).await;
    for format in Format::ALL {
        let right = secret(*format);
        let limit = format.body_bytes_max();
        let secret = (HEADER, right.as_str());
        let large = request("POST", *format, &[secret], &b" ".repeat(limit + 1));
        assert_eq!(r.send(&large).await.status, 413, "{format}");
        let whole = request("POST", *format, &[secret], &b" ".repeat(limit));
        assert_eq!(r.send(&whole).await.status, 202, "{format}: kept as a dead letter");
        for length in ["9223372036854775808", "18446744073709551615", "99999999999"] {
            let head = format!(
                "POST /v1/events/{format} HTTP/1.1\r\nHost: h\r\n{HEADER}: {right}\r\nContent-Length: {length}\r\n\r\n{{}}"
            );
            let reply = r.send(head.as_bytes()).await;
            assert!(matches!(reply.status, 400 | 413), "{format}: {length}: {}", reply.status);
        }
        // A body without an end is given up at the limit.
        let mut stream = r.connect().await;
        let head = format!(
            "POST /v1/events/{format} HTTP/1.1\r\nHost: h\r\n{HEADER}: {right}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        for _ in 0..(limit / 0x10000 + 8) {
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let reply = tokio::time::timeout(Duration::from_secs(20), read_reply(&mut stream)).await.unwrap();
        assert_eq!(reply.expect("an answer").status, 413, "{format}");
        // A body that ends too soon is no body.
        let mut stream = r.connect().await;
        let head = format!(
            "POST /v1/events/{format} HTTP/1.1\r\nHost: h\r\n{HEADER}: {right}\r\nContent-Length: 100\r\n\r\n{{}}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(read_reply(&mut stream).await.is_none_or(|reply| reply.status >= 400), "{format}");
        assert!(r.recorded().is_empty(), "{format}");
    }
}

#[tokio::test]
async fn t05_no_format_takes_an_encoded_body() {
    let r = start(&named()).await;
    for format in Format::ALL {
        let right = secret(*format);
        for encoding in
            ["gzip", "GZIP", "deflate", "br", "zstd", "x-gzip", "gzip, gzip", "identity, gzip", "aws-chunked"]
        {
            let headers = [(HEADER, right.as_str()), ("Content-Encoding", encoding)];
            let reply = r.send(&request("POST", *format, &headers, b"\x1f\x8b\x08\0\0\0\0\0")).await;
            assert_eq!(reply.status, 415, "{format}: {encoding}");
        }
        assert!(r.recorded().is_empty() && r.dead() == 0, "{format}");
    }
}

#[tokio::test]
async fn t06_t07_t08_hostile_bodies_are_kept_as_dead_letters_by_every_format() {
    let r = start(&named()).await;
    let bodies: Vec<Vec<u8>> = vec![
        b"[".repeat(200_000),
        b"{\"a\":".repeat(40_000),
        b"1e999999".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{\"action\":\"\xff\"}".to_vec(),
        b"{\"action\":\"\xc0\xaf\"}".to_vec(),
        b"{\"a\":1,\"a\":2}\0".to_vec(),
        b"{} x".to_vec(),
        b"<event/>".to_vec(),
        b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
        Vec::new(),
    ];
    for format in Format::ALL {
        r.forget();
        let right = secret(*format);
        // What a body is, some senders say in headers: those of an event.
        let all = samples();
        let model = all.iter().find(|s| s.format == *format && !s.events().is_empty()).unwrap();
        for (n, body) in bodies.iter().enumerate() {
            let headers = model.headers.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let headers: Vec<(&str, &str)> = headers.chain([(HEADER, right.as_str())]).collect();
            let reply = r.send(&request("POST", *format, &headers, body)).await;
            assert_eq!((reply.status, reply.json()), (202, tally(0, 0, 0, 1)), "{format}: body {n}");
            assert_eq!(&*r.store.dead.lock().unwrap().last().unwrap().body, &body[..], "{format}: body {n}");
        }
        assert!(r.recorded().is_empty(), "{format}");
        let kept = format!("{:?}", r.store.dead.lock().unwrap().iter().map(|d| &d.headers).collect::<Vec<_>>());
        assert!(!kept.contains(&right) && !kept.to_ascii_lowercase().contains("authorization"), "{format}");
    }
}

/// Whatever registry an event names: unless it is one of the source's, the event is kept for people, nothing is
/// recorded under the name, and reading it again after the registry was added gives what was expected at first.
#[tokio::test]
async fn t17_t18_events_of_foreign_registries_are_kept_until_the_registry_is_added() {
    let r = start(&[]).await;
    let wanted: Vec<Sample> = samples()
        .into_iter()
        .filter(|s| s.expected["events"].as_array().is_some_and(|e| e.iter().any(|e| !e["registry"].is_null())))
        .collect();
    assert!(wanted.len() > 50, "{} samples", wanted.len());
    for sample in wanted {
        r.forget();
        r.sources.replace(vec![source(sample.format, &[])]);
        assert_eq!(r.deliver(&sample).await.status, 202, "{}", sample.name);
        let nameless = sample.expected["events"].as_array().unwrap().iter().filter(|e| e["registry"].is_null()).count();
        assert_eq!((r.recorded().len(), r.dead()), (nameless, 1), "{}", sample.name);
        assert_eq!(r.sources.retry(&*r.store).await.unwrap(), Retried { kept: 1, ..Retried::default() });

        r.sources.replace(vec![source(sample.format, &named())]);
        r.store.keys.lock().unwrap().clear();
        let retried = r.sources.retry(&*r.store).await.unwrap();
        // What else is wrong with a body keeps it where it is.
        if sample.rest().1 > 0 {
            assert_eq!(retried.kept, 1, "{}", sample.name);
            continue;
        }
        let events = sample.events();
        let expected = Retried { read: 1, recorded: events.len() as u64, kept: 0 };
        assert_eq!((retried, r.dead()), (expected, 0), "{}", sample.name);
        assert_eq!(r.recorded(), events, "{}", sample.name);
    }
}

/// Certificates as they would be fetched, or none while the service is away.
struct Certificate {
    away: bool,
}

impl CertificateSource for Certificate {
    fn certificate<'a>(&'a self, url: &'a str) -> HookFuture<'a, Result<Arc<[u8]>, NoCertificate>> {
        assert!(url.starts_with("https://sns.eu-west-1.amazonaws.com/"), "{url}");
        let path = data().join("../authenticity/sns-signing.der");
        let away = self.away;
        Box::pin(async move { if away { Err(NoCertificate::Unavailable) } else { Ok(fs::read(path).unwrap().into()) } })
    }
}

#[tokio::test]
async fn t01_sns_messages_are_let_in_by_their_signature_and_topic() {
    let r = start(&named()).await;
    let topic = "arn:aws:sns:eu-west-1:123456789012:ecr-events";
    let with_all = |topics: &[&str], away: bool| {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let auth = Auth::Sns { topics, certificates: Arc::new(Certificate { away }) };
        r.sources.replace(vec![Source { auth, ..source(Format::Ecr, &named()) }]);
    };
    let with = |topics: &[&str]| with_all(topics, false);
    let body = |name: &str| fs::read(data().join(format!("../authenticity/{name}.json"))).unwrap();
    let send = async |body: &[u8]| r.send(&request("POST", Format::Ecr, &[("Content-Type", "text/plain")], body)).await;
    let names = ["sns-notification.v1", "sns-notification.v2", "sns-notification-subject.v2"];
    for name in names {
        with(&["arn:aws:sns:eu-west-1:123456789012:other", topic]);
        let reply = send(&body(name)).await;
        assert_eq!(reply.status, 202, "{name}: {reply:?}");
        let mut changed: Value = serde_json::from_slice(&body(name)).unwrap();
        changed["MessageId"] = json!("another");
        assert_eq!(send(changed.to_string().as_bytes()).await.status, 401, "{name}");
        changed = serde_json::from_slice(&body(name)).unwrap();
        changed["SigningCertURL"] = json!("https://evil.example/a.pem");
        assert_eq!(send(changed.to_string().as_bytes()).await.status, 401, "{name}");
        with(&["arn:aws:sns:eu-west-1:123456789012:other"]);
        assert_eq!(send(&body(name)).await.status, 401, "{name}: another topic is signed as well");
    }
    // The service takes 401 as final: what cannot be checked now is to come again.
    with_all(&[topic], true);
    let reply = send(&body(names[0])).await;
    assert!(reply.status == 503 && reply.header("retry-after").is_some(), "{reply:?}");
    with(&[topic]);
    assert_eq!(send(b"{}").await.status, 401);
    assert_eq!(send(&body("sns-subscription-confirmation.v1")).await.status, 202);
    assert!(r.store.dead.lock().unwrap()[0].fault.contains("SubscribeURL"));
}

/// What users read of each sender is there, and says the four things.
#[test]
fn every_format_has_its_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let index = fs::read_to_string(root.join("docs/registries/README.md")).unwrap();
    for format in Format::ALL {
        let page = fs::read_to_string(root.join(format!("docs/registries/{format}.md"))).unwrap();
        for part in
            ["What it sends", "What it cannot tell", "How tidewaiter makes up for it", "Pointing its webhook here"]
        {
            assert!(page.contains(&format!("## {part}\n")), "{format}: {part}");
        }
        let register = format!("src/cli/register/{format}.md");
        assert!(page.contains(&register) && root.join(&register).is_file(), "{format}");
        assert!(index.contains(&format!("({format}.md)")), "{format}");
    }
}
