//! Query parameters, read strictly: an unknown or repeated one is a mistake of the caller, and silence about
//! it would look like an answer to what was asked.

use std::fmt::Display;
use std::str::FromStr;

use super::respond::Fault;
use crate::store::Paging;

/// Items on a page unless asked otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Most items on a page; the store's own limit.
const LIMIT_MAX: usize = 1_000;
/// Longest value, in bytes: names and digests are shorter.
const VALUE_BYTES_MAX: usize = 1_024;
/// Longest quotation of what was given.
const QUOTE_CHARS_MAX: usize = 80;

/// The parameters of one request.
pub(super) struct Query {
    given: Vec<(&'static str, String)>,
}

impl Query {
    /// Reads `text`, in which only `allowed` may occur, once each. An empty value is none.
    pub(super) fn read(text: &str, allowed: &'static [&'static str]) -> Result<Query, Fault> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let known = allowed.iter().find(|known| **known == name).ok_or_else(|| {
                Fault::Invalid(format!("there is no parameter `{}`; there are {}", quote(&name), allowed.join(", ")))
            })?;
            if given.iter().any(|(name, _)| name == known) {
                return Err(Fault::Invalid(format!("`{known}` is there more than once")));
            }
            if value.len() > VALUE_BYTES_MAX {
                return Err(Fault::Invalid(format!("`{known}` is longer than {VALUE_BYTES_MAX} bytes")));
            }
            given.push((known, value.into_owned()));
        }
        given.retain(|(_, value)| !value.is_empty());
        Ok(Query { given })
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.given.iter().position(|(known, _)| *known == name)?;
        Some(self.given.swap_remove(at).1)
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Fault>
    where
        T::Err: Display,
    {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| Fault::Invalid(format!("`{name}`: {error}")))
    }

    /// `limit` and `cursor`.
    pub(super) fn paging(&mut self) -> Result<Paging, Fault> {
        let limit = match self.text("limit") {
            None => LIMIT_DEFAULT,
            Some(text) => text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
                Fault::Invalid(format!("`limit`: `{}` is not a number from 1 to {LIMIT_MAX}", quote(&text)))
            })?,
        };
        Ok(Paging { cursor: self.text("cursor"), limit })
    }
}

/// What was given, on one line of bounded length.
pub(super) fn quote(text: &str) -> String {
    let mut out: String = text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}
