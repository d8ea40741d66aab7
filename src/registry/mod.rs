//! Asks registries what is there: the read-only client of the OCI distribution API.
//!
//! A [`Client`] is one registry with its credential, its connections and its pace; a [`Session`] is one
//! resolution with its budget. Everything that a registry answers is hostile until it was checked: bytes are
//! handed on only when they match their digest, a credential goes to the configured origin and nowhere else,
//! and nothing an answer says (a realm, a redirect, a link) chooses where a connection may go. Local image
//! layouts and the container tools' credential files are read here too, because they answer the same questions.
//!
//! The room imports only `image`. It never changes anything in a registry, never retries an error on its own
//! beyond one sign-in and a `Retry-After` that fits the deadline, and keeps no record.

mod address;
pub mod auth_files;
mod azure;
mod challenge;
mod client;
mod error;
mod gate;
mod layout;
mod locks;
mod page;
mod settings;
mod token;
mod transport;

pub use address::{AddressRule, RefusedAddress, Resolver};
pub use azure::{Azure, AzureIdentity};
pub use client::{Access, Client, Fetched, Greeting, Session};
pub use error::{Exceeded, RegistryError};
pub use gate::Health;
pub use layout::{Entry, Layout, LayoutReference};
pub use locks::{Locks, has_locks};
pub use page::{Cursor, PAGES_MAX, Page};
pub use settings::{
    Auth, Budget, Observer, Operation, Origin, Scheme, Settings, SettingsError, StatusClass, TokenService,
};
pub use transport::connector;
