//! Durable acknowledgements: the listener and its store against a server that only reads and answers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewaiter::store::embedded::{EmbeddedStore, Options};
use tidewaiter::store::{Paging, Store};

use crate::harness::{Figure, Goal, Pair, median, of_this_disk};
use crate::roles::{LOAD_CORE, Load, Process, SERVER_CORE, load};
use crate::support::program::free_port;
use crate::support::stage::write;
use crate::support::tls::Ca;

pub const ROUNDS: usize = 5;
const SECONDS: f64 = 3.0;

/// The servers, each on the servers' core; while one is measured the others have nothing to do.
pub struct Servers {
    pub folder: TempDir,
    bare: (Process, u16),
    pub intake: (Process, u16),
}

fn start(folder: &Path, role: &str, more: &[&str]) -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let (certificate, key) = (path(folder, "tls.crt"), path(folder, "tls.key"));
    let at = port.to_string();
    let arguments = [&[role, &at, &certificate, &key], more].concat();
    let mut process = Process::role(SERVER_CORE, &arguments, folder)?;
    process.accepts(port)?;
    Ok((process, port))
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

impl Servers {
    pub fn start() -> anyhow::Result<Servers> {
        let folder = of_this_disk()?;
        let ca = Ca::new();
        let issued = ca.issue(&["localhost", "127.0.0.1"]);
        write(&folder.path().join("ca.crt"), ca.pem())?;
        write(&folder.path().join("tls.crt"), &issued.certificate)?;
        write(&folder.path().join("tls.key"), &issued.key)?;
        let bare = start(folder.path(), "bare", &[])?;
        let intake = start(folder.path(), "intake", &[&path(folder.path(), "store.db")])?;
        Ok(Servers { folder, bare, intake })
    }

    pub fn load(&self, server: &(Process, u16), fresh: bool, connections: usize) -> anyhow::Result<(Load, f64)> {
        let before = server.0.processor();
        let load = load(server.1, fresh, connections, SECONDS, self.folder.path())?;
        let processor = (server.0.processor() - before) / load.count;
        Ok((load, processor))
    }
}

pub fn run() -> anyhow::Result<Vec<Figure>> {
    let servers = Servers::start()?;
    let mut figures = Vec::new();
    for (connections, goal) in [(64, 0.40), (256, 0.50)] {
        let (mut rates, mut processor, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (ours, our_time) = servers.load(&servers.intake, false, connections)?;
            let (bare, bare_time) = servers.load(&servers.bare, false, connections)?;
            rates.push((ours.rate, bare.rate));
            processor.push((our_time * 1e6, bare_time * 1e6));
            late.push((ours.p99 * 1e3, bare.p99 * 1e3));
        }
        let name = |what: &str| format!("{what}, {connections} connections");
        figures.push(Figure::beside(
            &name("durable acknowledgements"),
            "/s",
            &Pair::of(&rates),
            "bare hyper + rustls",
            Goal::RatioAtLeast(goal),
        ));
        if connections == 64 {
            figures.push(Figure::beside(
                &name("processor time of an acknowledgement"),
                "µs",
                &Pair::of(&processor),
                "bare hyper + rustls",
                Goal::RatioAtMost(2.0),
            ));
            figures.push(Figure::beside(
                &name("99th percentile of an acknowledgement"),
                "ms",
                &Pair::of(&late),
                "bare hyper + rustls",
                Goal::RatioAtMost(4.0),
            ));
        }
    }

    let (mut alone, mut fresh, mut against_nginx) = (Vec::new(), Vec::new(), Vec::new());
    let nginx = nginx(servers.folder.path())?;
    for _ in 0..ROUNDS {
        let (ours, _) = servers.load(&servers.intake, false, 1)?;
        alone.push((ours.p50 * 1e6, sync_of_a_kibibyte(servers.folder.path())? * 1e6));
        let (ours, _) = servers.load(&servers.intake, true, 64)?;
        let (bare, _) = servers.load(&servers.bare, true, 64)?;
        let (theirs, _) = servers.load(&nginx, true, 64)?;
        fresh.push((ours.rate, bare.rate));
        against_nginx.push((ours.rate, theirs.rate));
    }
    figures.push(Figure::beside(
        "one acknowledgement, one connection alone",
        "µs",
        &Pair::of(&alone),
        "one fdatasync of the same bytes",
        Goal::RatioAtMost(2.5),
    ));
    for (pair, name, goal) in [(&fresh, "bare hyper + rustls", 0.70), (&against_nginx, "nginx answering 202", 1.6)] {
        figures.push(Figure::beside(
            "a new connection for every event",
            "/s",
            &Pair::of(pair),
            name,
            Goal::RatioAtLeast(goal),
        ));
    }
    drop(nginx);
    figures.push(connections(servers.folder.path())?);
    let Servers { folder, bare, intake } = servers;
    drop((bare, intake));
    figures.push(filed(&folder.path().join("store.db"))?);
    Ok(figures)
}

/// What was acknowledged and that nobody asked for is filed among the record: what follows an acknowledgement once
/// somebody wants work, and is not part of it.
fn filed(store: &Path) -> anyhow::Result<Figure> {
    let waiting = EmbeddedStore::info(store)?.waiting;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = EmbeddedStore::open(store, Options::default())?;
    let begun = Instant::now();
    // A listing has all that was acknowledged.
    runtime.block_on(store.events(None, None, None, Paging { cursor: None, limit: 1 }))?;
    let rate = waiting as f64 / begun.elapsed().as_secs_f64();
    Ok(Figure::absolute("filing what was acknowledged among the record", rate, "/s", Goal::AtLeast(10_000.0))
        .noted(&format!("{waiting} events, all that the runs before left")))
}

/// What a connection costs that is kept open after an event, in a listener that has served nobody else.
fn connections(folder: &Path) -> anyhow::Result<Figure> {
    const CONNECTIONS: usize = 1_000;
    let (server, port) = start(folder, "intake", &[&path(folder, "held.db")])?;
    let before = server.resident();
    let arguments = ["hold", &port.to_string(), &CONNECTIONS.to_string(), &path(folder, "tls.crt")];
    let _holder = Process::role(LOAD_CORE, &arguments, folder)?;
    let begun = Instant::now();
    while !folder.join("held").exists() {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "the connections are not there in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let each = (server.resident() - before) / CONNECTIONS as f64;
    let name = "memory of a connection that is kept";
    Ok(Figure::absolute(name, each, "KiB", Goal::AtMost(25.0))
        .noted("over 1,000 connections, the store's share included"))
}

/// Seconds that appending 1 KiB and making it durable takes, on the load's core as a sender would wait for it.
pub fn sync_of_a_kibibyte(folder: &Path) -> anyhow::Result<f64> {
    let mut file = std::fs::File::options().create(true).append(true).open(folder.join("sync"))?;
    let bytes = [b'x'; 1_024];
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(median(times))
}

/// nginx that answers 202 to everything, over TLS with the same certificate.
fn nginx(folder: &Path) -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let config = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {pid};\nerror_log {log} error;\nevents {{ worker_connections 4096; }}\nhttp {{\n access_log off;\n client_body_temp_path {bodies};\n server {{\n  listen 127.0.0.1:{port} ssl;\n  ssl_certificate {certificate};\n  ssl_certificate_key {key};\n  ssl_protocols TLSv1.2 TLSv1.3;\n  location / {{ return 202 '{{\"recorded\":1}}'; }}\n }}\n}}\n",
        pid = path(folder, "nginx.pid"),
        log = path(folder, "nginx.log"),
        bodies = path(folder, "bodies"),
        certificate = path(folder, "tls.crt"),
        key = path(folder, "tls.key"),
    );
    let file = path(folder, "nginx.conf");
    write(&PathBuf::from(&file), &config)?;
    let arguments = ["-p", &folder.display().to_string(), "-c", &file];
    let mut process = Process::pinned(SERVER_CORE, Path::new("/usr/sbin/nginx"), &arguments, folder)?;
    process.accepts(port)?;
    Ok((process, port))
}
