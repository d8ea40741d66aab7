//! How values lie in the file: digests as bytes, times as numbers, a tag's evidence and lines as one blob each.
//!
//! Reading trusts nothing: what does not decode is damage, said as such.

use jiff::Timestamp;
use rusqlite::Row;

use crate::event::Action;
use crate::history::{Known, Origin, Sighting};
use crate::image::{Algorithm, Digest, Host, Repository, RepositoryName, Tag};
use crate::store::StoreError;

/// Damage at `what`.
pub(super) fn damaged(what: &'static str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { what, why: why.to_string() }
}

/// Nanoseconds since 1970. What lies before 1678 or after 2261 is moved to that end: such times only come
/// from senders without a clock.
pub(super) fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(if at.as_second() < 0 { i64::MIN } else { i64::MAX })
}

/// The time of a number made by [`nanos`].
pub(super) fn time(nanos: i64) -> Timestamp {
    // Every i64 of nanoseconds lies within the calendar; the fallback is never taken.
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::MAX)
}

/// One byte for the algorithm, then the hash.
pub(super) fn digest_bytes(digest: &Digest) -> Vec<u8> {
    let mut out = Vec::with_capacity(33);
    out.push(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    // A digest that exists is well-formed hexadecimal.
    out.extend(hex::decode(digest.hex()).unwrap_or_default());
    out
}

/// Reads what [`digest_bytes`] wrote.
pub(super) fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    let name = match bytes.first() {
        Some(1) => Algorithm::Sha256.name(),
        Some(2) => Algorithm::Sha512.name(),
        _ => return Err(damaged("a digest", "unknown algorithm")),
    };
    format!("{name}:{}", hex::encode(&bytes[1..])).parse().map_err(|e| damaged("a digest", e))
}

/// A digest that may be missing.
pub(super) fn digest_column(row: &Row<'_>, column: usize) -> Result<Option<Digest>, StoreError> {
    row.get_ref(column)?.as_blob_or_null().map_err(|e| damaged("a digest", e))?.map(digest).transpose()
}

/// A tag; the empty text stands for none.
pub(super) fn tag(text: &str) -> Result<Option<Tag>, StoreError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|e| damaged("a tag", e)) }
}

/// The text that [`tag`] reads.
pub(super) fn tag_text(tag: Option<&Tag>) -> &str {
    tag.map_or("", Tag::as_str)
}

/// A tag that must be there.
pub(super) fn named_tag(text: &str) -> Result<Tag, StoreError> {
    text.parse().map_err(|e| damaged("a tag", e))
}

/// A repository out of its two texts.
pub(super) fn repository(host: &str, name: &str) -> Result<Repository, StoreError> {
    let host: Host = host.parse().map_err(|e| damaged("a repository", e))?;
    let name: RepositoryName = name.parse().map_err(|e| damaged("a repository", e))?;
    Ok(Repository::new(host, name))
}

/// The origin of a word.
pub(super) fn origin(word: &str) -> Result<Origin, StoreError> {
    [Origin::Event, Origin::Audit, Origin::Check, Origin::PolicyChange]
        .into_iter()
        .find(|o| o.as_str() == word)
        .ok_or_else(|| damaged("an origin", word))
}

/// The action of a word.
pub(super) fn action(word: &str) -> Result<Action, StoreError> {
    [Action::Push, Action::Delete, Action::Quarantine]
        .into_iter()
        .find(|a| a.as_str() == word)
        .ok_or_else(|| damaged("an action", word))
}

/// Bytes read one by one, with damage where they end too early.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { bytes, what }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (head, rest) =
            self.bytes.split_at_checked(count).ok_or_else(|| damaged(self.what, "it ends in the middle"))?;
        self.bytes = rest;
        Ok(head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, StoreError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<i64, StoreError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(i64::from_be_bytes(bytes))
    }

    /// A length of two bytes and as many bytes.
    pub(super) fn chunk(&mut self) -> Result<&'a [u8], StoreError> {
        let length = usize::from(self.byte()?) << 8 | usize::from(self.byte()?);
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, StoreError> {
        std::str::from_utf8(self.chunk()?).map_err(|e| damaged(self.what, e))
    }

    /// A length of four bytes and as many bytes.
    pub(super) fn long(&mut self) -> Result<&'a [u8], StoreError> {
        let mut length = [0; 4];
        length.copy_from_slice(self.take(4)?);
        self.take(u32::from_be_bytes(length) as usize)
    }

    pub(super) fn long_text(&mut self) -> Result<&'a str, StoreError> {
        std::str::from_utf8(self.long()?).map_err(|e| damaged(self.what, e))
    }
}

/// Appends bytes as [`Reader::long`] reads them; what is longer than 4 GiB, which nobody can send, is cut there.
pub(super) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// Appends a chunk as [`Reader::chunk`] reads it; what is longer than 64 KiB is cut there.
pub(super) fn put_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

const HAS_DIGEST: u8 = 1;
const HAS_ACTOR: u8 = 2;
const REPORTED: u8 = 4;
const LOOKED: u8 = 8;

/// A tag's evidence as one blob: about 45 bytes a sighting.
pub(super) fn sightings_bytes(sightings: &[Sighting]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sightings.len() * 48);
    for sighting in sightings {
        let mut flags = match sighting.origin {
            Origin::Event => 0,
            Origin::Audit => 16,
            Origin::Check => 32,
            Origin::PolicyChange => 48,
        };
        flags |= if sighting.digest.is_some() { HAS_DIGEST } else { 0 };
        flags |= if sighting.actor.is_some() { HAS_ACTOR } else { 0 };
        flags |= if sighting.known == Known::Reported { REPORTED } else { 0 };
        flags |= if sighting.looked { LOOKED } else { 0 };
        out.push(flags);
        out.extend(nanos(sighting.at).to_be_bytes());
        if let Some(digest) = &sighting.digest {
            put_chunk(&mut out, &digest_bytes(digest));
        }
        if let Some(actor) = &sighting.actor {
            put_chunk(&mut out, cut(actor).as_bytes());
        }
    }
    out
}

/// At most 64 KiB of `text`, cut between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(usize::from(u16::MAX))]
}

/// Reads what [`sightings_bytes`] wrote.
pub(super) fn sightings(bytes: &[u8]) -> Result<Vec<Sighting>, StoreError> {
    let mut reader = Reader::new(bytes, "a tag's history");
    let mut out = Vec::with_capacity(bytes.len() / 44);
    while !reader.is_empty() {
        let flags = reader.byte()?;
        let at = time(reader.number()?);
        let digest = if flags & HAS_DIGEST != 0 { Some(digest(reader.chunk()?)?) } else { None };
        let actor = if flags & HAS_ACTOR != 0 { Some(reader.text()?.to_owned()) } else { None };
        let origin = match flags & 0xf0 {
            0 => Origin::Event,
            16 => Origin::Audit,
            32 => Origin::Check,
            48 => Origin::PolicyChange,
            _ => return Err(damaged("a tag's history", "unknown origin")),
        };
        let known = if flags & REPORTED != 0 { Known::Reported } else { Known::Observed };
        out.push(Sighting { digest, at, known, looked: flags & LOOKED != 0, origin, actor });
    }
    Ok(out)
}

/// Where a tag stands, with the line as its number in the dictionary of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: i64,
    pub(super) group: Vec<u8>,
    pub(super) rank: Vec<u8>,
}

/// A tag's places as one blob beside the tag: what has to be taken out of the lines when it moves.
pub(super) fn places_bytes(places: &[Place]) -> Vec<u8> {
    let mut out = Vec::new();
    for place in places {
        put_chunk(&mut out, &place.line.to_be_bytes()[4..]);
        put_chunk(&mut out, &place.group);
        put_chunk(&mut out, &place.rank);
    }
    out
}

/// Reads what [`places_bytes`] wrote.
pub(super) fn places(bytes: &[u8]) -> Result<Vec<Place>, StoreError> {
    let mut reader = Reader::new(bytes, "a tag's lines");
    let mut out = Vec::new();
    while !reader.is_empty() {
        let number: [u8; 4] = reader.chunk()?.try_into().map_err(|e| damaged("a tag's lines", e))?;
        let line = i64::from(u32::from_be_bytes(number));
        out.push(Place { line, group: reader.chunk()?.to_vec(), rank: reader.chunk()?.to_vec() });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sighting() -> impl Strategy<Value = Sighting> {
        (any::<i64>(), 0u8..3, any::<(bool, bool)>(), 0usize..4, proptest::option::of("\\PC{0,40}")).prop_map(
            |(at, content, (known, looked), origin, actor)| Sighting {
                digest: match content {
                    0 => None,
                    1 => Some(Digest::of(&at.to_be_bytes())),
                    _ => Some(Digest::with(Algorithm::Sha512, &at.to_be_bytes())),
                },
                at: time(at),
                known: if known { Known::Observed } else { Known::Reported },
                looked,
                origin: [Origin::Event, Origin::Audit, Origin::Check, Origin::PolicyChange][origin],
                actor,
            },
        )
    }

    proptest! {
        #[test]
        fn sightings_read_back_as_written(all in proptest::collection::vec(sighting(), 0..6)) {
            prop_assert_eq!(sightings(&sightings_bytes(&all)).unwrap(), all);
        }

        #[test]
        fn t45_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = sightings(&bytes);
            let _ = places(&bytes);
            let _ = digest(&bytes);
        }
    }

    #[test]
    fn t66_times_beyond_the_numbers_are_moved_to_their_end() {
        assert_eq!(nanos(Timestamp::MIN), i64::MIN);
        assert_eq!(nanos(Timestamp::MAX), i64::MAX);
        assert_eq!(time(nanos(Timestamp::UNIX_EPOCH)), Timestamp::UNIX_EPOCH);
        let _ = (time(i64::MIN), time(i64::MAX));
    }
}
