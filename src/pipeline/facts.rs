//! Answers to the judge's questions: from the step at hand, from the record, and only then from the registry.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::look::cause;
use crate::image::{Digest, ImageConfig, Manifest, MediaType, Repository, RepositoryName, Tag};
use crate::policy::{
    Answer, Cause, CauseKind, Fact, Observation, Pending, PolicySet, Question, StoredConfig, StoredManifest,
};
use crate::registry::{Fetched, Locks, RegistryError, Session, has_locks};
use crate::store::{Content, ContentKind, Store, StoreError};

/// Requests in flight for one step: more would not be faster at one registry, and unfair to the others.
const IN_FLIGHT: usize = 4;
/// Largest image config read, in bytes: real ones have some kilobytes; labels and history can be long.
pub(super) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Most rounds of questions: each level of nesting and each relation adds one or two.
pub(super) const ROUNDS_MAX: usize = 24;

/// What one step knows and has fetched.
pub(super) struct Facts<'a, S> {
    pub store: &'a S,
    pub session: Option<&'a Session>,
    pub repository: &'a Repository,
    pub set: &'a PolicySet,
    pub pending: Pending,
    /// Content fetched in this step, to be recorded with it.
    pub contents: HashMap<(Digest, ContentKind), Content>,
    /// Whether anything could not be determined, so that it must be asked again; the shortest pause asked for.
    pub undetermined: Option<std::time::Duration>,
    /// Why the registry is not asked any more in this step: it is away, and every further question would only wait.
    pub away: Option<RegistryError>,
    /// Manifests of which it said in this step that it no longer has them.
    pub gone: BTreeSet<Digest>,
    /// Write locks asked for in this step.
    pub locks: HashMap<(Tag, Digest), Fact<bool>>,
    /// Tags that led elsewhere when their lock was asked for: to be looked at again, not judged from the record.
    pub moved: BTreeSet<Tag>,
}

impl<'a, S: Store> Facts<'a, S> {
    /// Nothing is known yet.
    pub fn new(
        store: &'a S,
        session: Option<&'a Session>,
        repository: &'a Repository,
        set: &'a PolicySet,
    ) -> Facts<'a, S> {
        Facts {
            store,
            session,
            repository,
            set,
            pending: Pending::default(),
            contents: HashMap::new(),
            undetermined: None,
            away: None,
            gone: BTreeSet::new(),
            locks: HashMap::new(),
            moved: BTreeSet::new(),
        }
    }

    /// Puts answers to all questions into the observation.
    ///
    /// # Errors
    /// Only the store's: what the registry does not answer becomes an undetermined fact.
    pub async fn answer(&mut self, observation: &mut Observation, asks: Vec<Question>) -> Result<(), StoreError> {
        let mut to_store = Vec::new();
        self.read_locks(&asks).await;
        for ask in asks {
            match self.pending.answer(&ask) {
                Some(answer) => observation.tell(ask, answer),
                None => match self.fetched(&ask) {
                    Some(answer) => observation.tell(ask, answer),
                    None => to_store.push(ask),
                },
            }
        }
        if to_store.is_empty() {
            return Ok(());
        }
        let widened: Vec<Question> = to_store.iter().map(|q| self.pending.widen(q)).collect();
        let mut stored: HashMap<Question, Answer> =
            self.store.answer(self.repository, widened.clone()).await?.into_iter().collect();
        let mut to_registry = Vec::new();
        for (ask, wide) in to_store.into_iter().zip(widened) {
            match stored.remove(&wide) {
                Some(answer) => {
                    let amended = self.pending.amend(&ask, answer, |tag| match &ask {
                        Question::Line { line, .. } => self.set.rank(self.repository, line, tag),
                        _ => None,
                    });
                    observation.tell(ask, amended);
                }
                None => to_registry.push(ask),
            }
        }
        self.fetch(observation, to_registry).await;
        Ok(())
    }

    /// An answer from content of this very step.
    fn fetched(&self, ask: &Question) -> Option<Answer> {
        match ask {
            Question::Manifest(digest) if self.gone.contains(digest) => Some(Answer::Manifest(Fact::Absent)),
            Question::Manifest(digest) => {
                let content = self.contents.get(&(digest.clone(), ContentKind::Manifest))?;
                Some(Answer::Manifest(Fact::Known(Arc::new(stored_manifest(content)))))
            }
            Question::Config(digest) => {
                let content = self.contents.get(&(digest.clone(), ContentKind::Config))?;
                Some(Answer::Config(Fact::Known(Arc::new(stored_config(content)))))
            }
            Question::Locked(tag, digest) => {
                self.locks.get(&(tag.clone(), digest.clone())).cloned().map(Answer::Locked)
            }
            _ => None,
        }
    }

    /// Asks the registry for the write locks that are asked for, each once in a step. They are set and taken away
    /// without an event, so the record is no answer.
    async fn read_locks(&mut self, asks: &[Question]) {
        let wanted = lock_asks(asks).filter(|ask| !self.locks.contains_key(ask)).collect::<Vec<_>>();
        if wanted.is_empty() {
            return;
        }
        let offered = self.session.map_or_else(|| has_locks(&self.repository.host), Session::has_locks);
        let session = match (self.session, &self.away) {
            (Some(session), None) if offered => session,
            (_, away) => {
                let fact = match offered {
                    true => Fact::Undetermined(away.as_ref().map_or_else(not_configured, cause)),
                    false => Fact::Absent,
                };
                return self.locks.extend(wanted.into_iter().map(|ask| (ask, fact.clone())));
            }
        };
        for (ask, got) in locks(session, &self.repository.name, wanted).await {
            match &got {
                Ok(Locks::Moved) => {
                    self.moved.insert(ask.0.clone());
                }
                Ok(_) => {}
                Err(error) => self.failed(error),
            }
            self.locks.insert(ask, lock_fact(&got));
        }
    }

    async fn fetch(&mut self, observation: &mut Observation, asks: Vec<Question>) {
        let session = match (self.session, &self.away) {
            (Some(session), None) => session,
            (_, away) => {
                let why = away.as_ref().map_or_else(not_configured, cause);
                for ask in asks {
                    let answer = undetermined(&ask, why.clone());
                    observation.tell(ask, answer);
                }
                return;
            }
        };
        let name = &self.repository.name;
        let answers: Vec<(Question, Result<Option<Content>, RegistryError>)> = stream::iter(asks)
            .map(|ask| async move {
                let got = match &ask {
                    Question::Manifest(digest) => {
                        session.fetch_manifest(name, digest).await.map(|found| found.map(content_of))
                    }
                    Question::Config(digest) => session
                        .fetch_blob(name, digest, CONFIG_BYTES_MAX)
                        .await
                        .map(|found| found.map(|bytes| config_content(digest.clone(), &bytes))),
                    _ => Ok(None),
                };
                (ask, got)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        for (ask, got) in answers {
            let answer = match (&ask, got) {
                (Question::Manifest(_), Ok(Some(content))) => {
                    let answer = Answer::Manifest(Fact::Known(Arc::new(stored_manifest(&content))));
                    self.keep(content);
                    answer
                }
                (Question::Config(_), Ok(Some(content))) => {
                    let answer = Answer::Config(Fact::Known(Arc::new(stored_config(&content))));
                    self.keep(content);
                    answer
                }
                (Question::Config(_), Ok(None)) => Answer::Config(Fact::Absent),
                (_, Ok(_)) => Answer::Manifest(Fact::Absent),
                (ask, Err(error)) => {
                    self.failed(&error);
                    undetermined(ask, cause(&error))
                }
            };
            observation.tell(ask, answer);
        }
    }

    /// Keeps content for the step's record.
    pub fn keep(&mut self, content: Content) {
        if !content.children.is_empty() {
            self.pending.indexes.insert(content.digest.clone(), content.children.clone());
        }
        self.contents.insert((content.digest.clone(), content.kind), content);
    }

    /// Notes that something must be asked again, and when at the earliest.
    pub fn failed(&mut self, error: &RegistryError) {
        let pause = match error {
            RegistryError::Throttled { retry_after } => *retry_after,
            _ => std::time::Duration::ZERO,
        };
        self.undetermined = Some(self.undetermined.map_or(pause, |known| known.max(pause)));
        if is_away(error) && self.away.is_none() {
            self.away = Some(error.clone());
        }
    }
}

/// The write locks that are asked for.
pub(super) fn lock_asks(asks: &[Question]) -> impl Iterator<Item = (Tag, Digest)> {
    asks.iter().filter_map(|ask| match ask {
        Question::Locked(tag, digest) => Some((tag.clone(), digest.clone())),
        _ => None,
    })
}

/// Reads write locks, some side by side.
pub(super) async fn locks(
    session: &Session,
    name: &RepositoryName,
    asks: Vec<(Tag, Digest)>,
) -> Vec<((Tag, Digest), Result<Locks, RegistryError>)> {
    stream::iter(asks)
        .map(|ask| async move {
            let got = session.locks(name, &ask.0, &ask.1).await;
            (ask, got)
        })
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await
}

/// What was read of a write lock, as the judge is told it: whatever is not clear is undetermined, never a pass.
pub(super) fn lock_fact(got: &Result<Locks, RegistryError>) -> Fact<bool> {
    match got {
        Ok(Locks::Set) => Fact::Known(true),
        Ok(Locks::Open) => Fact::Known(false),
        Ok(Locks::Moved) => Fact::Undetermined(Cause {
            kind: CauseKind::Registry,
            text: "the tag was moved while its write lock was asked for".to_owned(),
        }),
        Err(error) => {
            let role = match error {
                RegistryError::Unauthorized { .. } | RegistryError::Forbidden { .. } => {
                    "; reading locks needs more than AcrPull, such as Container Registry Repository Reader"
                }
                _ => "",
            };
            let Cause { kind, text } = cause(error);
            Fact::Undetermined(Cause { kind, text: format!("the write lock cannot be read: {text}{role}") })
        }
    }
}

/// Whether an error says that the registry as a whole is not to be asked now.
pub(super) fn is_away(error: &RegistryError) -> bool {
    use RegistryError::{Connect, Server, Throttled, Timeout, Tls};
    matches!(error, Throttled { .. } | Timeout(_) | Connect(_) | Tls(_) | Server { status: 502..=504, .. })
}

fn not_configured() -> Cause {
    Cause { kind: CauseKind::Registry, text: "the registry is not configured, so it is not asked".to_owned() }
}

fn undetermined(ask: &Question, cause: Cause) -> Answer {
    match ask {
        Question::Config(_) => Answer::Config(Fact::Undetermined(cause)),
        _ => Answer::Manifest(Fact::Undetermined(cause)),
    }
}

/// A manifest as content to keep.
pub(super) fn content_of(fetched: Fetched) -> Content {
    let children = match Manifest::parse(&fetched.bytes, Some(&fetched.media_type)) {
        Ok(manifest) => {
            manifest.index().map(|i| i.entries.iter().map(|e| e.digest.clone()).collect()).unwrap_or_default()
        }
        Err(_) => Vec::new(),
    };
    Content {
        digest: fetched.digest,
        kind: ContentKind::Manifest,
        media_type: fetched.media_type.as_str().to_owned(),
        bytes: fetched.bytes.to_vec().into(),
        children,
    }
}

/// A config as content to keep.
pub(super) fn config_content(digest: Digest, bytes: &[u8]) -> Content {
    Content { digest, kind: ContentKind::Config, media_type: String::new(), bytes: bytes.into(), children: Vec::new() }
}

/// Content as the judge reads it.
pub(super) fn stored_manifest(content: &Content) -> StoredManifest {
    let served = MediaType::parse(&content.media_type);
    StoredManifest {
        digest: content.digest.clone(),
        size: content.bytes.len() as u64,
        parsed: Manifest::parse(&content.bytes, Some(&served).filter(|_| !content.media_type.is_empty())),
        bytes: content.bytes.clone(),
    }
}

/// Content as the judge reads it.
pub(super) fn stored_config(content: &Content) -> StoredConfig {
    StoredConfig {
        size: content.bytes.len() as u64,
        parsed: ImageConfig::parse(&content.bytes).map_err(|e| e.to_string()),
        bytes: content.bytes.clone(),
    }
}
