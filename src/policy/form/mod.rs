//! Forms of tags: literal text with placeholders, matched on the whole tag, in time linear in its length.
//!
//! `parse` reads what a policy writes, `element` says what each part matches, `walk` matches a tag, and `captures` is
//! what that yields. A tag that a form does not match costs no memory.

mod captures;
mod element;
mod parse;
mod walk;

use std::fmt;
use std::sync::Arc;

use regex::Regex;

pub use captures::{Captured, Captures};
use captures::{Meaning, Names};
use element::Element;
use walk::Walk;

use crate::image::Tag;

/// Longest form or regular expression, in bytes: a tag has at most 128 characters.
pub const FORM_BYTES_MAX: usize = 512;
/// Most elements of one form: the memory of dead ends is one bit for each element and position.
const ELEMENTS_MAX: usize = 32;

/// A compiled form.
#[derive(Debug, Clone)]
pub struct Form {
    text: Arc<str>,
    matcher: Matcher,
    names: Arc<Names>,
}

#[derive(Debug, Clone)]
enum Matcher {
    Elements(Vec<Element>),
    Regex(Box<Regex>),
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

impl Form {
    /// The form as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names that it captures.
    pub fn names(&self) -> &[Arc<str>] {
        self.names.all()
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
                let mut walk = Walk::new(tag.as_str(), elements);
                walk.matches().then(|| walk.captures(tag, &self.names))
            }
            Matcher::Regex(regex) => {
                let found = regex.captures(tag.as_str())?;
                Captures::read(tag, &self.names, |name| found.name(name).map(|m| m.range()))
            }
        }
    }

    /// How many bytes of the tag the form can account for, for hints: the tag leaves the form there.
    pub fn reach(&self, tag: &str) -> usize {
        match &self.matcher {
            Matcher::Elements(elements) => {
                let mut walk = Walk::new(tag, elements);
                walk.matches();
                walk.furthest()
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
                        Element::Capture { class, .. } => class.sample(n),
                    })
                    .collect()
            })
            .collect()
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
