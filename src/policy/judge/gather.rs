//! Reading an observation, and noting what it does not hold; and what judging found out once for all targets.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::super::observation::{Fact, LineId, Observation, Question, Span, StoredConfig, StoredManifest, TagRecord};
use super::super::set::{Membership, Policy};
use super::super::view::View;
use crate::image::{Digest, Tag};

/// Reads an observation and notes what it does not hold. Whatever it gives is borrowed: nothing is copied.
pub(in super::super) struct Gather<'a> {
    observation: &'a Observation,
    asks: BTreeSet<Question>,
    /// What digests lead to, each with whether down to the image configs: several tags lead to one.
    views: Found<(&'a Digest, bool), Rc<View<'a>>>,
    /// The classes of tags, each with the place of its policy in memory: a tag is met by every rule that relates to it.
    members: RefCell<Members<'a>>,
}

type Found<K, T> = HashMap<K, T, foldhash::fast::RandomState>;
type Members<'a> = Found<(usize, &'a Tag), Option<Rc<Membership>>>;

fn room<K, T>(entries: usize) -> Found<K, T> {
    HashMap::with_capacity_and_hasher(entries, foldhash::fast::RandomState::default())
}

impl<'a> Gather<'a> {
    pub fn new(observation: &'a Observation) -> Gather<'a> {
        // As many as a push of ten platforms needs, so that they rarely grow.
        let (views, members) = (room(32), RefCell::new(room(48)));
        Gather { observation, asks: BTreeSet::new(), views, members }
    }

    /// What it was asked and did not find.
    pub fn asks(self) -> Vec<Question> {
        self.asks.into_iter().collect()
    }

    /// The class that governs a tag under a policy, found out once.
    pub fn member(&self, policy: &Policy, tag: &'a Tag) -> Option<Rc<Membership>> {
        let place = (std::ptr::from_ref(policy).addr(), tag);
        let mut members = self.members.borrow_mut();
        members.entry(place).or_insert_with(|| policy.membership(tag).map(Rc::new)).clone()
    }

    pub fn seen(&self, digest: &'a Digest, deep: bool) -> Option<Rc<View<'a>>> {
        self.views.get(&(digest, deep)).cloned()
    }

    pub fn keep(&mut self, digest: &'a Digest, deep: bool, view: Rc<View<'a>>) {
        self.views.insert((digest, deep), view);
    }

    fn or_ask<T>(&mut self, fact: Option<&'a T>, question: impl FnOnce() -> Question) -> Option<&'a T> {
        if fact.is_none() {
            self.asks.insert(question());
        }
        fact
    }

    pub fn manifest(&mut self, digest: &Digest) -> Option<&'a Fact<Arc<StoredManifest>>> {
        self.or_ask(self.observation.manifest(digest), || Question::Manifest(digest.clone()))
    }

    pub fn config(&mut self, digest: &Digest) -> Option<&'a Fact<Arc<StoredConfig>>> {
        self.or_ask(self.observation.config(digest), || Question::Config(digest.clone()))
    }

    pub fn tag(&mut self, tag: &Tag) -> Option<&'a Fact<Arc<TagRecord>>> {
        self.or_ask(self.observation.tag(tag), || Question::Tag(tag.clone()))
    }

    pub fn line(&mut self, line: &LineId, group: Vec<u8>, span: Span) -> Option<&'a Fact<Arc<[Tag]>>> {
        let place = (line.clone(), group, span);
        let fact = self.observation.line(&place);
        let (line, group, span) = place;
        self.or_ask(fact, || Question::Line { line, group, span })
    }

    /// The same of all tags of a line.
    pub fn whole_line(&mut self, line: &LineId, span: Span) -> Option<&'a Fact<Arc<[Tag]>>> {
        self.line(line, Vec::new(), span)
    }

    pub fn tagged(&mut self, digest: &Digest) -> Option<&'a Fact<Arc<[Tag]>>> {
        self.or_ask(self.observation.tagged(digest), || Question::Tagged(digest.clone()))
    }

    pub fn parents(&mut self, digest: &Digest) -> Option<&'a Fact<Arc<[Digest]>>> {
        self.or_ask(self.observation.parents(digest), || Question::Parents(digest.clone()))
    }

    pub fn locked(&mut self, tag: &Tag, digest: &Digest) -> Option<&'a Fact<bool>> {
        let place = (tag.clone(), digest.clone());
        self.or_ask(self.observation.locked(&place), || Question::Locked(tag.clone(), digest.clone()))
    }
}
