//! Manifests and indexes from bytes, bounded and unambiguous (OCI image specification, manifest.md and
//! image-index.md; Docker image manifest version 2, schema 2).

use serde::Deserialize;

use super::digest::{Digest, bounded};
use super::media_type::MediaType;
use super::platform::{DeclaredPlatform, Platform};

/// Largest manifest read, in bytes. The distribution specification asks registries to take 4 MiB.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Most entries of one index that are looked at. Real indexes have at most a few dozen; more is a
/// content bomb (T-31), reported as undetermined.
pub const ENTRIES_MAX: usize = 1_000;

/// A parsed manifest of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type: the one it states, or the one it was served with.
    pub media_type: MediaType,
    /// What it holds.
    pub content: Content,
}

/// What a manifest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An OCI image index or Docker manifest list.
    Index(Index),
    /// One image or artifact.
    Single(Single),
    /// Docker schema 1: refused by current runtimes, its platform is not claimed.
    Schema1,
    /// A media type that this program does not know: stored, never an error.
    Unknown,
}

/// An index: a list of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The entries, in order: the first match wins at a runtime.
    pub entries: Vec<Descriptor>,
}

/// A manifest of one image or artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Single {
    /// The config blob.
    pub config: Descriptor,
    /// The digests of the layers, in order.
    pub layers: Vec<Digest>,
    /// `artifactType`, where stated.
    pub artifact_type: Option<String>,
    /// `subject`, where this refers to another manifest.
    pub subject: Option<Digest>,
}

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The media type of what it points to.
    pub media_type: MediaType,
    /// The digest of what it points to.
    pub digest: Digest,
    /// The size in bytes of what it points to.
    pub size: u64,
    /// The platform, where an index entry states one.
    pub declared: Option<DeclaredPlatform>,
    /// The same normalised; `None` also where it says nothing.
    platform: Option<Platform>,
    /// BuildKit's annotation `vnd.docker.reference.type`, as in `attestation-manifest`.
    pub reference_type: Option<String>,
    /// BuildKit's annotation `vnd.docker.reference.digest`: the entry that an attestation is about.
    pub reference_digest: Option<String>,
}

impl Descriptor {
    /// Whether this entry is an attestation, which is no platform: marked as one by BuildKit.
    pub fn is_attestation(&self) -> bool {
        self.reference_type.as_deref() == Some("attestation-manifest")
    }

    /// Whether the entry states `unknown/unknown`, which no client selects.
    pub fn is_unselectable_placeholder(&self) -> bool {
        self.declared
            .as_ref()
            .is_some_and(|p| p.os.eq_ignore_ascii_case("unknown") && p.architecture.eq_ignore_ascii_case("unknown"))
    }

    /// The normalised platform that the entry states.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }
}

/// Why bytes are no usable manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a required field is missing or of the wrong type.
    #[error("malformed manifest: {0}")]
    Malformed(String),
    /// Reads as two kinds of document (T-30; OCI image specification, security note on `mediaType`).
    #[error("ambiguous manifest: {0}")]
    Ambiguous(String),
    /// A list whose `schemaVersion` is not 2.
    #[error("unsupported schemaVersion {0} in an index; it must be 2")]
    SchemaVersion(u64),
    /// Too many entries to judge.
    #[error("the index has {0} entries; at most {ENTRIES_MAX} are evaluated")]
    TooManyEntries(usize),
    /// Over the size limit.
    #[error("the manifest is larger than {MANIFEST_BYTES_MAX} bytes")]
    TooLarge,
}

impl ManifestError {
    /// Whether the fault is a limit of ours, so that nothing can be said of the image, rather than a fault
    /// of the document.
    pub fn is_limit(&self) -> bool {
        matches!(self, ManifestError::TooManyEntries(_) | ManifestError::TooLarge)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Vec<WireDescriptor>>,
    #[serde(default)]
    config: Option<WireDescriptor>,
    #[serde(default)]
    layers: Option<Vec<WireDescriptor>>,
    #[serde(default)]
    subject: Option<WireDescriptor>,
    /// Docker schema 1.
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// A list that is there: `null` is how some tools write an empty one.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<WireDescriptor>>, D::Error> {
    Option::deserialize(from).map(|list| Some(list.unwrap_or_default()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    #[serde(default)]
    media_type: Option<String>,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<DeclaredPlatform>,
    #[serde(default)]
    annotations: Option<WireAnnotations>,
}

#[derive(Deserialize)]
struct WireAnnotations {
    #[serde(default, rename = "vnd.docker.reference.type")]
    reference_type: Option<String>,
    #[serde(default, rename = "vnd.docker.reference.digest")]
    reference_digest: Option<String>,
}

impl WireDescriptor {
    fn check(self) -> Result<Descriptor, ManifestError> {
        let digest = self.digest.parse().map_err(|e| ManifestError::Malformed(format!("{e}")))?;
        let (reference_type, reference_digest) =
            self.annotations.map(|a| (a.reference_type, a.reference_digest)).unwrap_or_default();
        Ok(Descriptor {
            media_type: MediaType::parse(self.media_type.as_deref().unwrap_or_default()),
            digest,
            size: self.size,
            platform: self.platform.as_ref().and_then(Platform::normalise),
            declared: self.platform,
            reference_type,
            reference_digest,
        })
    }
}

impl Manifest {
    /// Reads a manifest. `served_as` is the `Content-Type` it came with, where it came over HTTP.
    ///
    /// # Errors
    /// [`ManifestError`] for bytes that are no manifest, that can be read as two kinds of manifest, or that
    /// are over a limit. A media type that is not known is no error.
    pub fn parse(bytes: &[u8], served_as: Option<&MediaType>) -> Result<Manifest, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| ManifestError::Malformed(e.to_string()))?;
        let stated = wire.media_type.as_deref().filter(|t| !t.is_empty()).map(MediaType::parse);
        // A registry may serve a manifest as plain JSON; only a type that means something can disagree.
        let served = served_as.filter(|t| t.is_index() || t.is_single());
        if let (Some(stated), Some(served)) = (&stated, served)
            && stated != served
        {
            return Err(ManifestError::Ambiguous(format!(
                "it states `{}` and was served as `{served}`",
                bounded(stated.as_str())
            )));
        }
        let media_type = stated
            .or_else(|| served_as.cloned())
            .unwrap_or_else(|| if wire.manifests.is_some() { MediaType::OciIndex } else { MediaType::OciManifest });
        if wire.manifests.is_some() && (wire.layers.is_some() || wire.config.is_some() || wire.fs_layers.is_some()) {
            return Err(ManifestError::Ambiguous("it has `manifests` beside `config` or `layers`".into()));
        }
        let shape_unknown = !media_type.is_index() && !media_type.is_single();
        let content = if media_type == MediaType::DockerSchema1 || (wire.fs_layers.is_some() && wire.config.is_none()) {
            Content::Schema1
        } else if media_type.is_index()
            || (shape_unknown && wire.manifests.is_some() && served_as.is_none_or(is_plain_json))
        {
            Content::Index(index(wire)?)
        } else if media_type.is_single()
            || (shape_unknown && wire.config.is_some() && served_as.is_none_or(is_plain_json))
        {
            Content::Single(single(wire)?)
        } else {
            Content::Unknown
        };
        Ok(Manifest { media_type, content })
    }

    /// The index, where this is one.
    pub fn index(&self) -> Option<&Index> {
        match &self.content {
            Content::Index(index) => Some(index),
            _ => None,
        }
    }

    /// The single manifest, where this is one.
    pub fn single(&self) -> Option<&Single> {
        match &self.content {
            Content::Single(single) => Some(single),
            _ => None,
        }
    }
}

fn is_plain_json(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::Other(t) if matches!(&**t, "" | "application/json" | "text/plain" | "application/octet-stream"))
}

fn index(wire: Wire) -> Result<Index, ManifestError> {
    if let Some(version) = wire.schema_version.filter(|v| *v != 2) {
        return Err(ManifestError::SchemaVersion(version));
    }
    let entries = wire.manifests.ok_or_else(|| ManifestError::Malformed("an index needs `manifests`".into()))?;
    if entries.len() > ENTRIES_MAX {
        return Err(ManifestError::TooManyEntries(entries.len()));
    }
    Ok(Index { entries: entries.into_iter().map(WireDescriptor::check).collect::<Result<_, _>>()? })
}

fn single(wire: Wire) -> Result<Single, ManifestError> {
    let config = wire.config.ok_or_else(|| ManifestError::Malformed("a manifest needs `config`".into()))?.check()?;
    let layers = wire.layers.unwrap_or_default();
    if layers.len() > ENTRIES_MAX {
        return Err(ManifestError::TooManyEntries(layers.len()));
    }
    Ok(Single {
        config,
        layers: layers.into_iter().map(|l| l.check().map(|d| d.digest)).collect::<Result<_, _>>()?,
        artifact_type: wire.artifact_type.filter(|t| !t.is_empty()),
        subject: wire.subject.map(|s| s.check().map(|d| d.digest)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(text.as_bytes(), None)
    }

    #[test]
    fn t30_documents_with_two_meanings_are_refused() {
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{{"digest":"{D}","size":2}}}}"#);
        assert!(matches!(parse(&both), Err(ManifestError::Ambiguous(_))));
        let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert!(parse(index).is_ok());
        assert!(matches!(
            Manifest::parse(index.as_bytes(), Some(&MediaType::OciManifest)),
            Err(ManifestError::Ambiguous(_))
        ));
        let twice = r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
        assert!(matches!(parse(twice), Err(ManifestError::Malformed(_))));
    }

    #[test]
    fn an_index_without_its_media_type_is_told_by_its_shape() {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{D}","size":5}}]}}"#
        );
        assert!(parse(&index).unwrap().index().is_some());
        let served = MediaType::parse("application/json; charset=utf-8");
        assert!(Manifest::parse(index.as_bytes(), Some(&served)).unwrap().index().is_some());
    }

    #[test]
    fn old_and_unknown_kinds_are_named() {
        assert_eq!(parse(r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#).unwrap().content, Content::Schema1);
        assert!(matches!(
            parse(
                r#"{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}"#
            ),
            Err(ManifestError::SchemaVersion(1))
        ));
        assert_eq!(
            parse(r#"{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}"#).unwrap().content,
            Content::Unknown
        );
    }

    #[test]
    fn t31_an_index_over_the_limit_is_a_limit() {
        let entry = format!(r#"{{"digest":"{D}","size":1}}"#);
        let many = vec![entry; ENTRIES_MAX + 1].join(",");
        let error = parse(&format!(r#"{{"manifests":[{many}]}}"#)).unwrap_err();
        assert!(error.is_limit(), "{error}");
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(&deep), Err(ManifestError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn t08_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes, None);
        }
    }
}
