//! The folder of a run, in the project's own: removed at the end, unless the demo is left running.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::support::stage::{Stage, write};

/// Its name; git ignores it.
pub const NAME: &str = "demo-run";
/// What stops a demo that was left running.
const STOP: &str = "stop";

/// The folder of a run.
pub struct Folder {
    path: PathBuf,
    stays: bool,
}

impl Folder {
    /// Makes it anew.
    pub fn new() -> anyhow::Result<Folder> {
        let path = std::env::current_dir()?.join(NAME);
        if path.join(STOP).exists() {
            bail!("a demo is still running here; stop it with `sh {NAME}/{STOP}`");
        }
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(Folder { path, stays: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves everything running, and gives the command that stops it.
    pub fn leave(&mut self, stage: &mut Stage) -> anyhow::Result<String> {
        let mut script =
            String::from("#!/bin/sh\n# Stops the demo that was left running, and removes what it wrote.\n");
        for (name, program) in stage.programs() {
            program.stay();
            let id = program.id();
            script += &format!("[ \"$(cat /proc/{id}/comm 2>/dev/null)\" = {name} ] && kill {id}\n");
        }
        script += "rm -rf \"$(dirname \"$0\")\"\n";
        write(&self.path.join(STOP), &script)?;
        self.stays = true;
        Ok(format!("sh {NAME}/{STOP}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.stays {
            // What cannot be removed now is removed before the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The program, which `cargo` builds beside the folder of examples.
pub fn binary() -> anyhow::Result<PathBuf> {
    let examples = std::env::current_exe()?;
    let binary = examples.parent().and_then(Path::parent).map(|directory| directory.join("tidewaiter"));
    binary.filter(|binary| binary.is_file()).context("tidewaiter is not built: run `make demo`")
}
