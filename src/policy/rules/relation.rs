//! Requirements about other tags: `follows`, `memberOf`, `membersTagged`.

use std::sync::Arc;

use jiff::{civil, tz::TimeZone};

use super::super::form::Captures;
use super::super::judge::{Case, Facts, Gather, Met};
use super::super::observation::{Cause, Fact, Span};
use super::super::reason::Reason;
use super::super::set::{FollowsRule, Relation, Setting};
use super::super::verdict::{Finding, Rule, Severity};
use super::super::view::{Leaf, Shape, View, is_no_image, view};
use crate::image::{Digest, Platform, Tag, suffix};

/// Most images whose origin is looked for when a tag may mix versions.
const MIXED_MAX: usize = 32;

/// What a helper came to: the value, or the end of the requirement.
type Step<T> = Result<T, Met>;

fn tags<'a>(case: &mut Case<'_>, rule: Rule, fact: Option<&'a Fact<Arc<[Tag]>>>) -> Step<&'a [Tag]> {
    match fact {
        None => Err(Met::Asked),
        Some(Fact::Known(tags)) => Ok(tags),
        Some(Fact::Absent) => Ok(&[]),
        Some(Fact::Undetermined(cause)) => Err(case.undetermined(rule, cause)),
    }
}

fn digest_of<'a>(case: &mut Case<'a>, gather: &mut Gather<'a>, rule: Rule, tag: &Tag) -> Step<Option<&'a Digest>> {
    match gather.tag(tag) {
        None => Err(Met::Asked),
        Some(Fact::Known(record)) => Ok(record.current.as_ref()),
        Some(Fact::Absent) => Ok(None),
        Some(Fact::Undetermined(cause)) => Err(case.undetermined(rule, cause)),
    }
}

fn cause_of<'v>(view: &'v View<'_>) -> Option<&'v Cause> {
    match &view.shape {
        Shape::Undetermined(cause) => Some(cause),
        _ => view.unknown.first(),
    }
}

/// `follows`.
pub(super) fn follows<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    rule: &FollowsRule,
    facts: &Facts<'a>,
) -> Met {
    follow(case, gather, setting, rule, facts).unwrap_or_else(|end| end)
}

fn follow<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    rule: &FollowsRule,
    facts: &Facts<'a>,
) -> Step<Met> {
    let Some(pairing) = rule.target.by_form.get(facts.member.form) else { return Ok(Met::Yes) };
    let now = case.observation.now;
    let is_over = |day: civil::Date| now.to_zoned(TimeZone::UTC).date() > day;
    let withdrawn =
        |tag: &Tag| rule.withdrawn.iter().find(|w| &*w.tag == tag.as_str() && !w.until.is_some_and(is_over));
    let group = || facts.member.captures.group(&pairing.shared);
    let highest = gather.line(&pairing.theirs, group(), Span::Highest(1 + rule.withdrawn.len().min(50)));
    let candidates = tags(case, Rule::Follows, highest)?;
    let (policy, target_class) = (case.policy, &case.policy.classes[rule.target.class]);

    // Which version the tag is at: for people, and for the reason.
    let here = gather.tagged(facts.digest);
    let here = tags(case, Rule::Follows, here)?;
    let rank = |gather: &Gather<'a>, tag: &'a Tag| {
        gather.member(policy, tag).filter(|m| m.class == rule.target.class).map(|m| m.captures.rank())
    };
    let shares = |gather: &Gather<'a>, tag: &'a Tag| {
        gather.member(policy, tag).is_some_and(|m| m.captures.group(&pairing.shared) == group())
    };
    let versions = here.iter().filter_map(|tag| Some((rank(gather, tag)?, tag)));
    let at = versions.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, tag)| tag);
    if let Some(at) = at {
        case.at_version(at.clone());
    }

    let Some(version) = candidates.iter().find(|t| withdrawn(t).is_none()) else {
        if target_class.expected.is_some() {
            let any = match policy.whole_line(rule.target.class) {
                Some(line) => {
                    let fact = gather.whole_line(line, Span::Highest(1));
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
    let Some(digest) = digest_of(case, gather, Rule::Follows, version)? else {
        return Ok(Met::Not(format!("`{version}` is not there any more")));
    };
    // Two tags can be one version (`2026.3.0` and `2026.03.0` in a calendar's form): either is the highest.
    if digest == facts.digest || at.is_some_and(|at| rank(gather, at) == rank(gather, version) && shares(gather, at)) {
        case.at_version(version.clone());
        return Ok(Met::Yes);
    }

    // Another digest: perhaps the very same images.
    let Some(theirs) = view(gather, digest, false) else { return Err(Met::Asked) };
    if let Some(cause) = cause_of(&theirs).or_else(|| cause_of(&facts.view)) {
        return Ok(case.undetermined(Rule::Follows, &cause.clone()));
    }
    if !theirs.leaves.is_empty() && images(&theirs) == images_listed(gather, facts)? {
        let message = format!("`{}` is another index of the very same images as {version}", facts.tag);
        let finding = case.finding(Rule::Follows, Reason::SameImages, setting, message);
        case.at_version(version.clone());
        return Ok(case.found(Finding { severity: Severity::Info, ..finding }));
    }
    let name = |d: &Digest| d.short().to_owned();
    let (reason, message) = match at {
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
            None if rank(gather, at) > rank(gather, version) => (
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
    let advice = if lacks_platforms(case, gather, rule, digest)? {
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
fn images<'a>(view: &View<'a>) -> Vec<(Option<&'a Platform>, &'a Digest)> {
    let mut images: Vec<_> = view.leaves.iter().map(|l| (l.platform, l.digest)).collect();
    images.sort();
    images.dedup();
    images
}

/// The same for the judged tag, as its index lists them, whatever the images themselves say.
fn images_listed<'a>(gather: &mut Gather<'a>, facts: &Facts<'a>) -> Step<Vec<(Option<&'a Platform>, &'a Digest)>> {
    view(gather, facts.digest, false).map(|v| images(&v)).ok_or(Met::Asked)
}

/// Whether the tag was at a higher version before.
fn came_from_higher<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    facts: &Facts<'a>,
    rule: &FollowsRule,
    at: &'a Tag,
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
fn rank_in_line<'a>(
    case: &Case<'a>,
    gather: &Gather<'a>,
    facts: &Facts<'a>,
    rule: &FollowsRule,
    tag: &'a Tag,
) -> Option<Vec<u8>> {
    let shared = &rule.target.by_form.get(facts.member.form)?.shared;
    let member = gather.member(case.policy, tag).filter(|m| m.class == rule.target.class)?;
    (member.captures.group(shared) == facts.member.captures.group(shared)).then(|| member.captures.rank())
}

/// Whether the images come from different versions of the line; those, for people.
fn mixed<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    rule: &FollowsRule,
    facts: &Facts<'a>,
) -> Step<Option<String>> {
    let leaves: Vec<&Leaf<'_>> = facts.view.leaves.iter().take(MIXED_MAX).collect();
    if facts.view.shape != Shape::Index || leaves.len() < 2 {
        return Ok(None);
    }
    let mut asked = false;
    let mut origins: Vec<(String, Vec<&Tag>)> = Vec::new();
    for leaf in leaves {
        let Some(parents) = gather.parents(leaf.digest) else {
            asked = true;
            continue;
        };
        let mut versions: Vec<&Tag> = Vec::new();
        if let Fact::Known(parents) = parents {
            for parent in parents.iter() {
                match gather.tagged(parent) {
                    None => asked = true,
                    Some(Fact::Known(tags)) => {
                        versions.extend(tags.iter().filter(|t| rank_in_line(case, gather, facts, rule, t).is_some()))
                    }
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
fn lacks_platforms<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    rule: &FollowsRule,
    digest: &'a Digest,
) -> Step<bool> {
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
        match captures.get("os") {
            Some(os) => suffix(&format!("{}-{arch}", os.text())),
            None => suffix(&arch),
        }
    })
}

/// `memberOf`.
pub(super) fn member_of<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    relation: &Relation,
    facts: &Facts<'a>,
) -> Met {
    member(case, gather, setting, relation, facts).unwrap_or_else(|end| end)
}

fn member<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    relation: &Relation,
    facts: &Facts<'a>,
) -> Step<Met> {
    let Some(pairing) = relation.by_form.get(facts.member.form) else { return Ok(Met::Yes) };
    let group = facts.member.captures.group(&pairing.shared);
    let fact = gather.line(&pairing.theirs, group, Span::Highest(1));
    let parents = tags(case, Rule::MemberOf, fact)?;
    let Some(parent) = parents.first() else {
        let class = &case.policy.classes[relation.class].name;
        let message = format!("there is no tag of class {class} whose index could list `{}`", facts.tag);
        let finding = case.finding(Rule::MemberOf, Reason::NoParent, setting, message);
        return Ok(case.found(finding));
    };
    let Some(digest) = digest_of(case, gather, Rule::MemberOf, parent)? else {
        return Ok(Met::Not(format!("`{parent}` is not there any more")));
    };
    let wanted = platform_of(&facts.member.captures);
    // What the image itself says goes before what the index says of it.
    let own = facts.view.leaves.iter().find_map(|l| l.platform);
    if let (Some(wanted), Some(own)) = (&wanted, own)
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
    if digest == facts.digest {
        return Ok(Met::Yes);
    }
    let Some(theirs) = view(gather, digest, false) else { return Err(Met::Asked) };
    if let Some(cause) = cause_of(&theirs).or_else(|| cause_of(&facts.view)) {
        return Ok(case.undetermined(Rule::MemberOf, &cause.clone()));
    }
    // The tagged digest itself, or the one image inside it where it is an index with provenance.
    let inside = match facts.view.leaves.as_slice() {
        [only] => Some(only.digest),
        _ => None,
    };
    let entry = theirs.leaves.iter().find(|l| l.digest == facts.digest || inside == Some(l.digest));
    let Some(entry) = entry else {
        let message =
            format!("the index of {parent} does not list {}, which `{}` points to", facts.digest.short(), facts.tag);
        let finding = case.finding(Rule::MemberOf, Reason::NotAMember, setting, message);
        return Ok(case.found(Finding { actual: vec![facts.digest.to_string()], ..finding }));
    };
    if let (Some(wanted), Some(listed)) = (&wanted, entry.platform)
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
pub(super) fn tagged_platforms<'a>(
    case: &Case<'a>,
    gather: &mut Gather<'a>,
    facts: &Facts<'a>,
) -> Option<Vec<Platform>> {
    let by = facts.class.require.members_tagged.as_ref().and_then(|(_, by)| by.as_ref());
    let Some(pairing) = by.and_then(|relation| relation.by_form.get(facts.member.form)) else {
        return Some(Vec::new());
    };
    let tags = gather.line(&pairing.theirs, facts.member.captures.group(&pairing.shared), Span::All)?;
    let Fact::Known(tags) = tags else { return Some(Vec::new()) };
    let platform = |tag: &'a Tag| gather.member(case.policy, tag).and_then(|m| platform_of(&m.captures));
    Some(tags.iter().filter_map(platform).collect())
}

/// Whether an entry needs a tag: what is known to be no image needs none.
fn needs_tag(gather: &mut Gather<'_>, leaf: &Leaf<'_>, asked: &mut bool) -> bool {
    let manifest = gather.manifest(leaf.digest);
    *asked |= manifest.is_none();
    !matches!(manifest, Some(Fact::Known(manifest)) if is_no_image(manifest))
}

/// Whether a digest is an index of that one image, as builds with provenance make it.
fn wraps<'a>(gather: &mut Gather<'a>, digest: &'a Digest, leaf: &Leaf<'_>, asked: &mut bool) -> bool {
    let inner = view(gather, digest, false);
    *asked |= inner.is_none();
    inner.is_some_and(|v| v.shape == Shape::Index && v.leaves.len() == 1 && v.leaves[0].digest == leaf.digest)
}

/// `membersTagged`.
pub(super) fn members_tagged<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    by: Option<&Relation>,
    facts: &Facts<'a>,
) -> Met {
    members(case, gather, setting, by, facts).unwrap_or_else(|end| end)
}

fn members<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    setting: &Setting,
    by: Option<&Relation>,
    facts: &Facts<'a>,
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
    let mut untagged: Vec<&Leaf<'_>> = Vec::new();
    match by {
        None => {
            for leaf in &listed.leaves {
                if !needs_tag(gather, leaf, &mut asked) {
                    continue;
                }
                match gather.tagged(leaf.digest) {
                    None => asked = true,
                    Some(Fact::Known(tags)) if !tags.is_empty() => {}
                    Some(Fact::Known(_) | Fact::Absent) => untagged.push(leaf),
                    Some(Fact::Undetermined(cause)) => return Ok(case.undetermined(Rule::MembersTagged, cause)),
                }
            }
        }
        Some(relation) => {
            let Some(pairing) = relation.by_form.get(facts.member.form) else { return Ok(Met::Yes) };
            let fact = gather.line(&pairing.theirs, facts.member.captures.group(&pairing.shared), Span::All);
            let tags = tags(case, Rule::MembersTagged, fact)?;
            let mut tagged: Vec<(Option<Platform>, &Digest)> = Vec::with_capacity(tags.len());
            for tag in tags {
                match gather.tag(tag) {
                    None => asked = true,
                    Some(Fact::Known(record)) => {
                        let platform = gather.member(case.policy, tag).and_then(|m| platform_of(&m.captures));
                        tagged.extend(record.current.as_ref().map(|current| (platform, current)));
                    }
                    Some(Fact::Absent) => {}
                    Some(Fact::Undetermined(cause)) => return Ok(case.undetermined(Rule::MembersTagged, cause)),
                }
            }
            let fits = |platform: &Option<Platform>, leaf: &Leaf<'_>| match (platform, leaf.platform) {
                (Some(p), Some(l)) => p.agrees_with_prefix(l),
                _ => true,
            };
            for leaf in &listed.leaves {
                let is_tagged = tagged.iter().any(|(p, current)| *current == leaf.digest && fits(p, leaf))
                    || !needs_tag(gather, leaf, &mut asked)
                    || tagged.iter().any(|(p, current)| fits(p, leaf) && wraps(gather, current, leaf, &mut asked));
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
        let (name, words) = match leaf.platform {
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
