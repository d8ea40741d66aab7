//! Names of images: host, repository, tag, reference. One parser for the whole product, so that a port
//! is never taken for a tag and nothing unchecked reaches a URL, a key or a message (T-18, T-21).
//!
//! Grammar: OCI distribution specification, "Pulling manifests": a name matches
//! `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`, a tag matches
//! `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::{Digest, DigestError, bounded};

/// Longest repository name accepted, in bytes: registries accept at most 255 for host and name together.
const NAME_BYTES_MAX: usize = 255;
/// Longest tag of the distribution specification, in bytes.
const TAG_BYTES_MAX: usize = 128;
/// Longest host name of RFC 1035, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Why a text names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not a registry host.
    #[error(
        "`{0}` is not a registry host: letters, digits, dots and hyphens, and perhaps a port, as in `contoso.azurecr.io` or `localhost:5000`"
    )]
    Host(String),
    /// Not a repository name.
    #[error(
        "`{0}` is not a repository name: lower-case letters and digits, separated by `.`, `_`, `__` or `-`, in segments separated by `/`"
    )]
    Name(String),
    /// Not a tag.
    #[error("`{0}` is not a tag: 1 to 128 of letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`")]
    Tag(String),
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// No host before the first slash.
    #[error("`{0}` names no registry: write HOST/REPOSITORY, as in `contoso.azurecr.io/iot/sensor`")]
    NoHost(String),
    /// Neither tag nor digest.
    #[error("`{0}` names no image: add a tag (`:1.0.1`) or a digest (`@sha256:…`)")]
    NoTag(String),
}

/// A registry host with an optional port: ASCII, lower case, no trailing dot, no user information.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

impl Host {
    /// The text, lower case, port included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name or address without the port; brackets of an IPv6 address are kept.
    pub fn name(&self) -> &str {
        match self.0.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &self.0,
        }
    }

    /// The port, where one is given.
    pub fn port(&self) -> Option<u16> {
        self.0[self.name().len()..].strip_prefix(':')?.parse().ok()
    }

    /// Whether the name means this machine: `localhost`, 127.0.0.0/8 or `[::1]`.
    pub fn is_loopback(&self) -> bool {
        let name = self.name();
        name == "localhost" || name == "[::1]" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
    }
}

impl FromStr for Host {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Host, ReferenceError> {
        let fault = || ReferenceError::Host(bounded(text));
        if !text.is_ascii() {
            return Err(fault());
        }
        let lower = text.to_ascii_lowercase();
        let port = if let Some(rest) = lower.strip_prefix('[') {
            let (address, after) = rest.split_once(']').ok_or_else(fault)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| fault())?;
            after
        } else {
            let at = lower.find(':').unwrap_or(lower.len());
            let (name, after) = lower.split_at(at);
            let labels_good = name.len() <= HOST_BYTES_MAX
                && name.split('.').all(|label| {
                    !label.is_empty()
                        && label.len() <= 63
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                });
            if !labels_good {
                return Err(fault());
            }
            // A name whose last label is a number would be read as an IPv4 address by URL parsers, in
            // decimal, octal or short forms: only the plain dotted quad is accepted.
            let last_numeric =
                name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()) || l.starts_with("0x"));
            if last_numeric && name.parse::<std::net::Ipv4Addr>().is_err() {
                return Err(fault());
            }
            after
        };
        if !port.is_empty() {
            let digits = port.strip_prefix(':').ok_or_else(fault)?;
            let canonical = digits.parse::<u16>().is_ok_and(|p| p != 0 && p.to_string() == digits);
            if !canonical {
                return Err(fault());
            }
        }
        Ok(Host(lower.into()))
    }
}

/// A repository name without its host, such as `iot/sensor`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<RepositoryName, ReferenceError> {
        let good = !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.split('/').all(segment_is_good);
        if good { Ok(RepositoryName(text.into())) } else { Err(ReferenceError::Name(bounded(text))) }
    }
}

/// One path segment: runs of `[a-z0-9]+` separated by `.`, `_`, `__` or any number of `-`.
fn segment_is_good(segment: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .split(|b| alphanumeric(*b))
        .filter(|separator| !separator.is_empty())
        .all(|s| matches!(s, b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'))
}

/// A tag: 1 to 128 characters, case-sensitive.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Tag, ReferenceError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let bytes = text.as_bytes();
        let good = !bytes.is_empty()
            && bytes.len() <= TAG_BYTES_MAX
            && word(bytes[0])
            && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'));
        if good { Ok(Tag(text.into())) } else { Err(ReferenceError::Tag(bounded(text))) }
    }
}

/// A repository at its registry: the unit of ordering and of sharding.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// The registry.
    pub host: Host,
    /// The name there.
    pub name: RepositoryName,
}

impl Repository {
    /// A repository of `name` at `host`.
    pub fn new(host: Host, name: RepositoryName) -> Repository {
        Repository { host, name }
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Repository, ReferenceError> {
        let (host, name) = text.split_once('/').ok_or_else(|| ReferenceError::NoHost(bounded(text)))?;
        Ok(Repository { host: host.parse()?, name: name.parse()? })
    }
}

/// A repository with a tag, a digest, or both. Strict: there is no silent `latest` and no default host.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The repository.
    pub repository: Repository,
    /// The tag, where one is given.
    pub tag: Option<Tag>,
    /// The digest, where one is given.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Parses `HOST/REPO:TAG`, `HOST/REPO@DIGEST` or `HOST/REPO:TAG@DIGEST`.
    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let (before, digest) = match text.split_once('@') {
            Some((before, digest)) => (before, Some(digest.parse()?)),
            None => (text, None),
        };
        let slash = before.find('/').ok_or_else(|| ReferenceError::NoHost(bounded(text)))?;
        let (repository, tag) = match before[slash..].find(':') {
            Some(colon) => (&before[..slash + colon], Some(before[slash + colon + 1..].parse()?)),
            None => (before, None),
        };
        let repository = repository.parse()?;
        if tag.is_none() && digest.is_none() {
            return Err(ReferenceError::NoTag(bounded(text)));
        }
        Ok(Reference { repository, tag, digest })
    }
}

macro_rules! text_newtype {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{}`", self.0)
            }
        }
    )*};
}
text_newtype!(Host, RepositoryName, Tag);

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn t18_only_plain_hosts_are_hosts() {
        for (text, name, port) in [
            ("contoso.azurecr.io", "contoso.azurecr.io", None),
            ("Contoso.AzureCR.io", "contoso.azurecr.io", None),
            ("localhost:5000", "localhost", Some(5000)),
            ("127.0.0.1:5443", "127.0.0.1", Some(5443)),
            ("[::1]:5000", "[::1]", Some(5000)),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!((host.name(), host.port()), (name, port), "{text}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "contoso.azurecr.io.",
            "user@contoso.azurecr.io",
            "contoso.azurecr.io:",
            "contoso.azurecr.io:0",
            "contoso.azurecr.io:65536",
            "contoso.azurecr.io:05",
            "2130706433",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "contoso%2eazurecr.io",
            "сontoso.azurecr.io",
            "a b",
            "a/b",
            "-a.io",
            "a-.io",
            "[::1",
            "[::ffff:1.2.3.4.5]",
            "a:1:2",
            "a\n",
            "http://a",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn t21_a_port_is_not_a_tag() {
        let r: Reference = "localhost:5000/a/b:1.0".parse().unwrap();
        assert_eq!(r.repository.host.as_str(), "localhost:5000");
        assert_eq!(r.repository.name.as_str(), "a/b");
        assert_eq!(r.tag.unwrap().as_str(), "1.0");
        assert!(matches!("localhost:5000/a".parse::<Reference>(), Err(ReferenceError::NoTag(_))));
        assert!(matches!("a:1.0".parse::<Reference>(), Err(ReferenceError::NoHost(_))));
    }

    #[test]
    fn t21_names_outside_the_grammar_are_refused() {
        for bad in ["", "A", "a//b", "/a", "a/", "a/../b", "a.", "a___b", "a?b", "a%2fb", "a\u{202e}b", "a._b"] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        for good in ["a", "a/b", "a.b", "a_b", "a__b", "a---b", "library/hello-world"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good:?}");
        }
        for bad in ["", ".a", "-a", "a b", "1.2.3+build", "a/b", "é", "1\n"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(128).parse::<Tag>().is_ok());
        assert!("a".repeat(129).parse::<Tag>().is_err());
    }

    proptest! {
        #[test]
        fn t21_formatted_references_parse_back(text in "[a-z0-9.:/@_A-Z-]{0,60}|localhost:[0-9]{1,5}/[a-z]{1,9}:[a-z0-9.]{1,9}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn t08_no_text_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<Reference>();
            let _ = text.parse::<Host>();
            let _ = text.parse::<Digest>();
        }
    }
}
