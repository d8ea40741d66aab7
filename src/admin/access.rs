//! Who may use the API.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::respond::Fault;
use super::routes::Access;
use crate::listen::Peer;

/// The tokens of the API.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// What the configuration says: needed for reading and for changing.
    pub configured: Option<SecretString>,
    /// Where none is configured: a token for changing, made by the daemon and left in a file that only its own
    /// user can read ([`local_token`]). Reading then needs none.
    pub local: Option<SecretString>,
}

/// The token in `path`, made and written there (mode 0600) if there is none.
///
/// # Errors
/// The file cannot be read or written.
pub fn local_token(path: &Path) -> io::Result<SecretString> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(SecretString::from(text.trim())),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Two random UUIDs would be shorter of randomness than they look; a fresh key's secret is 256 bits of it.
    let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
    let token = hex::encode(Sha256::digest(key.serialize_der()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    Ok(SecretString::from(token))
}

impl Tokens {
    pub(super) fn check(&self, access: Access, headers: &HeaderMap, peer: &Peer) -> Result<(), Fault> {
        match (access, &self.configured, &self.local) {
            (Access::Open, ..) => Ok(()),
            (_, Some(token), _) | (Access::Write, None, Some(token)) => {
                if carries(headers, token) {
                    Ok(())
                } else {
                    Err(Fault::Unauthenticated)
                }
            }
            (Access::Write, None, None) => Err(Fault::NoToken),
            (Access::Read, None, _) => rebinding(headers, peer),
        }
    }
}

/// Whether the request carries exactly this token, compared in constant time (RFC 6750).
fn carries(headers: &HeaderMap, token: &SecretString) -> bool {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, rest)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    let same: Choice = Sha256::digest(rest).as_slice().ct_eq(Sha256::digest(token.expose_secret()).as_slice());
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(same)
}

/// Without a token, a page in a local user's browser could read the API under a name of its own that it has
/// made to mean this machine. Such a request shows that name.
fn rebinding(headers: &HeaderMap, peer: &Peer) -> Result<(), Fault> {
    if !peer.address.ip().is_loopback() {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    if address || name.eq_ignore_ascii_case("localhost") || name.is_empty() { Ok(()) } else { Err(Fault::ForeignName) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn t63_a_local_token_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        let token = local_token(&path).unwrap();
        assert_eq!(token.expose_secret().len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(local_token(&path).unwrap().expose_secret(), token.expose_secret());
        fs::write(&path, "").unwrap();
        assert_ne!(local_token(&path).unwrap().expose_secret(), "");
    }
}
