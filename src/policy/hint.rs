//! Near misses: what somebody meant by a tag that has none of the forms.

use super::form::Form;
use super::set::Policy;
use crate::image::{Tag, suffix};

/// What to say of such a tag.
pub(super) struct Hint {
    /// What is amiss, as the end of a sentence.
    pub says: String,
    /// What to do.
    pub advice: String,
    /// The forms that the policy knows.
    pub forms: Vec<String>,
}

/// The nearest form, and where the tag leaves it.
pub(super) fn near_miss(policy: &Policy, tag: &str) -> Hint {
    let forms: Vec<&Form> = policy.classes.iter().flat_map(|c| &c.forms).collect();
    let names = forms.iter().map(|f| f.as_str().to_owned()).collect();
    let fits = |text: &str| text.parse::<Tag>().is_ok_and(|t| forms.iter().any(|f| f.captures(&t).is_some()));
    let mended = |says: String, right: String| Hint {
        says,
        advice: format!("Push it as `{right}` and delete `{tag}`."),
        forms: names_of(&forms),
    };

    if let Some(rest) = tag.strip_prefix(['v', 'V']).filter(|rest| fits(rest)) {
        return mended(format!("drop the `{}`", &tag[..1]), rest.to_owned());
    }
    let lower = tag.to_ascii_lowercase();
    if lower != tag && fits(&lower) {
        return mended("tags are case-sensitive".to_owned(), lower);
    }
    let unpadded = without_leading_zeros(tag);
    if unpadded != tag && fits(&unpadded) {
        return mended("a number has a leading zero".to_owned(), unpadded);
    }
    let zeros: String = tag.chars().map(|c| if c == 'O' || c == 'o' { '0' } else { c }).collect();
    if zeros != tag && fits(&zeros) {
        return mended("the letter O stands where the digit 0 belongs".to_owned(), zeros);
    }
    let parts: Vec<&str> = tag.split('.').collect();
    let numeric = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    if parts.iter().all(numeric) && parts.len() > 3 && fits(&parts[..3].join(".")) {
        return mended(format!("{} parts; a version has three", in_words(parts.len())), parts[..3].join("."));
    }
    if parts.len() > 1
        && parts.iter().any(|p| matches!(*p, "x" | "X"))
        && parts.iter().all(|p| numeric(p) || matches!(*p, "x" | "X"))
    {
        return Hint {
            says: "a version has numbers in all its parts".to_owned(),
            advice: format!("Push it under the version it is, and delete `{tag}`."),
            forms: names,
        };
    }
    // The version with a suffix that begins with something else than `-`.
    for (at, _) in tag.match_indices(['.', '_']) {
        let dashed = format!("{}-{}", &tag[..at], &tag[at + 1..]);
        if suffix(&tag[at + 1..]).is_some() && fits(&dashed) {
            return mended("the suffix begins with `-`".to_owned(), dashed);
        }
    }
    for (at, _) in tag.match_indices('-') {
        let turned = format!("{}-{}", &tag[at + 1..], &tag[..at]);
        if suffix(&tag[..at]).is_some() && fits(&turned) {
            return mended("the version comes first, the platform after it".to_owned(), turned);
        }
    }
    let nearest =
        forms.iter().map(|f| (f.reach(tag), f)).max_by_key(|(reach, _)| *reach).filter(|(reach, _)| *reach > 0);
    let says = match nearest {
        Some((reach, form)) if reach < tag.len() => {
            format!("the nearest is `{form}`, which it leaves at `{}` (character {})", &tag[reach..], reach + 1)
        }
        Some((_, form)) => format!("the nearest is `{form}`, which goes on after it"),
        None => format!("they are `{}`", names_of(&forms).join("`, `")),
    };
    Hint { says, advice: format!("Push it under a tag of one of the forms, and delete `{tag}`."), forms: names }
}

fn names_of(forms: &[&Form]) -> Vec<String> {
    forms.iter().map(|f| f.as_str().to_owned()).collect()
}

fn in_words(n: usize) -> String {
    match n {
        4 => "four".to_owned(),
        5 => "five".to_owned(),
        6 => "six".to_owned(),
        n => n.to_string(),
    }
}

/// Every run of digits without its leading zeros.
fn without_leading_zeros(tag: &str) -> String {
    let mut out = String::with_capacity(tag.len());
    let mut in_number = false;
    let bytes = tag.as_bytes();
    for (n, c) in tag.char_indices() {
        let leading = !in_number && c == '0' && bytes.get(n + 1).is_some_and(u8::is_ascii_digit);
        if leading {
            continue;
        }
        in_number = c.is_ascii_digit();
        out.push(c);
    }
    out
}
