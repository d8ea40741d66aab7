//! Violations over time: pending, firing, resolved, each entered once.
//!
//! A violation is one (policy, repository, tag, requirement). Its state follows from the violation on
//! record, the finding of today and the time; nothing here reads a clock.

use std::sync::Arc;

use jiff::Timestamp;

use super::reason::Reason;
use super::set::PolicySet;
use super::verdict::{Finding, Outcome, Rule, Severity, State, Verdict};
use crate::image::{Digest, Repository, Tag};

/// What identifies a violation within its repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViolationKey {
    /// The policy.
    pub policy: Arc<str>,
    /// The tag; `None` where the class has no tag at all.
    pub tag: Option<Tag>,
    /// The class, which tells two tagless violations apart.
    pub class: Arc<str>,
    /// The requirement.
    pub rule: Rule,
}

/// A violation as it stands on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What identifies it.
    pub key: ViolationKey,
    /// The reason it has now.
    pub reason: Reason,
    /// Its severity now.
    pub severity: Severity,
    /// Its state.
    pub state: State,
    /// The digest judged last.
    pub digest: Option<Digest>,
    /// One sentence for people.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// What was asked for.
    pub expected: Vec<String>,
    /// What is there.
    pub actual: Vec<String>,
    /// Since when it is unmet.
    pub since: Timestamp,
    /// When it fires unless mended, while pending.
    pub fires_at: Option<Timestamp>,
    /// When it entered firing.
    pub fired_at: Option<Timestamp>,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// Whether it is only previewed: on record and counted, never alerted.
    pub preview: bool,
}

/// An edge that somebody must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// It entered firing.
    Fired,
    /// It had fired and is resolved.
    Resolved,
}

/// A violation as it shall be recorded, with the edge to announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The violation as it is from now on.
    pub violation: Violation,
    /// What to announce, if anything.
    pub edges: Vec<Edge>,
}

/// Brings the violations of one verdict up to date, and the verdict's findings into their states.
///
/// `open` are the pending and firing violations on record for this policy and tag. Whatever is open and
/// neither found again nor undetermined is resolved.
pub fn advance(verdict: &mut Verdict, open: &[Violation], now: Timestamp) -> Vec<Change> {
    let class: Arc<str> = verdict.class.clone().unwrap_or_else(|| "".into());
    let mut changes: Vec<Change> = Vec::new();
    let undetermined: Vec<Rule> = verdict.findings.iter().filter(|f| f.is_error()).map(|f| f.rule).collect();
    let not_evaluated: Vec<Rule> = verdict.not_evaluated.iter().map(|n| n.rule).collect();

    let mut rules: Vec<Rule> = Vec::new();
    for rule in verdict.findings.iter().filter(|f| counts(f)).map(|f| f.rule) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    for rule in rules {
        let key = ViolationKey {
            policy: verdict.policy.clone(),
            tag: verdict.subject.tag.clone(),
            class: class.clone(),
            rule,
        };
        let known = open.iter().find(|v| v.key == key);
        let found: Vec<&mut Finding> = verdict.findings.iter_mut().filter(|f| f.rule == rule && counts(f)).collect();
        changes.push(settle(key, known, found, verdict.subject.digest.clone(), verdict.preview, now));
    }
    for violation in open.iter().filter(|v| concerns(v, verdict, &class)) {
        let rule = violation.key.rule;
        let still = changes.iter().any(|c| c.violation.key == violation.key);
        // What could not be determined, or was not evaluated because of it, stays as it was.
        if still || undetermined.contains(&rule) || (!undetermined.is_empty() && not_evaluated.contains(&rule)) {
            continue;
        }
        changes.push(resolve(violation, now, violation.reason));
    }
    verdict.outcome = Verdict::outcome_of(&verdict.findings, verdict.outcome == Outcome::Ignored);
    changes
}

/// Whether a violation on record is this verdict's business. Of a tag, whatever its class was; of what lacks any
/// tag, the same class.
fn concerns(violation: &Violation, verdict: &Verdict, class: &str) -> bool {
    violation.key.policy == verdict.policy
        && violation.key.tag == verdict.subject.tag
        && (violation.key.tag.is_some() || *violation.key.class == *class)
}

fn counts(finding: &Finding) -> bool {
    !finding.is_error() && finding.severity > Severity::Info
}

/// Several findings of one requirement are one violation: the worst names it, all messages are kept.
fn settle(
    key: ViolationKey,
    known: Option<&Violation>,
    mut found: Vec<&mut Finding>,
    digest: Option<Digest>,
    preview: bool,
    now: Timestamp,
) -> Change {
    let since = known.map_or_else(|| found.iter().map(|f| f.since).min().unwrap_or(now), |v| v.since).min(now);
    let was_firing = known.is_some_and(|v| v.state == State::Firing);
    for finding in &mut found {
        finding.since = since;
        if finding.state != State::Resolved && !was_firing && now < fires_at(since, finding.wait) {
            finding.state = State::Pending;
        }
    }
    // Resolved findings (a move undone before it was judged) only count when nothing else is unmet.
    let live: Vec<&&mut Finding> = found.iter().filter(|f| f.state != State::Resolved).collect();
    let shown: Vec<&&mut Finding> = if live.is_empty() { found.iter().collect() } else { live };
    let worst = shown.iter().max_by_key(|f| (f.state == State::Firing, f.severity)).expect("a rule with a finding");
    let state = worst.state;
    let fires = shown.iter().map(|f| fires_at(since, f.wait)).min().unwrap_or(now);
    let mut edges = Vec::new();
    // One that was only previewed has never been told.
    let told = was_firing && !known.is_some_and(|v| v.preview && !preview);
    if !told && state != State::Pending {
        edges.push(Edge::Fired);
    }
    if state == State::Resolved {
        edges.push(Edge::Resolved);
    }
    let message = shown.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; ");
    let violation = Violation {
        key,
        reason: worst.reason,
        severity: shown.iter().map(|f| f.severity).max().unwrap_or(worst.severity),
        state,
        digest,
        message,
        advice: worst.advice.clone(),
        expected: worst.expected.clone(),
        actual: worst.actual.clone(),
        since,
        fires_at: (state == State::Pending).then_some(fires),
        fired_at: known.and_then(|v| v.fired_at).or((state != State::Pending).then_some(now)),
        resolved_at: (state == State::Resolved).then_some(now),
        preview,
    };
    Change { violation, edges }
}

/// When a finding unmet since `since` fires; a waiting time beyond the calendar never ends.
fn fires_at(since: Timestamp, wait: jiff::SignedDuration) -> Timestamp {
    since.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// The violation as resolved now; announced only if it had fired.
pub fn resolve(violation: &Violation, now: Timestamp, reason: Reason) -> Change {
    let fired = violation.state == State::Firing;
    Change {
        violation: Violation {
            state: State::Resolved,
            reason,
            fires_at: None,
            resolved_at: Some(now),
            ..violation.clone()
        },
        edges: if fired { vec![Edge::Resolved] } else { Vec::new() },
    }
}

/// Whether nothing asks any more for what a violation is about: its policy is gone or does not govern the
/// repository, or its class expects no tag now. Violations of tags are otherwise brought up to date by judging
/// the tag again.
pub fn is_obsolete(violation: &Violation, set: &PolicySet, repository: &Repository) -> bool {
    let governing = set.governing(repository);
    let Some(policy) = governing.iter().find(|p| p.name == violation.key.policy) else { return true };
    let expects = || policy.classes.iter().any(|c| c.name == violation.key.class && c.expected.is_some());
    violation.key.tag.is_none() && !expects()
}
