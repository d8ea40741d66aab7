//! Who may send: the configured credential of a source against one request's head (T-01, T-02).

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use subtle::{Choice, ConstantTimeEq};

use crate::event::Headers;
use crate::event::authenticity::{Authenticity, Credential, Expected, KeySet, Refused, bearer_token, verify_token};
use crate::listen::ClientCertificate;

/// Where an issuer's public keys come from. They are fetched elsewhere; a request never waits for them.
pub trait KeySource: Send + Sync + 'static {
    /// The keys at hand.
    fn keys(&self) -> Arc<KeySet>;
    /// A token names a key that is not among them: fetch them again, at a bounded rate. Returns at once.
    fn renew(&self);
}

/// What a source's requests must carry.
#[derive(Clone)]
pub enum Auth {
    /// A shared secret or a signature made with one.
    Secret(Credential),
    /// An identity token.
    Oidc {
        /// The issuer's keys.
        keys: Arc<dyn KeySource>,
        /// What the token must say.
        expected: Expected,
    },
    /// A client certificate under the listener's `clientCa`.
    ClientCertificate {
        /// Names of which the certificate must have one, exactly.
        names: Vec<String>,
    },
    /// Nothing: only with the explicit setting that allows it.
    Unauthenticated,
}

impl Auth {
    /// Checks what can be checked before the body is read.
    pub(super) fn check_head(
        &self,
        headers: &Headers<'_>,
        query: &str,
        certificate: Option<&ClientCertificate>,
        now: impl FnOnce() -> Timestamp,
    ) -> Result<Authenticity<'_>, Refused> {
        match self {
            Auth::Secret(credential) => credential.check_head(headers, query),
            Auth::Oidc { keys, expected } => {
                let checked = verify_token(bearer_token(headers)?, &keys.keys(), expected, now());
                if checked == Err(Refused::UnknownKey) {
                    keys.renew();
                }
                checked.map(|()| Authenticity::Proven)
            }
            Auth::ClientCertificate { names } => {
                let shown = certificate.ok_or(Refused::Missing)?;
                let mut known = Choice::from(0);
                for (shown, wanted) in shown.names.iter().flat_map(|shown| names.iter().map(move |name| (shown, name)))
                {
                    known |= shown.as_bytes().ct_eq(wanted.as_bytes());
                }
                if bool::from(known) { Ok(Authenticity::Proven) } else { Err(Refused::Wrong) }
            }
            Auth::Unauthenticated => Ok(Authenticity::Proven),
        }
    }

    /// Whether an unauthenticated handshake may be answered: not where the credential is part of the address,
    /// which the sender then always has.
    pub(super) fn is_in_address(&self) -> bool {
        matches!(self, Auth::Secret(Credential::Query { .. }))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth::Secret(_) => "Secret",
            Auth::Oidc { .. } => "Oidc",
            Auth::ClientCertificate { .. } => "ClientCertificate",
            Auth::Unauthenticated => "Unauthenticated",
        })
    }
}
