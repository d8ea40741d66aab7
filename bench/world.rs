//! One repository in memory that answers the judge's questions: ten-entry indexes under versions, as a publisher
//! of many platforms has them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use tidewaiter::document::Source;
use tidewaiter::history::{Known, Origin, Sighting, TagHistory};
use tidewaiter::image::{Digest, ImageConfig, Manifest, Repository, Tag};
use tidewaiter::policy::{
    Answer, Change, Fact, LineKey, Observation, PolicySet, Question, SPAN_MAX, Span, StoredConfig, StoredManifest,
    TagRecord, affected, compile, documents, judge,
};

/// What a ten-entry index lists: declared platform, and how its own tag ends.
pub const PLATFORMS: [(&str, &str, &str, &str, &str); 10] = [
    ("linux", "amd64", "", "", "linux-amd64"),
    ("linux", "arm64", "v8", "", "linux-arm64v8"),
    ("linux", "arm", "v7", "", "linux-arm32v7"),
    ("linux", "arm", "v6", "", "linux-arm32v6"),
    ("linux", "386", "", "", "linux-386"),
    ("linux", "ppc64le", "", "", "linux-ppc64le"),
    ("linux", "s390x", "", "", "linux-s390x"),
    ("linux", "riscv64", "", "", "linux-riscv64"),
    ("windows", "amd64", "", "10.0.17763.6532", "windows-amd64-1809"),
    ("windows", "amd64", "", "10.0.20348.2849", "windows-amd64-ltsc2022"),
];

pub const REPOSITORY: &str = "contoso.azurecr.io/iot/sensor";

pub fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).expect("a time")
}

/// The policy that is measured: every registry-side rule of an IoT Edge module.
pub fn policy() -> anyhow::Result<PolicySet> {
    set(&[include_str!("../policies/iot-edge-module.yaml").to_owned()])
}

/// Policies out of texts.
pub fn set(texts: &[String]) -> anyhow::Result<PolicySet> {
    let mut all = Vec::with_capacity(texts.len());
    for (n, text) in texts.iter().enumerate() {
        let source = Source { name: format!("{n}.yaml").into(), text: text.as_str().into() };
        all.extend(documents(&source).map_err(|faults| anyhow::anyhow!("{faults:?}"))?);
    }
    compile(&all, &|_, name| Err(format!("no file {name}"))).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

/// A repository with everything that a judge can ask about it.
pub struct World {
    pub repository: Repository,
    pub manifests: HashMap<Digest, Arc<StoredManifest>>,
    pub configs: HashMap<Digest, Arc<StoredConfig>>,
    pub tags: BTreeMap<Tag, Arc<TagRecord>>,
    keys: BTreeMap<Tag, Vec<LineKey>>,
    parents: HashMap<Digest, Vec<Digest>>,
}

impl World {
    /// Two complete releases, the newer one under the rolling tags as well.
    pub fn new(set: &PolicySet) -> World {
        let mut world = World {
            repository: REPOSITORY.parse().expect("a repository"),
            manifests: HashMap::new(),
            configs: HashMap::new(),
            tags: BTreeMap::new(),
            keys: BTreeMap::new(),
            parents: HashMap::new(),
        };
        world.release(set, "1.0.9", &[]);
        world.release(set, "1.0.10", &["1.0", "1", "latest"]);
        world
    }

    /// Pushes an index of all platforms, each image under a tag of its own too.
    fn release(&mut self, set: &PolicySet, version: &str, rolling: &[&str]) {
        let mut entries = Vec::new();
        for (os, architecture, variant, os_version, suffix) in PLATFORMS {
            let mut platform = json!({"os": os, "architecture": architecture});
            if !variant.is_empty() {
                platform["variant"] = json!(variant);
            }
            if !os_version.is_empty() {
                platform["os.version"] = json!(os_version);
            }
            let mut config = platform.clone();
            config["config"] = json!({"Labels": {"org.opencontainers.image.version": version}});
            config["rootfs"] = json!({"type": "layers", "diff_ids": [Digest::of(suffix.as_bytes()).as_str()]});
            let config = config.to_string().into_bytes();
            let config_digest = Digest::of(&config);
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config_digest.as_str(),
                    "size": config.len(),
                },
                "layers": [{
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": Digest::of(suffix.as_bytes()).as_str(),
                    "size": 1_000,
                }],
            });
            self.configs.insert(
                config_digest,
                Arc::new(StoredConfig {
                    size: config.len() as u64,
                    parsed: ImageConfig::parse(&config).map_err(|e| e.to_string()),
                    bytes: config.into(),
                }),
            );
            let (digest, size) = self.keep(&manifest);
            entries.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest.as_str(),
                "size": size,
                "platform": platform,
            }));
            self.tag(set, &format!("{version}-{suffix}"), &digest);
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        });
        let (digest, _) = self.keep(&index);
        self.tag(set, version, &digest);
        rolling.iter().for_each(|tag| self.tag(set, tag, &digest));
    }

    fn keep(&mut self, document: &serde_json::Value) -> (Digest, usize) {
        let bytes = document.to_string().into_bytes();
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        let parsed = Manifest::parse(&bytes, None);
        for entry in parsed.iter().filter_map(Manifest::index).flat_map(|index| &index.entries) {
            self.parents.entry(entry.digest.clone()).or_default().push(digest.clone());
        }
        let manifest = StoredManifest { digest: digest.clone(), size: size as u64, parsed, bytes: bytes.into() };
        self.manifests.insert(digest.clone(), Arc::new(manifest));
        (digest, size)
    }

    fn tag(&mut self, set: &PolicySet, tag: &str, digest: &Digest) {
        let tag: Tag = tag.parse().expect("a tag");
        let seen = Sighting {
            digest: Some(digest.clone()),
            at: now(),
            known: Known::Observed,
            looked: true,
            origin: Origin::Event,
            actor: None,
        };
        let record = TagRecord {
            current: Some(digest.clone()),
            history: Some(TagHistory::from_sightings(vec![seen])),
            ..TagRecord::default()
        };
        self.keys.insert(tag.clone(), set.line_keys(&self.repository, &tag, None));
        self.tags.insert(tag, Arc::new(record));
    }

    /// The push of the newer version.
    pub fn push(&self) -> Change {
        let tag: Tag = "1.0.10".parse().expect("a tag");
        let new = self.tags[&tag].current.clone();
        Change::Tag { tag, old: None, new }
    }

    pub fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Tag(tag) => Answer::Tag(self.tags.get(tag).cloned().map_or(Fact::Absent, Fact::Known)),
            Question::Manifest(digest) => {
                Answer::Manifest(self.manifests.get(digest).cloned().map_or(Fact::Absent, Fact::Known))
            }
            Question::Config(digest) => {
                Answer::Config(self.configs.get(digest).cloned().map_or(Fact::Absent, Fact::Known))
            }
            Question::Line { line, group, span } => {
                let keys = self.keys.iter().flat_map(|(tag, keys)| keys.iter().map(move |key| (key, tag)));
                let mut found: Vec<(&[u8], &Tag)> =
                    keys.filter(|(k, _)| k.line == *line && k.group == *group).map(|(k, t)| (&*k.rank, t)).collect();
                found.sort();
                let most = match span {
                    Span::All => SPAN_MAX,
                    Span::Highest(n) => {
                        found.reverse();
                        *n
                    }
                    Span::Below(limit, n) => {
                        found.retain(|(rank, _)| *rank < limit.as_slice());
                        found.reverse();
                        *n
                    }
                    Span::Above(limit, n) => {
                        found.retain(|(rank, _)| *rank > limit.as_slice());
                        *n
                    }
                };
                Answer::Tags(Fact::Known(found.into_iter().take(most).map(|(_, tag)| tag.clone()).collect()))
            }
            // No registry here has locks.
            Question::Locked(..) => Answer::Locked(Fact::Absent),
            Question::Tagged(digest) => {
                let here = self.tags.iter().filter(|(_, record)| record.current.as_ref() == Some(digest));
                Answer::Tags(Fact::Known(here.map(|(tag, _)| tag.clone()).collect()))
            }
            Question::Parents(digest) => {
                Answer::Digests(Fact::Known(self.parents.get(digest).cloned().unwrap_or_default().into()))
            }
        }
    }

    /// Everything that judging these changes asks for.
    pub fn observation(&self, set: &PolicySet, changes: &[Change]) -> Observation {
        let mut observation = Observation::new(self.repository.clone(), now(), true);
        loop {
            let (targets, mut asks) = affected(set, &observation, changes);
            if asks.is_empty() {
                asks = judge(set, &observation, &targets, Origin::Event).asks;
            }
            if asks.is_empty() {
                return observation;
            }
            for ask in asks {
                let answer = self.answer(&ask);
                observation.tell(ask, answer);
            }
        }
    }
}
