//! What senders say, as plain events.
//!
//! One file per format turns a request into [`Parsed`]; nothing here authenticates, stores or fetches. The
//! format is fixed by a source's configuration and never guessed from the request. An event is a hint: it
//! names what may have changed, and the registry is asked for the truth.
//!
//! This room is pure: it imports only `image`, does no I/O and knows no clock.

pub mod authenticity;
mod claim;
mod cloudevents;
mod describe;
mod fault;
mod form;
mod format;
mod headers;
mod json;
mod sns;
mod text;

mod acr;
mod alibaba;
mod angos;
mod artifactory;
mod distribution;
mod docker_hub;
mod ecr;
mod event_grid;
mod gitea;
mod github;
mod google_artifact_registry;
mod harbor;
mod msr;
mod nexus;
mod quay;
mod zot;

use jiff::Timestamp;

use crate::image::{Digest, Host, RepositoryName, Tag};

pub use describe::describe;
pub use fault::FormatError;
pub use format::{Format, UnknownFormat};
pub use headers::{HeaderLineError, Headers, Repeated};
pub use json::JsonError;

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

/// Whether the sender speaks of something done or of something it is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The sender has done it, or takes it as done.
    Done,
    /// The sender asks before it acts (angos): it may yet be refused, and the manifest may not be readable.
    /// Nothing is recorded in a tag's history on the strength of such an event alone.
    Intended,
}

/// One normalised event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub action: Action,
    /// Whether it has happened yet.
    pub stage: Stage,
    /// The registry that the payload names; `None` where it names none and the configuration must say. Only
    /// compared with the configured names, never used to build an address (T-17).
    pub registry: Option<Host>,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag, where the sender says.
    pub tag: Option<Tag>,
    /// The digest, where the sender says.
    pub digest: Option<Digest>,
    /// The sender's own id of the event, where it has one that a redelivery repeats. Replicas of one registry
    /// give one push several ids (Azure Container Registry), so equal content may still come twice. Several
    /// events of one delivery share its id where the sender numbers deliveries, not events.
    pub id: Option<String>,
    /// When it happened, by the sender's clock.
    pub at: Option<Timestamp>,
    /// Who did it, where the sender says. Bounded, without control characters.
    pub actor: Option<String>,
}

/// A request of a sender, as far as a format reads it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The header fields.
    pub headers: &'a Headers<'a>,
    /// The body, as sent.
    pub body: &'a [u8],
}

/// What a request was understood as. Every item of a body ends up either in `events` or in `ignored`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// What is to be acted on, in the sender's order.
    pub events: Vec<Event>,
    /// What is not, and why.
    pub ignored: Vec<Ignored>,
    /// What the sender asks for before it sends anything.
    pub handshake: Option<Handshake>,
}

impl Parsed {
    /// Whether something in the body could not be read and must be kept as a dead letter.
    pub fn has_fault(&self) -> bool {
        self.ignored.iter().any(|ignored| ignored.reason.is_fault())
    }
}

/// An item that gives no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The stable reason.
    pub reason: IgnoredReason,
    /// What was seen, bounded and escaped; may be empty.
    pub detail: String,
}

/// Why an item gives no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IgnoredReason {
    /// Content was read.
    Pull,
    /// A layer or a config was pushed or deleted.
    Blob,
    /// A blob was taken from another repository.
    Mount,
    /// A test or greeting that names no image.
    Ping,
    /// A scan began, ended or found something.
    Scan,
    /// A storage limit is near or reached.
    Quota,
    /// A replication report; the replicated artifact has an event of its own.
    Replication,
    /// A package, component or artifact of another kind.
    NotAContainerPackage,
    /// The second event of one operation, which the first tells as well.
    AlreadyTold,
    /// The operation did not happen: refused or failed.
    NotDone,
    /// It names nothing that can be looked up.
    NamesNothing,
    /// The subscription itself ended.
    Unsubscribed,
    /// A kind of event that this version does not know.
    UnknownEvent,
    /// Fault: a field is missing or has the wrong type.
    Malformed,
    /// Fault: two fields of one event contradict each other.
    Contradictory,
    /// Fault: the registry is not a host.
    InvalidRegistry,
    /// Fault: the repository does not obey the grammar of names.
    InvalidRepository,
    /// Fault: the tag does not obey the grammar of tags.
    InvalidTag,
    /// Fault: the digest is not one.
    InvalidDigest,
}

impl IgnoredReason {
    /// The stable kebab-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            IgnoredReason::Pull => "pull",
            IgnoredReason::Blob => "blob",
            IgnoredReason::Mount => "mount",
            IgnoredReason::Ping => "ping",
            IgnoredReason::Scan => "scan",
            IgnoredReason::Quota => "quota",
            IgnoredReason::Replication => "replication",
            IgnoredReason::NotAContainerPackage => "not-a-container-package",
            IgnoredReason::AlreadyTold => "already-told",
            IgnoredReason::NotDone => "not-done",
            IgnoredReason::NamesNothing => "names-nothing",
            IgnoredReason::Unsubscribed => "unsubscribed",
            IgnoredReason::UnknownEvent => "unknown-event",
            IgnoredReason::Malformed => "malformed",
            IgnoredReason::Contradictory => "contradictory",
            IgnoredReason::InvalidRegistry => "invalid-registry",
            IgnoredReason::InvalidRepository => "invalid-repository",
            IgnoredReason::InvalidTag => "invalid-tag",
            IgnoredReason::InvalidDigest => "invalid-digest",
        }
    }

    /// Whether the item should have given an event and could not: the raw body is then kept as a dead letter,
    /// while the other items of the batch are acted on.
    pub fn is_fault(self) -> bool {
        match self {
            IgnoredReason::Malformed
            | IgnoredReason::Contradictory
            | IgnoredReason::InvalidRegistry
            | IgnoredReason::InvalidRepository
            | IgnoredReason::InvalidTag
            | IgnoredReason::InvalidDigest => true,
            IgnoredReason::Pull
            | IgnoredReason::Blob
            | IgnoredReason::Mount
            | IgnoredReason::Ping
            | IgnoredReason::Scan
            | IgnoredReason::Quota
            | IgnoredReason::Replication
            | IgnoredReason::NotAContainerPackage
            | IgnoredReason::AlreadyTold
            | IgnoredReason::NotDone
            | IgnoredReason::NamesNothing
            | IgnoredReason::Unsubscribed
            | IgnoredReason::UnknownEvent => false,
        }
    }
}

/// What a sender asks for before it sends events. It proves nothing about who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// Answer at once, with exactly this.
    Answer {
        /// The status; the sender takes no other.
        status: u16,
        /// Header fields, name and value.
        headers: Vec<(&'static str, String)>,
        /// A JSON body, where one is asked for.
        body: Option<String>,
    },
    /// A subscription to an Amazon SNS topic waits for a GET of `url`. The host is checked to be one of the
    /// service's own; whether the topic is wanted and the signature right is the caller's to decide.
    Confirm {
        /// The topic to compare with the configured ones.
        topic: String,
        /// An https address at `sns.<region>.amazonaws.com` or `sns.<region>.amazonaws.com.cn`.
        url: String,
    },
}
