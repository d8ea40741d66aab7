//! Finding what no event told: tags listed on a schedule, digests compared with the record, differences fed to
//! the same pipeline.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::live::list;
use crate::history::Origin;
use crate::image::{Digest, Host, Repository, Tag};
use crate::policy::{Glob, GlobError, Scope};
use crate::registry::{Budget, RegistryError};
use crate::store::{Recheck, Store, StoreError};

/// Requests in flight during a sweep: fewer than the client allows, so that events go first.
const IN_FLIGHT: usize = 4;
/// Tags whose digests are compared in one go.
const CHUNK: usize = 200;
/// Most pages of repositories read from one catalog.
const CATALOG_PAGES_MAX: usize = 1_000;
/// Rows read from the record at once.
const PAGE: usize = 1_000;

/// What is swept at one registry, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How often.
    pub every: Duration,
    scope: Option<Scope>,
}

impl Plan {
    /// A plan of `globs` over repository names (none: whatever a policy governs), each `every` so often.
    ///
    /// # Errors
    /// A glob that is none.
    pub fn new(every: Duration, host: &Host, globs: &[String]) -> Result<Plan, GlobError> {
        if globs.is_empty() {
            return Ok(Plan { every, scope: None });
        }
        let entries = globs
            .iter()
            .map(|text| {
                let (includes, glob) = text.strip_prefix('!').map_or((true, text.as_str()), |glob| (false, glob));
                Glob::parse(&format!("{host}/{glob}")).map(|glob| (includes, glob))
            })
            .collect::<Result<_, _>>()?;
        Ok(Plan { every, scope: Some(Scope::new(entries)) })
    }
}

/// The sweeps of one registry.
pub struct Reconcile<S> {
    /// The pipeline that differences go to.
    pub pipeline: Pipeline<S>,
    /// The registry.
    pub host: Host,
    /// What, and how often.
    pub plan: Plan,
}

/// What one sweep came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Repositories listed.
    pub repositories: u64,
    /// Tags compared.
    pub tags: u64,
    /// Tags that differed from the record.
    pub drift: u64,
    /// Repositories that could not be listed or compared.
    pub failed: u64,
}

impl<S: Store> Reconcile<S> {
    /// Sweeps at once and then on schedule, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                swept = self.sweep(|_| {}) => self.told(swept),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.plan.every) => {}
            }
        }
    }

    fn told(&self, swept: Result<Sweep, StoreError>) {
        match swept {
            Ok(sweep) => {
                if sweep.failed == 0 {
                    self.pipeline.metrics.reconciled(self.host.as_str(), self.pipeline.clock.now(), sweep.drift);
                }
                tracing::info!(
                    registry = %self.host, repositories = sweep.repositories, tags = sweep.tags, drift = sweep.drift,
                    failed = sweep.failed, "swept the registry"
                );
            }
            Err(error) => {
                tracing::error!(registry = %self.host, %error, "the sweep ended at the store; the next one begins anew")
            }
        }
    }

    /// One sweep over the registry; `progress` hears of each repository that is done.
    ///
    /// # Errors
    /// The store's; what the registry does not answer is counted as failed.
    pub async fn sweep(&self, progress: impl Fn(&Repository)) -> Result<Sweep, StoreError> {
        let mut sweep = Sweep::default();
        for repository in self.repositories(&mut sweep).await? {
            match self.repository(&repository, &mut sweep).await? {
                Ok(()) => sweep.repositories += 1,
                Err(error) => {
                    sweep.failed += 1;
                    tracing::warn!(image.repository = %repository, %error, "could not be compared with the record");
                }
            }
            progress(&repository);
        }
        Ok(sweep)
    }

    /// The repositories of the plan: those on record and those that the registry lists.
    async fn repositories(&self, sweep: &mut Sweep) -> Result<Vec<Repository>, StoreError> {
        let mut all: Vec<Repository> = Vec::new();
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
            // Many registries refuse their catalog; then what is on record is what there is to compare.
            tracing::info!(registry = %self.host, %error, "the registry does not list its repositories; those on record are swept");
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
            let mut drifted = Vec::new();
            for (tag, head) in heads {
                let digest = match head {
                    Ok(digest) => digest,
                    Err(error) => return Ok(Err(error)),
                };
                sweep.tags += 1;
                if known.remove(&tag).flatten() != digest {
                    drifted.push(tag);
                }
            }
            self.drifted(repository, drifted, sweep).await?;
        }
        // What is on record and not in the list: gone, or locked against listing; the look tells.
        let gone = known.into_iter().filter(|(_, digest)| digest.is_some()).map(|(tag, _)| tag).collect();
        self.drifted(repository, gone, sweep).await?;
        Ok(Ok(()))
    }

    async fn known(&self, repository: &Repository) -> Result<BTreeMap<Tag, Option<Digest>>, StoreError> {
        let mut known = BTreeMap::new();
        let mut last = None;
        loop {
            let page = self.pipeline.store.tags(repository, last.clone(), PAGE).await?;
            let full = page.len() == PAGE;
            last = page.last().map(|(tag, _)| tag.clone());
            known.extend(page.into_iter().map(|(tag, record)| (tag, record.current)));
            if !full {
                return Ok(known);
            }
        }
    }

    async fn drifted(&self, repository: &Repository, tags: Vec<Tag>, sweep: &mut Sweep) -> Result<(), StoreError> {
        if tags.is_empty() {
            return Ok(());
        }
        sweep.drift += tags.len() as u64;
        let due = self.pipeline.clock.now();
        let rechecks = tags.into_iter().map(|tag| Recheck { tag: Some(tag), due, origin: Origin::Audit, attempts: 0 });
        self.pipeline.store.recheck(repository, rechecks.collect()).await
    }
}
