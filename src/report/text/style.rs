//! How text is set: glyphs with ASCII stand-ins, colours only where asked for, lines broken at words.

use super::super::visible::{ascii, visible};
use super::super::{Options, Standing, WIDTH_MIN};

/// Where the right part of a line begins when there is room: policy names and the hint of the footer align.
const RIGHT_COLUMN: usize = 63;

/// How to set text for one reader.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Style {
    colour: bool,
    unicode: bool,
    /// Columns that may be taken.
    pub(in crate::report) width: usize,
}

/// What a piece of text is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Tone {
    Good,
    Bad,
    Warn,
    Note,
    Heading,
}

/// The signs that text uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Glyph {
    Yes,
    No,
    Warn,
    Unknown,
    Pending,
    Note,
    None,
}

impl Style {
    pub(in crate::report) fn new(options: &Options) -> Style {
        Style { colour: options.colour, unicode: options.unicode, width: options.width.max(WIDTH_MIN) }
    }

    /// Text from outside or from policies, safe to print.
    pub(in crate::report) fn text(&self, text: &str) -> String {
        let shown = visible(text);
        if self.unicode { shown } else { ascii(&shown) }
    }

    pub(in crate::report) fn glyph(&self, glyph: Glyph) -> &'static str {
        match (glyph, self.unicode) {
            (Glyph::Yes, true) => "✓",
            (Glyph::Yes, false) => "+",
            (Glyph::No, true) => "✗",
            (Glyph::No, false) => "x",
            (Glyph::Warn, _) => "!",
            (Glyph::Unknown, _) => "?",
            (Glyph::Pending, true) => "…",
            (Glyph::Pending, false) => "~",
            (Glyph::Note, true) => "·",
            (Glyph::None, true) => "–",
            (Glyph::Note | Glyph::None, false) => "-",
        }
    }

    /// The sign of a finding, coloured.
    pub(in crate::report) fn mark(&self, standing: Standing) -> String {
        let (glyph, tone) = match standing {
            Standing::Critical => (Glyph::No, Tone::Bad),
            Standing::Warning => (Glyph::Warn, Tone::Warn),
            Standing::Error => (Glyph::Unknown, Tone::Warn),
            Standing::Pending => (Glyph::Pending, Tone::Note),
            Standing::Info | Standing::Resolved => (Glyph::Note, Tone::Note),
        };
        self.paint(tone, self.glyph(glyph))
    }

    pub(in crate::report) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Warn => "33",
            Tone::Note => "2",
            Tone::Heading => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Words set into lines of the width: the first goes on after `first` columns, the others begin with
    /// `indent` spaces. A word longer than a line stands on one of its own.
    ///
    /// A line that would begin with `::` begins with its escape: build services take such lines for commands,
    /// however they are indented (T-61).
    pub(in crate::report) fn wrap(&self, text: &str, first: usize, indent: usize) -> String {
        let mut set = String::new();
        let mut column = first;
        let mut empty = true;
        for word in text.split(' ').filter(|w| !w.is_empty()) {
            let len = chars(word);
            if !empty && column + 1 + len > self.width {
                set.push('\n');
                set.push_str(&" ".repeat(indent));
                column = indent;
                empty = true;
            }
            if !empty {
                set.push(' ');
                column += 1;
            }
            match word.strip_prefix("::") {
                Some(rest) if empty => set.extend(["\\u{3a}:", rest]),
                _ => set.push_str(word),
            }
            column += len;
            empty = false;
        }
        set
    }

    /// An indented paragraph, with its line break.
    pub(in crate::report) fn paragraph(&self, text: &str, indent: usize) -> String {
        format!("{}{}\n", " ".repeat(indent), self.wrap(text, indent, indent))
    }

    /// Two parts on one line, the right one at its column where there is room, on a line of its own where
    /// there is none. `left` and `right` are given plain and as painted.
    pub(in crate::report) fn spread(&self, left: (&str, &str), right: (&str, &str)) -> String {
        let (left_len, right_len) = (chars(left.0), chars(right.0));
        let latest = self.width.saturating_sub(right_len);
        let at = RIGHT_COLUMN.min(latest).max(left_len + 3);
        if at > latest {
            return format!("{}\n  {}\n", left.1, right.1);
        }
        format!("{}{}{}\n", left.1, " ".repeat(at - left_len), right.1)
    }

    /// The text cut to a number of columns, with an ellipsis where it was cut.
    pub(in crate::report) fn cut(&self, text: &str, columns: usize) -> String {
        if chars(text) <= columns {
            return text.to_owned();
        }
        let ellipsis = if self.unicode { "…" } else { "..." };
        let kept: String = text.chars().take(columns.saturating_sub(chars(ellipsis))).collect();
        kept + ellipsis
    }
}

/// The columns that a text takes: its characters, for what hides is escaped before.
pub(in crate::report) fn chars(text: &str) -> usize {
    text.chars().count()
}

/// The text filled up with spaces.
pub(in crate::report) fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(chars(text));
    format!("{text}{}", " ".repeat(missing))
}
