//! What a form captured from a tag, and what that says of the tag's place among others.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::image::{Platform, Tag, suffix};

/// The captures whose order is the order of versions, the first deciding; the pre-release comes after them.
const RANKED: [&str; 5] = ["major", "minor", "patch", "build", "date"];

/// The names under which a form captures, in its order, and what each means.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Vec<Arc<str>>,
    meanings: Vec<Meaning>,
    /// The places of [`RANKED`], and of the pre-release.
    ranked: [Option<usize>; RANKED.len()],
    prerelease: Option<usize>,
}

/// What a captured text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Integer,
    Prerelease,
    Platform,
    Text,
}

impl Meaning {
    /// What a group of a regular expression means by its name.
    pub fn of(name: &str) -> Meaning {
        match name {
            "major" | "minor" | "patch" | "build" => Meaning::Integer,
            "prerelease" => Meaning::Prerelease,
            "platform" => Meaning::Platform,
            _ => Meaning::Text,
        }
    }
}

impl Names {
    pub fn new(named: impl IntoIterator<Item = (Arc<str>, Meaning)>) -> Names {
        let (names, meanings): (Vec<Arc<str>>, Vec<Meaning>) = named.into_iter().unzip();
        let place = |name: &str| names.iter().position(|n| &**n == name);
        let ranked = RANKED.map(place);
        let prerelease = place("prerelease").filter(|n| meanings[*n] == Meaning::Prerelease);
        Names { names, meanings, ranked, prerelease }
    }

    pub fn all(&self) -> &[Arc<str>] {
        &self.names
    }
}

/// What a form captured from a tag: where in it each value stands.
#[derive(Debug, Clone)]
pub struct Captures {
    tag: Tag,
    names: Arc<Names>,
    /// For each name its value's place; `None` where an alternative without it matched.
    values: Box<[Option<Place>]>,
    platform: Option<Platform>,
}

/// Where in a tag a value stands: a tag has at most 128 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub from: u8,
    pub to: u8,
}

impl From<Range<usize>> for Place {
    fn from(range: Range<usize>) -> Place {
        let byte = |at: usize| u8::try_from(at).unwrap_or(u8::MAX);
        Place { from: byte(range.start), to: byte(range.end) }
    }
}

/// One captured value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Captured<'a> {
    /// Decimal digits without leading zeros.
    Integer(&'a str),
    /// Semver pre-release identifiers.
    Prerelease(&'a str),
    /// A platform that a suffix stands for.
    Platform(&'a Platform),
    /// Any other text.
    Text(&'a str),
}

impl<'a> Captured<'a> {
    /// The text that two tags must share.
    pub fn text(&self) -> Cow<'a, str> {
        match self {
            Captured::Platform(platform) => platform.to_string().into(),
            Captured::Integer(text) | Captured::Prerelease(text) | Captured::Text(text) => (*text).into(),
        }
    }
}

impl Captures {
    /// What the elements of a form captured, in its order.
    pub(super) fn new(
        tag: &Tag,
        names: &Arc<Names>,
        values: Box<[Option<Place>]>,
        platform: Option<Platform>,
    ) -> Captures {
        Captures { tag: tag.clone(), names: names.clone(), values, platform }
    }

    /// What the groups of a regular expression captured. `None` where a text is not what the name means: the tag then
    /// does not match.
    pub(super) fn read(
        tag: &Tag,
        names: &Arc<Names>,
        group: impl Fn(&str) -> Option<Range<usize>>,
    ) -> Option<Captures> {
        let mut values = Vec::with_capacity(names.all().len());
        let mut platform = None;
        for (name, meaning) in names.all().iter().zip(&names.meanings) {
            let Some(mut range) = group(name) else {
                values.push(None);
                continue;
            };
            let text = &tag.as_str()[range.clone()];
            match meaning {
                Meaning::Integer => {
                    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                        return None;
                    }
                    let zeros = text.bytes().take_while(|b| *b == b'0').count();
                    range.start += zeros.min(text.len() - 1);
                }
                Meaning::Platform => platform = Some(suffix(text)?),
                Meaning::Prerelease | Meaning::Text => {}
            }
            values.push(Some(range.into()));
        }
        Some(Captures { tag: tag.clone(), names: names.clone(), values: values.into(), platform })
    }

    /// The value captured under a name.
    pub fn get(&self, name: &str) -> Option<Captured<'_>> {
        self.value(self.names.all().iter().position(|n| &**n == name)?)
    }

    /// All captures, in the order of the form.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Captured<'_>)> {
        self.names.all().iter().enumerate().filter_map(|(n, name)| Some((&**name, self.value(n)?)))
    }

    /// The platform captured, if the form has one.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    fn text(&self, n: usize) -> Option<&str> {
        let place = self.values[n]?;
        Some(&self.tag.as_str()[usize::from(place.from)..usize::from(place.to)])
    }

    fn value(&self, n: usize) -> Option<Captured<'_>> {
        let text = self.text(n)?;
        Some(match self.names.meanings[n] {
            Meaning::Integer => Captured::Integer(text),
            Meaning::Prerelease => Captured::Prerelease(text),
            Meaning::Platform => Captured::Platform(self.platform()?),
            Meaning::Text => Captured::Text(text),
        })
    }

    /// Bytes that are equal exactly when the captures of these names are: what two tags of a relation share. None where
    /// nothing is shared, and all tags of a line are one group.
    pub fn group(&self, names: &[Arc<str>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 * names.len());
        for name in names {
            match self.get(name) {
                Some(Captured::Integer(t) | Captured::Prerelease(t) | Captured::Text(t)) => field(&mut out, t),
                Some(Captured::Platform(p)) => field(&mut out, &p.to_string()),
                None => out.push(0xff),
            }
        }
        out
    }

    /// Bytes whose order is the order of versions: `major`, `minor`, `patch`, `build` as integers of any
    /// length, then `date`, then the pre-release by semver precedence (semver 2.0.0, item 11), absent highest.
    pub fn rank(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        for place in self.names.ranked {
            match place.and_then(|n| self.text(n)) {
                Some(text) => field(&mut out, text),
                None => out.push(0),
            }
        }
        match self.names.prerelease.and_then(|n| self.text(n)) {
            Some(text) => {
                out.push(1);
                for identifier in text.split('.') {
                    if identifier.bytes().all(|b| b.is_ascii_digit()) {
                        out.push(1);
                        field(&mut out, identifier);
                    } else {
                        out.push(2);
                        out.extend_from_slice(identifier.as_bytes());
                        out.push(0);
                    }
                }
                out.push(0);
            }
            None => out.push(0xff),
        }
        out
    }
}

/// Length, then bytes: for digits without leading zeros, byte order is then numeric order. A tag has at most
/// 128 characters, so the length fits.
fn field(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX - 1));
    out.extend_from_slice(text.as_bytes());
}
