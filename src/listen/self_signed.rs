//! A certificate of our own making for the first start: a small authority and a server certificate under it,
//! kept beside the store. Senders are given the authority's certificate, which is in the chain that is served too, so that
//! it can be had where nobody can look into the folder; the server's is renewed under it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long the authority is valid: senders are told of it by hand, so it outlives the installation.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a server certificate is valid: below the 398 days that clients accept at most.
const SERVER_DAYS: i64 = 365;
/// How long before its end it is renewed.
const RENEW_DAYS: i64 = 60;
/// Keys are for their owner alone.
const PRIVATE: u32 = 0o600;
/// Certificates are shown to whoever connects.
const PUBLIC: u32 = 0o644;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// A file cannot be read or written.
    #[error("the self-signed certificate cannot be kept in {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The fault.
        source: io::Error,
    },
    /// The library refuses.
    #[error("a self-signed certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The authority's key on disk is not usable.
    #[error("{path} is not usable; remove it to have a new authority made, which senders must then be told of")]
    Unusable {
        /// The file.
        path: String,
    },
}

/// The files of a self-made certificate.
#[derive(Debug, Clone)]
pub struct SelfSigned {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    names: Vec<String>,
}

impl SelfSigned {
    /// The certificate in `directory`, made if there is none, renewed if its names or its time ask for it.
    /// `names` are host names and addresses; `localhost` and the loopback addresses are always among them.
    ///
    /// # Errors
    /// The directory cannot be written, or a name is none.
    pub fn ensure(directory: &Path, names: &[String], now: Timestamp) -> Result<SelfSigned, SelfSignedError> {
        let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        all.extend(names.iter().cloned());
        all.sort();
        all.dedup();
        let this = SelfSigned {
            directory: directory.to_owned(),
            certificate: directory.join("server.crt"),
            key: directory.join("server.key"),
            ca: directory.join("ca.crt"),
            names: all,
        };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| this.fault(directory, source))?;
        this.renew(now)?;
        Ok(this)
    }

    /// Makes what is missing, and the server certificate anew when its time is near its end. Gives whether
    /// something was made.
    ///
    /// # Errors
    /// As for [`SelfSigned::ensure`].
    pub fn renew(&self, now: Timestamp) -> Result<bool, SelfSignedError> {
        if self.is_current(now) {
            return Ok(false);
        }
        let authority_key_file = self.directory.join("ca.key");
        let authority_key = match fs::read_to_string(&authority_key_file) {
            Ok(pem) => KeyPair::from_pem(&pem)
                .map_err(|_| SelfSignedError::Unusable { path: authority_key_file.display().to_string() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                self.write(&authority_key_file, &key.serialize_pem(), PRIVATE)?;
                key
            }
            Err(source) => return Err(self.fault(&authority_key_file, source)),
        };
        let authority = authority(now)?;
        if !self.ca.exists() {
            self.write(&self.ca, &authority.self_signed(&authority_key)?.pem(), PUBLIC)?;
        }
        let ca = fs::read_to_string(&self.ca).map_err(|source| self.fault(&self.ca, source))?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let certificate = self.server(now)?.signed_by(&key, &issuer)?;
        // The key first: whoever reads in between finds a pair that does not match, and keeps the old one.
        self.write(&self.key, &key.serialize_pem(), PRIVATE)?;
        self.write(&self.certificate, &format!("{}{ca}", certificate.pem()), PUBLIC)?;
        Ok(true)
    }

    /// The server certificate's file.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Its key's file.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// The authority's file, to be given to senders.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// SHA-256 of the authority's certificate, in pairs of upper-case digits, as tools show it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fingerprint(&self) -> Result<String, SelfSignedError> {
        let pem = fs::read(&self.ca).map_err(|source| self.fault(&self.ca, source))?;
        let der = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| SelfSignedError::Unusable { path: self.ca.display().to_string() })?;
        let pairs: Vec<String> = Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(pairs.join(":"))
    }

    fn is_current(&self, now: Timestamp) -> bool {
        let (Ok(pem), true, true) = (fs::read(&self.certificate), self.key.exists(), self.ca.exists()) else {
            return false;
        };
        let Ok(chain) = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() else { return false };
        // One without the authority is of an earlier version.
        let [der, _] = &chain[..] else { return false };
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
        let renew_at = certificate.validity().not_after.timestamp() - RENEW_DAYS * 86_400;
        let named = certificate.subject_alternative_name().ok().flatten().map_or(0, |names| {
            let names = &names.value.general_names;
            self.names
                .iter()
                .filter(|wanted| {
                    names.iter().any(|name| match (name, wanted.parse::<std::net::IpAddr>()) {
                        (GeneralName::DNSName(name), _) => name == wanted,
                        (GeneralName::IPAddress(bytes), Ok(std::net::IpAddr::V4(v4))) => *bytes == v4.octets(),
                        (GeneralName::IPAddress(bytes), Ok(std::net::IpAddr::V6(v6))) => *bytes == v6.octets(),
                        _ => false,
                    })
                })
                .count()
        });
        now.as_second() < renew_at && named == self.names.len()
    }

    fn server(&self, now: Timestamp) -> Result<CertificateParams, SelfSignedError> {
        let mut server = CertificateParams::new(self.names.clone())?;
        server.distinguished_name.push(DnType::CommonName, "tidewaiter");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        valid(&mut server, now, SERVER_DAYS);
        Ok(server)
    }

    fn fault(&self, path: &Path, source: io::Error) -> SelfSignedError {
        SelfSignedError::File { path: path.display().to_string(), source }
    }

    /// Writes a file whole or not at all.
    fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), SelfSignedError> {
        let part = path.with_extension("part");
        let written = (|| {
            let _ = fs::remove_file(&part);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, path)
        })();
        written.map_err(|source| self.fault(path, source))
    }
}

fn authority(now: Timestamp) -> Result<CertificateParams, SelfSignedError> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "tidewaiter authority of this installation");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut authority, now, AUTHORITY_DAYS);
    Ok(authority)
}

/// Valid from yesterday, because senders' clocks differ, for `days`.
fn valid(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let day = |at: i64| {
        let date = now.checked_add(SignedDuration::from_hours(24 * at)).unwrap_or(now).to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn t65_made_once_renewed_in_time_and_kept_private() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("tls");
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let names = ["tidewaiter.example".to_owned(), "10.0.0.1".to_owned()];
        let own = SelfSigned::ensure(&directory, &names, now).unwrap();
        let first = fs::read(own.certificate()).unwrap();
        let ca = fs::read(own.ca()).unwrap();
        assert_eq!(own.fingerprint().unwrap().len(), 95);
        for file in ["ca.key", "server.key"] {
            assert_eq!(fs::metadata(directory.join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
        }
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        // What anybody may know, and what is asked for by hand: no more is in the way of it than the folder.
        for file in ["ca.crt", "server.crt"] {
            assert_eq!(fs::metadata(directory.join(file)).unwrap().mode() & 0o777, 0o644, "{file}");
        }
        let chain = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(chain(&first)[1..], chain(&ca)[..], "the authority is served after the server's certificate");

        let again = SelfSigned::ensure(&directory, &names, now).unwrap();
        assert_eq!(fs::read(again.certificate()).unwrap(), first);

        let later = now.checked_add(SignedDuration::from_hours(24 * 310)).unwrap();
        assert!(again.renew(later).unwrap());
        assert!(!again.renew(later).unwrap());
        assert_ne!(fs::read(again.certificate()).unwrap(), first);
        assert_eq!(fs::read(again.ca()).unwrap(), ca, "senders need not be told again");
        let served = fs::read(again.certificate()).unwrap();
        assert_eq!(chain(&served)[1..], chain(&ca)[..]);

        // One that an earlier version made, without the authority.
        let leaf = String::from_utf8(served).unwrap();
        let (leaf, _) = leaf.split_at(leaf.rfind("-----BEGIN").unwrap());
        fs::write(directory.join("server.crt"), leaf).unwrap();
        assert!(again.renew(later).unwrap());
        assert_eq!(fs::read(again.ca()).unwrap(), ca);

        let other = SelfSigned::ensure(&directory, &["other.example".to_owned()], later).unwrap();
        assert_eq!(fs::read(again.ca()).unwrap(), ca);
        let der = CertificateDer::from_pem_slice(&fs::read(other.certificate()).unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        assert!(names.contains(&GeneralName::DNSName("other.example")), "{names:?}");
    }
}
