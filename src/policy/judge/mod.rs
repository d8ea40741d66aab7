//! The judge: a pure function from policies and an observation to verdicts, and the questions it met.
//!
//! `affected` says which tags a change can concern; `judge` judges them. Both return questions where the
//! observation does not hold an answer yet; the shell answers and calls again until none is left.

mod affected;
mod case;
mod gather;

use std::collections::{BTreeMap, BTreeSet};

pub use affected::{affected, targets_of};
pub(super) use case::{Case, Facts, Met};
pub(super) use gather::Gather;

use super::observation::{Observation, Question};
use super::set::{Lead, PolicySet};
use super::verdict::Verdict;
use crate::history::Origin;
use crate::image::{Digest, Tag};

/// What changed in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// A tag had one digest (or none) and has another (or none); or was only looked at again.
    Tag {
        /// The tag.
        tag: Tag,
        /// What it had.
        old: Option<Digest>,
        /// What it has.
        new: Option<Digest>,
    },
    /// A manifest came or went by its digest.
    Manifest(Digest),
}

/// What is judged: a tag under a policy, or what a class of it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A tag, under the policy at this place of the set.
    Tag(usize, Tag),
    /// The expectation of a class, by places of policy and class.
    Class(usize, usize),
}

/// The judge's answer: complete when no question is open.
#[derive(Debug, Clone, Default)]
pub struct Judgement {
    /// The verdicts; to be used only when `asks` is empty.
    pub verdicts: Vec<Verdict>,
    /// What the judge needs to know first.
    pub asks: Vec<Question>,
    /// What each judged tag leads to, where that is known: its place in the lines depends on it.
    pub leads: BTreeMap<Tag, Lead>,
}

/// Judges targets.
pub fn judge(set: &PolicySet, observation: &Observation, targets: &BTreeSet<Target>, origin: Origin) -> Judgement {
    let mut gather = Gather::new(observation);
    let mut judgement = Judgement { verdicts: Vec::with_capacity(targets.len()), ..Judgement::default() };
    for target in targets {
        let (Target::Tag(place, _) | Target::Class(place, _)) = target;
        let Some(policy) = set.policies().get(*place) else { continue };
        let verdict = match target {
            Target::Tag(_, tag) => {
                Case::new(policy, observation, origin, Some(tag)).tag(&mut gather, tag, &mut judgement.leads)
            }
            Target::Class(_, class) => Case::new(policy, observation, origin, None).expectation(&mut gather, *class),
        };
        if let Some(verdict) = verdict {
            judgement.verdicts.push(verdict);
        }
    }
    judgement.asks = gather.asks();
    judgement
}

/// Tags that tools make for signatures, attestations, SBOMs and referrers: `sha256-<64 hex>` with perhaps a
/// suffix (OCI distribution specification, referrers tag schema; cosign).
pub fn is_digest_tag(tag: &Tag) -> bool {
    let Some(rest) = tag.as_str().strip_prefix("sha256-") else { return false };
    let (hex, suffix) = rest.split_at(rest.len().min(64));
    hex.len() == 64
        && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && matches!(suffix, "" | ".sig" | ".att" | ".sbom")
}
