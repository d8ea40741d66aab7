//! The words that labels may have where they are not names out of the configuration: enums, so that the compiler
//! knows every series there can be.

use crate::event::Action;
use crate::history::Origin;

/// The label value of names that were not announced.
pub(super) const OTHER: &str = "other";
macro_rules! labels {
    ($($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$vdoc])* $variant),* }

        impl $type {
            /// Every value.
            pub const ALL: &'static [$type] = &[$($type::$variant),*];

            /// The label value.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),* }
            }

            /// The value of this word, for rooms that have words of their own.
            pub fn from_word(word: &str) -> Option<$type> {
                match word { $($word => Some($type::$variant),)* _ => None }
            }
        }
    )*};
}
labels! {
    /// What became of an event at the listener.
    EventResult {
        /// New, now on disk.
        Recorded = "recorded",
        /// On disk already.
        Duplicate = "duplicate",
        /// Authentic and of no interest.
        Ignored = "ignored",
        /// Authentic and unreadable, or about what is not configured: kept.
        Dead = "dead",
        /// Refused: not authentic, too large, or not to be recorded now.
        Rejected = "rejected",
        /// Asked about before it was done, and refused by a policy.
        Denied = "denied",
    }
    /// What a registry is asked for; the words are those of the `registry` room.
    Operation {
        /// What a tag points to.
        HeadManifest = "head-manifest",
        /// A manifest or index.
        GetManifest = "get-manifest",
        /// Whether a blob is there.
        HeadBlob = "head-blob",
        /// A config or other blob.
        GetBlob = "get-blob",
        /// A page of tags.
        ListTags = "list-tags",
        /// A page of repositories.
        Catalog = "catalog",
        /// The write lock of a tag or manifest.
        GetLock = "get-lock",
        /// A sign-in.
        Token = "token",
    }
    /// How a registry answered; the words are those of the `registry` room.
    RequestStatus {
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirect = "3xx",
        /// 429.
        Throttled = "429",
        /// 400 to 499 otherwise.
        Client = "4xx",
        /// 500 to 599, and what is no status.
        Server = "5xx",
        /// No answer, or none that could be used.
        None = "none",
    }
    /// Whether something worked.
    Success {
        /// It did.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
    }
    /// What became of an attempt to deliver an alert.
    AlertResult {
        /// Accepted by the sink.
        Delivered = "delivered",
        /// Not accepted; tried again later.
        Retried = "retried",
        /// Given up.
        Dropped = "dropped",
    }
    /// What is done in a registry, or refused on its behalf.
    Enforcement {
        /// A push refused before it happened.
        Refuse = "refuse",
        /// A tag locked.
        Lock = "lock",
        /// A moved tag put back.
        Restore = "restore",
    }
    /// What became of it.
    EnforcementResult {
        /// Done.
        Done = "done",
        /// Not needed, or held back.
        Skipped = "skipped",
        /// Failed.
        Failed = "failed",
    }
    /// One of the daemon's own ports.
    Listener {
        /// Where senders deliver events.
        Events = "events",
        /// Health, metrics and the API.
        Admin = "admin",
    }
    /// A limit against hostile or broken clients.
    Limit {
        /// Connections in all.
        Connections = "connections",
        /// Connections of one address.
        ConnectionsPerAddress = "connections-per-address",
        /// Connections that have not finished a request.
        ConnectionsFresh = "connections-fresh",
        /// TLS handshakes at once.
        Handshakes = "handshakes",
        /// Time for a TLS handshake.
        HandshakeTime = "handshake-time",
        /// Time for a request's head.
        HeadTime = "head-time",
        /// Time for a request's body.
        BodyTime = "body-time",
        /// Time for writing an answer.
        WriteTime = "write-time",
        /// Time for answering.
        AnswerTime = "answer-time",
        /// Bytes or fields of a request's head.
        Head = "head",
        /// A head or body whose framing is ambiguous or wrong.
        Framing = "framing",
        /// Bytes of a body.
        Body = "body",
        /// Bytes of all bodies being read.
        Buffered = "buffered",
        /// Events being recorded.
        InFlight = "in-flight",
    }
}

/// A log level, as the label says it.
pub(super) const LEVELS: [tracing::Level; 5] =
    [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::INFO, tracing::Level::DEBUG, tracing::Level::TRACE];
/// What [`Action`] can be.
pub(super) const ACTIONS: [Action; 3] = [Action::Push, Action::Delete, Action::Quarantine];
/// The action of what gave no event.
pub(super) const NO_ACTION: &str = "none";
/// What [`Origin`] can be.
pub(super) const ORIGINS: [Origin; 4] = [Origin::Event, Origin::Audit, Origin::Check, Origin::PolicyChange];
/// The statuses that the listeners answer with; any other is counted as `other`.
pub(super) const ANSWERS: [u16; 18] =
    [200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 422, 500, 503];

/// The label value of a log level.
pub(super) fn level_word(level: &tracing::Level) -> &'static str {
    match *level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}
