//! The configuration, `tidewaiter.yaml`, read once into values that are right.
//!
//! A [`Config`] that exists was validated by the published schema and by the checks that a schema cannot make:
//! registries that sources name are configured, names occur once, no credential travels in the clear. Every
//! fault names file, line and column. The room reads files and the environment through [`Outside`] and
//! nothing else; it opens no connection, and no secret it has read is ever printed.

mod read;
mod secret;
#[cfg(test)]
mod tests;
mod types;

use std::path::{Path, PathBuf};

use crate::document::{Fault, Node, Schema, Source, Span};

pub use secret::{Origin, Outside, Secret, System};
pub use types::{
    Admin, Config, HmacAlgorithm, HmacEncoding, Limits, Listen, Log, LogFormat, LogLevel, Policies, Reach, Reconcile,
    Registry, RegistryAuth, RegistryLimits, Retention, Sink, SinkAuth, SinkKind, SourceAuth, SourceConfig, StoreUrl,
    Tls,
};

/// The published JSON Schema of the configuration.
pub const SCHEMA: &str = include_str!("schema.json");

impl Config {
    /// Reads the configuration at `path`, with its secrets.
    pub fn load(path: &Path) -> Result<Config, Vec<Fault>> {
        Config::load_with(path, &System)
    }

    /// Reads the configuration at `path` through a stand-in for files and environment.
    pub fn load_with(path: &Path, outside: &dyn Outside) -> Result<Config, Vec<Fault>> {
        let source = Config::source(path, outside)?;
        Config::parse(&source, path.parent().unwrap_or(Path::new("")), outside)
    }

    fn source(path: &Path, outside: &dyn Outside) -> Result<Source, Vec<Fault>> {
        let name = path.display().to_string();
        let read = outside.read(path).map_err(|error| {
            let message = format!("cannot read the configuration: {error}");
            // There is no text to show a place in.
            let fault =
                Fault::error(&Source::new(name.as_str(), ""), Span::default(), "unreadable", message).concealed();
            vec![fault.help("name one with --config; `tidewaiter init --registry HOST` writes one to start from")]
        });
        Ok(Source::new(name, read?))
    }

    /// Reads a configuration whose text is at hand; its files are relative to `folder`.
    pub fn parse(source: &Source, folder: &Path, outside: &dyn Outside) -> Result<Config, Vec<Fault>> {
        match Config::read(source, folder, outside)? {
            (config, faults) if faults.is_empty() => Ok(config),
            (_, faults) => Err(faults),
        }
    }

    /// Reads the configuration at `path` to look at it: secrets that cannot be used are faults beside it, and those that
    /// cannot be read are empty. It is not to be run.
    ///
    /// # Errors
    /// Every fault, where there is one that is not about a secret's file or variable.
    pub fn examine(path: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
        let source = Config::source(path, &System)?;
        let (config, faults) = Config::read(&source, path.parent().unwrap_or(Path::new("")), &System)?;
        let of_secrets = |fault: &Fault| matches!(fault.code, "unreadable-secret" | "readable-secret" | "empty-secret");
        if faults.iter().all(of_secrets) { Ok((config, faults)) } else { Err(faults) }
    }

    fn read(source: &Source, folder: &Path, outside: &dyn Outside) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
        let nodes = crate::document::read(source)?;
        if let [_, second, ..] = &nodes[..] {
            let span = Span::new(second.span.start, second.span.start);
            return Err(vec![Fault::error(source, span, "several-documents", "a configuration is one YAML document")]);
        }
        let Some(node) = nodes.first() else { return Ok((Config::in_folder(folder), Vec::new())) };
        let schema = Schema::new(SCHEMA).map_err(|error| {
            vec![Fault::error(source, Span::default(), "invalid-schema", format!("the program's own schema: {error}"))]
        })?;
        let mut faults = schema.validate(source, node);
        let read = read::config(source, node, folder, outside);
        if faults.is_empty() {
            return Ok(read);
        }
        // Every fault at once: what reading finds besides, except where the shape is wrong already, and what only
        // follows from that.
        let shapes: Vec<Span> = faults.iter().map(|f| f.span).collect();
        let apart = |fault: &Fault| shapes.iter().all(|s| fault.span.end <= s.start || s.end <= fault.span.start);
        let of_its_own = |fault: &Fault| apart(fault) && !follows_from(fault, &faults, node);
        let besides: Vec<Fault> = read.1.into_iter().filter(of_its_own).collect();
        faults.extend(besides);
        faults.sort_by_key(|f| (f.span.start, f.span.end));
        Err(faults)
    }

    /// What holds where no configuration is given: loopback, self-signed TLS, the embedded store in the
    /// working directory, the shipped policies, no registry, no source and no sink.
    pub fn default_for_no_file() -> Config {
        Config::in_folder(Path::new(""))
    }

    fn in_folder(folder: &Path) -> Config {
        Config {
            listen: Listen::default(),
            tls: None,
            store: StoreUrl::Sqlite(folder.join(read::STORE_FILE)),
            policies: Policies::Shipped,
            registries: Vec::new(),
            sources: Vec::new(),
            sinks: Vec::new(),
            limits: Limits::default(),
            retention: Retention::default(),
            log: Log::default(),
            admin: Admin::default(),
            warnings: Vec::new(),
            hash: String::new(),
        }
    }

    /// The folder of the store's file, where the self-signed certificate is kept as well; the working
    /// directory where the store is a server.
    pub fn state_folder(&self) -> PathBuf {
        match &self.store {
            StoreUrl::Sqlite(path) => path.parent().unwrap_or(Path::new("")).to_owned(),
            StoreUrl::Postgres(_) => PathBuf::new(),
        }
    }
}

/// Whether something is said to be missing, or not to fit, only because faults of shape are beside it: `auht: …` is
/// no source without a credential.
fn follows_from(fault: &Fault, shapes: &[Fault], root: &Node) -> bool {
    let within = |node: &Node, span: Span| node.span.start <= span.start && span.start < node.span.end;
    match fault.code {
        // What another part of the configuration lacks, which may be there under a misspelt key.
        "unknown-registry" | "no-registry" | "no-client-ca" if is_misspelt(root, shapes) => true,
        "no-credential" | "no-registry" | "no-client-ca" | "missing-secret" | "missing-key" | "contradiction" => {
            // The entry of a list that it is about, or the whole part.
            let part = root.entries().iter().map(|(_, part)| part).find(|part| within(part, fault.span));
            let item = part.map(|part| part.items().iter().find(|item| within(item, fault.span)).unwrap_or(part));
            let kind = |item: &Node, span: Span| {
                let auth = item.get("auth").and_then(|auth| auth.get("kind"));
                item.get("kind").into_iter().chain(auth).any(|kind| kind.span == span)
            };
            item.is_some_and(|item| {
                let inside = |shape: &&Fault| within(item, shape.span);
                shapes.iter().filter(inside).any(|shape| shape.code == "unknown-key" || kind(item, shape.span))
            })
        }
        _ => false,
    }
}

/// Whether a key of the outermost map is none that there is.
fn is_misspelt(root: &Node, shapes: &[Fault]) -> bool {
    root.entries().iter().any(|(key, _)| shapes.iter().any(|f| f.code == "unknown-key" && f.span == key.span))
}
