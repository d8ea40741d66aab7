//! One step of one repository: what events and rechecks ask for, looked at, judged, and written as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::facts::{Facts, ROUNDS_MAX, content_of, is_away};
use super::look::{Told, cause, look};
use super::portion::{deleted, resolutions};
use super::refresh::Baseline;
use super::{Pipeline, STEP_TIME};
use crate::alert::alerts_for;
use crate::backoff::Backoff;
use crate::event::{Action, Stage};
use crate::history::{Origin, TagHistory};
use crate::image::{Digest, Repository, Tag};
use crate::policy::violation::{self, Edge};
use crate::policy::{
    Answer, Change, Fact, Lead, Observation, Outcome, PolicySet, Question, State, TagRecord, Target, Verdict, affected,
    judge,
};
use crate::registry::{Budget, RegistryError, Session};
use crate::report;
use crate::store::{Claim, EventEnd, Judged, Paging, Queued, Recheck, Step, Store, StoreError, TagUpdate};

/// What is tried again while a registry is away: it is asked no more often than its own pauses allow, so there is
/// nothing to spare by waiting longer.
const AWAY_MOST: Duration = Duration::from_secs(10);
/// What is tried again after something could not be determined.
pub(super) const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(600) };
/// Most verdicts of one tag: one for each policy that governs it.
const PAGE_MAX: usize = 1_000;
/// When to look again at what a sender only announces: it acts at once or not at all.
const INTENT_PAUSE: Duration = Duration::from_secs(2);

/// When to look again where a fresh event says what the registry does not show: a replica may lag.
const SETTLE: Duration = Duration::from_secs(5);

/// What is to be done in one step.
#[derive(Default)]
struct Agenda<'a> {
    /// Tags to look at, each with the events about it.
    tags: BTreeMap<Tag, Vec<&'a Queued>>,
    /// Tags to judge again from the record, without a look.
    again: BTreeSet<Tag>,
    /// Manifests that came or went by digest.
    manifests: BTreeSet<Digest>,
    /// Whether what the repository lacks is to be judged.
    expectations: bool,
    /// Origin of the verdicts.
    origin: Option<Origin>,
}

/// One tag as the step sees it.
struct Sight {
    history: TagHistory,
    before: TagRecord,
    current: Option<Digest>,
    /// Whether an event says what the registry does not show yet.
    unsettled: bool,
}

impl Sight {
    /// The tag's record as it will be.
    fn record(&self) -> TagRecord {
        TagRecord { current: self.current.clone(), history: Some(self.history.clone()), ..self.before.clone() }
    }
}

/// Why a step did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    /// The record's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of this program, or of a store that does not answer what it is asked: nothing of it may count as judged.
    #[error("judging {0} asks without end; please report it with the image's manifests")]
    Endless(Repository),
}

impl From<WorkError> for StoreError {
    fn from(error: WorkError) -> StoreError {
        match error {
            WorkError::Store(error) => error,
            endless => StoreError::Unavailable(endless.to_string()),
        }
    }
}

impl<S: Store> Pipeline<S> {
    pub(super) async fn work(&self, claim: &Claim) -> Result<(), WorkError> {
        failpoint!("work-claimed");
        let set = self.policies.load_full();
        let client = self.registries.get(&claim.repository.host);
        self.hear(claim);
        if let Some(client) = client {
            match self.baseline(claim, client, &set).await? {
                Baseline::Done => {}
                Baseline::More => {
                    self.give_back(claim, Duration::ZERO).await;
                    return Ok(());
                }
                Baseline::Unknown(error) => return Ok(self.later(claim, &error).await?),
            }
        }
        let session = client.map(|c| c.session(budget(resolutions(claim))));
        let mut facts = Facts::new(&*self.store, session.as_ref(), &claim.repository, &set);
        let mut step = Step::default();
        let agenda = self.agenda(claim, &mut step).await?;
        let origin = agenda.origin.unwrap_or(Origin::Event);

        failpoint!("work-planned");
        // Look.
        let mut sights: BTreeMap<Tag, Sight> = BTreeMap::new();
        let mut failed: BTreeMap<Tag, RegistryError> = BTreeMap::new();
        for (tag, events) in &agenda.tags {
            if let Some(error) = &facts.away {
                failed.insert(tag.clone(), error.clone());
                continue;
            }
            match self.see(session.as_ref(), &claim.repository, tag, events, &mut facts, origin).await? {
                Ok(sight) => {
                    sights.insert(tag.clone(), sight);
                }
                Err(error) => {
                    facts.failed(&error);
                    failed.insert(tag.clone(), error);
                }
            }
        }
        // A tag that was never there and is not there is nothing to judge, whatever an event said of it (T-22).
        sights.retain(|_, sight| sight.current.is_some() || !sight.history.is_empty());
        let told_again = self.told_again(claim, &agenda, &sights, &set).await?;
        for tag in told_again {
            // Kept all the same: what comes later may put it between two others.
            let sight = sights.remove(&tag).filter(|_| !cfg!(sabotage = "no_evidence"));
            step.sighted.extend(sight.map(|sight| (tag, sight.history.sightings().to_vec())));
        }
        for (tag, sight) in &sights {
            let record = sight.record();
            let keys = set.line_keys(&claim.repository, tag, None);
            facts.pending.tags.insert(tag.clone(), (Arc::new(record), keys));
        }

        let unsure = self.deleted(claim, &mut facts, &mut step).await;

        failpoint!("work-looked");
        // Judge.
        let mut changes: Vec<Change> = sights
            .iter()
            .map(|(tag, s)| Change::Tag { tag: tag.clone(), old: s.before.current.clone(), new: s.current.clone() })
            .collect();
        changes.extend(agenda.manifests.iter().filter(|d| !unsure.contains_key(*d)).cloned().map(Change::Manifest));
        let extra = self.extra_targets(&set, &claim.repository, &agenda, &failed);
        let now = self.clock.now();
        let (verdicts, leads) =
            self.judged(&mut facts, &set, &claim.repository, &changes, &extra, &failed, origin, now).await?;

        failpoint!("work-judged");
        // Record.
        let undetermined = facts.undetermined;
        let attempts = claim.events.iter().map(|q| q.attempts).chain(claim.rechecks.iter().map(|r| r.attempts)).max();
        let mut pause = AGAIN.delay(attempts.unwrap_or(0) + 1, fraction());
        if facts.away.is_some() {
            pause = pause.min(AWAY_MOST);
        }
        let again = after(now, pause.max(undetermined.unwrap_or_default()));
        for (tag, sight) in &sights {
            if sight.unsettled {
                let due = after(now, SETTLE);
                step.rechecks.push(Recheck { tag: Some(tag.clone()), due, origin: Origin::Event, attempts: 0 });
            }
            step.tags.push(TagUpdate {
                tag: tag.clone(),
                sightings: sight.history.sightings().to_vec(),
                current: sight.current.clone(),
                // What was on record of another digest says nothing of this one.
                locked: sight.before.locked.filter(|_| sight.before.current == sight.current),
                lines: set.line_keys(&claim.repository, tag, leads.get(tag).copied()),
                judged_moves: sight.history.moves(),
            });
        }
        let attempts = attempts.unwrap_or(0);
        let unknown = self.settle(&mut step, claim, verdicts, now, again, attempts).await?;
        // Judged from the record it would be found where it no longer is.
        let moved = |r: &&mut Recheck| r.tag.as_ref().is_some_and(|tag| facts.moved.contains(tag));
        step.rechecks.iter_mut().filter(moved).for_each(|recheck| recheck.origin = Origin::Audit);
        for queued in &claim.events {
            let event = &queued.incoming.event;
            let unsure = event.digest.as_ref().and_then(|d| unsure.get(d)).filter(|_| event.action == Action::Delete);
            let end = match event.tag.as_ref().and_then(|t| failed.get(t)).or(unsure) {
                Some(error) => EventEnd::Retry { at: again, fault: error.to_string() },
                None => EventEnd::Judged,
            };
            step.events.push((queued.id, end));
        }
        step.rechecked = claim.rechecks.iter().map(|r| r.tag.clone()).collect();
        // A look that failed is made again, whether or not any policy has something to say about the tag.
        let looks = claim.rechecks.iter().filter(|r| r.tag.as_ref().is_some_and(|t| failed.contains_key(t)));
        step.rechecks.extend(looks.map(|r| Recheck { due: again, attempts: r.attempts + 1, ..r.clone() }));
        step.locks.extend(facts.locks.into_iter().filter_map(|((tag, digest), fact)| match fact {
            Fact::Known(locked) => Some((tag, digest, locked)),
            _ => None,
        }));
        step.contents.extend(facts.contents.into_values());
        self.tell_undetermined(claim, attempts, &unknown, now, again).await?;
        let announced: Vec<_> = step.changes.clone();
        let verdicts: Vec<(Arc<str>, Outcome)> =
            step.verdicts.iter().map(|j| (j.verdict.policy.clone(), j.verdict.outcome)).collect();
        failpoint!("work-record-before");
        self.store.complete(claim, step, false).await?;
        failpoint!("work-recorded");

        // Only what is on disk is counted and told.
        let again = claim.rechecks.iter().filter(|r| r.tag.is_some() && r.origin == Origin::PolicyChange).count();
        self.rejudged.judged(again as u64, self.clock.now());
        for (policy, outcome) in verdicts {
            self.metrics.verdict(&policy, outcome, origin);
        }
        for change in &announced {
            let key = &change.violation.key;
            if change.edges.contains(&Edge::Fired) {
                self.metrics.violation_fired(&key.policy, key.rule, change.violation.severity);
            }
            for edge in &change.edges {
                tracing::info!(
                    image.repository = %claim.repository,
                    image.tag = key.tag.as_ref().map(Tag::as_str),
                    policy.name = &*key.policy,
                    requirement = key.rule.as_str(),
                    reason = change.violation.reason.as_str(),
                    severity = change.violation.severity.as_str(),
                    state = match edge { Edge::Fired => "firing", Edge::Resolved => "resolved" },
                    "{}", change.violation.message,
                );
            }
        }
        let done = self.clock.now();
        for queued in
            claim.events.iter().filter(|q| q.incoming.event.tag.as_ref().is_none_or(|t| !failed.contains_key(t)))
        {
            let elapsed = Duration::try_from(done.duration_since(queued.incoming.received_at)).unwrap_or_default();
            self.metrics.judged(origin, elapsed);
        }
        Ok(())
    }

    /// Takes note of when the registries' hooks were last heard.
    fn hear(&self, claim: &Claim) {
        let Some(latest) = claim.events.iter().map(|q| q.incoming.received_at).max() else { return };
        let mut heard = self.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = heard.entry(claim.repository.host.clone()).or_insert(latest);
        *known = latest.max(*known);
    }

    /// Has everything of a portion tried again because of a fault of the registry.
    async fn later(&self, claim: &Claim, error: &RegistryError) -> Result<(), StoreError> {
        let attempts = claim.events.iter().map(|q| q.attempts).chain(claim.rechecks.iter().map(|r| r.attempts)).max();
        let mut pause = AGAIN.delay(attempts.unwrap_or(0) + 1, fraction());
        if is_away(error) {
            pause = pause.min(AWAY_MOST);
        }
        if let RegistryError::Throttled { retry_after } = error {
            pause = pause.max(*retry_after);
        }
        let at = after(self.clock.now(), pause);
        let fault = error.to_string();
        let again = |r: &Recheck| Recheck { due: at, attempts: r.attempts + 1, ..r.clone() };
        let step = Step {
            events: claim.events.iter().map(|q| (q.id, EventEnd::Retry { at, fault: fault.clone() })).collect(),
            rechecked: claim.rechecks.iter().map(|r| r.tag.clone()).collect(),
            rechecks: claim.rechecks.iter().map(again).collect(),
            ..Step::default()
        };
        self.store.complete(claim, step, false).await
    }

    /// Asks the registry about the manifests that were deleted by what events say. What it no longer has is no
    /// answer any more, in this step and after; the answer is those about which it could not be asked.
    async fn deleted(
        &self,
        claim: &Claim,
        facts: &mut Facts<'_, S>,
        step: &mut Step,
    ) -> BTreeMap<Digest, RegistryError> {
        let mut unsure = BTreeMap::new();
        let Some(session) = facts.session else { return unsure };
        for digest in deleted(claim) {
            let asked = match &facts.away {
                Some(error) => Err(error.clone()),
                None => session.head_manifest(&claim.repository.name, &digest).await,
            };
            match asked {
                Ok(true) => {}
                Ok(false) => {
                    facts.gone.insert(digest.clone());
                    step.gone.push(digest);
                }
                Err(error) => {
                    facts.failed(&error);
                    unsure.insert(digest, error);
                }
            }
        }
        unsure
    }

    /// The tags of which the events told nothing new: the registry shows what is on record, the history is what it
    /// was, and the verdicts of the policies in force are passes. A push to a geo-replicated registry is told by
    /// each of its replicas, under ids of their own; it is one push, with one verdict. Where anything was found or
    /// could not be determined, being told again is a reason to look again.
    async fn told_again(
        &self,
        claim: &Claim,
        agenda: &Agenda<'_>,
        sights: &BTreeMap<Tag, Sight>,
        set: &PolicySet,
    ) -> Result<BTreeSet<Tag>, StoreError> {
        let repository = &claim.repository;
        let hashes: BTreeSet<&str> = set.governing(repository).iter().map(|policy| &*policy.hash).collect();
        let mut told = BTreeSet::new();
        for (tag, sight) in sights {
            let events = agenda.tags.get(tag).map(Vec::as_slice).unwrap_or_default();
            let only_pushes = !events.is_empty()
                && events.iter().all(|queued| {
                    let event = &queued.incoming.event;
                    event.action == Action::Push && event.digest.is_some() && event.digest == sight.current
                });
            let asked_for = claim.rechecks.iter().any(|recheck| recheck.tag.as_ref() == Some(tag));
            let before = sight.before.history.as_ref().map(TagHistory::periods).unwrap_or_default();
            let same = sight.before.current == sight.current && before == sight.history.periods();
            if !only_pushes || asked_for || !same {
                continue;
            }
            let (host, name) = (repository.host.clone(), repository.name.to_string());
            let paging = Paging { cursor: None, limit: PAGE_MAX };
            let verdicts = self.store.verdicts(Some(host), Some(name), Some(tag.clone()), paging).await?.items;
            let passes = verdicts.iter().filter_map(|text| report::passed_by(text)).collect::<BTreeSet<_>>();
            if verdicts.len() == hashes.len() && hashes.iter().all(|hash| passes.contains(*hash)) {
                told.insert(tag.clone());
            }
        }
        Ok(told)
    }

    /// Judges tags as they are now, against the record, and records nothing.
    ///
    /// # Errors
    /// The store's; what the registry does not answer becomes verdicts that say so.
    pub async fn check(&self, repository: &Repository, tags: &[Tag]) -> Result<Vec<Verdict>, StoreError> {
        let set = self.policies.load_full();
        let session = self.registries.get(&repository.host).map(|c| c.session(Budget::default()));
        let mut facts = Facts::new(&*self.store, session.as_ref(), repository, &set);
        let mut failed = BTreeMap::new();
        for tag in tags {
            match self.see(session.as_ref(), repository, tag, &[], &mut facts, Origin::Check).await? {
                Ok(sight) => {
                    let record = sight.record();
                    facts.pending.tags.insert(tag.clone(), (Arc::new(record), set.line_keys(repository, tag, None)));
                }
                Err(error) => {
                    failed.insert(tag.clone(), error);
                }
            }
        }
        let now = self.clock.now();
        let observation = Observation::new(repository.clone(), now, true);
        let extra = crate::policy::targets_of(&set, &observation, tags, false);
        let judged = self.judged(&mut facts, &set, repository, &[], &extra, &failed, Origin::Check, now).await?;
        let mut verdicts = judged.0;
        let open = self.store.open_violations(repository, tags.iter().cloned().map(Some).collect()).await?;
        for verdict in &mut verdicts {
            violation::advance(verdict, &open, now);
        }
        Ok(verdicts)
    }

    /// What the claim's events and rechecks ask for.
    async fn agenda<'a>(&self, claim: &'a Claim, step: &mut Step) -> Result<Agenda<'a>, StoreError> {
        let mut agenda = Agenda::default();
        let now = self.clock.now();
        for queued in &claim.events {
            let event = &queued.incoming.event;
            agenda.origin = Some(Origin::Event);
            if event.stage == Stage::Intended {
                let due = after(queued.incoming.received_at, INTENT_PAUSE);
                step.rechecks.extend(event.tag.clone().map(|tag| Recheck {
                    tag: Some(tag),
                    due,
                    origin: Origin::Event,
                    attempts: 0,
                }));
                continue;
            }
            match (event.action, &event.tag, &event.digest) {
                // Held until it is released: the push event comes then.
                (Action::Quarantine, _, _) => {}
                (_, Some(tag), digest) => {
                    agenda.tags.entry(tag.clone()).or_default().push(queued);
                    if event.action == Action::Delete {
                        agenda.manifests.extend(digest.clone());
                    }
                }
                (Action::Push, None, Some(digest)) => {
                    agenda.manifests.insert(digest.clone());
                }
                (Action::Delete, None, Some(digest)) => {
                    agenda.manifests.insert(digest.clone());
                    for tag in self.tagged(&claim.repository, digest).await? {
                        agenda.tags.entry(tag).or_default();
                    }
                }
                (Action::Delete, None, None) => {
                    // The whole repository: every tag is looked at, in steps of their own.
                    step.rechecks.extend(self.all_tags(claim, now, Origin::Event).await?);
                    agenda.expectations = true;
                }
                (Action::Push, None, None) => {}
            }
        }
        for recheck in &claim.rechecks {
            agenda.origin = agenda.origin.or(Some(recheck.origin));
            match (&recheck.tag, recheck.origin) {
                (Some(tag), Origin::PolicyChange) => {
                    agenda.again.insert(tag.clone());
                }
                (Some(tag), _) => {
                    agenda.tags.entry(tag.clone()).or_default();
                }
                (None, Origin::PolicyChange) => {
                    self.refresh(claim, step).await?;
                    agenda.expectations = true;
                }
                (None, _) => agenda.expectations = true,
            }
        }
        // A tag looked at anyway need not be judged from the record besides.
        agenda.again.retain(|tag| !agenda.tags.contains_key(tag));
        Ok(agenda)
    }

    async fn all_tags(&self, claim: &Claim, due: Timestamp, origin: Origin) -> Result<Vec<Recheck>, StoreError> {
        const PAGE: usize = 1_000;
        let mut rechecks = Vec::new();
        let mut last: Option<Tag> = None;
        loop {
            let page = self.store.tags(&claim.repository, last.clone(), PAGE).await?;
            let full = page.len() == PAGE;
            last = page.last().map(|(tag, _)| tag.clone());
            rechecks.extend(page.into_iter().map(|(tag, _)| Recheck { tag: Some(tag), due, origin, attempts: 0 }));
            if !full {
                return Ok(rechecks);
            }
        }
    }

    pub(super) async fn tagged(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Tag>, StoreError> {
        let answers = self.store.answer(repository, vec![Question::Tagged(digest.clone())]).await?;
        Ok(answers
            .into_iter()
            .find_map(|(_, answer)| match answer {
                Answer::Tags(Fact::Known(tags)) => Some(tags.to_vec()),
                _ => None,
            })
            .unwrap_or_default())
    }

    pub(super) async fn record(&self, repository: &Repository, tag: &Tag) -> Result<TagRecord, StoreError> {
        Ok(self.on_record(repository, tag, Vec::new()).await?.0)
    }

    /// Looks at one tag and takes what was seen into its history.
    async fn see(
        &self,
        session: Option<&Session>,
        repository: &Repository,
        tag: &Tag,
        events: &[&Queued],
        facts: &mut Facts<'_, S>,
        origin: Origin,
    ) -> Result<Result<Sight, RegistryError>, StoreError> {
        let Some(session) = session else {
            return Ok(Err(RegistryError::Local("the registry is not configured".to_owned())));
        };
        let told = events.iter().filter_map(|q| q.incoming.event.digest.clone()).collect();
        let (before, mut on_record) = self.on_record(repository, tag, told).await?;
        // Where no event says what is there, it is likely what was there last.
        if events.iter().all(|q| q.incoming.event.digest.is_none())
            && let Some(current) = &before.current
        {
            on_record = self.on_record(repository, tag, vec![current.clone()]).await?.1;
        }
        let told = Told { events: events.to_vec(), record: &before };
        let name = &repository.name;
        let seen = look(session, name, tag, &told, |d| on_record.contains(d), || self.clock.now()).await;
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(error)),
        };
        let mut history = before.history.clone().unwrap_or_default();
        if seen.reports.is_empty() {
            history.witness(None, &seen.look, origin);
        }
        for report in seen.reports {
            history.witness(Some(report), &seen.look, origin);
        }
        for fetched in seen.fetched {
            facts.keep(content_of(fetched));
        }
        Ok(Ok(Sight { history, before, current: seen.look.digest, unsettled: seen.unsettled }))
    }

    /// What is on record of a tag, and which of these manifests are.
    async fn on_record(
        &self,
        repository: &Repository,
        tag: &Tag,
        digests: Vec<Digest>,
    ) -> Result<(TagRecord, BTreeSet<Digest>), StoreError> {
        let asks = std::iter::once(Question::Tag(tag.clone())).chain(digests.into_iter().map(Question::Manifest));
        let (mut record, mut manifests) = (TagRecord::default(), BTreeSet::new());
        for answer in self.store.answer(repository, asks.collect()).await? {
            match answer {
                (_, Answer::Tag(Fact::Known(known))) => record = Arc::unwrap_or_clone(known),
                (Question::Manifest(digest), Answer::Manifest(Fact::Known(_))) => {
                    manifests.insert(digest);
                }
                _ => {}
            }
        }
        Ok((record, manifests))
    }

    /// Targets beside those that changes concern.
    fn extra_targets(
        &self,
        set: &PolicySet,
        repository: &Repository,
        agenda: &Agenda<'_>,
        failed: &BTreeMap<Tag, RegistryError>,
    ) -> BTreeSet<Target> {
        let observation = Observation::new(repository.clone(), self.clock.now(), true);
        let tags: Vec<Tag> = agenda.again.iter().chain(failed.keys()).cloned().collect();
        crate::policy::targets_of(set, &observation, &tags, agenda.expectations)
    }

    /// The verdicts on everything that the changes concern, and what the tags lead to.
    #[expect(clippy::too_many_arguments, reason = "one story, told once")]
    pub(super) async fn judged(
        &self,
        facts: &mut Facts<'_, S>,
        set: &PolicySet,
        repository: &Repository,
        changes: &[Change],
        extra: &BTreeSet<Target>,
        failed: &BTreeMap<Tag, RegistryError>,
        origin: Origin,
        now: Timestamp,
    ) -> Result<(Vec<Verdict>, BTreeMap<Tag, Lead>), WorkError> {
        let fresh = || {
            let mut observation = Observation::new(repository.clone(), now, true);
            for (tag, error) in failed {
                observation.tell(Question::Tag(tag.clone()), Answer::Tag(Fact::Undetermined(cause(error))));
            }
            observation
        };
        let mut observation = fresh();
        for _ in 0..ROUNDS_MAX {
            let (mut targets, asks) = affected(set, &observation, changes);
            if !asks.is_empty() {
                facts.answer(&mut observation, asks).await?;
                continue;
            }
            targets.extend(extra.iter().cloned());
            let judgement = judge(set, &observation, &targets, origin);
            if !judgement.asks.is_empty() {
                facts.answer(&mut observation, judgement.asks).await?;
                continue;
            }
            // What a tag leads to decides whether it counts in its lines: judge again where that was news.
            let mut news = false;
            for (tag, (_, keys)) in &mut facts.pending.tags {
                let right = set.line_keys(repository, tag, judgement.leads.get(tag).copied());
                news |= right != *keys;
                *keys = right;
            }
            if !news {
                return Ok((judgement.verdicts, judgement.leads));
            }
            observation = fresh();
        }
        Err(WorkError::Endless(repository.clone()))
    }

    /// Brings violations up to date with the verdicts, and plans what must be looked at again: what could not be
    /// determined, each with why.
    async fn settle(
        &self,
        step: &mut Step,
        claim: &Claim,
        verdicts: Vec<Verdict>,
        now: Timestamp,
        again: Timestamp,
        attempts: u32,
    ) -> Result<BTreeMap<Option<Tag>, String>, StoreError> {
        let mut unknown = BTreeMap::new();
        let mut tags: Vec<Option<Tag>> = verdicts.iter().map(|v| v.subject.tag.clone()).collect();
        tags.sort();
        tags.dedup();
        let open = self.store.open_violations(&claim.repository, tags).await?;
        for mut verdict in verdicts {
            let changes = violation::advance(&mut verdict, &open, now);
            let tag = verdict.subject.tag.clone();
            for change in &changes {
                if let Some(due) = change.violation.fires_at.filter(|_| change.violation.state == State::Pending) {
                    step.rechecks.push(Recheck { tag: tag.clone(), due, origin: verdict.origin, attempts: 0 });
                }
            }
            if verdict.outcome == Outcome::Error || verdict.findings.iter().any(|f| f.is_error()) {
                step.rechecks.push(Recheck {
                    tag: tag.clone(),
                    due: again,
                    origin: verdict.origin,
                    attempts: attempts + 1,
                });
                let fault = verdict.findings.iter().find(|f| f.is_error()).map(|f| f.message.clone());
                unknown.insert(tag, fault.unwrap_or_default());
            }
            step.alerts.extend(alerts_for(&changes, &claim.repository, &self.sinks));
            step.changes.extend(changes);
            let report = report::verdict_line(&verdict);
            step.verdicts.push(Judged { verdict, report });
        }
        Ok(unknown)
    }
}

/// What so many resolutions may use together.
fn budget(resolutions: u32) -> Budget {
    let one = Budget::default();
    if cfg!(sabotage = "shared_budget") {
        return one;
    }
    Budget {
        requests: one.requests.saturating_mul(resolutions),
        bytes: one.bytes.saturating_mul(u64::from(resolutions)),
        time: if resolutions > 1 { STEP_TIME } else { one.time },
    }
}

pub(super) fn after(at: Timestamp, pause: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(pause).ok().and_then(|p| at.checked_add(p).ok()).unwrap_or(Timestamp::MAX)
}

/// A random fraction, for jitter; nothing depends on its quality.
pub(super) fn fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
