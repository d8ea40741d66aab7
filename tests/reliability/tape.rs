//! What a process did to the files of a folder, in order, and what a power cut at some moment would have left of it.
//!
//! A disk keeps what was synced. Of what was written since, it keeps any part, in sectors of 512 bytes and in any
//! order; of names made, changed and removed since the folder was synced, the first few.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::random::Random;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Builds what records, as a library to put in front; `None` without a C compiler.
pub fn recorder(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("recorder.c"), folder.join("recorder.so"));
    fs::write(&source, include_str!("recorder.c")).unwrap();
    let mut build = Command::new("gcc");
    build.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    build.status().is_ok_and(|status| status.success()).then_some(library)
}

/// Which record is being made, so that others can say when something happened. Clones are the same.
#[derive(Clone, Default)]
pub struct Clockwork(Arc<Mutex<Option<PathBuf>>>);

impl Clockwork {
    /// From now on, `record` grows.
    pub fn runs(&self, record: Option<&Path>) {
        *self.0.lock().unwrap() = record.map(Path::to_owned);
    }

    /// How long the record is now: everything in it happened before.
    pub fn now(&self) -> u64 {
        self.0.lock().unwrap().as_ref().and_then(|path| fs::metadata(path).ok()).map_or(0, |m| m.len())
    }
}

enum Deed {
    Write { at: u64, bytes: Range<usize> },
    Cut { length: u64 },
    Sync { began: u64 },
    Make,
    Rename { to: String },
    Remove,
    SyncFolder { began: u64 },
}

struct Entry {
    /// Where it begins in the record, and where it ends.
    at: Range<u64>,
    path: String,
    deed: Deed,
}

/// A record, read.
pub struct Tape {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Tape {
    pub fn read(path: &Path) -> Tape {
        let bytes = fs::read(path).unwrap();
        let mut entries = Vec::new();
        let mut at = 0;
        const HEAD: usize = 24;
        // A process that was killed may have left half an entry: what it told of never ended.
        while at + HEAD <= bytes.len() {
            let number = |from: usize, length: usize| {
                let mut all = [0; 8];
                all[..length].copy_from_slice(&bytes[at + from..at + from + length]);
                u64::from_le_bytes(all)
            };
            let (kind, path, value, length) =
                (number(0, 4), number(4, 4) as usize, number(8, 8), number(16, 8) as usize);
            let data = at + HEAD + path..at + HEAD + path + length;
            if data.end > bytes.len() {
                break;
            }
            let text = |range: Range<usize>| String::from_utf8(bytes[range].to_vec()).unwrap();
            let deed = match kind {
                1 => Deed::Write { at: value, bytes: data.clone() },
                2 => Deed::Cut { length: value },
                3 => Deed::Sync { began: value },
                4 => Deed::Make,
                5 => Deed::Rename { to: text(data.clone()) },
                6 => Deed::Remove,
                7 => Deed::SyncFolder { began: value },
                other => panic!("an entry of kind {other}"),
            };
            let path = text(at + HEAD..at + HEAD + path);
            entries.push(Entry { at: at as u64..data.end as u64, path, deed });
            at = data.end;
        }
        Tape { bytes, entries }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A moment to cut at: any, or more often one at which something was written and its sync is about to end.
    pub fn moment(&self, random: &mut Random) -> usize {
        let syncs: Vec<usize> =
            (1..self.len()).filter(|n| matches!(self.entries[*n].deed, Deed::Sync { .. })).collect();
        if random.below(3) == 0 || syncs.is_empty() {
            return 1 + random.below(self.len());
        }
        syncs[random.below(syncs.len())]
    }

    /// Where in the record an entry ends.
    pub fn end(&self, entry: usize) -> u64 {
        self.entries[entry].at.end
    }
}

/// A file's bytes on disk, and what was done to it since they were synced.
#[derive(Clone, Default)]
struct Stored {
    lasting: Vec<u8>,
    since: Vec<usize>,
}

/// A disk on which a record is played.
pub struct Disk<'t> {
    tape: &'t Tape,
    next: usize,
    files: HashMap<usize, Stored>,
    /// Names as the process sees them, and as they are on disk.
    names: BTreeMap<String, usize>,
    lasting: BTreeMap<String, usize>,
    /// What was done to names since.
    since: Vec<usize>,
}

impl<'t> Disk<'t> {
    /// With these files on it, all synced.
    pub fn new(tape: &'t Tape, files: BTreeMap<PathBuf, Vec<u8>>) -> Disk<'t> {
        let mut disk = Disk {
            tape,
            next: 0,
            files: HashMap::new(),
            names: BTreeMap::new(),
            lasting: BTreeMap::new(),
            since: Vec::new(),
        };
        for (number, (path, lasting)) in files.into_iter().enumerate() {
            // Numbers of entries name files made on the way; these come after all of them.
            let file = tape.len() + number;
            disk.files.insert(file, Stored { lasting, since: Vec::new() });
            disk.names.insert(path.to_str().unwrap().to_owned(), file);
        }
        disk.lasting = disk.names.clone();
        disk
    }

    /// Plays up to an entry, without it.
    pub fn play(&mut self, until: usize) {
        for number in self.next..until {
            let tape = self.tape;
            let Entry { path, deed, .. } = &tape.entries[number];
            match deed {
                Deed::Write { .. } | Deed::Cut { .. } => {
                    if let Some(file) = self.names.get(path) {
                        self.files.get_mut(file).unwrap().since.push(number);
                    }
                }
                Deed::Sync { began } => {
                    let Some(file) = self.names.get(path) else { continue };
                    let stored = self.files.get_mut(file).unwrap();
                    let covered = stored.since.partition_point(|&n| tape.entries[n].at.start < *began);
                    for n in stored.since.drain(..covered) {
                        apply(&mut stored.lasting, tape, n, &mut |_| true);
                    }
                }
                Deed::Make => {
                    self.files.insert(number, Stored::default());
                    self.names.insert(path.clone(), number);
                    self.since.push(number);
                }
                Deed::Rename { .. } | Deed::Remove => {
                    rename(&mut self.names, &tape.entries[number], number);
                    self.since.push(number);
                }
                Deed::SyncFolder { began } => {
                    let covered = self.since.partition_point(|&n| tape.entries[n].at.start < *began);
                    for n in self.since.drain(..covered) {
                        rename(&mut self.lasting, &tape.entries[n], n);
                    }
                }
            }
        }
        self.next = self.next.max(until);
    }

    /// The files that a power cut leaves now.
    pub fn cut(&self, random: &mut Random) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut names = self.lasting.clone();
        for &n in &self.since[..random.below(self.since.len() + 1)] {
            rename(&mut names, &self.tape.entries[n], n);
        }
        let left = |file: &usize, random: &mut Random| {
            let stored = &self.files[file];
            let mut bytes = stored.lasting.clone();
            match random.below(6) {
                // Nothing that was not synced.
                0..=2 => {}
                // All up to some moment, the last of it torn.
                3 => {
                    let whole = random.below(stored.since.len() + 1);
                    for &n in &stored.since[..whole] {
                        apply(&mut bytes, self.tape, n, &mut |_| true);
                    }
                    if let Some(&torn) = stored.since.get(whole) {
                        let sectors = random.below(16);
                        apply(&mut bytes, self.tape, torn, &mut |sector| sector < sectors);
                    }
                }
                // Any of it.
                many => {
                    for &n in &stored.since {
                        let of_three = if many == 4 { 1 } else { 2 };
                        apply(&mut bytes, self.tape, n, &mut |_| random.below(3) < of_three);
                    }
                }
            }
            bytes
        };
        names.iter().map(|(path, file)| (PathBuf::from(path), left(file, random))).collect()
    }
}

/// Does to a file's bytes what an entry says, as far as sectors are kept.
fn apply(file: &mut Vec<u8>, tape: &Tape, number: usize, kept: &mut dyn FnMut(usize) -> bool) {
    match &tape.entries[number].deed {
        Deed::Cut { length } if kept(0) => file.resize(*length as usize, 0),
        Deed::Write { at, bytes } => {
            let (mut from, mut at) = (bytes.start, *at as usize);
            for sector in 0.. {
                if from == bytes.end {
                    break;
                }
                // Sectors of the disk, not of the write.
                let length = (SECTOR - at % SECTOR).min(bytes.end - from);
                if kept(sector) {
                    if file.len() < at + length {
                        file.resize(at + length, 0);
                    }
                    file[at..at + length].copy_from_slice(&tape.bytes[from..from + length]);
                }
                (from, at) = (from + length, at + length);
            }
        }
        _ => {}
    }
}

fn rename(names: &mut BTreeMap<String, usize>, entry: &Entry, number: usize) {
    match &entry.deed {
        Deed::Make => {
            names.insert(entry.path.clone(), number);
        }
        Deed::Remove => {
            names.remove(&entry.path);
        }
        Deed::Rename { to } => {
            if let Some(file) = names.remove(&entry.path) {
                names.insert(to.clone(), file);
            }
        }
        _ => {}
    }
}
