//! Requirements about other tags: `follows`, `memberOf`, `membersTagged`.

use super::super::form::Captures;
use super::super::judge::{Case, Facts, Gather, Met};
use super::super::observation::{Cause, Fact, Span, TagRecord};
use super::super::reason::Reason;
use super::super::set::{FollowsRule, Relation, Setting};
use super::super::verdict::{Finding, Rule, Severity};
use super::super::view::{Leaf, Shape, View, is_no_image, view};
use crate::image::{Digest, Platform, Tag};

/// Most images whose origin is looked for when a tag may mix versions.
const MIXED_MAX: usize = 32;

/// What a helper came to: the value, or the end of the requirement.
type Step<T> = Result<T, Met>;

fn tags(case: &mut Case<'_>, rule: Rule, fact: Option<Fact<std::sync::Arc<[Tag]>>>) -> Step<Vec<Tag>> {
    match fact {
        None => Err(Met::Asked),
        Some(Fact::Known(tags)) => Ok(tags.to_vec()),
        Some(Fact::Absent) => Ok(Vec::new()),
        Some(Fact::Undetermined(cause)) => Err(case.undetermined(rule, &cause)),
    }
}

fn digest_of(case: &mut Case<'_>, gather: &mut Gather<'_>, rule: Rule, tag: &Tag) -> Step<Option<Digest>> {
    match gather.tag(tag) {
        None => Err(Met::Asked),
        Some(Fact::Known(record)) => Ok(record.current.clone()),
        Some(Fact::Absent) => Ok(None),
        Some(Fact::Undetermined(cause)) => Err(case.undetermined(rule, &cause)),
    }
}

fn cause_of(view: &View) -> Option<&Cause> {
    match &view.shape {
        Shape::Undetermined(cause) => Some(cause),
        _ => view.unknown.first(),
    }
}

/// `follows`.
pub(super) fn follows(
    case: &mut Case<'_>,
    gather: &mut Gather<'_>,
    setting: &Setting,
    rule: &FollowsRule,
    facts: &Facts<'_>,
) -> Met {
    follow(case, gather, setting, rule, facts).unwrap_or_else(|end| end)
}

fn follow(
    case: &mut Case<'_>,
    gather: &mut Gather<'_>,
    setting: &Setting,
    rule: &FollowsRule,
    facts: &Facts<'_>,
) -> Step<Met> {
    let Some(pairing) = rule.target.by_form.get(facts.form) else { return Ok(Met::Yes) };
    let today = case.observation.now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let withdrawn = |tag: &Tag| {
        rule.withdrawn.iter().find(|w| &*w.tag == tag.as_str() && w.until.is_none_or(|until| today <= until))
    };
    let group_of_own = facts.captures.group(&pairing.shared);
    let highest = gather.line(&pairing.theirs, group_of_own.clone(), Span::Highest(1 + rule.withdrawn.len().min(50)));
    let candidates = tags(case, Rule::Follows, highest)?;
    let target_class = &case.policy.classes[rule.target.class];

    // Which version the tag is at: for people, and for the reason.
    let here = gather.tagged(facts.digest);
    let here = tags(case, Rule::Follows, here)?;
    let rank = |case: &Case<'_>, gather: &Gather<'_>, tag: &Tag| {
        gather.member(case.policy, tag).filter(|m| m.class == rule.target.class).map(|m| m.captures.rank())
    };
    let shares = |case: &Case<'_>, gather: &Gather<'_>, tag: &Tag| {
        gather.member(case.policy, tag).is_some_and(|m| m.captures.group(&pairing.shared) == group_of_own)
    };
    let at = here.iter().filter(|t| rank(case, gather, t).is_some()).max_by_key(|t| rank(case, gather, t)).cloned();
    if let Some(at) = &at {
        case.at_version(at.clone());
    }

    let Some(version) = candidates.iter().find(|t| withdrawn(t).is_none()).cloned() else {
        if target_class.expected.is_some() {
            let whole = case.policy.whole_line(rule.target.class).cloned();
            let any = match whole {
                Some(line) => {
                    let fact = gather.line(&line, Captures::default().group(&[]), Span::Highest(1));
                    !tags(case, Rule::Follows, fact)?.is_empty()
                }
                None => false,
            };
            if !any {
                return Ok(Met::Not(format!(
                    "there is no tag of class {} at all, which a finding of its own says",
                    target_class.name
                )));
            }
        }
        let line = if pairing.shared.is_empty() { String::new() } else { " of its line".to_owned() };
        let message = format!("there is no version{line} for `{}` to follow", facts.tag);
        let finding = case.finding(Rule::Follows, Reason::Orphan, setting, message);
        return Ok(case.found(finding));
    };
    let Some(digest) = digest_of(case, gather, Rule::Follows, &version)? else {
        return Ok(Met::Not(format!("`{version}` is not there any more")));
    };
    // Two tags can be one version (`2026.3.0` and `2026.03.0` in a calendar's form): either is the highest.
    if digest == *facts.digest
        || at
            .as_ref()
            .is_some_and(|at| rank(case, gather, at) == rank(case, gather, &version) && shares(case, gather, at))
    {
        case.at_version(version);
        return Ok(Met::Yes);
    }

    // Another digest: perhaps the very same images.
    let Some(theirs) = view(gather, &digest, false) else { return Err(Met::Asked) };
    if let Some(cause) = cause_of(&theirs).or_else(|| cause_of(facts.view)) {
        return Ok(case.undetermined(Rule::Follows, &cause.clone()));
    }
    if !theirs.leaves.is_empty() && images(&theirs) == images_listed(gather, facts)? {
        let message = format!("`{}` is another index of the very same images as {version}", facts.tag);
        let finding = case.finding(Rule::Follows, Reason::SameImages, setting, message);
        case.at_version(version);
        return Ok(case.found(Finding { severity: Severity::Info, ..finding }));
    }
    let name = |d: &Digest| d.short().to_owned();
    let (reason, message) = match &at {
        None => match mixed(case, gather, rule, facts)? {
            Some(versions) => (
                Reason::MixedVersions,
                format!("the images under `{}` come from different versions: {versions}", facts.tag),
            ),
            None => (
                Reason::Unversioned,
                format!(
                    "`{}` points to {}, which no version has; the highest is {version}",
                    facts.tag,
                    name(facts.digest)
                ),
            ),
        },
        Some(at) => match withdrawn(at) {
            Some(w) => (Reason::Withdrawn, format!("`{}` is at {at}, which is withdrawn: {}", facts.tag, w.reason)),
            None if rank(case, gather, at) > rank(case, gather, &version) => (
                Reason::Lagging,
                format!("`{}` is at {at}, which is not of its line; the highest is {version}", facts.tag),
            ),
            None if came_from_higher(case, gather, facts, rule, at)? => (
                Reason::MovedBackwards,
                format!("`{}` was moved back to {at}; the highest version is {version}", facts.tag),
            ),
            None if pairing.shared.is_empty() => {
                (Reason::Lagging, format!("`{}` is at {at}; the highest version is {version}", facts.tag))
            }
            None => (
                Reason::RollingStale,
                format!("`{}` is at {at}; the highest version of its line is {version}", facts.tag),
            ),
        },
    };
    let advice = if lacks_platforms(case, gather, rule, &digest)? {
        format!(
            "Do not move `{}` onto {version}, which lacks a platform: publish the next version with all of them and point `{}` to that.",
            facts.tag, facts.tag
        )
    } else if matches!(reason, Reason::Lagging | Reason::RollingStale | Reason::MovedBackwards) {
        // Where it is meant that the tag stays behind, the policy says so.
        format!(
            "Point `{}` to {version}; if {version} was taken back, declare it `withdrawn` in the policy.",
            facts.tag
        )
    } else {
        format!("Point `{}` to {version}.", facts.tag)
    };
    let finding = case.finding(Rule::Follows, reason, setting, message);
    Ok(case.found(Finding {
        advice,
        expected: vec![version.to_string(), digest.to_string()],
        actual: at.iter().map(ToString::to_string).chain([facts.digest.to_string()]).collect(),
        ..finding
    }))
}

/// Platform and digest of every image, order and repetition aside.
fn images(view: &View) -> Vec<(Option<Platform>, Digest)> {
    let mut images: Vec<_> = view.leaves.iter().map(|l| (l.platform.clone(), l.digest.clone())).collect();
    images.sort();
    images.dedup();
    images
}

/// The same for the judged tag, as its index lists them, whatever the images themselves say.
fn images_listed(gather: &mut Gather<'_>, facts: &Facts<'_>) -> Step<Vec<(Option<Platform>, Digest)>> {
    view(gather, facts.digest, false).map(|v| images(&v)).ok_or(Met::Asked)
}

/// Whether the tag was at a higher version before.
fn came_from_higher(
    case: &mut Case<'_>,
    gather: &mut Gather<'_>,
    facts: &Facts<'_>,
    rule: &FollowsRule,
    at: &Tag,
) -> Step<bool> {
    let Some(history) = &facts.record.history else { return Ok(false) };
    let before = history.periods().into_iter().rev().filter_map(|p| p.digest).find(|d| d != facts.digest);
    let Some(before) = before else { return Ok(false) };
    let fact = gather.tagged(&before);
    let there = tags(case, Rule::Follows, fact)?;
    let here = rank_in_line(case, gather, facts, rule, at);
    Ok(there.iter().any(|t| rank_in_line(case, gather, facts, rule, t) > here))
}

/// The rank of a version of the line that the tag follows; `None` for every other tag. Only these may decide what is
/// said: they are what makes a follower be judged again.
fn rank_in_line(
    case: &Case<'_>,
    gather: &Gather<'_>,
    facts: &Facts<'_>,
    rule: &FollowsRule,
    tag: &Tag,
) -> Option<Vec<u8>> {
    let shared = &rule.target.by_form.get(facts.form)?.shared;
    let member = gather.member(case.policy, tag).filter(|m| m.class == rule.target.class)?;
    (member.captures.group(shared) == facts.captures.group(shared)).then(|| member.captures.rank())
}

/// Whether the images come from different versions of the line; those, for people.
fn mixed(case: &mut Case<'_>, gather: &mut Gather<'_>, rule: &FollowsRule, facts: &Facts<'_>) -> Step<Option<String>> {
    let leaves: Vec<&Leaf> = facts.view.leaves.iter().take(MIXED_MAX).collect();
    if facts.view.shape != Shape::Index || leaves.len() < 2 {
        return Ok(None);
    }
    let mut asked = false;
    let mut origins: Vec<(String, Vec<Tag>)> = Vec::new();
    for leaf in leaves {
        let Some(parents) = gather.parents(&leaf.digest) else {
            asked = true;
            continue;
        };
        let mut versions: Vec<Tag> = Vec::new();
        if let Fact::Known(parents) = parents {
            for parent in parents.iter() {
                match gather.tagged(parent) {
                    None => asked = true,
                    Some(Fact::Known(tags)) => versions
                        .extend(tags.iter().filter(|t| rank_in_line(case, gather, facts, rule, t).is_some()).cloned()),
                    Some(_) => {}
                }
            }
        }
        let name = leaf.platform.as_ref().map_or_else(|| leaf.digest.short().to_owned(), ToString::to_string);
        origins.push((name, versions));
    }
    if asked {
        return Err(Met::Asked);
    }
    let common =
        origins.first().is_some_and(|(_, first)| first.iter().any(|v| origins.iter().all(|(_, o)| o.contains(v))));
    if common || origins.iter().any(|(_, o)| o.is_empty()) {
        return Ok(None);
    }
    let told =
        origins.iter().map(|(name, o)| format!("{name} of {}", o.first().map(ToString::to_string).unwrap_or_default()));
    Ok(Some(told.collect::<Vec<_>>().join(", ")))
}

/// Whether the version lacks a platform that its class requires: then nothing should be moved onto it.
fn lacks_platforms(case: &mut Case<'_>, gather: &mut Gather<'_>, rule: &FollowsRule, digest: &Digest) -> Step<bool> {
    let class = &case.policy.classes[rule.target.class];
    let Some(set) = class.require.platforms.as_ref().and_then(|(_, p)| p.all.clone()) else { return Ok(false) };
    let Some(deep) = view(gather, digest, true) else { return Err(Met::Asked) };
    let has = deep.platforms();
    Ok(!set.at(case.observation.now).platforms.iter().all(|w| has.iter().any(|p| w.is_met_by(p))))
}

/// The platform that a tag's captures speak of: `{platform}`, or `{os}` and `{arch}` together.
fn platform_of(captures: &Captures) -> Option<Platform> {
    captures.platform().cloned().or_else(|| {
        let arch = captures.get("arch")?.text();
        let os = captures.get("os").map(|o| o.text());
        let text = os.map_or_else(|| arch.clone(), |os| format!("{os}-{arch}"));
        crate::image::suffix(&text)
    })
}

/// `memberOf`.
pub(super) fn member_of(
    case: &mut Case<'_>,
    gather: &mut Gather<'_>,
    setting: &Setting,
    relation: &Relation,
    facts: &Facts<'_>,
) -> Met {
    member(case, gather, setting, relation, facts).unwrap_or_else(|end| end)
}

fn member(
    case: &mut Case<'_>,
    gather: &mut Gather<'_>,
    setting: &Setting,
    relation: &Relation,
    facts: &Facts<'_>,
) -> Step<Met> {
    let Some(pairing) = relation.by_form.get(facts.form) else { return Ok(Met::Yes) };
    let group = facts.captures.group(&pairing.shared);
    let fact = gather.line(&pairing.theirs, group, Span::Highest(1));
    let parents = tags(case, Rule::MemberOf, fact)?;
    let class = case.policy.classes[relation.class].name.clone();
    let Some(parent) = parents.first().cloned() else {
        let message = format!("there is no tag of class {class} whose index could list `{}`", facts.tag);
        let finding = case.finding(Rule::MemberOf, Reason::NoParent, setting, message);
        return Ok(case.found(finding));
    };
    let Some(digest) = digest_of(case, gather, Rule::MemberOf, &parent)? else {
        return Ok(Met::Not(format!("`{parent}` is not there any more")));
    };
    let wanted = platform_of(facts.captures);
    // What the image itself says goes before what the index says of it.
    let own = facts.view.leaves.iter().filter_map(|l| l.platform.as_ref()).next().cloned();
    if let (Some(wanted), Some(own)) = (&wanted, &own)
        && facts.view.unknown.is_empty()
        && !wanted.agrees_with_prefix(own)
    {
        let message = format!("`{}` holds an image for {own}, not for {wanted}", facts.tag);
        let finding = case.finding(Rule::MemberOf, Reason::MislabelledMember, setting, message);
        return Ok(case.found(Finding {
            expected: vec![wanted.to_string()],
            actual: vec![own.to_string()],
            ..finding
        }));
    }
    if digest == *facts.digest {
        return Ok(Met::Yes);
    }
    let Some(theirs) = view(gather, &digest, false) else { return Err(Met::Asked) };
    if let Some(cause) = cause_of(&theirs).or_else(|| cause_of(facts.view)) {
        return Ok(case.undetermined(Rule::MemberOf, &cause.clone()));
    }
    // The tagged digest itself, or the one image inside it where it is an index with provenance.
    let inside: Vec<&Digest> = facts.view.leaves.iter().map(|l| &l.digest).collect();
    let entry =
        theirs.leaves.iter().find(|l| l.digest == *facts.digest || (inside.len() == 1 && *inside[0] == l.digest));
    let Some(entry) = entry else {
        let message =
            format!("the index of {parent} does not list {}, which `{}` points to", facts.digest.short(), facts.tag);
        let finding = case.finding(Rule::MemberOf, Reason::NotAMember, setting, message);
        return Ok(case.found(Finding { actual: vec![facts.digest.to_string()], ..finding }));
    };
    if let (Some(wanted), Some(listed)) = (&wanted, &entry.platform)
        && !wanted.agrees_with_prefix(listed)
    {
        let message =
            format!("the index of {parent} lists the image of `{}` for {listed}, not for {wanted}", facts.tag);
        let finding = case.finding(Rule::MemberOf, Reason::MislabelledMember, setting, message);
        return Ok(case.found(Finding {
            expected: vec![wanted.to_string()],
            actual: vec![listed.to_string()],
            ..finding
        }));
    }
    Ok(Met::Yes)
}

/// The platforms of which the version has tags of their own, as far as `membersTagged` names a class for them.
/// `None` while that is being asked.
pub(super) fn tagged_platforms(case: &Case<'_>, gather: &mut Gather<'_>, facts: &Facts<'_>) -> Option<Vec<Platform>> {
    let by = facts.class.require.members_tagged.as_ref().and_then(|(_, by)| by.as_ref());
    let Some(pairing) = by.and_then(|relation| relation.by_form.get(facts.form)) else { return Some(Vec::new()) };
    let tags = gather.line(&pairing.theirs, facts.captures.group(&pairing.shared), Span::All)?;
    let Fact::Known(tags) = tags else { return Some(Vec::new()) };
    let platform = |tag: &Tag| gather.member(case.policy, tag).and_then(|m| platform_of(&m.captures));
    Some(tags.iter().filter_map(platform).collect())
}

/// `membersTagged`.
pub(super) fn members_tagged(
    case: &mut Case<'_>,
    gather: &mut Gather<'_>,
    setting: &Setting,
    by: Option<&Relation>,
    facts: &Facts<'_>,
) -> Met {
    members(case, gather, setting, by, facts).unwrap_or_else(|end| end)
}

fn members(
    case: &mut Case<'_>,
    gather: &mut Gather<'_>,
    setting: &Setting,
    by: Option<&Relation>,
    facts: &Facts<'_>,
) -> Step<Met> {
    match &facts.view.shape {
        Shape::Index => {}
        Shape::Artifact { name, .. } => return Ok(Met::Not(format!("it leads to {name}"))),
        Shape::Image | Shape::Legacy => return Ok(Met::Yes),
        Shape::Undetermined(cause) => return Ok(case.undetermined(Rule::MembersTagged, &cause.clone())),
        Shape::Absent | Shape::Malformed(..) => return Ok(Met::Not("its manifest cannot be read".to_owned())),
    }
    // The entries as the index lists them: those are what publication copies. What is known to be no image needs no tag.
    let Some(listed) = view(gather, facts.digest, false) else { return Err(Met::Asked) };
    let mut asked = false;
    let mut members: Vec<&Leaf> = listed.leaves.iter().collect();
    members.retain(|leaf| match gather.manifest(&leaf.digest) {
        Some(Fact::Known(manifest)) => !is_no_image(&manifest),
        Some(_) => true,
        None => {
            asked = true;
            true
        }
    });
    let mut untagged: Vec<&Leaf> = Vec::new();
    match by {
        None => {
            for leaf in members {
                match gather.tagged(&leaf.digest) {
                    None => asked = true,
                    Some(Fact::Known(tags)) if !tags.is_empty() => {}
                    Some(Fact::Known(_) | Fact::Absent) => untagged.push(leaf),
                    Some(Fact::Undetermined(cause)) => return Ok(case.undetermined(Rule::MembersTagged, &cause)),
                }
            }
        }
        Some(relation) => {
            let Some(pairing) = relation.by_form.get(facts.form) else { return Ok(Met::Yes) };
            let fact = gather.line(&pairing.theirs, facts.captures.group(&pairing.shared), Span::All);
            let mut tagged: Vec<(Option<Platform>, std::sync::Arc<TagRecord>)> = Vec::new();
            for tag in tags(case, Rule::MembersTagged, fact)? {
                let platform = gather.member(case.policy, &tag).and_then(|m| platform_of(&m.captures));
                match gather.tag(&tag) {
                    None => asked = true,
                    Some(Fact::Known(record)) => tagged.push((platform, record)),
                    Some(Fact::Absent) => {}
                    Some(Fact::Undetermined(cause)) => return Ok(case.undetermined(Rule::MembersTagged, &cause)),
                }
            }
            for leaf in members {
                let mut is_tagged = false;
                for (platform, record) in &tagged {
                    let fits = match (platform, &leaf.platform) {
                        (Some(p), Some(l)) => p.agrees_with_prefix(l),
                        _ => true,
                    };
                    let Some(current) = record.current.as_ref().filter(|_| fits) else { continue };
                    // The tag may hold an index of that one image, as builds with provenance make it.
                    is_tagged = is_tagged
                        || *current == leaf.digest
                        || match view(gather, current, false) {
                            None => {
                                asked = true;
                                false
                            }
                            Some(inner) => {
                                inner.shape == Shape::Index
                                    && inner.leaves.len() == 1
                                    && inner.leaves[0].digest == leaf.digest
                            }
                        };
                }
                if !is_tagged {
                    untagged.push(leaf);
                }
            }
        }
    }
    if asked {
        return Err(Met::Asked);
    }
    if let Some(cause) = listed.unknown.first() {
        return Ok(case.undetermined(Rule::MembersTagged, &cause.clone()));
    }
    if untagged.is_empty() {
        return Ok(Met::Yes);
    }
    // One that is listed twice lacks one tag.
    let mut names: Vec<String> = Vec::new();
    let mut called: Vec<String> = Vec::new();
    for leaf in untagged {
        let (name, words) = match &leaf.platform {
            Some(platform) => (platform.to_string(), format!("for {platform}")),
            None => (leaf.digest.short().to_owned(), leaf.digest.short().to_owned()),
        };
        if !names.contains(&name) {
            names.push(name);
            called.push(words);
        }
    }
    let class = by.map(|r| format!(" of class {}", case.policy.classes[r.class].name)).unwrap_or_default();
    let images = if called.len() == 1 { "image" } else { "images" };
    let message = format!("no tag{class} points to the {images} {}", called.join(", "));
    let finding = case.finding(Rule::MembersTagged, Reason::UntaggedMember, setting, message);
    Ok(case.found(Finding { actual: names, ..finding }))
}
