//! The daemon's own way to the record, without the daemon: for `audit --record` and for reading dead letters again
//! while no daemon has the store.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use arc_swap::ArcSwap;

use super::settings;
use crate::alert::SinkSettings;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, StoreUrl};
use crate::history::Origin;
use crate::image::{Repository, Tag};
use crate::intake::{Retried, Sources};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::policy::{PolicySet, Verdict};
use crate::store::embedded::{EmbeddedStore, Options};
use crate::store::{Recheck, Store, StoreError};

/// Rechecks asked for, and tags read from the record, at a time.
const CHUNK: usize = 500;
/// Tags judged in one resolution: each asks the registry once or twice, and a resolution has a budget.
const JUDGED: usize = 20;

/// The store with the pipeline in front of it, for one command.
pub struct Recorder {
    pipeline: Pipeline<EmbeddedStore>,
}

/// Opens the configured store for this process.
///
/// # Errors
/// The store's, such as that a daemon has it.
pub fn open_store(config: &Config, path: &Path) -> Result<EmbeddedStore, StoreError> {
    let options = Options {
        backlog_events: config.limits.backlog_events,
        backlog_bytes: config.limits.backlog_bytes,
        ..Options::default()
    };
    EmbeddedStore::open(path, options)
}

/// Reads the dead letters of a store again that no daemon has open. Nothing is fetched: the letters were authentic
/// when they came.
///
/// # Errors
/// A source's settings, or the store's faults.
pub async fn retry_dead_letters(config: &Config, store: &EmbeddedStore) -> anyhow::Result<Retried> {
    let metrics = Arc::new(Metrics::new()?);
    let names = config.sources.iter().map(|source| source.name.clone()).collect();
    metrics.announce(crate::metrics::Names { sources: names, ..Default::default() });
    let sources = Sources::new(settings::senders(config)?.sources, metrics);
    Ok(sources.retry(store).await?)
}

impl Recorder {
    /// Opens the record, as the daemon of this configuration would.
    ///
    /// # Errors
    /// The store's, such as that a daemon has it; or settings that cannot be used.
    pub fn open(config: &Config, set: PolicySet) -> anyhow::Result<Recorder> {
        let StoreUrl::Sqlite(path) = &config.store else {
            return Err(anyhow!("`store.url`: only the embedded store is written by a command"));
        };
        let metrics = Arc::new(Metrics::new()?);
        let store = Arc::new(open_store(config, path)?);
        let pipeline = Pipeline {
            store,
            registries: settings::registries(config, &metrics)?,
            policies: Arc::new(ArcSwap::from_pointee(set)),
            sinks: settings::sinks(config)?.iter().map(SinkSettings::info).collect(),
            clock: Arc::new(SystemClock),
            metrics,
            baselined: Arc::default(),
            heard: Arc::default(),
            rejudged: Arc::default(),
            proving: Arc::default(),
        };
        Ok(Recorder { pipeline })
    }

    /// Looks at these tags, and at those on record, and records what is there; gives the verdicts on those that are.
    ///
    /// # Errors
    /// The store's; what the registry does not answer becomes verdicts that say so.
    pub async fn record(
        &self,
        repository: &Repository,
        tags: &[Tag],
        done: impl Fn(usize),
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut wanted: BTreeSet<Tag> = tags.iter().cloned().collect();
        let mut after = None;
        loop {
            let page = self.pipeline.store.tags(repository, after, CHUNK).await?;
            let full = page.len() == CHUNK;
            after = page.last().map(|(tag, _)| tag.clone());
            wanted.extend(page.into_iter().map(|(tag, _)| tag));
            if !full {
                break;
            }
        }
        let due = self.pipeline.clock.now();
        let recheck = |tag| Recheck { tag, due, origin: Origin::Audit, attempts: 0 };
        // What the repository lacks is judged as well.
        let all: Vec<Recheck> = std::iter::once(None).chain(wanted.into_iter().map(Some)).map(recheck).collect();
        for chunk in all.chunks(CHUNK) {
            self.pipeline.store.recheck(repository, chunk.to_vec()).await?;
        }
        self.pipeline.drain().await?;
        let mut verdicts = Vec::new();
        for chunk in tags.chunks(JUDGED) {
            verdicts.extend(self.pipeline.check(repository, chunk).await?);
            done(chunk.len());
        }
        Ok(verdicts)
    }
}
