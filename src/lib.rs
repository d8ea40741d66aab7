//! Judges every push to a container registry as it arrives.
pub mod admin;
pub mod clock;
pub mod config;
pub mod document;
pub mod event;
pub mod history;
pub mod image;
pub mod intake;
pub mod listen;
pub mod metrics;
pub mod policy;
pub mod registry;
pub mod report;
pub mod shutdown;
pub mod store;
pub mod telemetry;
