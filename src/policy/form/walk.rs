//! Matching a tag against the elements of a form.
//!
//! Nearly always each element can end in one place only, and a walk goes straight through. Where an element can end in
//! several, they are tried, longest first, and it is remembered from which positions it leads nowhere, so that none is
//! tried twice: the cost is bounded, whatever the form.

use std::sync::Arc;

use super::ELEMENTS_MAX;
use super::captures::{Captures, Names, Place};
use super::element::{Class, Element};
use crate::image::{Platform, Tag, suffix};

/// One attempt to match a text.
pub(super) struct Walk<'a> {
    text: &'a str,
    elements: &'a [Element],
    /// Where each element ends, as far as the walk has come: the next one begins there. A tag has at most 128 bytes.
    ends: [u8; ELEMENTS_MAX],
    /// What `{platform}` matched: a form has at most one.
    platform: Option<Platform>,
    /// For each element, the positions (0 to 128) from which it is known to lead nowhere.
    dead: Vec<[u64; 3]>,
    furthest: usize,
}

impl<'a> Walk<'a> {
    pub fn new(text: &'a str, elements: &'a [Element]) -> Walk<'a> {
        Walk { text, elements, ends: [0; ELEMENTS_MAX], platform: None, dead: Vec::new(), furthest: 0 }
    }

    /// Whether the elements match the whole text.
    pub fn matches(&mut self) -> bool {
        self.from(0, 0)
    }

    /// How much of the text the elements can account for, at best.
    pub fn furthest(&self) -> usize {
        self.furthest
    }

    /// What a walk that matched a tag captured.
    pub fn captures(self, tag: &Tag, names: &Arc<Names>) -> Captures {
        let mut values = Vec::with_capacity(names.all().len());
        let mut from = 0;
        for (element, to) in self.elements.iter().zip(self.ends) {
            if let Element::Capture { .. } = element {
                values.push(Some(Place { from, to }));
            }
            from = to;
        }
        Captures::new(tag, names, values.into(), self.platform)
    }

    /// Whether the elements from `element` on match the text from `at` on, to its end. Recursion is at most
    /// `ELEMENTS_MAX` deep.
    fn from(&mut self, mut element: usize, mut at: usize) -> bool {
        while let Some(next) = self.elements.get(element) {
            let rest = &self.text[at..];
            self.furthest = self.furthest.max(at);
            let length = match next {
                Element::Literal(text) => {
                    if !rest.starts_with(&**text) {
                        let common = rest.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
                        self.furthest = self.furthest.max(at + common);
                        return false;
                    }
                    text.len()
                }
                Element::Capture { class, is_certain: true } => {
                    let is_last = element + 1 == self.elements.len();
                    let longest = class.longest(rest);
                    let length = if is_last { rest.len() } else { longest };
                    if length == 0 || length > longest || !self.reads(class, at, length) {
                        if is_last {
                            self.furthest = self.furthest.max(at + longest);
                        }
                        return false;
                    }
                    length
                }
                Element::Capture { class, is_certain: false } => return self.tries(element, class, at),
            };
            at += length;
            self.end(element, at);
            element += 1;
        }
        self.furthest = self.furthest.max(at);
        at == self.text.len()
    }

    /// The same for an element that can end in several places.
    fn tries(&mut self, element: usize, class: &Class, at: usize) -> bool {
        if self.is_dead(element, at) {
            return false;
        }
        let longest = class.longest(&self.text[at..]);
        let found = (1..=longest).rev().any(|length| {
            self.end(element, at + length);
            self.reads(class, at, length) && self.from(element + 1, at + length)
        });
        if !found {
            self.mark_dead(element, at);
        }
        found
    }

    fn end(&mut self, element: usize, at: usize) {
        self.ends[element] = u8::try_from(at).unwrap_or(u8::MAX);
    }

    /// Whether so much of the text, which the class's longest allows, is of it.
    fn reads(&mut self, class: &Class, at: usize, length: usize) -> bool {
        match class {
            // Of a run of good characters every part is good.
            Class::Integer | Class::Hex | Class::Word | Class::Any => true,
            Class::Platform => {
                self.platform = suffix(&self.text[at..at + length]);
                self.platform.is_some()
            }
            _ => class.matches(&self.text[at..at + length]),
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
}
