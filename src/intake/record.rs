//! From what a format read to what the store is handed: the registry of each event, what makes a redelivery
//! the same, and what is kept of a body that cannot be acted on.

use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::Source;
use crate::event::{Event, Headers, Parsed};
use crate::image::{Host, Repository};
use crate::store::{DeadLetter, Incoming};

/// Headers that say what a body is, kept with a dead letter so that it can be read again later. Never one
/// that can carry a credential.
const MEANINGFUL: [&str; 16] = [
    "content-type",
    "aeg-event-type",
    "aeg-subscription-name",
    "ce-type",
    "ce-id",
    "ce-source",
    "ce-time",
    "ce-specversion",
    "x-github-event",
    "x-github-delivery",
    "x-gitea-event",
    "x-gitea-delivery",
    "x-nexus-webhook-id",
    "x-nexus-webhook-delivery",
    "x-registry-event",
    "x-amz-sns-message-type",
];
/// Longest header value kept.
const HEADER_BYTES_MAX: usize = 512;
/// Most faults named in one dead letter; the body tells the rest.
const FAULTS_MAX: usize = 3;

/// What is to be recorded of one body.
pub(super) struct Plan {
    /// Events at their configured registries.
    pub events: Vec<(Host, Event)>,
    /// Items that cannot be acted on.
    pub dead: u64,
    /// Why, for people.
    pub faults: Vec<String>,
    /// Items of no interest.
    pub ignored: u64,
}

impl Plan {
    /// A body that cannot be read at all.
    pub(super) fn unreadable(fault: String) -> Plan {
        Plan { events: Vec::new(), dead: 1, faults: vec![fault], ignored: 0 }
    }

    /// Sorts what was read.
    pub(super) fn of(parsed: Parsed, source: &Source) -> Plan {
        let mut plan =
            Plan { events: Vec::with_capacity(parsed.events.len()), dead: 0, faults: Vec::new(), ignored: 0 };
        for ignored in &parsed.ignored {
            if ignored.reason.is_fault() {
                plan.bury(|| format!("{}: {}", ignored.reason.as_str(), ignored.detail));
            } else {
                plan.ignored += 1;
            }
        }
        for event in parsed.events {
            match (&event.registry, &source.registry) {
                (Some(named), _) => match source.registries.get(named) {
                    Some(registry) => plan.events.push((registry.clone(), event)),
                    None => plan.bury(|| {
                        format!("the registry {named} is not one of this source's: add it to the configuration, or as an alias, if it is yours")
                    }),
                },
                (None, Some(registry)) => plan.events.push((registry.clone(), event)),
                (None, None) => plan.bury(|| {
                    "the event names no registry: set `registry:` for this source".to_owned()
                }),
            }
        }
        plan
    }

    fn bury(&mut self, fault: impl FnOnce() -> String) {
        self.dead += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault());
        }
    }

    /// The dead letter, where one is to be kept.
    pub(super) fn dead_letter(
        &self,
        source: &Arc<str>,
        headers: &Headers<'_>,
        body: &[u8],
        received_at: Timestamp,
    ) -> Option<DeadLetter> {
        if self.dead == 0 {
            return None;
        }
        let mut fault = self.faults.join("; ");
        if self.dead as usize > self.faults.len() {
            fault.push_str(&format!("; and {} more", self.dead as usize - self.faults.len()));
        }
        let headers = MEANINGFUL
            .iter()
            .filter_map(|name| headers.get(name).map(|value| ((*name).to_owned(), value)))
            .filter(|(_, value)| value.len() <= HEADER_BYTES_MAX && !value.chars().any(char::is_control))
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        Some(DeadLetter { id: 0, source: source.clone(), received_at, fault, headers, body: body.into() })
    }
}

/// The event as the store takes it.
pub(super) fn incoming(source: &Arc<str>, registry: Host, event: Event, received_at: Timestamp) -> Incoming {
    let key = key(&registry, &event);
    let repository = Repository::new(registry, event.repository.clone());
    Incoming { source: source.clone(), repository, event, key, received_at }
}

/// What makes a redelivery the same event: the sender's id, else the sender's time, each with the content,
/// because several events of one delivery may share an id.
///
/// Where the sender gives neither, two pushes of one tag are told in the same bytes as one push told twice.
/// Taking the second for a copy of the first would lose a push; so each is an event of its own, and judging an
/// unchanged tag once more changes nothing.
fn key(registry: &Host, event: &Event) -> String {
    let mut hash = Sha256::new();
    let mut field = |kind: u8, text: &str| {
        // Kind and length lead, so that no two different lists of fields hash the same bytes.
        hash.update([kind]);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    match (&event.id, &event.at) {
        (Some(id), _) => field(1, id),
        (None, Some(at)) => field(2, &at.to_string()),
        (None, None) => return uuid::Uuid::now_v7().simple().to_string(),
    }
    field(3, event.action.as_str());
    field(4, registry.as_str());
    field(5, event.repository.as_str());
    if let Some(tag) = &event.tag {
        field(6, tag.as_str());
    }
    if let Some(digest) = &event.digest {
        field(7, digest.as_str());
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Action, Stage};

    fn event(id: Option<&str>, at: Option<&str>, tag: &str) -> Event {
        Event {
            action: Action::Push,
            stage: Stage::Done,
            registry: None,
            repository: "iot/sensor".parse().unwrap(),
            tag: Some(tag.parse().unwrap()),
            digest: None,
            id: id.map(str::to_owned),
            at: at.map(|at| at.parse().unwrap()),
            actor: None,
        }
    }

    #[test]
    fn t03_a_redelivery_has_the_same_key_and_another_push_has_not() {
        let registry: Host = "contoso.azurecr.io".parse().unwrap();
        let key = |id, at, tag| key(&registry, &event(id, at, tag));
        let noon = Some("2026-11-22T12:00:00Z");
        assert_eq!(key(Some("1"), noon, "1.0"), key(Some("1"), None, "1.0"));
        assert_ne!(key(Some("1"), noon, "1.0"), key(Some("2"), noon, "1.0"));
        assert_ne!(key(Some("1"), noon, "1.0"), key(Some("1"), noon, "1.1"));
        assert_eq!(key(None, noon, "1.0"), key(None, noon, "1.0"));
        assert_ne!(key(None, noon, "1.0"), key(None, Some("2026-11-22T12:00:01Z"), "1.0"));
        assert_ne!(key(None, None, "1.0"), key(None, None, "1.0"), "a second push must not be taken for a copy");
    }
}
