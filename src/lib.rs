//! Judges every push to a container registry as it arrives.
pub mod document;
pub mod event;
pub mod history;
pub mod image;
pub mod policy;
pub mod report;
pub mod store;
