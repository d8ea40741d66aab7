//! Dead letters read again, by the formats and the configuration of now: after an upgrade, or once a registry was
//! added that an event named.

use super::record::{self, Plan};
use super::{Source, Sources};
use crate::event::{Handshake, Headers, Request};
use crate::store::{DeadLetter, Incoming, Paging, Store, StoreError};

/// Dead letters read from the store at once: each may have a mebibyte.
const PAGE: usize = 20;

/// What became of the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retried {
    /// Letters that could be read and are dead no more.
    pub read: u64,
    /// Events of them that were new.
    pub recorded: u64,
    /// Letters that still cannot be read.
    pub kept: u64,
}

impl Sources {
    /// Reads every dead letter again. Its events are recorded before it is forgotten, so a crash in between at
    /// most has it read twice.
    ///
    /// # Errors
    /// The store's; what was read until then is done.
    pub async fn retry<S: Store>(&self, store: &S) -> Result<Retried, StoreError> {
        let mut retried = Retried::default();
        let mut cursor = None;
        loop {
            let page = store.dead_letters(Paging { cursor, limit: PAGE }).await?;
            for letter in &page.items {
                let known = self.find(&letter.source);
                match known.as_ref().and_then(|known| reread(&known.source, letter)) {
                    Some(events) => {
                        if !events.is_empty() {
                            retried.recorded += u64::from(store.append(events, Vec::new()).await?.recorded);
                        }
                        store.forget_dead_letter(letter.id).await?;
                        retried.read += 1;
                    }
                    None => retried.kept += 1,
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(retried);
            }
        }
    }
}

/// The events of a dead letter; `None` where any of it still cannot be acted on. Those of a batch that were
/// recorded when it came are known again by their keys.
fn reread(source: &Source, letter: &DeadLetter) -> Option<Vec<Incoming>> {
    let headers: Headers<'_> = letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let parsed = source.format.parse(&Request { method: "POST", headers: &headers, body: &letter.body }).ok()?;
    if matches!(parsed.handshake, Some(Handshake::Confirm { .. })) {
        return None;
    }
    let plan = Plan::of(parsed, source);
    let incoming = |(registry, event)| record::incoming(&source.name, registry, event, letter.received_at);
    (plan.dead == 0).then(|| plan.events.into_iter().map(incoming).collect())
}
