//! Forms of tags: literal text with placeholders, matched on the whole tag, in time linear in its length.
//!
//! A form is a sequence of elements. Matching tries each element's possible ends, longest first, and
//! remembers which (element, position) pairs lead nowhere, so that no pair is tried twice: the cost is
//! bounded by elements × length, whatever the form.

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use crate::image::{Platform, Tag, suffix};

/// Longest form or regular expression, in bytes: a tag has at most 128 characters.
pub const FORM_BYTES_MAX: usize = 512;
/// Largest compiled regular expression, in bytes (threat T-40).
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Most elements of one form: the memory of dead ends is one bit for each element and position.
const ELEMENTS_MAX: usize = 32;
/// Longest suffix that stands for a platform, in bytes, with room for new ones.
const SUFFIX_BYTES_MAX: usize = 32;

/// A compiled form.
#[derive(Debug, Clone)]
pub struct Form {
    text: Arc<str>,
    matcher: Matcher,
    names: Vec<Arc<str>>,
}

#[derive(Debug, Clone)]
enum Matcher {
    Elements(Vec<Element>),
    Regex(Box<Regex>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    Literal(Box<str>),
    /// An integer, `hex`, `word`, … captured under the placeholder's name, by its place in `names`.
    Capture(usize, Class),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
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

/// Why a text is no form. The range is in bytes of the form's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FormError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub range: std::ops::Range<usize>,
    /// What would be right.
    pub help: Option<String>,
}

/// The placeholders there are, with what each matches, for hints.
const PLACEHOLDERS: &[&str] =
    &["major", "minor", "patch", "build", "prerelease", "platform", "os", "arch", "hex", "date", "word", "any"];

/// Operating systems that `{os}` matches.
const SYSTEMS: &[&str] = &["linux", "windows", "darwin", "freebsd"];

/// What a form captured from a tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captures {
    values: Vec<(Arc<str>, Captured)>,
}

/// One captured value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Captured {
    /// Decimal digits without leading zeros.
    Integer(Box<str>),
    /// Semver pre-release identifiers.
    Prerelease(Box<str>),
    /// A platform that a suffix stands for.
    Platform(Platform),
    /// Any other text.
    Text(Box<str>),
}

impl Captured {
    /// The text that two tags must share.
    pub fn text(&self) -> String {
        match self {
            Captured::Platform(platform) => platform.to_string(),
            Captured::Integer(text) | Captured::Prerelease(text) | Captured::Text(text) => text.to_string(),
        }
    }
}

impl Captures {
    /// The value captured under a name.
    pub fn get(&self, name: &str) -> Option<&Captured> {
        self.values.iter().find(|(n, _)| &**n == name).map(|(_, v)| v)
    }

    /// All captures, in the order of the form.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Captured)> {
        self.values.iter().map(|(n, v)| (&**n, v))
    }

    /// The platform captured, if the form has one.
    pub fn platform(&self) -> Option<&Platform> {
        self.values.iter().find_map(|(_, v)| match v {
            Captured::Platform(platform) => Some(platform),
            _ => None,
        })
    }

    /// Bytes that are equal exactly when the captures of these names are: what two tags of a relation share.
    pub fn group(&self, names: &[Arc<str>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        for name in names {
            if let Some(value) = self.get(name) {
                match value {
                    Captured::Integer(t) | Captured::Prerelease(t) | Captured::Text(t) => field(&mut out, t),
                    Captured::Platform(p) => field(&mut out, &p.to_string()),
                }
            } else {
                out.push(0xff);
            }
        }
        out
    }

    /// Bytes whose order is the order of versions: `major`, `minor`, `patch`, `build` as integers of any
    /// length, then `date`, then the pre-release by semver precedence (semver 2.0.0, item 11), absent highest.
    pub fn rank(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        for name in ["major", "minor", "patch", "build", "date"] {
            match self.get(name) {
                Some(Captured::Integer(t) | Captured::Text(t)) => field(&mut out, t),
                _ => out.push(0),
            }
        }
        match self.get("prerelease") {
            Some(Captured::Prerelease(text)) => {
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
            _ => out.push(0xff),
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

impl Form {
    /// Compiles a form.
    ///
    /// # Errors
    /// An unknown or repeated placeholder, an unclosed brace, text that no tag can contain, too long a form.
    pub fn parse(text: &str) -> Result<Form, FormError> {
        let whole = || 0..text.len();
        let fault = |message: String, range, help: Option<String>| Err(FormError { message, range, help });
        if text.is_empty() {
            return fault("an empty form matches no tag".into(), whole(), None);
        }
        if text.len() > FORM_BYTES_MAX {
            return fault(
                format!("the form has {} bytes, at most {FORM_BYTES_MAX} are allowed", text.len()),
                whole(),
                None,
            );
        }
        let mut elements: Vec<Element> = Vec::new();
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if !rest.starts_with('{') {
                let end = rest.find('{').unwrap_or(rest.len());
                let literal = &rest[..end];
                if let Some(bad) = literal.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')))
                {
                    let c = literal[bad..].chars().next().unwrap_or('?');
                    return fault(
                        format!("`{}` never occurs in a tag", c.escape_default()),
                        at + bad..at + bad + c.len_utf8(),
                        Some("tags consist of letters, digits, `_`, `.` and `-`; placeholders stand in braces, as in `{major}`".into()),
                    );
                }
                elements.push(Element::Literal(literal.into()));
                at += end;
                continue;
            }
            let Some(close) = rest.find('}') else {
                return fault("the brace is not closed".into(), at..text.len(), Some("write `{major}`".into()));
            };
            let inner = &rest[1..close];
            let range = at..at + close + 1;
            let (name, class) = match inner.split_once(':') {
                Some((name, words)) => {
                    if !is_name(name) {
                        return fault(
                            format!("`{name}` cannot name a capture"),
                            range,
                            Some("use letters and digits, as in `{variant:alpine|slim}`".into()),
                        );
                    }
                    let mut words: Vec<Box<str>> = words.split('|').map(Into::into).collect();
                    let bad = words.iter().find(|w| {
                        w.is_empty() || !w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
                    });
                    if let Some(bad) = bad {
                        return fault(
                            format!("`{bad}` cannot be part of a tag"),
                            range,
                            Some("list words separated by `|`, as in `{variant:alpine|slim}`".into()),
                        );
                    }
                    // Longest first, so that `a|ab` reads `ab` where it can.
                    words.sort_by_key(|w| std::cmp::Reverse(w.len()));
                    (name, Class::Choice(words))
                }
                None => (
                    inner,
                    match inner {
                        "major" | "minor" | "patch" | "build" => Class::Integer,
                        "prerelease" => Class::Prerelease,
                        "platform" => Class::Platform,
                        "os" => Class::Os,
                        "arch" => Class::Arch,
                        "hex" => Class::Hex,
                        "date" => Class::Date,
                        "word" => Class::Word,
                        "any" => Class::Any,
                        _ => {
                            let near = PLACEHOLDERS
                                .iter()
                                .max_by(|a, b| {
                                    strsim::jaro_winkler(inner, a).total_cmp(&strsim::jaro_winkler(inner, b))
                                })
                                .filter(|p| strsim::jaro_winkler(inner, p) > 0.7);
                            let help = near.map_or_else(
                                || {
                                    format!(
                                        "placeholders are {}",
                                        PLACEHOLDERS
                                            .iter()
                                            .map(|p| format!("`{{{p}}}`"))
                                            .collect::<Vec<_>>()
                                            .join(", ")
                                    )
                                },
                                |p| format!("did you mean `{{{p}}}`?"),
                            );
                            return fault(format!("unknown placeholder `{{{inner}}}`"), range, Some(help));
                        }
                    },
                ),
            };
            if names.iter().any(|n| &**n == name) {
                return fault(
                    format!("`{{{name}}}` occurs twice"),
                    range,
                    Some("each placeholder can be captured once".into()),
                );
            }
            elements.push(Element::Capture(names.len(), class));
            names.push(name.into());
            at += close + 1;
        }
        if elements.len() > ELEMENTS_MAX {
            return fault(
                format!("the form has {} parts, at most {ELEMENTS_MAX} are allowed", elements.len()),
                whole(),
                None,
            );
        }
        Ok(Form { text: text.into(), matcher: Matcher::Elements(elements), names })
    }

    /// Compiles a regular expression with named groups; it must match the whole tag.
    ///
    /// # Errors
    /// A syntax error, or an expression that compiles to more than a mebibyte.
    pub fn regex(text: &str) -> Result<Form, FormError> {
        let fault = |message: String, help: Option<String>| FormError { message, range: 0..text.len(), help };
        if text.len() > FORM_BYTES_MAX {
            return Err(fault(
                format!("the expression has {} bytes, at most {FORM_BYTES_MAX} are allowed", text.len()),
                None,
            ));
        }
        let regex = regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(REGEX_BYTES_MAX).build().map_err(
            |e| match e {
                regex::Error::CompiledTooBig(limit) => fault(
                    format!("the expression compiles to more than {limit} bytes"),
                    Some("use smaller repetitions".into()),
                ),
                other => fault(
                    format!(
                        "not a regular expression: {}",
                        other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")
                    ),
                    None,
                ),
            },
        )?;
        let names = regex.capture_names().flatten().map(Into::into).collect();
        Ok(Form { text: text.into(), matcher: Matcher::Regex(Box::new(regex)), names })
    }

    /// The form as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names that it captures.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Whether the form is one literal tag, such as `latest`.
    pub fn literal(&self) -> Option<&str> {
        match &self.matcher {
            Matcher::Elements(elements) => match elements.as_slice() {
                [Element::Literal(text)] => Some(text),
                _ => None,
            },
            Matcher::Regex(_) => None,
        }
    }

    /// Matches the whole tag.
    pub fn captures(&self, tag: &Tag) -> Option<Captures> {
        match &self.matcher {
            Matcher::Elements(elements) => {
                let mut walk = Walk::new(tag.as_str(), elements, self.names.len());
                walk.from(0, 0).then(|| walk.captures(&self.names))
            }
            Matcher::Regex(regex) => {
                let found = regex.captures(tag.as_str())?;
                let mut values = Vec::with_capacity(self.names.len());
                for name in &self.names {
                    let Some(text) = found.name(name).map(|m| m.as_str()) else { continue };
                    values.push((name.clone(), regex_capture(name, text)?));
                }
                Some(Captures { values })
            }
        }
    }

    /// How many bytes of the tag the form can account for, for hints: the tag leaves the form there.
    pub fn reach(&self, tag: &str) -> usize {
        match &self.matcher {
            Matcher::Elements(elements) => {
                let mut walk = Walk::new(tag, elements, self.names.len());
                walk.from(0, 0);
                walk.furthest
            }
            Matcher::Regex(_) => 0,
        }
    }

    /// Tags that the form matches, as different from each other as it allows, for the linter's question
    /// whether an earlier class always wins. Empty for regular expressions.
    pub fn samples(&self) -> Vec<String> {
        let Matcher::Elements(elements) = &self.matcher else { return Vec::new() };
        (0..4)
            .map(|n| {
                elements
                    .iter()
                    .map(|element| match element {
                        Element::Literal(text) => text.to_string(),
                        Element::Capture(_, class) => class.sample(n),
                    })
                    .collect()
            })
            .collect()
    }
}

impl Class {
    fn sample(&self, n: usize) -> String {
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

    /// Whether exactly this text is of the class.
    fn matches(&self, text: &str) -> bool {
        match self {
            Class::Integer => is_integer(text),
            // `{platform}` wins: what names a platform is no pre-release, although semver would say so.
            Class::Prerelease => is_prerelease(text) && suffix(text).is_none(),
            Class::Platform => suffix(text).is_some(),
            Class::Os => SYSTEMS.contains(&text),
            Class::Arch => {
                !text.contains("linux") && !text.contains("win") && !text.contains("nano") && suffix(text).is_some()
            }
            Class::Hex => !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            Class::Date => is_date(text),
            Class::Word => !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            Class::Any => !text.is_empty(),
            Class::Choice(words) => words.iter().any(|w| &**w == text),
        }
    }

    /// The longest length that a match at the beginning of `rest` can have.
    fn longest(&self, rest: &str) -> usize {
        let run = |good: fn(u8) -> bool| rest.bytes().take_while(|b| good(*b)).count();
        match self {
            Class::Integer => {
                if rest.starts_with('0') {
                    1
                } else {
                    run(|b| b.is_ascii_digit())
                }
            }
            Class::Prerelease => run(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')),
            Class::Platform | Class::Os | Class::Arch => rest.len().min(SUFFIX_BYTES_MAX),
            Class::Hex => run(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            Class::Date => rest.len().min(8),
            Class::Word => run(|b| b.is_ascii_alphanumeric() || b == b'_'),
            Class::Any => rest.len(),
            Class::Choice(words) => words.iter().map(|w| w.len()).max().unwrap_or(0).min(rest.len()),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
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

/// Reads what a regular expression captured, by the name of its group. `None` where the text is not what
/// the name means: the tag then does not match.
fn regex_capture(name: &str, text: &str) -> Option<Captured> {
    Some(match name {
        "major" | "minor" | "patch" | "build" => {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let digits = text.trim_start_matches('0');
            Captured::Integer(if digits.is_empty() { "0" } else { digits }.into())
        }
        "prerelease" => Captured::Prerelease(text.into()),
        "platform" => Captured::Platform(suffix(text)?),
        _ => Captured::Text(text.into()),
    })
}

/// One attempt to match a tag.
struct Walk<'a> {
    text: &'a str,
    elements: &'a [Element],
    /// The ranges captured so far, by place in the form's names.
    ranges: Vec<std::ops::Range<usize>>,
    /// For each element, the positions (0 to 128) from which it is known to lead nowhere.
    dead: Vec<[u64; 3]>,
    furthest: usize,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str, elements: &'a [Element], captures: usize) -> Walk<'a> {
        Walk { text, elements, ranges: vec![0..0; captures], dead: Vec::new(), furthest: 0 }
    }

    /// Whether the elements from `element` on match the text from `at` on, to its end. Recursion is at most
    /// `ELEMENTS_MAX` deep.
    fn from(&mut self, element: usize, at: usize) -> bool {
        self.furthest = self.furthest.max(at);
        let elements = self.elements;
        let Some(next) = elements.get(element) else { return at == self.text.len() };
        let rest = &self.text[at..];
        match next {
            Element::Literal(text) => {
                if rest.starts_with(&**text) {
                    return self.from(element + 1, at + text.len());
                }
                let common = rest.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
                self.furthest = self.furthest.max(at + common);
                false
            }
            Element::Capture(slot, class) => {
                if self.is_dead(element, at) {
                    return false;
                }
                let is_last = element + 1 == elements.len();
                let longest = class.longest(rest);
                // The last element must reach the end of the tag.
                let shortest = if is_last { rest.len() } else { 1 };
                for length in (shortest.max(1)..=longest).rev() {
                    if class.matches(&rest[..length]) {
                        self.ranges[*slot] = at..at + length;
                        if self.from(element + 1, at + length) {
                            return true;
                        }
                    }
                }
                if is_last {
                    self.furthest = self.furthest.max(at + longest);
                }
                self.mark_dead(element, at);
                false
            }
        }
    }

    fn is_dead(&self, element: usize, at: usize) -> bool {
        self.dead.get(element).is_some_and(|bits| bits.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0))
    }

    fn mark_dead(&mut self, element: usize, at: usize) {
        if self.dead.len() <= element {
            self.dead.resize(self.elements.len(), [0; 3]);
        }
        if let Some(word) = self.dead[element].get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn captures(&self, names: &[Arc<str>]) -> Captures {
        let mut values = Vec::with_capacity(names.len());
        for element in self.elements {
            let Element::Capture(slot, class) = element else { continue };
            let text = &self.text[self.ranges[*slot].clone()];
            let captured = match class {
                Class::Integer => Captured::Integer(text.into()),
                Class::Prerelease => Captured::Prerelease(text.into()),
                Class::Platform => match suffix(text) {
                    Some(platform) => Captured::Platform(platform),
                    None => continue,
                },
                _ => Captured::Text(text.into()),
            };
            values.push((names[*slot].clone(), captured));
        }
        Captures { values }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn matches(form: &str, text: &str) -> bool {
        Form::parse(form).unwrap().captures(&tag(text)).is_some()
    }

    const VERSION: &str = "{major}.{minor}.{patch}";

    #[test]
    fn v01_v18_version_forms() {
        for (text, good) in [
            ("1.2.3", true),
            ("0.0.0", true),
            ("99999999999999999999.0.0", true),
            ("01.2.3", false),
            ("1.02.3", false),
            ("v1.2.3", false),
            ("1.2.3.4", false),
            ("1.2.3-rc.1", false),
            ("1.2", false),
            ("2024.06.15", false),
            ("2026.3.0", true),
        ] {
            assert_eq!(matches(VERSION, text), good, "{text}");
        }
    }

    #[test]
    fn v15_v16_prerelease_forms_and_platforms_win() {
        let form = "{major}.{minor}.{patch}-{prerelease}";
        for (text, good) in [
            ("1.2.3-rc.1", true),
            ("1.2.3-0a", true),
            ("1.2.3--1", true),
            ("1.2.3-", false),
            ("1.2.3-rc..1", false),
            ("1.2.3-01", false),
            ("1.2.3-linux-arm32v7", false),
            ("1.2.3-amd64", false),
        ] {
            assert_eq!(matches(form, text), good, "{text}");
        }
        let platform = Form::parse("{major}.{minor}.{patch}-{platform}").unwrap();
        let captures = platform.captures(&tag("1.2.3-linux-arm32v7")).unwrap();
        assert_eq!(captures.platform().unwrap().to_string(), "linux/arm/v7");
        assert!(platform.captures(&tag("1.2.3-rc.1")).is_none());
    }

    #[test]
    fn other_placeholders() {
        for (form, text, good) in [
            ("{date}", "20240615", true),
            ("{date}", "20240230", false),
            ("{date}.{build}", "20240615.1", true),
            ("sha-{hex}", "sha-deadbeef", true),
            ("sha-{hex}", "sha-DEADBEEF", false),
            ("{major}.{minor}-{variant:alpine|slim}", "1.2-alpine", true),
            ("{major}.{minor}-{variant:alpine|slim}", "1.2-debian", false),
            ("{word}-{any}", "feature-x.y-z", true),
            ("latest", "Latest", false),
            ("{major}.{minor}.{patch}-{os}-{arch}", "1.2.3-linux-arm32v7", true),
        ] {
            assert_eq!(matches(form, text), good, "{form} {text}");
        }
    }

    #[test]
    fn faults_say_what_would_be_right() {
        for (form, message, help) in [
            ("{minr}", "unknown placeholder `{minr}`", "did you mean `{minor}`?"),
            ("{major", "the brace is not closed", "write `{major}`"),
            ("{major}+{build}", "`+` never occurs in a tag", "tags consist"),
            ("{major}.{major}", "`{major}` occurs twice", "once"),
        ] {
            let error = Form::parse(form).unwrap_err();
            assert_eq!(error.message, message);
            assert!(error.help.unwrap().contains(help));
        }
        assert!(Form::regex("(?<major>[0-9]+").is_err());
        assert!(Form::regex("((a{1000}){1000}){10}").is_err());
    }

    #[test]
    fn ranks_follow_semver_precedence() {
        let form = Form::parse("{major}.{minor}.{patch}").unwrap();
        let pre = Form::parse("{major}.{minor}.{patch}-{prerelease}").unwrap();
        let rank = |text: &str| form.captures(&tag(text)).or_else(|| pre.captures(&tag(text))).unwrap().rank();
        let ordered = [
            "0.9.99",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.9",
            "1.0.10",
            "2.0.0",
            "10.0.0",
            "99999999999999999999.0.0",
            "100000000000000000000.0.0",
        ];
        for pair in ordered.windows(2) {
            assert!(rank(pair[0]) < rank(pair[1]), "{} < {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn t40_matching_is_bounded_for_any_form() {
        let form = Form::parse("{a:x|xx}{b:x|xx}{c:x|xx}{d:x|xx}{word}{e:x|xx}{any}{f:x|xx}{hex}").unwrap();
        let text = "x".repeat(128);
        assert!(form.captures(&tag(&text)).is_none());
    }

    proptest! {
        #[test]
        fn ranks_agree_with_the_semver_crate_of_reference(
            a in (0u64..20, 0u64..20, 0u64..20, "(|[a-z]{1,3}|[0-9a-z-]{1,3}\\.[1-9][0-9]?)"),
            b in (0u64..20, 0u64..20, 0u64..20, "(|[a-z]{1,3}|[0-9a-z-]{1,3}\\.[1-9][0-9]?)"),
        ) {
            let text = |v: &(u64, u64, u64, String)| if v.3.is_empty() { format!("{}.{}.{}", v.0, v.1, v.2) } else { format!("{}.{}.{}-{}", v.0, v.1, v.2, v.3) };
            let forms = [Form::parse("{major}.{minor}.{patch}").unwrap(), Form::parse("{major}.{minor}.{patch}-{prerelease}").unwrap()];
            let rank = |t: &str| t.parse::<Tag>().ok().and_then(|t| forms.iter().find_map(|f| f.captures(&t))).map(|c| c.rank());
            if let (Some(ra), Some(rb), Ok(sa), Ok(sb)) = (rank(&text(&a)), rank(&text(&b)), semver::Version::parse(&text(&a)), semver::Version::parse(&text(&b))) {
                prop_assert_eq!(ra.cmp(&rb), sa.cmp_precedence(&sb));
            }
        }

        #[test]
        fn t08_no_form_and_no_tag_panics(form in "\\PC{0,40}|(\\{(major|minor|any|word|hex|platform|x:a\\|b)\\}|[.a-z-]){0,8}", text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            if let (Ok(form), Ok(tag)) = (Form::parse(&form), text.parse::<Tag>()) {
                let _ = form.captures(&tag);
                let _ = form.reach(&text);
                for sample in form.samples() {
                    if let Ok(sample) = sample.parse::<Tag>() { let _ = form.captures(&sample); }
                }
            }
            let _ = Form::regex(&text);
        }
    }
}
