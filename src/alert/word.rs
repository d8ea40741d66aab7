//! The nouns as they are written in the outbox's JSON: each as its own stable text. Pure.

use serde::{Deserialize as _, Deserializer, Serializer, de};

use crate::image::{Digest, Repository, Tag};
use crate::policy::violation::Edge;
use crate::policy::{Rule, Severity};

/// A value that is written as one text and read back from it.
pub(super) trait Word: Sized {
    fn word(&self) -> String;
    fn read(word: &str) -> Option<Self>;
}

pub(super) fn serialize<T: Word, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.word())
}

pub(super) fn deserialize<'de, T: Word, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let word = String::deserialize(from)?;
    T::read(&word).ok_or_else(|| de::Error::custom(format_args!("`{word:.80}` is none of the words expected here")))
}

macro_rules! parsed {
    ($($type:ty),*) => {$(
        impl Word for $type {
            fn word(&self) -> String {
                self.to_string()
            }
            fn read(word: &str) -> Option<$type> {
                word.parse().ok()
            }
        }
    )*};
}
parsed!(Repository, Tag, Digest);

macro_rules! listed {
    ($($type:ty),*) => {$(
        impl Word for $type {
            fn word(&self) -> String {
                self.as_str().to_owned()
            }
            fn read(word: &str) -> Option<$type> {
                <$type>::from_word(word)
            }
        }
    )*};
}
listed!(Severity, Rule);

impl Word for Edge {
    fn word(&self) -> String {
        match self {
            Edge::Fired => "fired",
            Edge::Resolved => "resolved",
        }
        .to_owned()
    }
    fn read(word: &str) -> Option<Edge> {
        match word {
            "fired" => Some(Edge::Fired),
            "resolved" => Some(Edge::Resolved),
            _ => None,
        }
    }
}

/// Absence is the empty text, which none of the nouns can be.
impl<T: Word> Word for Option<T> {
    fn word(&self) -> String {
        self.as_ref().map(T::word).unwrap_or_default()
    }
    fn read(word: &str) -> Option<Option<T>> {
        if word.is_empty() { Some(None) } else { T::read(word).map(Some) }
    }
}
