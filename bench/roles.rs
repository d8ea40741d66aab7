//! The other side of a measurement, each in a process of its own on a core of its own: a bare server, the listener
//! without what comes after it, and the load.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::SecretString;
use serde_json::{Value, json};
use tidewaiter::clock::SystemClock;
use tidewaiter::event::Format;
use tidewaiter::event::authenticity::{Credential, Secrets};
use tidewaiter::image::Host;
use tidewaiter::intake::{Auth, Hooks, Intake, Limits, Source, Sources};
use tidewaiter::listen::{Tls, TlsFiles};
use tidewaiter::metrics::{Listener, Metrics, Names};
use tidewaiter::store::embedded::{EmbeddedStore, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

/// What senders carry; worth nothing outside a bench.
pub const SECRET: &str = "Bearer a-bench-has-no-secrets";
/// The core of servers and that of load.
pub const SERVER_CORE: &str = "0";
pub const LOAD_CORE: &str = "1";

/// A process that ends with its guard.
pub struct Process(Child);

impl Process {
    /// Starts a program pinned to a core, in `folder`, where its words go to a file.
    pub fn pinned(core: &str, program: &Path, arguments: &[&str], folder: &Path) -> anyhow::Result<Process> {
        let name = format!("{}.log", arguments.get(1).unwrap_or(&"program").replace('/', "-"));
        let log = std::fs::File::options().create(true).append(true).open(folder.join(name))?;
        let child = Command::new("taskset")
            .args(["-c", core])
            .arg(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("taskset (util-linux) does not start")?;
        Ok(Process(child))
    }

    /// This program in a role.
    pub fn role(core: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<Process> {
        Process::pinned(core, &std::env::current_exe()?, &[&["role"], arguments].concat(), folder)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Processor seconds used so far, all threads and waited-for children (proc(5): ticks of 10 ms).
    pub fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = after.split(' ').skip(11).take(4).filter_map(|t| t.parse::<u64>().ok()).sum();
        ticks as f64 / 100.0
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }

    /// Waits until it accepts connections.
    pub fn accepts(&mut self, port: u16) -> anyhow::Result<()> {
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.0.try_wait()? {
                bail!("a server ended ({status}) before it accepted anything");
            }
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(20), "a server accepts nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a round of load came to.
pub struct Load {
    /// Answers a second.
    pub rate: f64,
    /// Answers.
    pub count: f64,
    /// Seconds at the median and at the 99th percentile.
    pub p50: f64,
    pub p99: f64,
}

/// Runs a round of load on the load's core.
pub fn load(port: u16, fresh: bool, connections: usize, seconds: f64, folder: &Path) -> anyhow::Result<Load> {
    let arguments = [port.to_string(), if fresh { "fresh" } else { "keep" }.to_owned(), connections.to_string()];
    let output = Command::new("taskset")
        .args(["-c", LOAD_CORE])
        .arg(std::env::current_exe()?)
        .args(["role", "load"])
        .args(arguments)
        .arg(seconds.to_string())
        .arg(folder.join("tls.crt"))
        .stderr(Stdio::inherit())
        .output()?;
    let said: Value = serde_json::from_slice(&output.stdout).context("the load says nothing")?;
    let field = |name: &str| said[name].as_f64().unwrap_or(f64::NAN);
    anyhow::ensure!(field("refused") == 0.0, "{} requests were refused: {}", field("refused"), said["refusal"]);
    Ok(Load { rate: field("rate"), count: field("count"), p50: field("p50"), p99: field("p99") })
}

/// Plays a role.
pub fn play(arguments: &[String]) -> anyhow::Result<()> {
    let text: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match text.as_slice() {
        ["bare", port, certificate, key] => server()?.block_on(bare(port.parse()?, certificate, key)),
        ["intake", port, certificate, key, store] => {
            server()?.block_on(intake(port.parse()?, certificate, key, Path::new(store)))
        }
        ["fill", store, tags] => crate::state::fill_and_wait(Path::new(store), tags.parse()?),
        ["load", port, mode, connections, seconds, certificate] => {
            let seconds = Duration::from_secs_f64(seconds.parse()?);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let job = work(port.parse()?, *mode == "fresh", connections.parse()?, seconds, certificate);
            println!("{}", runtime.block_on(job)?);
            Ok(())
        }
        ["hold", port, connections, certificate] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(hold(port.parse()?, connections.parse()?, certificate))
        }
        other => bail!("there is no role {other:?}"),
    }
}

/// A server that reads the body and answers 202: what hyper and rustls cost by themselves.
async fn bare(port: u16, certificate: &str, key: &str) -> anyhow::Result<()> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = socket.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let stream = acceptor.accept(stream).await?;
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let read = request.into_body().collect().await;
                let body: &[u8] = if read.is_ok() { br#"{"recorded":1}"# } else { b"" };
                let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body)));
                *answer.status_mut() = StatusCode::ACCEPTED;
                Ok::<_, Infallible>(answer)
            });
            let connection = hyper::server::conn::http1::Builder::new();
            // A client that goes away is no fault.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            Ok::<_, std::io::Error>(())
        });
    }
}

/// The listener and the store as the daemon wires them, with nothing that takes events from the store: what
/// acknowledging costs, apart from judging.
async fn intake(port: u16, certificate: &str, key: &str, store: &Path) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    metrics.announce(Names { sources: ["acr".to_owned()].into(), ..Names::default() });
    let clock = Arc::new(SystemClock);
    let files =
        TlsFiles { certificate: certificate.into(), key: key.into(), client_ca: None, allow_readable_key: false };
    let tls = Tls::load(files, Listener::Events, metrics.clone(), clock.clone())?;
    let options = Options { backlog_events: u64::MAX, backlog_bytes: u64::MAX, ..Options::default() };
    let store = Arc::new(EmbeddedStore::open(store, options)?);
    let registry: Host = "contoso.azurecr.io".parse()?;
    let source = Source {
        name: "acr".into(),
        format: Format::Acr,
        auth: Auth::Secret(Credential::Header {
            name: "Authorization".into(),
            secrets: Secrets::new(vec![SecretString::from(SECRET)])?,
        }),
        registry: Some(registry.clone()),
        registries: HashMap::from([(registry.clone(), registry)]),
        admission: false,
    };
    let mut limits = Limits::default();
    // All load comes from one address here.
    limits.connection.connections_per_address = limits.connection.connections;
    let stop = CancellationToken::new();
    let sources = Sources::new(vec![source], metrics);
    let intake = Intake::new(sources, limits, Hooks::default(), store, clock, stop.clone());
    intake.serve(TcpListener::bind(("127.0.0.1", port)).await?, Some(tls), stop).await;
    Ok(())
}

/// One request with an event of 1 KiB, made beforehand but for its number.
struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
}

const BODY_BYTES: usize = 1_024;
const NUMBER: &str = "00000000";

impl Template {
    /// Events of `contoso.azurecr.io`, as its webhooks send them, in a repository of this connection.
    fn new(connection: usize, run: u32, fresh: bool) -> Template {
        let event = |agent: &str| {
            json!({
                "id": format!("{run:08x}-{connection:04x}-4f86-9d0e-1a4b{NUMBER}"),
                "timestamp": "2026-02-11T09:24:13.104937442Z",
                "action": "push",
                "target": {
                    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                    "size": 1782,
                    "digest": "sha256:5fc3888886893874942db19acb6b666d6f242d4fc11039dddf0dcb917bf634d6",
                    "length": 1782,
                    "repository": format!("iot/sensor-{connection}"),
                    "tag": format!("1.0.{NUMBER}"),
                },
                "request": {
                    "id": "8d1f5a52-6a0f-4c40-9d0b-6a9d5f4e7a10",
                    "host": "contoso.azurecr.io",
                    "method": "PUT",
                    "useragent": agent,
                },
            })
            .to_string()
        };
        let agent = "docker/27.3.1 ".repeat(60);
        let body = event(&agent[..BODY_BYTES.saturating_sub(event("").len())]);
        let close = if fresh { "Connection: close\r\n" } else { "" };
        let head = format!(
            "POST /v1/events/acr HTTP/1.1\r\nHost: localhost\r\nAuthorization: {SECRET}\r\nContent-Type: application/json\r\nUser-Agent: AzureContainerRegistry/1.0\r\n{close}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let text = head + &body;
        let numbers = text.match_indices(NUMBER).map(|(at, _)| at).collect();
        Template { bytes: text.into_bytes(), numbers }
    }

    fn numbered(&mut self, number: u32) -> &[u8] {
        // A tag's last part has no leading zeros to lose: it begins with a one.
        let text = format!("{:08}", 10_000_000 + number);
        for at in &self.numbers {
            self.bytes[*at..*at + text.len()].copy_from_slice(text.as_bytes());
        }
        &self.bytes
    }
}

/// Closed loop: every connection sends its next event when it has the answer to the last one.
async fn work(port: u16, fresh: bool, connections: usize, time: Duration, certificate: &str) -> anyhow::Result<Value> {
    let connector = connector(certificate)?;
    let run = u32::try_from(jiff::Timestamp::now().as_millisecond() & 0xffff_ffff)?;
    // Connections first, then the clock: a round measures requests.
    let ready = Arc::new(tokio::sync::Barrier::new(connections + 1));
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..connections {
        let (connector, ready) = (connector.clone(), ready.clone());
        senders.spawn(async move {
            let mut template = Template::new(n, run, fresh);
            let mut kept = if fresh { None } else { Some(Connection::open(&connector, port).await?) };
            ready.wait().await;
            let begun = Instant::now();
            let mut times: Vec<u32> = Vec::new();
            let mut refusal = None;
            let mut refused = 0_u32;
            for number in 0.. {
                let sent = Instant::now();
                if sent - begun > time {
                    break;
                }
                let request = template.numbered(number);
                let status = match &mut kept {
                    Some(connection) => connection.exchange(request).await?,
                    None => Connection::open(&connector, port).await?.exchange(request).await?,
                };
                if status != 202 {
                    refused += 1;
                    refusal = Some(status);
                }
                times.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            anyhow::Ok((times, refused, refusal))
        });
    }
    ready.wait().await;
    let begun = Instant::now();
    let (mut times, mut refused, mut refusal) = (Vec::new(), 0, None);
    while let Some(sender) = senders.join_next().await {
        let (own, own_refused, own_refusal) = sender??;
        times.extend(own);
        refused += own_refused;
        refusal = refusal.or(own_refusal);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map_or(f64::NAN, |t| f64::from(*t) / 1e6);
    Ok(json!({
        "rate": times.len() as f64 / elapsed,
        "count": times.len(),
        "p50": at(0.5),
        "p99": at(0.99),
        "refused": refused,
        "refusal": refusal,
    }))
}

/// Opens connections, has an event acknowledged on each, says so by a file beside the certificate, and keeps them.
async fn hold(port: u16, connections: usize, certificate: &str) -> anyhow::Result<()> {
    let connector = connector(certificate)?;
    let mut kept = Vec::with_capacity(connections);
    for n in 0..connections {
        let mut connection = Connection::open(&connector, port).await?;
        let status = connection.exchange(Template::new(n, 1, false).numbered(0)).await?;
        anyhow::ensure!(status == 202, "an event was answered {status}");
        kept.push(connection);
    }
    std::fs::write(Path::new(certificate).with_file_name("held"), "")?;
    std::future::pending().await
}

/// A client that trusts the authority beside the certificate, and keeps nothing from one connection to the next.
fn connector(certificate: &str) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(Path::new(certificate).with_file_name("ca.crt"))? {
        roots.add(certificate?)?;
    }
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

struct Connection {
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(connector: &TlsConnector, port: u16) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        stream.set_nodelay(true)?;
        let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        Ok(Connection { stream, buffer: Vec::with_capacity(1_024) })
    }

    /// Sends a request and reads its answer; the status.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        loop {
            anyhow::ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
            let Some(head) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head])?;
            let length = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if self.buffer.len() >= head + 4 + length.unwrap_or(0) {
                return Ok(text.get(9..12).context("no status")?.parse()?);
            }
        }
    }
}
