//! Manifests made from the short descriptions of a test document: real bytes with real digests, so that the
//! judge sees in a test what it sees from a registry.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::compile::text;
use crate::document::{Fault, Node, Source};
use crate::image::{Algorithm, Digest, MediaType};

const ATTESTATION_TYPE: &str = "vnd.docker.reference.type";
const ATTESTATION_ABOUT: &str = "vnd.docker.reference.digest";

/// Something that the modelled registry can hold.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub bytes: Vec<u8>,
    pub media_type: MediaType,
    /// The name in the test document; entries written in place have none.
    pub name: Option<String>,
    /// Whether the registry has it at all.
    pub missing: bool,
}

/// The manifests and configs of a test document.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalogue {
    pub names: BTreeMap<String, Digest>,
    pub manifests: BTreeMap<Digest, Stored>,
    pub configs: BTreeMap<Digest, Vec<u8>>,
}

/// What another manifest says of one: its descriptor and the platform it is for.
#[derive(Debug, Clone)]
struct Built {
    digest: Digest,
    size: usize,
    media_type: &'static str,
    platform: Option<Value>,
    is_image: bool,
}

struct Builder<'a> {
    source: &'a Source,
    written: BTreeMap<&'a str, &'a Node>,
    built: BTreeMap<String, Built>,
    /// The names being built, for cycles.
    open: Vec<String>,
    catalogue: Catalogue,
    faults: Vec<Fault>,
}

/// Builds every manifest of a test document.
///
/// # Errors
/// Names that are not there, and manifests that contain themselves.
pub(super) fn build(source: &Source, node: Option<&Node>) -> Result<Catalogue, Vec<Fault>> {
    let entries = node.map(Node::entries).unwrap_or_default();
    let mut builder = Builder {
        source,
        written: entries.iter().map(|(k, v)| (&*k.text, v)).collect(),
        built: BTreeMap::new(),
        open: Vec::new(),
        catalogue: Catalogue::default(),
        faults: Vec::new(),
    };
    for (key, node) in entries {
        builder.named(&key.text, node);
    }
    if builder.faults.is_empty() { Ok(builder.catalogue) } else { Err(builder.faults) }
}

/// `os/arch[/variant][:version]` word for word; `none` is nothing.
fn platform(written: &str) -> Option<Value> {
    if written == "none" {
        return None;
    }
    let (kind, version) = written.split_once(':').map_or((written, None), |(k, v)| (k, Some(v)));
    let mut parts = kind.split('/');
    let mut out = Map::new();
    out.insert("architecture".into(), json!(parts.clone().nth(1).unwrap_or_default()));
    out.insert("os".into(), json!(parts.next().unwrap_or_default()));
    if let Some(variant) = parts.nth(1) {
        out.insert("variant".into(), json!(variant));
    }
    if let Some(version) = version {
        out.insert("os.version".into(), json!(version));
    }
    Some(Value::Object(out))
}

fn kinds(docker: bool) -> (&'static str, &'static str, &'static str, &'static str) {
    if docker {
        (
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        )
    } else {
        (
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        )
    }
}

impl<'a> Builder<'a> {
    fn fault(&mut self, node: &Node, code: &'static str, message: String, label: &str) {
        self.faults.push(Fault::error(self.source, node.span, code, message).label(label));
    }

    /// A manifest by its name, at the place that refers to it.
    fn reference(&mut self, node: &Node) -> Option<Built> {
        let name = text(Some(node)).to_owned();
        if let Some(built) = self.built.get(&name) {
            return Some(built.clone());
        }
        if self.open.contains(&name) {
            self.fault(node, "manifest-cycle", format!("`{name}` contains itself"), "no digest could be computed");
            return None;
        }
        match self.written.get(&*name).copied() {
            Some(written) => self.named(&name, written),
            None => {
                self.fault(node, "unknown-manifest", format!("there is no manifest `{name}`"), "add it to `manifests`");
                None
            }
        }
    }

    fn named(&mut self, name: &str, node: &'a Node) -> Option<Built> {
        if let Some(built) = self.built.get(name) {
            return Some(built.clone());
        }
        self.open.push(name.to_owned());
        let built = self.describe(name, node);
        self.open.pop();
        let built = built?;
        if let Some(stored) = self.catalogue.manifests.get_mut(&built.digest) {
            stored.name.get_or_insert_with(|| name.to_owned());
        }
        self.catalogue.names.insert(name.to_owned(), built.digest.clone());
        self.built.insert(name.to_owned(), built.clone());
        Some(built)
    }

    fn describe(&mut self, name: &str, node: &Node) -> Option<Built> {
        let seed = node.get("seed").map_or(name, |n| text(Some(n))).to_owned();
        let docker = text(node.get("types")) == "docker";
        let missing = node.get("missing").and_then(Node::as_bool).unwrap_or(false);
        let algorithm = if text(node.get("algorithm")) == "sha512" { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let annotations = node.get("annotations").map(Node::to_json);
        let subject = match node.get("subject") {
            Some(subject) => {
                let about = self.reference(subject)?;
                Some(json!({"mediaType": about.media_type, "digest": about.digest.as_str(), "size": about.size}))
            }
            None => None,
        };
        let extra = |mut manifest: Value| {
            if let (Some(fields), Some(annotations)) = (manifest.as_object_mut(), &annotations) {
                fields.insert("annotations".into(), annotations.clone());
            }
            if let (Some(fields), Some(subject)) = (manifest.as_object_mut(), &subject) {
                fields.insert("subject".into(), subject.clone());
            }
            manifest
        };
        let store = |this: &mut Self, manifest: Value, kind: &'static str, platform, is_image| {
            this.store(manifest.to_string().into_bytes(), kind, algorithm, missing, platform, is_image)
        };
        if let Some(image) = node.get("image") {
            let platform = platform(text(Some(image)));
            let manifest = self.image(&seed, platform.as_ref(), docker, node.get("config"));
            return Some(store(self, extra(manifest), kinds(docker).1, platform, true));
        }
        if let Some(index) = node.get("index") {
            let manifest = self.index(&seed, docker, index.items(), node.get("attestations"))?;
            return Some(store(self, extra(manifest), kinds(docker).0, None, false));
        }
        if let Some(raw) = node.get("raw") {
            let body = raw.get("body")?;
            let bytes = match body.as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => body.to_json().to_string().into_bytes(),
            };
            let kind = text(raw.get("mediaType"));
            let mut built = self.store(bytes, "", algorithm, missing, None, false);
            if let Some(stored) = self.catalogue.manifests.get_mut(&built.digest) {
                stored.media_type = MediaType::parse(kind);
                if stored.media_type.is_index() {
                    built.media_type = kinds(false).0;
                } else {
                    built.media_type = kinds(false).1;
                }
            }
            return Some(built);
        }
        let config = if node.get("chart").is_some() {
            self.config(json!({"name": seed, "version": "1.0.0", "apiVersion": "v2"}))
        } else {
            self.config(json!({}))
        };
        let layer = Digest::of(format!("content of {seed}").as_bytes());
        let layers = json!([{"mediaType": "application/octet-stream", "digest": layer.as_str(), "size": 32}]);
        let (config_type, artifact) = match node.get("artifact") {
            Some(artifact) => ("application/vnd.oci.empty.v1+json", Some(text(Some(artifact)))),
            None => ("application/vnd.cncf.helm.config.v1+json", None),
        };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": kinds(false).1,
            "config": {"mediaType": config_type, "digest": config.0.as_str(), "size": config.1},
            "layers": layers,
        });
        if let (Some(fields), Some(artifact)) = (manifest.as_object_mut(), artifact) {
            fields.insert("artifactType".into(), json!(artifact));
        }
        Some(store(self, extra(manifest), kinds(false).1, None, false))
    }

    fn store(
        &mut self,
        bytes: Vec<u8>,
        media_type: &'static str,
        algorithm: Algorithm,
        missing: bool,
        platform: Option<Value>,
        is_image: bool,
    ) -> Built {
        let digest = Digest::with(algorithm, &bytes);
        let size = bytes.len();
        let stored = Stored { bytes, media_type: MediaType::parse(media_type), name: None, missing };
        self.catalogue.manifests.entry(digest.clone()).or_insert(stored);
        Built { digest, size, media_type, platform, is_image }
    }

    fn config(&mut self, config: Value) -> (Digest, usize) {
        let bytes = config.to_string().into_bytes();
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        self.catalogue.configs.insert(digest.clone(), bytes);
        (digest, size)
    }

    /// An image's manifest. Its config depends on seed and platform only, whatever the media types.
    fn image(&mut self, seed: &str, platform: Option<&Value>, docker: bool, fields: Option<&Node>) -> Value {
        let (_, manifest_type, config_type, layer_type) = kinds(docker);
        let content = format!("{seed} {}", platform.map(Value::to_string).unwrap_or_default());
        let unpacked = Digest::of(format!("unpacked {content}").as_bytes());
        let mut config = platform.and_then(Value::as_object).cloned().unwrap_or_default();
        config.insert("rootfs".into(), json!({"type": "layers", "diff_ids": [unpacked.as_str()]}));
        for (key, value) in fields.map(Node::entries).unwrap_or_default() {
            config.insert(key.text.to_string(), value.to_json());
        }
        let (config, size) = self.config(Value::Object(config));
        let layer = Digest::of(format!("packed {content} {layer_type}").as_bytes());
        json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": config.as_str(), "size": size},
            "layers": [{"mediaType": layer_type, "digest": layer.as_str(), "size": 1_000}],
        })
    }

    fn index(&mut self, seed: &str, docker: bool, entries: &[Node], attested: Option<&Node>) -> Option<Value> {
        let mut listed: Vec<Value> = Vec::with_capacity(entries.len());
        let mut images: Vec<Digest> = Vec::new();
        for entry in entries {
            let (built, stated) = self.entry(seed, docker, entry)?;
            if built.is_image {
                images.push(built.digest.clone());
            }
            let size = entry.get("size").and_then(Node::as_u64).unwrap_or(built.size as u64);
            let mut descriptor = json!({"mediaType": built.media_type, "digest": built.digest.as_str(), "size": size});
            let fields = descriptor.as_object_mut()?;
            if let Some(mut platform) = stated {
                if let (Some(features), Some(fields)) = (entry.get("osFeatures"), platform.as_object_mut()) {
                    fields.insert("os.features".into(), features.to_json());
                }
                fields.insert("platform".into(), platform);
            }
            if let Some(annotations) = entry.get("annotations") {
                fields.insert("annotations".into(), annotations.to_json());
            }
            listed.push(descriptor);
        }
        let attested_by = match attested {
            Some(node) if node.as_bool() == Some(true) => Some("attestation"),
            Some(node) => node.as_str(),
            None => None,
        };
        for about in images.iter().filter(|_| attested_by.is_some()) {
            let words = attested_by.unwrap_or_default();
            let manifest = self.attestation(words, about);
            let bytes = manifest.to_string().into_bytes();
            let built = self.store(bytes, kinds(false).1, Algorithm::Sha256, false, None, false);
            listed.push(json!({
                "mediaType": built.media_type,
                "digest": built.digest.as_str(),
                "size": built.size,
                "platform": {"architecture": "unknown", "os": "unknown"},
                "annotations": {ATTESTATION_TYPE: "attestation-manifest", ATTESTATION_ABOUT: about.as_str()},
            }));
        }
        Some(json!({"schemaVersion": 2, "mediaType": kinds(docker).0, "manifests": listed}))
    }

    /// One entry: what it leads to, and the platform that the index states.
    fn entry(&mut self, seed: &str, docker: bool, entry: &Node) -> Option<(Built, Option<Value>)> {
        if let Some(name) = entry.get("manifest") {
            let built = self.reference(name)?;
            let stated = match entry.get("platform") {
                Some(written) => platform(text(Some(written))),
                None => built.platform.clone(),
            };
            return Some((built, stated));
        }
        let written = entry.as_str().unwrap_or_else(|| text(entry.get("platform")));
        let of_config = entry.get("config").map_or(written, |n| text(Some(n)));
        let missing = entry.get("missing").and_then(Node::as_bool).unwrap_or(false);
        let own = platform(of_config);
        let manifest = self.image(&format!("{seed} {written}"), own.as_ref(), docker, None);
        let bytes = manifest.to_string().into_bytes();
        let built = self.store(bytes, kinds(docker).1, Algorithm::Sha256, missing, own, true);
        Some((built, platform(written)))
    }

    fn attestation(&mut self, words: &str, about: &Digest) -> Value {
        let statement = Digest::of(format!("{words} {about}").as_bytes());
        let config = json!({
            "architecture": "unknown", "os": "unknown",
            "rootfs": {"type": "layers", "diff_ids": [statement.as_str()]},
        });
        let (config, size) = self.config(config);
        json!({
            "schemaVersion": 2,
            "mediaType": kinds(false).1,
            "config": {"mediaType": kinds(false).2, "digest": config.as_str(), "size": size},
            "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": statement.as_str(), "size": 100}],
        })
    }
}
