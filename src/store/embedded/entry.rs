//! Events and dead letters as bytes: how the journal keeps them until they are filed among the record.
//!
//! An entry is read back as borrowed texts, for the record takes texts. Reading trusts nothing, as in [`super::codec`].

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::codec::{self, Reader, damaged, nanos, put_chunk, put_long};
use crate::event::Stage;
use crate::store::{DeadLetter, Incoming, StoreError};

/// Bytes counted for an event besides its texts: its row's numbers and its places in the indexes.
const EVENT_BYTES: usize = 200;

const EVENT: u8 = 1;
const DEAD_LETTER: u8 = 2;

const INTENDED: u8 = 1;
const HAS_REGISTRY: u8 = 2;
const HAS_TAG: u8 = 4;
const HAS_DIGEST: u8 = 8;
const HAS_ID: u8 = 16;
const HAS_TIME: u8 = 32;
const HAS_ACTOR: u8 = 64;

/// What was handed over, one of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// An event.
    Event(EventEntry<'a>),
    /// A dead letter.
    Dead(DeadEntry<'a>),
}

/// An event, as its row in the record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventEntry<'a> {
    pub(super) host: &'a str,
    pub(super) name: &'a str,
    pub(super) source: &'a str,
    pub(super) key: &'a str,
    pub(super) received_at: i64,
    pub(super) action: &'a str,
    pub(super) intended: bool,
    pub(super) registry: Option<&'a str>,
    pub(super) tag: Option<&'a str>,
    pub(super) digest: Option<&'a [u8]>,
    pub(super) id: Option<&'a str>,
    pub(super) at: Option<i64>,
    pub(super) actor: Option<&'a str>,
}

/// A dead letter, as its row in the record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadEntry<'a> {
    pub(super) source: &'a str,
    pub(super) received_at: i64,
    pub(super) fault: &'a str,
    pub(super) headers: &'a str,
    pub(super) body: &'a [u8],
}

impl EventEntry<'_> {
    /// How many bytes it counts while it waits, roughly.
    pub(super) fn counted(&self) -> u64 {
        let texts = [Some(self.key), self.id, self.actor, Some(self.source), self.tag];
        (EVENT_BYTES + texts.iter().flatten().map(|text| text.len()).sum::<usize>()) as u64
    }

    fn put(&self, out: &mut Vec<u8>) {
        let flag = |flag, set| if set { flag } else { 0 };
        out.push(EVENT);
        out.push(
            flag(INTENDED, self.intended)
                | flag(HAS_REGISTRY, self.registry.is_some())
                | flag(HAS_TAG, self.tag.is_some())
                | flag(HAS_DIGEST, self.digest.is_some())
                | flag(HAS_ID, self.id.is_some())
                | flag(HAS_TIME, self.at.is_some())
                | flag(HAS_ACTOR, self.actor.is_some()),
        );
        out.extend(self.received_at.to_be_bytes());
        out.extend(self.at.unwrap_or_default().to_be_bytes());
        for text in [self.host, self.name, self.source, self.action] {
            put_chunk(out, text.as_bytes());
        }
        if let Some(digest) = self.digest {
            put_chunk(out, digest);
        }
        // What a sender wrote may be longer than what a grammar holds short.
        for text in [Some(self.key), self.registry, self.tag, self.id, self.actor].into_iter().flatten() {
            put_long(out, text.as_bytes());
        }
    }
}

/// Appends an event, and says how many bytes it counts while it waits, and who it is.
pub(super) fn put_event(out: &mut Vec<u8>, incoming: &Incoming, prints: &Fingerprints) -> (u64, u128) {
    let event = &incoming.event;
    let digest = event.digest.as_ref().map(codec::digest_bytes);
    let unique = cfg!(sabotage = "no_dedupe").then(|| uuid::Uuid::now_v7().to_string());
    let entry = EventEntry {
        host: incoming.repository.host.as_str(),
        name: incoming.repository.name.as_str(),
        source: &incoming.source,
        key: unique.as_deref().unwrap_or(&incoming.key),
        received_at: nanos(incoming.received_at),
        action: event.action.as_str(),
        intended: event.stage == Stage::Intended,
        registry: event.registry.as_ref().map(|host| host.as_str()),
        tag: event.tag.as_ref().map(|tag| tag.as_str()),
        digest: digest.as_deref(),
        id: event.id.as_deref(),
        at: event.at.map(nanos),
        actor: event.actor.as_deref(),
    };
    entry.put(out);
    (entry.counted(), prints.of(entry.host, entry.name, entry.source, entry.key))
}

/// Appends a dead letter.
pub(super) fn put_dead(out: &mut Vec<u8>, letter: &DeadLetter) -> Result<(), StoreError> {
    let headers = serde_json::to_vec(&letter.headers).map_err(|e| damaged("a dead letter's headers", e))?;
    out.push(DEAD_LETTER);
    out.extend(nanos(letter.received_at).to_be_bytes());
    for bytes in [letter.source.as_bytes(), letter.fault.as_bytes(), &headers, &letter.body] {
        put_long(out, bytes);
    }
    Ok(())
}

/// The entries in bytes, one after another.
pub(super) struct Entries<'a>(Reader<'a>);

impl<'a> Entries<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Entries<'a> {
        Entries(Reader::new(bytes, "the journal"))
    }

    fn read(&mut self) -> Result<Entry<'a>, StoreError> {
        let reader = &mut self.0;
        match reader.byte()? {
            EVENT => {
                let flags = reader.byte()?;
                let has = |flag| flags & flag != 0;
                let (received_at, at) = (reader.number()?, reader.number()?);
                let (host, name, source, action) = (reader.text()?, reader.text()?, reader.text()?, reader.text()?);
                let digest = if has(HAS_DIGEST) { Some(reader.chunk()?) } else { None };
                let key = reader.long_text()?;
                let mut text = |flag| if has(flag) { reader.long_text().map(Some) } else { Ok(None) };
                Ok(Entry::Event(EventEntry {
                    host,
                    name,
                    source,
                    key,
                    received_at,
                    action,
                    intended: has(INTENDED),
                    registry: text(HAS_REGISTRY)?,
                    tag: text(HAS_TAG)?,
                    digest,
                    id: text(HAS_ID)?,
                    at: has(HAS_TIME).then_some(at),
                    actor: text(HAS_ACTOR)?,
                }))
            }
            DEAD_LETTER => Ok(Entry::Dead(DeadEntry {
                received_at: reader.number()?,
                source: reader.long_text()?,
                fault: reader.long_text()?,
                headers: reader.long_text()?,
                body: reader.long()?,
            })),
            other => Err(damaged("the journal", format!("an entry of kind {other}"))),
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.read())
    }
}

/// Makes of what tells events apart (repository, source, key) a number that no sender can foresee, so that none can
/// send an event which is taken for another.
#[derive(Clone)]
pub(super) struct Fingerprints(RandomState, RandomState);

impl Fingerprints {
    pub(super) fn new() -> Fingerprints {
        Fingerprints(RandomState::new(), RandomState::new())
    }

    pub(super) fn of(&self, host: &str, name: &str, source: &str, key: &str) -> u128 {
        let parts = (host, name, source, key);
        u128::from(self.0.hash_one(parts)) << 64 | u128::from(self.1.hash_one(parts))
    }
}

/// A set of fingerprints.
pub(super) type Prints = HashSet<u128, BuildHasherDefault<AsItIs>>;

/// A fingerprint is a hash already, and nobody can choose it.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Of other types than numbers nothing is ever hashed here; this keeps it right if something is.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, print: u128) {
        self.0 = print as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;

    type Texts = (String, String, String, String);

    fn texts() -> impl Strategy<Value = Texts> {
        ("\\PC{0,30}", "\\PC{0,30}", "\\PC{0,30}", "\\PC{0,300}")
    }

    proptest! {
        #[test]
        fn entries_read_back_as_written(
            (host, name, source, key) in texts(),
            (received_at, at) in any::<(i64, Option<i64>)>(),
            intended in any::<bool>(),
            (registry, tag, id, actor) in (of("\\PC{0,30}"), of("\\PC{0,30}"), of("\\PC{0,30}"), of("\\PC{0,30}")),
            digest in of(proptest::collection::vec(any::<u8>(), 0..70)),
            bytes in proptest::collection::vec(any::<u8>(), 0..70_000),
        ) {
            let event = EventEntry {
                host: &host, name: &name, source: &source, key: &key, received_at, action: "push", intended,
                registry: registry.as_deref(), tag: tag.as_deref(), digest: digest.as_deref(), id: id.as_deref(), at,
                actor: actor.as_deref(),
            };
            let letter = DeadLetter {
                id: 0, source: source.as_str().into(), received_at: codec::time(received_at), fault: key.clone(),
                headers: vec![(name.clone(), host.clone())], body: bytes.clone().into(),
            };
            let mut out = Vec::new();
            event.put(&mut out);
            put_dead(&mut out, &letter).unwrap();
            event.put(&mut out);
            let headers = serde_json::to_string(&letter.headers).unwrap();
            let dead = DeadEntry { source: &source, received_at, fault: &key, headers: &headers, body: &bytes };
            let read: Vec<_> = Entries::of(&out).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read, [Entry::Event(event.clone()), Entry::Dead(dead), Entry::Event(event)]);
        }

        #[test]
        fn t45_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            // An entry that is not whole ends the reading, and so does the end.
            let _ = Entries::of(&bytes).take(bytes.len() + 1).collect::<Result<Vec<_>, _>>();
        }
    }

    #[test]
    fn t15_events_that_share_their_letters_are_told_apart() {
        let prints = Fingerprints::new();
        assert_eq!(prints.of("a", "b", "c", "d"), prints.clone().of("a", "b", "c", "d"));
        for other in [("ab", "", "c", "d"), ("a", "bc", "", "d"), ("a", "b", "cd", ""), ("a", "b", "c", "e")] {
            assert_ne!(prints.of("a", "b", "c", "d"), prints.of(other.0, other.1, other.2, other.3));
        }
    }
}
