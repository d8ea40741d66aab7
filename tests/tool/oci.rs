//! Writes an OCI image layout (image-spec 1.1) out of files, without an engine: the same files give the same bytes.
//!
//! Nothing of this machine gets in: no times, no names of users, no order of a directory. One layer for each platform,
//! an index over them, and beside each image its bill of materials as an artifact that names it as its subject.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The user and group of the program, the one that distroless images made known as `nonroot`.
pub const USER: u32 = 65532;
/// The largest image, compressed, of one platform.
const IMAGE_BYTES_MAX: usize = 20 * 1000 * 1000;
/// The block of the tar format, in bytes.
const BLOCK: usize = 512;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// CycloneDX in JSON.
pub const SBOM: &str = "application/vnd.cyclonedx+json";
/// Nothing was made at another time than this: what is reproducible has no date.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What becomes an image for one platform.
pub struct Part {
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// The program, which needs no library.
    pub binary: Vec<u8>,
    /// Its bill of materials, CycloneDX in JSON.
    pub sbom: Vec<u8>,
    /// Licences and notices of what is in it: paths below `usr/share/doc/`, as `libc6/copyright`.
    pub notices: BTreeMap<String, Vec<u8>>,
}

/// What is the same for all platforms.
pub struct Common<'a> {
    /// The version of the program, which is the tag too.
    pub version: &'a str,
    /// The commit that it was built from.
    pub revision: &'a str,
    /// The authorities that are trusted, in PEM.
    pub authorities: &'a [u8],
    /// The licence's text.
    pub license: &'a [u8],
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest of the index.
    pub digest: String,
    /// Each architecture with the digest of its image, and its bytes as a registry stores them.
    pub images: Vec<(String, String, usize)>,
}

/// Writes the layout into `folder`, in place of what is there.
///
/// # Errors
/// The folder cannot be written, or an image is larger than it may be.
pub fn write(folder: &Path, common: &Common<'_>, parts: &[Part]) -> anyhow::Result<Written> {
    if parts.is_empty() {
        bail!("an image needs a platform");
    }
    if folder.exists() {
        if !folder.join("oci-layout").exists() {
            bail!("{} is there and no image layout: name another folder", folder.display());
        }
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let layout = Layout { blobs: folder.join("blobs/sha256") };
    fs::create_dir_all(&layout.blobs).with_context(|| folder.display().to_string())?;

    let (mut manifests, mut artifacts, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        let (manifest, bytes) = image(&layout, common, part)?;
        if bytes > IMAGE_BYTES_MAX {
            bail!("the image for {} has {bytes} bytes, more than {IMAGE_BYTES_MAX}", part.architecture);
        }
        images.push((part.architecture.clone(), text(&manifest, "digest"), bytes));
        artifacts.push(sbom(&layout, common, &manifest, part)?);
        let mut entry = manifest;
        entry["platform"] = json!({"architecture": part.architecture, "os": "linux"});
        manifests.push(entry);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests,
        "annotations": labels(common),
    });
    let mut root = layout.json(INDEX, &index)?;
    let digest = text(&root, "digest");
    root["annotations"] = json!({"org.opencontainers.image.ref.name": common.version});
    let mut entries = vec![root];
    entries.extend(artifacts);
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    fs::write(folder.join("index.json"), top.to_string())?;
    fs::write(folder.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    Ok(Written { digest, images })
}

fn labels(common: &Common<'_>) -> Value {
    json!({
        "org.opencontainers.image.title": "tidewaiter",
        "org.opencontainers.image.description": "Judges every push to a container registry against declarative policies",
        "org.opencontainers.image.version": common.version,
        "org.opencontainers.image.revision": common.revision,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.vendor": "The tidewaiter authors",
        "org.opencontainers.image.url": "https://tidewaiter.dev",
        "org.opencontainers.image.documentation": "https://tidewaiter.dev/docs/kubernetes",
    })
}

/// The image of one platform: the descriptor of its manifest, and its bytes.
fn image(layout: &Layout, common: &Common<'_>, part: &Part) -> anyhow::Result<(Value, usize)> {
    let tar = root(common, part)?;
    let layer = gzip(&tar)?;
    let layer_bytes = layer.len();
    let layer = layout.blob(LAYER, &layer)?;
    let config = json!({
        "created": CREATED,
        "architecture": part.architecture,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": {"8443/tcp": {}, "9464/tcp": {}},
            "Env": ["PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "Entrypoint": ["/usr/bin/tidewaiter"],
            "Cmd": ["serve"],
            "WorkingDir": "/var/lib/tidewaiter",
            "Labels": labels(common),
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
        "history": [{"created": CREATED, "created_by": "tidewaiter, from scratch"}],
    });
    let config = layout.json(CONFIG, &config)?;
    let config_bytes = config["size"].as_u64().unwrap_or_default() as usize;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": labels(common),
    });
    Ok((layout.json(MANIFEST, &manifest)?, layer_bytes + config_bytes))
}

/// The bill of materials as an artifact, with a name so that tools which copy by name can.
fn sbom(layout: &Layout, common: &Common<'_>, subject: &Value, part: &Part) -> anyhow::Result<Value> {
    let mut layer = layout.blob(SBOM, &part.sbom)?;
    layer["annotations"] = json!({"org.opencontainers.image.title": "sbom.cdx.json"});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": SBOM,
        "config": layout.blob(EMPTY, b"{}")?,
        "layers": [layer],
        "subject": subject,
    });
    let mut descriptor = layout.json(MANIFEST, &manifest)?;
    descriptor["artifactType"] = json!(SBOM);
    let name = format!("{}-sbom-{}", common.version, part.architecture);
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    Ok(descriptor)
}

/// The root file system.
fn root(common: &Common<'_>, part: &Part) -> anyhow::Result<Vec<u8>> {
    let passwd =
        format!("root:x:0:0::/:/sbin/nologin\ntidewaiter:x:{USER}:{USER}::/var/lib/tidewaiter:/sbin/nologin\n");
    let group = format!("root:x:0:\ntidewaiter:x:{USER}:\n");
    // Sorted by path, so a directory comes before what is in it.
    let mut entries = BTreeMap::from([
        ("etc/", Entry::directory(0o755, 0)),
        ("etc/group", Entry::file(0o644, group.as_bytes())),
        // What a static program asks to find out how names are resolved.
        ("etc/nsswitch.conf", Entry::file(0o644, b"hosts: files dns\n")),
        ("etc/passwd", Entry::file(0o644, passwd.as_bytes())),
        ("etc/ssl/", Entry::directory(0o755, 0)),
        ("etc/ssl/certs/", Entry::directory(0o755, 0)),
        ("etc/ssl/certs/ca-certificates.crt", Entry::file(0o644, common.authorities)),
        ("tmp/", Entry::directory(0o1777, 0)),
        ("usr/", Entry::directory(0o755, 0)),
        ("usr/bin/", Entry::directory(0o755, 0)),
        ("usr/bin/tidewaiter", Entry::file(0o755, &part.binary)),
        ("usr/share/", Entry::directory(0o755, 0)),
        ("usr/share/doc/", Entry::directory(0o755, 0)),
        ("usr/share/doc/tidewaiter/", Entry::directory(0o755, 0)),
        ("usr/share/doc/tidewaiter/LICENSE", Entry::file(0o644, common.license)),
        ("usr/share/doc/tidewaiter/sbom.cdx.json", Entry::file(0o644, &part.sbom)),
        ("var/", Entry::directory(0o755, 0)),
        ("var/lib/", Entry::directory(0o755, 0)),
        ("var/lib/tidewaiter/", Entry::directory(0o700, USER)),
    ]);
    let paths: Vec<(String, &[u8])> =
        part.notices.iter().map(|(path, text)| (format!("usr/share/doc/{path}"), text.as_slice())).collect();
    let folders: BTreeSet<String> =
        paths.iter().filter_map(|(path, _)| Some(format!("{}/", path.rsplit_once('/')?.0))).collect();
    entries.extend(folders.iter().map(|path| (path.as_str(), Entry::directory(0o755, 0))));
    entries.extend(paths.iter().map(|(path, text)| (path.as_str(), Entry::file(0o644, text))));
    let mut archive = Vec::new();
    for (path, entry) in entries {
        archive.extend_from_slice(&entry.header(path)?);
        archive.extend_from_slice(entry.contents);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

struct Entry<'a> {
    mode: u32,
    owner: u32,
    kind: &'static str,
    contents: &'a [u8],
}

impl<'a> Entry<'a> {
    fn file(mode: u32, contents: &'a [u8]) -> Entry<'a> {
        Entry { mode, owner: 0, kind: "0", contents }
    }

    fn directory(mode: u32, owner: u32) -> Entry<'a> {
        Entry { mode, owner, kind: "5", contents: &[] }
    }

    /// The header of POSIX ustar.
    fn header(&self, path: &str) -> anyhow::Result<[u8; BLOCK]> {
        let mut header = [0_u8; BLOCK];
        let mut field = |at: usize, length: usize, text: &str| -> anyhow::Result<()> {
            if text.len() > length {
                bail!("{path}: `{text}` does not fit into a tar header");
            }
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
            Ok(())
        };
        field(0, 100, path)?;
        field(100, 8, &format!("{:07o}", self.mode))?;
        field(108, 8, &format!("{:07o}", self.owner))?;
        field(116, 8, &format!("{:07o}", self.owner))?;
        field(124, 12, &format!("{:011o}", self.contents.len()))?;
        field(136, 12, "00000000000")?;
        field(148, 8, "        ")?;
        field(156, 1, self.kind)?;
        field(257, 8, "ustar\x0000")?;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Ok(header)
    }
}

/// Compressed by code whose version Cargo.lock fixes, with no name and no time in the header.
fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

struct Layout {
    blobs: std::path::PathBuf,
}

impl Layout {
    /// Keeps bytes, and gives their descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.blobs.join(name), bytes).with_context(|| digest.clone())?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    fn json(&self, media_type: &str, value: &Value) -> anyhow::Result<Value> {
        self.blob(media_type, value.to_string().as_bytes())
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
