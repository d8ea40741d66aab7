//! Identity tokens (OpenID Connect, RFC 7519, RFC 7515): verified with the issuer's keys, which are passed in.
//!
//! Issuer, audience **and** identity are always checked: a token for our audience from the right issuer may be
//! anyone's (T-01; a receiver that left out the identity was GHSA-h9cx-xjg6-5v2w).

use std::collections::HashMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::Refused;
use super::credential::only;
use crate::event::json::{self, Limits, Object};
use crate::event::{Headers, JsonError};

/// How far the issuer's clock may be off.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// Longest token, in bytes; those of the known issuers have 1 to 2 KiB.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Most keys of one issuer; the known ones publish 2 to 12.
const KEYS_MAX: usize = 64;

/// Who must have been issued the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The claim `sub`.
    Subject(String),
    /// The claim `email`, which counts with `email_verified` only.
    Email(String),
    /// The claim `azp` or `appid`: the application that asked for the token (Microsoft Entra).
    Application(String),
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The claim `iss`, exactly.
    pub issuer: String,
    /// One of the claim `aud`, exactly.
    pub audience: String,
    /// To whom it was issued.
    pub identity: Identity,
}

/// Not a key set.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Not the JSON of one.
    #[error("the issuer's keys cannot be read")]
    Json(#[from] JsonError),
    /// Too many.
    #[error("the issuer has more than {KEYS_MAX} keys")]
    TooMany,
}

/// An issuer's public keys by their ids. Keys of other kinds than RSA and P-256, and those for other uses than
/// signing, are left out.
#[derive(Debug, Clone, Default)]
pub struct KeySet(HashMap<String, Key>);

#[derive(Debug, Clone)]
enum Key {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Object<Jwk>>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517).
    ///
    /// # Errors
    /// Not JSON, not a key set, or one with too many keys.
    pub fn from_json(bytes: &[u8]) -> Result<KeySet, JwksError> {
        let jwks: Jwks = json::from_json(bytes, Limits::PLAIN)?;
        if jwks.keys.len() > KEYS_MAX {
            return Err(JwksError::TooMany);
        }
        let keys = jwks.keys.into_iter().filter_map(|jwk| Some((jwk.kid.clone()?, jwk.0.key()?)));
        Ok(KeySet(keys.collect()))
    }
}

impl Jwk {
    fn key(self) -> Option<Key> {
        if self.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        match (self.kty.as_str(), self.alg.as_deref(), self.crv.as_deref()) {
            ("RSA", None | Some("RS256"), _) => {
                // Numbers are compared without their leading zeros.
                let strip = |bytes: Vec<u8>| bytes.into_iter().skip_while(|b| *b == 0).collect();
                Some(Key::Rsa { n: strip(decode(self.n)?), e: strip(decode(self.e)?) })
            }
            ("EC", None | Some("ES256"), Some("P-256")) => {
                let (x, y) = (decode(self.x)?, decode(self.y)?);
                // The uncompressed point of SEC 1, 2.3.3.
                (x.len() == 32 && y.len() == 32).then(|| Key::P256([vec![4], x, y].concat()))
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    sub: Option<String>,
    email: Option<String>,
    email_verified: Option<bool>,
    azp: Option<String>,
    appid: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The bearer token of a request (RFC 6750, 2.1).
///
/// # Errors
/// `Authorization` is missing, repeated, or of another scheme.
pub fn bearer_token<'a>(headers: &Headers<'a>) -> Result<&'a str, Refused> {
    let value = std::str::from_utf8(only(headers, "authorization")?).map_err(|_| Refused::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refused::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(Refused::Malformed) }
}

/// Verifies `token` at the time `now`.
///
/// # Errors
/// [`Refused::UnknownKey`] where the keys may have been renewed and are worth fetching again, at a bounded
/// rate; anything else is final.
pub fn verify_token(token: &str, keys: &KeySet, expected: &Expected, now: Timestamp) -> Result<(), Refused> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refused::Malformed);
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refused::Malformed);
    }
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Malformed);
    let signature = decode(signature)?;
    let signed = token.get(..header.len() + 1 + claims.len()).ok_or(Refused::Malformed)?;

    let header: Header = json::from_json(&decode(header)?, Limits::PLAIN).map_err(|_| Refused::Malformed)?;
    // An extension that must be understood is one that we do not.
    if header.crit.is_some() {
        return Err(Refused::Malformed);
    }
    let known = matches!(header.alg.as_str(), "RS256" | "ES256");
    let kid = header.kid.filter(|_| known).ok_or(Refused::Malformed)?;
    // The key decides which algorithm is used; the header may only agree.
    let verified = match (keys.0.get(&kid).ok_or(Refused::UnknownKey)?, header.alg.as_str()) {
        (Key::Rsa { n, e }, "RS256") => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
        }
        (Key::P256(point), "ES256") => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &signature)
        }
        _ => return Err(Refused::Wrong),
    };
    verified.map_err(|_| Refused::Wrong)?;

    let claims: Claims = json::from_json(&decode(claims)?, Limits::PLAIN).map_err(|_| Refused::Malformed)?;
    claims.check(expected, now)
}

impl Claims {
    fn check(&self, expected: &Expected, now: Timestamp) -> Result<(), Refused> {
        let audience = match &self.aud {
            Audience::One(one) => *one == expected.audience,
            Audience::Many(many) => many.contains(&expected.audience),
        };
        let identity = match &expected.identity {
            Identity::Subject(subject) => self.sub.as_ref() == Some(subject),
            Identity::Email(email) => self.email.as_ref() == Some(email) && self.email_verified == Some(true),
            Identity::Application(id) => self.azp.as_ref().or(self.appid.as_ref()) == Some(id),
        };
        if self.iss != expected.issuer || !audience || !identity {
            return Err(Refused::Wrong);
        }
        let now = now.as_duration().as_secs_f64();
        let leeway = LEEWAY.as_secs_f64();
        let valid = self.exp + leeway > now && self.nbf.is_none_or(|nbf| nbf - leeway <= now);
        if valid { Ok(()) } else { Err(Refused::Expired) }
    }
}
