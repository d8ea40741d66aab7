//! Secrets: where they come from, and that they are never shown (T-62, T-65).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

/// Largest secret or configuration file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Files and environment, as the configuration sees them. Tests hand in their own.
pub trait Outside {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The permission bits of a file, links followed; `None` where the system has none.
    fn mode(&self, path: &Path) -> io::Result<Option<u32>>;
    /// An environment variable that is set and is text.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The real files and the real environment.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Outside for System {
    fn read(&self, path: &Path) -> io::Result<String> {
        let length = std::fs::metadata(path)?.len();
        if length > FILE_BYTES_MAX {
            let message = format!("the file has {length} bytes, more than the {FILE_BYTES_MAX} that are read");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        std::fs::read_to_string(path)
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        let metadata = std::fs::metadata(path)?;
        #[cfg(unix)]
        let mode = Some(std::os::unix::fs::MetadataExt::mode(&metadata));
        #[cfg(not(unix))]
        let mode = metadata.permissions().readonly().then_some(0o400);
        Ok(mode)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the edge where secrets are read")]
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Where a secret was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file, which was read at the start.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
    /// In the configuration itself: addresses that may be secret, such as a webhook's.
    Configuration,
}

/// A secret that was read. `Debug` shows where it came from and never what it is.
#[derive(Clone)]
pub struct Secret {
    value: SecretString,
    origin: Origin,
}

impl Secret {
    /// A secret from an origin.
    pub fn new(value: impl Into<SecretString>, origin: Origin) -> Secret {
        Secret { value: value.into(), origin }
    }

    /// The secret itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// Where it was read.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.origin)
    }
}

/// The text of a secret without the one line ending that editors and `echo` leave behind.
pub(super) fn trimmed(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
