//! Renders verdicts: for people, for other programs, for the services that show reports.
//!
//! Pure: verdicts in, text out. It never judges, never reads a clock, a file or the terminal; what it needs to
//! know of those is in [`Options`]. Text that came from outside is escaped here, once for each kind of output
//! (T-54, T-61).

mod annotations;
mod events;
mod exit;
mod explain;
mod format;
mod history;
mod json;
mod junit;
mod policy_report;
mod sarif;
mod table;
mod text;
mod trial;
mod violations;
mod visible;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::image::{Digest, Repository};
use crate::policy::{Finding, Outcome, Reason, Severity, State, Verdict};

pub use events::{dead_letter_json, dead_letters_text, event_json, event_line, events_text};
pub use exit::ExitRules;
pub use explain::{explain_text, page_text, reason_markdown, reasons_markdown, requirement_text};
pub use format::{Format, FormatError, Output};
pub use history::{history_json, history_text};
pub use json::{finding_json, passed_by, report_json, verdict_json, verdict_line};
pub use trial::{coverage_text, trial_junit, trial_text};
pub use violations::{violation_json, violations_text};
pub use visible::visible;

/// Where the page of a reason is published: this and the code.
/// Where the pages on reasons are.
pub const REASONS_URL: &str = "https://tidewaiter.dev/reasons/";
/// What the program is called in every report.
const TOOL: &str = "tidewaiter";

/// What was judged, and what could not even be looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The verdicts, in the order in which people shall read them.
    pub verdicts: Vec<Verdict>,
    /// When the judging was done.
    pub judged_at: Timestamp,
    /// Repositories that were asked for and that no policy governs.
    pub ungoverned: Vec<Repository>,
    /// Targets of which not even a verdict could be reached, such as a repository whose tags cannot be listed.
    pub problems: Vec<Problem>,
}

/// A target that could not be looked at: an error without a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What was asked for, as it was written.
    pub target: String,
    /// What stood in the way, for people.
    pub message: String,
}

/// How many verdicts have which outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Everything required holds.
    pub pass: usize,
    /// Something required does not hold.
    pub violation: usize,
    /// Unmet, within the time allowed.
    pub pending: usize,
    /// Something could not be determined; problems count here too.
    pub error: usize,
    /// Nothing is asked of the tag.
    pub ignored: usize,
}

/// What a rendering depends on besides the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether text may hold ANSI colours. They never carry meaning alone.
    pub colour: bool,
    /// Whether the reader's locale can show more than ASCII.
    pub unicode: bool,
    /// Columns that text may take; less than [`WIDTH_MIN`] counts as that.
    pub width: usize,
    /// The least severity that fails a run: less is no failure in JUnit.
    pub fail_on: Severity,
}

/// The narrowest text that still reads well.
pub const WIDTH_MIN: usize = 60;
/// The width of text where nothing is known of the reader: the published example needs 105 columns.
pub const WIDTH_DEFAULT: usize = 110;

impl Default for Options {
    fn default() -> Options {
        Options { colour: false, unicode: true, width: WIDTH_DEFAULT, fail_on: Severity::Warning }
    }
}

impl Report {
    /// A report of these verdicts.
    pub fn new(verdicts: Vec<Verdict>, judged_at: Timestamp) -> Report {
        Report { verdicts, judged_at, ungoverned: Vec::new(), problems: Vec::new() }
    }

    /// Counts the outcomes.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { error: self.problems.len(), ..Summary::default() };
        for verdict in &self.verdicts {
            match verdict.outcome {
                Outcome::Pass => summary.pass += 1,
                Outcome::Violation => summary.violation += 1,
                Outcome::Pending => summary.pending += 1,
                Outcome::Error => summary.error += 1,
                Outcome::Ignored => summary.ignored += 1,
            }
        }
        summary
    }

    /// The report in one format. Ends with a line break.
    pub fn render(&self, format: Format, options: &Options) -> String {
        match format {
            Format::Text => text::render(self, options),
            Format::Json => json::render(self),
            Format::Jsonl => json::render_lines(self),
            Format::Junit => junit::render(self, options.fail_on),
            Format::Sarif => sarif::render(self),
            Format::Github => annotations::github(self),
            Format::AzureDevops => annotations::azure_devops(self),
            Format::Markdown => annotations::markdown(self),
            Format::PolicyReport => policy_report::render(self, policy_report::Api::Wgpolicy),
            Format::OpenReports => policy_report::render(self, policy_report::Api::OpenReports),
        }
    }
}

/// A listing of the admin API: `{"<name>": [...], "next": …}`.
pub fn listing_json(name: &str, items: Vec<Value>, next: Option<&str>) -> Value {
    let mut object = Map::new();
    object.insert(name.to_owned(), Value::Array(items));
    object.insert("next".to_owned(), json!(next));
    Value::Object(object)
}

/// The address of a reason's page.
pub fn docs_url(reason: Reason) -> String {
    format!("{REASONS_URL}{reason}")
}

/// How a finding is to be shown: the one order of importance that all formats share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Standing {
    Critical,
    Warning,
    Error,
    Pending,
    Info,
    Resolved,
}

impl Standing {
    fn of(finding: &Finding) -> Standing {
        match (finding.is_error(), finding.state, finding.severity) {
            (true, ..) => Standing::Error,
            (false, State::Resolved, _) => Standing::Resolved,
            (false, _, Severity::Info) => Standing::Info,
            (false, State::Pending, _) => Standing::Pending,
            (false, State::Firing, Severity::Warning) => Standing::Warning,
            (false, State::Firing, Severity::Critical) => Standing::Critical,
        }
    }
}

/// The name under which a verdict is known: reference with tag, or with digest, or the class that lacks a tag.
fn subject_name(verdict: &Verdict) -> String {
    let repository = &verdict.repository;
    match (&verdict.subject.tag, &verdict.subject.digest, &verdict.class) {
        (Some(tag), ..) => format!("{repository}:{tag}"),
        (None, Some(digest), _) => format!("{repository}@{digest}"),
        (None, None, Some(class)) => format!("{repository} (class {})", visible(class)),
        (None, None, None) => repository.to_string(),
    }
}

/// What identifies a violation for those who deduplicate: SHA-256 over registry, repository, tag or digest,
/// policy, class and requirement; not over what changes while it is the same violation.
fn fingerprint(verdict: &Verdict, finding: &Finding) -> Digest {
    let tag = match (&verdict.subject.tag, &verdict.subject.digest) {
        (Some(tag), _) => tag.as_str(),
        (None, Some(digest)) => digest.as_str(),
        (None, None) => "",
    };
    let parts = [
        verdict.repository.host.as_str(),
        verdict.repository.name.as_str(),
        tag,
        &verdict.policy,
        verdict.class.as_deref().unwrap_or_default(),
        finding.rule.as_str(),
    ];
    Digest::of(parts.join("\0").as_bytes())
}

/// When a pending finding fires unless mended, to the second; a waiting time beyond the calendar never ends.
fn fires_at(finding: &Finding) -> Timestamp {
    finding.since.checked_add(finding.wait).unwrap_or(Timestamp::MAX)
}

/// A time as people read it: to the second, in UTC.
fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The items in the order given, each once.
fn distinct<T: std::hash::Hash + Eq + Clone>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

/// `1 tag`, `2 tags`.
fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
