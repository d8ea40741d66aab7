//! Judges every push to a container registry as it arrives.
pub mod alert;
pub mod backoff;
pub mod config;
pub mod document;
pub mod event;
pub mod history;
pub mod image;
pub mod policy;
pub mod registry;
pub mod report;
pub mod store;
