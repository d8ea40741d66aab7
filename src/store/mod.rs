//! The record: journal of events, tag history, manifests, verdicts, violations, alerts to send.
//!
//! One trait, kept by the embedded store and shaped for a database shared by replicas: the repository leads
//! every key, no transaction spans two repositories, work is claimed by repository with a lease whose fence
//! number every completing write repeats. Nothing but the store holds state.

pub mod embedded;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::event::{Action, Event};
use crate::history::{Origin, Sighting};
use crate::image::{Digest, Host, Repository, Tag};
use crate::policy::violation::{Change, Violation};
use crate::policy::{Answer, LineKey, Question, State, TagRecord, Verdict};

/// Why the store did not do what it was asked. Cloned when one failed commit answers everybody who waited for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Over the configured backlog: refuse rather than drop.
    #[error("the backlog is full: {events} events wait; new ones are refused until some are judged")]
    BacklogFull {
        /// Events waiting.
        events: u64,
    },
    /// No space left where the store lies.
    #[error("no space left for the store: free some, or move it")]
    DiskFull,
    /// Writing to disk failed: nothing more may be acknowledged, and the process must end.
    #[error("writing to the store failed, nothing more is acknowledged: {0}")]
    Broken(String),
    /// Another process holds the store.
    #[error("the store {path} is in use by another process{}; stop it, or give this one a store of its own",
        pid.map(|p| format!(" (process {p})")).unwrap_or_default())]
    InUse {
        /// The file.
        path: String,
        /// The holder, where it said so.
        pid: Option<u32>,
    },
    /// Written by a newer program.
    #[error(
        "the store {path} has format {found}, this program knows up to {known}: use the newer program, or restore the copy kept at the upgrade"
    )]
    Newer {
        /// The file.
        path: String,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// The lease ran out and somebody else has the repository now: nothing was written.
    #[error("the claim on {0} is no longer held; its work goes on elsewhere")]
    Fenced(Repository),
    /// What is stored cannot be read back.
    #[error("the store is damaged at {what}: {why}; `tidewaiter store verify` tells more")]
    Damaged {
        /// Where.
        what: &'static str,
        /// The fault.
        why: String,
    },
    /// The store cannot lie where it was asked to: no such place, no permission, not a file.
    #[error("the store {path} cannot be opened: {why}")]
    Unusable {
        /// The file.
        path: String,
        /// The fault.
        why: String,
    },
    /// A listing's cursor that no listing of this store gave out.
    #[error("`{0}` is not a cursor of this listing: use `next` of the page before, as it is")]
    Cursor(String),
    /// An acceptance of a digest that the tag does not have on record.
    #[error("{0} is not what the tag points to on record: see `tidewaiter history`, and accept the digest it has now")]
    NotCurrent(String),
    /// Busy or out of reach for now.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
}

impl StoreError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::BacklogFull { .. } | StoreError::DiskFull | StoreError::Unavailable(_))
    }
}

/// An event as intake hands it over: authentic, normalised, its registry known.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The source's configured name.
    pub source: Arc<str>,
    /// The repository at its configured registry.
    pub repository: Repository,
    /// What the sender said.
    pub event: Event,
    /// What makes a redelivery the same: the sender's id where it has a stable one, else a hash of the content.
    pub key: String,
    /// When it was received.
    pub received_at: Timestamp,
}

/// An authentic body that could not be read, or that names what the configuration does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in the store; 0 before it is stored.
    pub id: i64,
    /// The source's configured name.
    pub source: Arc<str>,
    /// When it was received.
    pub received_at: Timestamp,
    /// The fault, for people.
    pub fault: String,
    /// Content type, and for formats that need them the few headers that carry meaning; never credentials.
    pub headers: Vec<(String, String)>,
    /// The raw bytes.
    pub body: Arc<[u8]>,
}

/// How many of the events handed over were new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// New, now on disk.
    pub recorded: u32,
    /// On disk already.
    pub duplicate: u32,
}

/// A recorded event that waits to be judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// Its number in the store, in order of arrival.
    pub id: i64,
    /// What was handed over.
    pub incoming: Incoming,
    /// How often it was tried.
    pub attempts: u32,
}

/// A tag to be judged again at a time: a waiting time runs out, an answer was undetermined, a policy
/// changed, a sweep found a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recheck {
    /// The tag; `None` for the whole repository's expectations.
    pub tag: Option<Tag>,
    /// When.
    pub due: Timestamp,
    /// Why.
    pub origin: Origin,
    /// How often it was tried since it was last determined.
    pub attempts: u32,
}

/// One repository's waiting work, claimed by one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The repository.
    pub repository: Repository,
    /// Grows with each claim; a completing write with an older one is refused.
    pub fence: u64,
    /// Its events, oldest first, at most the number asked for.
    pub events: Vec<Queued>,
    /// Its rechecks that are due, earliest first, at most the number asked for.
    pub rechecks: Vec<Recheck>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventEnd {
    /// Judged, or found to change nothing.
    Judged,
    /// To be tried again at a time, because of a fault.
    Retry {
        /// When.
        at: Timestamp,
        /// The fault, for people.
        fault: String,
    },
    /// Not understood or not to be helped; kept for people.
    Dead {
        /// The fault, for people.
        fault: String,
    },
}

/// What a piece of content is read as. The same bytes may be asked for as either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// A manifest or index.
    Manifest,
    /// An image config.
    Config,
}

/// A manifest or config to keep: content, fetched once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The digest, verified.
    pub digest: Digest,
    /// Which of the two it was fetched as.
    pub kind: ContentKind,
    /// The media type it was served as; empty where none was said, and for configs.
    pub media_type: String,
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// The digests that it lists, for an index.
    pub children: Vec<Digest>,
}

/// What is now known of one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagUpdate {
    /// The tag.
    pub tag: Tag,
    /// Its whole evidence, tidied; replaces what is stored.
    pub sightings: Vec<Sighting>,
    /// What it has now.
    pub current: Option<Digest>,
    /// Whether the registry's write locks were set when they were last read; `None` where it has none or did not say.
    pub locked: Option<bool>,
    /// Where it stands in the lines of the policies in which it counts; replaces what is stored.
    pub lines: Vec<LineKey>,
    /// How many moves its history had when it was judged.
    pub judged_moves: u32,
}

/// A verdict as it is recorded, with its rendering: what listings return later, whatever the program is then.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Its JSON object of the report.
    pub report: String,
}

/// Everything that one step changes in one repository: written whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Content fetched.
    pub contents: Vec<Content>,
    /// Tags seen.
    pub tags: Vec<TagUpdate>,
    /// Where the policies changed: those that govern the repository now. The verdicts of all others are removed, and
    /// those on what classes lack, which are reached anew.
    pub governing: Option<Vec<Arc<str>>>,
    /// Tags of which only more evidence is known: all of it, oldest first. Everything else of them stays.
    pub sighted: Vec<(Tag, Vec<Sighting>)>,
    /// Write locks read: of tags that lead to these digests, after what `tags` says of them.
    pub locks: Vec<(Tag, Digest, bool)>,
    /// Verdicts reached.
    pub verdicts: Vec<Judged>,
    /// Violations entered, changed or resolved, each with the edges to announce.
    pub changes: Vec<Change>,
    /// The sinks that each announced edge goes to, by name, with the message built for it.
    pub alerts: Vec<NewAlert>,
    /// What became of which events.
    pub events: Vec<(i64, EventEnd)>,
    /// Rechecks done: removed, unless they were asked for again since the claim.
    pub rechecked: Vec<Option<Tag>>,
    /// Rechecks wanted; an earlier due time for the same tag wins.
    pub rechecks: Vec<Recheck>,
    /// Manifests that the registry says it no longer has: their bytes stay, and are no answer any more until
    /// they were fetched again.
    pub gone: Vec<Digest>,
}

/// An alert for the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAlert {
    /// The sink's configured name.
    pub sink: Arc<str>,
    /// Idempotency key: the same edge of the same violation has the same one, whichever replica sees it.
    pub key: String,
    /// The alert, as the sink's room reads it (JSON).
    pub body: String,
}

/// An alert that waits to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxItem {
    /// Its number in the store, in order.
    pub id: i64,
    /// What was handed over.
    pub alert: NewAlert,
    /// How often it was tried.
    pub attempts: u32,
}

/// Which violations to list.
#[derive(Debug, Clone, Default)]
pub struct ViolationFilter {
    /// Only these states; empty means pending and firing.
    pub states: Vec<State>,
    /// Only this registry.
    pub registry: Option<Host>,
    /// Only this repository name.
    pub repository: Option<String>,
    /// Only this policy.
    pub policy: Option<String>,
}

/// A page of a listing, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page.
    pub next: Option<String>,
}

/// Where a listing goes on, and how much of it is wanted (at most 1,000).
#[derive(Debug, Clone, Default)]
pub struct Paging {
    /// The cursor of the page before.
    pub cursor: Option<String>,
    /// How many.
    pub limit: usize,
}

/// A recorded event as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Its number in the store.
    pub number: i64,
    /// The sender's id, where it gave one.
    pub id: Option<String>,
    /// The source.
    pub source: String,
    /// Whether that source takes events from anybody: nobody vouches for what it says. The configuration knows, the
    /// store does not, and says `false`.
    pub unauthenticated: bool,
    /// When it was received.
    pub received_at: Timestamp,
    /// What the sender said happened.
    pub action: Action,
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Option<Tag>,
    /// The digest.
    pub digest: Option<Digest>,
    /// `queued`, `judged`, `retrying`, `dead`.
    pub state: String,
    /// The last fault, while retrying or dead.
    pub fault: Option<String>,
}

/// A violation with its repository, as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViolationRow {
    /// The repository.
    pub repository: Repository,
    /// The violation.
    pub violation: Violation,
}

/// How many violations there are of one kind, for the gauge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ViolationCount {
    /// The policy.
    pub policy: String,
    /// The requirement.
    pub rule: crate::policy::Rule,
    /// The severity.
    pub severity: crate::policy::Severity,
    /// Pending or firing.
    pub state: State,
    /// How many.
    pub count: u64,
}

/// Figures of the store, read cheaply for `/metrics`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Events waiting.
    pub queued: u64,
    /// When the oldest of them was received.
    pub oldest: Option<Timestamp>,
    /// Dead letters kept.
    pub dead_letters: u64,
    /// Tags, and repositories as a whole, that wait to be judged again from the record.
    pub rejudging: u64,
    /// Open violations by kind.
    pub violations: Vec<ViolationCount>,
    /// Alerts waiting, by sink.
    pub outbox: Vec<(String, u64)>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes that the disk still has for it; `None` where that cannot be told.
    pub available: Option<u64>,
}

/// How long and how much is kept of what only grows. Tag histories, open violations and what tags lead or ever led
/// to are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events that are done with; redeliveries within this time are known as duplicates.
    pub events: Duration,
    /// And at most this many of the newest; waiting ones are always kept.
    pub events_max: u64,
    /// Dead letters.
    pub dead_letters: Duration,
    /// And at most this many of the newest.
    pub dead_letters_max: u64,
    /// The latest verdicts of tags that are gone, since they were judged; and violations, since they were over.
    pub verdicts: Duration,
    /// And at most this many verdicts and this many violations, the newest; verdicts of tags that are there and
    /// open violations are kept beyond it.
    pub verdicts_max: u64,
    /// Manifests and configs that no tag ever on record leads to, since they were fetched.
    pub contents: Duration,
    /// Where all manifests and configs are more bytes than this, the same are kept half as long, and half of that,
    /// until they are not.
    pub contents_bytes_max: u64,
}

impl Default for Retention {
    /// A month of events outlasts every sender's retries, and ten million take about 4 GiB; the rest is for
    /// people who look later.
    fn default() -> Retention {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Retention {
            events: DAY * 30,
            events_max: 10_000_000,
            dead_letters: DAY * 90,
            dead_letters_max: 10_000,
            verdicts: DAY * 400,
            verdicts_max: 1_000_000,
            contents: DAY * 90,
            contents_bytes_max: 8 << 30,
        }
    }
}

/// What pruning removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Events.
    pub events: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Verdicts.
    pub verdicts: u64,
    /// Violations.
    pub violations: u64,
    /// Manifests and configs.
    pub contents: u64,
}

/// The record. All methods may be called from any task.
pub trait Store: Send + Sync + 'static {
    /// Puts events and dead letters on disk, and returns once they are there (group commit). An event whose
    /// (repository, source, key) is on record is a duplicate and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::BacklogFull`], [`StoreError::DiskFull`], [`StoreError::Broken`]: then nothing of it may be acknowledged.
    fn append(
        &self,
        events: Vec<Incoming>,
        dead: Vec<DeadLetter>,
    ) -> impl Future<Output = Result<Appended, StoreError>> + Send;

    /// Claims up to `repositories` repositories that have events queued (whose retry time has come) or
    /// rechecks due at `now`, each for `lease`, with up to `events` events and as many rechecks each. Sources take
    /// turns, and so do retries and rechecks; within a turn the oldest comes first.
    fn claim(
        &self,
        now: Timestamp,
        repositories: usize,
        events: usize,
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<Claim>, StoreError>> + Send;

    /// Waits until there may be something to claim: an append, a step that wants a recheck, a due time, or
    /// `at_most` has passed.
    fn work(&self, now: Timestamp, at_most: Duration) -> impl Future<Output = ()> + Send;

    /// Writes one step in one transaction and gives the claim back unless `keep`.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim was lost: nothing was written.
    fn complete(&self, claim: &Claim, step: Step, keep: bool) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives a claim back with nothing of it done, and keeps it from being claimed before `until`; a new event
    /// of the repository may come before.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the claim was lost.
    fn put_off(&self, claim: &Claim, until: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Answers questions from the record: tags, lines, tagged, parents, and manifests and configs on record.
    /// A manifest or config that is not on record, is known to be gone from the registry, or was damaged on
    /// disk, is simply missing from the result: the registry is asked. Lines hold tags that are
    /// there now and lead to an image; [`Span::All`](crate::policy::Span) those that lead to anything.
    fn answer(
        &self,
        repository: &Repository,
        questions: Vec<Question>,
    ) -> impl Future<Output = Result<Vec<(Question, Answer)>, StoreError>> + Send;

    /// Open violations of a repository for these tags (`None`: tagless ones).
    fn open_violations(
        &self,
        repository: &Repository,
        tags: Vec<Option<Tag>>,
    ) -> impl Future<Output = Result<Vec<Violation>, StoreError>> + Send;

    /// All tags of a repository on record, in name order after `after`, with their record.
    fn tags(
        &self,
        repository: &Repository,
        after: Option<Tag>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Tag, TagRecord)>, StoreError>> + Send;

    /// The repositories on record, in order after `after`, of one registry or of all.
    fn repositories(
        &self,
        registry: Option<&Host>,
        after: Option<Repository>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Repository>, StoreError>> + Send;

    /// Manifests, in order after `after`, that an index lists to which a tag leads now, without those known to be
    /// gone: what a sweep asks the registry about.
    fn listed(
        &self,
        repository: &Repository,
        after: Option<Digest>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Digest>, StoreError>> + Send;

    /// Takes note of manifests that the registry says it no longer has, as [`Step::gone`] does.
    fn gone(
        &self,
        repository: &Repository,
        digests: Vec<Digest>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Wants tags of a repository judged again.
    fn recheck(
        &self,
        repository: &Repository,
        rechecks: Vec<Recheck>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes a tag's digest as its new baseline, with the reason and who said so.
    fn accept(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        reason: &str,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Lists violations, newest first.
    fn violations(
        &self,
        filter: ViolationFilter,
        paging: Paging,
    ) -> impl Future<Output = Result<Page<ViolationRow>, StoreError>> + Send;

    /// Lists the latest verdict of each tag that matches, newest first, as report JSON (one object each).
    fn verdicts(
        &self,
        registry: Option<Host>,
        repository: Option<String>,
        tag: Option<Tag>,
        paging: Paging,
    ) -> impl Future<Output = Result<Page<String>, StoreError>> + Send;

    /// Lists events, newest first.
    fn events(
        &self,
        since: Option<Timestamp>,
        source: Option<String>,
        id: Option<String>,
        paging: Paging,
    ) -> impl Future<Output = Result<Page<EventRow>, StoreError>> + Send;

    /// Lists dead letters, newest first.
    fn dead_letters(&self, paging: Paging) -> impl Future<Output = Result<Page<DeadLetter>, StoreError>> + Send;

    /// Removes a dead letter, after it was read at last or given up.
    fn forget_dead_letter(&self, id: i64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Alerts that are due for one sink, in order, at most `limit`.
    fn outbox(
        &self,
        sink: &str,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxItem>, StoreError>> + Send;

    /// Waits until an alert may be due, or `at_most` has passed.
    fn outbox_work(&self, now: Timestamp, at_most: Duration) -> impl Future<Output = ()> + Send;

    /// Removes delivered (or finally refused) alerts.
    fn outbox_done(&self, ids: Vec<i64>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Puts an alert off to a later time.
    fn outbox_retry(&self, id: i64, at: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Adds an alert about the daemon itself, or a test message.
    fn outbox_add(&self, alerts: Vec<NewAlert>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A named value of the daemon's own: cursors of sweeps, the hash of the policies last judged with.
    fn get(&self, name: &str) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Sets a named value.
    fn set(&self, name: &str, value: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Figures for `/metrics`.
    fn stats(&self) -> impl Future<Output = Result<Stats, StoreError>> + Send;

    /// Whether a durable write succeeds now.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes what retention lets go of, little by little, so that appends and steps go on meanwhile.
    fn prune(&self, retention: Retention, now: Timestamp) -> impl Future<Output = Result<Pruned, StoreError>> + Send;

    /// Waits until nothing more can be acknowledged, and says why: the process must then end.
    fn broken(&self) -> impl Future<Output = String> + Send;
}
