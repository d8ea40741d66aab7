//! `tidewaiter store`: what is in the embedded store, whether it is whole, and a copy of it.

use std::path::{Path, PathBuf};

use clap::ValueHint;

use super::fail::{Failure, configuration};
use super::terminal::Terminal;
use crate::config::{Config, StoreUrl};
use crate::report::visible;
use crate::store::embedded::EmbeddedStore;

/// The exit code of a store that is not whole.
const DAMAGED: u8 = 1;
/// Most faults shown: who has more needs a backup, not a list.
const FAULTS_MAX: usize = 100;

/// Look into, verify and back up the embedded store; all of it works while the daemon runs
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Say what the store holds
    Info {
        /// The store; without it the configuration's, else tidewaiter.db
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        store: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
    },
    /// Read everything in the store and say what is wrong; exit code 1 if it is not whole
    Verify {
        /// The store; without it the configuration's, else tidewaiter.db
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        store: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
    },
    /// Copy the store as of now into a new file
    Backup {
        /// The new file; it must not be there yet. With two files: the store, and the new file
        #[arg(value_name = "FILE", num_args = 1..=2, required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The configuration that says where the store is
    #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

impl Which {
    fn store(&self, named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
        match named {
            Some(path) => Ok(path.clone()),
            None => path_of(&configuration(self.config.as_deref())?.unwrap_or_else(Config::default_for_no_file)),
        }
    }
}

/// The file of the configured store.
///
/// # Errors
/// A store that is a server has none.
pub(super) fn path_of(config: &Config) -> Result<PathBuf, Failure> {
    match &config.store {
        StoreUrl::Sqlite(path) => Ok(path.clone()),
        StoreUrl::Postgres(_) => Err(Failure::say("the configured store is a PostgreSQL database, not a file")
            .help("use the database's own tools, such as pg_dump")),
    }
}

/// That a store is there: opening one makes it, which nobody who asks about it wants.
pub(super) fn there(path: &Path) -> Result<(), Failure> {
    if path.is_file() {
        return Ok(());
    }
    Err(Failure::say(format!("there is no store `{}`", path.display()))
        .help("name it, or the configuration that says where it is with --config"))
}

pub(super) fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    match args.verb {
        Verb::Info { store, which } => {
            let path = which.store(store.as_ref())?;
            there(&path)?;
            let info = EmbeddedStore::info(&path)?;
            let rows = [
                ("store", path.display().to_string()),
                ("format", info.format.to_string()),
                (
                    "size",
                    format!(
                        "{} ({} free inside, log {})",
                        bytes(info.bytes),
                        bytes(info.free_bytes),
                        bytes(info.log_bytes)
                    ),
                ),
                ("repositories", info.repositories.to_string()),
                ("tags", info.tags.to_string()),
                ("manifests", info.contents.to_string()),
                ("verdicts", info.verdicts.to_string()),
                ("violations", format!("{} ({} open)", info.violations, info.open_violations)),
                ("events", format!("{} ({} waiting)", info.events, info.waiting)),
                ("dead letters", info.dead_letters.to_string()),
                ("alerts waiting", info.alerts.to_string()),
            ];
            let text: String = rows.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect();
            terminal.print(&text)?;
            Ok(0)
        }
        Verb::Verify { store, which } => {
            let path = which.store(store.as_ref())?;
            there(&path)?;
            let found = EmbeddedStore::verify(&path)?;
            let of = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
            let contents = of(found.contents, "manifest or config", "manifests and configs");
            let looked = format!("read: {}, {contents}", of(found.tags, "tag", "tags"));
            if found.faults.is_empty() {
                terminal.print(&format!("{} is whole: {looked}\n", path.display()))?;
                return Ok(0);
            }
            // Two ways of looking may find one fault.
            let mut faults: Vec<&String> = Vec::new();
            for fault in &found.faults {
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
            let n = faults.len();
            let mut text: String = faults.iter().take(FAULTS_MAX).map(|f| format!("{}\n", visible(f))).collect();
            if n > FAULTS_MAX {
                text += &format!("and {} more\n", n - FAULTS_MAX);
            }
            if found.faults.iter().all(|fault| fault.contains("the journal")) {
                text += "\nOnly the journal is not whole: the record is, without what the journal holds. To start without it, stop the daemon and move the files that end in `.journal-a` and `.journal-b` away.\n";
                terminal.print(&text)?;
                return Ok(DAMAGED);
            }
            text += &format!(
                "\n{} is damaged: {n} {}; {looked}\nStop the daemon and put the latest backup in its place; `tidewaiter store backup` makes them.\n",
                path.display(),
                if n == 1 { "fault" } else { "faults" }
            );
            terminal.print(&text)?;
            Ok(DAMAGED)
        }
        Verb::Backup { files, which } => {
            let (store, target) = match &files[..] {
                [store, target] => (Some(store), target),
                [target, ..] => (None, target),
                [] => return Err(Failure::say("no file: name the one that the copy goes to")),
            };
            let path = which.store(store)?;
            there(&path)?;
            if target.exists() {
                return Err(Failure::say(format!("`{}` is there already, and is not written over", target.display()))
                    .help("name a new file, such as one with the date in its name"));
            }
            EmbeddedStore::backup(&path, target)?;
            let size = std::fs::metadata(target).map(|m| m.len()).unwrap_or_default();
            terminal.print(&format!("{} is a copy of {} ({})\n", target.display(), path.display(), bytes(size)))?;
            Ok(0)
        }
    }
}

/// A size as people read it.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
