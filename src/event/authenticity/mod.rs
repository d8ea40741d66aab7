//! Whether a request comes from whom its source's configuration says (T-01, T-02).
//!
//! Pure: secrets, keys, certificates and the time are passed in, nothing is fetched. What can be decided from
//! the headers is decided before the body is read. Every refusal answers alike; the kinds are for counters.
//! Secrets are compared by digests of equal length, in constant time, each configured one always.

mod credential;
mod sns;
mod token;

pub use crate::event::sns::url_is_of_the_service as sns_url_is_trusted;
pub use credential::{Algorithm, Authenticity, Credential, Encoding, SecretError, Secrets, Signature};
pub use sns::{SnsMessage, signing_cert_url_is_trusted};
pub use token::{Expected, Identity, JwksError, KeySet, bearer_token, verify_token};

/// Why a request is not taken as authentic. The sender is told none of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// No credential.
    #[error("the request carries no credential")]
    Missing,
    /// The header or parameter is there more than once: which one another reader would take is not known.
    #[error("the request carries its credential more than once")]
    Repeated,
    /// A credential of another form than configured.
    #[error("the request's credential is not of the configured form")]
    Malformed,
    /// Well-formed, and not the right one.
    #[error("the request's credential is wrong")]
    Wrong,
    /// A token or certificate whose time is over or has not come.
    #[error("the request's credential is not valid at this time")]
    Expired,
    /// Signed with a key that is not among the issuer's known ones; they may have been renewed.
    #[error("the request's credential is signed with an unknown key")]
    UnknownKey,
}
