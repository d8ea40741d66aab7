//! SARIF 2.1.0 (OASIS), with what GitHub's code scanning asks for besides: full rules, a file and a region
//! where the policy says one, and fingerprints that stay.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::json::pretty;
use super::text::causes::unevaluated;
use super::{Report, Standing, TOOL, docs_url, fingerprint, fires_at, moment, subject_name, visible};
use crate::policy::{Finding, Reason, Rule, Severity, Verdict};

/// Most results of one run that GitHub takes.
const RESULTS_MAX: usize = 25_000;

pub(super) fn render(report: &Report) -> String {
    let mut found: Vec<(&Verdict, &Finding)> =
        report.verdicts.iter().flat_map(|v| v.findings.iter().map(move |f| (v, f))).collect();
    // What was undone before anybody judged it is in the record; a scanner would show it as open.
    found.retain(|(_, f)| Standing::of(f) != Standing::Resolved);
    found.sort_by_key(|(_, f)| Standing::of(f));
    let mut notifications = notifications(report, &found);
    if found.len() > RESULTS_MAX {
        let left = found.len() - RESULTS_MAX;
        notifications
            .push(notification("error", &format!("{left} findings more are not in this report: use `-o jsonl`")));
        found.truncate(RESULTS_MAX);
    }

    let mut rules: Vec<(Rule, Reason, Severity)> = Vec::new();
    let mut places: HashMap<(Rule, Reason), usize> = HashMap::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut results = Vec::with_capacity(found.len());
    for (verdict, finding) in &found {
        let place = *places.entry((finding.rule, finding.reason)).or_insert_with(|| {
            rules.push((finding.rule, finding.reason, finding.severity));
            rules.len() - 1
        });
        rules[place].2 = rules[place].2.max(finding.severity);
        let print = fingerprint(verdict, finding).to_string();
        let nth = seen.entry(format!("{print} {}", finding.reason)).or_default();
        *nth += 1;
        results.push(result(verdict, finding, place, &print, *nth));
    }
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": TOOL,
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "informationUri": "https://tidewaiter.dev",
                "rules": rules.into_iter().map(|(rule, reason, severity)| rule_json(rule, reason, severity)).collect::<Vec<_>>(),
            }},
            "automationDetails": {"id": run_id(report)},
            "invocations": [{
                "executionSuccessful": true,
                "endTimeUtc": report.judged_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    pretty(&document) + "\n"
}

fn rule_json(rule: Rule, reason: Reason, severity: Severity) -> Value {
    let page = reason.page();
    // GitHub's bands: above 9.0 critical, from 7.0 high, from 4.0 medium, from 0.1 low.
    let score = match severity {
        Severity::Critical => "8.0",
        Severity::Warning => "5.0",
        Severity::Info => "1.0",
    };
    json!({
        "id": format!("{rule}/{reason}"),
        "name": pascal(reason.as_str()),
        "shortDescription": {"text": page.wrong},
        "fullDescription": {"text": format!("{} {}", page.wrong, page.why)},
        "help": {"text": page.fix, "markdown": page.fix},
        "helpUri": docs_url(reason),
        "defaultConfiguration": {"level": level(severity)},
        "properties": {"tags": ["registry", "security"], "precision": "very-high", "security-severity": score},
    })
}

fn result(verdict: &Verdict, finding: &Finding, rule: usize, print: &str, nth: usize) -> Value {
    let standing = Standing::of(finding);
    let (kind, level) = match standing {
        Standing::Error => ("open", "none"),
        Standing::Pending => ("review", "none"),
        _ => ("fail", level(finding.severity)),
    };
    let name = subject_name(verdict);
    let mut text = format!("{name}: {}", finding.message);
    if standing == Standing::Pending {
        text += &format!(" (pending until {})", moment(fires_at(finding)));
    }
    if !finding.advice.is_empty() {
        text += &format!(" — {}", finding.advice);
    }
    let qualified = match (&verdict.subject.tag, &verdict.subject.digest) {
        (Some(_), Some(digest)) => format!("{name}@{digest}"),
        _ => name,
    };
    let mut location = Map::new();
    if let Some(at) = finding.source.as_deref() {
        location.insert(
            "physicalLocation".into(),
            json!({
                "artifactLocation": {"uri": file_uri(&at.file)},
                "region": {"startLine": at.line.max(1), "startColumn": at.column.max(1)},
            }),
        );
    }
    location.insert("logicalLocations".into(), json!([{"fullyQualifiedName": qualified, "kind": "resource"}]));
    let hex = print.split_once(':').map_or(print, |(_, hex)| hex);
    json!({
        "ruleId": format!("{}/{}", finding.rule, finding.reason),
        "ruleIndex": rule,
        "level": level,
        "kind": kind,
        "message": {"text": message(&text)},
        "locations": [location],
        "partialFingerprints": {
            "primaryLocationLineHash": format!("{}:{nth}", &hex[..hex.len().min(16)]),
            "tidewaiterFinding/v1": print,
        },
        "properties": {
            "policy": visible(&verdict.policy),
            "class": verdict.class.as_deref().map(visible),
            "severity": finding.severity.as_str(),
            "expected": finding.expected.iter().map(|t| visible(t)).collect::<Vec<_>>(),
            "actual": finding.actual.iter().map(|t| visible(t)).collect::<Vec<_>>(),
        },
    })
}

/// What could not be determined, and what was not evaluated: neither is a result of a rule.
fn notifications(report: &Report, found: &[(&Verdict, &Finding)]) -> Vec<Value> {
    let mut list = Vec::new();
    for problem in &report.problems {
        list.push(notification("error", &format!("{}: {}", problem.target, problem.message)));
    }
    for (verdict, finding) in found.iter().filter(|(_, f)| f.is_error()) {
        list.push(notification("error", &format!("{}: {}", subject_name(verdict), finding.message)));
    }
    for repository in &report.ungoverned {
        list.push(notification("note", &format!("no policy governs {repository}")));
    }
    for block in super::text::blocks(report) {
        for group in unevaluated(&block.verdicts) {
            let rules: Vec<&str> = group.rules.iter().map(|r| r.as_str()).collect();
            let whose = match group.verdicts.as_slice() {
                [one] => subject_name(one),
                many => format!("{}, {} tags", block.repository, many.len()),
            };
            list.push(notification("note", &format!("{whose}: not evaluated: {} ({})", rules.join(", "), group.why)));
        }
    }
    list
}

fn notification(level: &str, text: &str) -> Value {
    json!({"level": level, "message": {"text": message(text)}})
}

/// A plain message: brackets would make links out of foreign text (SARIF 2.1.0, section 3.11.6).
fn message(text: &str) -> String {
    visible(text).replace('[', "\\[").replace(']', "\\]")
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

fn pascal(code: &str) -> String {
    let word = |w: &str| w[..1].to_ascii_uppercase() + &w[1..];
    code.split('-').filter(|w| !w.is_empty()).map(word).collect()
}

/// A file name as a URI: relative ones stay relative to the repository, as GitHub asks.
fn file_uri(file: &str) -> String {
    let mut uri = if file.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in file.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(byte.into()),
            b'\\' => uri.push('/'),
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

/// Names the series of runs that this one belongs to, up to the last slash.
fn run_id(report: &Report) -> String {
    let day = report.judged_at.strftime("%Y-%m-%d");
    let repositories = super::distinct(report.verdicts.iter().map(|v| &v.repository));
    let hosts = super::distinct(repositories.iter().map(|r| r.host.as_str()));
    match (repositories.as_slice(), hosts.as_slice()) {
        ([one], _) => format!("{TOOL}/{one}/{day}"),
        (_, [host]) => format!("{TOOL}/{host}/{day}"),
        _ => format!("{TOOL}/{day}"),
    }
}
