//! `POST /api/v1/check`: images judged now, for whoever asks the daemon.

use std::collections::BTreeMap;

use crate::admin::{Check, CheckError, HookFuture};
use crate::image::{Reference, Repository, Tag};
use crate::pipeline::Pipeline;
use crate::report::Report;
use crate::store::Store;

/// Checks on behalf of callers, at the configured registries only.
pub(super) struct Checks<S> {
    pub pipeline: Pipeline<S>,
}

impl<S: Store> Check for Checks<S> {
    fn check(&self, references: Vec<Reference>) -> HookFuture<'_, Result<String, CheckError>> {
        Box::pin(async move {
            let now = self.pipeline.clock.now();
            let mut by_repository: BTreeMap<Repository, Vec<Tag>> = BTreeMap::new();
            for reference in references {
                let tag = reference
                    .tag
                    .clone()
                    .ok_or_else(|| CheckError::Refused(format!("{reference} has no tag: policies judge tags")))?;
                by_repository.entry(reference.repository).or_default().push(tag);
            }
            let mut verdicts = Vec::new();
            for (repository, tags) in by_repository {
                if self.pipeline.registries.get(&repository.host).is_none() {
                    return Err(CheckError::Refused(format!("the registry {} is not configured", repository.host)));
                }
                let judged = self.pipeline.check(&repository, &tags).await;
                verdicts.extend(judged.map_err(|e| CheckError::Unavailable(e.to_string()))?);
            }
            let report = Report::new(verdicts, now);
            Ok(crate::report::report_json(&report).to_string())
        })
    }
}
