//! What is on record brought up to new circumstances: a repository met for the first time, and policies that
//! changed.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use futures_util::stream::{self, StreamExt};

use super::Pipeline;
use super::facts::content_of;
use super::live::list;
use super::work::after;
use crate::alert::alerts_for;
use crate::history::{Look, Origin};
use crate::image::{Manifest, Repository, Tag};
use crate::policy::violation;
use crate::policy::{Answer, Fact, Lead, PolicySet, Question, TagRecord};
use crate::registry::{Budget, Client, RegistryError};
use crate::store::{Claim, Recheck, Step, Store, StoreError, TagUpdate};

/// Tags written in one step.
const PAGE: usize = 200;
/// Tags of a baseline that are written in one step: so many that a slow registry still gives them in time.
const BASELINE_PAGE: usize = 50;
/// How long a baseline goes on before the repository is given back, to go on later.
pub(super) const BASELINE_TIME: Duration = Duration::from_secs(30);
/// How long one page of it may take.
const BASELINE_PAGE_TIME: Duration = Duration::from_secs(30);
/// Attempts after which tags are judged although the registry never listed the others.
const LIST_ATTEMPTS: u32 = 5;
/// Most tags taken in before the first event of a repository is judged; the sweep finds the rest.
pub(super) const INLINE_MAX: usize = 5_000;
/// Requests in flight while a baseline is read.
const IN_FLIGHT: usize = 8;
/// The pause between two tags that are judged again because policies changed: at most 200 a second, so that
/// events go first.
const BETWEEN: Duration = Duration::from_millis(5);
/// Repositories asked of the store at once.
const REPOSITORIES: usize = 1_000;

/// What became of a baseline.
pub(super) enum Baseline {
    /// It is on record, or there can be none.
    Done,
    /// It goes on with the next claim.
    More,
    /// The registry could not be asked.
    Unknown(RegistryError),
}

impl<S: Store> Pipeline<S> {
    /// Takes in what a repository has when it is met for the first time: the versions that a tag follows are
    /// there although no event ever told of them. They are recorded as first seen by a sweep. What is on record
    /// is left as it is, so this goes on where it stopped.
    pub(super) async fn baseline(
        &self,
        claim: &Claim,
        client: &Client,
        set: &PolicySet,
    ) -> Result<Baseline, StoreError> {
        let repository = &claim.repository;
        if self.is_baselined(repository) {
            return Ok(Baseline::Done);
        }
        let name = format!("baseline {repository}");
        if self.store.get(&name).await?.is_none() {
            let start = Instant::now();
            let session = client.session(Budget { time: BASELINE_TIME, requests: 2_000, bytes: 256 << 20 });
            let listed = match list(&session, repository).await {
                Ok(listed) => listed.unwrap_or_default(),
                // Who may not list must do without; whoever is only away is asked again, but not for ever: a list
                // that never comes must not keep the tags themselves from being judged.
                Err(error) if error.is_transient() => {
                    tracing::warn!(image.repository = %repository, %error, "the repository's tags could not be listed yet");
                    let attempts =
                        claim.events.iter().map(|q| q.attempts).chain(claim.rechecks.iter().map(|r| r.attempts));
                    return Ok(match attempts.max() {
                        Some(attempts) if attempts >= LIST_ATTEMPTS => Baseline::Done,
                        _ => Baseline::Unknown(error),
                    });
                }
                Err(error) => {
                    tracing::warn!(image.repository = %repository, %error, "the repository's tags cannot be listed; only events tell of them");
                    Vec::new()
                }
            };
            let known = self.known_tags(repository).await?;
            let told: BTreeSet<&Tag> = claim.events.iter().filter_map(|q| q.incoming.event.tag.as_ref()).collect();
            let room = INLINE_MAX.saturating_sub(known.len());
            let tags: Vec<Tag> =
                listed.into_iter().filter(|t| !told.contains(t) && !known.contains(t)).take(room).collect();
            let mut taken = 0;
            for page in tags.chunks(BASELINE_PAGE) {
                // At least one page each time, or a list that takes long would never get anywhere.
                if taken > 0 && start.elapsed() >= BASELINE_TIME {
                    tracing::info!(image.repository = %repository, taken, of = tags.len(), "first met: taking its tags in");
                    return Ok(Baseline::More);
                }
                let (step, away) = self.baseline_page(client, repository, page, set).await;
                if let Some(error) = away {
                    return Ok(Baseline::Unknown(error));
                }
                taken += page.len();
                self.store.complete(claim, step, true).await?;
            }
            if !tags.is_empty() {
                tracing::info!(image.repository = %repository, tags = tags.len(), "first met: its tags are on record");
            }
            self.store.set(&name, "done").await?;
        }
        self.baselined.lock().unwrap_or_else(|e| e.into_inner()).insert(repository.clone());
        Ok(Baseline::Done)
    }

    async fn known_tags(&self, repository: &Repository) -> Result<BTreeSet<Tag>, StoreError> {
        let mut known = BTreeSet::new();
        loop {
            let page = self.store.tags(repository, known.last().cloned(), PAGE).await?;
            let full = page.len() == PAGE;
            known.extend(page.into_iter().map(|(tag, _)| tag));
            if !full {
                return Ok(known);
            }
        }
    }

    fn is_baselined(&self, repository: &Repository) -> bool {
        self.baselined.lock().unwrap_or_else(|e| e.into_inner()).contains(repository)
    }

    /// One page of a baseline, and why it is none where the registry is away.
    async fn baseline_page(
        &self,
        client: &Client,
        repository: &Repository,
        tags: &[Tag],
        set: &PolicySet,
    ) -> (Step, Option<RegistryError>) {
        let mut step = Step::default();
        let requests = u32::try_from(4 * tags.len() + 16).unwrap_or(u32::MAX);
        let session = client.session(Budget { requests, bytes: 1 << 30, time: BASELINE_PAGE_TIME });
        let session = &session;
        let found: Vec<(Tag, Result<_, RegistryError>)> = stream::iter(tags.iter().cloned())
            .map(|tag| async move {
                let got = session.fetch_tag(&repository.name, &tag).await;
                (tag, got)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let now = self.clock.now();
        for (tag, got) in found {
            match got {
                Ok(Some(fetched)) => {
                    let lead = Manifest::parse(&fetched.bytes, Some(&fetched.media_type)).ok().map(|m| Lead::of(&m));
                    let mut history = crate::history::TagHistory::default();
                    history.witness(None, &Look { digest: Some(fetched.digest.clone()), at: now }, Origin::Audit);
                    step.tags.push(TagUpdate {
                        sightings: history.sightings().to_vec(),
                        current: Some(fetched.digest.clone()),
                        locked: None,
                        lines: set.line_keys(repository, &tag, lead),
                        judged_moves: 0,
                        tag: tag.clone(),
                    });
                    step.contents.push(content_of(fetched));
                    step.rechecks.push(Recheck { tag: Some(tag), due: now, origin: Origin::PolicyChange, attempts: 0 });
                }
                Ok(None) => {}
                Err(error) if error.is_transient() => return (Step::default(), Some(error)),
                Err(error) => {
                    tracing::debug!(image.repository = %repository, image.tag = %tag, %error, "not in the baseline yet");
                    step.rechecks.push(Recheck { tag: Some(tag), due: now, origin: Origin::Audit, attempts: 0 });
                }
            }
        }
        (step, None)
    }

    /// Has everything on record judged again if the policies are others than those it was judged by. Says whether that
    /// is settled: where the store failed meanwhile, whoever calls tries again.
    #[must_use = "what is not settled is to be tried again"]
    pub async fn policies_changed(&self) -> bool {
        let put_up = self.judge_all_again().await;
        if let Err(error) = &put_up {
            tracing::error!(%error, "the tags could not be put up for judging by the new policies; this is tried again");
        }
        put_up.is_ok()
    }

    async fn judge_all_again(&self) -> Result<(), StoreError> {
        let hash = self.policies.load().hash().to_owned();
        if self.store.get("policies").await?.as_deref() == Some(&hash) {
            return Ok(());
        }
        let now = self.clock.now();
        self.rejudged.begin(now);
        let mut count = 0_usize;
        let mut last: Option<Repository> = None;
        loop {
            let page = self.store.repositories(None, last.clone(), REPOSITORIES).await?;
            for repository in &page {
                let whole = Recheck { tag: None, due: now, origin: Origin::PolicyChange, attempts: 0 };
                self.store.recheck(repository, vec![whole]).await?;
            }
            count += page.len();
            last = page.last().cloned();
            if page.len() < REPOSITORIES {
                break;
            }
        }
        self.store.set("policies", &hash).await?;
        self.rejudged.put_up(count);
        if count > 0 {
            tracing::info!(
                repositories = count,
                hash,
                "judging what is on record by the new policies, in the background"
            );
        }
        Ok(())
    }

    /// Puts the tags of one repository into the lines of the policies in force, plans each to be judged again
    /// from the record, and resolves what policies found that no longer govern here.
    pub(super) async fn refresh(&self, claim: &Claim, step: &mut Step) -> Result<(), StoreError> {
        let repository = &claim.repository;
        let set = self.policies.load_full();
        let governing: BTreeSet<String> = set.governing(repository).iter().map(|p| p.name.to_string()).collect();
        let now = self.clock.now();
        let mut due = now;
        let mut last: Option<Tag> = None;
        let mut judged = 0_usize;
        loop {
            let page = self.store.tags(repository, last.clone(), PAGE).await?;
            let full = page.len() == PAGE;
            last = page.last().map(|(tag, _)| tag.clone());
            let mut relined = Step::default();
            let mut tags: Vec<Option<Tag>> = page.iter().map(|(tag, _)| Some(tag.clone())).collect();
            if judged == 0 {
                tags.push(None);
            }
            judged += page.len();
            for (tag, record) in page {
                let lead = self.lead(repository, &record).await?;
                relined.rechecks.push(Recheck {
                    tag: Some(tag.clone()),
                    due,
                    origin: Origin::PolicyChange,
                    attempts: 0,
                });
                due = after(due, BETWEEN);
                let history = record.history.unwrap_or_default();
                relined.tags.push(TagUpdate {
                    lines: set.line_keys(repository, &tag, lead),
                    sightings: history.sightings().to_vec(),
                    current: record.current,
                    locked: record.locked,
                    judged_moves: record.judged_moves,
                    tag,
                });
            }
            let open = self.store.open_violations(repository, tags).await?;
            for violation in open.iter().filter(|v| !governing.contains(&*v.key.policy)) {
                step.changes.push(violation::resolve(violation, now, violation.reason));
            }
            self.store.complete(claim, relined, true).await?;
            if !full {
                break;
            }
        }
        step.governing = Some(set.governing(repository).iter().map(|policy| policy.name.clone()).collect());
        step.alerts.extend(alerts_for(&step.changes, repository, &self.sinks));
        tracing::info!(image.repository = %repository, tags = judged, "its tags are judged again by the new policies");
        Ok(())
    }

    async fn lead(&self, repository: &Repository, record: &TagRecord) -> Result<Option<Lead>, StoreError> {
        let Some(digest) = &record.current else { return Ok(None) };
        let answers = self.store.answer(repository, vec![Question::Manifest(digest.clone())]).await?;
        Ok(answers.into_iter().find_map(|(_, answer)| match answer {
            Answer::Manifest(Fact::Known(manifest)) => manifest.parsed.as_ref().ok().map(Lead::of),
            _ => None,
        }))
    }
}
