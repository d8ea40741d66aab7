//! `tidewaiter doctor`: looks at everything that the daemon depends on, and says what to do about each fault.
//!
//! Changes nothing: no store is made, no certificate, and no message is sent unless `--send-test` asks for one.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ValueEnum, ValueHint};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use url::Url;

use super::fail::{Failure, configuration};
use super::policies;
use super::terminal::Terminal;
use crate::alert::{Links, send_test};
use crate::app::{registry_settings, sink_settings, tls_files};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, StoreUrl};
use crate::image::{Host, Repository};
use crate::listen::Tls;
use crate::metrics::{Listener, Metrics};
use crate::policy::PolicySet;
use crate::registry::{Budget, Client, RegistryError};
use crate::report::visible;
use crate::store::embedded::{EmbeddedStore, Options};
use crate::store::{Store, StoreError};

/// When a certificate is near its end: the usual renewal is at thirty days.
const CERTIFICATE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A sync slower than this makes every event slow: disks that do not lie need a few milliseconds.
const SYNC: Duration = Duration::from_millis(100);
/// What one registry is asked.
const BUDGET: Budget = Budget { requests: 16, bytes: 16 << 20, time: Duration::from_secs(20) };
/// How long a sink may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Exit code where something does not work.
const FAULTY: u8 = 1;
/// Exit code where configuration or policies are invalid.
const INVALID: u8 = 2;
/// Before this the program did not exist: a clock that says less is wrong.
const RELEASED: &str = "2026-01-01T00:00:00Z";

/// Check configuration, policies, certificates, store, registries and sinks; say what to do about each fault
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes:\n  0  everything works; there may be warnings\n  1  something does not work\n  2  the configuration or a policy is invalid"
)]
pub(super) struct Args {
    /// The configuration; without it what `serve` would do without one
    #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// How the findings are written
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Send a test message to each sink
    #[arg(long)]
    send_test: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Fault,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    area: &'static str,
    state: State,
    message: String,
    advice: String,
}

/// Everything that was looked at, in order.
#[derive(Debug, Default)]
struct Findings {
    list: Vec<Finding>,
    invalid: bool,
}

impl Findings {
    fn add(&mut self, area: &'static str, state: State, message: impl Into<String>, advice: impl Into<String>) {
        self.list.push(Finding { area, state, message: message.into(), advice: advice.into() });
    }

    fn ok(&mut self, area: &'static str, message: impl Into<String>) {
        self.add(area, State::Ok, message, "");
    }
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let mut found = Findings::default();
    let given = match configuration(args.config.as_deref()) {
        Ok(given) => given,
        Err(failure) if args.output == Form::Text => return Err(failure),
        Err(failure) => {
            found.invalid = true;
            if let Failure::Faults(faults) = &failure {
                for fault in faults {
                    found.add("configuration", State::Fault, fault.to_string(), fault.help.clone().unwrap_or_default());
                }
            }
            return show(&found, args.output, terminal);
        }
    };
    let name = args.config.as_ref().map_or("none, the defaults hold".to_owned(), |path| path.display().to_string());
    let config = given.unwrap_or_else(Config::default_for_no_file);
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    found.ok(
        "configuration",
        format!(
            "{name}: {}, {}, {}; all secrets can be read",
            count(config.registries.len(), "registry", "registries"),
            count(config.sources.len(), "source", "sources"),
            count(config.sinks.len(), "sink", "sinks")
        ),
    );
    for warning in &config.warnings {
        found.add("configuration", State::Warning, warning.to_string(), warning.help.clone().unwrap_or_default());
    }
    clock(args.config.as_deref(), &mut found);
    let set = policies(&config, &mut found);
    listeners(&config, &mut found);
    certificates(&config, &mut found);
    let mut known = store(&config, &mut found).await;
    for registry in &config.registries {
        let client = registry_settings(registry)
            .map_err(|error| format!("{error:#}"))
            .and_then(|settings| Client::new(settings, Arc::new(())).map_err(|error| error.to_string()));
        match client {
            Ok(client) => known.extend(ask(&client, &registry.host, set.as_ref(), &mut found).await),
            Err(why) => found.add("registry", State::Fault, format!("{}: {why}", registry.host), "mend its settings"),
        }
    }
    if let Some(set) = &set {
        governing(set, &known, &mut found);
    }
    for sink in &config.sinks {
        check_sink(sink, args.send_test, &mut found).await;
    }
    show(&found, args.output, terminal)
}

fn clock(config: Option<&Path>, found: &mut Findings) {
    let now = SystemClock.now();
    let written =
        config.and_then(|path| std::fs::metadata(path).ok()?.modified().ok()).and_then(|t| Timestamp::try_from(t).ok());
    let advice = "let the system take its time from the network (NTP): histories and waiting times go by it";
    if RELEASED.parse::<Timestamp>().is_ok_and(|released| now < released) {
        found.add("clock", State::Fault, format!("it says {now:.0}, which is past"), advice);
    } else if written.is_some_and(|written| written > now) {
        found.add(
            "clock",
            State::Warning,
            format!("it says {now:.0}, and the configuration was written later"),
            advice,
        );
    } else {
        found.ok("clock", format!("{now:.0}"));
    }
}

fn policies(config: &Config, found: &mut Findings) -> Option<PolicySet> {
    match policies::chosen(&[], Some(config)) {
        Ok(loaded) => {
            let names: Vec<String> = loaded.set.policies().iter().map(|p| visible(&p.name)).collect();
            if names.is_empty() {
                found.add(
                    "policies",
                    State::Warning,
                    "there is none: nothing is judged",
                    "add a document of `kind: TagPolicy`",
                );
            } else {
                found.ok("policies", names.join(", "));
            }
            Some(loaded.set)
        }
        Err(failure) => {
            found.invalid = true;
            match failure {
                Failure::Faults(faults) => {
                    for fault in faults {
                        let advice =
                            fault.help.clone().unwrap_or_else(|| "`tidewaiter policy lint` shows the place".to_owned());
                        found.add("policies", State::Fault, fault.to_string(), advice);
                    }
                }
                Failure::Say { text, help, .. } => found.add("policies", State::Fault, text, help.unwrap_or_default()),
            }
            None
        }
    }
}

fn listeners(config: &Config, found: &mut Findings) {
    let events = config.listen.events;
    let elsewhere = config.registries.iter().find(|r| !r.host.is_loopback());
    match elsewhere {
        Some(registry) if events.ip().is_loopback() && !config.sources.is_empty() => found.add(
            "listener",
            State::Warning,
            format!("events are taken at {events} only, where {} cannot reach it", registry.host),
            "set `listen.events` to an address that senders reach, or put a proxy before it",
        ),
        _ => found.ok("listener", format!("events at {events}, admin at {}", config.listen.admin)),
    }
    if config.sources.is_empty() {
        found.add(
            "sources",
            State::Warning,
            "there is none: no event is received",
            "add one; `tidewaiter init --registry HOST` shows how",
        );
    }
    for source in config.sources.iter().filter(|s| s.auth.is_none()) {
        found.add(
            "sources",
            State::Warning,
            format!("`{}` takes events from anybody", source.name),
            "give it an `auth`, if its sender can send one",
        );
    }
}

fn certificates(config: &Config, found: &mut Findings) {
    let configured = [("events", &config.tls, Listener::Events), ("admin", &config.admin.tls, Listener::Admin)];
    for (name, tls, listener) in configured {
        let Some(tls) = tls else { continue };
        let Ok(metrics) = Metrics::new() else { continue };
        match Tls::load(tls_files(tls), listener, Arc::new(metrics), Arc::new(SystemClock)) {
            Ok(loaded) => {
                let left = loaded.expires().duration_since(SystemClock.now());
                let days = left.as_hours() / 24;
                let file = tls.certificate.display();
                if left.is_negative() {
                    found.add(
                        "certificate",
                        State::Fault,
                        format!("{name}: {file} has expired"),
                        "renew it; a changed file is read at once",
                    );
                } else if left < CERTIFICATE {
                    found.add(
                        "certificate",
                        State::Warning,
                        format!("{name}: {file} ends in {days} days"),
                        "renew it; a changed file is read at once",
                    );
                } else {
                    found.ok("certificate", format!("{name}: {file} is good for {days} days"));
                }
            }
            Err(error) => {
                found.add("certificate", State::Fault, format!("{name}: {error}"), "mend the files named under `tls`")
            }
        }
    }
    if config.tls.is_none() {
        let folder = config.state_folder();
        let folder = if folder.as_os_str().is_empty() {
            "the working directory".to_owned()
        } else {
            format!("`{}`", folder.display())
        };
        found.add(
            "certificate",
            State::Warning,
            format!("events: self-signed, kept in {folder}"),
            "set `tls`, or let the senders trust it: public services will not",
        );
    }
}

/// Looks at the store; the repositories on record where it could be read.
async fn store(config: &Config, found: &mut Findings) -> Vec<Repository> {
    let StoreUrl::Sqlite(path) = &config.store else { return Vec::new() };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match sync(folder) {
        Ok(took) if took > SYNC => found.add(
            "store",
            State::Warning,
            format!("a durable write in `{}` takes {} ms", folder.display(), took.as_millis()),
            "put the store on a local disk: every event waits for one",
        ),
        Ok(took) => found.ok(
            "store",
            format!("a durable write in `{}` takes {:.1} ms", folder.display(), took.as_secs_f64() * 1000.0),
        ),
        Err(error) => {
            let advice = "make the folder, and let the daemon's user write there";
            found.add("store", State::Fault, format!("cannot write in `{}`: {error}", folder.display()), advice);
            return Vec::new();
        }
    }
    if !path.is_file() {
        found.ok("store", format!("`{}` is not there yet; the daemon makes it", path.display()));
        return Vec::new();
    }
    let opened = match EmbeddedStore::info(path) {
        Ok(info) => {
            found.ok(
                "store",
                format!(
                    "`{}`: {} tags of {} repositories, {} events, {} open violations",
                    path.display(),
                    info.tags,
                    info.repositories,
                    info.events,
                    info.open_violations
                ),
            );
            if info.dead_letters > 0 {
                found.add(
                    "store",
                    State::Warning,
                    format!("{} dead letters: payloads that could not be read", info.dead_letters),
                    "`tidewaiter dead-letters` shows them with their faults",
                );
            }
            EmbeddedStore::open(path, Options::default())
        }
        Err(error) => Err(error),
    };
    match opened {
        Ok(store) => store.repositories(None, None, 1_000).await.unwrap_or_default(),
        Err(StoreError::InUse { pid, .. }) => {
            let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            found.ok("store", format!("in use by a running daemon{pid}"));
            Vec::new()
        }
        Err(error) => {
            found.add("store", State::Fault, visible(&error.to_string()), "`tidewaiter store verify` tells more");
            Vec::new()
        }
    }
}

/// How long a small durable write takes in a folder.
fn sync(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".tidewaiter-doctor-{}", std::process::id()));
    let begun = Instant::now();
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let took = begun.elapsed();
    let _ = std::fs::remove_file(&path);
    written.map(|()| took)
}

/// Asks a registry what the credential may do; the repositories that it lists.
async fn ask(client: &Client, host: &Host, set: Option<&PolicySet>, found: &mut Findings) -> Vec<Repository> {
    let session = client.session(BUDGET);
    let listed: Vec<Repository> = match session.catalog(None).await {
        Ok(page) => page.items.into_iter().map(|name| Repository::new(host.clone(), name)).collect(),
        Err(
            error @ (RegistryError::Unauthorized { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::Unexpected { .. }),
        ) => {
            found.add(
                "registry",
                State::Warning,
                format!("{host} answers, and does not list its repositories: {error}"),
                "where the credential is meant to do no more than pull, that is as it should be: repositories become known by their events",
            );
            return Vec::new();
        }
        Err(error) => {
            let advice = match &error {
                RegistryError::Tls(_) => "set `ca` of this registry to its authority's certificate",
                RegistryError::PrivateAddress { .. } => "set `allowPrivate: true` of this registry",
                _ => "check `host`, `endpoint`, the network and the registry itself",
            };
            found.add("registry", State::Fault, format!("{host}: {error}"), advice);
            return Vec::new();
        }
    };
    let governed = listed.iter().find(|r| set.is_none_or(|set| !set.governing(r).is_empty()));
    match governed {
        None => found.ok("registry", format!("{host} answers and lists {} repositories", listed.len())),
        Some(repository) => match session.tags(&repository.name, None).await {
            Ok(_) => found.ok("registry", format!("{host} answers; the credential lists repositories and reads tags")),
            Err(error) => found.add(
                "registry",
                State::Fault,
                format!("{host} lists repositories, but the tags of {} cannot be read: {error}", repository.name),
                "give the credential the right to pull",
            ),
        },
    }
    listed
}

/// Policies that govern nothing known are probably misspelt.
fn governing(set: &PolicySet, known: &[Repository], found: &mut Findings) {
    if known.is_empty() {
        return;
    }
    for policy in set.policies().iter().filter(|p| !known.iter().any(|r| p.scope.governs(r))) {
        found.add(
            "policies",
            State::Warning,
            format!("`{}` governs none of the {} repositories known so far", visible(&policy.name), known.len()),
            "check `spec.repositories`: patterns begin with the registry, as in `contoso.azurecr.io/iot/**`",
        );
    }
}

async fn check_sink(sink: &crate::config::Sink, test: bool, found: &mut Findings) {
    let settings = match sink_settings(sink) {
        Ok(settings) => settings,
        Err(error) => {
            found.add("sink", State::Fault, format!("`{}`: {error:#}", sink.name), "mend its settings");
            return;
        }
    };
    if test {
        let links = match Links::new(None, None) {
            Ok(links) => links,
            Err(error) => return found.add("sink", State::Fault, error.to_string(), ""),
        };
        match send_test(&settings, &links, SystemClock.now()).await {
            Ok(()) => found.ok("sink", format!("`{}` took a test message", sink.name)),
            Err(error) => {
                found.add("sink", State::Fault, visible(&error.to_string()), "check its address and credential")
            }
        }
        return;
    }
    for url in &sink.urls {
        match reach(url.expose()).await {
            Ok(()) => found.ok("sink", format!("`{}` accepts connections; --send-test sends a message", sink.name)),
            Err(why) => found.add(
                "sink",
                State::Fault,
                format!("`{}` cannot be reached: {why}", sink.name),
                "check its address and the network",
            ),
        }
    }
}

/// Opens and closes a connection. The address may be a secret: only its fault is told.
async fn reach(url: &str) -> Result<(), String> {
    let url = Url::parse(url).map_err(|_| "its address cannot be read".to_owned())?;
    let addresses = async {
        let port = url.port_or_known_default().unwrap_or(443);
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        tokio::net::TcpStream::connect(&*found).await
    };
    match tokio::time::timeout(CONNECT, addresses).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
    }
}

fn show(found: &Findings, form: Form, terminal: &Terminal) -> Result<u8, Failure> {
    let faults = found.list.iter().filter(|f| f.state == State::Fault).count();
    let warnings = found.list.iter().filter(|f| f.state == State::Warning).count();
    match form {
        Form::Json => {
            let list: Vec<serde_json::Value> = found
                .list
                .iter()
                .map(|f| {
                    let state = match f.state {
                        State::Ok => "ok",
                        State::Warning => "warning",
                        State::Fault => "fault",
                    };
                    json!({ "area": f.area, "state": state, "message": f.message, "advice": f.advice })
                })
                .collect();
            let text = serde_json::to_string_pretty(&json!({ "checks": list })).unwrap_or_default();
            terminal.print(&format!("{text}\n"))?;
        }
        Form::Text => {
            let options = terminal.listing();
            let mut text = String::new();
            for f in &found.list {
                let (sign, plain, code) = match f.state {
                    State::Ok => ("✓", "+", "32"),
                    State::Warning => ("!", "!", "33"),
                    State::Fault => ("✗", "x", "1;31"),
                };
                let sign = if options.unicode { sign } else { plain };
                let sign = if options.colour { format!("\u{1b}[{code}m{sign}\u{1b}[0m") } else { sign.to_owned() };
                text += &format!("{sign} {:<15}{}\n", f.area, f.message);
                if !f.advice.is_empty() && f.state != State::Ok {
                    text += &format!("{:17}{}\n", "", f.advice);
                }
            }
            let of = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
            text += &match (faults, warnings) {
                (0, 0) => "\neverything works\n".to_owned(),
                (0, n) => format!("\n{}; everything works\n", of(n, "warning", "warnings")),
                (n, m) => format!("\n{}, {}\n", of(n, "fault", "faults"), of(m, "warning", "warnings")),
            };
            terminal.print(&text)?;
        }
    }
    Ok(match (found.invalid, faults) {
        (true, _) => INVALID,
        (false, 0) => 0,
        (false, _) => FAULTY,
    })
}
