//! `tidewaiter policy test`: runs the test documents beside policies and shows what differs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{ValueEnum, ValueHint};

use super::fail::Failure;
use super::policies;
use super::terminal::Terminal;
use crate::app::read_beside_policy;
use crate::document::{Fault, Source};
use crate::policy::{self, Document, trial};
use crate::report::{coverage_text, trial_junit, trial_text};

/// The exit code of cases that came out otherwise than expected.
const FAILED: u8 = 1;

/// Run the tests of policies; exit code 1 if one fails
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders with `kind: TagPolicyTest` documents; beside a file, the policies of its folder are read too
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Where the policies under test are, if not there; may be repeated
    #[arg(short, long = "policy", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    policies: Vec<PathBuf>,
    /// How the results are written
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Show which requirements no case ever made fail
    #[arg(long)]
    coverage: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Junit,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Result<u8, Failure> {
    let tests = documents(&policies::sources(&args.paths)?)?;
    if !tests.iter().any(|d| d.kind() == "TagPolicyTest") {
        return Err(
            Failure::say("there is no test in what was named").help("a test is a document of `kind: TagPolicyTest`")
        );
    }
    let mut places = args.policies.clone();
    if places.is_empty() {
        let folders: BTreeSet<&Path> = args.paths.iter().filter(|p| p.is_file()).filter_map(|p| p.parent()).collect();
        places.extend(
            folders.into_iter().map(|f| if f.as_os_str().is_empty() { PathBuf::from(".") } else { f.to_owned() }),
        );
    }
    let mut under_test = tests.clone();
    let mut beside: Vec<Fault> = Vec::new();
    if !places.is_empty() {
        let known: BTreeSet<_> = tests.iter().map(|d| same(&d.source)).collect();
        for source in policies::sources(&places)?.iter().filter(|s| !known.contains(&same(s))) {
            match policy::documents(source) {
                Ok(documents) => under_test.extend(documents),
                Err(faults) if args.policies.is_empty() => beside.extend(faults),
                Err(faults) => return Err(faults.into()),
            }
        }
    }
    // What is wrong in a file that only happens to lie there matters if it is missed.
    let trial = trial::run(&tests, &under_test, &read_beside_policy).map_err(|mut faults| {
        faults.append(&mut beside);
        faults
    })?;
    match args.output {
        Form::Text => {
            let coverage = if args.coverage { format!("\n{}", coverage_text(&trial)) } else { String::new() };
            terminal.print(&(trial_text(&trial, &terminal.listing()) + &coverage))?;
        }
        Form::Junit => terminal.print(&trial_junit(&trial))?,
    }
    Ok(if trial.passed() { 0 } else { FAILED })
}

/// What tells that two sources are one file, however they were named.
fn same(source: &Source) -> PathBuf {
    let path = PathBuf::from(&*source.name);
    path.canonicalize().unwrap_or(path)
}

fn documents(sources: &[Source]) -> Result<Vec<Document>, Failure> {
    let mut all = Vec::new();
    let mut faults: Vec<Fault> = Vec::new();
    for source in sources {
        match policy::documents(source) {
            Ok(documents) => all.extend(documents),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(all) } else { Err(faults.into()) }
}
