//! `tidewaiter policy`: lint files and print the schema.

use std::path::PathBuf;

use clap::{ValueEnum, ValueHint};
use serde_json::json;

use super::fail::Failure;
use super::policies;
use super::terminal::Terminal;
use crate::clock::{Clock, SystemClock};
use crate::document::{Fault, Severity};
use crate::policy;

/// Write, check and understand policies
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check policy files without judging anything; exit code 2 if one is invalid
    Lint {
        /// Files and folders
        #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
        /// How faults are written
        #[arg(short, long, value_enum, default_value_t = LintFormat::Text)]
        output: LintFormat,
    },
    Test(super::trial::Args),
    Explain(super::explain::Args),
    /// Print the JSON Schema of policy documents, for editors
    Schema,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LintFormat {
    /// As a compiler shows them
    Text,
    /// A list of objects, for editors
    Json,
}

pub(super) fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    match args.verb {
        Verb::Test(args) => super::trial::run(&args, terminal),
        Verb::Lint { paths, output } => lint(&paths, output, terminal),
        Verb::Explain(args) => super::wait(super::explain::run(args, terminal)),
        Verb::Schema => {
            terminal.print(policy::SCHEMA)?;
            Ok(0)
        }
    }
}

fn lint(paths: &[PathBuf], output: LintFormat, terminal: &Terminal) -> Result<u8, Failure> {
    let sources = policies::sources(paths)?;
    let (faults, count) = match policies::read(&sources) {
        Ok(loaded) => {
            let today = SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
            let faults = policy::lint(&loaded.documents, &loaded.set, None, today);
            (faults, loaded.documents.len())
        }
        Err(Failure::Faults(faults)) => (faults, 0),
        Err(failure) => return Err(failure),
    };
    let invalid = faults.iter().any(|f| f.severity == Severity::Error);
    match output {
        LintFormat::Json => {
            let list: Vec<serde_json::Value> = faults.iter().map(fault_json).collect();
            terminal.print(&format!("{}\n", serde_json::to_string_pretty(&list).unwrap_or_default()))?;
        }
        LintFormat::Text => {
            terminal.print(&crate::document::render(&faults, terminal.listing().colour))?;
            let files = of(sources.len(), "file", "files");
            let errors = faults.iter().filter(|f| f.severity == Severity::Error).count();
            let warnings = faults.len() - errors;
            let gap = if faults.is_empty() { "" } else { "\n" };
            let line = match (errors, warnings) {
                (0, 0) => format!("{files}, {}: no faults", of(count, "document", "documents")),
                (0, n) => format!("{files}: {}", of(n, "warning", "warnings")),
                (n, 0) => format!("{files}: {}", of(n, "error", "errors")),
                (n, m) => format!("{files}: {}, {}", of(n, "error", "errors"), of(m, "warning", "warnings")),
            };
            terminal.print(&format!("{gap}{line}\n"))?;
        }
    }
    Ok(if invalid { 2 } else { 0 })
}

fn fault_json(fault: &Fault) -> serde_json::Value {
    let position = fault.position();
    json!({
        "file": &*fault.source.name, "line": position.line, "column": position.column, "severity": fault.severity.to_string(),
        "code": fault.code, "message": fault.message, "label": fault.label, "help": fault.help,
    })
}

fn of(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
