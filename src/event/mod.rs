//! What senders say, as plain events.
//!
//! One file per format turns a request into [`Parsed`]; nothing here authenticates, stores or fetches. The
//! format is fixed by a source's configuration and never guessed from the request. An event is a hint: it
//! names what may have changed, and the registry is asked for the truth.
//!
//! This room is pure: it imports only `image`, does no I/O and knows no clock.

use jiff::Timestamp;

use crate::image::{Digest, Host, RepositoryName, Tag};

/// What happened, as the sender says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// A manifest was pushed, or a tag was set.
    Push,
    /// With a digest: a manifest and all its tags are gone. With a tag only: the tag is gone. With neither:
    /// the whole repository.
    Delete,
    /// A manifest was pushed and is held until it is released (Azure Container Registry).
    Quarantine,
}

impl Action {
    /// The stable lower-case word, used on the wire, in the store and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Push => "push",
            Action::Delete => "delete",
            Action::Quarantine => "quarantine",
        }
    }
}

/// One normalised event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub action: Action,
    /// The registry that the payload names; `None` where it names none and the configuration must say. Only
    /// compared with the configured names, never used to build an address (T-17).
    pub registry: Option<Host>,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag, where the sender says.
    pub tag: Option<Tag>,
    /// The digest, where the sender says.
    pub digest: Option<Digest>,
    /// The sender's own id of the event, where it has one.
    pub id: Option<String>,
    /// When it happened, by the sender's clock.
    pub at: Option<Timestamp>,
    /// Who did it, where the sender says.
    pub actor: Option<String>,
}
