//! What the parts of a form match.

use super::captures::Meaning;
use crate::image::suffix;

/// Longest suffix that stands for a platform, in bytes, with room for new ones.
const SUFFIX_BYTES_MAX: usize = 32;

/// Operating systems that `{os}` matches.
const SYSTEMS: &[&str] = &["linux", "windows", "darwin", "freebsd"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    Literal(Box<str>),
    /// An integer, `hex`, `word`, … captured under the placeholder's name; captures come in the order of the names.
    Capture {
        class: Class,
        /// Whether its longest match is the only one to be tried.
        is_certain: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    Integer,
    Prerelease,
    Platform,
    Os,
    Arch,
    Hex,
    Date,
    Word,
    Any,
    Choice(Vec<Box<str>>),
}

/// Finds out, once all elements of a form are known, which of them can match in one way only.
pub(super) fn settle(elements: &mut [Element]) {
    for n in 0..elements.len() {
        let (until, after) = elements.split_at_mut(n + 1);
        if let Some(Element::Capture { class, is_certain }) = until.last_mut() {
            *is_certain = class.is_certain(after.first());
        }
    }
}

impl Class {
    /// What a text of the class means.
    pub fn meaning(&self) -> Meaning {
        match self {
            Class::Integer => Meaning::Integer,
            Class::Prerelease => Meaning::Prerelease,
            Class::Platform => Meaning::Platform,
            _ => Meaning::Text,
        }
    }

    /// Whether only the longest match of the class can lead on to what follows: a shorter one would stop before a
    /// character that does not begin what follows.
    fn is_certain(&self, following: Option<&Element>) -> bool {
        match (self, following) {
            // The last one must reach the end of the tag.
            (_, None) | (Class::Date, _) => true,
            (Class::Integer, Some(Element::Literal(text))) => !text.starts_with(|c: char| c.is_ascii_digit()),
            (Class::Hex | Class::Word, Some(Element::Literal(text))) => {
                !text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            }
            _ => false,
        }
    }

    /// Texts of the class, as different as it allows.
    pub fn sample(&self, n: usize) -> String {
        let of = |values: [&str; 4]| values[n % 4].to_owned();
        match self {
            Class::Integer => of(["0", "7", "10", "123456789012345678901234567890"]),
            Class::Prerelease => of(["rc.1", "alpha", "0a", "beta-2.x"]),
            Class::Platform => of(["linux-amd64", "arm64v8", "linux-arm32v7", "windows-amd64"]),
            Class::Os => of(["linux", "windows", "darwin", "freebsd"]),
            Class::Arch => of(["amd64", "arm64v8", "arm32v7", "s390x"]),
            Class::Hex => of(["0", "deadbeef", "abc123", "1234567890abcdef"]),
            Class::Date => of(["20240615", "19991231", "20260101", "20280229"]),
            Class::Word => of(["alpine", "A_b", "x9", "slim"]),
            Class::Any => of(["a", "z-z", "A.b_c", "0"]),
            Class::Choice(words) => words[n % words.len()].to_string(),
        }
    }

    /// Whether exactly this text, which is not empty and not longer than [`Class::longest`] allows, is of the class.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Class::Integer | Class::Hex | Class::Word | Class::Any => true,
            // `{platform}` wins: what names a platform is no pre-release, although semver would say so.
            Class::Prerelease => is_prerelease(text) && suffix(text).is_none(),
            Class::Platform => suffix(text).is_some(),
            Class::Os => SYSTEMS.contains(&text),
            Class::Arch => {
                !text.contains("linux") && !text.contains("win") && !text.contains("nano") && suffix(text).is_some()
            }
            Class::Date => is_date(text),
            Class::Choice(words) => words.iter().any(|w| &**w == text),
        }
    }

    /// The longest length that a match at the beginning of `rest` can have.
    pub fn longest(&self, rest: &str) -> usize {
        match self {
            // No leading zeros.
            Class::Integer if rest.starts_with('0') => 1,
            Class::Integer => run(rest, |b| b.is_ascii_digit()),
            Class::Prerelease => run(rest, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')),
            Class::Platform | Class::Os | Class::Arch => rest.len().min(SUFFIX_BYTES_MAX),
            Class::Hex => run(rest, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            Class::Date => rest.len().min(8),
            Class::Word => run(rest, |b| b.is_ascii_alphanumeric() || b == b'_'),
            Class::Any => rest.len(),
            Class::Choice(words) => words.iter().map(|w| w.len()).max().unwrap_or(0).min(rest.len()),
        }
    }
}

/// How many bytes at the beginning of a text are good.
fn run(text: &str, good: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|b| !good(b)).unwrap_or(text.len())
}

fn is_integer(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

/// Semver 2.0.0, item 9: identifiers of `[0-9A-Za-z-]`, not empty, numeric ones without leading zeros.
fn is_prerelease(text: &str) -> bool {
    text.split('.').all(|identifier| {
        !identifier.is_empty()
            && identifier.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && (!identifier.bytes().all(|b| b.is_ascii_digit()) || is_integer(identifier))
    })
}

fn is_date(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) && jiff::civil::Date::strptime("%Y%m%d", text).is_ok()
}
