//! YAML and JSON with positions, and the diagnostics that point into them.
//!
//! Policies, policy tests and the configuration are read here and nowhere else: [`read`] turns a text into
//! [`Node`]s that know where each value and each key stands, [`Schema::validate`] judges them by a JSON
//! Schema, and every fault is a [`Fault`] that names file, line, column, the offending text and what would
//! be right. The room is pure: texts are handed in, nothing is opened, fetched or printed.

mod duration;
mod explain;
mod fault;
#[cfg(test)]
mod golden;
mod node;
mod read;
mod schema;
mod source;

pub use duration::{DurationError, duration};
pub use fault::{FAULTS_MAX, Fault, Severity, render};
pub use node::{Key, Node, Value};
pub use read::{ALIASES_MAX, BYTES_MAX, DEPTH_MAX, NODES_MAX, read};
pub use schema::{Schema, SchemaError};
pub use source::{Position, Source, Span, quoted};
