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
/// How many repositories are looked at: enough to find a policy that governs nothing.
const REPOSITORIES_MAX: usize = 10_000;

/// Looks at the store; the repositories on record where it could be read.
pub(super) fn look(config: &Config, found: &mut Findings) -> Vec<Repository> {
    let StoreUrl::Sqlite(path) = &config.store else { return Vec::new() };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match sync(folder) {
        Ok(took) if took > SYNC => found.add(
            "store",
            State::Warning,
            format!("a durable write in `{}` takes {} ms", folder.display(), took.as_millis()),
            "put the store on a local disk: every event waits for one",
        ),
        Ok(took) => found.ok(
            "store",
            format!("a durable write in `{}` takes {:.1} ms", folder.display(), took.as_secs_f64() * 1000.0),
        ),
        Err(error) => {
            let advice = "make the folder, and let the daemon's user write there";
            found.add("store", State::Fault, format!("cannot write in `{}`: {error}", folder.display()), advice);
            return Vec::new();
        }
    }
    if !path.is_file() {
        found.ok("store", format!("`{}` is not there yet; the daemon makes it", path.display()));
        return Vec::new();
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
    match opened {
        Ok(_) => {}
        Err(StoreError::InUse { pid, .. }) => {
            let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            found.ok("store", format!("in use by a running daemon{pid}"));
        }
        Err(error) => {
            found.add(
                "store",
                State::Fault,
                visible(&error.to_string()),
                "restore it from a backup, or move it away to begin anew",
            );
            return Vec::new();
        }
    }
    EmbeddedStore::known(path, REPOSITORIES_MAX).unwrap_or_default()
}

/// How long a small durable write takes in a folder.
fn sync(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".tidewaiter-doctor-{}", std::process::id()));
    let begun = Instant::now();
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let took = begun.elapsed();
    let _ = std::fs::remove_file(&path);
    written.map(|()| took)
}
