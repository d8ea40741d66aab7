//! What policies have against a push or deletion that a sender asks about before it acts.
//!
//! The same judge as for everything else, over the record as it would be. The registry is not asked: the
//! manifest is not there yet, and the sender waits. Nothing is recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Pipeline;
use super::facts::Facts;
use crate::event::{Action, Event};
use crate::history::{Look, Origin, Report};
use crate::image::{Repository, Tag};
use crate::policy::{Finding, Observation, Rule, TagRecord, denials, targets_of};
use crate::store::{Store, StoreError};

/// What one policy has against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The policy.
    pub policy: Arc<str>,
    /// The tag that would be concerned.
    pub tag: Tag,
    /// The requirement that would be unmet, and why.
    pub finding: Finding,
}

impl<S: Store> Pipeline<S> {
    /// The objections of requirements with `enforce: [deny]` to what `event` says is about to happen: none where
    /// it would change nothing, or where neither the event nor the record can tell.
    ///
    /// # Errors
    /// The record cannot be read.
    pub async fn objections(&self, repository: &Repository, event: &Event) -> Result<Vec<Objection>, StoreError> {
        let set = self.policies.load_full();
        let mut facts = Facts::new(&*self.store, None, repository, &set);
        let now = self.clock.now();
        let tags = match (event.action, &event.tag, &event.digest) {
            (Action::Push, Some(tag), Some(_)) | (Action::Delete, Some(tag), _) => vec![tag.clone()],
            (Action::Delete, None, Some(digest)) => self.tagged(repository, digest).await?,
            // By digest alone no tag changes; and what a tag would lead to is not said.
            _ => Vec::new(),
        };
        let digest = event.digest.clone().filter(|_| event.action == Action::Push);
        let mut changed = Vec::new();
        for tag in tags {
            let before = self.record(repository, &tag).await?;
            if before.current == digest {
                continue;
            }
            let mut history = before.history.clone().unwrap_or_default();
            let report = Report { digest: digest.clone(), at: now, actor: event.actor.clone() };
            history.witness(Some(report), &Look { digest: digest.clone(), at: now }, Origin::Event);
            let record = TagRecord { current: digest.clone(), history: Some(history), ..before };
            let keys = set.line_keys(repository, &tag, None);
            facts.pending.tags.insert(tag.clone(), (Arc::new(record), keys));
            changed.push(tag);
        }
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let targets = targets_of(&set, &Observation::new(repository.clone(), now, true), &changed, false);
        let none = BTreeMap::new();
        let (verdicts, _) = self.judged(&mut facts, &set, repository, &[], &targets, &none, Origin::Event, now).await?;
        let objections = verdicts.iter().flat_map(|verdict| {
            // A deletion moves nothing: what is said of earlier moves is no reason to keep what is wrong.
            let moves = event.action != Action::Delete;
            denials(&set, verdict).into_iter().filter(move |f| moves || f.rule != Rule::Immutable).filter_map(
                |finding| {
                    let tag = verdict.subject.tag.clone()?;
                    Some(Objection { policy: verdict.policy.clone(), tag, finding: finding.clone() })
                },
            )
        });
        Ok(objections.collect())
    }
}
