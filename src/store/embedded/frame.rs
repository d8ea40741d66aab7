//! Frames: what one write and one sync of the journal make durable, with a checksum over it.
//!
//! A frame begins at a multiple of what a disk writes whole, so that none is hurt by the writing of the next. Entries
//! are numbered without a gap; a frame says the number of its first, so that what an earlier use of the file left is
//! not taken for its continuation. The checksum is salted with a number of the store's own: what senders sent lies in
//! frames, and none of them can send what passes for one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
const MAGIC: [u8; 4] = *b"TWJ1";
/// Magic, length of the entries, number of the first, how many, whose they are, checksum.
const HEAD: usize = 4 + 4 + 8 + 4 + OWNER + SUM;
const OWNER: usize = 8;
const SUM: usize = 16;
/// How much is read at a time where only beginnings are looked for.
const STRETCH: usize = 256 << 10;

/// The store's own number.
pub(super) type Salt = [u8; 16];

/// A frame, read and whole.
pub(super) struct Frame {
    /// The number of its first entry.
    pub(super) first: u64,
    /// How many entries it has.
    pub(super) count: u64,
    /// Where the next one begins.
    pub(super) end: u64,
    bytes: Vec<u8>,
}

impl Frame {
    /// Its entries, one after another.
    pub(super) fn entries(&self) -> &[u8] {
        &self.bytes[HEAD..]
    }

    /// The number after its last entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.count
    }
}

/// Frames that follow each other in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Where the first begins.
    pub(super) at: u64,
    /// The number of the first entry.
    pub(super) first: u64,
    /// The number after the last.
    pub(super) next: u64,
    /// Where the last frame ends.
    pub(super) end: u64,
}

/// Makes room for the head of a frame whose entries are then appended.
pub(super) fn begin(frame: &mut Vec<u8>) {
    frame.clear();
    frame.resize(HEAD, 0);
}

/// Completes a frame that [`begin`] began.
pub(super) fn finish(frame: &mut Vec<u8>, salt: &Salt, first: u64, count: u32) {
    // Bounded by the limits on bodies and groups, far below 4 GiB.
    let length = (frame.len() - HEAD) as u32;
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&length.to_be_bytes());
    frame[8..16].copy_from_slice(&first.to_be_bytes());
    frame[16..20].copy_from_slice(&count.to_be_bytes());
    frame[20..20 + OWNER].copy_from_slice(&owner(salt));
    let sum = checksum(frame, salt);
    frame[HEAD - SUM..HEAD].copy_from_slice(&sum);
    frame.resize((frame.len() as u64).next_multiple_of(SECTOR) as usize, 0);
}

/// Tells frames of one salt from those of another, and does not give it away.
fn owner(salt: &Salt) -> [u8; OWNER] {
    let mut owner = [0; OWNER];
    owner.copy_from_slice(&Sha256::digest(salt)[..OWNER]);
    owner
}

/// Whether a file begins with a frame of another salt: another store wrote it, or this one in another life.
///
/// # Errors
/// The file's.
pub(super) fn is_foreign(file: &File, salt: &Salt) -> io::Result<bool> {
    if file.metadata()?.len() < HEAD as u64 {
        return Ok(false);
    }
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, 0)?;
    Ok(head.starts_with(&MAGIC) && head[20..20 + OWNER] != owner(salt))
}

fn checksum(frame: &[u8], salt: &Salt) -> [u8; SUM] {
    let whole = Sha256::new().chain_update(salt).chain_update(&frame[..HEAD - SUM]).chain_update(&frame[HEAD..]);
    let mut sum = [0; SUM];
    sum.copy_from_slice(&whole.finalize()[..SUM]);
    sum
}

/// The number at `at`, big-endian.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Reads the frame at `at`; `None` where there is none that is whole before `limit`.
///
/// # Errors
/// The file's.
pub(super) fn read(file: &File, salt: &Salt, at: u64, limit: u64) -> io::Result<Option<Frame>> {
    let room = limit.saturating_sub(at);
    if room < HEAD as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; HEAD];
    file.read_exact_at(&mut bytes, at)?;
    let length = number(&bytes, 4, 4);
    if bytes[..4] != MAGIC || length > room - HEAD as u64 {
        return Ok(None);
    }
    bytes.resize(HEAD + length as usize, 0);
    file.read_exact_at(&mut bytes[HEAD..], at + HEAD as u64)?;
    if bytes[HEAD - SUM..HEAD] != checksum(&bytes, salt) {
        return Ok(None);
    }
    let end = (at + bytes.len() as u64).next_multiple_of(SECTOR);
    Ok(Some(Frame { first: number(&bytes, 8, 8), count: number(&bytes, 16, 4), end, bytes }))
}

/// The frames of a file from its beginning, or, where they do not reach entry `filed` from there, from the one that holds
/// it: what came before is filed, and whether it is whole matters no more. `None` where there is none.
///
/// # Errors
/// The file's.
pub(super) fn run(file: &File, salt: &Salt, filed: u64) -> io::Result<Option<Run>> {
    let run = run_from(file, salt, 0)?;
    if run.is_some_and(|run| run.next > filed) {
        return Ok(run);
    }
    match find(file, salt, |first, next| first <= filed && filed < next)? {
        Some(at) => run_from(file, salt, at),
        None => Ok(run),
    }
}

fn run_from(file: &File, salt: &Salt, at: u64) -> io::Result<Option<Run>> {
    let limit = file.metadata()?.len();
    let mut run: Option<Run> = None;
    while let Some(frame) = read(file, salt, run.map_or(at, |run| run.end), limit)? {
        if run.is_some_and(|run| run.next != frame.first) {
            break;
        }
        let first = run.map_or(frame.first, |run| run.first);
        run = Some(Run { at, first, next: frame.next(), end: frame.end });
    }
    Ok(run)
}

/// Whether a whole frame lies anywhere in a file whose first entry comes after number `next`, which has no frame. Each
/// frame is written after the one before is on disk, so what lies between them was, and is damaged now.
///
/// # Errors
/// The file's.
pub(super) fn any_after(file: &File, salt: &Salt, next: u64) -> io::Result<bool> {
    Ok(find(file, salt, |first, _| first > next)?.is_some())
}

/// Where the first whole frame begins of which `wanted` holds, given the number of its first entry and the one after
/// its last.
fn find(file: &File, salt: &Salt, wanted: impl Fn(u64, u64) -> bool) -> io::Result<Option<u64>> {
    let limit = file.metadata()?.len();
    let mut stretch = vec![0; STRETCH];
    let mut at = 0;
    while at < limit {
        let length = (limit - at).min(STRETCH as u64) as usize;
        file.read_exact_at(&mut stretch[..length], at)?;
        for sector in (0..length).step_by(SECTOR as usize) {
            let head = &stretch[sector..length];
            if head.len() < HEAD || !head.starts_with(&MAGIC) {
                continue;
            }
            let (first, here) = (number(head, 8, 8), at + sector as u64);
            if wanted(first, first.saturating_add(number(head, 16, 4))) && read(file, salt, here, limit)?.is_some() {
                return Ok(Some(here));
            }
        }
        at += length as u64;
    }
    Ok(None)
}
