//! The nouns of the trade: references, digests, platforms, manifests.
//!
//! Everything here is a value made from text or bytes and checked once: a [`Digest`] that exists is
//! well-formed, a [`Tag`] obeys the grammar of the OCI distribution specification, a [`Manifest`] was
//! parsed within bounds. The room does no I/O, knows no clock, and imports no other room.

mod config;
mod digest;
mod manifest;
mod media_type;
mod platform;
mod reference;

pub use config::{ConfigError, ImageConfig};
pub use digest::{Algorithm, Digest, DigestError};
pub use manifest::{Content, Descriptor, ENTRIES_MAX, Index, MANIFEST_BYTES_MAX, Manifest, ManifestError, Single};
pub use media_type::MediaType;
pub use platform::{DeclaredPlatform, Platform, PlatformError, Requirement as PlatformRequirement, suffix};
pub use reference::{Host, Reference, ReferenceError, Repository, RepositoryName, Tag};
