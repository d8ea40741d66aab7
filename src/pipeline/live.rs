//! Judging what the registry, or an image layout, shows now, and writing nothing.
//!
//! Lines are made from the names in the tag list; which tags have a digest, and which indexes list one, is known of
//! what was looked at. Without a record what needs a history is not evaluated, and waiting times count as elapsed;
//! with one, that of a daemon, its histories are read, and what it has no repository of is judged without.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use super::facts::{
    CONFIG_BYTES_MAX, ROUNDS_MAX, config_content, content_of, lock_asks, lock_fact, locks, stored_config,
    stored_manifest,
};
use super::look::cause;
use crate::history::{Look, Origin};
use crate::image::{Digest, MediaType, Repository, Tag};
use crate::policy::{
    Answer, Cause, CauseKind, Fact, Lead, LineKey, Observation, PolicySet, Question, SPAN_MAX, Span, TagRecord, Target,
    Verdict, judge, targets_of, violation,
};
use crate::registry::{Budget, Client, Cursor, Fetched, Layout, RegistryError, Session};
use crate::store::embedded::ReadOnly;
use crate::store::{Content, ContentKind, StoreError};

/// Requests in flight: the client's own limit for its registry is the one that counts.
const IN_FLIGHT: usize = 16;
/// Tags read from the record at a time.
const RECORDS: usize = 500;
/// Most pages of one tag list (threat model, section 5).
const PAGES_MAX: usize = 1_000;

/// Where images are read from.
pub enum Source {
    /// A registry.
    Registry(Client),
    /// A directory or archive in the OCI image layout.
    Layout(Layout),
    /// What is on record, and nothing else: nobody is asked what is there now.
    Record,
}

/// Why nothing could be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The tags cannot be listed.
    #[error("cannot list the tags of {repository}: {error}")]
    List {
        /// The repository.
        repository: Repository,
        /// The fault.
        error: RegistryError,
    },
    /// The registry says that there is no such repository.
    #[error("there is no repository {0}")]
    NoRepository(Repository),
    /// The judge asked without end: a fault of this program.
    #[error("judging {0} asks without end")]
    Endless(Repository),
    /// The record cannot be read.
    #[error("the record of {repository} cannot be read: {error}")]
    Record {
        /// The repository.
        repository: Repository,
        /// The fault.
        error: StoreError,
    },
}

/// The same bytes may be asked for as a manifest and as a config.
type ContentKey = (Digest, ContentKind);

/// One repository, judged as it is now.
pub struct Live<'a> {
    source: &'a Source,
    set: &'a PolicySet,
    repository: Repository,
    listed: Option<Result<Vec<Tag>, Cause>>,
    keys: HashMap<Tag, Vec<LineKey>>,
    resolved: BTreeMap<Tag, Fact<Option<Digest>>>,
    contents: HashMap<ContentKey, Fact<Arc<Content>>>,
    /// The record, where it knows the repository.
    record: Option<&'a ReadOnly>,
    /// What it has of the tags that were asked for.
    records: HashMap<Tag, Arc<TagRecord>>,
}

impl<'a> Live<'a> {
    /// A repository at a source, under these policies.
    pub fn new(source: &'a Source, set: &'a PolicySet, repository: Repository) -> Live<'a> {
        Live {
            source,
            set,
            repository,
            listed: None,
            keys: HashMap::new(),
            resolved: BTreeMap::new(),
            contents: HashMap::new(),
            record: None,
            records: HashMap::new(),
        }
    }

    /// Has histories read from a record, if the repository is there at all: to be unknown is not to have been
    /// without tags.
    ///
    /// # Errors
    /// [`LiveError::Record`].
    pub async fn remember(&mut self, record: &'a ReadOnly) -> Result<(), LiveError> {
        let known = record.tags(&self.repository, None, 1).await.map_err(|error| self.unread(error))?;
        self.record = Some(record).filter(|_| !known.is_empty());
        Ok(())
    }

    /// Whether histories are read from a record.
    pub fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Whether the record knows that a tag was there once.
    ///
    /// # Errors
    /// [`LiveError::Record`].
    pub async fn remembers(&mut self, tag: &Tag) -> Result<bool, LiveError> {
        self.recall(std::slice::from_ref(tag)).await?;
        let record = self.records.get(tag);
        Ok(record.is_some_and(|record| record.history.as_ref().is_some_and(|history| !history.is_empty())))
    }

    /// Since when a tag has led to what it leads to on record.
    ///
    /// # Errors
    /// [`LiveError::Record`].
    pub async fn since(&mut self, tag: &Tag) -> Result<Option<Timestamp>, LiveError> {
        self.recall(std::slice::from_ref(tag)).await?;
        let history = self.records.get(tag).and_then(|record| record.history.as_ref());
        Ok(history.and_then(|history| history.periods().last().map(|period| period.from)))
    }

    /// Every tag on record that the registry's list lacks.
    ///
    /// # Errors
    /// [`LiveError::Record`].
    pub async fn unlisted(&mut self, listed: &[Tag]) -> Result<Vec<Tag>, LiveError> {
        let Some(record) = self.record else { return Ok(Vec::new()) };
        let listed: BTreeSet<&Tag> = listed.iter().collect();
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = record.tags(&self.repository, after, RECORDS).await.map_err(|error| self.unread(error))?;
            let full = page.len() == RECORDS;
            after = page.last().map(|(tag, _)| tag.clone());
            found.extend(page.into_iter().map(|(tag, _)| tag).filter(|tag| !listed.contains(tag)));
            if !full {
                return Ok(found);
            }
        }
    }

    fn unread(&self, error: StoreError) -> LiveError {
        LiveError::Record { repository: self.repository.clone(), error }
    }

    /// Reads what is on record of tags.
    async fn recall(&mut self, tags: &[Tag]) -> Result<(), LiveError> {
        let Some(record) = self.record else { return Ok(()) };
        let asks: Vec<Question> =
            tags.iter().filter(|tag| !self.records.contains_key(*tag)).cloned().map(Question::Tag).collect();
        for some in asks.chunks(RECORDS) {
            let answers = record.answer(&self.repository, some.to_vec()).await.map_err(|error| self.unread(error))?;
            self.records.extend(answers.into_iter().filter_map(|(ask, answer)| match (ask, answer) {
                (Question::Tag(tag), Answer::Tag(Fact::Known(record))) => Some((tag, record)),
                _ => None,
            }));
        }
        Ok(())
    }

    /// A tag as it leads to `current` now, with what is on record of it.
    fn recorded(&self, tag: &Tag, current: Option<Digest>, at: Timestamp, origin: Origin) -> TagRecord {
        let Some(before) = self.records.get(tag) else { return TagRecord { current, ..TagRecord::default() } };
        let mut history = before.history.clone().unwrap_or_default();
        history.witness(None, &Look { digest: current.clone(), at }, origin);
        TagRecord { current, history: Some(history), ..TagRecord::clone(before) }
    }

    /// Manifests and configs that the registry no longer has, and to which tags led once: what a moved tag was is
    /// told by the record, as far as it was kept.
    async fn recollect(&self, asks: &[Question]) -> Result<HashMap<Question, Answer>, LiveError> {
        let Some(record) = self.record else { return Ok(HashMap::new()) };
        let missing = |digest: &Digest, kind| {
            matches!(self.contents.get(&(digest.clone(), kind)), Some(Fact::Absent))
                && !self.resolved.values().any(|fact| matches!(fact, Fact::Known(Some(now)) if now == digest))
                // What an index lists must be there, whatever it was besides.
                && !self.contents.values().any(|c| matches!(c, Fact::Known(index) if index.children.contains(digest)))
        };
        let led_to = |digest: &Digest| {
            let histories = self.records.values().filter_map(|record| record.history.as_ref());
            histories.flat_map(|history| history.sightings()).any(|sighting| sighting.digest.as_ref() == Some(digest))
        };
        let lost = asks.iter().filter(|ask| match ask {
            Question::Manifest(digest) => missing(digest, ContentKind::Manifest) && led_to(digest),
            _ => false,
        });
        let lost: Vec<Question> = lost.cloned().collect();
        if lost.is_empty() {
            return Ok(HashMap::new());
        }
        let answers = record.answer(&self.repository, lost).await.map_err(|error| self.unread(error))?;
        Ok(answers.into_iter().collect())
    }

    /// Takes a digest as what a tag is about to be pushed as: `check --as`.
    pub fn pretend(&mut self, tag: Tag, digest: Digest) {
        self.keys.insert(tag.clone(), self.set.line_keys(&self.repository, &tag, None));
        self.resolved.insert(tag, Fact::Known(Some(digest)));
    }

    /// Takes in a manifest that was read already.
    pub fn know(&mut self, fetched: Fetched) {
        let content = content_of(fetched);
        self.contents.insert((content.digest.clone(), content.kind), Fact::Known(Arc::new(content)));
    }

    /// All tags, by the registry's own list.
    ///
    /// # Errors
    /// [`LiveError`]: a list that is not whole is no list.
    pub async fn tags(&mut self) -> Result<Vec<Tag>, LiveError> {
        let tags = match self.source {
            Source::Layout(layout) => layout.entries().iter().filter_map(|e| e.name.as_deref()?.parse().ok()).collect(),
            Source::Record => self.unlisted(&[]).await?,
            Source::Registry(client) => {
                let session = client.session(listing());
                list(&session, &self.repository)
                    .await
                    .map_err(|error| LiveError::List { repository: self.repository.clone(), error })?
                    .ok_or_else(|| LiveError::NoRepository(self.repository.clone()))?
            }
        };
        self.take_list(tags.clone());
        Ok(tags)
    }

    /// Where a tag that was looked at leads, `None` being nowhere. Unknown where it was not looked at, or in vain.
    pub fn digest(&self, tag: &Tag) -> Option<&Option<Digest>> {
        match self.resolved.get(tag) {
            Some(Fact::Known(digest)) => Some(digest),
            _ => None,
        }
    }

    fn take_list(&mut self, tags: Vec<Tag>) {
        for tag in &tags {
            self.keys.insert(tag.clone(), self.set.line_keys(&self.repository, tag, None));
        }
        self.listed = Some(Ok(tags));
    }

    /// Takes tags to lead where the record has them.
    async fn resolve_from_record(&mut self, tags: &[Tag]) {
        if let Err(error) = self.recall(tags).await {
            let cause = Cause { kind: CauseKind::Registry, text: error.to_string() };
            self.resolved.extend(tags.iter().map(|tag| (tag.clone(), Fact::Undetermined(cause.clone()))));
            return;
        }
        let current = |tag: &Tag| self.records.get(tag).and_then(|record| record.current.clone());
        let found: Vec<(Tag, Option<Digest>)> = tags.iter().map(|tag| (tag.clone(), current(tag))).collect();
        let asks: Vec<Question> =
            found.iter().filter_map(|(_, digest)| digest.clone()).map(Question::Manifest).collect();
        self.fetch_from_record(&asks).await;
        for (tag, digest) in found {
            let fact = Fact::Known(digest);
            self.recount(&tag, &fact);
            self.resolved.insert(tag, fact);
        }
    }

    /// Reads manifests and configs from the record. What was not kept there may well be at the registry.
    async fn fetch_from_record(&mut self, asks: &[Question]) {
        let Some(record) = self.record else { return };
        let key = |ask: &Question| match ask {
            Question::Manifest(digest) => Some((digest.clone(), ContentKind::Manifest)),
            Question::Config(digest) => Some((digest.clone(), ContentKind::Config)),
            _ => None,
        };
        let wanted: Vec<Question> =
            asks.iter().filter(|ask| key(ask).is_some_and(|key| !self.contents.contains_key(&key))).cloned().collect();
        for some in wanted.chunks(RECORDS) {
            let unknown = |text: String| Fact::Undetermined(Cause { kind: CauseKind::Registry, text });
            let mut facts: HashMap<ContentKey, Fact<Arc<Content>>> = HashMap::new();
            match record.answer(&self.repository, some.to_vec()).await {
                Err(error) => {
                    facts.extend(some.iter().filter_map(key).map(|key| (key, unknown(error.to_string()))));
                }
                Ok(answers) => {
                    let absent = || unknown("it is not on record".to_owned());
                    facts.extend(some.iter().filter_map(key).map(|key| (key, absent())));
                    for (ask, answer) in answers {
                        let content = match (&ask, answer) {
                            (Question::Config(digest), Answer::Config(Fact::Known(config))) => {
                                config_content(digest.clone(), &config.bytes)
                            }
                            (Question::Manifest(digest), Answer::Manifest(Fact::Known(manifest))) => {
                                let parsed = manifest.parsed.as_ref().ok();
                                let index = parsed.and_then(|parsed| parsed.index());
                                let children = index.map(|i| i.entries.iter().map(|e| e.digest.clone()).collect());
                                Content {
                                    digest: digest.clone(),
                                    kind: ContentKind::Manifest,
                                    media_type: parsed.map(|p| p.media_type.as_str().to_owned()).unwrap_or_default(),
                                    bytes: manifest.bytes.clone(),
                                    children: children.unwrap_or_default(),
                                }
                            }
                            _ => continue,
                        };
                        facts.extend(key(&ask).map(|key| (key, Fact::Known(Arc::new(content)))));
                    }
                }
            }
            self.contents.extend(facts);
        }
    }

    /// Looks at tags, telling after each that one more is done.
    pub async fn resolve(&mut self, tags: &[Tag], mut done: impl FnMut()) {
        let unknown: Vec<Tag> = tags.iter().filter(|t| !self.resolved.contains_key(*t)).cloned().collect();
        if matches!(self.source, Source::Record) {
            self.resolve_from_record(&unknown).await;
            return unknown.iter().for_each(|_| done());
        }
        let session = self.session(unknown.len());
        let source = self.source;
        let repository = &self.repository;
        let found: Vec<(Tag, Result<Option<Fetched>, RegistryError>)> = stream::iter(unknown)
            .map(|tag| {
                let session = session.as_ref();
                async move {
                    let got = match (source, session) {
                        (Source::Registry(_), Some(session)) => session.fetch_tag(&repository.name, &tag).await,
                        (Source::Layout(layout), _) => layout.resolve(Some(tag.as_str())).map(Some),
                        _ => Ok(None),
                    };
                    (tag, got)
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .inspect(|_| done())
            .collect()
            .await;
        for (tag, got) in found {
            let fact = match got {
                Ok(Some(fetched)) => {
                    let digest = fetched.digest.clone();
                    self.know(fetched);
                    Fact::Known(Some(digest))
                }
                Ok(None) => Fact::Known(None),
                Err(error) => Fact::Undetermined(cause(&error)),
            };
            self.recount(&tag, &fact);
            self.resolved.insert(tag, fact);
        }
    }

    /// A tag that leads to another kind of content than its class asks for does not count in its lines.
    fn recount(&mut self, tag: &Tag, fact: &Fact<Option<Digest>>) {
        let Fact::Known(Some(digest)) = fact else { return };
        let Some(Fact::Known(content)) = self.contents.get(&(digest.clone(), ContentKind::Manifest)) else { return };
        let lead = stored_manifest(content).parsed.ok().map(|manifest| Lead::of(&manifest));
        self.keys.insert(tag.clone(), self.set.line_keys(&self.repository, tag, lead));
    }

    fn session(&self, tags: usize) -> Option<Session> {
        match self.source {
            Source::Registry(client) => {
                let each = u32::try_from(tags).unwrap_or(u32::MAX).saturating_add(16);
                Some(client.session(Budget {
                    requests: each.saturating_mul(64),
                    bytes: u64::from(each) * (32 << 20),
                    time: Duration::from_secs(30).saturating_mul(each),
                }))
            }
            Source::Layout(_) | Source::Record => None,
        }
    }

    /// Judges tags, and with `expectations` what the repository lacks as well.
    ///
    /// # Errors
    /// [`LiveError::Endless`], [`LiveError::Record`]; what the registry does not answer becomes verdicts that say so.
    pub async fn judge(
        &mut self,
        tags: &[Tag],
        expectations: bool,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Vec<Verdict>, LiveError> {
        let mut observation = Observation::new(self.repository.clone(), now, self.is_recorded());
        let targets: BTreeSet<Target> = targets_of(self.set, &observation, tags, expectations);
        let session = self.session(tags.len());
        for _ in 0..ROUNDS_MAX {
            let mut judgement = judge(self.set, &observation, &targets, origin);
            if judgement.asks.is_empty() {
                self.age(&mut judgement.verdicts, now).await?;
                return Ok(judgement.verdicts);
            }
            self.answer(session.as_ref(), &mut observation, judgement.asks, origin).await?;
        }
        Err(LiveError::Endless(self.repository.clone()))
    }

    /// Brings findings into the states that they have by the record: pending until their time is up.
    async fn age(&self, verdicts: &mut [Verdict], now: Timestamp) -> Result<(), LiveError> {
        // Another policy's waiting times have not begun: of what is on record they count as elapsed.
        let Some(record) = self.record.filter(|_| !matches!(self.source, Source::Record)) else { return Ok(()) };
        for some in verdicts.chunks_mut(RECORDS) {
            let tags: BTreeSet<Option<Tag>> = some.iter().map(|verdict| verdict.subject.tag.clone()).collect();
            let open = record.open_violations(&self.repository, tags.into_iter().collect()).await;
            let open = open.map_err(|error| self.unread(error))?;
            for verdict in some {
                violation::advance(verdict, &open, now);
            }
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        session: Option<&Session>,
        observation: &mut Observation,
        asks: Vec<Question>,
        origin: Origin,
    ) -> Result<(), LiveError> {
        if asks.iter().any(|a| matches!(a, Question::Line { .. })) && self.listed.is_none() {
            self.listed = Some(match self.tags().await {
                Ok(tags) => Ok(tags),
                Err(LiveError::NoRepository(_)) => Ok(Vec::new()),
                Err(error) => Err(Cause { kind: CauseKind::Registry, text: error.to_string() }),
            });
        }
        let tags: Vec<Tag> =
            asks.iter().filter_map(|a| if let Question::Tag(tag) = a { Some(tag.clone()) } else { None }).collect();
        self.resolve(&tags, || {}).await;
        self.recall(&tags).await?;
        self.fetch(session, &asks).await;
        let mut recollected = self.recollect(&asks).await?;
        let mut locked = self.locked(session, &asks).await;
        for ask in asks {
            if let Some(answer) = recollected.remove(&ask) {
                observation.tell(ask, answer);
                continue;
            }
            let answer = match &ask {
                Question::Tag(tag) => Answer::Tag(match self.resolved.get(tag) {
                    Some(Fact::Known(current)) => {
                        Fact::Known(Arc::new(self.recorded(tag, current.clone(), observation.now, origin)))
                    }
                    Some(Fact::Undetermined(cause)) => Fact::Undetermined(cause.clone()),
                    Some(Fact::Absent) | None => Fact::Absent,
                }),
                Question::Manifest(digest) => {
                    Answer::Manifest(self.content(digest, ContentKind::Manifest, |c| Arc::new(stored_manifest(c))))
                }
                Question::Config(digest) => {
                    Answer::Config(self.content(digest, ContentKind::Config, |c| Arc::new(stored_config(c))))
                }
                Question::Line { line, group, span } => {
                    let keys: Vec<(Vec<u8>, Tag)> = self
                        .keys
                        .iter()
                        .filter_map(|(tag, keys)| {
                            keys.iter()
                                .find(|k| k.line == *line && k.group == *group)
                                .map(|k| (k.rank.clone(), tag.clone()))
                        })
                        .collect();
                    Answer::Tags(match &self.listed {
                        Some(Err(cause)) => Fact::Undetermined(cause.clone()),
                        _ => Fact::Known(self.counting(keys, span).await.into()),
                    })
                }
                Question::Tagged(digest) => {
                    let here =
                        self.resolved.iter().filter(|(_, fact)| matches!(fact, Fact::Known(Some(d)) if d == digest));
                    Answer::Tags(Fact::Known(here.map(|(tag, _)| tag.clone()).collect::<Vec<_>>().into()))
                }
                Question::Locked(tag, digest) => {
                    Answer::Locked(locked.remove(&(tag.clone(), digest.clone())).unwrap_or(Fact::Absent))
                }
                Question::Parents(digest) => {
                    let parents = self.contents.values().filter_map(|fact| match fact {
                        Fact::Known(content) if content.children.contains(digest) => Some(content.digest.clone()),
                        _ => None,
                    });
                    Answer::Digests(Fact::Known(parents.collect::<Vec<_>>().into()))
                }
            };
            observation.tell(ask, answer);
        }
        Ok(())
    }

    /// The write locks that are asked for: the registry's own, or as they were when the record was made.
    async fn locked(&self, session: Option<&Session>, asks: &[Question]) -> HashMap<(Tag, Digest), Fact<bool>> {
        match (self.source, session) {
            (Source::Registry(client), Some(session)) if client.has_locks() => {
                let read = locks(session, &self.repository.name, lock_asks(asks).collect()).await;
                read.into_iter().map(|(ask, got)| (ask, lock_fact(&got))).collect()
            }
            (Source::Record, _) => {
                let on_record = |ask: (Tag, Digest)| Some((self.records.get(&ask.0)?.locked?, ask));
                lock_asks(asks).filter_map(on_record).map(|(locked, ask)| (ask, Fact::Known(locked))).collect()
            }
            _ => HashMap::new(),
        }
    }

    /// The tags of a span, each looked at before it counts: a chart under a version's name is no version.
    async fn counting(&mut self, mut keys: Vec<(Vec<u8>, Tag)>, span: &Span) -> Vec<Tag> {
        keys.sort();
        let (most, ranked): (usize, Vec<(Vec<u8>, Tag)>) = match span {
            Span::All => (SPAN_MAX, keys),
            Span::Highest(n) => (*n, keys.into_iter().rev().collect()),
            Span::Below(rank, n) => (*n, keys.into_iter().rev().filter(|(r, _)| r < rank).collect()),
            Span::Above(rank, n) => (*n, keys.into_iter().filter(|(r, _)| r > rank).collect()),
        };
        let mut counted = Vec::new();
        for (_, tag) in ranked {
            if counted.len() >= most {
                break;
            }
            self.resolve(std::slice::from_ref(&tag), || {}).await;
            let gone = matches!(self.resolved.get(&tag), Some(Fact::Known(None)));
            if !gone && self.keys.get(&tag).is_some_and(|k| !k.is_empty()) {
                counted.push(tag);
            }
        }
        counted
    }

    fn content<T>(&self, digest: &Digest, kind: ContentKind, read: impl Fn(&Content) -> T) -> Fact<T> {
        match self.contents.get(&(digest.clone(), kind)) {
            Some(Fact::Known(content)) => Fact::Known(read(content)),
            Some(Fact::Undetermined(cause)) => Fact::Undetermined(cause.clone()),
            Some(Fact::Absent) | None => Fact::Absent,
        }
    }

    /// Reads the manifests and configs that are asked for and not known.
    async fn fetch(&mut self, session: Option<&Session>, asks: &[Question]) {
        if matches!(self.source, Source::Record) {
            return self.fetch_from_record(asks).await;
        }
        let wanted: Vec<ContentKey> = asks
            .iter()
            .filter_map(|ask| match ask {
                Question::Manifest(digest) => Some((digest.clone(), ContentKind::Manifest)),
                Question::Config(digest) => Some((digest.clone(), ContentKind::Config)),
                _ => None,
            })
            .filter(|key| !self.contents.contains_key(key))
            .collect();
        let source = self.source;
        let repository = &self.repository;
        let found: Vec<(ContentKey, Result<Option<Content>, RegistryError>)> = stream::iter(wanted)
            .map(|(digest, kind)| async move {
                let got = match (source, session, kind) {
                    (Source::Registry(_), Some(session), ContentKind::Manifest) => {
                        session.fetch_manifest(&repository.name, &digest).await.map(|f| f.map(content_of))
                    }
                    (Source::Registry(_), Some(session), ContentKind::Config) => session
                        .fetch_blob(&repository.name, &digest, CONFIG_BYTES_MAX)
                        .await
                        .map(|f| f.map(|bytes| config_content(digest.clone(), &bytes))),
                    (Source::Layout(layout), _, ContentKind::Manifest) => {
                        layout.fetch_manifest(&digest, &MediaType::Other("".into())).map(|f| f.map(content_of))
                    }
                    (Source::Layout(layout), _, ContentKind::Config) => layout
                        .fetch_blob(&digest, CONFIG_BYTES_MAX)
                        .map(|f| f.map(|bytes| config_content(digest.clone(), &bytes))),
                    (Source::Registry(_), None, _) | (Source::Record, ..) => Ok(None),
                };
                ((digest, kind), got)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        for (key, got) in found {
            let fact = match got {
                Ok(Some(content)) => Fact::Known(Arc::new(content)),
                Ok(None) => Fact::Absent,
                Err(error) => Fact::Undetermined(cause(&error)),
            };
            self.contents.insert(key, fact);
        }
    }
}

fn listing() -> Budget {
    Budget { requests: 2 * PAGES_MAX as u32, bytes: 1 << 30, time: Duration::from_secs(600) }
}

/// All tags of a repository, page by page to the end. `None`: there is no such repository.
pub(super) async fn list(session: &Session, repository: &Repository) -> Result<Option<Vec<Tag>>, RegistryError> {
    let mut tags = Vec::new();
    let mut after: Option<Cursor> = None;
    for _ in 0..PAGES_MAX {
        let Some(page) = session.tags(&repository.name, after).await? else { return Ok(None) };
        tags.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(Some(tags));
        }
    }
    Err(RegistryError::Protocol(format!("the tag list has more than {PAGES_MAX} pages")))
}
