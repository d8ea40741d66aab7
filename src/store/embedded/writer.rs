//! The one writer: a thread that takes everything waiting, runs each piece in its own savepoint of one
//! transaction, commits once, and only then answers (group commit; one sync pays for all).
//!
//! A second thread brings the log home into the file, so that no commit waits for it. After a failed sync
//! nothing is written any more: what the operating system holds may differ from what it said (T-45).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc as std_mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc::error::TryRecvError::{Disconnected, Empty};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::file::Reserve;
use super::filer::{Filer, Filing};
use super::journal::{self, Front};
use super::schema;
use super::totals::Totals;
use crate::store::StoreError;

/// Pieces of work that wait for the writer before senders of more wait themselves.
const WAITING_MAX: usize = 4_096;
/// Most pieces in one transaction: bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 512;
/// Entries of the journal filed in one transaction while nobody waits for another.
const FILED_AT_ONCE: usize = 1_024;
/// And before a claim: one sync brings many.
const FILED_AT_LEAST: usize = 256;
/// The log is brought home at least this often while something is written.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// And after this many pieces of work.
const CHECKPOINT_PIECES: usize = 4_000;
/// Frames (of about 4 KiB) at which the writer itself ends the log, because it never got the chance to start over.
const LOG_FRAMES_MAX: i64 = 32_768;
/// How long the writer then waits for readers of old frames.
const RESTART_WAIT: Duration = Duration::from_millis(50);
/// How often space for the reserve is looked for while the disk is full.
const REGAIN_EVERY: Duration = Duration::from_secs(1);

/// What a piece of work sees.
pub(super) struct Writing<'a> {
    /// The connection, inside a savepoint.
    pub(super) conn: &'a Connection,
    /// The figures before this piece.
    pub(super) totals: &'a Totals,
    /// What this piece changes of them.
    pub(super) change: Totals,
    /// Whether there is something to claim.
    pub(super) work: bool,
    /// Whether there is something to deliver.
    pub(super) deliver: bool,
}

/// A piece of work that somebody waits for.
pub(super) trait Piece: Send {
    /// Does it; on an error nothing of it is kept.
    fn run(&mut self, writing: &mut Writing<'_>) -> Result<(), StoreError>;
    /// Tells whoever waits: the result when it is on disk, else the fault that kept it from there.
    fn answer(self: Box<Self>, fault: Option<&StoreError>);
}

/// A function as a piece of work, with the way back to who waits for its result.
pub(super) struct Task<T, F> {
    /// The function, until it ran.
    pub(super) function: Option<F>,
    /// What it gave.
    pub(super) result: Option<Result<T, StoreError>>,
    /// Who waits.
    pub(super) to: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Piece for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Writing<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, writing: &mut Writing<'_>) -> Result<(), StoreError> {
        let Some(function) = self.function.take() else { return Ok(()) };
        let result = function(writing);
        let end = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        end
    }

    fn answer(self: Box<Self>, fault: Option<&StoreError>) {
        let result = match (self.result, fault) {
            (Some(Err(own)), _) => Err(own),
            (_, Some(fault)) => Err(fault.clone()),
            (Some(done), None) => done,
            (None, None) => Err(StoreError::Unavailable("the work was not done".into())),
        };
        // Who no longer waits needs no answer.
        let _ = self.to.send(result);
    }
}

/// What the writer is asked for.
pub(super) enum Order {
    /// Something to write.
    Write {
        /// Whether it must be on disk before it is answered. A claim need not: who opens the store after a crash is
        /// alone and finds all work free. Its pages reach the disk with the next commit that must.
        lasting: bool,
        /// The work.
        piece: Box<dyn Piece>,
    },
    /// Something to read on this very connection: a store in memory has no other.
    Read(Box<dyn FnOnce(&Connection) + Send>),
    /// Somebody wants work: file what the journal holds, about so many entries at once and the rest between orders.
    File(usize),
    /// File all that the journal holds now, and say so.
    Settle(oneshot::Sender<()>),
    /// The log has grown too long: start it over.
    Restart,
}

/// Hears how long a durable commit took.
pub(super) type CommitHook = Box<dyn Fn(Duration) + Send + Sync>;

/// What the writer shares with the rest of the store.
pub(super) struct Shared {
    /// The figures as of the last commit.
    pub(super) totals: Mutex<Totals>,
    /// Wakes who waits for something to claim.
    pub(super) work: Notify,
    /// Wakes who waits for something to deliver.
    pub(super) deliver: Notify,
    /// Why nothing more can be acknowledged.
    pub(super) broken: watch::Sender<Option<String>>,
    /// Hears how long each commit took.
    pub(super) told: OnceLock<CommitHook>,
    /// The space kept back; `None` for a store in memory.
    pub(super) room: Option<Mutex<Room>>,
    /// How far the journal is written and filed.
    pub(super) front: Arc<Front>,
}

/// The space kept back, and when it was last looked for.
pub(super) struct Room {
    reserve: Reserve,
    regained_at: Option<Instant>,
}

impl Room {
    pub(super) fn new(reserve: Reserve) -> Room {
        Room { reserve, regained_at: None }
    }

    fn spend(&mut self) {
        self.reserve.spend();
        self.regained_at = Some(Instant::now());
    }

    fn may_grow(&mut self) -> bool {
        if !self.reserve.is_spent() {
            return true;
        }
        if self.regained_at.is_some_and(|at| at.elapsed() < REGAIN_EVERY) {
            return false;
        }
        self.regained_at = Some(Instant::now());
        self.reserve.regain()
    }
}

impl Shared {
    /// Whether there is room for what intake brings.
    pub(super) fn may_grow(&self) -> bool {
        self.with_room(Room::may_grow).unwrap_or(true)
    }

    /// Whether the disk was full when it was last asked, and the reserve is given up.
    fn is_full(&self) -> bool {
        self.with_room(|room| room.reserve.is_spent()).unwrap_or(false)
    }

    /// Gives the reserve up: the disk is full.
    pub(super) fn spend_reserve(&self) {
        self.with_room(Room::spend);
    }

    fn with_room<T>(&self, function: impl FnOnce(&mut Room) -> T) -> Option<T> {
        let room = self.room.as_ref()?;
        Some(function(&mut room.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Tells how long a durable commit took.
    pub(super) fn committed(&self, time: Duration) {
        if let Some(told) = self.told.get() {
            told(time);
        }
    }

    /// The figures, even if somebody panicked while reading them.
    pub(super) fn totals(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more can be acknowledged; the first reason stands.
    pub(super) fn break_with(&self, why: &str) {
        self.broken.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(why.to_owned());
            }
            first
        });
    }
}

/// The running threads.
pub(super) struct Threads {
    orders: Option<mpsc::Sender<Order>>,
    writer: Option<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts the writer over `conn`, and for a file the thread that brings its log home.
    pub(super) fn start(
        conn: Connection,
        file: Option<PathBuf>,
        filer: Option<Filer>,
        shared: Arc<Shared>,
    ) -> Result<Threads, StoreError> {
        let unavailable = |e: std::io::Error| StoreError::Unavailable(format!("no thread for the store: {e}"));
        let (orders, waiting) = mpsc::channel(WAITING_MAX);
        let (nudge, nudged) = std_mpsc::sync_channel(1);
        let mut checkpointer = None;
        if let Some(path) = &file {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let own = Connection::open_with_flags(path, flags)?;
            schema::set_up(&own)?;
            let (shared, orders) = (shared.clone(), orders.downgrade());
            checkpointer = Some(
                Builder::new()
                    .name("store-checkpoint".into())
                    .spawn(move || checkpoint(&own, &nudged, &orders, &shared))
                    .map_err(unavailable)?,
            );
        }
        let totals = shared.totals().clone();
        let mut writer = Writer {
            conn,
            totals,
            shared,
            path: file,
            filer: filer.map(|filer| Arc::new(Mutex::new(filer))),
            asked: false,
            filing: false,
            lasting: false,
            syncs: true,
            nudge,
            since_nudge: 0,
        };
        let writer =
            Builder::new().name("store-writer".into()).spawn(move || writer.run(waiting)).map_err(unavailable)?;
        Ok(Threads { orders: Some(orders), writer: Some(writer), checkpointer })
    }

    /// Hands an order over; `None` after the end.
    pub(super) fn orders(&self) -> Option<&mpsc::Sender<Order>> {
        self.orders.as_ref()
    }
}

impl Drop for Threads {
    /// Lets the writer finish what waits, and the file be whole without its log.
    fn drop(&mut self) {
        drop(self.orders.take());
        for thread in [self.writer.take(), self.checkpointer.take()].into_iter().flatten() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

struct Writer {
    conn: Connection,
    totals: Totals,
    shared: Arc<Shared>,
    path: Option<PathBuf>,
    filer: Option<Arc<Mutex<Filer>>>,
    /// Whether somebody wants work: then the journal is filed to its end, between orders.
    asked: bool,
    /// Whether a portion of the journal is in the group at hand.
    filing: bool,
    /// Whether something in the group at hand must be on disk before it is answered.
    lasting: bool,
    /// Whether commits sync as the connection is set now.
    syncs: bool,
    nudge: std_mpsc::SyncSender<()>,
    since_nudge: usize,
}

/// Says that a thread is gone, however it went.
pub(super) struct Gone {
    pub(super) shared: Arc<Shared>,
    pub(super) what: &'static str,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.break_with(&format!("the {} of the store failed; its message is in the log", self.what));
        }
    }
}

impl Writer {
    fn run(&mut self, mut waiting: mpsc::Receiver<Order>) {
        let _gone = Gone { shared: self.shared.clone(), what: "writer" };
        let mut group = Vec::new();
        loop {
            self.asked &= self.shared.front.flows() && !self.shared.is_full();
            let next = if self.asked { waiting.try_recv() } else { waiting.blocking_recv().ok_or(Disconnected) };
            match next {
                Ok(order) => self.take(order, &mut group),
                Err(Empty) => self.file(FILED_AT_ONCE, &mut group),
                Err(Disconnected) => break,
            }
            while group.len() < GROUP_MAX
                && let Ok(order) = waiting.try_recv()
            {
                self.take(order, &mut group);
            }
            self.commit_all(&mut group);
        }
        self.file_to(u64::MAX, &mut group);
        // The end: a checkpoint that fails now is made up for at the next start.
        failpoint!("last-checkpoint-before");
        let whole = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        failpoint!("last-checkpoint-done");
        let position = *self.shared.front.position();
        if let (Some(path), Ok(0), true) = (&self.path, whole, position.filed == position.next) {
            journal::remove(path);
        }
    }

    fn take(&mut self, order: Order, group: &mut Vec<Box<dyn Piece>>) {
        match order {
            Order::Write { lasting, piece } => {
                self.lasting |= lasting;
                group.push(piece);
            }
            Order::Read(read) => {
                // What was handed over before is there first.
                self.commit_all(group);
                read(&self.conn);
            }
            Order::File(most) if self.shared.is_full() => {
                // What the reserve gave is for what is on record: no more of it than is wanted, and apart from the rest.
                if (self.totals.queued.max(0) as usize) < most {
                    self.commit_all(group);
                    self.file(most, group);
                    self.commit_all(group);
                }
            }
            Order::File(most) => {
                self.asked = true;
                self.file(most.max(FILED_AT_LEAST), group);
            }
            Order::Settle(done) => {
                let next = self.shared.front.position().next;
                self.file_to(next, group);
                // Who no longer waits needs no answer.
                let _ = done.send(());
            }
            Order::Restart => {
                self.commit_all(group);
                self.restart_log();
            }
        }
    }

    /// Adds a portion of the journal to the group.
    fn file(&mut self, most: usize, group: &mut Vec<Box<dyn Piece>>) {
        let Some(filer) = self.filer.clone() else { return };
        if self.filing {
            // It reads on from where the one before has come.
            self.commit_all(group);
        }
        let position = *self.shared.front.position();
        if position.filed == position.next {
            return;
        }
        self.filing = true;
        self.lasting |= filer.lock().unwrap_or_else(PoisonError::into_inner).is_finishing_a_file();
        group.push(Box::new(Filing::new(filer, most)));
    }

    /// Files portions until entries below a number are filed, or it fails.
    fn file_to(&mut self, next: u64, group: &mut Vec<Box<dyn Piece>>) {
        self.commit_all(group);
        loop {
            let before = self.shared.front.position().filed;
            if before >= next {
                return;
            }
            self.file(FILED_AT_ONCE, group);
            self.commit_all(group);
            if self.shared.front.position().filed == before {
                return;
            }
        }
    }

    /// Commits the group in as few transactions as it takes, and answers.
    fn commit_all(&mut self, group: &mut Vec<Box<dyn Piece>>) {
        let mut pieces = std::mem::take(group).into_iter().peekable();
        let lasting = std::mem::take(&mut self.lasting);
        self.filing = false;
        if pieces.peek().is_some() {
            self.sync_commits(lasting);
        }
        while pieces.peek().is_some() {
            if let Some(why) = self.shared.broken.borrow().clone() {
                let fault = StoreError::Broken(why);
                pieces.by_ref().for_each(|piece| piece.answer(Some(&fault)));
                return;
            }
            self.transact(&mut pieces);
        }
    }

    /// Has the next commits sync the log, or leave that to a later one that does.
    fn sync_commits(&mut self, wanted: bool) {
        let wanted = wanted && !cfg!(sabotage = "no_sync");
        if self.syncs == wanted {
            return;
        }
        let mode = if wanted { "full" } else { "normal" };
        failpoint!("sync-mode");
        match self.conn.pragma_update(None, "synchronous", mode) {
            Ok(()) => self.syncs = wanted,
            // Syncing too much does no harm; nothing may be acknowledged that is synced too little.
            Err(_) if !wanted => {}
            Err(e) => self.shared.break_with(&format!("commits cannot be made durable: {e}")),
        }
    }

    /// One transaction: as many pieces as it survives.
    fn transact(&mut self, pieces: &mut impl Iterator<Item = Box<dyn Piece>>) {
        let mut done: Vec<Box<dyn Piece>> = Vec::new();
        let mut totals = self.totals.clone();
        let (mut work, mut deliver, mut written) = (false, false, 0_usize);
        failpoint!("transaction-before");
        let mut fault = self.conn.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from).err();
        for mut piece in pieces {
            if fault.is_some() {
                done.push(piece);
                continue;
            }
            let mut writing =
                Writing { conn: &self.conn, totals: &totals, change: Totals::default(), work: false, deliver: false };
            let began = statement(&self.conn, "SAVEPOINT piece");
            failpoint!("piece-before");
            let result = piece.run(&mut writing);
            failpoint!("piece-run");
            let Writing { change, work: w, deliver: d, .. } = writing;
            done.push(piece);
            let ended = match (began, result) {
                (Ok(()), Ok(())) => statement(&self.conn, "RELEASE piece").map(|()| true),
                (Ok(()), Err(e)) if self.conn.is_autocommit() => Err(e),
                (Ok(()), Err(e)) => {
                    let serious = matches!(e, StoreError::DiskFull | StoreError::Broken(_));
                    let back = statement(&self.conn, "ROLLBACK TO piece")
                        .and_then(|()| statement(&self.conn, "RELEASE piece"));
                    if serious { Err(e) } else { back.map(|()| false) }
                }
                (Err(e), _) => Err(e),
            };
            match ended {
                Ok(true) => {
                    totals.add(change);
                    failpoint!("piece-released");
                    (work, deliver, written) = (work | w, deliver | d, written + 1);
                }
                Ok(false) => {}
                Err(e) => {
                    // The transaction is lost with all that was in it; what comes next gets a new one.
                    fault = Some(e);
                    break;
                }
            }
        }
        let begun = Instant::now();
        failpoint!("commit-before");
        if cfg!(sabotage = "ack_before_sync") {
            done.drain(..).for_each(|piece| piece.answer(fault.as_ref()));
        }
        let fault = fault.or_else(|| self.conn.execute_batch("COMMIT").map_err(StoreError::from).err());
        failpoint!("commit-done");
        if let Some(fault) = &fault {
            self.after(fault);
        } else if written > 0 {
            self.shared.committed(begun.elapsed());
            self.totals = totals;
            *self.shared.totals() = self.totals.clone();
            self.since_nudge += written;
            if self.since_nudge >= CHECKPOINT_PIECES {
                self.since_nudge = 0;
                // Full means that it is told already.
                let _ = self.nudge.try_send(());
            }
        }
        // Woken before it is told, so that nobody who was told wakes for what he did himself.
        if fault.is_none() {
            if work {
                self.shared.work.notify_waiters();
            }
            if deliver {
                self.shared.deliver.notify_waiters();
            }
        }
        failpoint!("answers-before");
        for piece in done {
            piece.answer(fault.as_ref());
        }
        if fault.is_none() && written > 0 && self.syncs {
            let mut position = self.shared.front.position();
            position.for_good = position.filed;
        }
        failpoint!("answers-given");
    }

    /// Leaves the failed transaction, and remembers what the fault means for the next ones.
    fn after(&mut self, fault: &StoreError) {
        if !self.conn.is_autocommit()
            && let Err(e) = self.conn.execute_batch("ROLLBACK")
        {
            self.shared.break_with(&format!("a failed transaction could not be left: {e}"));
        }
        match fault {
            StoreError::Broken(why) => self.shared.break_with(why),
            StoreError::DiskFull => self.shared.spend_reserve(),
            _ => {}
        }
    }

    fn restart_log(&mut self) {
        // Readers of old frames make it busy; the next checkpoint asks again.
        let _ = self.conn.busy_timeout(RESTART_WAIT);
        let _ = self.conn.execute_batch("PRAGMA wal_checkpoint(RESTART)");
        let _ = schema::wait_as_usual(&self.conn);
    }
}

fn statement(conn: &Connection, sql: &str) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Brings the log home again and again, until the store is closed.
fn checkpoint(conn: &Connection, nudged: &std_mpsc::Receiver<()>, orders: &mpsc::WeakSender<Order>, shared: &Shared) {
    loop {
        match nudged.recv_timeout(CHECKPOINT_EVERY) {
            Ok(()) | Err(std_mpsc::RecvTimeoutError::Timeout) => {}
            Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
        }
        failpoint!("checkpoint-before");
        let done = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1));
        failpoint!("checkpoint-done");
        match done.map_err(StoreError::from) {
            Ok(frames) if frames > LOG_FRAMES_MAX => {
                if let Some(orders) = orders.upgrade() {
                    // A writer with no room for the order is asked again next time.
                    let _ = orders.try_send(Order::Restart);
                }
            }
            Err(StoreError::Broken(why)) => shared.break_with(&why),
            // A full disk or a busy file: the log waits where it is.
            Ok(_) | Err(_) => {}
        }
    }
}
