//! Compares what a test document expects with the verdicts that came out.

use super::super::reason::Reason;
use super::super::verdict::{Finding, Rule, Severity, State, Verdict};
use super::super::violation::Violation;
use super::Line;
use super::spec::{Expectation, Wanted};

/// What became of one requirement.
struct Seen {
    state: &'static str,
    reason: Option<Reason>,
    severity: Option<Severity>,
    message: String,
    expected: Vec<String>,
    actual: Vec<String>,
}

fn state_of(finding: &Finding) -> &'static str {
    match (finding.is_error(), finding.severity, finding.state) {
        (true, ..) => "error",
        (false, _, State::Resolved) => "resolved",
        // A note leaves a pass a pass.
        (false, Severity::Info, _) => "pass",
        (false, _, State::Pending) => "pending",
        (false, _, State::Firing) => "firing",
    }
}

fn is_unmet(finding: &Finding) -> bool {
    matches!(state_of(finding), "error" | "pending" | "firing")
}

fn sorted(items: &[String]) -> Vec<String> {
    let mut items = items.to_vec();
    items.sort();
    items
}

/// Everything that can be said of a requirement, the most telling first.
fn seen(verdict: &Verdict, rule: Rule, violation: Option<&Violation>) -> Vec<Seen> {
    let mut all: Vec<Seen> = verdict
        .findings
        .iter()
        .filter(|f| f.rule == rule)
        .map(|f| Seen {
            state: state_of(f),
            reason: Some(f.reason),
            severity: Some(f.severity),
            message: f.message.clone(),
            expected: sorted(&f.expected),
            actual: sorted(&f.actual),
        })
        .collect();
    let unmet = verdict.findings.iter().any(|f| f.rule == rule && is_unmet(f));
    if let Some(violation) = violation.filter(|v| v.state == State::Resolved && !unmet) {
        all.push(Seen {
            state: "resolved",
            reason: Some(violation.reason),
            severity: Some(violation.severity),
            message: violation.message.clone(),
            expected: sorted(&violation.expected),
            actual: sorted(&violation.actual),
        });
    }
    let plain = |state, message: &str| Seen {
        state,
        reason: None,
        severity: None,
        message: message.to_owned(),
        expected: Vec::new(),
        actual: Vec::new(),
    };
    if let Some(not) = verdict.not_evaluated.iter().find(|n| n.rule == rule) {
        all.push(plain("not-evaluated", &not.why));
    } else if !unmet {
        all.push(plain("pass", ""));
    }
    all
}

impl Seen {
    fn fits(&self, wanted: &Wanted) -> bool {
        self.state == wanted.state
            && wanted.reason.is_none_or(|r| self.reason == Some(r))
            && wanted.severity.is_none_or(|s| self.severity == Some(s))
            && wanted.message.as_ref().is_none_or(|m| self.message.contains(m.as_str()))
            && wanted.expected.as_ref().is_none_or(|e| self.expected == *e)
            && wanted.actual.as_ref().is_none_or(|a| self.actual == *a)
    }

    /// In words, with the fields that the expectation speaks of.
    fn told(&self, wanted: &Wanted) -> String {
        let mut out = self.state.to_owned();
        if let Some(reason) = self.reason {
            out += &format!(", reason {reason}");
        }
        if let Some(severity) = self.severity.filter(|_| wanted.severity.is_some()) {
            out += &format!(", severity {severity}");
        }
        if wanted.expected.is_some() {
            out += &format!(", expected [{}]", self.expected.join(", "));
        }
        if wanted.actual.is_some() {
            out += &format!(", actual [{}]", self.actual.join(", "));
        }
        if !self.message.is_empty() {
            out += &format!(": {}", self.message);
        }
        out
    }
}

fn told(wanted: &Wanted) -> String {
    let mut out = wanted.state.clone();
    if let Some(reason) = wanted.reason {
        out += &format!(", reason {reason}");
    }
    if let Some(severity) = wanted.severity {
        out += &format!(", severity {severity}");
    }
    for (name, list) in [("expected", &wanted.expected), ("actual", &wanted.actual)] {
        if let Some(list) = list {
            out += &format!(", {name} [{}]", list.join(", "));
        }
    }
    if let Some(message) = &wanted.message {
        out += &format!(": …{message}…");
    }
    out
}

/// Where verdict and expectation differ; empty where they do not.
pub(super) fn compare<'v>(
    expectation: &Expectation,
    verdict: Option<&Verdict>,
    violation: impl Fn(Rule) -> Option<&'v Violation>,
) -> Vec<Line> {
    let line = |what: &str, expected: String, actual: String| Line { what: what.to_owned(), expected, actual };
    let Some(verdict) = verdict else {
        return vec![line("verdict", "one".into(), "none: nothing that happened concerns it".into())];
    };
    let mut lines = Vec::new();
    if let Some(class) = &expectation.class
        && verdict.class.as_deref() != Some(class)
    {
        let actual = verdict.class.as_deref().unwrap_or("none").to_owned();
        lines.push(line("class", class.clone(), actual));
    }
    if let Some(outcome) = expectation.outcome
        && verdict.outcome != outcome
    {
        lines.push(line("outcome", outcome.to_string(), verdict.outcome.to_string()));
    }
    for (rule, wanted) in expectation.findings.iter().flatten() {
        let all = seen(verdict, *rule, violation(*rule));
        if !all.iter().any(|s| s.fits(wanted)) {
            let actual = all.iter().map(|s| s.told(wanted)).collect::<Vec<_>>().join("; or ");
            lines.push(line(rule.as_str(), told(wanted), actual));
        }
    }
    // What nobody expected: of an outcome alone, only where it is another.
    let named = |rule: Rule| expectation.findings.iter().flatten().any(|(r, _)| *r == rule);
    if expectation.findings.is_some() || !lines.is_empty() {
        for finding in verdict.findings.iter().filter(|f| is_unmet(f) && !named(f.rule)) {
            let actual = format!("{}, reason {}: {}", state_of(finding), finding.reason, finding.message);
            lines.push(line(finding.rule.as_str(), "pass".into(), actual));
        }
    }
    lines
}
