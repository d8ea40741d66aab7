//! The write locks of registries that have them, which today are Azure's: who has them, and what an answer says of
//! them. Pure: from bytes to a checked word; asking is the client's.

use serde::Deserialize;

use super::error::{RegistryError, remote_text};
use crate::image::{Digest, Host, Tag};

/// The domains of Azure's registries: public, China, United States government.
const DOMAINS: [&str; 3] = [".azurecr.io", ".azurecr.cn", ".azurecr.us"];

/// What a registry says of the write locks on a tag and on the manifest that it leads to. Each has one of its own, and
/// only both together keep a tag from being moved and its image from being taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Locks {
    /// Both are set.
    Set,
    /// At least one is not.
    Open,
    /// The tag leads to another manifest than the one asked about.
    Moved,
}

/// Whether a registry of this name has write locks. One that is reached under a name of its own is told from its
/// sign-in instead.
pub fn has_locks(host: &Host) -> bool {
    DOMAINS.iter().any(|domain| host.name().strip_suffix(domain).is_some_and(|name| !name.is_empty()))
}

#[derive(Deserialize)]
struct TagBody {
    tag: TagEntry,
}

#[derive(Deserialize)]
struct TagEntry {
    name: Option<String>,
    digest: Option<String>,
    #[serde(rename = "changeableAttributes")]
    attributes: Option<Attributes>,
}

#[derive(Deserialize)]
struct ManifestBody {
    manifest: ManifestEntry,
}

#[derive(Deserialize)]
struct ManifestEntry {
    digest: Option<String>,
    #[serde(rename = "changeableAttributes")]
    attributes: Option<Attributes>,
}

/// `deleteEnabled` is not looked at: a tag that cannot be deleted can still be moved.
#[derive(Deserialize)]
struct Attributes {
    #[serde(rename = "writeEnabled")]
    write: Option<bool>,
}

/// What the answer about a tag says; `Set` is the tag's own lock alone.
pub(super) fn of_tag(body: &[u8], tag: &Tag, digest: &Digest) -> Result<Locks, RegistryError> {
    let TagBody { tag: entry } = read(body)?;
    if entry.name.is_some_and(|name| name != tag.as_str()) {
        return Err(unclear("about another tag"));
    }
    let stated = entry.digest.ok_or_else(|| unclear("that does not say where the tag leads"))?;
    if stated != digest.as_str() {
        return Ok(Locks::Moved);
    }
    word(entry.attributes)
}

/// What the answer about a manifest says.
pub(super) fn of_manifest(body: &[u8], digest: &Digest) -> Result<Locks, RegistryError> {
    let ManifestBody { manifest } = read(body)?;
    if manifest.digest.is_some_and(|stated| stated != digest.as_str()) {
        return Err(unclear("about another manifest"));
    }
    word(manifest.attributes)
}

/// A field that is missing says nothing: neither that it is locked nor that it is not.
fn word(attributes: Option<Attributes>) -> Result<Locks, RegistryError> {
    match attributes.and_then(|attributes| attributes.write) {
        Some(true) => Ok(Locks::Open),
        Some(false) => Ok(Locks::Set),
        None => Err(unclear("that does not say whether it can be written")),
    }
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(body).map_err(|error| {
        let why = remote_text(error.to_string().as_bytes());
        RegistryError::Protocol(format!("an answer about locks that cannot be read: {why}"))
    })
}

fn unclear(what: &str) -> RegistryError {
    RegistryError::Protocol(format!("an answer about locks {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_azures_registries_have_locks() {
        for (host, locks) in [
            ("contoso.azurecr.io", true),
            ("contoso-fr2.azurecr.cn", true),
            ("contoso.azurecr.us", true),
            ("azurecr.io", false),
            ("contoso.azurecr.io.evil.example", false),
            ("contosoazurecr.io", false),
            ("localhost:5000", false),
        ] {
            assert_eq!(has_locks(&host.parse().unwrap()), locks, "{host}");
        }
    }

    #[test]
    fn t33_an_answer_that_is_not_clear_is_no_lock() {
        let digest = Digest::of(b"x");
        let tag: Tag = "1.0.1".parse().unwrap();
        let of = |entry: &str| of_tag(format!(r#"{{"tag":{entry}}}"#).as_bytes(), &tag, &digest);
        let whole = |write: &str, delete: &str| {
            let attributes = format!(r#"{{"deleteEnabled":{delete},"writeEnabled":{write},"readEnabled":true}}"#);
            format!(r#"{{"name":"1.0.1","digest":"{digest}","signed":false,"changeableAttributes":{attributes}}}"#)
        };
        assert_eq!(of(&whole("false", "true")), Ok(Locks::Set));
        // That it cannot be deleted keeps nobody from moving it.
        assert_eq!(of(&whole("true", "false")), Ok(Locks::Open));
        assert_eq!(of(&whole("false", "false").replace(digest.as_str(), "sha256:00")), Ok(Locks::Moved));
        for unclear in [
            whole("null", "true"),
            whole("\"false\"", "true"),
            whole("false", "true").replace("1.0.1", "1.0.2"),
            whole("false", "true").replace("\"digest\"", "\"other\""),
            whole("false,\"writeEnabled\":true", "true"),
            format!(r#"{{"name":"1.0.1","digest":"{digest}"}}"#),
            "{}".to_owned(),
            "null".to_owned(),
        ] {
            assert!(matches!(of(&unclear), Err(RegistryError::Protocol(_))), "{unclear}");
        }
        for body in ["", "<html>", "{\"tag\":", "[]"] {
            assert!(of_tag(body.as_bytes(), &tag, &digest).is_err() && of_manifest(body.as_bytes(), &digest).is_err());
        }
        let manifest = |stated: &str, write: &str| {
            let body =
                format!(r#"{{"manifest":{{"digest":"{stated}","changeableAttributes":{{"writeEnabled":{write}}}}}}}"#);
            of_manifest(body.as_bytes(), &digest)
        };
        assert_eq!(manifest(digest.as_str(), "false"), Ok(Locks::Set));
        assert_eq!(manifest(digest.as_str(), "true"), Ok(Locks::Open));
        assert!(manifest("sha256:00", "false").is_err());
    }
}
