//! Policies as they were checked: every form compiled, every relation resolved to a class, every line known.
//!
//! Only `compile` makes these, so whoever holds one need not check again.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, civil};
use sha2::{Digest as _, Sha256};

use super::expression::Expression;
use super::form::{Captures, Form};
use super::observation::{LineId, LineKey};
use super::scope::{Scope, ScopeIndex, TagGlob};
use super::verdict::{PolicyLocation, Rule, Severity};
use crate::document::Schema;
use crate::image::{Content, Manifest, MediaType, PlatformRequirement, Repository, Tag};

/// All policies in force, found by repository.
#[derive(Debug, Default)]
pub struct PolicySet {
    pub(super) policies: Vec<Arc<Policy>>,
    index: ScopeIndex,
    hash: Arc<str>,
}

/// One policy: a table of tags.
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// What it says about itself.
    pub description: Option<String>,
    /// A hash over it and the platform sets that it uses.
    pub hash: Arc<str>,
    /// What it does with what it finds.
    pub mode: Mode,
    /// What it governs.
    pub scope: Scope,
    /// Its classes; the first whose form matches governs the tag.
    pub classes: Vec<Class>,
    /// What is required of tags that have none of the forms; `None` where they are allowed.
    pub other_tags: Option<Setting>,
    /// What is let pass, for a time and a reason.
    pub exceptions: Vec<Exception>,
    /// Its lines, each over the tags of one class.
    pub(super) lines: Vec<Line>,
}

/// What a policy does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Record and count only.
    Preview,
    /// Alert.
    Alert,
    /// Alert, and act in the registry.
    Enforce,
}

/// What every requirement carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// How much a finding matters.
    pub severity: Severity,
    /// How long it may be unmet before it fires.
    pub wait: SignedDuration,
    /// The policy's own note.
    pub note: Option<Arc<str>>,
    /// Actions in the registry, as written.
    pub enforce: Vec<Arc<str>>,
    /// Where it stands.
    pub source: Option<Arc<PolicyLocation>>,
}

/// One row of the table.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub name: Arc<str>,
    /// Its forms; any of them.
    pub forms: Vec<Form>,
    /// The repository has at least one such tag.
    pub expected: Option<Setting>,
    /// What is required of its tags.
    pub require: Requirements,
    /// Where it stands.
    pub source: Option<Arc<PolicyLocation>>,
    /// Whether another class follows this one: its highest tag is then judged by the newest platform set.
    pub(super) is_followed: bool,
}

/// The requirements of a class.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is the requirement of that name in the policy language")]
pub struct Requirements {
    pub kind: Option<(Setting, WantedKind)>,
    pub index: Option<(Setting, IndexRule)>,
    pub platforms: Option<(Setting, PlatformRule)>,
    pub keeps_platforms: Option<(Setting, KeepsPlatforms)>,
    pub intact: Option<Setting>,
    pub immutable: Option<(Setting, ImmutableRule)>,
    pub present: Option<Setting>,
    pub follows: Option<(Setting, FollowsRule)>,
    pub member_of: Option<(Setting, Relation)>,
    pub members_tagged: Option<(Setting, Option<Relation>)>,
    pub locked: Option<Setting>,
    pub config: Option<(Setting, Arc<Schema>)>,
    pub manifest: Option<(Setting, Arc<Schema>)>,
    pub expect: Option<(Setting, Vec<Expression>)>,
}

impl Requirements {
    /// The rules asked for, in the order in which they are judged and shown.
    pub fn rules(&self) -> Vec<(Rule, &Setting)> {
        self.each().collect()
    }

    /// The same, one by one.
    pub(super) fn each(&self) -> impl Iterator<Item = (Rule, &Setting)> {
        [
            (Rule::Kind, self.kind.as_ref().map(|r| &r.0)),
            (Rule::Index, self.index.as_ref().map(|r| &r.0)),
            (Rule::Platforms, self.platforms.as_ref().map(|r| &r.0)),
            (Rule::KeepsPlatforms, self.keeps_platforms.as_ref().map(|r| &r.0)),
            (Rule::Intact, self.intact.as_ref()),
            (Rule::Immutable, self.immutable.as_ref().map(|r| &r.0)),
            (Rule::Present, self.present.as_ref()),
            (Rule::Follows, self.follows.as_ref().map(|r| &r.0)),
            (Rule::MemberOf, self.member_of.as_ref().map(|r| &r.0)),
            (Rule::MembersTagged, self.members_tagged.as_ref().map(|r| &r.0)),
            (Rule::Locked, self.locked.as_ref()),
            (Rule::Config, self.config.as_ref().map(|r| &r.0)),
            (Rule::Manifest, self.manifest.as_ref().map(|r| &r.0)),
            (Rule::Expect, self.expect.as_ref().map(|r| &r.0)),
        ]
        .into_iter()
        .filter_map(|(rule, setting)| setting.map(|s| (rule, s)))
    }

    /// How far they look. Only then is what lies there asked for.
    pub(super) fn looks(&self) -> Looks {
        let at_images = self.platforms.is_some()
            || self.keeps_platforms.is_some()
            || self.intact.is_some()
            || self.config.is_some()
            || self.member_of.is_some()
            || self.members_tagged.is_some()
            || self.expect.is_some();
        let at_manifest =
            self.kind.is_some() || self.index.is_some() || self.follows.is_some() || self.manifest.is_some();
        match (at_images, at_manifest) {
            (true, _) => Looks::AtImages,
            (false, true) => Looks::AtManifest,
            (false, false) => Looks::Nowhere,
        }
    }
}

/// How far the requirements of a class look at what a tag leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// Not at all: they are about the tag and its history.
    Nowhere,
    /// At its manifest.
    AtManifest,
    /// At what the images themselves say.
    AtImages,
}

/// What a tag may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WantedKind {
    /// An index or image.
    Image,
    /// A Helm chart.
    Chart,
    /// Anything that is no image.
    Artifact,
}

/// What a tag leads to, as far as its class is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lead {
    /// An index or image, whatever its condition.
    Image,
    /// A Helm chart.
    Chart,
    /// Anything else.
    Artifact,
}

impl Lead {
    /// What a manifest leads to, by itself. Told from an image by its type alone, as its config is not read.
    pub fn of(manifest: &Manifest) -> Lead {
        match &manifest.content {
            Content::Index(_) | Content::Schema1 => Lead::Image,
            Content::Single(single) if single.config.media_type == MediaType::HelmConfig => Lead::Chart,
            Content::Single(single) if single.artifact_type.is_none() && single.config.media_type.is_image_config() => {
                Lead::Image
            }
            Content::Single(_) | Content::Unknown => Lead::Artifact,
        }
    }
}

impl WantedKind {
    /// Whether this is what is wanted.
    pub fn accepts(self, lead: Lead) -> bool {
        match self {
            WantedKind::Image => lead == Lead::Image,
            WantedKind::Chart => lead == Lead::Chart,
            WantedKind::Artifact => lead != Lead::Image,
        }
    }

    /// In words, for messages.
    pub fn in_words(self) -> &'static str {
        match self {
            WantedKind::Image => "an image",
            WantedKind::Chart => "a Helm chart",
            WantedKind::Artifact => "an artifact that is no image",
        }
    }
}

/// `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexRule {
    /// One image is enough where the policy asks for one platform.
    pub unless_single_platform: bool,
}

/// `immutable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImmutableRule {
    /// Earlier digests within this time are forgiven if the index that arrives last lists them.
    pub settle: Option<SignedDuration>,
    /// A deletion makes a new beginning.
    pub forget_after_delete: bool,
}

/// `platforms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformRule {
    /// All of these.
    pub all: Option<Arc<PlatformSet>>,
    /// At least one of these.
    pub any: Option<Arc<PlatformSet>>,
    /// None but these.
    pub only: Option<Arc<PlatformSet>>,
}

/// Platforms, by the date from which each list holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformSet {
    /// Its name; `None` for a list written in the requirement.
    pub name: Option<Arc<str>>,
    /// The revisions, oldest first; at least one.
    pub revisions: Vec<Revision>,
}

/// One revision of a platform set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The first day on which it holds; `None` for a list without dates.
    pub from: Option<civil::Date>,
    /// The platforms.
    pub platforms: Vec<PlatformRequirement>,
}

impl PlatformSet {
    /// The revision in force at a time: the latest that has begun, or the first where none has.
    pub fn at(&self, time: Timestamp) -> &Revision {
        let day = time.to_zoned(jiff::tz::TimeZone::UTC).date();
        self.revisions.iter().rev().find(|r| r.from.is_none_or(|from| from <= day)).unwrap_or(&self.revisions[0])
    }
}

/// A relation to the tags of another class that share captures. Which captures are shared depends on the form
/// that the own tag has: `1.2` shares major and minor with `1.2.7`, `1` only major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The class looked at, by its place.
    pub class: usize,
    /// For each form of the own class, in its order.
    pub by_form: Vec<Pairing>,
}

/// How the tags of one form pair with those of another class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// The names shared.
    pub shared: Vec<Arc<str>>,
    /// The line of the other class's tags.
    pub theirs: LineId,
    /// The line of the own tags of this form: the way back.
    pub ours: LineId,
}

/// `keepsPlatforms`: the versions of the own class that share the major number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepsPlatforms {
    /// The names shared: `major`, if the class captures it.
    pub shared: Vec<Arc<str>>,
    /// The line of the own class.
    pub line: LineId,
}

/// `follows`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowsRule {
    /// The versions to follow.
    pub target: Relation,
    /// Versions that do not count, each with a reason and perhaps an end.
    pub withdrawn: Vec<Withdrawn>,
}

/// A version that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// The tag.
    pub tag: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
    /// The last day on which this holds.
    pub until: Option<civil::Date>,
}

/// What is let pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The tags.
    pub tags: Vec<TagGlob>,
    /// The requirements; empty means all.
    pub rules: Vec<Rule>,
    /// Only in these repositories; empty means all that the policy governs.
    pub repositories: Option<Scope>,
    /// The last day.
    pub until: civil::Date,
    /// The owner's reason.
    pub reason: Arc<str>,
    /// Where it stands.
    pub source: Option<Arc<PolicyLocation>>,
}

impl Exception {
    /// Whether it covers this finding at this time.
    pub fn covers(&self, repository: &Repository, tag: Option<&Tag>, rule: Rule, now: Timestamp) -> bool {
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        today <= self.until
            && (self.rules.is_empty() || self.rules.contains(&rule))
            && self.repositories.as_ref().is_none_or(|scope| scope.governs(repository))
            && tag.is_some_and(|tag| self.tags.iter().any(|glob| glob.matches(tag.as_str())))
    }
}

/// A line: the tags of one class, or of one form of it, grouped by the captures that a relation shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub id: LineId,
    pub class: usize,
    /// Only tags of this form, where a relation goes by form.
    pub form: Option<usize>,
    pub shared: Vec<Arc<str>>,
}

impl Line {
    /// The line of a class, or of one of its forms, and shared names. The id depends on what decides the membership and
    /// on the names only, so that two policies whose class has the same tags share its keys, and no others do.
    pub(super) fn new(class: usize, identity: &str, form: Option<usize>, shared: Vec<Arc<str>>) -> Line {
        let mut hash = Sha256::new();
        hash.update(identity);
        hash.update([0]);
        hash.update(form.map_or([1, 0], |n| [2, u8::try_from(n).unwrap_or(u8::MAX)]));
        for name in &shared {
            hash.update(name.as_bytes());
            hash.update([0]);
        }
        Line { id: LineId(hex::encode(&hash.finalize()[..8]).into()), class, form, shared }
    }
}

/// Which class governs a tag, by which of its forms, and what that captured.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The class, by its place.
    pub class: usize,
    /// The form, by its place in the class.
    pub form: usize,
    /// What it captured.
    pub captures: Captures,
}

impl Policy {
    /// What the policy may find, with the severities: bounded, so that it can label metrics.
    pub fn findable(&self) -> Vec<(Rule, Severity)> {
        let of_classes = self.classes.iter().flat_map(|class| {
            let expected = class.expected.as_ref().map(|s| (Rule::Expected, s.severity));
            class.require.rules().into_iter().map(|(rule, s)| (rule, s.severity)).chain(expected)
        });
        let other = self.other_tags.as_ref().map(|s| (Rule::Form, s.severity));
        let mut found: Vec<(Rule, Severity)> = of_classes.chain(other).collect();
        // Some findings of `intact` are never more than warnings.
        let intact: Vec<_> =
            found.iter().filter(|(rule, _)| *rule == Rule::Intact).map(|_| (Rule::Intact, Severity::Warning)).collect();
        found.extend(intact);
        found.sort();
        found.dedup();
        found
    }

    /// The class that governs a tag: the first of whose forms one matches.
    pub fn membership(&self, tag: &Tag) -> Option<Membership> {
        self.classes.iter().enumerate().find_map(|(class, row)| {
            row.forms
                .iter()
                .enumerate()
                .find_map(|(form, f)| f.captures(tag).map(|captures| Membership { class, form, captures }))
        })
    }

    /// Where a tag stands in the lines of this policy. A tag that leads to another kind of content than its
    /// class asks for does not count there: a chart under a version's name is no version.
    fn line_keys(&self, tag: &Tag, leads_to: Option<Lead>, keys: &mut Vec<LineKey>) {
        let Some(member) = self.membership(tag) else { return };
        let wanted = self.classes[member.class].require.kind.as_ref().map(|(_, wanted)| *wanted);
        if let (Some(wanted), Some(lead)) = (wanted, leads_to)
            && !wanted.accepts(lead)
        {
            return;
        }
        for line in self.lines.iter().filter(|l| l.class == member.class && l.form.is_none_or(|f| f == member.form)) {
            if keys.iter().any(|k| k.line == line.id) {
                continue;
            }
            let group = member.captures.group(&line.shared);
            keys.push(LineKey { line: line.id.clone(), group, rank: member.captures.rank() });
        }
    }

    /// The line of all tags of a class, where something looks through it.
    pub(super) fn whole_line(&self, class: usize) -> Option<&LineId> {
        self.lines.iter().find(|l| l.class == class && l.form.is_none() && l.shared.is_empty()).map(|l| &l.id)
    }
}

impl PolicySet {
    pub(super) fn new(policies: Vec<Policy>) -> PolicySet {
        let index = ScopeIndex::new(policies.iter().map(|p| &p.scope));
        let mut hash = Sha256::new();
        let mut hashes: Vec<&str> = policies.iter().map(|p| &*p.hash).collect();
        hashes.sort_unstable();
        hashes.iter().for_each(|h| hash.update(h));
        let hash = format!("sha256:{}", hex::encode(hash.finalize())).into();
        PolicySet { policies: policies.into_iter().map(Arc::new).collect(), index, hash }
    }

    /// The policies that govern a repository, in the order of their files.
    pub fn governing(&self, repository: &Repository) -> Vec<&Arc<Policy>> {
        self.places(repository).into_iter().map(|n| &self.policies[n]).collect()
    }

    /// The places of those policies in [`PolicySet::policies`].
    pub(super) fn places(&self, repository: &Repository) -> Vec<usize> {
        let mut places = self.index.find(repository);
        places.retain(|n| self.policies[*n].scope.governs(repository));
        places
    }

    /// The next time after `now` at which the policies read otherwise without being edited: a revision of a platform
    /// set begins, an exception or a withdrawal has ended. Everything governed is to be judged again then.
    pub fn next_turn(&self, now: Timestamp) -> Option<Timestamp> {
        let begins = |day: civil::Date| day.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp());
        let days = self.policies.iter().flat_map(|policy| {
            let ends = policy.exceptions.iter().map(|e| e.until);
            let rules = policy.classes.iter().map(|c| &c.require);
            let withdrawn = rules.clone().filter_map(|r| r.follows.as_ref()).flat_map(|(_, f)| &f.withdrawn);
            let sets = rules.filter_map(|r| r.platforms.as_ref()).flat_map(|(_, p)| [&p.all, &p.any, &p.only]);
            let begin = sets.flatten().flat_map(|s| &s.revisions).filter_map(|r| r.from);
            let end = ends.chain(withdrawn.filter_map(|w| w.until)).filter_map(|day| day.tomorrow().ok());
            begin.chain(end).collect::<Vec<_>>()
        });
        days.filter_map(begins).filter(|at| *at > now).min()
    }

    /// All policies.
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// A hash over all policies, whatever their order.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The rank of a tag in a line, by its name alone.
    pub fn rank(&self, repository: &Repository, line: &LineId, tag: &Tag) -> Option<Vec<u8>> {
        self.governing(repository).into_iter().find_map(|policy| {
            let member = policy.membership(tag)?;
            policy.lines.iter().any(|l| l.id == *line && l.class == member.class).then(|| member.captures.rank())
        })
    }

    /// Whether any policy asks for the registry's write locks on a tag.
    pub fn asks_for_locks(&self, repository: &Repository, tag: &Tag) -> bool {
        let asks = |policy: &&Arc<Policy>| {
            policy.membership(tag).is_some_and(|member| policy.classes[member.class].require.locked.is_some())
        };
        self.governing(repository).iter().any(asks)
    }

    /// Where a tag stands in the lines of all policies that govern its repository: what the record keeps, so
    /// that the highest version is a look-up. `leads_to` is what the tag leads to, where that is known.
    pub fn line_keys(&self, repository: &Repository, tag: &Tag, leads_to: Option<Lead>) -> Vec<LineKey> {
        let mut keys = Vec::new();
        for policy in self.governing(repository) {
            policy.line_keys(tag, leads_to, &mut keys);
        }
        keys
    }
}
