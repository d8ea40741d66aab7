//! Makes images out of nothing: real manifests, configs and layers, the same bytes for the same words.
//!
//! No engine, no file, no network: a [`Build`] is a list of things to upload. It shares no code with the
//! library, so that a fault in one is not hidden by the same fault in the other.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Which family of media types manifests are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// OCI image manifests and an image index.
    #[default]
    Oci,
    /// Docker schema 2 manifests and a manifest list.
    Docker,
}

impl Form {
    fn index(self) -> &'static str {
        match self {
            Form::Oci => "application/vnd.oci.image.index.v1+json",
            Form::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Form::Oci => "application/vnd.oci.image.manifest.v1+json",
            Form::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Form::Oci => "application/vnd.oci.image.config.v1+json",
            Form::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Form::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
            Form::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// What is wrong with an index on purpose. The entry meant is the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The image of an entry is deleted once the index is there.
    MissingChild,
    /// The config of an entry's image is for another platform than the entry says.
    LyingPlatform,
    /// An entry gives a size that its manifest has not.
    WrongSize,
    /// A platform occurs twice, with two different images.
    DuplicatePlatform,
}

/// A platform as it shall be written, right or wrong: `os/arch[/variant][:os.version]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
    os_version: Option<String>,
}

impl FromStr for Platform {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Platform> {
        let (kind, os_version) = match text.split_once(':') {
            Some((kind, version)) => (kind, Some(version.to_owned())),
            None => (text, None),
        };
        let parts: Vec<&str> = kind.split('/').collect();
        let ([os, architecture] | [os, architecture, _]) = parts[..] else {
            bail!("`{text}` is not a platform: write os/arch[/variant][:os.version]");
        };
        let variant = parts.get(2).map(|variant| (*variant).to_owned());
        Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant, os_version })
    }
}

impl fmt::Display for Platform {
    /// As a tag's suffix: `linux-arm-v7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "-{variant}"),
            None => Ok(()),
        }
    }
}

impl Platform {
    fn unknown() -> Platform {
        Platform { os: "unknown".into(), architecture: "unknown".into(), variant: None, os_version: None }
    }

    fn fields(&self) -> Value {
        let mut fields = json!({"architecture": self.architecture, "os": self.os});
        if let Some(variant) = &self.variant {
            fields["variant"] = json!(variant);
        }
        if let Some(version) = &self.os_version {
            fields["os.version"] = json!(version);
        }
        fields
    }
}

/// Bytes with their type: a blob or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The media type, which for a manifest is also the `Content-Type` of its upload.
    pub media_type: &'static str,
    /// The bytes, of which the digest is taken.
    pub bytes: Vec<u8>,
}

impl Content {
    fn json(media_type: &'static str, value: &Value) -> Content {
        Content { media_type, bytes: value.to_string().into_bytes() }
    }

    /// `sha256:` and the hash of the bytes.
    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len()})
    }
}

/// A manifest below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The manifest.
    pub manifest: Content,
    /// The platform its entry gives; attestations have none.
    pub platform: Option<Platform>,
    /// Whether it is deleted after the root is there: a registry refuses an index whose children it has not.
    pub vanishes: bool,
}

/// What has to be uploaded, in this order: blobs, children, root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Configs and layers.
    pub blobs: Vec<Content>,
    /// What an index leads to; empty for an image.
    pub children: Vec<Child>,
    /// What the tag will point to.
    pub root: Content,
}

/// An index to be built.
#[derive(Debug, Clone)]
pub struct Index<'a> {
    /// Entries, in this order.
    pub platforms: &'a [Platform],
    /// Goes into every layer: another version is another digest.
    pub version: &'a str,
    /// Media types.
    pub form: Form,
    /// Whether every image has an attestation beside it, as BuildKit adds one.
    pub attested: bool,
    /// What is wrong with it.
    pub faults: &'a [Fault],
}

impl Index<'_> {
    /// Builds the images and the index over them.
    pub fn build(&self) -> anyhow::Result<Build> {
        let has = |fault| self.faults.contains(&fault);
        let last = self.platforms.last().context("an index needs a platform")?;
        let mut entries: Vec<(Platform, Build)> = Vec::new();
        for (position, platform) in self.platforms.iter().enumerate() {
            let lies = has(Fault::LyingPlatform) && position + 1 == self.platforms.len();
            let truth = if lies { other_than(platform) } else { platform.clone() };
            entries.push((platform.clone(), image(&truth, self.version, self.form)));
        }
        if has(Fault::DuplicatePlatform) {
            entries.push((last.clone(), image(last, &format!("{}-again", self.version), self.form)));
        }

        let (mut blobs, mut children, mut manifests) = (Vec::new(), Vec::new(), Vec::new());
        let count = entries.len();
        for (position, (platform, built)) in entries.iter().enumerate() {
            let is_last = position + 1 == count;
            let mut entry = built.root.descriptor();
            entry["platform"] = platform.fields();
            if is_last && has(Fault::WrongSize) {
                entry["size"] = json!(built.root.bytes.len() + 1);
            }
            manifests.push(entry);
            blobs.extend(built.blobs.iter().cloned());
            let vanishes = is_last && has(Fault::MissingChild);
            children.push(Child { manifest: built.root.clone(), platform: Some(platform.clone()), vanishes });
        }
        if self.attested {
            for (_, built) in &entries {
                let attestation = attestation(&built.root);
                let mut entry = attestation.root.descriptor();
                entry["platform"] = Platform::unknown().fields();
                entry["annotations"] = json!({
                    "vnd.docker.reference.digest": built.root.digest(),
                    "vnd.docker.reference.type": "attestation-manifest",
                });
                manifests.push(entry);
                blobs.extend(attestation.blobs);
                children.push(Child { manifest: attestation.root, platform: None, vanishes: false });
            }
        }
        let media_type = self.form.index();
        let root = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        Ok(Build { blobs, children, root: Content::json(media_type, &root) })
    }
}

/// An image for one platform, with one small layer that says which.
pub fn image(platform: &Platform, version: &str, form: Form) -> Build {
    let tar = tar("etc/release", format!("{version} {platform}\n").as_bytes());
    let layer = Content { media_type: form.layer(), bytes: gzip(&tar) };
    let mut config = platform.fields();
    config["created"] = json!("2026-11-22T00:00:00Z");
    config["config"] = json!({"Labels": {"org.opencontainers.image.version": version}});
    config["rootfs"] = json!({"type": "layers", "diff_ids": [digest(&tar)]});
    manifest(form.manifest(), Content::json(form.config(), &config), layer)
}

/// A Helm chart, as `helm push` stores one.
pub fn chart(name: &str, version: &str) -> Build {
    let yaml = format!("apiVersion: v2\nname: {name}\nversion: {version}\n");
    let layer = Content {
        media_type: "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        bytes: gzip(&tar(&format!("{name}/Chart.yaml"), yaml.as_bytes())),
    };
    let config = json!({"apiVersion": "v2", "name": name, "version": version});
    manifest(Form::Oci.manifest(), Content::json("application/vnd.cncf.helm.config.v1+json", &config), layer)
}

/// A signature of `digest`, as cosign stores one; its tag is [`signature_tag`]. The signature itself is none.
pub fn signature(repository: &str, digest: &str) -> Build {
    let payload = json!({"critical": {
        "identity": {"docker-reference": repository},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }, "optional": null});
    let layer = Content::json("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
    let config = json!({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": [layer.digest()]}});
    manifest(Form::Oci.manifest(), Content::json(Form::Oci.config(), &config), layer)
}

/// The tag under which the signature of `digest` stands.
pub fn signature_tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

fn attestation(subject: &Content) -> Build {
    let hex = subject.digest().trim_start_matches("sha256:").to_owned();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "_", "digest": {"sha256": hex}}],
        "predicate": {},
    });
    let layer = Content::json("application/vnd.in-toto+json", &statement);
    let mut config = Platform::unknown().fields();
    config["rootfs"] = json!({"type": "layers", "diff_ids": [layer.digest()]});
    manifest(Form::Oci.manifest(), Content::json(Form::Oci.config(), &config), layer)
}

fn manifest(media_type: &'static str, config: Content, layer: Content) -> Build {
    let root = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    Build { blobs: vec![config, layer], children: Vec::new(), root: Content::json(media_type, &root) }
}

fn other_than(platform: &Platform) -> Platform {
    let architecture = if platform.architecture == "amd64" { "arm64" } else { "amd64" };
    Platform { architecture: architecture.into(), variant: None, ..platform.clone() }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar archive (POSIX ustar) with one file and no times, owners or names of this machine.
fn tar(path: &str, contents: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, path);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", contents.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    let mut archive = header.to_vec();
    archive.extend_from_slice(contents);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

/// The gzip form of `bytes`, stored and not compressed (RFC 1951, 3.2.4; RFC 1952): a few lines give the same
/// bytes for ever, which no compressor promises.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(bytes).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}
