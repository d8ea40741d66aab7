//! The doctor's look at the record: whether it can be written, how quickly, and what is in it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Findings, State, count};
use crate::config::{Config, StoreUrl};
use crate::image::Repository;
use crate::report::visible;
use crate::store::StoreError;
use crate::store::embedded::{EmbeddedStore, Options};

/// A sync slower than this makes every event slow: disks that do not lie need a few milliseconds.
const SYNC: Duration = Duration::from_millis(100);
/// Writes that are measured, of so many bytes each: an append of some events.
const WRITES: u32 = 8;
const WRITE_BYTES: usize = 16 << 10;
/// What the store takes besides what it keeps back: the file itself, its log and the journal's first pieces.
const START_BYTES: u64 = 8 << 20;
/// With less room a busy day can fill the disk: a million events are about 400 MB.
const ROOM_BYTES: u64 = 1 << 30;
/// How many repositories are looked at: enough to find a policy that governs nothing.
const REPOSITORIES_MAX: usize = 10_000;

/// What the doctor knows of the store.
#[derive(Default)]
pub(super) struct Known {
    /// Whether a daemon has it.
    pub in_use: bool,
    /// The repositories on record, where it could be read.
    pub repositories: Vec<Repository>,
}

/// Looks at the store.
pub(super) fn look(config: &Config, found: &mut Findings) -> Known {
    let StoreUrl::Sqlite(path) = &config.store else { return Known::default() };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        found.add(
            "store",
            State::Warning,
            format!("there is no folder `{}` yet; the daemon makes it", folder.display()),
            "look whether `store.url` is meant: a misspelt folder begins a new record",
        );
        return Known::default();
    }
    if let Some(available) = available(folder) {
        // What is kept back already is not needed again.
        let kept = std::fs::metadata(
            path.with_file_name(format!("{}.reserve", path.file_name().unwrap_or_default().to_string_lossy())),
        );
        let kept = kept.map_or(0, |file| file.len());
        room(folder, available, Options::default().reserve_bytes.saturating_sub(kept) + START_BYTES, found);
    }
    match sync(folder) {
        Ok(took) if took > SYNC => found.add(
            "store",
            State::Warning,
            format!("a durable write in `{}` takes {} ms", folder.display(), took.as_millis()),
            "put the store on a local disk: every event waits for one",
        ),
        Ok(took) => found.ok(
            "store",
            match took.as_secs_f64() * 1000.0 {
                ..0.1 => format!("a durable write in `{}` takes less than 0.1 ms", folder.display()),
                took => format!("a durable write in `{}` takes {took:.1} ms", folder.display()),
            },
        ),
        Err(error) => {
            let advice = "make the folder, and let the daemon's user write there";
            let advice = match error.kind() {
                std::io::ErrorKind::StorageFull => "free some space, or put the store elsewhere",
                _ => advice,
            };
            found.add("store", State::Fault, format!("cannot write in `{}`: {error}", folder.display()), advice);
            return Known::default();
        }
    }
    if !path.is_file() {
        found.ok("store", format!("`{}` is not there yet; the daemon makes it", path.display()));
        return Known::default();
    }
    let opened = match EmbeddedStore::info(path) {
        Ok(info) => {
            found.ok(
                "store",
                format!(
                    "`{}`: {} of {}, {}, {}",
                    path.display(),
                    count(info.tags, "tag", "tags"),
                    count(info.repositories, "repository", "repositories"),
                    count(info.events, "event", "events"),
                    count(info.open_violations, "open violation", "open violations")
                ),
            );
            if info.dead_letters > 0 {
                found.add(
                    "store",
                    State::Warning,
                    format!(
                        "{}: payloads that could not be read",
                        count(info.dead_letters, "dead letter", "dead letters")
                    ),
                    "`tidewaiter dead-letters` shows them with their faults",
                );
            }
            EmbeddedStore::open(path, Options::default())
        }
        Err(error) => Err(error),
    };
    let mut in_use = false;
    match opened {
        Ok(_) => {}
        Err(StoreError::InUse { pid, .. }) => {
            let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            in_use = true;
            found.ok("store", format!("in use by a running daemon{pid}"));
        }
        Err(error) => {
            found.add(
                "store",
                State::Fault,
                visible(&error.to_string()),
                "restore it from a backup, or move it away to begin anew",
            );
            return Known::default();
        }
    }
    Known { in_use, repositories: EmbeddedStore::known(path, REPOSITORIES_MAX).unwrap_or_default() }
}

/// The bytes that a folder's disk has left for this user; `None` where the system does not say.
fn available(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether the room left is enough to start with, and for a while.
fn room(folder: &Path, available: u64, needed: u64, found: &mut Findings) {
    let (state, what) = match available {
        n if n < needed => (State::Fault, format!("; the store needs {} MiB to start", needed >> 20)),
        n if n < ROOM_BYTES => (State::Warning, String::new()),
        _ => return,
    };
    let left =
        if available < 1 << 20 { format!("{} KiB", available >> 10) } else { format!("{} MiB", available >> 20) };
    found.add(
        "store",
        state,
        format!("the disk of `{}` has {left} left{what}", folder.display()),
        "free some space, or put the store elsewhere: a full disk refuses events, and senders must send them again",
    );
}

/// How long a durable write takes in a folder: the middle one of some, since the first pays for the new file.
fn sync(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".tidewaiter-doctor-{}", std::process::id()));
    let written = File::create_new(&path).and_then(|mut file| {
        let mut times = Vec::new();
        for _ in 0..WRITES {
            let begun = Instant::now();
            file.write_all(&[0x5a; WRITE_BYTES])?;
            file.sync_all()?;
            times.push(begun.elapsed());
        }
        times.sort();
        Ok(times[times.len() / 2])
    });
    let _ = std::fs::remove_file(&path);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_a_fault_before_it_is_full() {
        let told = |available: u64| {
            let mut found = Findings::default();
            room(Path::new("record"), available, (64 << 20) + START_BYTES, &mut found);
            found.list.pop().map(|f| (f.state, f.message))
        };
        let message = |left: &str, more: &str| format!("the disk of `record` has {left} left{more}");
        let needs = "; the store needs 72 MiB to start";
        assert_eq!(told(4096), Some((State::Fault, message("4 KiB", needs))));
        assert_eq!(told(71 << 20), Some((State::Fault, message("71 MiB", needs))));
        assert_eq!(told(500 << 20), Some((State::Warning, message("500 MiB", ""))));
        assert_eq!(told(1 << 30), None);
    }
}
