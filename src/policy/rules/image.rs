//! Requirements about what the tag leads to: `kind`, `index`, `platforms`, `keepsPlatforms`, `intact`,
//! `config`, `manifest`, `expect`.

use serde_json::json;

use super::super::expression::Expression;
use super::super::judge::{Case, Facts, Gather, Met};
use super::super::observation::{Cause, CauseKind, Fact, Span};
use super::super::reason::Reason;
use super::super::set::{IndexRule, KeepsPlatforms, Lead, PlatformRule, PlatformSet, Revision, Setting, WantedKind};
use super::super::verdict::{Finding, Rule, Severity, State};
use super::super::view::{Shape, View, view};
use super::{next_version, obstacle, relation};
use crate::document::Schema;
use crate::image::{Platform, PlatformRequirement, Tag};

/// `kind`.
pub(super) fn kind(case: &mut Case<'_>, setting: &Setting, wanted: WantedKind, facts: &Facts<'_>) -> Met {
    let found = match &facts.view.shape {
        Shape::Artifact { name, .. } => name.clone(),
        Shape::Index => "an index".to_owned(),
        Shape::Image | Shape::Legacy | Shape::Malformed(..) => "an image".to_owned(),
        // What cannot be seen is told by the requirement that needs it most; alone, `kind` says so itself.
        Shape::Absent | Shape::Undetermined(_) => match obstacle(&facts.view.shape) {
            Some(Err(cause)) => return case.undetermined(Rule::Kind, &cause),
            _ => return Met::Yes,
        },
    };
    if facts.view.lead().is_none_or(|lead| wanted.accepts(lead)) {
        return Met::Yes;
    }
    let message = format!("the tag leads to {found}; {} is required", wanted.in_words());
    let finding = case.finding(Rule::Kind, Reason::WrongKind, setting, message);
    case.found(Finding {
        advice: format!(
            "Push {found} under another tag or repository, and {} under `{}`.",
            wanted.in_words(),
            facts.tag
        ),
        expected: vec![wanted.in_words().to_owned()],
        actual: vec![found],
        ..finding
    })
}

/// Tells why nothing can be said of the image, under the requirement that is the first to need it.
fn unreadable(case: &mut Case<'_>, rule: Rule, setting: &Setting, facts: &Facts<'_>) -> Option<Met> {
    match obstacle(&facts.view.shape)? {
        Ok((reason, message)) => {
            let finding = case.finding(rule, reason, setting, message);
            Some(case.found(finding))
        }
        Err(cause) => Some(case.undetermined(rule, &cause)),
    }
}

/// What an artifact is, where an image is asked for.
fn no_image(facts: &Facts<'_>) -> Option<Met> {
    match &facts.view.shape {
        Shape::Artifact { name, .. } => Some(Met::Not(format!("it leads to {name}"))),
        _ => None,
    }
}

/// `index`.
pub(super) fn index<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    rule: IndexRule,
    facts: &Facts<'a>,
) -> Met {
    if let Some(met) = unreadable(case, Rule::Index, setting, facts).or_else(|| no_image(facts)) {
        return met;
    }
    if facts.view.shape == Shape::Index {
        return Met::Yes;
    }
    if rule.unless_single_platform && asks_for_one_platform(facts) {
        match relation::tagged_platforms(case, gather, facts) {
            None => return Met::Asked,
            // Where the version has tags for other platforms as well, one image is not all of it.
            Some(tagged) if tagged.iter().all(|t| facts.view.platforms().iter().any(|p| t.agrees_with_prefix(p))) => {
                return Met::Yes;
            }
            Some(_) => {}
        }
    }
    let platform = facts.view.platforms().first().map(|p| format!(" for {p}")).unwrap_or_default();
    let message = format!("the tag is one image{platform}; an index is required");
    let finding = case.finding(Rule::Index, Reason::NotAnIndex, setting, message);
    let Some(release) = release(case, gather, facts) else { return Met::Asked };
    let advice = publish_what(facts, &release, "as an index of all platforms");
    case.found(Finding { advice, expected: vec!["index".into()], actual: vec!["image".into()], ..finding })
}

fn asks_for_one_platform(facts: &Facts<'_>) -> bool {
    facts.class.require.platforms.as_ref().is_none_or(|(_, rule)| {
        rule.all.as_ref().is_none_or(|set| set.revisions.last().is_some_and(|r| r.platforms.len() == 1))
    })
}

/// The platforms required of a tag, and those of the newest revision where it must meet that as well.
struct Wanted<'a> {
    of_its_day: &'a Revision,
    newest: Option<&'a Revision>,
}

fn wanted<'a>(case: &Case<'_>, set: &'a PlatformSet, facts: &Facts<'_>, newest_too: bool) -> Wanted<'a> {
    let now = case.observation.now;
    let first_seen = facts.record.history.as_ref().and_then(|h| h.first_seen(facts.digest)).unwrap_or(now);
    let (of_its_day, newest) = (set.at(first_seen), set.at(now));
    Wanted { of_its_day, newest: (newest_too && newest != of_its_day).then_some(newest) }
}

fn missing<'a>(platforms: &[&Platform], wanted: &'a [PlatformRequirement]) -> Vec<&'a PlatformRequirement> {
    wanted.iter().filter(|w| !platforms.iter().any(|p| w.is_met_by(p))).collect()
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|i| i.to_string()).collect()
}

fn named(set: &PlatformSet) -> String {
    set.name.as_ref().map(|n| format!(" by platform set {n}")).unwrap_or_default()
}

/// `platforms`.
pub(super) fn platforms<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    rule: &PlatformRule,
    facts: &Facts<'a>,
) -> Met {
    if let Some(met) = unreadable(case, Rule::Platforms, setting, facts).or_else(|| no_image(facts)) {
        return met;
    }
    let Some(release) = release(case, gather, facts) else { return Met::Asked };
    // Tags that follow, and the highest version, are judged by the newest platform set as well.
    let newest_too = facts.class.require.follows.is_some() || release.is_highest;
    let has = facts.view.platforms();
    let mut met = Met::Yes;
    let unknown = facts.view.unknown.first();
    if let Some(set) = &rule.all {
        let wanted = wanted(case, set, facts, newest_too);
        let lacks = missing(has, &wanted.of_its_day.platforms);
        let lacks_newest = wanted.newest.map(|n| missing(has, &n.platforms)).unwrap_or_default();
        if (!lacks.is_empty() || !lacks_newest.is_empty())
            && let Some(cause) = unknown
        {
            return case.undetermined(Rule::Platforms, &cause.clone());
        }
        let all = &wanted.newest.unwrap_or(wanted.of_its_day).platforms;
        if !lacks.is_empty() {
            let message = format!(
                "{} {} required{} and {} not in the {}",
                list(&lacks),
                if lacks.len() == 1 { "is" } else { "are" },
                named(set),
                if lacks.len() == 1 { "is" } else { "are" },
                what(&facts.view),
            );
            let finding = case.finding(Rule::Platforms, Reason::MissingPlatform, setting, message);
            met = case.found(Finding {
                advice: publish(facts, &release, all),
                expected: texts(&wanted.of_its_day.platforms),
                actual: texts(has),
                ..finding
            });
        } else if !lacks_newest.is_empty() {
            let message = format!("{} is required{} since it was published", list(&lacks_newest), named(set));
            let finding = case.finding(Rule::Platforms, Reason::Recertify, setting, message);
            met = case.found(Finding {
                advice: publish(facts, &release, all),
                expected: texts(all),
                actual: texts(has),
                ..finding
            });
        }
    }
    if let Some(set) = &rule.any {
        let wanted = wanted(case, set, facts, newest_too);
        let revision = wanted.newest.unwrap_or(wanted.of_its_day);
        if missing(has, &revision.platforms).len() == revision.platforms.len() {
            if let Some(cause) = unknown {
                return case.undetermined(Rule::Platforms, &cause.clone());
            }
            let message = format!(
                "none of {} is in the {}, and one is required{}",
                list(&revision.platforms),
                what(&facts.view),
                named(set)
            );
            let finding = case.finding(Rule::Platforms, Reason::NoRequiredPlatform, setting, message);
            met = case.found(Finding { expected: texts(&revision.platforms), actual: texts(has), ..finding });
        }
    }
    if let Some(set) = &rule.only {
        let allowed = &wanted(case, set, facts, false).of_its_day.platforms;
        let extra: Vec<&&Platform> = has.iter().filter(|p| !allowed.iter().any(|a| a.is_met_by(p))).collect();
        if !extra.is_empty() {
            let message =
                format!("{} {} not allowed{}", list(&extra), if extra.len() == 1 { "is" } else { "are" }, named(set));
            let finding = case.finding(Rule::Platforms, Reason::UnexpectedPlatform, setting, message);
            met = case.found(Finding { expected: texts(allowed), actual: texts(has), ..finding });
        } else if let Some(cause) = unknown {
            return case.undetermined(Rule::Platforms, &cause.clone());
        }
    }
    met
}

fn what(view: &View<'_>) -> &'static str {
    if view.shape == Shape::Index { "index" } else { "image" }
}

/// The version that a tag is, or is at where it follows one.
struct Release<'a> {
    /// The version; `None` where a following tag is at none.
    version: Option<&'a Tag>,
    /// Whether it is the highest of its class, of those classes that something follows: only after that one is the
    /// next number known to be free.
    is_highest: bool,
}

/// The version that advice must speak of. `None` while it is being asked.
fn release<'a>(case: &Case<'_>, gather: &mut Gather<'a>, facts: &Facts<'a>) -> Option<Release<'a>> {
    let (version, class) = match &facts.class.require.follows {
        None => (Some(facts.tag), facts.member.class),
        Some((_, follows)) => {
            let class = follows.target.class;
            let there = gather.tagged(facts.digest)?;
            let ranked = |tag: &'a Tag| {
                let member = gather.member(case.policy, tag).filter(|m| m.class == class)?;
                Some((member.captures.rank(), tag))
            };
            let version = match there {
                Fact::Known(tags) => tags.iter().filter_map(ranked).max_by(|(one, _), (other, _)| one.cmp(other)),
                _ => None,
            };
            let version = version.map(|(_, tag)| tag);
            (version, class)
        }
    };
    // Where nothing follows the class, or nothing asks for platforms, no version is judged again when another takes
    // its place, so nothing that is said may depend on it.
    let followed = |c: &super::super::set::Class| c.is_followed && c.require.platforms.is_some();
    let line = case.policy.whole_line(class).filter(|_| followed(&case.policy.classes[class]));
    let is_highest = match (&version, line) {
        (Some(version), Some(line)) => {
            let highest = gather.whole_line(line, Span::Highest(1))?;
            matches!(highest, Fact::Known(tags) if tags.first() == Some(*version))
        }
        _ => false,
    };
    Some(Release { version, is_highest })
}

/// What to publish: the next version where the tag is one that must not change. `what` says what it must have.
fn publish_what(facts: &Facts<'_>, release: &Release<'_>, what: &str) -> String {
    let next = release.version.filter(|_| release.is_highest).and_then(next_version);
    let fixed = facts.class.require.immutable.is_some() || facts.class.require.follows.is_some();
    match (next, &release.version) {
        (Some(next), Some(version)) if fixed => format!("Publish {next} {what}: {version} must not change."),
        (_, Some(version)) if fixed => format!("Publish a new version {what}: {version} must not change."),
        _ => format!("Publish a version {what}."),
    }
}

fn publish(facts: &Facts<'_>, release: &Release<'_>, platforms: &[PlatformRequirement]) -> String {
    publish_what(facts, release, &format!("with all of {}", list(platforms)))
}

/// `keepsPlatforms`.
pub(super) fn keeps_platforms<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    keeps: &KeepsPlatforms,
    facts: &Facts<'a>,
) -> Met {
    if let Some(met) = unreadable(case, Rule::KeepsPlatforms, setting, facts).or_else(|| no_image(facts)) {
        return met;
    }
    let span = Span::Below(facts.member.captures.rank(), 1);
    let before = match gather.line(&keeps.line, facts.member.captures.group(&keeps.shared), span) {
        None => return Met::Asked,
        Some(Fact::Undetermined(cause)) => return case.undetermined(Rule::KeepsPlatforms, cause),
        Some(Fact::Absent) => return Met::Yes,
        Some(Fact::Known(tags)) => match tags.first() {
            Some(tag) => tag,
            None => return Met::Yes,
        },
    };
    let digest = match gather.tag(before) {
        None => return Met::Asked,
        Some(Fact::Known(record)) => match &record.current {
            Some(digest) => digest,
            None => return Met::Yes,
        },
        Some(Fact::Absent) => return Met::Yes,
        Some(Fact::Undetermined(cause)) => return case.undetermined(Rule::KeepsPlatforms, cause),
    };
    let Some(other) = view(gather, digest, true) else { return Met::Asked };
    if let Some(cause) = other.unknown.first().or(match &other.shape {
        Shape::Undetermined(cause) => Some(cause),
        _ => None,
    }) {
        return case.undetermined(Rule::KeepsPlatforms, &cause.clone());
    }
    let has = facts.view.platforms();
    let lost: Vec<&&Platform> = other.platforms().iter().filter(|p| !has.iter().any(|h| p.agrees_with(h))).collect();
    if lost.is_empty() {
        return Met::Yes;
    }
    if let Some(cause) = facts.view.unknown.first() {
        return case.undetermined(Rule::KeepsPlatforms, &cause.clone());
    }
    let (was, is) = if lost.len() == 1 { ("was", "is") } else { ("were", "are") };
    let message = format!("{} {was} in {before} and {is} not in {}", list(&lost), facts.tag);
    let finding = case.finding(Rule::KeepsPlatforms, Reason::PlatformRegression, setting, message);
    case.found(Finding { expected: texts(other.platforms()), actual: texts(has), ..finding })
}

/// `intact`.
pub(super) fn intact<'a>(case: &mut Case<'a>, gather: &mut Gather<'a>, setting: &Setting, facts: &Facts<'a>) -> Met {
    if let Some(met) = unreadable(case, Rule::Intact, setting, facts) {
        return met;
    }
    // Attestations must be there too; what is wrong with them is a warning.
    let mut lost = Vec::new();
    if let Some(Fact::Known(manifest)) = gather.manifest(facts.digest)
        && let Ok(parsed) = &manifest.parsed
        && let Some(index) = parsed.index()
    {
        let mut asked = false;
        for entry in index.entries.iter().filter(|e| e.is_attestation()) {
            match gather.manifest(&entry.digest) {
                None => asked = true,
                Some(Fact::Absent) => lost.push(entry.digest.clone()),
                Some(Fact::Undetermined(cause)) => {
                    case.undetermined(Rule::Intact, cause);
                }
                Some(Fact::Known(_)) => {}
            }
        }
        if asked {
            return Met::Asked;
        }
    }
    let mut met = Met::Yes;
    for problem in &facts.view.problems {
        let finding = case.finding(Rule::Intact, problem.reason, setting, problem.message.clone());
        met = case.found(Finding {
            severity: finding.severity.min(problem.at_most),
            expected: problem.expected.clone(),
            actual: problem.actual.clone(),
            ..finding
        });
    }
    for digest in lost {
        let message = format!("the attestation {} is listed and is not in the registry", digest.short());
        let finding = case.finding(Rule::Intact, Reason::BrokenIndex, setting, message);
        met = case.found(Finding { severity: finding.severity.min(Severity::Warning), ..finding });
    }
    for cause in &facts.view.unknown {
        met = case.undetermined(Rule::Intact, cause);
    }
    met
}

/// `config`: the config of every image meets a JSON Schema.
pub(super) fn config<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    schema: &Schema,
    facts: &Facts<'a>,
) -> Met {
    if let Some(met) = unreadable(case, Rule::Config, setting, facts).or_else(|| no_image(facts)) {
        return met;
    }
    let mut met = Met::Yes;
    let mut asked = false;
    for leaf in &facts.view.leaves {
        let Some(digest) = &leaf.config else { continue };
        match gather.config(digest) {
            None => asked = true,
            Some(Fact::Known(config)) => {
                let name = leaf.platform.as_ref().map_or_else(|| leaf.digest.short().to_owned(), ToString::to_string);
                met = worse(
                    met,
                    against(
                        case,
                        Rule::Config,
                        Reason::ConfigInvalid,
                        setting,
                        schema,
                        &config.bytes,
                        &format!("the config for {name}"),
                    ),
                );
            }
            Some(Fact::Absent) => {}
            Some(Fact::Undetermined(cause)) => met = case.undetermined(Rule::Config, cause),
        }
    }
    if let Some(cause) = facts.view.unknown.first() {
        met = case.undetermined(Rule::Config, &cause.clone());
    }
    if asked { Met::Asked } else { met }
}

fn worse(a: Met, b: Met) -> Met {
    if matches!(a, Met::Yes) { b } else { a }
}

/// `manifest`: the manifest itself meets a JSON Schema.
pub(super) fn manifest<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    schema: &Schema,
    facts: &Facts<'a>,
) -> Met {
    match gather.manifest(facts.digest) {
        None => Met::Asked,
        Some(Fact::Known(manifest)) => {
            against(case, Rule::Manifest, Reason::ManifestInvalid, setting, schema, &manifest.bytes, "the manifest")
        }
        Some(Fact::Absent) => unreadable(case, Rule::Manifest, setting, facts).unwrap_or(Met::Yes),
        Some(Fact::Undetermined(cause)) => case.undetermined(Rule::Manifest, cause),
    }
}

fn against(
    case: &mut Case<'_>,
    rule: Rule,
    reason: Reason,
    setting: &Setting,
    schema: &Schema,
    bytes: &[u8],
    name: &str,
) -> Met {
    let faults = match serde_json::from_slice(bytes) {
        Ok(json) if !schema.is_bounded_over(&json) => {
            let text = format!("{name} is too large for the policy's schema: so many questions are not asked");
            return case.undetermined(rule, &Cause { kind: CauseKind::Limit, text });
        }
        Ok(json) => schema.check(&json),
        Err(error) => vec![format!("it is not JSON: {error}")],
    };
    if faults.is_empty() {
        return Met::Yes;
    }
    let more = if faults.len() > 3 { format!(" and {} more", faults.len() - 3) } else { String::new() };
    let message = format!("{name}: {}{more}", faults.iter().take(3).cloned().collect::<Vec<_>>().join("; "));
    let finding = case.finding(rule, reason, setting, message);
    let advice = setting.note.as_deref().map_or(finding.advice.clone(), str::to_owned);
    case.found(Finding { advice, ..finding })
}

/// `expect`: every expression is true.
pub(super) fn expect<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    expressions: &[Expression],
    facts: &Facts<'a>,
) -> Met {
    let annotations = match gather.manifest(facts.digest) {
        None => return Met::Asked,
        Some(Fact::Known(manifest)) => serde_json::from_slice::<serde_json::Value>(&manifest.bytes).ok(),
        Some(_) => None,
    };
    let mut configs = Vec::new();
    let mut asked = false;
    for leaf in &facts.view.leaves {
        let Some(digest) = &leaf.config else { continue };
        match gather.config(digest) {
            None => asked = true,
            Some(Fact::Known(config)) => {
                configs.extend(serde_json::from_slice::<serde_json::Value>(&config.bytes).ok())
            }
            Some(_) => {}
        }
    }
    if asked {
        return Met::Asked;
    }
    if let Some(cause) = facts.view.unknown.first() {
        return case.undetermined(Rule::Expect, &cause.clone());
    }
    if let Shape::Undetermined(cause) = &facts.view.shape {
        return case.undetermined(Rule::Expect, &cause.clone());
    }
    let empty = || json!({});
    let image = json!({
        "digest": facts.digest.to_string(),
        "kind": facts.view.kind().map(super::super::verdict::Kind::as_str),
        "platforms": texts(facts.view.platforms()),
        "annotations": annotations.as_ref().and_then(|m| m.get("annotations")).cloned().unwrap_or_else(empty),
        "mediaType": annotations.as_ref().and_then(|m| m.get("mediaType")).cloned().unwrap_or(json!("")),
        "isImage": facts.view.lead() == Some(Lead::Image),
        "configs": configs,
    });
    let captures: serde_json::Map<_, _> =
        facts.member.captures.iter().map(|(n, v)| (n.to_owned(), json!(v.text()))).collect();
    let tag = json!({"name": facts.tag.as_str(), "class": &*facts.class.name, "captures": captures});
    let history: Vec<_> = facts
        .record
        .history
        .iter()
        .flat_map(|h| h.periods())
        .map(|p| {
            json!({
                "digest": p.digest.map(|d| d.to_string()),
                "from": p.from.as_second(),
                "to": p.to.map(|t| t.as_second()),
                "known": p.known.as_str(),
            })
        })
        .collect();
    let history = json!(history);
    let mut met = Met::Yes;
    for expression in expressions {
        match expression.holds(&image, &tag, &history, case.observation.now.as_second()) {
            Ok(true) => {}
            Ok(false) => {
                let finding = case.finding(
                    Rule::Expect,
                    Reason::ExpressionFalse,
                    setting,
                    format!("{}: {}", expression.name, expression.message),
                );
                met = case.found(Finding {
                    advice: expression.message.clone(),
                    expected: vec![expression.as_str().to_owned()],
                    ..finding
                });
            }
            Err(error) => {
                let finding = case.finding(
                    Rule::Expect,
                    Reason::ExpressionFailed,
                    setting,
                    format!("{}: {error}", expression.name),
                );
                met = case.found(Finding { state: State::Firing, ..finding });
            }
        }
    }
    met
}
