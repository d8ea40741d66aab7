//! What `check` and `audit` share: by what is judged, where the report goes, and what exit code it makes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::ValueHint;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::clients::Reach;
use super::fail::{Failure, configuration};
use super::policies::{self, Loaded};
use super::terminal::Terminal;
use crate::config::{Config, StoreUrl};
use crate::policy::Severity;
use crate::report::{ExitRules, Format, Output, Report, visible};
use crate::store::embedded::ReadOnly;

/// The exit code where all that was named is not there.
const NOT_THERE: u8 = 2;

/// The flags of everything that judges.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Judge by this policy file or folder; may be repeated. Without it by the configuration's, else by the shipped ones
    #[arg(short, long = "policy", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub policies: Vec<PathBuf>,
    /// Write the report as FORMAT, to a file if one is named; may be repeated. Formats: text (default), json, jsonl,
    /// junit, sarif, github, azure-devops, markdown, policyreport, openreports
    #[arg(short, long = "output", value_name = "FORMAT[=FILE]")]
    pub outputs: Vec<Output>,
    /// Fail for findings of this severity and above
    #[arg(long, value_name = "SEVERITY", default_value = "warning", value_parser = severity())]
    pub fail_on: Severity,
    /// Report without failing: findings and errors leave the exit code 0
    #[arg(long)]
    pub exit_zero: bool,
    /// Accept that there is nothing to judge: no tags, or none that a policy governs. What is named and not there stays
    /// a fault
    #[arg(long)]
    pub allow_empty: bool,
    /// Take policies, credentials, registries' settings and the record of tags from this configuration
    #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub reach: Reach,
}

/// The record of the configured daemon, to be read only, whether or not it runs; `None` where there is none, which is
/// said in one line: what needs a history is then not evaluated.
pub(super) fn record(config: Option<&Config>, terminal: &Terminal) -> Option<ReadOnly> {
    let without = |why: String| {
        terminal.note(&format!("{why}: requirements about the past are not evaluated"));
        None
    };
    let path = match &config?.store {
        StoreUrl::Sqlite(path) => path,
        StoreUrl::Postgres(_) => {
            return without("the configured store is a database that only the daemon reads".into());
        }
    };
    if !path.exists() {
        return without(format!("there is no record yet in `{}`", visible(&path.display().to_string())));
    }
    match ReadOnly::open(path) {
        Ok(record) => Some(record),
        Err(error) => without(visible(&error.to_string())),
    }
}

/// The words of a severity.
pub(super) fn severity() -> impl TypedValueParser<Value = Severity> {
    PossibleValuesParser::new(Severity::ALL.iter().map(|s| s.as_str()))
        .map(|word| Severity::from_word(&word).unwrap_or(Severity::Warning))
}

impl Flags {
    /// The configuration and the policies.
    ///
    /// # Errors
    /// Their faults, and outputs that would mix.
    pub fn read(&self, terminal: &Terminal) -> Result<(Option<Config>, Loaded), Failure> {
        if self.outputs.iter().filter(|o| o.file.is_none()).count() > 1 {
            return Err(Failure::say("only one report can go to standard output")
                .help("write the others to files, as in `-o text -o junit=report.xml`"));
        }
        let files: BTreeSet<&PathBuf> = self.outputs.iter().filter_map(|o| o.file.as_ref()).collect();
        if files.len() < self.outputs.iter().filter(|o| o.file.is_some()).count() {
            return Err(Failure::say("two reports would be written to one file").help("give each a file of its own"));
        }
        let config = configuration(self.config.as_deref())?;
        if let Some(config) = &config {
            terminal.faults(&config.warnings);
        }
        let loaded = policies::chosen(&self.policies, config.as_ref())?;
        if loaded.set.policies().is_empty() {
            return Err(Failure::say("there is no policy in what was named")
                .help("a policy is a document of `kind: TagPolicy`"));
        }
        Ok((config, loaded))
    }

    /// Writes the report wherever it is wanted and gives the exit code. `absent` are targets that do not exist.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(&self, report: &Report, absent: usize, terminal: &Terminal) -> Result<u8, Failure> {
        let text = [Output { format: Format::Text, file: None }];
        let outputs = if self.outputs.is_empty() { &text[..] } else { &self.outputs };
        for output in outputs {
            match &output.file {
                None => terminal.print(&report.render(output.format, &terminal.options(self.fail_on)))?,
                Some(file) => {
                    let text = report.render(output.format, &Terminal::options_of_file(self.fail_on));
                    std::fs::write(file, text).map_err(|error| {
                        Failure::say(format!("cannot write the report to `{}`: {error}", file.display()))
                    })?;
                }
            }
        }
        let rules = ExitRules { fail_on: self.fail_on, allow_empty: self.allow_empty, exit_zero: self.exit_zero };
        // That something is not there was determined: alone, what was named is nothing to judge, and no flag makes a
        // slip of the keyboard a pass.
        if report.verdicts.is_empty() && absent > 0 && absent == report.problems.len() {
            return Ok(NOT_THERE);
        }
        Ok(rules.code(report))
    }
}
