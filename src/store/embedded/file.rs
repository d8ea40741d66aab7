//! The file and what lies beside it: who may read it, who holds it, and the space kept back for when the disk is full.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::codec::damaged;
use crate::store::StoreError;

/// Only the daemon's own user reads the store: it names actors and private repositories (T-53).
const FILE_MODE: u32 = 0o600;
/// The same for a directory that is made for it.
const DIRECTORY_MODE: u32 = 0o700;

/// The path with `suffix` appended to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The store cannot lie there.
pub(super) fn unusable(path: &Path, why: impl std::fmt::Display) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), why: why.to_string() }
}

/// The path with links followed: a store has one name, so that its lock and its journal are found by whoever opens it.
pub(super) fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// How files are opened or made that only the owner reads.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options
}

/// Makes the file, and the directory it lies in, where they are missing.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty())
        && !dir.exists()
    {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir).map_err(|e| unusable(path, e))?;
    }
    if !path.exists() {
        private().open(path).and_then(|f| f.sync_all()).map_err(|e| unusable(path, e))?;
        failpoint!("file-made");
        sync_directory(path).map_err(|e| unusable(path, e))?;
    }
    // SQLite takes a file that is too short for a head for an empty one, and would begin anew in it.
    const HEAD: u64 = 512;
    match std::fs::metadata(path).map_err(|e| unusable(path, e))? {
        found if !found.is_file() => Err(unusable(path, "it is no file")),
        found if (1..HEAD).contains(&found.len()) => Err(damaged("its head", "the file is cut short")),
        _ => Ok(()),
    }
}

/// Puts the names in the file's directory on disk.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// The bytes that the file's disk has left for its owner; `None` where the system does not say.
pub(super) fn available(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Makes a new private file; one that is there is an error.
pub(super) fn create_new(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Takes the store for this process, for as long as the answer lives (T-48).
///
/// The lock is the operating system's and ends with the process however it ends; the number written inside is
/// for people only, so a file left behind is no obstacle.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let mut file = private().open(beside(path, ".lock")).map_err(|e| unusable(path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(StoreError::InUse { path: path.display().to_string(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(unusable(path, e)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(|e| unusable(path, e))?;
    Ok(file)
}

/// Space kept back in a file of its own, and given up when the disk is full, so that what is on record can still
/// be judged, told and marked as done while new events are refused (T-46).
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl Reserve {
    /// Takes the space, if there is any. `bytes` of 0 keeps none.
    pub(super) fn take(store: &Path, bytes: u64) -> Reserve {
        let mut reserve = Reserve { path: beside(store, ".reserve"), bytes, held: false };
        reserve.regain();
        reserve
    }

    /// Whether new events must be refused because the reserve is in use.
    pub(super) fn is_spent(&self) -> bool {
        !self.held
    }

    /// Gives the space up.
    pub(super) fn spend(&mut self) {
        if self.bytes > 0 && self.held {
            // If it cannot be removed, the disk stays full, and writing goes on failing as it does.
            let _ = std::fs::remove_file(&self.path);
            self.held = false;
        }
    }

    /// Takes the space back; says whether it is held.
    pub(super) fn regain(&mut self) -> bool {
        if !self.held {
            self.held = self.bytes == 0 || self.fill().is_ok();
            if !self.held {
                let _ = std::fs::remove_file(&self.path);
            }
        }
        self.held
    }

    fn fill(&self) -> std::io::Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|m| m.len() == self.bytes) {
            return Ok(());
        }
        // Written out, since a file that is only made long takes no space.
        const PIECE: usize = 1 << 20;
        let zeros = vec![0; PIECE];
        let mut file = private().open(&self.path)?;
        let mut left = self.bytes;
        while left > 0 {
            let piece = left.min(PIECE as u64);
            file.write_all(&zeros[..piece as usize])?;
            left -= piece;
        }
        file.set_len(self.bytes)?;
        file.sync_all()
    }
}

/// The kind of network file system that the path lies on, if it does: locks and syncs are not to be relied on there.
pub(super) fn network_file_system(path: &Path) -> Option<String> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = dir.canonicalize().ok()?;
    network_kind(&std::fs::read_to_string("/proc/self/mounts").ok()?, &dir)
}

fn network_kind(mounts: &str, dir: &Path) -> Option<String> {
    const NETWORK: [&str; 9] =
        ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"];
    let mut best: Option<(&str, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else { continue };
        let longer = best.is_none_or(|(known, _)| point.len() >= known.len());
        if longer && dir.starts_with(point) {
            best = Some((point, kind));
        }
    }
    best.filter(|(_, kind)| NETWORK.contains(kind)).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t48_the_longest_mount_point_decides() {
        let mounts = "/dev/a / ext4 rw 0 0\nfiler:/x /srv nfs4 rw 0 0\n/dev/b /srv/local xfs rw 0 0\n";
        assert_eq!(network_kind(mounts, Path::new("/srv/store")).as_deref(), Some("nfs4"));
        assert_eq!(network_kind(mounts, Path::new("/srv/local/store")), None);
        assert_eq!(network_kind(mounts, Path::new("/srvx")), None);
    }
}
