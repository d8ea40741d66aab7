//! Makes text from outside harmless to look at: control, direction and invisible characters become escapes,
//! lengths are bounded, and what a build service would take for a command is broken (T-54, T-61).

/// Most characters of one piece of text. A finding's message is one sentence; 2,000 leave room for a list of
/// platforms and keep a hostile registry's answer from filling the screen.
const TEXT_CHARS_MAX: usize = 2_000;

/// The text with everything that is not plainly visible written as `\u{…}`, cut at a limit.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (n, c) in text.chars().enumerate() {
        if n == TEXT_CHARS_MAX {
            shown.push('…');
            break;
        }
        if hides(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    // Both GitHub's and Azure's agents read `##[command]` and `##vso[command]` anywhere in a line of output.
    if shown.contains("##") {
        shown = shown.replace("##[", "#\\u{23}[").replace("##vso[", "#\\u{23}vso[");
    }
    shown
}

/// Whether a character is a control, sets a direction, or takes no room: what can make text read as other than it is.
pub(super) fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text in ASCII alone, for locales that show nothing else. Our own punctuation has plain forms.
pub(super) fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '…' => plain.push_str("..."),
            '–' | '·' => plain.push('-'),
            '×' => plain.push('x'),
            '“' | '”' => plain.push('"'),
            '‘' | '’' => plain.push('\''),
            c if c.is_ascii() => plain.push(c),
            c => plain.extend(c.escape_unicode()),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t61_what_hides_is_escaped() {
        for (text, shown) in [
            ("plain é ✓", "plain é ✓"),
            ("a\nb\r\tc", "a\\u{a}b\\u{d}\\u{9}c"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("x ##[error]y ##vso[task.x]z", "x #\\u{23}[error]y #\\u{23}vso[task.x]z"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible(&"a".repeat(9_000)).chars().count(), TEXT_CHARS_MAX + 1);
        assert_eq!(ascii("sha256:…–é"), "sha256:...-\\u{e9}");
    }
}
