//! Why a registry could not be asked, typed by what a caller does about it. Text from a registry is cut to
//! 512 bytes and escaped before it gets here (T-35).

use std::fmt::Write as _;
use std::time::Duration;

use crate::image::Digest;

/// Most bytes of a registry's own words that are kept, after escaping.
const REMOTE_TEXT_BYTES_MAX: usize = 512;

/// Why a question to a registry has no answer.
///
/// "Not there" is no error: the methods return `None` for it, and only for an answer that says so in the form
/// that the distribution specification gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The credential is missing, wrong, expired, or not good for this repository.
    #[error("the registry asks for a credential, or refuses the configured one{}: check `auth` of this registry", says(.said))]
    Unauthorized {
        /// The registry's own words, escaped and cut.
        said: String,
    },
    /// The credential is good but not for this; or the registry's network rules refuse this address.
    #[error("the registry forbids this{}: check the permissions of the credential and the registry's network rules", says(.said))]
    Forbidden {
        /// The registry's own words, escaped and cut.
        said: String,
    },
    /// The registry asked for a pause that ends after this session's deadline, or is in one after failures.
    #[error("the registry wants no requests for the next {} s", .retry_after.as_secs())]
    Throttled {
        /// How long from now until the next request is welcome.
        retry_after: Duration,
    },
    /// The registry failed.
    #[error("the registry answers {status}{}", says(.said))]
    Server {
        /// 500 to 599.
        status: u16,
        /// The registry's own words, escaped and cut.
        said: String,
    },
    /// A status that says neither what is there nor that nothing is there.
    #[error("the registry answers {status}, which says nothing about the content{}", says(.said))]
    Unexpected {
        /// The status.
        status: u16,
        /// The registry's own words, escaped and cut.
        said: String,
    },
    /// One request took too long.
    #[error("the registry did not answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// No connection, or one that ended before the answer did.
    #[error("no answer from the registry: {0}")]
    Connect(String),
    /// The registry's certificate or its TLS is not acceptable.
    #[error(
        "the registry's TLS is refused: {0}; for a private authority set `ca` of this registry, or --ca on the command line"
    )]
    Tls(String),
    /// The name leads to an address that is not reached without `allowPrivate` (T-19).
    #[error(
        "`{host}` leads to a private or reserved address: set `allowPrivate: true` if this registry is meant to be there"
    )]
    PrivateAddress {
        /// The host asked for.
        host: String,
    },
    /// The bytes are not those that the digest names (T-29).
    #[error("the registry sent bytes of digest {actual} for {expected}")]
    DigestMismatch {
        /// What was asked for, or stated.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// A body is larger than what was asked for may be.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// This resolution has used up what it may (T-31).
    #[error("this resolution is over its budget of {0}")]
    Budget(Exceeded),
    /// The registry asked for what would carry a credential or a request elsewhere (T-25, T-26).
    #[error("refused: {0}")]
    Untrusted(String),
    /// The answer is not what the protocol allows.
    #[error("the registry breaks the protocol: {0}")]
    Protocol(String),
    /// A local image layout could not be read.
    #[error("{0}")]
    Local(String),
}

/// Which part of a budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The number of requests.
    #[error("{0} requests")]
    Requests(u32),
    /// The bytes read.
    #[error("{0} bytes")]
    Bytes(u64),
    /// The time.
    #[error("{} s", .0.as_secs_f32())]
    Time(Duration),
}

impl RegistryError {
    /// Whether asking again later may succeed without anybody changing anything. Decides retries; nothing
    /// else does.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Throttled { .. }
            | RegistryError::Server { .. }
            | RegistryError::Timeout(_)
            | RegistryError::Connect(_)
            | RegistryError::Budget(Exceeded::Time(_)) => true,
            // Behind proxies and while replicas catch up; 404 only where the body did not say "not there".
            RegistryError::Unexpected { status, .. } => matches!(status, 404 | 408 | 409 | 421 | 425),
            RegistryError::Unauthorized { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::Tls(_)
            | RegistryError::PrivateAddress { .. }
            | RegistryError::DigestMismatch { .. }
            | RegistryError::TooLarge { .. }
            | RegistryError::Budget(_)
            | RegistryError::Untrusted(_)
            | RegistryError::Protocol(_)
            | RegistryError::Local(_) => false,
        }
    }
}

fn says(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" (it says: {said})") }
}

/// A registry's words as one line of at most 512 bytes: printable ASCII as it is, everything else escaped, so
/// that neither control sequences nor text that reads backwards reach a terminal or a message.
pub(super) fn remote_text(text: &[u8]) -> String {
    let mut out = String::new();
    // Escapes are longer than what they stand for: no more characters than the limit can matter.
    let cut = &text[..text.len().min(REMOTE_TEXT_BYTES_MAX * 4)];
    for c in String::from_utf8_lossy(cut).trim().chars() {
        let before = out.len();
        match c {
            ' '..='~' => out.push(c),
            _ => {
                let _ = write!(out, "{}", c.escape_default());
            }
        }
        if out.len() > REMOTE_TEXT_BYTES_MAX - '…'.len_utf8() {
            out.truncate(before);
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t35_remote_text_is_short_and_inert() {
        assert_eq!(remote_text(b"  denied\n"), "denied");
        assert_eq!(remote_text("\u{1b}[2J\u{202e}é".as_bytes()), "\\u{1b}[2J\\u{202e}\\u{e9}");
        for hostile in [vec![b'a'; 10_000], vec![0xff; 10_000], "\u{202e}".repeat(3_000).into_bytes()] {
            let text = remote_text(&hostile);
            assert!(text.len() <= REMOTE_TEXT_BYTES_MAX && text.ends_with('…'), "{}", text.len());
        }
    }

    #[test]
    fn t33_only_what_time_can_heal_is_transient() {
        let said = String::new;
        for (error, transient) in [
            (RegistryError::Throttled { retry_after: Duration::from_secs(1) }, true),
            (RegistryError::Server { status: 503, said: said() }, true),
            (RegistryError::Unexpected { status: 404, said: said() }, true),
            (RegistryError::Unexpected { status: 400, said: said() }, false),
            (RegistryError::Unauthorized { said: said() }, false),
            (RegistryError::Budget(Exceeded::Time(Duration::from_secs(30))), true),
            (RegistryError::Budget(Exceeded::Requests(64)), false),
            (RegistryError::TooLarge { limit: 1 }, false),
        ] {
            assert_eq!(error.is_transient(), transient, "{error}");
        }
    }
}
