//! Everything that judging looks at, as data, and the questions by which it is gathered.
//!
//! Judging is pure, and asks for what it needs: `judge` over an incomplete [`Observation`] returns the
//! [`Question`]s that it met, the shell answers them from the record or the registry, and judges again. So
//! what a policy does not look at is never fetched, and no second piece of code has to know what each
//! requirement reads.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::history::TagHistory;
use crate::image::{Digest, ImageConfig, Manifest, ManifestError, Repository, Tag};

/// A fact that may be missing at the registry, or may not be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// It is there.
    Known(T),
    /// The registry says that it is not there.
    Absent,
    /// It could not be determined.
    Undetermined(Cause),
}

/// Why a fact could not be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The kind of obstacle.
    pub kind: CauseKind,
    /// What happened, for people; bounded and free of control characters.
    pub text: String,
}

/// Kinds of obstacles, each a reason code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CauseKind {
    /// The registry did not answer, or answered with an error.
    Registry,
    /// The bytes were not what their digest says.
    DigestMismatch,
    /// Over a limit of size, count, depth or time.
    Limit,
    /// The manifest was gone before it could be read.
    EvidenceGone,
}

/// A manifest as stored: what it says, or why it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The digest of the bytes, verified.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
    /// What they parse to.
    pub parsed: Result<Manifest, ManifestError>,
    /// The bytes, for requirements that look at the whole document.
    pub bytes: Arc<[u8]>,
}

/// An image config as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredConfig {
    /// The number of bytes.
    pub size: u64,
    /// The fields that rules look at; `Err` with the fault where the bytes are no image config.
    pub parsed: Result<ImageConfig, String>,
    /// The bytes, for requirements that look at the whole document.
    pub bytes: Arc<[u8]>,
}

/// What is on record of one tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagRecord {
    /// The digest it has now; `None` when it is not there.
    pub current: Option<Digest>,
    /// Its history; `None` where there is no record (`check` without a store): history is then not evaluated.
    pub history: Option<TagHistory>,
    /// The digest that an operator accepted as the new baseline, and when.
    pub accepted: Option<(Digest, Timestamp)>,
    /// How many moves its history had when it was judged last: more are news.
    pub judged_moves: u32,
    /// Whether the registry's write locks on tag and manifest were both set when they were last read; `None` where it has
    /// none or did not say. Judged by only where the registry is not asked: [`Question::Locked`].
    pub locked: Option<bool>,
}

/// A set of tags that a relation may look through: the tags of one class that share some captures, in
/// version order. The id is stable for the same forms and captures.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineId(pub Arc<str>);

/// Where a tag stands in a line: the shared captures, and its rank among the tags that share them. Both are
/// byte strings whose order is the order meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineKey {
    /// The line.
    pub line: LineId,
    /// The captures shared.
    pub group: Vec<u8>,
    /// The rank within the group.
    pub rank: Vec<u8>,
}

/// Which tags of a line's group are asked for. Only tags that are there now count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Span {
    /// All of them, lowest first, at most [`SPAN_MAX`].
    All,
    /// The highest ones, highest first, at most this many.
    Highest(usize),
    /// The ones next below a rank, highest first, at most this many.
    Below(Vec<u8>, usize),
    /// The ones next above a rank, lowest first, at most this many.
    Above(Vec<u8>, usize),
}

/// Most tags that one question may return.
pub const SPAN_MAX: usize = 1_000;

/// Something that judging needs to know about the repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// The record of a tag.
    Tag(Tag),
    /// The manifest of a digest.
    Manifest(Digest),
    /// The image config blob of a digest.
    Config(Digest),
    /// Tags of a line.
    Line {
        /// The line.
        line: LineId,
        /// The captures shared.
        group: Vec<u8>,
        /// Which of them.
        span: Span,
    },
    /// The tags that have a digest now, at most [`SPAN_MAX`].
    Tagged(Digest),
    /// The indexes on record that list a digest, at most [`SPAN_MAX`].
    Parents(Digest),
    /// Whether the registry's write locks on a tag and on the manifest that it leads to are both set.
    Locked(Tag, Digest),
}

/// The answer to a [`Question`], of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Tag`].
    Tag(Fact<Arc<TagRecord>>),
    /// To [`Question::Manifest`].
    Manifest(Fact<Arc<StoredManifest>>),
    /// To [`Question::Config`].
    Config(Fact<Arc<StoredConfig>>),
    /// To [`Question::Line`] and [`Question::Tagged`].
    Tags(Fact<Arc<[Tag]>>),
    /// To [`Question::Parents`].
    Digests(Fact<Arc<[Digest]>>),
    /// To [`Question::Locked`]; absent where the registry has no locks.
    Locked(Fact<bool>),
}

/// What is known about one repository at one moment: the answers given so far, each found by what it is about.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The repository.
    pub repository: Repository,
    /// The moment.
    pub now: Timestamp,
    /// Whether there is a record. Without one, `for` counts as elapsed and history is not evaluated.
    pub recorded: bool,
    tags: Facts<Tag, Arc<TagRecord>>,
    manifests: Facts<Digest, Arc<StoredManifest>>,
    configs: Facts<Digest, Arc<StoredConfig>>,
    lines: Facts<(LineId, Vec<u8>, Span), Arc<[Tag]>>,
    tagged: Facts<Digest, Arc<[Tag]>>,
    parents: Facts<Digest, Arc<[Digest]>>,
    locked: Facts<(Tag, Digest), bool>,
}

/// Facts by what they are about. A judge looks things up hundreds of times for one push, so that the standard library's
/// hash would be a quarter of its time. This one is seeded too; and one observation holds a bounded number of facts.
type Facts<K, T> = HashMap<K, Fact<T>, foldhash::fast::RandomState>;

impl Observation {
    /// An empty observation.
    pub fn new(repository: Repository, now: Timestamp, recorded: bool) -> Observation {
        Observation {
            repository,
            now,
            recorded,
            tags: Facts::default(),
            manifests: Facts::default(),
            configs: Facts::default(),
            lines: Facts::default(),
            tagged: Facts::default(),
            parents: Facts::default(),
            locked: Facts::default(),
        }
    }

    /// Adds an answer. One of another kind than its question is a fault of the shell, which must not become a pass: it
    /// stands for something that could not be determined.
    pub fn tell(&mut self, question: Question, answer: Answer) {
        match question {
            Question::Tag(tag) => {
                self.tags.insert(tag, if let Answer::Tag(fact) = answer { fact } else { misanswered() });
            }
            Question::Manifest(digest) => {
                self.manifests.insert(digest, if let Answer::Manifest(fact) = answer { fact } else { misanswered() });
            }
            Question::Config(digest) => {
                self.configs.insert(digest, if let Answer::Config(fact) = answer { fact } else { misanswered() });
            }
            Question::Line { line, group, span } => {
                let fact = if let Answer::Tags(fact) = answer { fact } else { misanswered() };
                self.lines.insert((line, group, span), fact);
            }
            Question::Tagged(digest) => {
                self.tagged.insert(digest, if let Answer::Tags(fact) = answer { fact } else { misanswered() });
            }
            Question::Parents(digest) => {
                self.parents.insert(digest, if let Answer::Digests(fact) = answer { fact } else { misanswered() });
            }
            Question::Locked(tag, digest) => {
                let fact = if let Answer::Locked(fact) = answer { fact } else { misanswered() };
                self.locked.insert((tag, digest), fact);
            }
        }
    }

    /// The record of a tag.
    pub(super) fn tag(&self, tag: &Tag) -> Option<&Fact<Arc<TagRecord>>> {
        self.tags.get(tag)
    }

    /// The manifest of a digest.
    pub(super) fn manifest(&self, digest: &Digest) -> Option<&Fact<Arc<StoredManifest>>> {
        self.manifests.get(digest)
    }

    /// The image config of a digest.
    pub(super) fn config(&self, digest: &Digest) -> Option<&Fact<Arc<StoredConfig>>> {
        self.configs.get(digest)
    }

    /// Tags of a line.
    pub(super) fn line(&self, place: &(LineId, Vec<u8>, Span)) -> Option<&Fact<Arc<[Tag]>>> {
        self.lines.get(place)
    }

    /// The tags that have a digest.
    pub(super) fn tagged(&self, digest: &Digest) -> Option<&Fact<Arc<[Tag]>>> {
        self.tagged.get(digest)
    }

    /// The indexes that list a digest.
    pub(super) fn parents(&self, digest: &Digest) -> Option<&Fact<Arc<[Digest]>>> {
        self.parents.get(digest)
    }

    /// Whether a tag and the manifest that it leads to are locked.
    pub(super) fn locked(&self, place: &(Tag, Digest)) -> Option<&Fact<bool>> {
        self.locked.get(place)
    }
}

fn misanswered<T>() -> Fact<T> {
    Fact::Undetermined(Cause {
        kind: CauseKind::Registry,
        text: "the question was answered with something else".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_kind_is_no_answer_but_no_pass_either() {
        let mut observation = Observation::new("registry.example/app".parse().unwrap(), Timestamp::UNIX_EPOCH, true);
        let digest = Digest::of(b"x");
        assert!(observation.manifest(&digest).is_none());
        observation.tell(Question::Manifest(digest.clone()), Answer::Locked(Fact::Absent));
        assert!(matches!(observation.manifest(&digest), Some(Fact::Undetermined(_))));
        observation.tell(Question::Manifest(digest.clone()), Answer::Manifest(Fact::Absent));
        assert_eq!(observation.manifest(&digest), Some(&Fact::Absent));
        assert!(observation.config(&digest).is_none(), "another fact about the same digest");
    }
}
