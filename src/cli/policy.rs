//! `tidewaiter policy`: lint files, also against the repositories on record, and print the schema.

use std::path::{Path, PathBuf};

use clap::{ValueEnum, ValueHint};
use serde_json::json;

use super::fail::{Failure, configuration};
use super::policies;
use super::terminal::Terminal;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Policies, StoreUrl};
use crate::document::{Fault, Severity};
use crate::image::Repository;
use crate::policy;
use crate::report::visible;
use crate::store::embedded::EmbeddedStore;

/// Most repositories that patterns are tried on: each pattern is tried on each of them.
const REPOSITORIES_MAX: usize = 100_000;

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
        /// Files and folders; without them the policies of the configuration
        #[arg(value_name = "PATH", required_unless_present = "config", value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
        /// Point out patterns that match none of the repositories on record in the store of this configuration
        #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
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
        Verb::Lint { paths, config, output } => lint(&paths, config.as_deref(), output, terminal),
        Verb::Explain(args) => super::wait(super::explain::run(args, terminal)),
        Verb::Schema => {
            terminal.print(policy::SCHEMA)?;
            Ok(0)
        }
    }
}

fn lint(paths: &[PathBuf], config: Option<&Path>, output: LintFormat, terminal: &Terminal) -> Result<u8, Failure> {
    let config = configuration(config)?;
    let sources = match config.as_ref().map(|config| &config.policies) {
        Some(Policies::Paths(configured)) if paths.is_empty() => policies::sources(configured)?,
        Some(Policies::Shipped) if paths.is_empty() => {
            return Err(Failure::say("the configuration names no policies, and the shipped ones need no check")
                .help("name files or folders"));
        }
        _ => policies::sources(paths)?,
    };
    let (faults, count) = match policies::read(&sources) {
        Ok(loaded) => {
            let today = SystemClock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
            let known = config.as_ref().and_then(|config| known(config, terminal));
            let faults = policy::lint(&loaded.documents, &loaded.set, known.as_deref(), today);
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

/// The repositories on record, where there is a record that knows any; why not is said in one line.
fn known(config: &Config, terminal: &Terminal) -> Option<Vec<Repository>> {
    let without = |why: String| {
        terminal.note(&format!("{why}: what the patterns match is not looked at"));
        None
    };
    let path = match &config.store {
        StoreUrl::Sqlite(path) => path,
        StoreUrl::Postgres(_) => {
            return without("the configured store is a database that only the daemon reads".to_owned());
        }
    };
    let shown = visible(&path.display().to_string());
    if !path.exists() {
        return without(format!("there is no record yet in `{shown}`"));
    }
    match EmbeddedStore::known(path, REPOSITORIES_MAX) {
        Ok(known) if known.is_empty() => without(format!("there is no repository on record in `{shown}`")),
        // A pattern may well match one of those that were not read.
        Ok(known) if known.len() == REPOSITORIES_MAX => {
            without(format!("there are {REPOSITORIES_MAX} repositories or more on record in `{shown}`"))
        }
        Ok(known) => Some(known),
        Err(error) => without(visible(&error.to_string())),
    }
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
