//! Manifests shaped as real registries return them, judged by the platform sets of their catalogue
//! (`tests/data/manifests/catalogue.json`): what is missing, and what is faulty.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tidewaiter::document::{Source, render};
use tidewaiter::history::Origin;
use tidewaiter::image::{Digest, ImageConfig, Manifest, MediaType, Platform, PlatformRequirement};
use tidewaiter::policy::{
    Answer, Fact, Observation, PolicySet, Question, Reason, StoredConfig, StoredManifest, TagRecord, Verdict, compile,
    documents, judge, targets_of,
};

/// Everything that can be fetched: the files by their digests, and images made up for entries that lead to none.
#[derive(Default)]
struct Content {
    manifests: BTreeMap<Digest, StoredManifest>,
    configs: BTreeMap<Digest, Vec<u8>>,
}

fn stored(digest: Digest, bytes: &[u8], size: u64, kind: &str) -> StoredManifest {
    StoredManifest { digest, size, parsed: Manifest::parse(bytes, Some(&MediaType::parse(kind))), bytes: bytes.into() }
}

impl Content {
    /// An image for an entry whose digest is made up: it is what the entry says that it is.
    fn make_up(&mut self, entry: &Value) {
        let digest: Digest = entry["digest"].as_str().unwrap().parse().unwrap();
        if self.manifests.contains_key(&digest) || entry["platform"].is_null() {
            return;
        }
        let config = entry["platform"].to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config).as_str(), "size": config.len()},
            "layers": [],
        });
        let size = entry["size"].as_u64().unwrap();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        self.manifests.insert(digest.clone(), stored(digest, manifest.to_string().as_bytes(), size, kind));
        self.configs.insert(Digest::of(&config), config);
    }

    fn answer(&self, question: &Question, top: &Digest) -> Answer {
        match question {
            Question::Tag(_) => {
                let record = TagRecord { current: Some(top.clone()), ..TagRecord::default() };
                Answer::Tag(Fact::Known(Arc::new(record)))
            }
            Question::Manifest(digest) => Answer::Manifest(match self.manifests.get(digest) {
                Some(manifest) => Fact::Known(Arc::new(manifest.clone())),
                None => Fact::Absent,
            }),
            Question::Config(digest) => Answer::Config(match self.configs.get(digest) {
                Some(bytes) => Fact::Known(Arc::new(StoredConfig {
                    size: bytes.len() as u64,
                    parsed: ImageConfig::parse(bytes).map_err(|e| e.to_string()),
                    bytes: bytes.as_slice().into(),
                })),
                None => Fact::Absent,
            }),
            other => panic!("{other:?} is not needed"),
        }
    }

    fn judged(&self, set: &PolicySet, top: &Digest) -> Verdict {
        let repository = "registry.example/app".parse().unwrap();
        let mut observation = Observation::new(repository, "2026-01-01T00:00:00Z".parse().unwrap(), false);
        let targets = targets_of(set, &observation, &["x".parse().unwrap()], false);
        for _ in 0..100 {
            let judgement = judge(set, &observation, &targets, Origin::Check);
            if judgement.asks.is_empty() {
                return judgement.verdicts.into_iter().next().unwrap();
            }
            for question in judgement.asks {
                let answer = self.answer(&question, top);
                observation.tell(question, answer);
            }
        }
        panic!("the judge asks for ever");
    }
}

fn catalogue() -> (Value, Content) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/manifests");
    let catalogue: Value = serde_json::from_slice(&fs::read(folder.join("catalogue.json")).unwrap()).unwrap();
    let mut content = Content::default();
    let mut indexes = Vec::new();
    for file in catalogue["files"].as_array().unwrap() {
        let bytes = fs::read(folder.join(file["file"].as_str().unwrap())).unwrap();
        let digest = Digest::of(&bytes);
        assert_eq!(digest.as_str(), file["digest"], "{file}");
        let kind = file["mediaType"].as_str().unwrap();
        content.configs.insert(digest.clone(), bytes.clone());
        content.manifests.insert(digest.clone(), stored(digest, &bytes, bytes.len() as u64, kind));
        indexes.extend(serde_json::from_slice::<Value>(&bytes).ok());
    }
    for entry in indexes.iter().filter_map(|i| i["manifests"].as_array()).flatten() {
        content.make_up(entry);
    }
    (catalogue, content)
}

fn policy(platforms: &Value) -> PolicySet {
    let text = format!(
        "{{apiVersion: tidewaiter.dev/v1, kind: TagPolicy, metadata: {{name: x}}, spec: {{repositories: [\"*/**\"], classes: \
         [{{name: x, form: x, require: {{platforms: {platforms}, intact: true}}}}]}}}}"
    );
    let documents =
        documents(&Source::new("policy.yaml", text)).unwrap_or_else(|faults| panic!("{}", render(&faults, false)));
    compile(&documents, &|_: &Source, _: &str| Err(String::new())).unwrap_or_else(|f| panic!("{}", render(&f, false)))
}

#[test]
fn every_index_lacks_what_the_catalogue_says() {
    let (catalogue, content) = catalogue();
    let mut judged = 0;
    for (name, platforms) in catalogue["platformSets"].as_object().unwrap() {
        let set = policy(platforms);
        for file in catalogue["files"].as_array().unwrap().iter().filter(|f| f["missing"].is_object()) {
            let verdict = content.judged(&set, &file["digest"].as_str().unwrap().parse().unwrap());
            let wanted = platforms.as_array().unwrap().iter().map(|p| p.as_str().unwrap());
            // The catalogue goes by what entries say; we go by what their images are, and say so.
            let claimed = verdict.findings.iter().filter(|f| f.reason == Reason::LyingIndex).flat_map(|f| &f.expected);
            let claimed: Vec<Platform> = claimed.map(|p| p.parse().unwrap()).collect();
            let lacks: Vec<&str> = wanted
                .filter(|w| {
                    let wanted: PlatformRequirement = w.parse().unwrap();
                    !verdict.subject.platforms.iter().chain(&claimed).any(|p| wanted.is_met_by(p))
                })
                .collect();
            let expected: Vec<&str> =
                file["missing"][name].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
            assert_eq!(lacks, expected, "{} by {name}: {:#?}", file["file"], verdict.findings);
            judged += 1;
        }
    }
    assert!(judged > 20);
}

#[test]
fn faulty_manifests_are_called_what_they_are() {
    let (catalogue, content) = catalogue();
    let set = policy(&catalogue["platformSets"]["tier1-2023-05"]);
    for (file, reasons) in [
        ("fault-missing-arm.list.json", &["missing-platform"][..]),
        ("fault-variant-armv7.list.json", &["missing-platform", "invalid-variant", "invalid-variant"]),
        ("fault-architecture-aarch64.list.json", &["non-canonical-platform"]),
        ("fault-duplicate-platform.list.json", &["missing-platform", "duplicate-platform"]),
        ("fault-windows-without-os-version.list.json", &["missing-platform", "non-canonical-platform"]),
        ("fault-schema-version-1.list.json", &["malformed-manifest"]),
        ("empty.index.json", &["missing-platform"]),
        ("empty.list.json", &["missing-platform"]),
        ("attestation-only.index.json", &["missing-platform", "dangling-attestation"]),
        ("helm-chart.manifest.json", &["wrong-kind"]),
        ("cosign-signature.manifest.json", &["wrong-kind"]),
        ("notation-signature.manifest.json", &["wrong-kind"]),
        ("azureiotedge-simulated-temperature-sensor-1.6.1.index.json", &[]),
    ] {
        let listed = catalogue["files"].as_array().unwrap().iter().find(|f| f["file"] == file).unwrap();
        let verdict = content.judged(&set, &listed["digest"].as_str().unwrap().parse().unwrap());
        let found: Vec<&str> = verdict.findings.iter().map(|f| f.reason.as_str()).collect();
        assert_eq!(found, reasons, "{file}: {:#?}", verdict.findings);
    }
}
