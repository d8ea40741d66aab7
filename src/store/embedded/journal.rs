//! The journal: what was acknowledged and is not yet filed among the record, in two files beside it.
//!
//! A thread of its own takes everything that waits, writes it as one frame, syncs once and only then answers. Filing,
//! which costs many times more, comes when somebody wants work ([`super::filer`]). The files are written in turns: one
//! is begun anew once all of it is filed for good, so a sync rarely has more to write than the frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::entry::{self, Entries, Entry, Fingerprints, Prints};
use super::frame::{self, Frame, Run, Salt};
use super::queue::Backlog;
use super::writer::{Gone, Shared};
use super::{codec, file};
use crate::store::{Appended, DeadLetter, Incoming, StoreError};

/// The two files, beside the store's.
pub(super) const FILES: [&str; 2] = [".journal-a", ".journal-b"];

/// Appends that wait before those who bring more wait themselves.
const WAITING_MAX: usize = 4_096;
/// Most appends in one frame, and most bytes of entries after which no more are added: bounds how long the first of
/// them waits for the last.
const GROUP_MAX: usize = 1_024;
const GROUP_BYTES: usize = 1 << 20;
/// Longest wait for more appends before a sync that many will share: each costs as much processor time as taking in a
/// few events.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// How long nobody comes until nobody is waited for.
const GATHER_STEP: Duration = Duration::from_micros(100);
/// Fingerprints of the newest events that are kept, twice as many at most: about 9 MiB.
const KNOWN: usize = 1 << 17;

/// How big the files are, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// A file that is this long is left for the other when that is free.
    pub(super) turn: u64,
    /// Written with zeros this far ahead, so that a sync need not make the file longer.
    pub(super) ahead: u64,
    /// As if the disk were full there.
    pub(super) most: u64,
}

impl Sizes {
    pub(super) fn new(most: Option<u64>) -> Sizes {
        Sizes { turn: 4 << 20, ahead: 256 << 10, most: most.unwrap_or(u64::MAX) }
    }
}

/// How far the journal is written and filed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    /// Which file is written.
    pub(super) current: usize,
    /// Where the last synced frame of each ends.
    pub(super) ends: [u64; 2],
    /// The number of the first entry of each, and the one after its last.
    pub(super) firsts: [u64; 2],
    pub(super) nexts: [u64; 2],
    /// The number of the next entry.
    pub(super) next: u64,
    /// Entries below this number are filed.
    pub(super) filed: u64,
    /// And those below this one even if power is cut.
    pub(super) for_good: u64,
    /// Events that are not filed.
    pub(super) events: u64,
    /// What they count in bytes.
    pub(super) bytes: u64,
    /// When the first came of those that were not filed when there was none before it, in nanoseconds.
    pub(super) since: Option<i64>,
    /// Whether filing failed when it was tried last: then nothing more is taken in.
    pub(super) stuck: bool,
}

impl Position {
    /// Dead letters that are not filed: entries have numbers without a gap, and the others are events.
    pub(super) fn dead_letters(&self) -> u64 {
        (self.next - self.filed).saturating_sub(self.events)
    }
}

/// What the thread that appends, the one that files and those who ask share.
#[derive(Debug, Default)]
pub(super) struct Front(Mutex<Position>);

impl Front {
    pub(super) fn position(&self) -> MutexGuard<'_, Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is something to file.
    pub(super) fn waits(&self) -> bool {
        let position = self.position();
        position.filed < position.next
    }

    /// Whether there is something to file, and filing it did not fail just now.
    pub(super) fn flows(&self) -> bool {
        self.waits() && !self.position().stuck
    }
}

/// A place in the journal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    pub(super) file: usize,
    pub(super) at: u64,
    /// The number of the entry that comes there.
    pub(super) next: u64,
}

/// What is in the files when a store is opened, or looked at from beside.
pub(super) struct Found {
    /// The position that follows from it.
    pub(super) position: Position,
    /// Where the first frame that is not filed begins.
    pub(super) cursor: Cursor,
}

/// What the record says of its journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Entries below this number are filed.
    pub(super) filed: u64,
    /// The store's own number.
    pub(super) salt: Salt,
}

impl Head {
    pub(super) fn read(conn: &Connection) -> Result<Head, StoreError> {
        let (filed, salt): (i64, Vec<u8>) =
            conn.query_row("SELECT filed, salt FROM journal", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let salt = salt.try_into().map_err(|_| codec::damaged("the journal's salt", "its length is another"))?;
        Ok(Head { filed: filed as u64, salt })
    }
}

/// A fault of the files.
pub(super) fn fault(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull,
        _ => StoreError::Broken(format!("the journal: {error}")),
    }
}

fn unreadable(error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("the journal cannot be read: {error}"))
}

/// Opens the files that are there, for reading.
pub(super) fn files_to_read(store: &Path) -> Result<[Option<File>; 2], StoreError> {
    let open = |name| {
        let path = file::beside(store, name);
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            // Opening something else may wait for ever.
            Ok(found) if !found.is_file() => Err(file::unusable(&path, "it is no file")),
            _ => File::open(&path).map(Some).map_err(|e| file::unusable(&path, e)),
        }
    };
    Ok([open(FILES[0])?, open(FILES[1])?])
}

/// Reads what is not filed, and hands each frame on.
pub(super) fn look(
    files: &[Option<File>; 2],
    head: &Head,
    mut each: impl FnMut(&Frame) -> Result<(), StoreError>,
) -> Result<Found, StoreError> {
    let mut position = Position { next: head.filed, filed: head.filed, for_good: head.filed, ..Position::default() };
    let mut cursor = None;
    let mut runs: Vec<(usize, &File, Run)> = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let Some(file) = file else { continue };
        if frame::is_foreign(file, &head.salt).map_err(|e| unreadable(&e))? {
            let why = format!(
                "{} belongs to another store, or to another moment of this one: put back what it belongs to, or move both journals away if what they hold is not wanted",
                FILES[n]
            );
            return Err(codec::damaged("the journal", why));
        }
        let run = frame::run(file, &head.salt, head.filed).map_err(|e| unreadable(&e))?;
        // What is filed may be written over.
        runs.extend(run.filter(|run| run.next > head.filed).map(|run| (n, file, run)));
    }
    runs.sort_by_key(|(_, _, run)| run.first);
    let next = runs.iter().map(|(_, _, run)| run.next).max().unwrap_or(head.filed);
    for (n, file) in files.iter().enumerate() {
        if let Some(file) = file
            && frame::any_after(file, &head.salt, next).map_err(|e| unreadable(&e))?
        {
            return Err(codec::damaged("the journal", format!("{} is not whole before entry {next}", FILES[n])));
        }
    }
    for (nth, (n, file, run)) in runs.into_iter().enumerate() {
        let follows = if nth == 0 { run.first <= position.next } else { run.first == position.next };
        if !follows {
            let why = format!(
                "{} begins with entry {} where {} is next: it belongs to another moment of the record, which was put back without it, or lacks what went before",
                FILES[n], run.first, position.next
            );
            return Err(codec::damaged("the journal", why));
        }
        let mut at = run.at;
        while let Some(frame) = frame::read(file, &head.salt, at, run.end).map_err(|e| unreadable(&e))? {
            if frame.next() <= head.filed {
                at = frame.end;
                continue;
            }
            cursor.get_or_insert(Cursor { file: n, at, next: frame.first });
            for entry in Entries::of(frame.entries()) {
                if let Entry::Event(event) = entry? {
                    position.events += 1;
                    position.bytes += event.counted();
                    position.since.get_or_insert(event.received_at);
                }
            }
            each(&frame)?;
            at = frame.end;
        }
        position.current = n;
        position.ends[n] = run.end;
        (position.firsts[n], position.nexts[n], position.next) = (run.first, run.next, run.next);
    }
    let cursor = cursor.unwrap_or(Cursor { next: head.filed, ..Cursor::default() });
    Ok(Found { position, cursor })
}

/// Removes the files, all of them being filed for good. What cannot be removed now is found to be filed at the next start.
pub(super) fn remove(store: &Path) {
    failpoint!("journal-remove");
    for name in FILES {
        let _ = std::fs::remove_file(file::beside(store, name));
    }
    failpoint!("journal-removed");
}

/// What the journal beside a store holds that is not filed, whoever is at work on it.
pub(super) fn look_beside(store: &Path, conn: &Connection) -> Result<Found, StoreError> {
    /// What is written over or half written while it is read is whole the next time.
    const TRIES: usize = 3;
    let mut found = Err(StoreError::Unavailable("the journal was not read".into()));
    for _ in 0..TRIES {
        let head = Head::read(conn)?;
        found = look(&files_to_read(store)?, &head, |_| Ok(()));
        if !matches!(found, Err(StoreError::Damaged { .. })) {
            break;
        }
    }
    found
}

/// The newest events, so that one that comes again is told from one that is new without asking the record. What came
/// again after more than these is found when it is filed, and changes nothing either.
#[derive(Default)]
struct Known {
    young: Prints,
    old: Prints,
}

impl Known {
    fn contains(&self, print: u128) -> bool {
        self.young.contains(&print) || self.old.contains(&print)
    }

    fn insert(&mut self, print: u128) {
        if self.young.len() >= KNOWN {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(print);
    }

    /// Those that are filed; what is in the journal is added by who reads it.
    fn newest(conn: &Connection, prints: &Fingerprints) -> Result<Known, StoreError> {
        let mut known = Known::default();
        let mut newest = conn.prepare(
            "SELECT r.host, r.name, e.source, e.key FROM events e CROSS JOIN repositories r ON r.id = e.repo
             ORDER BY e.number DESC LIMIT ?1",
        )?;
        let mut rows = newest.query([KNOWN as i64 / 2])?;
        while let Some(row) = rows.next()? {
            let text = |column| row.get_ref(column)?.as_str().map_err(|e| codec::damaged("an event", e));
            known.insert(prints.of(text(0)?, text(1)?, text(2)?, text(3)?));
        }
        Ok(known)
    }
}

/// What one call hands over, as entries.
struct Piece {
    entries: Pending,
    to: oneshot::Sender<(Result<Appended, StoreError>, Pending)>,
}

/// Entries on their way. They come back with the answer: memory is given back soonest by the thread that took it.
struct Pending {
    bytes: Vec<u8>,
    /// Where each entry ends, and of an event who it is and how many bytes it counts.
    ends: Vec<(usize, Option<(u128, u64)>)>,
    /// When the first event was received, in nanoseconds.
    received_at: Option<i64>,
}

/// The running journal.
pub(super) struct Journal {
    waiting: Option<mpsc::Sender<Piece>>,
    thread: Option<JoinHandle<()>>,
    prints: Fingerprints,
}

/// Entries out of what was handed over.
fn entries(
    events: &[Incoming],
    dead: &[DeadLetter],
    prints: &Fingerprints,
    mut each: impl FnMut(usize, Option<(u128, u64)>),
) -> Result<Vec<u8>, StoreError> {
    /// More than most events take.
    const USUAL: usize = 512;
    let mut bytes = Vec::with_capacity(events.len() * USUAL);
    for event in events {
        let (counted, print) = entry::put_event(&mut bytes, event, prints);
        each(bytes.len(), Some((print, counted)));
    }
    for letter in dead {
        entry::put_dead(&mut bytes, letter)?;
        each(bytes.len(), None);
    }
    Ok(bytes)
}

/// The entries alone, for a store without a journal.
pub(super) fn plain_entries(events: &[Incoming], dead: &[DeadLetter]) -> Result<Vec<u8>, StoreError> {
    entries(events, dead, &Fingerprints::new(), |_, _| {})
}

impl Journal {
    /// Starts the thread over the files of `store`, which are made if they are missing, going on from what is in them.
    /// Also gives where filing goes on.
    pub(super) fn open(
        store: &Path,
        conn: &Connection,
        sizes: Sizes,
        backlog: Backlog,
        shared: Arc<Shared>,
    ) -> Result<(Journal, Cursor), StoreError> {
        let head = Head::read(conn)?;
        let prints = Fingerprints::new();
        let mut known = Known::newest(conn, &prints)?;
        let there = files_to_read(store)?;
        let found = look(&there, &head, |frame| {
            for entry in Entries::of(frame.entries()) {
                if let Entry::Event(event) = entry? {
                    known.insert(prints.of(event.host, event.name, event.source, event.key));
                }
            }
            Ok(())
        })?;
        if there.iter().any(Option::is_some) {
            // What an ended process filed may be written over from now on, so it has to be on disk.
            conn.execute("UPDATE journal SET filed = filed", [])?;
        } else {
            // What was put aside in another life and comes back later is not of this one.
            conn.execute("UPDATE journal SET salt = randomblob(16)", [])?;
        }
        let head = Head::read(conn)?;
        let open = |name| file::private().open(file::beside(store, name)).map_err(|e| file::unusable(store, e));
        let files = [open(FILES[0])?, open(FILES[1])?];
        let mut lengths = [0; 2];
        for (file, length) in files.iter().zip(&mut lengths) {
            *length = file.metadata().map_err(|e| file::unusable(store, e))?.len();
        }
        failpoint!("journal-made");
        file::sync_directory(store).map_err(|e| file::unusable(store, e))?;
        *shared.front.position() = found.position;
        let mut appender = Appender {
            files,
            lengths,
            sizes,
            salt: head.salt,
            backlog,
            known,
            position: found.position,
            shared,
            about: 0,
            frame: Vec::new(),
        };
        let (waiting, mut pieces) = mpsc::channel(WAITING_MAX);
        let thread = Builder::new()
            .name("store-journal".into())
            .spawn(move || appender.run(&mut pieces))
            .map_err(|e| StoreError::Unavailable(format!("no thread for the store: {e}")))?;
        Ok((Journal { waiting: Some(waiting), thread: Some(thread), prints }, found.cursor))
    }

    /// Has events and dead letters put on disk, and waits for it.
    pub(super) async fn append(&self, events: &[Incoming], dead: &[DeadLetter]) -> Result<Appended, StoreError> {
        let ended = || StoreError::Broken("its journal has ended".into());
        let mut ends = Vec::with_capacity(events.len() + dead.len());
        let bytes = entries(events, dead, &self.prints, |end, event| ends.push((end, event)))?;
        let (to, result) = oneshot::channel();
        let waiting = self.waiting.as_ref().ok_or_else(ended)?;
        let received_at = events.first().map(|event| codec::nanos(event.received_at));
        waiting.send(Piece { entries: Pending { bytes, ends, received_at }, to }).await.map_err(|_| ended())?;
        result.await.map_err(|_| ended())?.0
    }
}

impl Drop for Journal {
    /// Lets what waits be answered.
    fn drop(&mut self) {
        drop(self.waiting.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// The thread that appends.
struct Appender {
    files: [File; 2],
    /// How long they are, zeros ahead included.
    lengths: [u64; 2],
    sizes: Sizes,
    salt: Salt,
    backlog: Backlog,
    known: Known,
    /// Its own view: what others file is not in it.
    position: Position,
    shared: Arc<Shared>,
    /// How many appended when the last sync ended.
    about: usize,
    /// Kept for its memory.
    frame: Vec<u8>,
}

impl Appender {
    fn run(&mut self, waiting: &mut mpsc::Receiver<Piece>) {
        let _gone = Gone { shared: self.shared.clone(), what: "journal" };
        let mut group = Vec::new();
        while let Some(piece) = waiting.blocking_recv() {
            self.gather(waiting);
            let mut bytes = piece.entries.bytes.len();
            group.push(piece);
            while group.len() < GROUP_MAX
                && bytes < GROUP_BYTES
                && let Ok(piece) = waiting.try_recv()
            {
                bytes += piece.entries.bytes.len();
                group.push(piece);
            }
            let answered = group.len();
            self.commit(&mut group);
            self.about = answered + waiting.len();
        }
    }

    /// Waits until most of those are there who were when the last sync ended: who was answered then is about to come
    /// again, and the others who came meanwhile lose little. One who comes alone does not wait.
    fn gather(&self, waiting: &mpsc::Receiver<Piece>) {
        let (begun, mut before, mut there) = (Instant::now(), 0, 1);
        while before < there && there < self.about * 3 / 4 && begun.elapsed() < GATHER_MAX {
            std::thread::sleep(GATHER_STEP);
            (before, there) = (there, waiting.len() + 1);
        }
    }

    /// Writes the group as one frame, syncs it, and answers.
    fn commit(&mut self, group: &mut Vec<Piece>) {
        if let Some(fault) = self.refusal() {
            group.drain(..).for_each(|piece| answer(piece, Err(fault.clone())));
            return;
        }
        let (mut events, mut bytes) = self.waiting();
        let (mut count, mut new_events, mut new_bytes) = (0_u32, 0, 0);
        let mut fresh = Prints::default();
        let mut results = Vec::with_capacity(group.len());
        let mut whole = std::mem::take(&mut self.frame);
        frame::begin(&mut whole);
        for piece in group.drain(..) {
            let (begun, mut entries, mut appended, mut adds) = (whole.len(), 0_u32, Appended::default(), 0);
            let mut prints = Vec::new();
            let mut from = 0;
            for (end, event) in &piece.entries.ends {
                let entry = &piece.entries.bytes[from..*end];
                from = *end;
                if let Some((print, counted)) = event {
                    if self.known.contains(*print) || !fresh.insert(*print) {
                        appended.duplicate += 1;
                        continue;
                    }
                    prints.push(*print);
                    appended.recorded += 1;
                    adds += counted;
                }
                entries += 1;
                whole.extend_from_slice(entry);
            }
            let recorded = u64::from(appended.recorded);
            let admitted =
                if recorded == 0 { Ok(()) } else { self.backlog.admit(events + recorded, bytes + adds, events) };
            if let Err(full) = admitted {
                whole.truncate(begun);
                prints.iter().for_each(|print| {
                    fresh.remove(print);
                });
                answer(piece, Err(full));
                continue;
            }
            (events, bytes, count) = (events + recorded, bytes + adds, count + entries);
            (new_events, new_bytes) = (new_events + recorded, new_bytes + adds);
            results.push((piece, appended));
        }
        let done = if count == 0 { Ok(()) } else { self.write(&mut whole, count, &mut results) };
        self.frame = whole;
        if done.is_ok() && count > 0 {
            fresh.into_iter().for_each(|print| self.known.insert(print));
            let mut shown = self.shared.front.position();
            let Position { current, ends, firsts, nexts, next, .. } = self.position;
            (shown.current, shown.ends, shown.firsts, shown.nexts, shown.next) = (current, ends, firsts, nexts, next);
            if shown.events == 0 {
                shown.since = results.iter().filter_map(|(piece, _)| piece.entries.received_at).min();
            }
            shown.events += new_events;
            shown.bytes += new_bytes;
            drop(shown);
            // Woken before it is told, so that nobody who was told wakes for what he did himself.
            self.shared.work.notify_waiters();
        }
        failpoint!("journal-answers");
        for (piece, appended) in results {
            answer(piece, done.clone().map(|()| appended));
        }
    }

    /// How many events wait, filed or not, and how many bytes they count.
    fn waiting(&self) -> (u64, u64) {
        let position = *self.shared.front.position();
        let totals = self.shared.totals();
        (position.events + totals.queued.max(0) as u64, position.bytes + totals.queued_bytes.max(0) as u64)
    }

    /// Why nothing can be taken in now.
    fn refusal(&self) -> Option<StoreError> {
        if let Some(why) = self.shared.broken.borrow().clone() {
            return Some(StoreError::Broken(why));
        }
        (self.shared.front.position().stuck || !self.shared.may_grow()).then_some(StoreError::DiskFull)
    }

    /// Puts a frame on disk.
    fn write(
        &mut self,
        whole: &mut Vec<u8>,
        count: u32,
        results: &mut Vec<(Piece, Appended)>,
    ) -> Result<(), StoreError> {
        let first = self.position.next;
        frame::finish(whole, &self.salt, first, count);
        let (file, at) = self.place();
        let end = at + whole.len() as u64;
        let begun = Instant::now();
        let written = self.reach(file, end).and_then(|()| {
            failpoint!("journal-write");
            self.files[file].write_all_at(whole, at)
        });
        if let Err(e) = written {
            // What is there of it is no frame, and the next one is written over it.
            let fault = fault(&e);
            match &fault {
                StoreError::Broken(why) => self.shared.break_with(why),
                // So that what is on record can go on while nothing more is taken in.
                _ => self.shared.spend_reserve(),
            }
            return Err(fault);
        }
        failpoint!("journal-written");
        if cfg!(sabotage = "ack_before_sync") {
            results.drain(..).for_each(|(piece, appended)| answer(piece, Ok(appended)));
        }
        let synced = if cfg!(sabotage = "no_sync") { Ok(()) } else { self.files[file].sync_data() };
        if let Err(e) = synced {
            let why = format!("syncing the journal: {e}");
            self.shared.break_with(&why);
            return Err(StoreError::Broken(why));
        }
        failpoint!("journal-synced");
        self.shared.committed(begun.elapsed());
        let position = &mut self.position;
        position.current = file;
        if at == 0 {
            position.firsts[file] = first;
        }
        position.ends[file] = end;
        position.next += u64::from(count);
        position.nexts[file] = position.next;
        Ok(())
    }

    /// The file and place for the next frame.
    fn place(&mut self) -> (usize, u64) {
        let current = self.position.current;
        let other = 1 - current;
        let end = self.position.ends[current];
        if end < self.sizes.turn || self.position.nexts[other] > self.shared.front.position().for_good {
            return (current, end);
        }
        if self.lengths[other] > self.sizes.turn && self.files[other].set_len(self.sizes.turn).is_ok() {
            self.lengths[other] = self.sizes.turn;
        }
        (other, 0)
    }

    /// Has a file reach as far as `end`.
    fn reach(&mut self, file: usize, end: u64) -> io::Result<()> {
        let length = self.lengths[file];
        if end <= length {
            return Ok(());
        }
        if end > self.sizes.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let ahead = end.max(length + self.sizes.ahead).min(self.sizes.most.max(end));
        self.files[file].write_all_at(&vec![0; (ahead - length) as usize], length)?;
        self.lengths[file] = ahead;
        Ok(())
    }
}

fn answer(piece: Piece, result: Result<Appended, StoreError>) {
    // Who no longer waits needs no answer.
    let _ = piece.to.send((result, piece.entries));
}

#[cfg(test)]
mod tests;
