//! Tests of policies: `TagPolicyTest` documents run against a modelled registry, through the judge that the
//! daemon uses. Pure: documents in, results out; nothing is read, printed or waited for.

mod expect;
mod manifests;
mod registry;
mod spec;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::compile::ReadFile;
use super::load::Document;
use super::set::PolicySet;
use super::verdict::{PolicyLocation, Rule};
use crate::document::Fault;
use spec::{Case, Report, Step, Suite};
use world::{Event, World};

/// What became of all cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The cases, in the order of the documents.
    pub cases: Vec<CaseResult>,
    /// The requirements of the policies under test that no case ever made fail.
    pub uncovered: Vec<Uncovered>,
}

impl Trial {
    /// Whether every case came out as expected.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(CaseResult::passed)
    }
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    /// The name of its document.
    pub suite: Arc<str>,
    /// Its own name.
    pub name: String,
    /// The policy under test.
    pub policy: Arc<str>,
    /// Where it stands.
    pub source: Option<Arc<PolicyLocation>>,
    /// How many expectations were compared.
    pub expectations: usize,
    /// The expectations that were not met.
    pub differences: Vec<Difference>,
}

impl CaseResult {
    /// Whether everything came out as expected.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// One expectation that was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// After which step: `step 2 (the arm image follows)`.
    pub step: String,
    /// The time of that step.
    pub at: Timestamp,
    /// The tag, or `class:NAME`.
    pub subject: String,
    /// Where the expectation stands.
    pub source: Option<Arc<PolicyLocation>>,
    /// What differs.
    pub lines: Vec<Line>,
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The requirement, or `class`, `outcome`, `verdict`.
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What came out.
    pub actual: String,
}

/// A requirement that no case made fail: nobody knows yet whether it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncovered {
    /// The policy.
    pub policy: Arc<str>,
    /// The class; empty for `form`, which belongs to tags without one.
    pub class: Arc<str>,
    /// The requirement.
    pub rule: Rule,
    /// Where it stands.
    pub source: Option<Arc<PolicyLocation>>,
}

/// Runs the test documents among `tests` against the policies and platform sets among `documents`.
///
/// # Errors
/// Every fault of tests and policies: a name that nothing has, a time that runs back, a policy that does not
/// compile. Nothing is judged then.
pub fn run(tests: &[Document], documents: &[Document], read_file: ReadFile<'_>) -> Result<Trial, Vec<Fault>> {
    let suites = spec::suites(tests, documents, read_file)?;
    let mut trial = Trial { cases: Vec::new(), uncovered: Vec::new() };
    let mut unmet = BTreeSet::new();
    let mut tested: Vec<Arc<PolicySet>> = Vec::new();
    for suite in &suites {
        for case in &suite.cases {
            if !tested.iter().any(|set| set.hash() == case.policies.hash()) {
                tested.push(case.policies.clone());
            }
            trial.cases.push(run_case(suite, case, &mut unmet));
        }
    }
    for policy in tested.iter().flat_map(|set| set.policies()) {
        let mut asked = Vec::new();
        for class in &policy.classes {
            let required = class.require.rules().into_iter().map(|(rule, s)| (class.name.clone(), rule, &s.source));
            asked.extend(required);
            asked.extend(class.expected.as_ref().map(|s| (class.name.clone(), Rule::Expected, &s.source)));
        }
        asked.extend(policy.other_tags.as_ref().map(|s| ("".into(), Rule::Form, &s.source)));
        for (class, rule, source) in asked {
            let key = (policy.name.clone(), class, rule);
            let known = |u: &Uncovered| (&u.policy, &u.class, u.rule) == (&key.0, &key.1, key.2);
            if !unmet.contains(&key) && !trial.uncovered.iter().any(known) {
                let (policy, class, rule) = key;
                trial.uncovered.push(Uncovered { policy, class, rule, source: source.clone() });
            }
        }
    }
    Ok(trial)
}

fn run_case(suite: &Suite, case: &Case, unmet: &mut BTreeSet<(Arc<str>, Arc<str>, Rule)>) -> CaseResult {
    let mut world =
        World::new(suite.repository.clone(), suite.catalogue.clone(), case.policies.clone(), case.start, case.recorded);
    world.registry.has_locks = case.has_locks;
    for (tag, name) in &case.existing {
        if let Some(digest) = world.digest(name) {
            world.registry.push(&digest);
            world.registry.tags.insert(tag.clone(), digest);
        }
    }
    world.audit();
    let mut result = CaseResult {
        suite: suite.name.clone(),
        name: case.name.clone(),
        policy: suite.policy.clone(),
        source: case.source.clone(),
        expectations: 0,
        differences: Vec::new(),
    };
    for step in &case.steps {
        world.pass_time(step.at);
        take(&mut world, step);
        if !case.recorded {
            world.check();
        }
        for expectation in &step.expect {
            result.expectations += 1;
            let verdict = world.verdict(&suite.policy, &expectation.subject);
            let violation = |rule| world.violation(&suite.policy, &expectation.subject, rule);
            let lines = expect::compare(expectation, verdict, violation);
            if !lines.is_empty() {
                result.differences.push(Difference {
                    step: step.title.clone(),
                    at: step.at,
                    subject: expectation.subject.to_string(),
                    source: expectation.source.clone(),
                    lines,
                });
            }
        }
    }
    unmet.append(&mut world.unmet);
    result
}

/// One step: the registry changes first, then the events about it arrive.
fn take(world: &mut World, step: &Step) {
    if let Some(set) = &step.apply {
        world.apply(set.clone());
    }
    for (name, health) in &step.registry {
        world.registry.answer(name, health.clone());
    }
    world.try_again();
    let mut events = Vec::new();
    for tag in &step.untag {
        world.registry.tags.remove(tag);
        events.push(Event::Untag { tag: tag.clone(), at: step.at });
    }
    for digest in digests(world, &step.delete) {
        world.registry.delete(&digest);
        events.push(Event::Delete { digest, at: step.at });
    }
    for (tag, name) in &step.push {
        let Some(digest) = world.digest(name) else { continue };
        world.registry.push(&digest);
        world.registry.tags.insert(tag.clone(), digest.clone());
        events.push(Event::Push { tag: tag.clone(), digest, at: step.at });
    }
    for digest in digests(world, &step.push_by_digest) {
        world.registry.push(&digest);
        events.push(Event::PushByDigest(digest));
    }
    for tag in &step.lock {
        world.registry.locked.insert(tag.clone());
        events.push(Event::Look(tag.clone()));
    }
    for tag in &step.unlock {
        world.registry.locked.remove(tag);
        events.push(Event::Look(tag.clone()));
    }
    if step.silently {
        events.clear();
    }
    if let Some(report) = &step.report {
        events.extend(reported(world, report));
    }
    for _ in 0..step.times {
        world.deliver(&events);
    }
    for (tag, name) in &step.accept {
        if let Some(digest) = world.digest(name) {
            world.accept(tag, digest);
        }
    }
    if step.audit {
        world.audit();
    }
}

fn digests(world: &World, names: &[String]) -> Vec<crate::image::Digest> {
    names.iter().filter_map(|name| world.digest(name)).collect()
}

fn reported(world: &World, report: &Report) -> Vec<Event> {
    let at = report.happened;
    let untag = report.untag.iter().map(|tag| Event::Untag { tag: tag.clone(), at });
    let delete = digests(world, &report.delete).into_iter().map(|digest| Event::Delete { digest, at });
    let push = report
        .push
        .iter()
        .filter_map(|(tag, name)| world.digest(name).map(|digest| Event::Push { tag: tag.clone(), digest, at }));
    untag.chain(delete).chain(push).collect()
}
