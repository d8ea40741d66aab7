//! What a verdict on something that has not happened yet has against it: the requirements with
//! `enforce: [deny]`.

use super::set::{Mode, PolicySet};
use super::verdict::{Finding, Rule, State, Verdict};

/// The action, as policies write it.
const DENY: &str = "deny";

/// The findings of `verdict` for which the push may be refused.
///
/// What could not be determined is never among them, nor is what may be unmet for a while (`for`, `settle`),
/// nor anything outside `mode: enforce`.
pub fn denials<'a>(set: &PolicySet, verdict: &'a Verdict) -> Vec<&'a Finding> {
    let Some(policy) = set.policies().iter().find(|p| p.name == verdict.policy && p.mode == Mode::Enforce) else {
        return Vec::new();
    };
    let class = policy.classes.iter().find(|class| Some(&class.name) == verdict.class.as_ref());
    let denies = |finding: &Finding| {
        let setting = match (finding.rule, class) {
            (Rule::Form, _) => policy.other_tags.as_ref(),
            (rule, Some(class)) => class.require.rules().into_iter().find(|(r, _)| *r == rule).map(|(_, s)| s),
            (_, None) => None,
        };
        setting.is_some_and(|setting| setting.enforce.iter().any(|action| &**action == DENY))
    };
    let unmet = |finding: &Finding| !finding.is_error() && finding.state == State::Firing && finding.wait.is_zero();
    verdict.findings.iter().filter(|finding| unmet(finding) && denies(finding)).collect()
}
