//! A text under a name, and places in it.

use std::fmt;
use std::sync::Arc;

/// Longest piece of outside text that a message quotes, in characters: enough to recognise it by, short
/// enough that a message stays one line.
const QUOTED_CHARS_MAX: usize = 80;

/// A text and the name that diagnostics give it: a path as the user wrote it, or `<stdin>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// The name shown before line and column.
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// A byte range of a [`Source`], on character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte; equal to `start` for a place between characters.
    pub end: usize,
}

/// A line and a column, both from 1; the column counts characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// The name and the size: a text may be large, and a configuration's is nobody else's business.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?}, {} bytes)", self.name, self.text.len())
    }
}

impl Source {
    /// A text under a name.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    /// The text of a span; empty where the span does not lie on this text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// Where a byte offset stands. Offsets past the end count as the end.
    pub fn position(&self, offset: usize) -> Position {
        let before = self.before(offset);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        Position {
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].trim_start_matches('\u{feff}').chars().count() + 1,
        }
    }

    /// The text before `offset`, cut back to a character boundary.
    pub(super) fn before(&self, offset: usize) -> &str {
        &self.text[..self.text.floor_char_boundary(offset)]
    }
}

impl Span {
    /// From `start` up to `end`, which is never less.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end: end.max(start) }
    }
}

/// `text` in backticks, for a message: bounded, one line, with control, direction and invisible characters
/// escaped, because it may come from outside (T-61).
pub fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (n, c) in text.chars().enumerate() {
        if n == QUOTED_CHARS_MAX {
            out.push('…');
            break;
        }
        if is_plain(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    out.push('`');
    out
}

/// Whether a character can be shown as it is: no control, no direction mark, nothing invisible.
pub(super) fn is_plain(c: char) -> bool {
    !(c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let source = Source::new("f.yaml", "a: ä\nöb: c\r\nd");
        for (text, line, column) in [("a", 1, 1), ("ä", 1, 4), ("öb", 2, 1), ("c", 2, 5), ("d", 3, 1)] {
            let offset = source.text.find(text).unwrap();
            assert_eq!(source.position(offset), Position { line, column }, "{text}");
        }
        assert_eq!(source.position(1000), Position { line: 3, column: 2 });
        assert_eq!(source.position(4), Position { line: 1, column: 4 }, "inside a character");
    }

    #[test]
    fn t61_quoted_text_is_one_bounded_plain_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m\u{202e}"), "`a\\nb\\u{1b}[31m\\u{202e}`");
        assert!(quoted(&"x".repeat(10_000)).chars().count() < 100);
    }
}
