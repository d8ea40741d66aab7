//! Forms and regular expressions as policies write them.

use std::sync::Arc;

use super::element::{self, Class, Element};
use super::{ELEMENTS_MAX, FORM_BYTES_MAX, Form, FormError, Matcher, Meaning, Names};

/// Largest compiled regular expression, in bytes (threat T-40).
const REGEX_BYTES_MAX: usize = 1 << 20;

/// The placeholders there are, with what each matches, for hints.
const PLACEHOLDERS: &[&str] =
    &["major", "minor", "patch", "build", "prerelease", "platform", "os", "arch", "hex", "date", "word", "any"];

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
        let mut names: Vec<(Arc<str>, Meaning)> = Vec::new();
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
            if names.iter().any(|(n, _)| &**n == name) {
                return fault(
                    format!("`{{{name}}}` occurs twice"),
                    range,
                    Some("each placeholder can be captured once".into()),
                );
            }
            names.push((name.into(), class.meaning()));
            elements.push(Element::Capture { class, is_certain: false });
            at += close + 1;
        }
        if elements.len() > ELEMENTS_MAX {
            return fault(
                format!("the form has {} parts, at most {ELEMENTS_MAX} are allowed", elements.len()),
                whole(),
                None,
            );
        }
        element::settle(&mut elements);
        Ok(Form { text: text.into(), matcher: Matcher::Elements(elements), names: Arc::new(Names::new(names)) })
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
        let names = Names::new(regex.capture_names().flatten().map(|name| (name.into(), Meaning::of(name))));
        Ok(Form { text: text.into(), matcher: Matcher::Regex(Box::new(regex)), names: Arc::new(names) })
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
