//! Which tags and expectations a change can concern.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::observation::{Fact, LineId, Observation, Question, Span};
use super::super::set::{Policy, PolicySet};
use super::super::view::DEPTH_MAX;
use super::gather::Gather;
use super::{Change, Target};
use crate::image::{Digest, Tag};

/// Most tags one change may make judged: a version has a handful of followers and a dozen per-platform tags.
const AFFECTED_MAX: usize = 1_000;

/// The tags and expectations that a change can concern: the cost depends on them, never on how many tags the
/// repository has.
pub fn affected(set: &PolicySet, observation: &Observation, changes: &[Change]) -> (BTreeSet<Target>, Vec<Question>) {
    let mut gather = Gather::new(observation);
    let (mut tags, mut classes) = (Vec::new(), BTreeSet::new());
    for (n, policy) in governing(set, observation) {
        let mut concern = Concern { policy, changes, gather: &mut gather, tags: Vec::new(), classes: &mut classes, n };
        concern.all();
        tags.extend(concern.tags.into_iter().map(|tag| (n, tag)));
    }
    tags.sort_unstable();
    tags.dedup();
    let tags = tags.into_iter().map(|(n, tag)| Target::Tag(n, tag.clone()));
    let classes = classes.into_iter().map(|(n, class)| Target::Class(n, class));
    (tags.chain(classes).take(AFFECTED_MAX).collect(), gather.asks())
}

fn governing<'a>(set: &'a PolicySet, observation: &Observation) -> Vec<(usize, &'a Arc<Policy>)> {
    set.places(&observation.repository).into_iter().map(|n| (n, &set.policies()[n])).collect()
}

/// What changes concern under one policy, while it is found out.
struct Concern<'g, 'a> {
    policy: &'a Policy,
    /// The policy's place in the set.
    n: usize,
    changes: &'a [Change],
    gather: &'g mut Gather<'a>,
    /// The tags concerned, some perhaps more than once.
    tags: Vec<&'a Tag>,
    classes: &'g mut BTreeSet<(usize, usize)>,
}

impl<'a> Concern<'_, 'a> {
    fn all(&mut self) {
        let (mut alone, mut digests) = (Vec::new(), BTreeSet::new());
        for change in self.changes {
            match change {
                Change::Tag { tag, old, new } => {
                    // A tag that was not there and is not there concerns nobody but itself, whatever an event said of it.
                    let concerned = if old.is_none() && new.is_none() { &mut alone } else { &mut self.tags };
                    concerned.push(tag);
                    // What the tag left or came to may be gone or back with it, and whatever shares it is at this
                    // version, or is so no more.
                    digests.extend(old.iter().chain(new));
                }
                Change::Manifest(digest) => {
                    digests.insert(digest);
                }
            }
        }
        // What leads to a manifest, directly or through indexes.
        for digest in digests {
            self.on(digest);
            self.above(digest);
        }
        self.tags.sort_unstable();
        self.tags.dedup();
        for n in 0..self.tags.len() {
            self.neighbours(self.tags[n]);
        }
        self.tags.append(&mut alone);
    }

    /// The tags on a digest.
    fn on(&mut self, digest: &Digest) {
        if let Some(Fact::Known(tags)) = self.gather.tagged(digest) {
            self.tags.extend(tags.iter());
        }
    }

    /// The tags on the indexes that list a digest, directly or through further indexes, as deep as these are opened.
    fn above(&mut self, digest: &'a Digest) {
        let mut seen: BTreeSet<&Digest> = BTreeSet::new();
        let mut below = vec![digest];
        for _ in 0..DEPTH_MAX {
            let mut above = Vec::new();
            for digest in below {
                let Some(Fact::Known(parents)) = self.gather.parents(digest) else { continue };
                above.extend(parents.iter().filter(|p| seen.insert(p)));
            }
            above.iter().for_each(|parent| self.on(parent));
            below = above;
        }
    }

    /// The tags of a line.
    fn along(&mut self, line: &LineId, group: Vec<u8>, span: Span) {
        if let Some(Fact::Known(tags)) = self.gather.line(line, group, span) {
            self.tags.extend(tags.iter());
        }
    }

    /// The tags related to one tag by the classes of the policy.
    fn neighbours(&mut self, tag: &'a Tag) {
        let policy = self.policy;
        let Some(member) = self.gather.member(policy, tag) else { return };
        let class = &policy.classes[member.class];
        for other in &policy.classes {
            let relations = [
                other.require.follows.as_ref().map(|(_, f)| &f.target),
                other.require.member_of.as_ref().map(|(_, r)| r),
                other.require.members_tagged.as_ref().and_then(|(_, r)| r.as_ref()),
            ];
            for relation in relations.into_iter().flatten().filter(|r| r.class == member.class) {
                for pairing in &relation.by_form {
                    self.along(&pairing.ours, member.captures.group(&pairing.shared), Span::All);
                }
            }
        }
        let whole = policy.whole_line(member.class).filter(|_| class.is_followed);
        // Where the class had no tag or has none any more, whatever follows it is concerned: `orphan` is said of tags
        // only while there is something to follow.
        if let Some(whole) = whole.filter(|_| class.expected.is_some()) {
            let changes = self.changes;
            let changed = |t: &Tag| changes.iter().any(|c| matches!(c, Change::Tag { tag, .. } if tag == t));
            let highest = self.gather.whole_line(whole, Span::Highest(changes.len() + 1));
            if highest.is_some_and(|fact| matches!(fact, Fact::Known(tags) if tags.iter().all(changed))) {
                for (c, other) in policy.classes.iter().enumerate() {
                    let follows = other.require.follows.as_ref().is_some_and(|(_, f)| f.target.class == member.class);
                    if let Some(line) = policy.whole_line(c).filter(|_| follows) {
                        self.along(line, Vec::new(), Span::All);
                    }
                }
            }
        }
        if let Some((_, keeps)) = &class.require.keeps_platforms {
            let above = Span::Above(member.captures.rank(), 1);
            self.along(&keeps.line, member.captures.group(&keeps.shared), above);
        }
        // The highest version is judged by the newest platform set: whoever stops or begins to be it is concerned.
        if let Some(line) = whole.filter(|_| class.require.platforms.is_some()) {
            self.along(line, Vec::new(), Span::Below(member.captures.rank(), 1));
        }
        // What is expected beside this tag, of its own class or another: a repository that has one tag must have these.
        let expecting = policy.classes.iter().enumerate().filter(|(_, other)| other.expected.is_some());
        self.classes.extend(expecting.map(|(c, _)| (self.n, c)));
    }
}

/// Every target of these tags and every expectation, as for a `check` or an audit of a whole repository.
pub fn targets_of(set: &PolicySet, observation: &Observation, tags: &[Tag], expectations: bool) -> BTreeSet<Target> {
    let mut targets = BTreeSet::new();
    for (n, policy) in governing(set, observation) {
        targets.extend(tags.iter().map(|t| Target::Tag(n, t.clone())));
        if expectations {
            let expecting = policy.classes.iter().enumerate().filter(|(_, c)| c.expected.is_some());
            targets.extend(expecting.map(|(c, _)| Target::Class(n, c)));
        }
    }
    targets
}
