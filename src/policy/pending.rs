//! The record as it will be: answers from the store, amended by what one step is about to write.
//!
//! A push is judged before it is recorded, so that history, verdicts and alerts become one transaction. The
//! store still answers as of before; this puts the change on top.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::observation::{Answer, Fact, LineKey, Question, SPAN_MAX, Span, TagRecord};
use crate::image::{Digest, Tag};

/// What a step is about to write.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    /// Tags with their new record and their places in the lines; no place where they do not count.
    pub tags: BTreeMap<Tag, (Arc<TagRecord>, Vec<LineKey>)>,
    /// Indexes fetched just now, with what they list.
    pub indexes: BTreeMap<Digest, Vec<Digest>>,
}

impl Pending {
    /// The question to put to the store: it may have to give more, as some of it may be amended away.
    pub fn widen(&self, question: &Question) -> Question {
        let more = self.tags.len();
        match question {
            Question::Line { line, group, span } => {
                let span = match span {
                    Span::All => Span::All,
                    Span::Highest(n) => Span::Highest(n + more),
                    Span::Below(rank, n) => Span::Below(rank.clone(), n + more),
                    Span::Above(rank, n) => Span::Above(rank.clone(), n + more),
                };
                Question::Line { line: line.clone(), group: group.clone(), span }
            }
            other => other.clone(),
        }
    }

    /// The answer without asking the store, where the step alone decides.
    pub fn answer(&self, question: &Question) -> Option<Answer> {
        match question {
            Question::Tag(tag) => self.tags.get(tag).map(|(record, _)| Answer::Tag(Fact::Known(record.clone()))),
            _ => None,
        }
    }

    /// The store's answer to the widened question, as it will be. `rank` gives the rank of a tag in a line.
    pub fn amend(&self, question: &Question, answer: Answer, rank: impl Fn(&Tag) -> Option<Vec<u8>>) -> Answer {
        match (question, answer) {
            (Question::Line { line, group, span }, Answer::Tags(Fact::Known(tags))) => {
                let mut ranked: Vec<(Vec<u8>, Tag)> = tags
                    .iter()
                    .filter(|t| !self.tags.contains_key(*t))
                    .filter_map(|t| rank(t).map(|r| (r, t.clone())))
                    .collect();
                for (tag, (record, keys)) in &self.tags {
                    let key = keys.iter().find(|k| k.line == *line && k.group == *group);
                    if let Some(key) = key.filter(|_| record.current.is_some()) {
                        ranked.push((key.rank.clone(), tag.clone()));
                    }
                }
                ranked.sort();
                let most = match span {
                    Span::All => SPAN_MAX,
                    Span::Highest(n) => {
                        ranked.reverse();
                        *n
                    }
                    Span::Below(limit, n) => {
                        ranked.retain(|(r, _)| r < limit);
                        ranked.reverse();
                        *n
                    }
                    Span::Above(limit, n) => {
                        ranked.retain(|(r, _)| r > limit);
                        *n
                    }
                };
                ranked.truncate(most);
                Answer::Tags(Fact::Known(ranked.into_iter().map(|(_, tag)| tag).collect()))
            }
            (Question::Tagged(digest), Answer::Tags(Fact::Known(tags))) => {
                let mut found: Vec<Tag> = tags.iter().filter(|t| !self.tags.contains_key(*t)).cloned().collect();
                let here = self.tags.iter().filter(|(_, (record, _))| record.current.as_ref() == Some(digest));
                found.extend(here.map(|(tag, _)| tag.clone()));
                found.sort();
                Answer::Tags(Fact::Known(found.into()))
            }
            (Question::Parents(digest), Answer::Digests(Fact::Known(parents))) => {
                let mut found = parents.to_vec();
                let new =
                    self.indexes.iter().filter(|(index, listed)| listed.contains(digest) && !parents.contains(index));
                found.extend(new.map(|(index, _)| index.clone()));
                Answer::Digests(Fact::Known(found.into()))
            }
            (_, answer) => answer,
        }
    }
}
