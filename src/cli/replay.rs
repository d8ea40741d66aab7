//! `tidewaiter replay`: what is on record judged by other policies, and what would change. Nothing is asked of any
//! registry and nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{ValueEnum, ValueHint};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::fail::{Failure, configuration};
use super::policies;
use super::record::moment;
use super::store::{path_of, there};
use super::terminal::Terminal;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::history::Origin;
use crate::image::{Repository, Tag};
use crate::pipeline::{Live, Source};
use crate::policy::{Finding, Outcome, PolicySet, Severity, Verdict};
use crate::report::visible;
use crate::store::embedded::ReadOnly;

/// Repositories read at a time.
const PAGE: usize = 1_000;

/// Judge what is on record by other policies, and show what would change
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The policies before are those of the configuration, the policies after those of --policy. Waiting times count as elapsed. Nothing is asked of a registry, and nothing is written."
)]
pub(super) struct Args {
    /// The policy file or folder to judge by; may be repeated
    #[arg(short, long = "policy", value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    policies: Vec<PathBuf>,
    /// Only tags that changed since a time, or for so long: 2026-11-22T10:00:00Z, 30d
    #[arg(long, value_name = "TIME|DURATION")]
    since: Option<String>,
    /// How the differences are written
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// The configuration that says where the record is, and which policies are in force
    #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// What one set of policies says of one tag, or of what a class lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    outcome: Option<Outcome>,
    findings: BTreeSet<(Severity, &'static str, &'static str, String)>,
}

/// What differs.
struct Difference {
    repository: Repository,
    subject: String,
    before: Said,
    after: Said,
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let config = configuration(args.config.as_deref())?.unwrap_or_else(Config::default_for_no_file);
    let before = policies::chosen(&[], Some(&config))?.set;
    let after = policies::chosen(&args.policies, Some(&config))?.set;
    let since = args.since.as_deref().map(moment).transpose()?;
    let path = path_of(&config)?;
    there(&path)?;
    let record = ReadOnly::open(&path)?;
    let (mut judged, mut differences) = (0, Vec::new());
    let mut last = None;
    let bar = terminal.progress("judging again", 0);
    loop {
        let page = record.repositories(None, last, PAGE).await?;
        bar.inc_length(page.len() as u64);
        for repository in &page {
            if !before.governing(repository).is_empty() || !after.governing(repository).is_empty() {
                let (tags, was) = said(&record, &before, repository, since).await?;
                let (_, will) = said(&record, &after, repository, since).await?;
                judged += tags;
                differences.extend(compared(repository, &was, &will));
            }
            bar.inc(1);
        }
        last = page.last().cloned();
        if page.len() < PAGE {
            break;
        }
    }
    bar.finish_and_clear();
    match args.output {
        Form::Text => terminal.print(&text(judged, &differences))?,
        Form::Json => terminal.print(&format!("{:#}\n", report(judged, &differences)))?,
    }
    Ok(0)
}

/// What policies say of each tag of a repository, as it is on record; and how many tags were judged.
async fn said(
    record: &ReadOnly,
    set: &PolicySet,
    repository: &Repository,
    since: Option<Timestamp>,
) -> Result<(usize, BTreeMap<String, Said>), Failure> {
    let failed = |error: crate::pipeline::LiveError| Failure::undetermined(error.to_string());
    let source = Source::Record;
    let mut live = Live::new(&source, set, repository.clone());
    live.remember(record).await.map_err(failed)?;
    let mut tags: Vec<Tag> = live.tags().await.map_err(failed)?;
    if let Some(since) = since {
        let mut recent = Vec::new();
        for tag in tags {
            if live.since(&tag).await.map_err(failed)?.is_some_and(|at| at >= since) {
                recent.push(tag);
            }
        }
        tags = recent;
    }
    let verdicts = live.judge(&tags, since.is_none(), Origin::PolicyChange, SystemClock.now()).await.map_err(failed)?;
    let mut all: BTreeMap<String, Said> = BTreeMap::new();
    // That a class has the tag that it must have is no news, whether or not it had to before.
    let news = |v: &&Verdict| v.subject.tag.is_some() || v.outcome != Outcome::Pass;
    for verdict in verdicts.iter().filter(news) {
        let said = all.entry(subject(verdict)).or_default();
        said.outcome = said.outcome.max(Some(verdict.outcome));
        said.findings.extend(verdict.findings.iter().map(words));
    }
    Ok((tags.len(), all))
}

fn subject(verdict: &Verdict) -> String {
    match (&verdict.subject.tag, &verdict.class) {
        (Some(tag), _) => tag.to_string(),
        (None, class) => format!("class {}", visible(class.as_deref().unwrap_or_default())),
    }
}

fn words(finding: &Finding) -> (Severity, &'static str, &'static str, String) {
    (finding.severity, finding.rule.as_str(), finding.reason.as_str(), visible(&finding.message))
}

fn compared(repository: &Repository, was: &BTreeMap<String, Said>, will: &BTreeMap<String, Said>) -> Vec<Difference> {
    let subjects: BTreeSet<&String> = was.keys().chain(will.keys()).collect();
    let side = |all: &BTreeMap<String, Said>, subject: &String| all.get(subject).cloned().unwrap_or_default();
    let pairs = subjects.into_iter().map(|subject| (subject, side(was, subject), side(will, subject)));
    pairs
        .filter(|(_, before, after)| before != after)
        .map(|(subject, before, after)| Difference {
            repository: repository.clone(),
            subject: subject.clone(),
            before,
            after,
        })
        .collect()
}

/// How an outcome is called; nothing is asked of what no policy governs.
fn outcome(said: &Said) -> &'static str {
    said.outcome.map_or("not governed", Outcome::as_str)
}

fn text(judged: usize, differences: &[Difference]) -> String {
    let mut text = String::new();
    let mut shown: Option<&Repository> = None;
    for difference in differences {
        if shown != Some(&difference.repository) {
            let gap = if shown.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{}", difference.repository);
            shown = Some(&difference.repository);
        }
        let (before, after) = (outcome(&difference.before), outcome(&difference.after));
        let change = if before == after { after.to_owned() } else { format!("{before} -> {after}") };
        let _ = writeln!(text, "  {:<16}  {change}", difference.subject);
        let only = |mark: &str, these: &Said, those: &Said| {
            let findings = these.findings.difference(&those.findings);
            findings
                .map(|(severity, rule, _, message)| format!("    {mark} {rule} ({severity}): {message}\n"))
                .collect::<String>()
        };
        text += &only("-", &difference.before, &difference.after);
        text += &only("+", &difference.after, &difference.before);
    }
    let of = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let gap = if text.is_empty() { "" } else { "\n" };
    let judged = of(judged, "tag was", "tags were");
    match differences.len() {
        0 => text + &format!("{judged} judged: nothing would change\n"),
        n => text + &format!("{gap}{judged} judged: {} would change\n", of(n, "verdict", "verdicts")),
    }
}

fn report(judged: usize, differences: &[Difference]) -> Value {
    let side = |said: &Said| {
        let findings = said.findings.iter().map(|(severity, rule, reason, message)| {
            json!({"requirement": rule, "reason": reason, "severity": severity.as_str(), "message": message})
        });
        json!({"outcome": said.outcome.map(Outcome::as_str), "findings": findings.collect::<Vec<_>>()})
    };
    let changes = differences.iter().map(|difference| {
        json!({
            "registry": difference.repository.host.as_str(),
            "repository": difference.repository.name.to_string(),
            "subject": difference.subject,
            "before": side(&difference.before),
            "after": side(&difference.after),
        })
    });
    json!({
        "apiVersion": "tidewaiter.dev/v1",
        "kind": "Replay",
        "summary": {"judged": judged, "changed": differences.len()},
        "changes": changes.collect::<Vec<_>>(),
    })
}
