//! `tidewaiter doctor`: looks at everything that the daemon depends on, and says what to do about each fault.
//!
//! Changes nothing: no store is made, no certificate, and no message is sent unless `--send-test` asks for one.

mod certificates;
mod listeners;
mod registries;
mod secrets;
mod sinks;
mod store;

use std::path::{Path, PathBuf};

use clap::{ValueEnum, ValueHint};
use jiff::Timestamp;
use serde_json::json;

use super::fail::Failure;
use super::terminal::Terminal;
use crate::app::load_policies;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Policies};
use crate::document::Fault;
use crate::image::Repository;
use crate::policy::PolicySet;
use crate::report::visible;

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
    let examined = args.config.as_deref().map(Config::examine).transpose();
    let told = |faults: &[Fault], found: &mut Findings| {
        found.invalid = !faults.is_empty();
        for fault in faults {
            let advice = fault.help.clone().unwrap_or_else(|| "mend the file at this place".to_owned());
            found.add("configuration", State::Fault, fault.to_string(), advice);
        }
    };
    let (config, faults) = match examined {
        Ok(examined) => examined.unwrap_or_else(|| (Config::default_for_no_file(), Vec::new())),
        Err(faults) if args.output == Form::Text => return Err(Failure::Faults(faults)),
        Err(faults) => {
            told(&faults, &mut found);
            return show(&found, args.output, terminal);
        }
    };
    let name = args.config.as_ref().map_or("none, the defaults hold".to_owned(), |path| path.display().to_string());
    found.ok(
        "configuration",
        format!(
            "{name}: {}, {}, {}{}",
            count(config.registries.len() as u64, "registry", "registries"),
            count(config.sources.len() as u64, "source", "sources"),
            count(config.sinks.len() as u64, "sink", "sinks"),
            if faults.is_empty() { "; all secrets can be read" } else { "" }
        ),
    );
    told(&faults, &mut found);
    secrets::look(&config, &mut found);
    for warning in &config.warnings {
        let advice = warning.help.clone().unwrap_or_else(|| "it works; look whether it is meant".to_owned());
        found.add("configuration", State::Warning, warning.to_string(), advice);
    }
    clock(args.config.as_deref(), &mut found);
    let set = policies(&config, &mut found);
    senders(&config, &mut found);
    certificates::look(&config, &mut found);
    let store = store::look(&config, &mut found);
    listeners::look(&config, store.in_use, &mut found);
    let mut known = store.repositories;
    for registry in &config.registries {
        let listed = registries::look(registry, set.as_ref(), &known, &mut found).await;
        known.extend(listed);
    }
    known.sort();
    known.dedup();
    if let Some(set) = &set {
        governing(set, config.policies == Policies::Shipped, &known, &mut found);
    }
    for sink in &config.sinks {
        sinks::look(sink, args.send_test, &mut found).await;
    }
    show(&found, args.output, terminal)
}

/// A number with its noun.
fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
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
    match load_policies(&config.policies) {
        Ok(set) => {
            let names: Vec<String> = set.policies().iter().map(|p| visible(&p.name)).collect();
            if names.is_empty() {
                found.add(
                    "policies",
                    State::Warning,
                    "there is none: nothing is judged",
                    "name files or folders of them in `policies`; a policy is a document of `kind: TagPolicy` in a file that ends in .yaml, .yml or .json",
                );
            } else {
                found.ok("policies", names.join(", "));
            }
            Some(set)
        }
        Err(faults) => {
            found.invalid = true;
            for fault in faults.0 {
                let advice =
                    fault.help.clone().unwrap_or_else(|| "`tidewaiter policy lint` shows the place".to_owned());
                found.add("policies", State::Fault, fault.to_string(), advice);
            }
            None
        }
    }
}

fn senders(config: &Config, found: &mut Findings) {
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

/// Policies that govern nothing known are probably misspelt. Nobody misspelt those that the program brings: they are
/// for many kinds of repositories, and somebody has only some.
fn governing(set: &PolicySet, shipped: bool, known: &[Repository], found: &mut Findings) {
    if known.is_empty() || shipped {
        return;
    }
    for policy in set.policies().iter().filter(|p| !known.iter().any(|r| p.scope.governs(r))) {
        found.add(
            "policies",
            State::Warning,
            format!(
                "`{}` governs none of what is known so far: {}, such as {}",
                visible(&policy.name),
                count(known.len() as u64, "repository", "repositories"),
                known[0]
            ),
            "check `spec.repositories`: patterns begin with the registry, as in `contoso.azurecr.io/iot/**`",
        );
    }
}

fn show(found: &Findings, form: Form, terminal: &Terminal) -> Result<u8, Failure> {
    let faults = found.list.iter().filter(|f| f.state == State::Fault).count() as u64;
    let warnings = found.list.iter().filter(|f| f.state == State::Warning).count() as u64;
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
            text += &match (faults, warnings) {
                (0, 0) => "\neverything works\n".to_owned(),
                (0, n) => format!("\n{}; everything works\n", count(n, "warning", "warnings")),
                (n, m) => format!("\n{}, {}\n", count(n, "fault", "faults"), count(m, "warning", "warnings")),
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
