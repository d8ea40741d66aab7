//! Judging what a change concerns comes to the same as judging the whole repository from scratch.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::super::{Rule, State, documents};
use super::spec::{Suite, suites};
use super::world::{Event, World};
use super::*;
use crate::document::{Source, render};
use crate::history::Origin;
use crate::image::Tag;

const TEXT: &str = r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: all}
spec:
  repositories: [registry.example/app]
  classes:
    - name: version
      form: "{major}.{minor}.{patch}"
      expected: {for: 1m}
      require:
        immutable: true
        index: {unlessSinglePlatform: true}
        platforms: {all: two}
        intact: true
        present: true
        keepsPlatforms: true
        membersTagged: {by: per-platform, for: 1m}
    - {name: latest, form: latest, expected: true, require: {kind: image, intact: true, platforms: {all: two}, follows: version}}
    - name: rolling
      form: ["{major}.{minor}", "{major}"]
      require: {follows: {class: version, for: 1m, withdrawn: [{tag: 1.1.0, reason: bad}]}}
    - {name: per-platform, form: "{major}.{minor}.{patch}-{platform}", require: {immutable: {settle: 1m}, memberOf: {class: version}}}
    - {name: any, form: "any-{major}", require: {membersTagged: true, intact: true}}
    - {name: chart, form: "chart-{major}", expected: true, require: {kind: chart}}
    - {name: stable, form: stable, require: {follows: chart}}
  otherTags: deny
---
apiVersion: tidewaiter.dev/v1
kind: PlatformSet
metadata: {name: two}
spec: {revisions: [{from: 2020-01-01, platforms: [linux/amd64]}, {from: 2026-01-01, platforms: [linux/amd64, linux/arm64]}]}
---
apiVersion: tidewaiter.dev/v1
kind: TagPolicyTest
metadata: {name: alphabet}
spec:
  repository: registry.example/app
  start: 2025-12-31T23:55:00Z
  manifests:
    amd64: {image: linux/amd64}
    arm64: {image: linux/arm64}
    pair: {index: [{manifest: amd64}, {manifest: arm64}]}
    pair-attested: {index: [{manifest: amd64}, {manifest: arm64}], attestations: true}
    other: {index: [linux/amd64, {manifest: arm64}]}
    wrapped: {index: [{manifest: amd64}]}
    nested: {index: [{manifest: wrapped}, {manifest: arm64}]}
    nested-twice: {index: [{manifest: nested}]}
    chart: {chart: true}
    chart-too: {chart: true}
  cases: [{name: none, steps: [{at: +1s}]}]
"#;

const TAGS: &[&str] = &[
    "1.0.0",
    "1.0.1",
    "1.1.0",
    "2.0.0",
    "latest",
    "1.0",
    "1",
    "1.0.0-amd64",
    "1.0.0-arm64",
    "1.0.1-amd64",
    "any-1",
    "chart-1",
    "chart-2",
    "stable",
    "strange",
];
const MANIFESTS: &[&str] =
    &["amd64", "arm64", "pair", "pair-attested", "other", "wrapped", "nested", "nested-twice", "chart", "chart-too"];

#[derive(Debug, Clone)]
enum Step {
    Push {
        tag: usize,
        manifest: usize,
        told: bool,
    },
    PushByDigest(usize),
    Untag {
        tag: usize,
        told: bool,
    },
    Delete {
        manifest: usize,
        told: bool,
    },
    /// Delivers one of the events so far, perhaps again.
    Deliver(prop::sample::Index),
    Wait(i64),
    Audit,
}

fn step() -> impl Strategy<Value = Step> {
    let (tag, manifest) = (0..TAGS.len(), 0..MANIFESTS.len());
    prop_oneof![
        8 => (tag.clone(), manifest.clone(), any::<bool>()).prop_map(|(tag, manifest, told)| Step::Push { tag, manifest, told }),
        1 => manifest.clone().prop_map(Step::PushByDigest),
        2 => (tag, any::<bool>()).prop_map(|(tag, told)| Step::Untag { tag, told }),
        1 => (manifest, any::<bool>()).prop_map(|(manifest, told)| Step::Delete { manifest, told }),
        4 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        1 => (1i64..90).prop_map(Step::Wait),
        1 => Just(Step::Audit),
    ]
}

static SUITE: LazyLock<Suite> = LazyLock::new(|| {
    let documents = documents(&Source::new("test.yaml", TEXT)).unwrap_or_else(|f| panic!("{}", render(&f, false)));
    let no_files = |_: &Source, _: &str| Err(String::new());
    let mut all = suites(&documents, &documents, &no_files).unwrap_or_else(|f| panic!("{}", render(&f, false)));
    all.remove(0)
});

fn tag(n: usize) -> Tag {
    TAGS[n].parse().unwrap()
}

/// What is unmet, in either of two ways of saying it.
type Unmet = BTreeSet<(String, Rule)>;

fn from_violations(world: &World) -> Unmet {
    let open = world.violations().filter(|v| v.state != State::Resolved);
    open.map(|v| (v.key.tag.as_ref().map_or_else(|| format!("class:{}", v.key.class), ToString::to_string), v.key.rule))
        .collect()
}

fn from_verdicts(world: &World) -> BTreeSet<(String, Rule, &'static str)> {
    let mut out = BTreeSet::new();
    for (subject, verdict) in world.verdicts() {
        for finding in verdict.findings.iter().filter(|f| f.state != State::Resolved) {
            out.insert((subject.to_string(), finding.rule, finding.reason.as_str()));
        }
        for not in &verdict.not_evaluated {
            out.insert((subject.to_string(), not.rule, "not-evaluated"));
        }
    }
    out
}

fn live(world: &World) -> Unmet {
    let mut out = Unmet::new();
    for (subject, verdict) in world.verdicts() {
        let unmet = |f: &&crate::policy::Finding| {
            f.state != State::Resolved && !f.is_error() && f.severity > crate::policy::Severity::Info
        };
        out.extend(verdict.findings.iter().filter(unmet).map(|f| (subject.to_string(), f.rule)));
    }
    out
}

fn play(
    suite: &Suite,
    steps: &[Step],
    mut after: impl FnMut(&World, &Step) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let case = &suite.cases[0];
    let mut now: Timestamp = case.start;
    let mut world = World::new(suite.repository.clone(), suite.catalogue.clone(), case.policies.clone(), now, true);
    world.judge_all(Origin::Audit);
    let mut told: Vec<Event> = Vec::new();
    for step in steps {
        now = now.checked_add(SignedDuration::from_secs(1)).unwrap();
        world.pass_time(now);
        let digest = |n: &usize| suite.catalogue.names[MANIFESTS[*n]].clone();
        let (events, at_once) = match step {
            Step::Push { tag: t, manifest, told } => {
                let digest = digest(manifest);
                world.registry.push(&digest);
                world.registry.tags.insert(tag(*t), digest.clone());
                (vec![Event::Push { tag: tag(*t), digest, at: now }], *told)
            }
            Step::PushByDigest(manifest) => {
                let digest = digest(manifest);
                world.registry.push(&digest);
                (vec![Event::PushByDigest(digest)], true)
            }
            Step::Untag { tag: t, told } => {
                world.registry.tags.remove(&tag(*t));
                (vec![Event::Untag { tag: tag(*t), at: now }], *told)
            }
            Step::Delete { manifest, told } => {
                let digest = digest(manifest);
                world.registry.delete(&digest);
                (vec![Event::Delete { digest, at: now }], *told)
            }
            Step::Deliver(index) => {
                if told.is_empty() {
                    (Vec::new(), true)
                } else {
                    (vec![told[index.index(told.len())].clone()], true)
                }
            }
            Step::Wait(seconds) => {
                now = now.checked_add(SignedDuration::from_secs(*seconds)).unwrap();
                world.pass_time(now);
                (Vec::new(), true)
            }
            Step::Audit => {
                world.audit();
                (Vec::new(), true)
            }
        };
        if at_once {
            world.deliver(&events);
        }
        told.extend(events);
        after(&world, step)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn judging_what_is_concerned_is_judging_everything(steps in proptest::collection::vec(step(), 1..25)) {
        play(&SUITE, &steps, |world, step| {
            let mut scratch = world.clone();
            scratch.forget_verdicts();
            scratch.judge_all(Origin::Audit);
            prop_assert_eq!(from_verdicts(world), from_verdicts(&scratch), "verdicts after {:?}", step);
            prop_assert_eq!(from_violations(world), live(&scratch), "violations after {:?}", step);
            Ok(())
        })?;
    }

    #[test]
    fn every_state_is_announced_once(steps in proptest::collection::vec(step(), 1..25)) {
        play(&SUITE, &steps, |world, _| {
            let mut fired = BTreeSet::new();
            for (key, edge) in &world.announced {
                let first = match edge {
                    crate::policy::violation::Edge::Fired => fired.insert(key.clone()),
                    crate::policy::violation::Edge::Resolved => fired.remove(key),
                };
                prop_assert!(first, "{:?} of {:?} twice", edge, key);
            }
            Ok(())
        })?;
    }
}

#[test]
fn names_are_checked_before_anything_is_judged() {
    let text = r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicyTest
metadata: {name: slips}
spec:
  repository: registry.example/app
  manifests:
    one: {index: [{manifest: two}]}
    loop: {index: [{manifest: loop}]}
  cases: [{name: none, steps: [{at: +1s}]}]
---
apiVersion: tidewaiter.dev/v1
kind: TagPolicyTest
metadata: {name: slips-too}
spec:
  repository: registry.example/app
  manifests: {one: {image: linux/amd64}}
  cases:
    - name: slips
      steps:
        - at: 2026-02-01
          push: {1.0.0: won}
        - at: 2026-01-01
          registry: {wan: "503"}
          expect:
            1.0.1: pass
            1.0.0: {class: versoin, platforms: {state: firing, reason: mising-platform}}
            class:rolling: pass
---
apiVersion: tidewaiter.dev/v1
kind: TagPolicyTest
metadata: {name: elsewhere}
spec:
  repository: registry.example/other
  cases: [{name: none, steps: [{at: +1s}]}]
"#;
    let policies = documents(&Source::new("policy.yaml", TEXT)).unwrap();
    let tests = documents(&Source::new("slips.yaml", text)).unwrap_or_else(|f| panic!("{}", render(&f, false)));
    let faults = run(&tests, &policies, &|_: &Source, _: &str| Err(String::new())).unwrap_err();
    let told: Vec<String> =
        faults.iter().map(|f| format!("{}:{} {}", f.position().line, f.position().column, f.code)).collect();
    assert_eq!(
        told,
        [
            "8:30 unknown-manifest",
            "9:31 manifest-cycle",
            "22:25 unknown-manifest",
            "23:15 time-runs-back",
            "24:22 unknown-manifest",
            "26:13 unknown-tag",
            "27:28 unknown-class",
            "27:72 unknown-reason",
            "28:13 unknown-class",
            "34:15 ungoverned-repository",
        ]
    );
}
