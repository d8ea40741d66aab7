//! Content digests: algorithm and hex, checked (OCI image specification, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256, Sha512};

/// The algorithms registered by the OCI image specification that registries use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`, 64 hexadecimal characters.
    Sha256,
    /// `sha512`, 128 hexadecimal characters.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_chars(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// A well-formed content digest, such as `sha256:5fc3…`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: Arc<str>,
    algorithm: Algorithm,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:` in front, or one that is not registered.
    #[error("`{0}` is not a digest: it must begin with `sha256:` or `sha512:`")]
    Algorithm(String),
    /// Not exactly the lower-case hexadecimal characters that the algorithm has.
    #[error("`{text}` is not a digest: after `{algorithm}:` come {expected} characters of 0-9a-f")]
    Hex {
        /// What was given, cut to a bounded length.
        text: String,
        /// The algorithm it named.
        algorithm: &'static str,
        /// How many hexadecimal characters it must have.
        expected: usize,
    },
}

impl Digest {
    /// The sha256 digest of `bytes`, as registries compute it.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::with(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` under `algorithm`.
    pub fn with(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let hex = match algorithm {
            Algorithm::Sha256 => hex::encode(Sha256::digest(bytes)),
            Algorithm::Sha512 => hex::encode(Sha512::digest(bytes)),
        };
        Digest { text: format!("{}:{hex}", algorithm.name()).into(), algorithm }
    }

    /// Whether `bytes` hash to this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Digest::with(self.algorithm, bytes) == *self
    }

    /// The whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The first twelve hexadecimal characters, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let algorithm = match text.split_once(':') {
            Some(("sha256", _)) => Algorithm::Sha256,
            Some(("sha512", _)) => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm(bounded(text))),
        };
        let hex = &text[algorithm.name().len() + 1..];
        let well_formed =
            hex.len() == algorithm.hex_chars() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Err(DigestError::Hex {
                text: bounded(text),
                algorithm: algorithm.name(),
                expected: algorithm.hex_chars(),
            });
        }
        Ok(Digest { text: text.into(), algorithm })
    }
}

/// At most 160 characters of `text` with control characters escaped: error messages quote what came
/// from outside, and must stay one line of bounded length.
pub(super) fn bounded(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == 160 {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_registered_algorithms_and_exact_hex() {
        let good = Digest::of(b"");
        assert_eq!(good.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(good.as_str().parse::<Digest>().unwrap(), good);
        assert!(good.matches(b"") && !good.matches(b"x"));
        assert_eq!(Digest::with(Algorithm::Sha512, b"").hex().len(), 128);
        for bad in [
            "",
            "sha256:",
            "sha256",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
            "sha256:../../../../../../../../../../../../../../../../../../../../../etc",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
