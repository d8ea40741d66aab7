//! Shared secrets: in a header, as basic credentials, in the query, or as the key of a signature over the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::Refused;
use crate::event::{Headers, form};

/// Most secrets that are valid at once: the old one and the new one of a rotation.
const SECRETS_MAX: usize = 2;

/// Why texts cannot be a source's secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// None at all.
    #[error("a source needs a secret")]
    None,
    /// More than two.
    #[error("a source can have two secrets at once, an old and a new one, and no more")]
    TooMany,
    /// An empty one, which everybody knows.
    #[error("a secret is empty")]
    Empty,
    /// One that no header can carry, such as one with a line break at its end.
    #[error("a secret has a line break or another control character, or a space at its beginning or end")]
    Unsendable,
}

/// One or two secrets, none of them empty.
#[derive(Debug, Clone)]
pub struct Secrets(Vec<SecretString>);

impl Secrets {
    /// The secrets that are valid at once.
    ///
    /// # Errors
    /// None or more than two, an empty one, or one that cannot stand in a header.
    pub fn new(secrets: Vec<SecretString>) -> Result<Secrets, SecretError> {
        match secrets.len() {
            0 => return Err(SecretError::None),
            1..=SECRETS_MAX => {}
            _ => return Err(SecretError::TooMany),
        }
        for secret in &secrets {
            let text = secret.expose_secret();
            if text.is_empty() {
                return Err(SecretError::Empty);
            }
            if text.chars().any(char::is_control) || text.trim() != text {
                return Err(SecretError::Unsendable);
            }
        }
        Ok(Secrets(secrets))
    }

    /// Whether `matches` holds for one of them. All are tried.
    fn any(&self, matches: impl Fn(&str) -> Choice) -> Result<(), Refused> {
        let found = self.0.iter().fold(Choice::from(0), |found, s| found | matches(s.expose_secret()));
        if bool::from(found) { Ok(()) } else { Err(Refused::Wrong) }
    }
}

/// The function of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Sha256,
    /// HMAC with SHA-1, for senders that know no other.
    Sha1,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal, of either case.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// What a source's requests must carry.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A header with exactly a secret: `Bearer …` is part of it where the sender is configured so.
    Header {
        /// The header's name.
        name: String,
        /// Its whole value.
        secrets: Secrets,
    },
    /// Basic credentials (RFC 7617) in `Authorization`.
    Basic {
        /// The user.
        user: String,
        /// The password.
        passwords: Secrets,
    },
    /// A signature over the raw body.
    Hmac {
        /// The header that carries it.
        header: String,
        /// Its function.
        algorithm: Algorithm,
        /// How it is written.
        encoding: Encoding,
        /// What stands before it, `sha256=` or nothing.
        prefix: String,
        /// The keys.
        secrets: Secrets,
    },
    /// A parameter of the address, for senders that can send nothing else.
    Query {
        /// The parameter's name.
        name: String,
        /// Its value.
        secrets: Secrets,
    },
}

/// What the headers prove.
#[derive(Debug)]
pub enum Authenticity<'a> {
    /// All there is to prove.
    Proven,
    /// Nothing yet: the body must match this signature.
    Signed(Signature<'a>),
}

/// A well-formed signature that waits for its body.
#[derive(Debug)]
pub struct Signature<'a> {
    algorithm: Algorithm,
    given: Vec<u8>,
    secrets: &'a Secrets,
}

impl Credential {
    /// Checks what can be checked before the body is read. `query` is the raw query of the address.
    ///
    /// # Errors
    /// The credential is missing, repeated, malformed or wrong.
    pub fn check_head(&self, headers: &Headers<'_>, query: &str) -> Result<Authenticity<'_>, Refused> {
        match self {
            Credential::Header { name, secrets } => {
                let given = only(headers, name)?;
                secrets.any(|secret| same(given, secret.as_bytes()))?;
                Ok(Authenticity::Proven)
            }
            Credential::Basic { user, passwords } => {
                let given = only(headers, "authorization")?;
                let (scheme, encoded) = given.split_at_checked(6).ok_or(Refused::Malformed)?;
                if !scheme.eq_ignore_ascii_case(b"basic ") {
                    return Err(Refused::Malformed);
                }
                let given = STANDARD.decode(encoded.trim_ascii()).map_err(|_| Refused::Malformed)?;
                passwords.any(|password| same(&given, format!("{user}:{password}").as_bytes()))?;
                Ok(Authenticity::Proven)
            }
            Credential::Hmac { header, algorithm, encoding, prefix, secrets } => {
                let given = only(headers, header)?.strip_prefix(prefix.as_bytes()).ok_or(Refused::Malformed)?;
                let given = match encoding {
                    Encoding::Hex => hex::decode(given).ok(),
                    Encoding::Base64 => STANDARD.decode(given).ok(),
                };
                let given = given.filter(|bytes| bytes.len() == algorithm.bytes()).ok_or(Refused::Malformed)?;
                Ok(Authenticity::Signed(Signature { algorithm: *algorithm, given, secrets }))
            }
            Credential::Query { name, secrets } => {
                let mut values = query.split('&').filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (form::decode(key.as_bytes()).as_deref() == Some(name.as_bytes())).then_some(value)
                });
                let given = values.next().ok_or(Refused::Missing)?;
                if values.next().is_some() {
                    return Err(Refused::Repeated);
                }
                let given = form::decode(given.as_bytes()).ok_or(Refused::Malformed)?;
                secrets.any(|secret| same(&given, secret.as_bytes()))?;
                Ok(Authenticity::Proven)
            }
        }
    }
}

impl Authenticity<'_> {
    /// Checks what the headers left open, against the body as it came.
    ///
    /// # Errors
    /// The signature is not of this body by any of the secrets.
    pub fn check_body(&self, body: &[u8]) -> Result<(), Refused> {
        match self {
            Authenticity::Proven => Ok(()),
            Authenticity::Signed(signature) => signature.check_body(body),
        }
    }
}

impl Signature<'_> {
    fn check_body(&self, body: &[u8]) -> Result<(), Refused> {
        self.secrets.any(|secret| {
            let made = self.algorithm.sign(secret.as_bytes(), body);
            made.map_or(Choice::from(0), |made| same(&self.given, &made))
        })
    }
}

impl Algorithm {
    /// The length of a signature, in bytes.
    fn bytes(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha1 => 20,
        }
    }

    /// `None` for a key of a length that the function does not take; HMAC takes all.
    fn sign(self, key: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        match self {
            Algorithm::Sha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
                Some(mac.chain_update(body).finalize().into_bytes().to_vec())
            }
            Algorithm::Sha1 => {
                let mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
                Some(mac.chain_update(body).finalize().into_bytes().to_vec())
            }
        }
    }
}

/// The only value of a header.
pub(super) fn only<'a>(headers: &Headers<'a>, name: &str) -> Result<&'a [u8], Refused> {
    headers.only(name).map_err(|_| Refused::Repeated)?.ok_or(Refused::Missing)
}

/// Whether two texts are the same, in a time that depends on neither: digests of equal length are compared.
fn same(given: &[u8], secret: &[u8]) -> Choice {
    Sha256::digest(given).as_slice().ct_eq(Sha256::digest(secret).as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&str]) -> Result<Secrets, SecretError> {
        Secrets::new(texts.iter().map(|text| SecretString::from(*text)).collect())
    }

    fn check(credential: &Credential, fields: &[(&str, &str)], query: &str, body: &[u8]) -> Result<(), Refused> {
        let headers: Headers<'_> = fields.iter().copied().collect();
        credential.check_head(&headers, query)?.check_body(body)
    }

    #[test]
    fn t02_empty_and_unsendable_secrets_cannot_be_made() {
        assert!(secrets(&["a"]).is_ok() && secrets(&["a", "b"]).is_ok() && secrets(&["Bearer a b"]).is_ok());
        assert_eq!(secrets(&[]).unwrap_err(), SecretError::None);
        assert_eq!(secrets(&["a", "b", "c"]).unwrap_err(), SecretError::TooMany);
        assert_eq!(secrets(&["a", ""]).unwrap_err(), SecretError::Empty);
        for bad in ["a\n", " a", "a ", "a\0", "\t"] {
            assert_eq!(secrets(&[bad]).unwrap_err(), SecretError::Unsendable, "{bad:?}");
        }
    }

    #[test]
    fn t62_secrets_are_not_printed() {
        let credential = Credential::Header { name: "X".into(), secrets: secrets(&["canary"]).unwrap() };
        assert!(!format!("{credential:?}").contains("canary"));
    }

    #[test]
    fn t01_t02_a_header_has_exactly_a_secret() {
        let credential =
            Credential::Header { name: "Authorization".into(), secrets: secrets(&["Bearer new", "old"]).unwrap() };
        let with = |value| check(&credential, &[("authorization", value)], "", b"");
        assert_eq!(with("Bearer new"), Ok(()));
        assert_eq!(with("old"), Ok(()));
        for wrong in
            ["", "new", "Bearer", "Bearer ne", "Bearer new ", "Bearer  new", "bearer new", "Bearer newer", "Bearer old"]
        {
            assert_eq!(with(wrong), Err(Refused::Wrong), "{wrong}");
        }
        assert_eq!(check(&credential, &[], "Authorization=old", b"old"), Err(Refused::Missing));
        let twice = [("Authorization", "old"), ("AUTHORIZATION", "old")];
        assert_eq!(check(&credential, &twice, "", b""), Err(Refused::Repeated));
    }

    #[test]
    fn t01_t02_basic_credentials() {
        let credential = Credential::Basic { user: "tide".into(), passwords: secrets(&["new", "o:ld"]).unwrap() };
        let raw = |value: &str| check(&credential, &[("Authorization", value)], "", b"");
        let with = |value: &str| raw(&format!("Basic {}", STANDARD.encode(value)));
        assert_eq!(with("tide:new"), Ok(()));
        assert_eq!(with("tide:o:ld"), Ok(()));
        assert_eq!(raw(&format!("bAsIc {}", STANDARD.encode("tide:new"))), Ok(()));
        for wrong in ["", ":", "tide", "tide:", "tide:ne", "tide:new\n", "Tide:new", ":new", "other:new"] {
            assert_eq!(with(wrong), Err(Refused::Wrong), "{wrong}");
        }
        for bad in ["", "Basic", "Bearer dGlkZTpuZXc=", "Basic ???", "dGlkZTpuZXc="] {
            assert_eq!(raw(bad), Err(Refused::Malformed), "{bad}");
        }
    }

    #[test]
    fn t01_t02_a_secret_in_the_query() {
        let credential = Credential::Query { name: "token".into(), secrets: secrets(&["a b&c", "old"]).unwrap() };
        let with = |query| check(&credential, &[], query, b"");
        assert_eq!(with("token=a%20b%26c"), Ok(()));
        assert_eq!(with("x=1&token=old"), Ok(()));
        assert_eq!(with(""), Err(Refused::Missing));
        assert_eq!(with("Token=old"), Err(Refused::Missing));
        assert_eq!(with("token"), Err(Refused::Wrong));
        assert_eq!(with("token="), Err(Refused::Wrong));
        assert_eq!(with("token=ol"), Err(Refused::Wrong));
        assert_eq!(with("token=%zz"), Err(Refused::Malformed));
        assert_eq!(with("token=old&token=old"), Err(Refused::Repeated));
        assert_eq!(with("token=bad&t%6fken=old"), Err(Refused::Repeated));
    }

    #[test]
    fn t01_t02_a_signature_covers_the_body() {
        // RFC 4231, 4.3, and the same by SHA-1 (RFC 2202, 3).
        let body = b"what do ya want for nothing?";
        let sha256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let sha1 = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";
        let hmac = |algorithm, encoding, prefix: &str| Credential::Hmac {
            header: "X-Sig".into(),
            algorithm,
            encoding,
            prefix: prefix.into(),
            secrets: secrets(&["other", "Jefe"]).unwrap(),
        };
        let credential = hmac(Algorithm::Sha256, Encoding::Hex, "sha256=");
        let with = |value: &str, body: &[u8]| check(&credential, &[("x-sig", value)], "", body);
        assert_eq!(with(&format!("sha256={sha256}"), body), Ok(()));
        assert_eq!(with(&format!("sha256={sha256}"), b"other"), Err(Refused::Wrong));
        assert_eq!(with(&format!("sha256={}", "0".repeat(64)), body), Err(Refused::Wrong));
        for bad in [
            "",
            "sha256=",
            "v1,",
            sha256,
            &format!("sha1={sha1}"),
            &format!("sha256={sha1}"),
            &format!("SHA256={sha256}"),
            &format!("sha256={}", &sha256[..62]),
            &format!("sha256={sha256}00"),
            &format!("sha256= {sha256}"),
            &format!("sha256={sha256},sha256={sha256}"),
        ] {
            assert_eq!(with(bad, body), Err(Refused::Malformed), "{bad}");
        }
        assert_eq!(check(&credential, &[], "", body), Err(Refused::Missing));
        let plain = hmac(Algorithm::Sha1, Encoding::Hex, "");
        assert_eq!(check(&plain, &[("X-Sig", sha1)], "", body), Ok(()));
        let base64 = hmac(Algorithm::Sha256, Encoding::Base64, "");
        let encoded = STANDARD.encode(hex::decode(sha256).unwrap());
        assert_eq!(check(&base64, &[("X-Sig", &encoded)], "", body), Ok(()));
        assert_eq!(check(&base64, &[("X-Sig", encoded.trim_end_matches('='))], "", body), Err(Refused::Malformed));
    }
}
