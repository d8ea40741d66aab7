//! JSON from senders, strictly: one linear scan enforces the limits, then a typed parse reads the fields.
//!
//! Refused: invalid UTF-8, a byte-order mark, depth, long strings, long lists (T-06), a repeated key among
//! those that are read, an array where an object belongs, a key in another case (T-07).

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::text::quote;

/// Deepest nesting of arrays and objects; the deepest payload seen has 9.
const DEPTH_MAX: usize = 32;
/// Longest string or key, in bytes as written; the longest seen outside of whole documents has 300.
const STRING_BYTES_MAX: usize = 8 * 1024;
/// Most entries of one array or object.
const ITEMS_MAX: u32 = 1024;

/// How much of what a body may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most entries of one array or object.
    pub items: u32,
    /// Keys whose strings hold whole documents (a manifest, an event within an event, a description), bounded
    /// only by the body.
    pub documents: &'static [&'static str],
}

impl Limits {
    /// The limits of a payload without peculiarities.
    pub const PLAIN: Limits = Limits { items: ITEMS_MAX, documents: &[] };

    /// The same, with strings under `documents` as long as the body allows.
    pub const fn with_documents(documents: &'static [&'static str]) -> Limits {
        Limits { documents, ..Limits::PLAIN }
    }
}

/// Why bytes are not the JSON that was expected.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8.
    #[error("the body is not UTF-8: byte {0} begins no character")]
    Utf8(usize),
    /// A byte-order mark, which RFC 8259 forbids.
    #[error("the body begins with a byte-order mark, which JSON does not have")]
    ByteOrderMark,
    /// Too deep.
    #[error("the body nests deeper than {DEPTH_MAX} levels at byte {0}")]
    Depth(usize),
    /// A string that is too long.
    #[error("the body has a string longer than {STRING_BYTES_MAX} bytes at byte {0}")]
    String(usize),
    /// Too many entries.
    #[error("the body has an array or object with more than {limit} entries at byte {at}")]
    Items {
        /// Where the first one too many begins.
        at: usize,
        /// How many are allowed.
        limit: u32,
    },
    /// Not JSON, or not of the expected shape.
    #[error("the body is not as expected: {message}")]
    Shape {
        /// What was found and what was expected, bounded.
        message: String,
    },
}

impl JsonError {
    fn shape(error: &serde_json::Error) -> JsonError {
        JsonError::Shape { message: quote(&error.to_string()) }
    }
}

/// Reads `bytes`, an object, as `T` within `limits`.
pub(super) fn from_json<'de, T: Deserialize<'de>>(bytes: &'de [u8], limits: Limits) -> Result<T, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError::Utf8(e.valid_up_to()))?;
    from_text(text, limits)
}

/// Reads `bytes`, an array, as its items within `limits`.
pub(super) fn list_from_json<'de, T: Deserialize<'de>>(bytes: &'de [u8], limits: Limits) -> Result<Vec<T>, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError::Utf8(e.valid_up_to()))?;
    scan(text.as_bytes(), limits)?;
    from_scanned(text)
}

/// Reads `text`, an object, as `T` within `limits`.
pub(super) fn from_text<'de, T: Deserialize<'de>>(text: &'de str, limits: Limits) -> Result<T, JsonError> {
    if text.starts_with('\u{feff}') {
        return Err(JsonError::ByteOrderMark);
    }
    scan(text.as_bytes(), limits)?;
    serde_json::from_str::<Object<T>>(text).map(|Object(value)| value).map_err(|e| JsonError::shape(&e))
}

/// Reads `text`, a part of a body that was scanned already.
pub(super) fn from_scanned<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, JsonError> {
    serde_json::from_str(text).map_err(|e| JsonError::shape(&e))
}

/// Enforces the limits in one pass. Of text that is not JSON it says anything; the parser refuses it.
fn scan(bytes: &[u8], limits: Limits) -> Result<(), JsonError> {
    let mut counts = [0u32; DEPTH_MAX];
    let mut depth = 0;
    // The last string, and whether a colon made it the key of the value that comes next.
    let (mut last, mut keyed) = (0..0, false);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let start = at + 1;
                at = string_end(bytes, start);
                if at - start > STRING_BYTES_MAX {
                    let key = if keyed { bytes.get(last.clone()).unwrap_or_default() } else { b"" };
                    if !limits.documents.iter().any(|document| document.as_bytes() == key) {
                        return Err(JsonError::String(start));
                    }
                }
                last = start..at;
                keyed = false;
            }
            b'{' | b'[' => {
                if depth == DEPTH_MAX {
                    return Err(JsonError::Depth(at));
                }
                counts[depth] = 1;
                depth += 1;
                keyed = false;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' => keyed = true,
            // Some senders indent.
            b' ' => {
                while bytes.get(at..).and_then(|rest| rest.first_chunk()) == Some(b"        ") {
                    at += 8;
                }
                if bytes.get(at) != Some(&b' ') {
                    continue;
                }
            }
            b',' => {
                keyed = false;
                if let Some(count) = depth.checked_sub(1).and_then(|d| counts.get_mut(d)) {
                    *count += 1;
                    if *count > limits.items {
                        return Err(JsonError::Items { at, limit: limits.items });
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Where the string that begins at `start` ends: the index of its closing quote, or the end of the bytes.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        // Eight bytes at once while none of them is a quote or a backslash: payloads are mostly strings.
        while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let word = u64::from_le_bytes(*word);
            let found = zero_bytes(word ^ repeat(b'"')) | zero_bytes(word ^ repeat(b'\\'));
            if found != 0 {
                at += found.trailing_zeros() as usize / 8;
                break;
            }
            at += 8;
        }
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// A word of eight times `byte`.
const fn repeat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// A word whose lowest set bit is in the lowest byte of `word` that is zero; zero where none is.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeat(0x01)) & !word & repeat(0x80)
}

/// A struct that is written as a JSON object. What serde derives would take an array of the fields' values in
/// order as well, which no sender writes and other parsers refuse.
#[derive(Debug, Clone, Default)]
pub(super) struct Object<T>(pub T);

impl<T> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        a: Option<String>,
        #[serde(default)]
        list: Vec<u32>,
    }

    fn read(text: &str) -> Result<Sample, JsonError> {
        from_text(text, Limits::with_documents(&["long"]))
    }

    #[test]
    fn t06_depth_strings_and_items_are_limited() {
        assert!(matches!(read(&"[".repeat(1_000_000)), Err(JsonError::Depth(32))));
        assert!(matches!(read(&r#"{"a":"#.repeat(33)), Err(JsonError::Depth(_))));
        let nested = |n: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(read(&nested(31)).is_ok());
        assert!(matches!(read(&nested(32)), Err(JsonError::Depth(_))));

        let string = |key: &str, n: usize| format!(r#"{{"{key}":"{}"}}"#, "x".repeat(n));
        assert!(read(&string("a", 8192)).is_ok());
        assert!(matches!(read(&string("a", 8193)), Err(JsonError::String(6))));
        assert!(matches!(read(&string("b", 8193)), Err(JsonError::String(_))));
        assert!(read(&string("long", 9000)).is_ok());
        assert!(matches!(read(&string(&"k".repeat(8193), 1)), Err(JsonError::String(_))));
        assert!(matches!(read(&format!(r#"{{"long":["{}"]}}"#, "x".repeat(9000))), Err(JsonError::String(_))));

        let list = |n: usize| format!(r#"{{"list":[{}]}}"#, vec!["1"; n].join(","));
        assert_eq!(read(&list(1024)).unwrap().list.len(), 1024);
        assert!(matches!(read(&list(1025)), Err(JsonError::Items { limit: 1024, .. })));
    }

    #[test]
    fn t06_the_scan_and_the_parser_see_the_same_strings() {
        assert_eq!(read(r#"{"a":"\\\"[[[,,,"}"#).unwrap().a.as_deref(), Some("\\\"[[[,,,"));
        assert_eq!(read(r#"{"a":"\u005c"}"#).unwrap().a.as_deref(), Some("\\"));
        for bad in [r#"{"a":"\"#, r#"{"a":""#, r#"{"list":[1e999999]}"#, r#"{"list":[99999999999999999999]}"#, "\"", ""]
        {
            assert!(matches!(read(bad), Err(JsonError::Shape { .. })), "{bad}");
        }
    }

    #[test]
    fn strings_end_where_they_end() {
        for filler in 0..20 {
            for tail in ["", "\"", "\\", "\\\"", "\\\\\"", "!\"", "é\"\"", "]\u{7f}\u{80}\""] {
                let text = format!("{}{tail}", "x".repeat(filler));
                let bytes = text.as_bytes();
                let mut plain = 0;
                while bytes.get(plain).is_some_and(|b| *b != b'"') {
                    plain += if bytes[plain] == b'\\' { 2 } else { 1 };
                }
                assert_eq!(string_end(bytes, 0), plain.min(bytes.len()), "{text}");
            }
        }
    }

    #[test]
    fn t07_ambiguous_json_is_refused() {
        for bad in [
            r#"{"a":"1","a":"1"}"#,
            r#"{"a":null,"a":"1"}"#,
            r#"{"a":"1","\u0061":"2"}"#,
            r#"["1",[]]"#,
            r#"{"a":"1"} {}"#,
            r#"{"a":1}"#,
            r#"{"a":"1",}"#,
            "{'a':'1'}",
            r#"{"a":"\ud800"}"#,
            "null",
        ] {
            assert!(matches!(read(bad), Err(JsonError::Shape { .. })), "{bad}");
        }
        assert!(matches!(read("\u{feff}{}"), Err(JsonError::ByteOrderMark)));
        assert!(matches!(from_json::<Sample>(b"{\"a\":\"\xff\"}", Limits::PLAIN), Err(JsonError::Utf8(6))));
        assert_eq!(read(r#"{"A":"1"}"#).unwrap().a, None);
    }
}
