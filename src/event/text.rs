//! Text from senders, bounded before anything keeps or shows it.

/// Longest sender's id that is kept, in bytes: a UUID has 36, the longest seen has 73.
const ID_BYTES_MAX: usize = 256;
/// Longest name of an actor that is kept, in characters.
const ACTOR_CHARS_MAX: usize = 256;
/// Longest quotation in a message, in characters.
const QUOTE_CHARS_MAX: usize = 160;

/// A sender's id of an event: printable ASCII of bounded length. Anything else is no id, because a cut one
/// could equal another's.
pub(super) fn id(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| text.to_owned())
}

/// Who did it, cut to a bounded length, without control characters.
pub(super) fn actor(text: &str) -> Option<String> {
    let kept: String = text.chars().filter(|c| !c.is_control()).take(ACTOR_CHARS_MAX).collect();
    (!kept.is_empty()).then_some(kept)
}

/// `text` on one line of bounded length, for a message.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == QUOTE_CHARS_MAX {
            out.push('…');
            break;
        }
        if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() {
            out.push(c)
        } else {
            out.extend(c.escape_default())
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t21_ids_actors_and_quotations_are_bounded() {
        assert_eq!(id("6f0f9a1e-2f5b").as_deref(), Some("6f0f9a1e-2f5b"));
        for bad in ["", "a b", "a\n", "é", &"x".repeat(257)] {
            assert_eq!(id(bad), None, "{bad:?}");
        }
        assert_eq!(actor("robot$iot+ci\u{1b}[31m\n").as_deref(), Some("robot$iot+ci[31m"));
        assert_eq!(actor("\0\n"), None);
        assert_eq!(actor(&"a".repeat(300)).map(|a| a.len()), Some(256));
        assert_eq!(quote("a\u{202e}\n"), "a\\u{202e}\\n");
        assert_eq!(quote(&"a".repeat(200)).chars().count(), 161);
    }
}
