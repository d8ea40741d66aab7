//! One cause is told once: findings of several tags that say the same become one.

use crate::image::{Platform, PlatformRequirement as Requirement};
use crate::policy::{Finding, Reason, Rule, Severity, Verdict};
use crate::report::{Standing, distinct, visible};

/// Findings that say the same of several tags.
pub(in crate::report) struct Cause<'a> {
    pub(in crate::report) standing: Standing,
    pub(in crate::report) rule: Rule,
    pub(in crate::report) reason: Reason,
    pub(in crate::report) severity: Severity,
    /// What is wrong, in few words.
    pub(in crate::report) headline: String,
    /// Who has it, with the finding of each.
    pub(in crate::report) members: Vec<(&'a Verdict, &'a Finding)>,
}

/// Requirements that were not evaluated, for one reason, of the same tags.
pub(in crate::report) struct Unevaluated<'a> {
    pub(in crate::report) rules: Vec<Rule>,
    pub(in crate::report) why: String,
    pub(in crate::report) verdicts: Vec<&'a Verdict>,
}

/// The causes in these verdicts, worst first, each kind in the order of the verdicts.
pub(in crate::report) fn causes<'a>(verdicts: &[&'a Verdict]) -> Vec<Cause<'a>> {
    let mut causes: Vec<Cause<'a>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for verdict in verdicts {
        for finding in &verdict.findings {
            let standing = Standing::of(finding);
            let headline = headline(finding);
            let key = (standing, finding.rule, finding.reason, finding.severity, headline.clone());
            let place = *places.entry(key).or_insert_with(|| {
                causes.push(Cause {
                    standing,
                    rule: finding.rule,
                    reason: finding.reason,
                    severity: finding.severity,
                    headline,
                    members: Vec::new(),
                });
                causes.len() - 1
            });
            causes[place].members.push((verdict, finding));
        }
    }
    causes.sort_by_key(|c| (c.standing, std::cmp::Reverse(c.severity)));
    causes
}

/// What was not evaluated, by reason and tags.
pub(in crate::report) fn unevaluated<'a>(verdicts: &[&'a Verdict]) -> Vec<Unevaluated<'a>> {
    let mut by_rule: Vec<Unevaluated<'a>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for verdict in verdicts {
        for item in &verdict.not_evaluated {
            let place = *places.entry((item.rule, item.why.as_str())).or_insert_with(|| {
                by_rule.push(Unevaluated { rules: vec![item.rule], why: item.why.clone(), verdicts: Vec::new() });
                by_rule.len() - 1
            });
            by_rule[place].verdicts.push(verdict);
        }
    }
    let mut grouped: Vec<Unevaluated<'a>> = Vec::new();
    for item in by_rule {
        let same = |g: &&mut Unevaluated<'a>| {
            g.why == item.why
                && g.verdicts.len() == item.verdicts.len()
                && g.verdicts.iter().zip(&item.verdicts).all(|(a, b)| std::ptr::eq(*a, *b))
        };
        match grouped.iter_mut().find(same) {
            Some(group) => group.rules.extend(item.rules),
            None => grouped.push(item),
        }
    }
    for group in &mut grouped {
        if group.verdicts.len() > 1 {
            group.why = group.why.replace("this tag", "these tags");
        }
    }
    grouped
}

/// What is wrong in few words. For missing platforms those that are missing: the policy's name and the set's
/// stand elsewhere, and so tags with the same lack share a line.
fn headline(finding: &Finding) -> String {
    let missing = missing(finding);
    match (finding.reason, missing.as_slice()) {
        (Reason::MissingPlatform, [one]) => format!("{one} is missing"),
        (Reason::MissingPlatform, [all @ .., last]) => format!("{} and {last} are missing", all.join(", ")),
        _ => visible(&finding.message),
    }
}

/// The platforms that a finding asks for and that are not there.
pub(in crate::report) fn missing(finding: &Finding) -> Vec<String> {
    let actual: Vec<Platform> = finding.actual.iter().filter_map(|p| p.parse().ok()).collect();
    let wanted = finding.expected.iter().filter_map(|p| p.parse::<Requirement>().ok());
    wanted.filter(|w| !actual.iter().any(|p| w.is_met_by(p))).map(|w| w.to_string()).collect()
}

/// The names of the tags, each once: the tag, else the digest, else the class that has none.
pub(in crate::report) fn tag_names<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Vec<String> {
    distinct(verdicts.map(tag_name))
}

/// The short name of what a verdict is about, within its repository.
pub(in crate::report) fn tag_name(verdict: &Verdict) -> String {
    match (&verdict.subject.tag, &verdict.subject.digest, &verdict.class) {
        (Some(tag), ..) => tag.to_string(),
        (None, Some(digest), _) => format!("@{}", digest.short()),
        (None, None, Some(class)) => format!("class {}", visible(class)),
        (None, None, None) => "repository".to_owned(),
    }
}
