//! Kubernetes policy reports: `PolicyReport` of `wgpolicyk8s.io/v1alpha2` and its successor, `Report` of
//! `openreports.io/v1alpha1`. One object for each repository keeps them below what etcd takes; several are a `List`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::json::pretty;
use super::text::causes::unevaluated;
use super::{Report, Standing, TOOL, distinct, fires_at, moment, subject_name, visible};
use crate::image::{Digest, Repository};
use crate::policy::{Finding, NotEvaluated, Outcome, Severity, Verdict};

/// Most results of one object: at less than 1.2 kB each they stay below etcd's 1.5 MB.
const RESULTS_MAX: usize = 1_000;
/// Longest name of a Kubernetes object (RFC 1123 subdomain), less what is put around it.
const NAME_MAX: usize = 253 - TOOL.len() - 24;
/// Most characters of a message, so that a thousand of them fit.
const MESSAGE_CHARS_MAX: usize = 500;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Wgpolicy,
    OpenReports,
}

pub(super) fn render(report: &Report, api: Api) -> String {
    let mut objects = Vec::new();
    for repository in distinct(report.verdicts.iter().map(|v| &v.repository)) {
        let verdicts: Vec<&Verdict> = report.verdicts.iter().filter(|v| v.repository == *repository).collect();
        objects.extend(repository_reports(repository, &verdicts, api));
    }
    if !report.problems.is_empty() {
        let results: Vec<Value> = report
            .problems
            .iter()
            .map(|p| {
                let message = format!("{}: {}", p.target, p.message);
                let properties = json!({"target": cut(&visible(&p.target))});
                entry("", "reachable", "error", "medium", &message, report.judged_at, properties)
            })
            .collect();
        let summary = json!({"pass": 0, "fail": 0, "warn": 0, "error": results.len(), "skip": 0});
        objects.push(object(api, format!("{TOOL}-undetermined"), summary, results));
    }
    let document = match objects.as_mut_slice() {
        [one] => one.take(),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    };
    pretty(&document) + "\n"
}

fn repository_reports(repository: &Repository, verdicts: &[&Verdict], api: Api) -> Vec<Value> {
    let mut results: Vec<(Standing, Value)> = Vec::new();
    let (mut pass, mut skip) = (0, 0);
    for verdict in verdicts {
        let met = |r: &&crate::policy::Rule| !verdict.findings.iter().any(|f| f.rule == **r);
        pass += verdict.evaluated.iter().filter(met).count();
        skip += verdict.not_evaluated.len() + usize::from(verdict.outcome == Outcome::Ignored);
        let told = verdict.findings.iter().filter(|f| f.state != crate::policy::State::Resolved);
        results.extend(told.map(|f| (Standing::of(f), finding_entry(verdict, f))));
    }
    results.sort_by_key(|(standing, _)| *standing);
    let mut results: Vec<Value> = results.into_iter().map(|(_, value)| value).collect();
    for group in unevaluated(verdicts) {
        let verdict = group.verdicts[0];
        for rule in &group.rules {
            let skipped = NotEvaluated { rule: *rule, why: group.why.clone() };
            results.push(skipped_entry(verdict, &skipped, group.verdicts.len()));
        }
    }
    let tally = |word: &str| results.iter().filter(|r| r["result"] == word).count();
    let pending = results.iter().filter(|r| r["properties"]["state"] == "pending").count();
    let summary = json!({
        "pass": pass, "fail": tally("fail"), "warn": tally("warn"), "error": tally("error"), "skip": skip + pending,
    });
    if results.is_empty() {
        return vec![object(api, name(repository, 0), summary, results)];
    }
    // Each part has the whole summary: the parts are one report that etcd would not take in one piece.
    let parts = results.chunks(RESULTS_MAX).enumerate();
    parts.map(|(n, part)| object(api, name(repository, n), summary.clone(), part.to_vec())).collect()
}

fn object(api: Api, name: String, summary: Value, results: Vec<Value>) -> Value {
    let mut object = Map::new();
    let (version, kind) = match api {
        Api::Wgpolicy => ("wgpolicyk8s.io/v1alpha2", "PolicyReport"),
        Api::OpenReports => ("openreports.io/v1alpha1", "Report"),
    };
    object.insert("apiVersion".into(), json!(version));
    object.insert("kind".into(), json!(kind));
    object.insert("metadata".into(), json!({"name": name, "labels": {"app.kubernetes.io/managed-by": TOOL}}));
    if api == Api::OpenReports {
        object.insert("source".into(), json!(TOOL));
    }
    object.insert("summary".into(), summary);
    object.insert("results".into(), Value::Array(results));
    Value::Object(object)
}

fn finding_entry(verdict: &Verdict, finding: &Finding) -> Value {
    let (result, severity) = match (Standing::of(finding), finding.severity) {
        (Standing::Error, s) => ("error", severity(s)),
        (Standing::Pending, s) => ("skip", severity(s)),
        (_, Severity::Critical) => ("fail", "critical"),
        (_, s) => ("warn", severity(s)),
    };
    let mut message = format!("{}: {}", subject_name(verdict), finding.message);
    if result == "skip" {
        message += &format!(" (pending until {})", moment(fires_at(finding)));
    }
    let mut properties = properties(verdict);
    properties.insert("reason".into(), json!(finding.reason.as_str()));
    properties.insert("state".into(), json!(super::json::state_word(finding)));
    properties.insert("advice".into(), json!(cut(&visible(&finding.advice))));
    let rule = rule(verdict, finding.rule.as_str());
    entry(&verdict.policy, &rule, result, severity, &message, verdict.judged_at, Value::Object(properties))
}

/// What was not evaluated: one entry for all the tags that share the reason.
fn skipped_entry(verdict: &Verdict, skipped: &NotEvaluated, tags: usize) -> Value {
    let whose = if tags == 1 { subject_name(verdict) } else { format!("{}, {tags} tags", verdict.repository) };
    let message = format!("{whose}: not evaluated: {}", skipped.why);
    let mut properties = properties(verdict);
    properties.insert("tags".into(), json!(tags.to_string()));
    if tags > 1 {
        properties.shift_remove("tag");
        properties.shift_remove("digest");
    }
    let rule = rule(verdict, skipped.rule.as_str());
    entry(&verdict.policy, &rule, "skip", "info", &message, verdict.judged_at, Value::Object(properties))
}

fn entry(
    policy: &str,
    rule: &str,
    result: &str,
    severity: &str,
    message: &str,
    at: Timestamp,
    properties: Value,
) -> Value {
    json!({
        "source": TOOL,
        "policy": if policy.is_empty() { "none".to_owned() } else { visible(policy) },
        "rule": rule,
        "category": "Registry",
        "severity": severity,
        "result": result,
        "scored": true,
        "message": cut(&visible(message)),
        "timestamp": {"seconds": at.as_second(), "nanos": at.subsec_nanosecond().max(0)},
        "properties": properties,
    })
}

/// Strings only, as both definitions ask.
fn properties(verdict: &Verdict) -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert("registry".into(), json!(verdict.repository.host.as_str()));
    properties.insert("repository".into(), json!(verdict.repository.name.as_str()));
    if let Some(tag) = &verdict.subject.tag {
        properties.insert("tag".into(), json!(tag.as_str()));
    }
    if let Some(digest) = &verdict.subject.digest {
        properties.insert("digest".into(), json!(digest.as_str()));
    }
    properties
}

fn rule(verdict: &Verdict, requirement: &str) -> String {
    format!("{}/{requirement}", verdict.class.as_deref().map_or_else(|| "none".to_owned(), visible))
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "medium",
        Severity::Info => "info",
    }
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(MESSAGE_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// A name that Kubernetes takes, the same for the same repository, and different for different ones that
/// would read alike after `/`, `_` and `:` are replaced.
fn name(repository: &Repository, part: usize) -> String {
    let full = repository.to_string();
    let plain: String =
        full.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let plain = plain[..plain.len().min(NAME_MAX)].trim_matches('-').to_owned();
    let digest = Digest::of(full.as_bytes());
    let hash = &digest.hex()[..8];
    match part {
        0 => format!("{TOOL}-{plain}-{hash}"),
        n => format!("{TOOL}-{plain}-{hash}-{}", n + 1),
    }
}
