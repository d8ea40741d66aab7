//! The modelled registry of a policy test: tags, manifests that come and go, answers that fail, write locks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::observation::{Cause, CauseKind, Fact, StoredManifest};
use super::manifests::{Catalogue, Stored};
use super::spec::Health;
use crate::image::{Digest, Manifest, Tag};

/// The registry as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    pub tags: BTreeMap<Tag, Digest>,
    deleted: BTreeSet<Digest>,
    pushed: BTreeSet<Digest>,
    health: BTreeMap<String, Health>,
    pub locked: BTreeSet<Tag>,
    pub has_locks: bool,
}

impl Registry {
    pub fn health(&self, name: Option<&str>) -> &Health {
        let own = name.and_then(|n| self.health.get(n));
        own.or_else(|| self.health.get("*")).unwrap_or(&Health::Fine)
    }

    /// From now on, the registry answers so for a manifest.
    pub fn answer(&mut self, name: &str, health: Health) {
        if name == "*" {
            self.health.clear();
        }
        self.health.insert(name.to_owned(), health);
    }

    /// A manifest arrives by its digest.
    pub fn push(&mut self, digest: &Digest) {
        self.deleted.remove(digest);
        self.pushed.insert(digest.clone());
    }

    /// A manifest is deleted, with every tag on it; those.
    pub fn delete(&mut self, digest: &Digest) -> Vec<Tag> {
        self.deleted.insert(digest.clone());
        self.pushed.remove(digest);
        let tags: Vec<Tag> = self.tags.iter().filter(|(_, d)| *d == digest).map(|(t, _)| t.clone()).collect();
        tags.iter().for_each(|t| {
            self.tags.remove(t);
        });
        tags
    }

    /// Where a tag points, as a `HEAD` request would say. A registry can name the digest of a manifest that it
    /// cannot serve; one that fails says nothing.
    pub fn look(&self, tag: &Tag, catalogue: &Catalogue) -> Result<Option<Digest>, Cause> {
        let digest = self.tags.get(tag);
        let name = digest.and_then(|d| catalogue.manifests.get(d)).and_then(|s| s.name.as_deref());
        match self.health(name) {
            Health::Failing(text) => Err(Cause { kind: CauseKind::Registry, text: text.clone() }),
            _ => Ok(digest.cloned()),
        }
    }

    pub fn fetch(&self, digest: &Digest, catalogue: &Catalogue) -> Fact<Arc<StoredManifest>> {
        let stored = catalogue.manifests.get(digest);
        let name = stored.and_then(|s| s.name.as_deref());
        match self.health(name) {
            Health::Failing(text) => {
                return Fact::Undetermined(Cause { kind: CauseKind::Registry, text: text.clone() });
            }
            Health::Corrupt => {
                let text = format!("the registry served other bytes than {}", digest.short());
                return Fact::Undetermined(Cause { kind: CauseKind::DigestMismatch, text });
            }
            Health::NotFound => return Fact::Absent,
            Health::Fine => {}
        }
        let there = |s: &&Stored| !self.deleted.contains(digest) && (!s.missing || self.pushed.contains(digest));
        match stored.filter(there) {
            Some(stored) => Fact::Known(Arc::new(StoredManifest {
                digest: digest.clone(),
                size: stored.bytes.len() as u64,
                parsed: Manifest::parse(&stored.bytes, Some(&stored.media_type)),
                bytes: stored.bytes.as_slice().into(),
            })),
            None => Fact::Absent,
        }
    }
}
