//! The image config: the fields that rules read (OCI image specification, config.md).

use super::platform::{DeclaredPlatform, Platform};

/// An image config's own statement of what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The platform as written.
    pub declared: DeclaredPlatform,
    platform: Option<Platform>,
    /// `rootfs.diff_ids`: what the layers unpack to, whatever envelope carries them.
    pub diff_ids: Vec<String>,
}

/// Why bytes are no image config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an image config: {0}")]
pub struct ConfigError(String);

/// Fields one by one: a flattened struct would let a repeated key win silently (T-07).
#[derive(serde::Deserialize)]
struct Wire {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, rename = "os.version")]
    os_version: Option<String>,
    #[serde(default)]
    rootfs: Option<WireRootfs>,
}

#[derive(serde::Deserialize)]
struct WireRootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl ImageConfig {
    /// Reads the fields that rules look at; every other field may be anything.
    ///
    /// # Errors
    /// Where the bytes are no JSON object or a field that is read has the wrong type.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, ConfigError> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| ConfigError(e.to_string()))?;
        let declared = DeclaredPlatform {
            os: wire.os,
            architecture: wire.architecture,
            variant: wire.variant,
            os_version: wire.os_version,
        };
        Ok(ImageConfig {
            platform: Platform::normalise(&declared),
            declared,
            diff_ids: wire.rootfs.map(|r| r.diff_ids).unwrap_or_default(),
        })
    }

    /// The normalised platform; `None` where `os` or `architecture` is empty, as in the configs of some signatures.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }
}
