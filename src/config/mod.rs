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

use crate::document::{Fault, Schema, Source, Span};

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
        let name = path.display().to_string();
        let text = outside.read(path).map_err(|error| {
            let source = Source::new(name.as_str(), "");
            vec![Fault::error(
                &source,
                Span::default(),
                "unreadable",
                format!("cannot read the configuration: {error}"),
            )]
        })?;
        Config::parse(&Source::new(name, text), path.parent().unwrap_or(Path::new("")), outside)
    }

    /// Reads a configuration whose text is at hand; its files are relative to `folder`.
    pub fn parse(source: &Source, folder: &Path, outside: &dyn Outside) -> Result<Config, Vec<Fault>> {
        let nodes = crate::document::read(source)?;
        if let [_, second, ..] = &nodes[..] {
            let span = Span::new(second.span.start, second.span.start);
            return Err(vec![Fault::error(source, span, "several-documents", "a configuration is one YAML document")]);
        }
        let Some(node) = nodes.first() else { return Ok(Config::in_folder(folder)) };
        let schema = Schema::new(SCHEMA).map_err(|error| {
            vec![Fault::error(source, Span::default(), "invalid-schema", format!("the program's own schema: {error}"))]
        })?;
        let mut faults = schema.validate(source, node);
        let read = read::config(source, node, folder, outside);
        if faults.is_empty() {
            return read;
        }
        // Every fault at once: what reading finds besides, except where the shape is wrong already.
        let shapes: Vec<Span> = faults.iter().map(|f| f.span).collect();
        let apart = |fault: &Fault| shapes.iter().all(|s| fault.span.end <= s.start || s.end <= fault.span.start);
        faults.extend(read.err().unwrap_or_default().into_iter().filter(apart));
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
