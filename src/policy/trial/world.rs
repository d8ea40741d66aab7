//! A modelled record, and the pipeline that keeps it by a modelled registry: an event is a hint, the registry is
//! asked, what it shows is witnessed, what that touches is judged, and the violations are brought up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::super::judge::{Change, Judgement, Target, affected, judge, targets_of};
use super::super::observation::{
    Answer, Cause, CauseKind, Fact, LineId, Observation, Question, SPAN_MAX, Span, StoredConfig, StoredManifest,
    TagRecord,
};
use super::super::reason::Reason;
use super::super::set::{Lead, PolicySet};
use super::super::verdict::{Finding, Rule, State, Verdict};
use super::super::violation::{Edge, Violation, ViolationKey, advance, is_obsolete, resolve};
use super::manifests::Catalogue;
use super::registry::Registry;
use super::spec::{Health, Subject};
use crate::history::{Look, Origin, Report, TagHistory};
use crate::image::{Digest, ImageConfig, Manifest, Repository, Tag};

/// Most rounds in which what a tag leads to changes who is concerned: each settles at least one tag.
const ROUNDS_MAX: usize = 16;

/// What a sender tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Push {
        tag: Tag,
        digest: Digest,
        at: Timestamp,
    },
    PushByDigest(Digest),
    Untag {
        tag: Tag,
        at: Timestamp,
    },
    Delete {
        digest: Digest,
        at: Timestamp,
    },
    /// Not an event of a sender: the tag is looked at because of something else.
    Look(Tag),
}

#[derive(Debug, Clone, Default)]
struct Entry {
    current: Option<Digest>,
    history: TagHistory,
    accepted: Option<(Digest, Timestamp)>,
    judged_moves: u32,
    locked: Option<bool>,
    lead: Option<Lead>,
}

/// What was recorded.
#[derive(Debug, Clone, Default)]
struct Record {
    tags: BTreeMap<Tag, Entry>,
    content: BTreeMap<Digest, Arc<StoredManifest>>,
    gone: BTreeSet<Digest>,
    parents: BTreeMap<Digest, BTreeSet<Digest>>,
    violations: BTreeMap<ViolationKey, Violation>,
    verdicts: BTreeMap<(Arc<str>, Subject), Verdict>,
}

/// Registry, record and clock of one case.
#[derive(Debug, Clone)]
pub(super) struct World {
    repository: Repository,
    catalogue: Arc<Catalogue>,
    set: Arc<PolicySet>,
    now: Timestamp,
    recorded: bool,
    pub registry: Registry,
    record: Record,
    /// Events whose look at the registry came to nothing.
    retry: Vec<Event>,
    /// Tags of which the last look came to nothing.
    unseen: BTreeMap<Tag, Cause>,
    /// What was unmet at any time, for the coverage: policy, class, requirement.
    pub unmet: BTreeSet<(Arc<str>, Arc<str>, Rule)>,
    /// What was announced, in order.
    pub announced: Vec<(ViolationKey, Edge)>,
}

impl World {
    pub fn new(
        repository: Repository,
        catalogue: Arc<Catalogue>,
        set: Arc<PolicySet>,
        start: Timestamp,
        recorded: bool,
    ) -> World {
        World {
            repository,
            catalogue,
            set,
            now: start,
            recorded,
            registry: Registry::default(),
            record: Record::default(),
            retry: Vec::new(),
            unseen: BTreeMap::new(),
            unmet: BTreeSet::new(),
            announced: Vec::new(),
        }
    }

    /// The digest of a manifest of the test.
    pub fn digest(&self, name: &str) -> Option<Digest> {
        self.catalogue.names.get(name).cloned()
    }

    /// The latest verdict about a subject.
    pub fn verdict(&self, policy: &Arc<str>, subject: &Subject) -> Option<&Verdict> {
        self.record.verdicts.get(&(policy.clone(), subject.clone()))
    }

    /// The violation of a requirement, whatever its state.
    pub fn violation(&self, policy: &str, subject: &Subject, rule: Rule) -> Option<&Violation> {
        let of_subject = |key: &ViolationKey| match subject {
            Subject::Tag(tag) => key.tag.as_ref() == Some(tag),
            Subject::Class(class) => key.tag.is_none() && key.class == *class,
        };
        let mut all = self.record.violations.values();
        all.find(|v| *v.key.policy == *policy && v.key.rule == rule && of_subject(&v.key))
    }

    /// All violations on record.
    #[cfg(test)]
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.record.violations.values()
    }

    /// All latest verdicts.
    #[cfg(test)]
    pub fn verdicts(&self) -> impl Iterator<Item = (&Subject, &Verdict)> {
        self.record.verdicts.iter().map(|((_, subject), verdict)| (subject, verdict))
    }

    /// As if nothing had been judged yet.
    #[cfg(test)]
    pub fn forget_verdicts(&mut self) {
        self.record.verdicts.clear();
        self.record.violations.clear();
        for entry in self.record.tags.values_mut() {
            entry.lead = None;
        }
    }

    /// Lets time pass: what is pending falls due, and days begin on which policies read otherwise.
    pub fn pass_time(&mut self, until: Timestamp) {
        let mut last = None;
        loop {
            let due = self
                .record
                .violations
                .values()
                .filter_map(|v| v.fires_at)
                .filter(|at| *at <= until && last.is_none_or(|l| *at > l))
                .min();
            let turn = self.set.next_turn(self.now).filter(|at| *at <= until && last.is_none_or(|l| *at > l));
            let Some(next) = due.into_iter().chain(turn).min().filter(|_| self.recorded) else { break };
            last = Some(next);
            self.now = self.now.max(next);
            if turn == Some(next) {
                self.judge_all(Origin::PolicyChange);
                continue;
            }
            let due: Vec<ViolationKey> = self
                .record
                .violations
                .values()
                .filter(|v| v.fires_at.is_some_and(|at| at <= next))
                .map(|v| v.key.clone())
                .collect();
            let targets = due.iter().filter_map(|key| self.target(key)).collect();
            self.judge_targets(Vec::new(), targets, Origin::PolicyChange);
        }
        self.now = until.max(self.now);
    }

    fn target(&self, key: &ViolationKey) -> Option<Target> {
        let n = self.set.policies().iter().position(|p| p.name == key.policy)?;
        Some(match &key.tag {
            Some(tag) => Target::Tag(n, tag.clone()),
            None => Target::Class(n, self.set.policies()[n].classes.iter().position(|c| c.name == key.class)?),
        })
    }

    /// Tries again what could not be determined.
    pub fn try_again(&mut self) {
        if !self.recorded {
            return;
        }
        let events = std::mem::take(&mut self.retry);
        self.unseen.clear();
        self.deliver(&events);
        let undetermined = |v: &&Verdict| v.findings.iter().any(Finding::is_error);
        let targets: BTreeSet<Target> = self
            .record
            .verdicts
            .values()
            .filter(undetermined)
            .filter_map(|v| {
                let n = self.set.policies().iter().position(|p| p.name == v.policy)?;
                Some(match &v.subject.tag {
                    Some(tag) => Target::Tag(n, tag.clone()),
                    None => {
                        let class = v.class.as_ref()?;
                        Target::Class(n, self.set.policies()[n].classes.iter().position(|c| c.name == *class)?)
                    }
                })
            })
            .collect();
        let missed: Vec<Digest> = self.record.gone.iter().cloned().collect();
        let mut changes = Vec::new();
        for digest in missed {
            if let Fact::Known(_) = self.registry.fetch(&digest, &self.catalogue) {
                self.record.gone.remove(&digest);
                changes.push(Change::Manifest(digest));
            }
        }
        self.judge_targets(changes, targets, Origin::Event);
    }

    /// Handles events that arrive together.
    pub fn deliver(&mut self, events: &[Event]) {
        if !self.recorded {
            return;
        }
        let mut changes = Vec::new();
        for event in events {
            match event {
                Event::Push { tag, digest, at } => {
                    let report = Report { digest: Some(digest.clone()), at: *at, actor: None };
                    self.witness(event, tag, Some(report), Origin::Event, &mut changes);
                    changes.push(Change::Manifest(digest.clone()));
                }
                Event::Untag { tag, at } => {
                    let report = Report { digest: None, at: *at, actor: None };
                    self.witness(event, tag, Some(report), Origin::Event, &mut changes);
                }
                Event::Look(tag) => self.witness(event, tag, None, Origin::Event, &mut changes),
                Event::PushByDigest(digest) => {
                    self.learn(digest);
                    changes.push(Change::Manifest(digest.clone()));
                }
                Event::Delete { digest, at } => {
                    match self.registry.fetch(digest, &self.catalogue) {
                        Fact::Absent => {
                            self.record.gone.insert(digest.clone());
                        }
                        Fact::Known(_) => {}
                        Fact::Undetermined(_) => {
                            self.retry.push(event.clone());
                            continue;
                        }
                    }
                    let on_it =
                        |(tag, entry): (&Tag, &Entry)| (entry.current.as_ref() == Some(digest)).then(|| tag.clone());
                    let tags: Vec<Tag> = self.record.tags.iter().filter_map(on_it).collect();
                    for tag in tags {
                        let report = Report { digest: None, at: *at, actor: None };
                        let again = Event::Untag { tag: tag.clone(), at: *at };
                        self.witness(&again, &tag, Some(report), Origin::Event, &mut changes);
                    }
                    changes.push(Change::Manifest(digest.clone()));
                }
            }
        }
        self.judge_targets(changes, BTreeSet::new(), Origin::Event);
    }

    /// Looks at a tag and takes in what was reported of it and what the registry shows.
    fn witness(&mut self, event: &Event, tag: &Tag, report: Option<Report>, origin: Origin, changes: &mut Vec<Change>) {
        let old = self.record.tags.get(tag).and_then(|e| e.current.clone());
        let look = match self.registry.look(tag, &self.catalogue) {
            Ok(look) => look,
            Err(cause) => {
                self.retry.push(event.clone());
                self.unseen.insert(tag.clone(), cause);
                changes.push(Change::Tag { tag: tag.clone(), old: old.clone(), new: old });
                return;
            }
        };
        self.unseen.remove(tag);
        // An event alone makes no history: the manifest that it names must be there.
        let report = match report {
            Some(Report { digest: Some(digest), .. }) if look.as_ref() != Some(&digest) => {
                match self.registry.fetch(&digest, &self.catalogue) {
                    Fact::Known(_) => report_of(event),
                    Fact::Absent => None,
                    Fact::Undetermined(_) => {
                        self.retry.push(event.clone());
                        None
                    }
                }
            }
            report => report,
        };
        let reported = report.as_ref().and_then(|r| r.digest.clone());
        for digest in look.iter().chain(&reported) {
            self.learn(digest);
        }
        let locked = self.registry.has_locks.then(|| self.registry.locked.contains(tag));
        let entry = self.record.tags.entry(tag.clone()).or_default();
        entry.history.witness(report, &Look { digest: look.clone(), at: self.now }, origin);
        if entry.current != look {
            entry.lead = None;
        }
        entry.current = look.clone();
        entry.locked = locked;
        changes.push(Change::Tag { tag: tag.clone(), old, new: look });
    }

    /// Takes a manifest onto the record, if the registry gives it.
    fn learn(&mut self, digest: &Digest) {
        if let Fact::Known(manifest) = self.registry.fetch(digest, &self.catalogue) {
            self.record.gone.remove(digest);
            self.keep(digest, &manifest);
        }
    }

    fn keep(&mut self, digest: &Digest, manifest: &Arc<StoredManifest>) {
        if let Some(index) = manifest.parsed.as_ref().ok().and_then(Manifest::index) {
            for entry in &index.entries {
                self.record.parents.entry(entry.digest.clone()).or_default().insert(digest.clone());
            }
        }
        self.record.content.insert(digest.clone(), manifest.clone());
    }

    /// Compares everything with the registry and judges every tag.
    pub fn audit(&mut self) {
        if !self.recorded {
            return;
        }
        let known = self.record.tags.keys();
        let tags: BTreeSet<Tag> = known.chain(self.registry.tags.keys()).cloned().collect();
        let mut changes = Vec::new();
        for tag in tags {
            self.witness(&Event::Look(tag.clone()), &tag, None, Origin::Audit, &mut changes);
        }
        let on_record: BTreeSet<Digest> = self.record.content.keys().chain(&self.record.gone).cloned().collect();
        for digest in on_record {
            match self.registry.fetch(&digest, &self.catalogue) {
                Fact::Known(_) => {
                    self.record.gone.remove(&digest);
                }
                Fact::Absent => {
                    self.record.gone.insert(digest);
                }
                Fact::Undetermined(_) => {}
            }
        }
        self.judge_all(Origin::Audit);
    }

    /// Other policies come into force.
    pub fn apply(&mut self, set: Arc<PolicySet>) {
        self.set = set;
        let obsolete: Vec<Violation> = self
            .record
            .violations
            .values()
            .filter(|v| v.state != State::Resolved && is_obsolete(v, &self.set, &self.repository))
            .cloned()
            .collect();
        for violation in obsolete {
            let change = resolve(&violation, self.now, violation.reason);
            self.enter(change);
        }
        self.judge_all(Origin::PolicyChange);
    }

    /// An operator takes a digest as a tag's baseline.
    pub fn accept(&mut self, tag: &Tag, digest: Digest) {
        if let Some(entry) = self.record.tags.get_mut(tag) {
            entry.accepted = Some((digest, self.now));
        }
        let current = self.record.tags.get(tag).and_then(|e| e.current.clone());
        let change = Change::Tag { tag: tag.clone(), old: current.clone(), new: current };
        self.judge_targets(vec![change], BTreeSet::new(), Origin::Event);
    }

    /// As `check` without a store: everything the registry has, and nothing remembered.
    pub fn check(&mut self) {
        self.record = Record::default();
        self.unseen.clear();
        for tag in self.registry.tags.keys().cloned().collect::<Vec<_>>() {
            match self.registry.look(&tag, &self.catalogue) {
                Ok(look) => {
                    look.iter().for_each(|d| self.learn(d));
                    let locked = self.registry.has_locks.then(|| self.registry.locked.contains(&tag));
                    let entry = Entry { current: look, locked, ..Entry::default() };
                    self.record.tags.insert(tag, entry);
                }
                Err(cause) => {
                    self.unseen.insert(tag.clone(), cause);
                    self.record.tags.insert(tag, Entry::default());
                }
            }
        }
        self.judge_all(Origin::Check);
    }

    /// Judges every tag on record and every expectation.
    pub fn judge_all(&mut self, origin: Origin) {
        let observation = Observation::new(self.repository.clone(), self.now, self.recorded);
        let tags: Vec<Tag> = self.record.tags.keys().cloned().collect();
        let targets = targets_of(&self.set, &observation, &tags, true);
        self.judge_targets(Vec::new(), targets, origin);
    }

    /// Judges what changes concern, and further targets, until what the tags lead to is settled; then brings
    /// verdicts and violations onto the record.
    fn judge_targets(&mut self, mut changes: Vec<Change>, mut targets: BTreeSet<Target>, origin: Origin) {
        for _ in 0..ROUNDS_MAX {
            let mut observation = Observation::new(self.repository.clone(), self.now, self.recorded);
            let concerned = loop {
                let (concerned, asks) = affected(&self.set, &observation, &changes);
                if asks.is_empty() {
                    break concerned;
                }
                self.answer_all(asks, &mut observation);
            };
            targets.extend(concerned);
            let judgement = loop {
                let judgement = judge(&self.set, &observation, &targets, origin);
                if judgement.asks.is_empty() {
                    break judgement;
                }
                self.answer_all(judgement.asks, &mut observation);
            };
            let mut settled = true;
            for (tag, lead) in &judgement.leads {
                let Some(entry) = self.record.tags.get_mut(tag) else { continue };
                let before = self.set.line_keys(&self.repository, tag, entry.lead);
                if self.set.line_keys(&self.repository, tag, Some(*lead)) != before {
                    // The tag counts in other lines than was taken for granted: others are concerned too.
                    settled = false;
                    let current = entry.current.clone();
                    changes.push(Change::Tag { tag: tag.clone(), old: current.clone(), new: current });
                }
                entry.lead = Some(*lead);
            }
            if settled {
                self.enter_all(judgement);
                return;
            }
        }
    }

    fn enter_all(&mut self, judgement: Judgement) {
        for mut verdict in judgement.verdicts {
            let subject = match (&verdict.subject.tag, &verdict.class) {
                (Some(tag), _) => Subject::Tag(tag.clone()),
                (None, Some(class)) => Subject::Class(class.clone()),
                (None, None) => continue,
            };
            if self.recorded {
                let open: Vec<Violation> =
                    self.record.violations.values().filter(|v| v.state != State::Resolved).cloned().collect();
                for change in advance(&mut verdict, &open, self.now) {
                    self.enter(change);
                }
                if let Subject::Tag(tag) = &subject
                    && !self.unseen.contains_key(tag)
                    && let Some(entry) = self.record.tags.get_mut(tag)
                {
                    entry.judged_moves = entry.history.moves();
                }
            }
            // Errors do not count, nor what is never more than a note.
            let note = |f: &&Finding| matches!(f.reason, Reason::SameImages | Reason::RepeatedEntry);
            for finding in verdict.findings.iter().filter(|f| !f.is_error() && !note(f)) {
                let class = verdict.class.clone().unwrap_or_default();
                self.unmet.insert((verdict.policy.clone(), class, finding.rule));
            }
            self.record.verdicts.insert((verdict.policy.clone(), subject), verdict);
        }
    }

    fn enter(&mut self, change: super::super::violation::Change) {
        let key = change.violation.key.clone();
        self.announced.extend(change.edges.iter().map(|edge| (key.clone(), *edge)));
        self.record.violations.insert(key, change.violation);
    }

    fn answer_all(&mut self, asks: Vec<Question>, observation: &mut Observation) {
        for question in asks {
            let answer = self.answer(&question);
            observation.tell(question, answer);
        }
    }

    fn answer(&mut self, question: &Question) -> Answer {
        match question {
            Question::Tag(tag) => Answer::Tag(self.tag(tag)),
            Question::Manifest(digest) => Answer::Manifest(self.manifest(digest)),
            Question::Config(digest) => Answer::Config(self.config(digest)),
            Question::Line { line, group, span } => Answer::Tags(Fact::Known(self.line(line, group, span).into())),
            Question::Tagged(digest) => {
                let on_it = self.record.tags.iter().filter(|(_, e)| e.current.as_ref() == Some(digest));
                Answer::Tags(Fact::Known(on_it.map(|(tag, _)| tag.clone()).take(SPAN_MAX).collect()))
            }
            Question::Locked(tag, _) => {
                let locked = self.record.tags.get(tag).and_then(|entry| entry.locked);
                Answer::Locked(locked.map_or(Fact::Absent, Fact::Known))
            }
            Question::Parents(digest) => {
                let parents = self.record.parents.get(digest).into_iter().flatten();
                Answer::Digests(Fact::Known(parents.take(SPAN_MAX).cloned().collect()))
            }
        }
    }

    fn tag(&self, tag: &Tag) -> Fact<Arc<TagRecord>> {
        if let Some(cause) = self.unseen.get(tag) {
            return Fact::Undetermined(cause.clone());
        }
        let Some(entry) = self.record.tags.get(tag) else { return Fact::Absent };
        Fact::Known(Arc::new(TagRecord {
            current: entry.current.clone(),
            history: self.recorded.then(|| entry.history.clone()),
            accepted: entry.accepted.clone(),
            judged_moves: entry.judged_moves,
            locked: entry.locked,
        }))
    }

    /// Manifests are content: what is on record is not fetched again, unless it is known to be gone.
    fn manifest(&mut self, digest: &Digest) -> Fact<Arc<StoredManifest>> {
        if self.record.gone.contains(digest) {
            return Fact::Absent;
        }
        if let Some(manifest) = self.record.content.get(digest) {
            return Fact::Known(manifest.clone());
        }
        let fact = self.registry.fetch(digest, &self.catalogue);
        match &fact {
            Fact::Known(manifest) => self.keep(digest, manifest),
            // Until something tells otherwise: an event about it, an audit, or another try.
            Fact::Absent => {
                self.record.gone.insert(digest.clone());
            }
            Fact::Undetermined(_) => {}
        }
        fact
    }

    fn config(&self, digest: &Digest) -> Fact<Arc<StoredConfig>> {
        if let Health::Failing(text) = self.registry.health(None) {
            return Fact::Undetermined(Cause { kind: CauseKind::Registry, text: text.clone() });
        }
        match self.catalogue.configs.get(digest) {
            Some(bytes) => Fact::Known(Arc::new(StoredConfig {
                size: bytes.len() as u64,
                parsed: ImageConfig::parse(bytes).map_err(|e| e.to_string()),
                bytes: bytes.as_slice().into(),
            })),
            None => Fact::Absent,
        }
    }

    fn line(&self, line: &LineId, group: &[u8], span: &Span) -> Vec<Tag> {
        let mut ranked: Vec<(Vec<u8>, Tag)> = Vec::new();
        for (tag, entry) in self.record.tags.iter().filter(|(_, e)| e.current.is_some()) {
            let keys = self.set.line_keys(&self.repository, tag, entry.lead);
            let key = keys.into_iter().find(|k| k.line == *line && k.group == group);
            ranked.extend(key.map(|k| (k.rank, tag.clone())));
        }
        ranked.sort();
        let tags = |ranked: Vec<(Vec<u8>, Tag)>| ranked.into_iter().map(|(_, tag)| tag);
        match span {
            Span::All => tags(ranked).take(SPAN_MAX).collect(),
            Span::Highest(most) => tags(ranked).rev().take(*most).collect(),
            Span::Below(rank, most) => {
                ranked.retain(|(r, _)| r < rank);
                tags(ranked).rev().take(*most).collect()
            }
            Span::Above(rank, most) => {
                ranked.retain(|(r, _)| r > rank);
                tags(ranked).take(*most).collect()
            }
        }
    }
}

fn report_of(event: &Event) -> Option<Report> {
    match event {
        Event::Push { digest, at, .. } => Some(Report { digest: Some(digest.clone()), at: *at, actor: None }),
        _ => None,
    }
}
