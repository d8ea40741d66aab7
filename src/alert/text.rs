//! Text from outside in messages: what cannot be seen is shown as an escape, markup is disarmed, and a text
//! is cut where it still is whole (T-54). Pure.

/// Writes one character so that the sink's markup does not act on it.
pub type Escape = fn(char, &mut String);

/// `text` in at most `units_max` UTF-16 units, the measure that chat services count in and never less than
/// the number of characters. Invisible and direction characters become `\u{…}`; an escape is never cut in two;
/// a text that was cut ends in `…`.
pub fn fit(text: &str, units_max: usize, escape: Escape) -> String {
    let mut out = String::new();
    let (mut used, mut cut_at) = (0, 0);
    let mut piece = String::new();
    for c in text.chars() {
        piece.clear();
        if is_hidden(c) {
            c.escape_unicode().for_each(|e| escape(e, &mut piece));
        } else {
            escape(c, &mut piece);
        }
        let units = piece.encode_utf16().count();
        if used + units > units_max {
            out.truncate(cut_at);
            out.push('…');
            return out;
        }
        out.push_str(&piece);
        used += units;
        if used < units_max {
            cut_at = out.len();
        }
    }
    out
}

/// For fields that have no markup.
pub fn plain(c: char, out: &mut String) {
    out.push(c);
}

/// Whether a character shows nothing, breaks the line, or changes the direction of what is around it:
/// control and format characters, fillers, variation selectors and tag characters (Unicode 16).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entity(c: char, out: &mut String) {
        if c == '<' { out.push_str("&lt;") } else { out.push(c) }
    }

    #[test]
    fn t54_hidden_characters_are_shown() {
        assert_eq!(fit("a\u{202e}b\n\u{200b}", 100, plain), "a\\u{202e}b\\u{a}\\u{200b}");
        assert_eq!(fit("héllo 日本 😀", 100, plain), "héllo 日本 😀");
    }

    #[test]
    fn t54_cuts_between_characters_and_escapes() {
        assert_eq!(fit("abcdef", 6, plain), "abcdef");
        assert_eq!(fit("abcdefg", 6, plain), "abcde…");
        assert_eq!(fit("ab<", 5, entity), "ab…");
        assert_eq!(fit("😀😀😀", 5, plain), "😀😀…");
        assert_eq!(fit("a\u{202e}", 4, plain), "a…");
    }

    proptest! {
        #[test]
        fn t54_never_over_the_limit_and_stable(text in "\\PC*|[<\u{202e}a😀]{0,40}", max in 1_usize..60) {
            let once = fit(&text, max, plain);
            prop_assert!(once.encode_utf16().count() <= max);
            prop_assert!(!once.chars().any(is_hidden));
            prop_assert_eq!(fit(&once, max, plain), once);
            prop_assert!(fit(&text, max, entity).encode_utf16().count() <= max);
        }
    }
}
