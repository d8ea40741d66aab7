//! Every case of `tests/data/policy` and of the shipped policies comes out as it says.

use std::fs;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use tidewaiter::document::{Source, render};
use tidewaiter::history::Origin;
use tidewaiter::image::{Digest, Manifest, Tag};
use tidewaiter::policy::{
    Answer, Cause, CauseKind, Document, Fact, Observation, Outcome, PolicySet, Question, Reason, Rule, StoredManifest,
    TagRecord, Verdict, affected, compile, documents, judge, targets_of, trial,
};

fn read(folder: &str) -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let name = format!("{folder}/{}", path.file_name().unwrap().to_string_lossy());
        let source = Source::new(name, fs::read_to_string(&path).unwrap());
        out.extend(documents(&source).unwrap_or_else(|faults| panic!("{}", render(&faults, false))));
    }
    out
}

fn run(folder: &str) -> trial::Trial {
    let documents = read(folder);
    let no_files = |_: &Source, name: &str| Err(format!("no file `{name}`"));
    trial::run(&documents, &documents, &no_files).unwrap_or_else(|faults| panic!("{}", render(&faults, false)))
}

fn must_pass(folder: &str) {
    let trial = run(folder);
    assert!(!trial.cases.is_empty());
    assert!(trial.passed(), "{}", tidewaiter::report::trial_text(&trial, &tidewaiter::report::Options::default()));
}

#[test]
fn the_catalogue_of_cases() {
    must_pass("tests/data/policy");
}

/// The rows of the catalogue, by section.
fn rows() -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for (section, last) in [("I", 26), ("V", 34), ("P", 50)] {
        rows.extend((1..=last).map(|n| format!("{section}{n}")));
    }
    rows.extend(["V14b", "V14c", "V31a", "P46b", "P46c", "P46d"].map(str::to_owned));
    rows
}

#[test]
fn every_row_of_the_catalogue_has_a_case_or_a_test_of_its_name() {
    let trial = run("tests/data/policy");
    let mut covered: Vec<String> = Vec::new();
    for case in &trial.cases {
        let words = case.name.split(|c: char| !c.is_ascii_alphanumeric());
        covered.extend(words.map(str::to_owned));
    }
    // Rows that no case can say are tests below, named after the row: `v04_…`.
    for line in include_str!("policy_cases.rs").lines() {
        if let Some(name) = line.strip_prefix("fn ") {
            let row = name.split('_').next().unwrap_or_default().to_ascii_uppercase();
            let (section, number) = row.split_at(row.len().min(1));
            covered.push(format!("{section}{}", number.trim_start_matches('0')));
        }
    }
    let missing: Vec<String> = rows().into_iter().filter(|row| !covered.contains(row)).collect();
    assert!(missing.is_empty(), "no case and no test for {}", missing.join(", "));
}

fn policy(text: &str) -> PolicySet {
    let source = Source::new("policy.yaml", text);
    let documents = documents(&source).unwrap_or_else(|faults| panic!("{}", render(&faults, false)));
    compile(&documents, &|_: &Source, _: &str| Err(String::new())).unwrap_or_else(|f| panic!("{}", render(&f, false)))
}

const VERSIONS: &str = "
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: versions}
spec:
  repositories: [registry.example/team/*]
  classes:
    - {name: version, form: \"{major}.{minor}.{patch}\", require: {intact: true}}
    - {name: latest, form: latest, require: {follows: version}}
  otherTags: deny
";

#[test]
fn v04_a_plus_never_occurs_in_a_tag() {
    assert!("1.2.3+build.5".parse::<Tag>().is_err());
}

#[test]
fn v18_what_is_no_tag_is_refused_and_breaks_nothing() {
    for text in ["1.2.\u{663}", "1.2.3\n", ".hidden", "-1", "", &"1".repeat(129)] {
        assert!(text.parse::<Tag>().is_err(), "{text:?}");
    }
    assert!("1".repeat(128).parse::<Tag>().is_ok());
}

/// Judges with every question answered by `answer`.
fn judged(set: &PolicySet, repository: &str, tag: &str, answer: impl Fn(&Question) -> Answer) -> Verdict {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut observation = Observation::new(repository.parse().unwrap(), now, true);
    let targets = targets_of(set, &observation, &[tag.parse().unwrap()], false);
    for _ in 0..100 {
        let judgement = judge(set, &observation, &targets, Origin::Event);
        if judgement.asks.is_empty() {
            return judgement.verdicts.into_iter().next().unwrap();
        }
        for question in judgement.asks {
            let given = answer(&question);
            observation.tell(question, given);
        }
    }
    panic!("the judge asks for ever");
}

fn undetermined<T>() -> Fact<T> {
    Fact::Undetermined(Cause { kind: CauseKind::Limit, text: "the list of tags is not complete".into() })
}

#[test]
fn v33_half_a_list_of_tags_is_an_error_and_no_verdict() {
    let bytes: Arc<[u8]> = br#"{"schemaVersion":2,"manifests":[]}"#.as_slice().into();
    let digest = Digest::of(&bytes);
    let verdict = judged(&policy(VERSIONS), "registry.example/team/app", "latest", |question| match question {
        Question::Tag(_) => {
            let record = TagRecord { current: Some(digest.clone()), ..TagRecord::default() };
            Answer::Tag(Fact::Known(Arc::new(record)))
        }
        Question::Manifest(digest) => Answer::Manifest(Fact::Known(Arc::new(StoredManifest {
            digest: digest.clone(),
            size: bytes.len() as u64,
            parsed: Manifest::parse(&bytes, None),
            bytes: bytes.clone(),
        }))),
        Question::Config(_) => Answer::Config(Fact::Absent),
        Question::Parents(_) => Answer::Digests(undetermined()),
        Question::Locked(..) => Answer::Locked(undetermined()),
        Question::Line { .. } | Question::Tagged(_) => Answer::Tags(undetermined()),
    });
    assert_eq!(verdict.outcome, Outcome::Error);
}

#[test]
fn v34_a_mirror_is_another_repository() {
    let set = policy(VERSIONS);
    assert_eq!(set.governing(&"registry.example/team/app".parse().unwrap()).len(), 1);
    assert_eq!(set.governing(&"mirror.example/team/app".parse().unwrap()).len(), 0);
}

#[test]
fn p36_what_is_over_a_limit_is_an_error() {
    let entry = format!(r#"{{"mediaType":"x","digest":"{}","size":1}}"#, Digest::of(b"x"));
    let many = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry; 1_001].join(","));
    let large = format!(r#"{{"schemaVersion":2,"manifests":[],"x":"{}"}}"#, "x".repeat(4 << 20));
    for text in [many, large] {
        let bytes: Arc<[u8]> = text.as_bytes().into();
        let digest = Digest::of(&bytes);
        let verdict = judged(&policy(VERSIONS), "registry.example/team/app", "1.0.0", |question| match question {
            Question::Tag(_) => {
                let record = TagRecord { current: Some(digest.clone()), ..TagRecord::default() };
                Answer::Tag(Fact::Known(Arc::new(record)))
            }
            Question::Manifest(digest) => Answer::Manifest(Fact::Known(Arc::new(StoredManifest {
                digest: digest.clone(),
                size: bytes.len() as u64,
                parsed: Manifest::parse(&bytes, None),
                bytes: bytes.clone(),
            }))),
            other => panic!("{other:?} is not needed"),
        });
        assert_eq!(verdict.outcome, Outcome::Error);
        assert_eq!(verdict.findings[0].reason, Reason::TooLarge);
    }
}

#[test]
fn p44_a_mounted_blob_changes_no_tag() {
    let observation =
        Observation::new("registry.example/team/app".parse().unwrap(), "2026-01-01T00:00:00Z".parse().unwrap(), true);
    // A blob is no manifest: nothing changed, so nothing is asked and nothing judged.
    let (targets, asks) = affected(&policy(VERSIONS), &observation, &[]);
    assert!(targets.is_empty() && asks.is_empty());
}

#[test]
fn the_shipped_policies() {
    must_pass("policies");
    let mut trial = run("policies");
    // `latest` of a module for some platforms may be one image; whether the version has more, `follows` tells.
    trial
        .uncovered
        .retain(|u| !(&*u.policy == "iot-edge-module-subset" && &*u.class == "latest" && u.rule == Rule::Index));
    // What no case makes fail, nobody knows to work.
    let gaps = tidewaiter::report::coverage_text(&trial);
    assert!(trial.uncovered.is_empty(), "{gaps}");
}
