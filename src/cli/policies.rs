//! Policies as `--policy`, the configuration and `policy lint` name them: read as the daemon reads them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::fail::Failure;
use crate::app::{policy_sources, read_beside_policy};
use crate::config::{Config, Policies};
use crate::document::Source;
use crate::policy::{self, Document, PolicySet};

/// Policies, and the documents that they are made of.
#[derive(Debug)]
pub(super) struct Loaded {
    pub set: PolicySet,
    pub documents: Vec<Document>,
}

/// The policies that a command judges by: those named, else those of the configuration, else the shipped ones.
///
/// # Errors
/// Every fault of every document, or a path that cannot be read or holds no document.
pub(super) fn chosen(named: &[PathBuf], config: Option<&Config>) -> Result<Loaded, Failure> {
    match config.map(|c| &c.policies) {
        _ if !named.is_empty() => load(named),
        Some(Policies::Paths(paths)) => load(paths),
        Some(Policies::Shipped) | None => {
            read(&policy::shipped().iter().map(|(name, text)| Source::new(*name, *text)).collect::<Vec<_>>())
        }
    }
}

/// The policies of files and folders.
pub(super) fn load(paths: &[PathBuf]) -> Result<Loaded, Failure> {
    read(&sources(paths)?)
}

/// The texts of files and folders, each file once.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    if let Some(path) = paths.iter().find(|path| !path.exists()) {
        return Err(Failure::say(format!("there is no file or folder `{}`", path.display())));
    }
    let mut sources = policy_sources(paths).map_err(|fault| Failure::Faults(fault.0))?;
    let mut names = BTreeSet::new();
    sources.retain(|source| names.insert(source.name.clone()));
    if sources.is_empty() {
        let named: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
        return Err(Failure::say(format!("there is no policy in {}", named.join(", ")))
            .help("policies are files that end in .yaml, .yml or .json"));
    }
    Ok(sources)
}

/// The documents of texts, compiled.
pub(super) fn read(sources: &[Source]) -> Result<Loaded, Failure> {
    let (documents, set) = policy::load(sources, &read_beside_policy)?;
    Ok(Loaded { set, documents })
}
