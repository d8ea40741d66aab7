//! Filing: what the journal holds is put among the record, where it can be claimed and listed, in portions and in
//! order. That it is filed is written in the same transaction, so a crash repeats it or does not.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::entry::Entries;
use super::frame::{self, Frame, Salt};
use super::journal::{self, Cursor, Front, Head, Position};
use super::totals::Totals;
use super::writer::{Piece, Writing};
use super::{codec, queue};
use crate::store::StoreError;

/// Reads on in the journal.
pub(super) struct Filer {
    files: [Option<File>; 2],
    salt: Salt,
    front: Arc<Front>,
    /// Where the first frame that is not filed begins, as far as it is known.
    cursor: Cursor,
}

/// What one portion came to.
#[derive(Clone, Copy, Default)]
struct Portion {
    cursor: Cursor,
    events: u64,
    bytes: u64,
}

impl Filer {
    pub(super) fn new(store: &Path, conn: &Connection, front: Arc<Front>, cursor: Cursor) -> Result<Filer, StoreError> {
        Ok(Filer { files: journal::files_to_read(store)?, salt: Head::read(conn)?.salt, front, cursor })
    }

    /// Whether what is filed next lies in a file that may be begun anew after it, and so must be filed for good.
    pub(super) fn is_finishing_a_file(&self) -> bool {
        let position = *self.front.position();
        place(self.cursor, &position).file != position.current
    }

    /// The frame at the cursor, if one is there.
    fn frame(&self, cursor: &mut Cursor) -> Result<Option<Frame>, StoreError> {
        let position = *self.front.position();
        if cursor.next >= position.next {
            return Ok(None);
        }
        *cursor = place(*cursor, &position);
        let Cursor { file, at, next } = *cursor;
        let broken = |why: &str| codec::damaged("the journal", format!("{} at {at}: {why}", journal::FILES[file]));
        let opened = self.files[file].as_ref().ok_or_else(|| broken("the file is not there"))?;
        let frame = frame::read(opened, &self.salt, at, position.ends[file])
            .map_err(|e| StoreError::Unavailable(format!("the journal cannot be read: {e}")))?;
        frame.filter(|frame| frame.first == next).map(Some).ok_or_else(|| broken("what was written is not there"))
    }

    /// Files whole frames, at least one and no more when there are `most` entries.
    fn file(&self, w: &mut Writing<'_>, most: usize) -> Result<Portion, StoreError> {
        let mut portion = Portion { cursor: self.cursor, ..Portion::default() };
        let mut entries = 0;
        while entries < most {
            let Some(frame) = self.frame(&mut portion.cursor)? else { break };
            let (filed, bytes) = queue::file(w, Entries::of(frame.entries()))?;
            portion.events += u64::from(filed.recorded) + u64::from(filed.duplicate);
            portion.bytes += bytes;
            (portion.cursor.at, portion.cursor.next) = (frame.end, frame.next());
            entries += frame.count as usize;
        }
        if entries > 0 {
            w.conn.prepare_cached("UPDATE journal SET filed = ?1")?.execute(params![portion.cursor.next as i64])?;
        }
        Ok(portion)
    }
}

/// Where a cursor's entry lies: the end of one file is followed by the beginning of the other, and a file that was
/// filed to its end may have been begun anew before the other was.
fn place(cursor: Cursor, position: &Position) -> Cursor {
    let holds = |file: usize| (position.firsts[file]..position.nexts[file]).contains(&cursor.next);
    if holds(1 - cursor.file) { Cursor { file: 1 - cursor.file, at: 0, ..cursor } } else { cursor }
}

/// A portion as a piece of work.
pub(super) struct Filing {
    filer: Arc<Mutex<Filer>>,
    most: usize,
    result: Option<Result<Portion, StoreError>>,
}

impl Filing {
    /// Files at most so many entries, beyond the frame in which they are reached.
    pub(super) fn new(filer: Arc<Mutex<Filer>>, most: usize) -> Filing {
        Filing { filer, most, result: None }
    }
}

impl Piece for Filing {
    fn run(&mut self, writing: &mut Writing<'_>) -> Result<(), StoreError> {
        let result = self.filer.lock().unwrap_or_else(PoisonError::into_inner).file(writing, self.most);
        let end = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        end
    }

    fn answer(self: Box<Self>, fault: Option<&StoreError>) {
        let Some(result) = self.result else { return };
        let result = fault.map_or(result, |fault| Err(fault.clone()));
        let mut filer = self.filer.lock().unwrap_or_else(PoisonError::into_inner);
        let front = filer.front.clone();
        let mut position = front.position();
        match result {
            Ok(portion) if portion.cursor.next > position.filed => {
                filer.cursor = portion.cursor;
                position.filed = portion.cursor.next;
                position.events = position.events.saturating_sub(portion.events);
                position.bytes = position.bytes.saturating_sub(portion.bytes);
                position.stuck = false;
                if position.events == 0 {
                    position.since = None;
                }
            }
            Ok(_) => {}
            Err(fault) => {
                if !position.stuck {
                    tracing::error!(%fault, "what was acknowledged cannot be put on record now, and no more is taken in");
                }
                position.stuck = true;
            }
        }
    }
}

/// Files all that the journal of `store` holds in a copy of it; the store may be at work.
///
/// # Errors
/// [`StoreError::Damaged`] also when what the copy lacks was filed and written over meanwhile: copy again.
pub(super) fn complete_copy(store: &Path, copy: &mut Connection) -> Result<(), StoreError> {
    let head = Head::read(copy)?;
    let files = journal::files_to_read(store)?;
    let transaction = copy.transaction()?;
    let totals = Totals::default();
    let mut w = Writing { conn: &transaction, totals: &totals, change: Totals::default(), work: false, deliver: false };
    let found = journal::look(&files, &head, |frame| queue::file(&mut w, Entries::of(frame.entries())).map(drop))?;
    transaction.execute("UPDATE journal SET filed = ?1, salt = randomblob(16)", [found.position.next as i64])?;
    Ok(transaction.commit()?)
}
