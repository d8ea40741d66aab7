//! The embedded store: one SQLite file, one process, one writer.
//!
//! It may touch the file, what lies beside it (`FILE-wal`, `FILE-shm`, `FILE.journal-a` and `-b`, `FILE.lock`, `FILE.reserve`,
//! copies kept at an upgrade), and threads of its own. It never opens a connection, reads a clock to decide anything, or stores a credential.

mod answer;
mod codec;
mod entry;
mod fault;
mod file;
mod filer;
mod frame;
mod journal;
mod list;
mod maintain;
mod outbox;
mod queue;
mod read_only;
mod reader;
mod schema;
mod step;
mod totals;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Notify, oneshot, watch};

pub use self::maintain::{Info, Verification};
pub use self::read_only::ReadOnly;

use self::entry::Entries;
use self::filer::Filer;
use self::journal::{Front, Journal, Sizes};
use self::maintain::Old;
use self::queue::{Backlog, Turns};
use self::reader::Readers;
use self::totals::Totals;
use self::writer::{Order, Room, Shared, Task, Threads, Writing};
use super::*;

/// Most entries of the journal that are filed before a claim, so that none waits for all that a day of silence has left.
const FILED_FOR_A_CLAIM: usize = 32_768;

/// How the store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most events that wait; more are refused.
    pub backlog_events: u64,
    /// Most bytes, roughly, of events that wait.
    pub backlog_bytes: u64,
    /// Bytes kept back for when the disk is full, so that what is on record can still be judged and told; 0 keeps
    /// none. While there is no room to keep them, events are refused.
    pub reserve_bytes: u64,
    /// Most bytes of the file, rounded to pages, and of each file of its journal; as if the disk were full there.
    /// `None`: as the disk allows.
    pub file_bytes_max: Option<u64>,
}

impl Default for Options {
    /// A day of a busy registry may wait (a million events, or 2 GiB); the reserve of 64 MiB takes some 10,000 steps.
    fn default() -> Options {
        Options { backlog_events: 1_000_000, backlog_bytes: 2 << 30, reserve_bytes: 64 << 20, file_bytes_max: None }
    }
}

/// The store in one SQLite file, or in memory. Dropping it finishes what waits, leaves the file whole without
/// its log, and blocks meanwhile.
pub struct EmbeddedStore {
    // In this order they end: readers, what takes in, what writes, and at last the lock.
    readers: Option<Arc<Readers>>,
    journal: Option<Journal>,
    threads: Threads,
    shared: Arc<Shared>,
    turns: Arc<Mutex<Turns>>,
    backlog: Backlog,
    path: Option<PathBuf>,
    _lock: Option<File>,
}

impl EmbeddedStore {
    /// Opens the store at `path` for this process alone, made if it is missing, brought to the newest format
    /// (with a copy of an older one kept as `FILE.before-vN`).
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], [`StoreError::Damaged`], [`StoreError::Unusable`].
    pub fn open(path: &Path, options: Options) -> Result<EmbeddedStore, StoreError> {
        Self::open_with(path, options, Sizes::new(options.file_bytes_max))
    }

    fn open_with(path: &Path, options: Options, sizes: Sizes) -> Result<EmbeddedStore, StoreError> {
        file::create(path)?;
        let path = &file::resolve(path);
        failpoint!("store-created");
        let lock = file::lock(path)?;
        failpoint!("store-locked");
        if let Some(kind) = file::network_file_system(path) {
            tracing::warn!(path = %path.display(), kind, "the store lies on a network file system, whose locks and syncs are not to be relied on");
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags)?;
        schema::check(&conn, path, schema::STEPS)?;
        schema::set_up_writer(&conn)?;
        schema::migrate(&mut conn, Some(path), schema::STEPS)?;
        failpoint!("store-migrated");
        if let Some(bytes) = options.file_bytes_max {
            let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
            conn.pragma_update(None, "max_page_count", (bytes as i64 / page).max(1))?;
        }
        let reserve = file::Reserve::take(path, options.reserve_bytes);
        let shared = Self::released(&conn, Some(reserve))?;
        let (journal, cursor) = Journal::open(path, &conn, sizes, Backlog::of(options), shared.clone())?;
        let filer = Filer::new(path, &conn, shared.front.clone(), cursor)?;
        Ok(EmbeddedStore {
            readers: Some(Arc::new(Readers::open(path)?)),
            journal: Some(journal),
            threads: Threads::start(conn, Some(path.to_owned()), Some(filer), shared.clone())?,
            shared,
            turns: Arc::default(),
            backlog: Backlog::of(options),
            path: Some(path.to_owned()),
            _lock: Some(lock),
        })
    }

    /// A store that ends with the process: for tests, and for judging without a record of one's own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no thread can be had.
    pub fn open_in_memory(options: Options) -> Result<EmbeddedStore, StoreError> {
        let mut conn = Connection::open_in_memory()?;
        schema::set_up_writer(&conn)?;
        schema::migrate(&mut conn, None, schema::STEPS)?;
        let shared = Self::released(&conn, None)?;
        Ok(EmbeddedStore {
            readers: None,
            journal: None,
            threads: Threads::start(conn, None, None, shared.clone())?,
            shared,
            turns: Arc::default(),
            backlog: Backlog::of(options),
            path: None,
            _lock: None,
        })
    }

    /// Gives back what an ended process held, and counts all there is.
    fn released(conn: &Connection, reserve: Option<file::Reserve>) -> Result<Arc<Shared>, StoreError> {
        failpoint!("claims-released-before");
        queue::release_all(conn)?;
        failpoint!("claims-released");
        Ok(Arc::new(Shared {
            totals: Mutex::new(Totals::count(conn)?),
            work: Notify::new(),
            deliver: Notify::new(),
            broken: watch::Sender::new(None),
            told: OnceLock::new(),
            room: reserve.map(|reserve| Mutex::new(Room::new(reserve))),
            front: Arc::new(Front::default()),
        }))
    }

    /// Has `told` hear how long each durable commit takes. Called once at most; a second call changes nothing.
    pub fn on_commit(&self, told: impl Fn(Duration) + Send + Sync + 'static) {
        let _ = self.shared.told.set(Box::new(told));
    }

    /// What a store holds; needs no lock.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`], but never [`StoreError::InUse`].
    pub fn info(path: &Path) -> Result<Info, StoreError> {
        maintain::info(&file::resolve(path))
    }

    /// The first `limit` repositories on record; needs no lock.
    ///
    /// # Errors
    /// As [`EmbeddedStore::info`].
    pub fn known(path: &Path, limit: usize) -> Result<Vec<Repository>, StoreError> {
        maintain::known(&file::resolve(path), limit)
    }

    /// Reads everything in a store and says what is wrong; needs no lock.
    ///
    /// # Errors
    /// When the file cannot be opened at all.
    pub fn verify(path: &Path) -> Result<Verification, StoreError> {
        maintain::verify(&file::resolve(path))
    }

    /// Copies a store as of this moment into a new file, readable by its owner only; needs no lock.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the target is there already or cannot be written.
    pub fn backup(path: &Path, target: &Path) -> Result<(), StoreError> {
        maintain::backup(&file::resolve(path), target)
    }

    /// Writes: waits for a place in the queue, and for the commit.
    async fn write<T, F>(&self, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writing<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_with(true, function).await
    }

    async fn write_with<T, F>(&self, lasting: bool, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writing<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (to, result) = oneshot::channel();
        let piece = Box::new(Task { function: Some(function), result: None, to });
        self.order(Order::Write { lasting, piece }).await?;
        result.await.map_err(|_| self.ended())?
    }

    /// Reads from one moment of the record.
    async fn read<T, F>(&self, function: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        if let Some(readers) = &self.readers {
            return readers.read(function).await;
        }
        let (to, result) = oneshot::channel();
        let read = Box::new(move |conn: &Connection| {
            // Who no longer waits needs no answer.
            let _ = to.send(function(conn));
        });
        self.order(Order::Read(read)).await?;
        result.await.map_err(|_| self.ended())?
    }

    /// Has all that was acknowledged filed, for a listing that must have it.
    async fn settle(&self) -> Result<(), StoreError> {
        if !self.shared.front.waits() {
            return Ok(());
        }
        let (to, done) = oneshot::channel();
        self.order(Order::Settle(to)).await?;
        done.await.map_err(|_| self.ended())
    }

    async fn order(&self, order: Order) -> Result<(), StoreError> {
        let orders = self.threads.orders().ok_or_else(|| self.ended())?;
        orders.send(order).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> StoreError {
        StoreError::Broken(self.shared.broken.borrow().clone().unwrap_or_else(|| "its writer has ended".into()))
    }

    /// Waits for `notify`, the time that `next` names, or `at_most`; `next` is asked after the wait began, so that
    /// nothing that comes in between is missed.
    async fn wait<F>(&self, notify: &Notify, next: F, now: Timestamp, at_most: Duration)
    where
        F: FnOnce(&Connection) -> Result<Option<Timestamp>, StoreError> + Send + 'static,
    {
        let notified = notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        let due = self.read(next).await.ok().flatten();
        // A time in the past has come; what cannot be read is looked for again after `at_most`.
        let until = due.map_or(at_most, |due| Duration::try_from(now.duration_until(due)).unwrap_or_default());
        let until = until.min(at_most);
        if !until.is_zero() {
            let _ = tokio::time::timeout(until, notified).await;
        }
    }

    /// Finds rows beside the writer and removes them in small pieces.
    async fn prune_rows<F>(&self, find: F, old: Old, sql: &'static str, dead: bool) -> Result<u64, StoreError>
    where
        F: Fn(&Connection, Old, i64) -> Result<Vec<i64>, StoreError> + Copy + Send + 'static,
    {
        let (mut after, mut removed) = (i64::MIN, 0);
        loop {
            let found = self.read(move |conn| find(conn, old, after)).await?;
            let Some(last) = found.last() else { return Ok(removed) };
            after = *last;
            removed += self
                .write(move |w| {
                    let removed = maintain::remove(w.conn, sql, &found)?;
                    if dead {
                        w.change.dead_letters -= removed as i64;
                    }
                    Ok(removed)
                })
                .await?;
        }
    }

    /// Removes contents that were kept long enough, and where there are still too many bytes, those kept half as long,
    /// and so on. Each time all that tags lead to is found anew, so it is done a few times at most.
    async fn prune_contents_to_fit(&self, retention: Retention, now: Timestamp) -> Result<u64, StoreError> {
        const SHORTEST: Duration = Duration::from_secs(60 * 60);
        const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let mut keep = retention.contents;
        let mut removed = 0;
        loop {
            removed += self.prune_contents(now.checked_sub(keep).unwrap_or(Timestamp::MIN)).await?;
            // A file that is smaller than the limit holds less than it; then nothing is counted.
            let file = self.path.as_deref().and_then(|path| std::fs::metadata(path).ok()).map(|m| m.len());
            if keep.is_zero() || file.is_some_and(|bytes| bytes <= retention.contents_bytes_max) {
                return Ok(removed);
            }
            if self.read(maintain::content_bytes).await? <= retention.contents_bytes_max {
                return Ok(removed);
            }
            keep = if keep > SHORTEST { (keep / 2).min(LONGEST) } else { Duration::ZERO };
        }
    }

    async fn prune_contents(&self, before: Timestamp) -> Result<u64, StoreError> {
        let (mut repo, mut removed) = (0, 0);
        while let Some(next) = self.read(move |conn| maintain::next_repo(conn, repo)).await? {
            repo = next;
            let found = self.read(move |conn| maintain::unreferenced(conn, repo, before)).await?;
            for ids in found.chunks(maintain::PRUNE_ROWS) {
                let ids = ids.to_vec();
                removed += self.write(move |w| maintain::remove_contents(w.conn, &ids)).await?;
            }
        }
        Ok(removed)
    }
}

impl Store for EmbeddedStore {
    async fn append(&self, events: Vec<Incoming>, dead: Vec<DeadLetter>) -> Result<Appended, StoreError> {
        if let Some(journal) = &self.journal {
            return journal.append(&events, &dead).await;
        }
        let backlog = self.backlog;
        let entries = journal::plain_entries(&events, &dead)?;
        self.write(move |w| {
            let (appended, _) = queue::file(w, Entries::of(&entries))?;
            if appended.recorded > 0 {
                let waiting = |totals: &Totals| (totals.queued.max(0) as u64, totals.queued_bytes.max(0) as u64);
                let (before, more) = (waiting(w.totals), waiting(&w.change));
                backlog.admit(before.0 + more.0, before.1 + more.1, before.0)?;
            }
            Ok(appended)
        })
        .await
    }

    async fn claim(
        &self,
        now: Timestamp,
        repositories: usize,
        events: usize,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError> {
        if self.shared.front.waits() {
            // Of the repositories claimed, all that waits.
            self.order(Order::File(repositories.saturating_mul(events).min(FILED_FOR_A_CLAIM))).await?;
        }
        let turns = self.turns.clone();
        self.write_with(false, move |w| {
            let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
            queue::claim(w, &mut turns, now, repositories, events, lease)
        })
        .await
    }

    async fn work(&self, now: Timestamp, at_most: Duration) {
        let front = self.shared.front.clone();
        let next = move |conn: &Connection| if front.flows() { Ok(Some(now)) } else { queue::next_ready(conn) };
        self.wait(&self.shared.work, next, now, at_most).await;
    }

    async fn complete(&self, claim: &Claim, step: Step, keep: bool) -> Result<(), StoreError> {
        // Only who and which number: the events of the claim are not looked at again.
        let claim = Claim {
            repository: claim.repository.clone(),
            fence: claim.fence,
            events: Vec::new(),
            rechecks: Vec::new(),
        };
        self.write(move |w| step::complete(w, &claim, &step, keep)).await
    }

    async fn put_off(&self, claim: &Claim, until: Timestamp) -> Result<(), StoreError> {
        let (repository, fence) = (claim.repository.clone(), claim.fence);
        self.write(move |w| step::put_off(w, &repository, fence, until)).await
    }

    async fn answer(
        &self,
        repository: &Repository,
        questions: Vec<Question>,
    ) -> Result<Vec<(Question, Answer)>, StoreError> {
        let repository = repository.clone();
        self.read(move |conn| answer::answer(conn, &repository, questions)).await
    }

    async fn open_violations(
        &self,
        repository: &Repository,
        tags: Vec<Option<Tag>>,
    ) -> Result<Vec<Violation>, StoreError> {
        let repository = repository.clone();
        self.read(move |conn| answer::open_violations(conn, &repository, &tags)).await
    }

    async fn tags(
        &self,
        repository: &Repository,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Vec<(Tag, TagRecord)>, StoreError> {
        let repository = repository.clone();
        self.read(move |conn| answer::tags(conn, &repository, after.as_ref(), limit)).await
    }

    async fn repositories(
        &self,
        registry: Option<&Host>,
        after: Option<Repository>,
        limit: usize,
    ) -> Result<Vec<Repository>, StoreError> {
        let registry = registry.cloned();
        self.read(move |conn| list::repositories(conn, registry.as_ref(), after.as_ref(), limit)).await
    }

    async fn listed(
        &self,
        repository: &Repository,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>, StoreError> {
        let repository = repository.clone();
        self.read(move |conn| answer::listed(conn, &repository, after.as_ref(), limit)).await
    }

    async fn gone(&self, repository: &Repository, digests: Vec<Digest>) -> Result<(), StoreError> {
        let repository = repository.clone();
        self.write(move |w| step::gone(w, &repository, &digests)).await
    }

    async fn recheck(&self, repository: &Repository, rechecks: Vec<Recheck>) -> Result<(), StoreError> {
        let repository = repository.clone();
        self.write(move |w| queue::recheck(w, &repository, &rechecks)).await
    }

    async fn accept(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (repository, tag, digest, reason) = (repository.clone(), tag.clone(), digest.clone(), reason.to_owned());
        self.write(move |w| step::accept(w, &repository, &tag, &digest, &reason, now)).await
    }

    async fn violations(&self, filter: ViolationFilter, paging: Paging) -> Result<Page<ViolationRow>, StoreError> {
        self.read(move |conn| list::violations(conn, &filter, &paging)).await
    }

    async fn verdicts(
        &self,
        registry: Option<Host>,
        repository: Option<String>,
        tag: Option<Tag>,
        paging: Paging,
    ) -> Result<Page<String>, StoreError> {
        self.read(move |conn| list::verdicts(conn, registry.as_ref(), repository.as_deref(), tag.as_ref(), &paging))
            .await
    }

    async fn events(
        &self,
        since: Option<Timestamp>,
        source: Option<String>,
        id: Option<String>,
        paging: Paging,
    ) -> Result<Page<EventRow>, StoreError> {
        self.settle().await?;
        self.read(move |conn| list::events(conn, since, source.as_deref(), id.as_deref(), &paging)).await
    }

    async fn dead_letters(&self, paging: Paging) -> Result<Page<DeadLetter>, StoreError> {
        self.settle().await?;
        self.read(move |conn| list::dead_letters(conn, &paging)).await
    }

    async fn forget_dead_letter(&self, id: i64) -> Result<(), StoreError> {
        self.write(move |w| {
            w.change.dead_letters -= maintain::remove(w.conn, FORGET_DEAD_LETTER, &[id])? as i64;
            Ok(())
        })
        .await
    }

    async fn outbox(&self, sink: &str, now: Timestamp, limit: usize) -> Result<Vec<OutboxItem>, StoreError> {
        let sink = sink.to_owned();
        self.read(move |conn| outbox::due(conn, &sink, now, limit)).await
    }

    async fn outbox_work(&self, now: Timestamp, at_most: Duration) {
        self.wait(&self.shared.deliver, outbox::next_due, now, at_most).await;
    }

    async fn outbox_done(&self, ids: Vec<i64>) -> Result<(), StoreError> {
        self.write(move |w| outbox::done(w, &ids)).await
    }

    async fn outbox_retry(&self, id: i64, at: Timestamp) -> Result<(), StoreError> {
        self.write(move |w| outbox::retry(w, id, at)).await
    }

    async fn outbox_add(&self, alerts: Vec<NewAlert>) -> Result<(), StoreError> {
        self.write(move |w| outbox::add(w, &alerts)).await
    }

    async fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.read(move |conn| outbox::setting(conn, &name)).await
    }

    async fn set(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.write(move |w| outbox::set(w.conn, &name, &value)).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let oldest = self.read(list::oldest).await?;
        let unfiled = *self.shared.front.position();
        // Longer than since then nothing there can have waited.
        let oldest = [oldest, unfiled.since.map(codec::time)].into_iter().flatten().min();
        let totals = self.shared.totals().clone();
        let unsigned = |count: i64| count.max(0) as u64;
        let kind = |((policy, rule, severity, state), count): (totals::Kind, i64)| ViolationCount {
            policy,
            rule,
            severity,
            state,
            count: unsigned(count),
        };
        let beside = |path| ["", "-wal", journal::FILES[0], journal::FILES[1]].map(|name| file::beside(path, name));
        let bytes = self.path.as_deref().into_iter().flat_map(beside);
        Ok(Stats {
            queued: unsigned(totals.queued) + unfiled.events,
            oldest,
            dead_letters: unsigned(totals.dead_letters) + unfiled.dead_letters(),
            rejudging: unsigned(totals.rejudging),
            violations: totals.violations.into_iter().map(kind).collect(),
            outbox: totals.outbox.into_iter().map(|(sink, count)| (sink, unsigned(count))).collect(),
            bytes: bytes.filter_map(|path| std::fs::metadata(path).ok()).map(|m| m.len()).sum(),
            available: self.path.as_deref().and_then(file::available),
        })
    }

    async fn probe(&self) -> Result<(), StoreError> {
        // Asked for as intake is: a store that refuses events is not ready.
        self.append(Vec::new(), Vec::new()).await?;
        self.write(|w| outbox::set(w.conn, "probe", "")).await
    }

    async fn prune(&self, retention: Retention, now: Timestamp) -> Result<Pruned, StoreError> {
        let before = |keep: Duration| now.checked_sub(keep).unwrap_or(Timestamp::MIN);
        let old = |keep, newest| Old { before: before(keep), newest };
        let events = old(retention.events, retention.events_max);
        let dead_letters = old(retention.dead_letters, retention.dead_letters_max);
        let verdicts = old(retention.verdicts, retention.verdicts_max);
        let pruned = Pruned {
            events: self.prune_rows(maintain::old_events, events, FORGET_EVENT, false).await?,
            dead_letters: self.prune_rows(maintain::old_dead_letters, dead_letters, FORGET_DEAD_LETTER, true).await?,
            verdicts: self.prune_rows(maintain::old_verdicts, verdicts, FORGET_VERDICT, false).await?,
            violations: self.prune_rows(maintain::old_violations, verdicts, FORGET_VIOLATION, false).await?,
            contents: self.prune_contents_to_fit(retention, now).await?,
        };
        while self.write(|w| maintain::vacuum(w.conn)).await? {}
        Ok(pruned)
    }

    async fn broken(&self) -> String {
        let mut broken = self.shared.broken.subscribe();
        loop {
            if let Some(why) = broken.borrow_and_update().clone() {
                return why;
            }
            if broken.changed().await.is_err() {
                // The sender lives as long as the store.
                std::future::pending::<()>().await;
            }
        }
    }
}

const FORGET_EVENT: &str = "DELETE FROM events WHERE number = ?1 AND state >= 2";
const FORGET_VERDICT: &str = "DELETE FROM verdicts WHERE number = ?1";
const FORGET_VIOLATION: &str = "DELETE FROM violations WHERE number = ?1 AND state = 2";
const FORGET_DEAD_LETTER: &str = "DELETE FROM dead_letters WHERE id = ?1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_a_seek_in_one_index() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn, None, schema::STEPS).unwrap();
        for (sql, parameters, plan) in [
            (answer::ALL, 4, "members USING PRIMARY KEY (repo=? AND line=? AND grp=?)"),
            (answer::HIGHEST, 4, "members USING PRIMARY KEY (repo=? AND line=? AND grp=?)"),
            (answer::BELOW, 5, "members USING PRIMARY KEY (repo=? AND line=? AND grp=? AND rank<?)"),
            (answer::ABOVE, 5, "members USING PRIMARY KEY (repo=? AND line=? AND grp=? AND rank>?)"),
        ] {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let values = vec![1_i64; parameters];
            let lines: Vec<String> = explain
                .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            assert_eq!(lines, [format!("SEARCH {plan}")], "{sql}");
        }
    }

    #[tokio::test]
    async fn t45_after_a_failed_write_nothing_is_acknowledged() {
        let store = EmbeddedStore::open_in_memory(Options::default()).unwrap();
        store.set("a", "1").await.unwrap();
        let failed = store
            .write(|w| {
                outbox::set(w.conn, "a", "2")?;
                Err::<(), _>(StoreError::Broken("disk I/O error".into()))
            })
            .await;
        assert_eq!(failed, Err(StoreError::Broken("disk I/O error".into())));
        assert_eq!(store.broken().await, "disk I/O error");
        assert_eq!(store.probe().await, Err(StoreError::Broken("disk I/O error".into())));
        assert!(matches!(store.append(Vec::new(), Vec::new()).await, Err(StoreError::Broken(_))));
        assert_eq!(store.get("a").await.unwrap().as_deref(), Some("1"));
    }

    #[tokio::test]
    async fn a_piece_that_fails_takes_nobody_with_it() {
        let store = EmbeddedStore::open_in_memory(Options::default()).unwrap();
        let fails = store.write(|w| {
            outbox::set(w.conn, "a", "half")?;
            w.change.queued += 5;
            Err::<(), _>(StoreError::Unavailable("on purpose".into()))
        });
        let (failed, kept) = tokio::join!(fails, store.set("b", "whole"));
        assert!(failed.is_err() && kept.is_ok());
        assert_eq!((store.get("a").await.unwrap(), store.get("b").await.unwrap()), (None, Some("whole".into())));
        assert_eq!(store.stats().await.unwrap().queued, 0);
    }
}
