//! `make bench`: the measured figures, each beside its baseline in the same run, as one table and as JSON.
//!
//! `cargo bench --bench figures -- [SUITE]...` runs some of the suites only. The same program plays the bare
//! server and the load, each in a process of its own on a core of its own.

#![expect(clippy::disallowed_methods, reason = "a bench measures by the real time, and writes where cargo builds")]

mod acknowledge;
mod audit;
mod daemon;
mod drain;
mod events;
mod filled;
mod find;
mod harness;
mod judge;
mod peers;
mod roles;
mod state;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/support/mod.rs"]
mod support;
mod world;

use std::process::ExitCode;

use harness::Figure;

type Suite = (&'static str, fn() -> anyhow::Result<Vec<Figure>>);

const SUITES: &[Suite] = &[
    ("daemon", daemon::run),
    ("drain", drain::run),
    ("events", events::run),
    ("judge", judge::run),
    ("find", find::run),
    ("acknowledge", acknowledge::run),
    ("peers", peers::run),
    ("state", state::run),
    ("audit", audit::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let done = match arguments.split_first() {
        Some((first, rest)) if first == "role" => roles::play(rest),
        _ => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = wanted.iter().find(|w| !SUITES.iter().any(|(name, _)| name == w)) {
        let names: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("there is no suite `{unknown}`; there are {}", names.join(", "));
    }
    let load_before = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut figures = Vec::new();
    for (name, suite) in SUITES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        eprintln!("measuring: {name} ...");
        figures.extend(suite()?);
    }
    println!("{}", harness::table(&figures));
    for figure in figures.iter().filter(|f| !f.note.is_empty()) {
        println!("{}: {}", figure.name, figure.note);
    }
    println!("\n{}", harness::machine());
    let path = harness::results();
    let document = serde_json::to_string_pretty(&harness::document(&figures, load_before.trim()))?;
    std::fs::write(&path, document + "\n")?;
    println!("written to {}", path.display());
    Ok(())
}
