//! Judges every push to a container registry as it arrives.
#[macro_use]
mod failpoint;
pub mod admin;
pub mod alert;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod document;
pub mod event;
pub mod history;
pub mod identity;
pub mod image;
pub mod intake;
pub mod listen;
pub mod metrics;
pub mod pipeline;
pub mod policy;
pub mod registry;
pub mod report;
pub mod shutdown;
pub mod store;
pub mod telemetry;
