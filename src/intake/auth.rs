//! Who may send: the configured credential of a source against one request's head (T-01, T-02).

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use subtle::{Choice, ConstantTimeEq};

use super::HookFuture;
use super::respond::Refusal;
use crate::event::Headers;
use crate::event::authenticity::{
    Authenticity, Credential, Expected, KeySet, Refused, SnsMessage, bearer_token, verify_token,
};
use crate::listen::ClientCertificate;

/// Where an issuer's public keys come from. They are fetched elsewhere; a request never waits for them.
pub trait KeySource: Send + Sync + 'static {
    /// The keys at hand.
    fn keys(&self) -> Arc<KeySet>;
    /// A token names a key that is not among them: fetch them again, at a bounded rate. Returns at once.
    fn renew(&self);
}

/// Where the certificates are that Amazon SNS signs with.
pub trait CertificateSource: Send + Sync + 'static {
    /// The certificate at `url`, in DER. The address is checked to be one of the service's own. Asked before the
    /// request is known to be authentic, so answers are kept and calls are few.
    ///
    /// # Errors
    /// There is none, or it cannot be had now.
    fn certificate<'a>(&'a self, url: &'a str) -> HookFuture<'a, Result<Arc<[u8]>, NoCertificate>>;
}

/// Why there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCertificate {
    /// The address is none of the service's, or what is there is no certificate.
    Wrong,
    /// The service does not answer, or is asked too often: the same message may be authentic later.
    Unavailable,
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
        /// What the token must say: one of these.
        expected: Vec<Expected>,
    },
    /// A client certificate under the listener's `clientCa`.
    ClientCertificate {
        /// Names of which the certificate must have one, exactly.
        names: Vec<String>,
    },
    /// A signature of Amazon SNS, for one of these topics: anyone's topic is signed as well.
    Sns {
        /// The topics' names (ARN).
        topics: Vec<String>,
        /// The service's certificates.
        certificates: Arc<dyn CertificateSource>,
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
    ) -> Result<Proof<'_>, Refused> {
        let proven = Proof::Head(Authenticity::Proven);
        match self {
            Auth::Secret(credential) => credential.check_head(headers, query).map(Proof::Head),
            Auth::Oidc { keys, expected } => {
                let (token, now, known) = (bearer_token(headers)?, now(), keys.keys());
                let mut checked = Err(Refused::Wrong);
                for expected in expected {
                    checked = verify_token(token, &known, expected, now);
                    match checked {
                        Ok(()) => break,
                        Err(Refused::UnknownKey) => {
                            keys.renew();
                            break;
                        }
                        Err(_) => {}
                    }
                }
                checked.map(|()| proven)
            }
            Auth::ClientCertificate { names } => {
                let shown = certificate.ok_or(Refused::Missing)?;
                let mut known = Choice::from(0);
                for (shown, wanted) in shown.names.iter().flat_map(|shown| names.iter().map(move |name| (shown, name)))
                {
                    known |= shown.as_bytes().ct_eq(wanted.as_bytes());
                }
                if bool::from(known) { Ok(proven) } else { Err(Refused::Wrong) }
            }
            Auth::Sns { topics, certificates } => Ok(Proof::Sns { topics, certificates: certificates.as_ref() }),
            Auth::Unauthenticated => Ok(proven),
        }
    }

    /// Whether an unauthenticated handshake may be answered: not where the credential is part of the address,
    /// which the sender then always has.
    pub(super) fn is_in_address(&self) -> bool {
        matches!(self, Auth::Secret(Credential::Query { .. }))
    }
}

/// What the head proves, and what is left for the body.
pub(super) enum Proof<'a> {
    /// As the credential says.
    Head(Authenticity<'a>),
    /// Everything is in the body.
    Sns {
        /// The topics.
        topics: &'a [String],
        /// The certificates.
        certificates: &'a dyn CertificateSource,
    },
}

impl Proof<'_> {
    /// Checks what the head left open.
    pub(super) async fn check_body(&self, body: &[u8], now: impl FnOnce() -> Timestamp) -> Result<(), Refusal> {
        let unauthenticated = |_: Refused| Refusal::Unauthenticated;
        match self {
            Proof::Head(authenticity) => authenticity.check_body(body).map_err(unauthenticated),
            Proof::Sns { topics, certificates } => {
                let message = SnsMessage::read(body).map_err(unauthenticated)?;
                if !topics.iter().any(|topic| topic == message.topic()) {
                    return Err(Refusal::Unauthenticated);
                }
                match certificates.certificate(message.signing_cert_url()).await {
                    Ok(certificate) => message.verify(&certificate, now()).map_err(unauthenticated),
                    Err(NoCertificate::Wrong) => Err(Refusal::Unauthenticated),
                    // The service takes 401 as final and would not send the message again.
                    Err(NoCertificate::Unavailable) => Err(Refusal::KeyUnavailable),
                }
            }
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth::Secret(_) => "Secret",
            Auth::Oidc { .. } => "Oidc",
            Auth::ClientCertificate { .. } => "ClientCertificate",
            Auth::Sns { .. } => "Sns",
            Auth::Unauthenticated => "Unauthenticated",
        })
    }
}
