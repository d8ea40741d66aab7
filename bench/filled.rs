//! A store with as many tags as a figure asks for.

use std::time::Duration;

use jiff::Timestamp;
use tidewaiter::history::{Known, Origin, Sighting};
use tidewaiter::image::{Digest, Repository, Tag};
use tidewaiter::policy::LineKey;
use tidewaiter::store::embedded::EmbeddedStore;
use tidewaiter::store::{Claim, Recheck, Step, Store, TagUpdate};

/// Tags written in one step.
const AT_ONCE: usize = 1_000;
/// Longer than any bench.
const FOREVER: Duration = Duration::from_secs(1_000_000);

pub fn at() -> Timestamp {
    Timestamp::from_second(1_780_000_000).expect("a time")
}

/// A tag that was seen once, with its places.
pub fn update(tag: Tag, digest: Digest, lines: Vec<LineKey>) -> TagUpdate {
    let seen = Sighting {
        digest: Some(digest.clone()),
        at: at(),
        known: Known::Observed,
        looked: false,
        origin: Origin::Event,
        actor: None,
    };
    TagUpdate { tag, sightings: vec![seen], current: Some(digest), locked: None, lines, judged_moves: 0 }
}

/// Claims repositories for as long as the bench takes.
pub async fn claims(store: &EmbeddedStore, repositories: &[Repository]) -> anyhow::Result<Vec<Claim>> {
    for repository in repositories {
        let wanted = Recheck { tag: None, due: at(), origin: Origin::Audit, attempts: 0 };
        store.recheck(repository, vec![wanted]).await?;
    }
    let claims = store.claim(at(), repositories.len(), 1, FOREVER).await?;
    anyhow::ensure!(claims.len() == repositories.len(), "{} claims", claims.len());
    Ok(claims)
}

/// Writes tags to a claimed repository.
pub async fn fill(
    store: &EmbeddedStore,
    claim: &Claim,
    tags: usize,
    mut tag: impl FnMut(usize) -> TagUpdate,
) -> anyhow::Result<()> {
    for first in (0..tags).step_by(AT_ONCE) {
        let tags = (first..tags.min(first + AT_ONCE)).map(&mut tag).collect();
        store.complete(claim, Step { tags, ..Step::default() }, true).await?;
    }
    Ok(())
}
