//! Judges every push to a container registry as it arrives.
pub mod clock;
pub mod event;
pub mod history;
pub mod image;
pub mod intake;
pub mod listen;
pub mod metrics;
pub mod policy;
pub mod shutdown;
pub mod store;
pub mod telemetry;
