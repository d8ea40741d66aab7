//! Finding what no event told: tags listed on a schedule, digests compared with the record, differences fed to
//! the same pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::facts::{is_away, lock_fact, locks};
use super::live::list;
use super::refresh::INLINE_MAX;
use crate::alert::{self, Alert, Topic};
use crate::history::Origin;
use crate::image::{Digest, Host, Repository, Tag};
use crate::policy::{Answer, Fact, Glob, GlobError, Question, Scope};
use crate::registry::{Budget, Client, RegistryError};
use crate::store::{Recheck, Store, StoreError};

/// Requests in flight during a sweep: fewer than the client allows, so that events go first.
const IN_FLIGHT: usize = 4;
/// Tags whose digests are compared in one go.
const CHUNK: usize = 200;
/// Most pages of repositories read from one catalog.
const CATALOG_PAGES_MAX: usize = 1_000;
/// Rows read from the record at once.
const PAGE: usize = 1_000;
/// Manifests below indexes that are asked for in one repository and sweep: few, since events tell of deletions and
/// the tags' own requests are the sweep's purpose; a thousand repositories are still only 16,000 requests a sweep.
const BELOW_MAX: usize = 16;
/// Levels of indexes in indexes that are followed upwards, as when judging.
const LEVELS_MAX: usize = 8;
/// How often a long sweep says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// When a sweep that was not whole is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The least time between the beginnings of two sweeps, whatever is configured.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
/// How often a silent hook is listened to.
const LISTEN_EVERY: Duration = Duration::from_secs(5);

/// What is swept at one registry, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How often.
    pub every: Duration,
    scope: Option<Scope>,
    /// Repositories that the globs name outright: swept even where neither the record nor the registry lists them,
    /// as with a credential for these and nothing else.
    named: Vec<Repository>,
}

impl Plan {
    /// A plan of `globs` over repository names (none: whatever a policy governs), each `every` so often.
    ///
    /// # Errors
    /// A glob that is none.
    pub fn new(every: Duration, host: &Host, globs: &[String]) -> Result<Plan, GlobError> {
        if globs.is_empty() {
            return Ok(Plan { every, scope: None, named: Vec::new() });
        }
        let entries = globs
            .iter()
            .map(|text| {
                let (includes, glob) = text.strip_prefix('!').map_or((true, text.as_str()), |glob| (false, glob));
                Glob::parse(&format!("{host}/{glob}")).map(|glob| (includes, glob))
            })
            .collect::<Result<_, _>>()?;
        let named = globs.iter().filter_map(|text| Some(Repository::new(host.clone(), text.parse().ok()?))).collect();
        Ok(Plan { every, scope: Some(Scope::new(entries)), named })
    }
}

/// The sweeps of one registry. The daemon runs them on schedule ([`Reconcile::run`]); `audit --record` makes one
/// ([`Reconcile::sweep`]) over a store that it opened for itself, and then has the pipeline work through what it found.
pub struct Reconcile<S> {
    /// The pipeline that differences go to.
    pub pipeline: Pipeline<S>,
    /// The registry.
    pub host: Host,
    /// What, and how often.
    pub plan: Plan,
    /// Whether a source of events is configured for the registry, so that its silence means something.
    pub hooked: bool,
}

/// What one sweep came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Repositories listed.
    pub repositories: u64,
    /// Tags compared.
    pub tags: u64,
    /// Tags of repositories that were not on record before: their baseline.
    pub first: u64,
    /// Tags that differed from the record, and manifests below them that are gone: what no event had told.
    pub drift: u64,
    /// Repositories that could not be listed or compared.
    pub failed: u64,
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The repository that was looked at last.
    pub repository: &'a Repository,
    /// Repositories that are done.
    pub done: usize,
    /// Repositories in all.
    pub of: usize,
}

impl<S: Store> Reconcile<S> {
    /// Sweeps at once, since the daemon may have been away, and then on schedule, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut silence = Silence::read(&self).await;
        loop {
            let start = Instant::now();
            let began = self.pipeline.clock.now();
            let told = Mutex::new(start);
            let progress = |progress: Progress<'_>| {
                let mut told = told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if told.elapsed() >= TELL_EVERY {
                    *told = Instant::now();
                    tracing::info!(registry = %self.host, done = progress.done, of = progress.of, "sweeping the registry");
                }
            };
            let swept = tokio::select! {
                () = stop.cancelled() => return,
                swept = self.sweep(progress) => swept,
            };
            self.told(&swept);
            let whole = swept.as_ref().is_ok_and(|sweep| sweep.failed == 0);
            if let Ok(sweep) = swept {
                silence.after(&self, &sweep, began).await;
            }
            // A registry that was away is swept soon after it is back, not an interval later.
            let pause = if whole { self.plan.every } else { self.plan.every.min(AGAIN_AFTER) };
            let next = start + pause.max(PAUSE_LEAST);
            while Instant::now() < next {
                let wait = if silence.is_told() { next.min(Instant::now() + LISTEN_EVERY) } else { next };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(wait) => silence.listen(&self).await,
                }
            }
        }
    }

    fn told(&self, swept: &Result<Sweep, StoreError>) {
        match swept {
            Ok(sweep) => {
                if sweep.failed == 0 {
                    self.pipeline.metrics.reconciled(self.host.as_str(), self.pipeline.clock.now(), sweep.drift);
                }
                macro_rules! tell {
                    ($level:ident, $($hint:tt)*) => {
                        tracing::$level!(
                            registry = %self.host, repositories = sweep.repositories, tags = sweep.tags, first = sweep.first,
                            drift = sweep.drift, failed = sweep.failed, $($hint)*
                        )
                    };
                }
                match sweep.failed {
                    0 => tell!(info, "swept the registry"),
                    _ => tell!(warn, "swept the registry, and not all of it could be read; it is swept again soon"),
                }
            }
            Err(error) => {
                tracing::error!(registry = %self.host, %error, "the sweep ended at the store; the next one goes on there")
            }
        }
    }

    /// One sweep over the registry, beginning where the last one was cut short; `progress` hears of each repository
    /// that is done.
    ///
    /// # Errors
    /// The store's; what the registry does not answer is counted as failed.
    pub async fn sweep(&self, progress: impl Fn(Progress<'_>) + Send) -> Result<Sweep, StoreError> {
        let mut sweep = Sweep::default();
        let mut repositories = self.repositories(&mut sweep).await?;
        failpoint!("sweep-listed");
        let cursor = format!("sweep {}", self.host);
        if let Some(last) = self.pipeline.store.get(&cursor).await?.filter(|last| !last.is_empty()) {
            let done = repositories.partition_point(|r| r.name.as_str() <= last.as_str());
            // What was done before the cut is looked at last: since then there was a gap.
            repositories.rotate_left(done);
        }
        let of = repositories.len();
        for (number, repository) in repositories.iter().enumerate() {
            match self.repository(repository, &mut sweep).await? {
                Ok(()) => sweep.repositories += 1,
                Err(error) => {
                    sweep.failed += 1;
                    tracing::warn!(image.repository = %repository, %error, "could not be compared with the record");
                }
            }
            failpoint!("sweep-compared");
            self.pipeline.store.set(&cursor, repository.name.as_str()).await?;
            failpoint!("sweep-noted");
            progress(Progress { repository, done: number + 1, of });
        }
        failpoint!("sweep-done");
        self.pipeline.store.set(&cursor, "").await?;
        Ok(sweep)
    }

    /// The repositories of the plan: those on record, those that the registry lists, and those named outright.
    async fn repositories(&self, sweep: &mut Sweep) -> Result<Vec<Repository>, StoreError> {
        let mut all: Vec<Repository> = self.plan.named.clone();
        let mut last = None;
        loop {
            let page = self.pipeline.store.repositories(Some(&self.host), last.clone(), PAGE).await?;
            let full = page.len() == PAGE;
            last = page.last().cloned();
            all.extend(page);
            if !full {
                break;
            }
        }
        if let Err(error) = self.catalog(&mut all).await {
            match is_away(&error) {
                true => {
                    tracing::warn!(registry = %self.host, %error, "the registry does not answer; it is asked again soon")
                }
                // Many registries refuse their catalog; then what is on record is what there is to compare.
                false => {
                    tracing::info!(registry = %self.host, %error, "the registry does not list its repositories; those on record are swept")
                }
            }
            sweep.failed += u64::from(error.is_transient());
        }
        all.sort();
        all.dedup();
        let set = self.pipeline.policies.load_full();
        all.retain(|r| match &self.plan.scope {
            Some(scope) => scope.governs(r),
            None => !set.governing(r).is_empty(),
        });
        Ok(all)
    }

    async fn catalog(&self, all: &mut Vec<Repository>) -> Result<(), RegistryError> {
        let Some(client) = self.pipeline.registries.get(&self.host) else { return Ok(()) };
        let budget = Budget { requests: 2 * CATALOG_PAGES_MAX as u32, bytes: 1 << 30, time: Duration::from_secs(600) };
        let session = client.session(budget);
        let mut after = None;
        for _ in 0..CATALOG_PAGES_MAX {
            let page = session.catalog(after).await?;
            all.extend(page.items.into_iter().map(|name| Repository::new(self.host.clone(), name)));
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Compares one repository with the record and has what differs looked at.
    async fn repository(
        &self,
        repository: &Repository,
        sweep: &mut Sweep,
    ) -> Result<Result<(), RegistryError>, StoreError> {
        let Some(client) = self.pipeline.registries.get(&repository.host) else { return Ok(Ok(())) };
        let listing = client.session(Budget { requests: 2_000, bytes: 1 << 30, time: Duration::from_secs(600) });
        let listed = match list(&listing, repository).await {
            Ok(listed) => listed.unwrap_or_default(),
            Err(error) => return Ok(Err(error)),
        };
        let mut known = self.known(repository).await?;
        if known.is_empty() {
            return self.first_met(repository, &listed, sweep).await.map(Ok);
        }
        for chunk in listed.chunks(CHUNK) {
            let requests = u32::try_from(4 * chunk.len() + 16).unwrap_or(u32::MAX);
            let session = client.session(Budget { requests, bytes: 1 << 30, time: Duration::from_secs(300) });
            let session = &session;
            let heads: Vec<(Tag, Result<Option<Digest>, RegistryError>)> = stream::iter(chunk.iter().cloned())
                .map(|tag| async move {
                    let digest = session.head_tag(&repository.name, &tag).await;
                    (tag, digest)
                })
                .buffer_unordered(IN_FLIGHT)
                .collect()
                .await;
            let set = self.pipeline.policies.load_full();
            let asks = |tag: &Tag| client.has_locks() && set.asks_for_locks(repository, tag);
            let (mut drifted, mut lockable) = (Vec::new(), BTreeMap::new());
            for (tag, head) in heads {
                let digest = match head {
                    Ok(digest) => digest,
                    Err(error) => return Ok(Err(error)),
                };
                sweep.tags += 1;
                let (on_record, locked) = known.remove(&tag).unwrap_or_default();
                match digest {
                    digest if digest != on_record => drifted.push(tag),
                    Some(digest) if asks(&tag) => drop(lockable.insert((tag, digest), locked)),
                    _ => {}
                }
            }
            self.locks(client, repository, lockable).await?;
            self.drifted(repository, drifted, sweep).await?;
        }
        // What is on record and not in the list: gone, or locked against listing; the look tells.
        let gone = known.into_iter().filter(|(_, (digest, _))| digest.is_some()).map(|(tag, _)| tag).collect();
        self.drifted(repository, gone, sweep).await?;
        self.below(client, repository, sweep).await
    }

    /// A repository that is not on record: its baseline is taken in before anything of it is judged, and what is
    /// beyond that one by one.
    async fn first_met(&self, repository: &Repository, listed: &[Tag], sweep: &mut Sweep) -> Result<(), StoreError> {
        if listed.is_empty() {
            return Ok(());
        }
        sweep.tags += listed.len() as u64;
        sweep.first += listed.len() as u64;
        let due = self.pipeline.clock.now();
        let again = |tag| Recheck { tag, due, origin: Origin::Audit, attempts: 0 };
        let beyond = listed.iter().skip(INLINE_MAX).cloned().map(Some);
        let rechecks = std::iter::once(None).chain(beyond).map(again).collect();
        self.pipeline.store.recheck(repository, rechecks).await
    }

    /// Asks whether manifests are still there to which tags lead through an index: some of them in each sweep, all of
    /// them in turn. A registry lets a child be deleted and keeps the tag as it was.
    async fn below(
        &self,
        client: &Client,
        repository: &Repository,
        sweep: &mut Sweep,
    ) -> Result<Result<(), RegistryError>, StoreError> {
        let store = &self.pipeline.store;
        let cursor = format!("below {repository}");
        let after = store.get(&cursor).await?.and_then(|text| text.parse().ok());
        let listed = store.listed(repository, after, BELOW_MAX).await?;
        let last = listed.last().filter(|_| listed.len() == BELOW_MAX).map(Digest::to_string).unwrap_or_default();
        let requests = 4 * BELOW_MAX as u32 + 16;
        let session = client.session(Budget { requests, bytes: 256 << 20, time: Duration::from_secs(300) });
        let session = &session;
        let asked: Vec<(Digest, Result<bool, RegistryError>)> = stream::iter(listed)
            .map(|digest| async move {
                let there = session.head_manifest(&repository.name, &digest).await;
                (digest, there)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let mut gone = Vec::new();
        let mut failed = None;
        for (digest, there) in asked {
            match there {
                Ok(true) => {}
                Ok(false) => gone.push(digest),
                Err(error) => failed = Some(error),
            }
        }
        if !gone.is_empty() {
            store.gone(repository, gone.clone()).await?;
            let tags = self.above(repository, gone).await?;
            self.drifted(repository, tags, sweep).await?;
        }
        if let Some(error) = failed {
            return Ok(Err(error));
        }
        store.set(&cursor, &last).await?;
        Ok(Ok(()))
    }

    /// The tags that lead to manifests, through however many indexes.
    async fn above(&self, repository: &Repository, digests: Vec<Digest>) -> Result<Vec<Tag>, StoreError> {
        let (mut tags, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut level = digests;
        for _ in 0..LEVELS_MAX {
            level.retain(|digest| seen.insert(digest.clone()));
            if level.is_empty() {
                break;
            }
            let asks = level.drain(..).flat_map(|d| [Question::Parents(d.clone()), Question::Tagged(d)]).collect();
            for (_, answer) in self.pipeline.store.answer(repository, asks).await? {
                match answer {
                    Answer::Tags(Fact::Known(found)) => tags.extend(found.iter().cloned()),
                    Answer::Digests(Fact::Known(found)) => level.extend(found.iter().cloned()),
                    _ => {}
                }
            }
        }
        Ok(tags.into_iter().collect())
    }

    /// What is on record of each tag: where it leads, and whether it was locked.
    async fn known(
        &self,
        repository: &Repository,
    ) -> Result<BTreeMap<Tag, (Option<Digest>, Option<bool>)>, StoreError> {
        let mut known = BTreeMap::new();
        let mut last = None;
        loop {
            let page = self.pipeline.store.tags(repository, last.clone(), PAGE).await?;
            let full = page.len() == PAGE;
            last = page.last().map(|(tag, _)| tag.clone());
            known.extend(page.into_iter().map(|(tag, record)| (tag, (record.current, record.locked))));
            if !full {
                return Ok(known);
            }
        }
    }

    /// Has tags looked at whose write locks are other than on record. No registry tells of locks, so that is no drift.
    /// What cannot be read is told where the tag is judged.
    async fn locks(
        &self,
        client: &Client,
        repository: &Repository,
        on_record: BTreeMap<(Tag, Digest), Option<bool>>,
    ) -> Result<(), StoreError> {
        if on_record.is_empty() {
            return Ok(());
        }
        let requests = u32::try_from(4 * on_record.len() + 16).unwrap_or(u32::MAX);
        let session = client.session(Budget { requests, bytes: 1 << 30, time: Duration::from_secs(300) });
        let read = locks(&session, &repository.name, on_record.keys().cloned().collect()).await;
        let due = self.pipeline.clock.now();
        let others = read.into_iter().filter(|(ask, got)| match lock_fact(got) {
            Fact::Known(locked) => on_record.get(ask) != Some(&Some(locked)),
            _ => false,
        });
        let rechecks: Vec<Recheck> =
            others.map(|((tag, _), _)| Recheck { tag: Some(tag), due, origin: Origin::Audit, attempts: 0 }).collect();
        match rechecks.is_empty() {
            true => Ok(()),
            false => self.pipeline.store.recheck(repository, rechecks).await,
        }
    }

    async fn drifted(&self, repository: &Repository, tags: Vec<Tag>, sweep: &mut Sweep) -> Result<(), StoreError> {
        if tags.is_empty() || cfg!(sabotage = "no_drift") {
            return Ok(());
        }
        sweep.drift += tags.len() as u64;
        let due = self.pipeline.clock.now();
        let rechecks = tags.into_iter().map(|tag| Recheck { tag: Some(tag), due, origin: Origin::Audit, attempts: 0 });
        self.pipeline.store.recheck(repository, rechecks.collect()).await
    }
}

/// A hook that has gone silent: while it says nothing, sweeps find what it should have told.
struct Silence {
    /// Since when people know, as alerts name it; on record, so that the end is told after a restart too.
    since: Option<Timestamp>,
    /// Since when this process listens: what was missed before is no silence of the hook.
    listening: Timestamp,
}

impl Silence {
    async fn read<S: Store>(of: &Reconcile<S>) -> Silence {
        let since = alert::since(&*of.pipeline.store, Topic::HookSilent, of.host.as_str()).await;
        Silence { since, listening: of.pipeline.clock.now() }
    }

    fn is_told(&self) -> bool {
        self.since.is_some()
    }

    /// After a sweep that began at `began`: whether it found what nothing told of.
    async fn after<S: Store>(&mut self, of: &Reconcile<S>, sweep: &Sweep, began: Timestamp) {
        if !of.hooked || sweep.drift == 0 || self.is_told() {
            return;
        }
        // One interval without a word: what comes late is no silence.
        let limit = began.checked_sub(of.plan.every).unwrap_or(Timestamp::MIN);
        if heard(of).map_or(self.listening, |at| at.max(self.listening)) >= limit {
            return;
        }
        let now = of.pipeline.clock.now();
        let message = format!(
            "no event came from {} for longer than a sweep takes to come round, and the sweep found {} changes that events should have told",
            of.host, sweep.drift
        );
        tracing::warn!(registry = %of.host, changes = sweep.drift, "the registry's hook is silent");
        let alert = Alert::about_self(Topic::HookSilent, of.host.as_str(), &message, now);
        if alert::begins(&*of.pipeline.store, &of.pipeline.sinks, alert.into()).await {
            self.since = Some(now);
        }
    }

    /// Tells that the hook is heard again, if it is.
    async fn listen<S: Store>(&mut self, of: &Reconcile<S>) {
        let Some(since) = self.since else { return };
        if heard(of).is_none_or(|at| at < since) {
            return;
        }
        let message = format!("events come from {} again", of.host);
        tracing::info!(registry = %of.host, "the registry's hook is heard again");
        let Pipeline { store, sinks, clock, .. } = &of.pipeline;
        if alert::ends(&**store, sinks, (Topic::HookSilent, of.host.as_str()), &message, clock.now()).await {
            self.since = None;
        }
    }
}

fn heard<S>(of: &Reconcile<S>) -> Option<Timestamp> {
    of.pipeline.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&of.host).copied()
}
