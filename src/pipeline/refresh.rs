//! What is on record brought up to new circumstances: a repository met for the first time, and policies that
//! changed.

use std::collections::BTreeSet;
use std::time::Duration;

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
use crate::registry::{Budget, RegistryError, Session};
use crate::store::{Claim, Recheck, Step, Store, StoreError, TagUpdate};

/// Tags written in one step.
const PAGE: usize = 200;
/// Most tags taken in before the first event of a repository is judged; the sweep finds the rest.
const INLINE_MAX: usize = 5_000;
/// Requests in flight while a baseline is read.
const IN_FLIGHT: usize = 8;
/// The pause between two tags that are judged again because policies changed: at most 200 a second, so that
/// events go first.
const BETWEEN: Duration = Duration::from_millis(5);
/// Repositories asked of the store at once.
const REPOSITORIES: usize = 1_000;

impl<S: Store> Pipeline<S> {
    /// Takes in what a repository has when it is met for the first time: the versions that a tag follows are
    /// there although no event ever told of them. They are recorded as first seen by a sweep.
    pub(super) async fn baseline(&self, claim: &Claim, session: &Session, set: &PolicySet) -> Result<(), StoreError> {
        let repository = &claim.repository;
        if self.is_baselined(repository) {
            return Ok(());
        }
        let name = format!("baseline {repository}");
        if self.store.get(&name).await?.is_none() {
            let listed = match list(session, repository).await {
                Ok(listed) => listed.unwrap_or_default(),
                // Who may not list must do without; whoever is only away is asked again at the next event.
                Err(error) if error.is_transient() => {
                    tracing::warn!(image.repository = %repository, %error, "the repository's tags could not be listed yet");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(image.repository = %repository, %error, "the repository's tags cannot be listed; only events tell of them");
                    Vec::new()
                }
            };
            let told: BTreeSet<&Tag> = claim.events.iter().filter_map(|q| q.incoming.event.tag.as_ref()).collect();
            let tags: Vec<Tag> = listed.into_iter().filter(|t| !told.contains(t)).take(INLINE_MAX).collect();
            for page in tags.chunks(PAGE) {
                let step = self.baseline_page(repository, page, set).await;
                self.store.complete(claim, step, true).await?;
            }
            if !tags.is_empty() {
                tracing::info!(image.repository = %repository, tags = tags.len(), "first met: its tags are on record");
            }
            self.store.set(&name, "done").await?;
        }
        self.baselined.lock().unwrap_or_else(|e| e.into_inner()).insert(repository.clone());
        Ok(())
    }

    fn is_baselined(&self, repository: &Repository) -> bool {
        self.baselined.lock().unwrap_or_else(|e| e.into_inner()).contains(repository)
    }

    async fn baseline_page(&self, repository: &Repository, tags: &[Tag], set: &PolicySet) -> Step {
        let mut step = Step::default();
        let Some(client) = self.registries.get(&repository.host) else { return step };
        let requests = u32::try_from(4 * tags.len() + 16).unwrap_or(u32::MAX);
        let session = client.session(Budget { requests, bytes: 1 << 30, time: Duration::from_secs(100) });
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
                Err(error) => {
                    tracing::debug!(image.repository = %repository, image.tag = %tag, %error, "not in the baseline yet");
                    step.rechecks.push(Recheck { tag: Some(tag), due: now, origin: Origin::Audit, attempts: 0 });
                }
            }
        }
        step
    }

    /// Has everything on record judged again if the policies are others than those it was judged by.
    pub async fn policies_changed(&self) {
        if let Err(error) = self.judge_all_again().await {
            tracing::error!(%error, "the tags could not be put up for judging by the new policies");
        }
    }

    async fn judge_all_again(&self) -> Result<(), StoreError> {
        let hash = self.policies.load().hash().to_owned();
        if self.store.get("policies").await?.as_deref() == Some(&hash) {
            return Ok(());
        }
        let now = self.clock.now();
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
