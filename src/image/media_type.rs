//! Media types of manifests and configs (OCI image specification, media-types.md; Docker image
//! manifest version 2 schema 1 and 2).

use std::fmt;

/// A media type: the known kinds, and any other kept as written (an unknown type is never an error).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/vnd.oci.image.index.v1+json`
    OciIndex,
    /// `application/vnd.oci.image.manifest.v1+json`
    OciManifest,
    /// `application/vnd.docker.distribution.manifest.list.v2+json`
    DockerList,
    /// `application/vnd.docker.distribution.manifest.v2+json`
    DockerManifest,
    /// `application/vnd.docker.distribution.manifest.v1+json`, signed or not: read by no current runtime.
    DockerSchema1,
    /// `application/vnd.oci.image.config.v1+json`
    OciConfig,
    /// `application/vnd.docker.container.image.v1+json`
    DockerConfig,
    /// `application/vnd.oci.empty.v1+json`
    OciEmpty,
    /// `application/vnd.cncf.helm.config.v1+json`
    HelmConfig,
    /// Anything else.
    Other(Box<str>),
}

impl MediaType {
    /// What a manifest request accepts, best first.
    pub const ACCEPT: &'static str = "application/vnd.oci.image.index.v1+json, \
        application/vnd.docker.distribution.manifest.list.v2+json, \
        application/vnd.oci.image.manifest.v1+json, \
        application/vnd.docker.distribution.manifest.v2+json, \
        application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.5, */*;q=0.1";

    /// Reads a media type; parameters such as `; charset=utf-8` are dropped, case is folded (RFC 9110, 8.3.1).
    pub fn parse(text: &str) -> MediaType {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/vnd.oci.image.index.v1+json" => MediaType::OciIndex,
            "application/vnd.oci.image.manifest.v1+json" => MediaType::OciManifest,
            "application/vnd.docker.distribution.manifest.list.v2+json" => MediaType::DockerList,
            "application/vnd.docker.distribution.manifest.v2+json" => MediaType::DockerManifest,
            "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws" => MediaType::DockerSchema1,
            "application/vnd.oci.image.config.v1+json" => MediaType::OciConfig,
            "application/vnd.docker.container.image.v1+json" => MediaType::DockerConfig,
            "application/vnd.oci.empty.v1+json" => MediaType::OciEmpty,
            "application/vnd.cncf.helm.config.v1+json" => MediaType::HelmConfig,
            _ => MediaType::Other(essence.into()),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            MediaType::OciIndex => "application/vnd.oci.image.index.v1+json",
            MediaType::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            MediaType::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            MediaType::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            MediaType::DockerSchema1 => "application/vnd.docker.distribution.manifest.v1+prettyjws",
            MediaType::OciConfig => "application/vnd.oci.image.config.v1+json",
            MediaType::DockerConfig => "application/vnd.docker.container.image.v1+json",
            MediaType::OciEmpty => "application/vnd.oci.empty.v1+json",
            MediaType::HelmConfig => "application/vnd.cncf.helm.config.v1+json",
            MediaType::Other(text) => text,
        }
    }

    /// Whether this is an index or manifest list.
    pub fn is_index(&self) -> bool {
        matches!(self, MediaType::OciIndex | MediaType::DockerList)
    }

    /// Whether this is a manifest of one image or artifact, schema 1 included.
    pub fn is_single(&self) -> bool {
        matches!(self, MediaType::OciManifest | MediaType::DockerManifest | MediaType::DockerSchema1)
    }

    /// Whether a config of this type is an image's.
    pub fn is_image_config(&self) -> bool {
        matches!(self, MediaType::OciConfig | MediaType::DockerConfig)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
