//! Judging one push: against the same checks by hand, against the same policy in an interpreted language, and with
//! few and many tags on record.

use std::backtrace::BacktraceStatus;
use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;

use serde_json::{Value, json};
use tidewaiter::history::Origin;
use tidewaiter::image::{Content, Digest, Platform, Tag, suffix};
use tidewaiter::policy::{Outcome, affected, judge};

use crate::harness::{Figure, Goal, in_turns};
use crate::world::{World, policy};

const ROUNDS: usize = 31;

pub fn run() -> anyhow::Result<Vec<Figure>> {
    let set = policy()?;
    let world = World::new(&set);
    let changes = [world.push()];
    let observation = world.observation(&set, &changes);
    let ours = || {
        let (targets, _) = affected(&set, &observation, &changes);
        judge(&set, &observation, &targets, Origin::Event)
    };
    let verdicts = ours().verdicts;
    let bad: Vec<_> = verdicts.iter().filter(|v| v.outcome != Outcome::Pass).collect();
    anyhow::ensure!(bad.is_empty(), "the push is meant to pass: {bad:#?}");
    let judged = verdicts.iter().filter(|v| v.subject.tag.is_some()).count();

    let floor = || by_hand(&world, "1.0.10");
    let passed = floor();
    let subjects: Vec<&Tag> = verdicts.iter().filter_map(|v| v.subject.tag.as_ref()).collect();
    let same = passed.iter().all(|(tag, good)| *good && subjects.contains(&tag)) && passed.len() == judged;
    anyhow::ensure!(same, "by hand: {passed:?}; judged: {subjects:?}");

    let mut engine = regorus::Engine::new();
    engine.set_strict_builtin_errors(false);
    engine.add_policy("iot.rego".to_owned(), include_str!("iot-edge-module.rego").to_owned())?;
    engine.set_input(regorus::Value::from_json_str(&input(&world).to_string())?);
    let denied = engine.eval_rule("data.iot.deny".to_owned())?.to_json_str()?;
    anyhow::ensure!(denied.split_whitespace().collect::<String>() == "[]", "in Rego: {denied}");

    let pair = in_turns(ROUNDS, &mut || drop(black_box(ours())), &mut || drop(black_box(floor())));
    let by_hand = Figure::beside(
        "judging a push of ten platforms",
        "µs",
        &pair.scaled(1e6),
        "the same checks by hand",
        Goal::RatioAtMost(3.0),
    )
    .noted(&format!("{judged} tags judged, all pass"));
    let pair = in_turns(5, &mut || drop(black_box(ours())), &mut || {
        // A new input, as every push brings one: else what was evaluated before is not evaluated again.
        engine.set_input(regorus::Value::from_json_str(r#"{}"#).expect("JSON"));
        engine.set_input(black_box(rego_input(&world)));
        drop(black_box(engine.eval_rule("data.iot.deny".to_owned())));
    });
    let rego = Figure::beside(
        "judging a push of ten platforms",
        "µs",
        &pair.scaled(1e6),
        "the same policy in Rego (regorus)",
        Goal::RatioAtMost(0.01),
    )
    .noted("the goal is 100 times faster")
    .noted(backtraces());
    Ok(vec![by_hand, rego])
}

/// The policy in Rego finds out which tags are versions by what is no number, and each such error would record the stack.
fn backtraces() -> &'static str {
    match std::backtrace::Backtrace::capture().status() {
        BacktraceStatus::Captured => "RUST_BACKTRACE is set, so that the baseline looks twice as slow as it is",
        _ => "without backtraces, which would slow the baseline",
    }
}

fn rego_input(world: &World) -> regorus::Value {
    thread_local!(static INPUT: std::cell::OnceCell<regorus::Value> = const { std::cell::OnceCell::new() });
    INPUT.with(|cell| {
        cell.get_or_init(|| regorus::Value::from_json_str(&input(world).to_string()).expect("JSON")).clone()
    })
}

/// The observation as a document, parsed before anything is measured.
fn input(world: &World) -> Value {
    let json_of = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
    let tags: serde_json::Map<_, _> = world
        .tags
        .iter()
        .map(|(tag, record)| {
            let history: Vec<_> = record.history.iter().flat_map(|h| h.periods()).map(|p| text(&p.digest)).collect();
            (tag.to_string(), json!({"current": text(&record.current), "history": history}))
        })
        .collect();
    let manifests: serde_json::Map<_, _> =
        world.manifests.iter().map(|(d, m)| (d.to_string(), json_of(&m.bytes))).collect();
    let sizes: serde_json::Map<_, _> = world.manifests.iter().map(|(d, m)| (d.to_string(), json!(m.size))).collect();
    let configs: serde_json::Map<_, _> =
        world.configs.iter().map(|(d, c)| (d.to_string(), json_of(&c.bytes))).collect();
    json!({"pushed": "1.0.10", "tags": tags, "manifests": manifests, "sizes": sizes, "configs": configs})
}

fn text(digest: &Option<Digest>) -> Option<String> {
    digest.as_ref().map(ToString::to_string)
}

/// The floor: the checks of this one policy, for these tags, written out. No settings, no reasons, no messages,
/// nothing that is not known yet; it looks up the same content in the same maps.
fn by_hand(world: &World, pushed: &str) -> Vec<(Tag, bool)> {
    let mut seen = Seen::new();
    let mut judged = Vec::new();

    let version = version_of(pushed).expect("a version");
    let tag: Tag = pushed.parse().expect("a tag");
    let Some(digest) = world.tags.get(&tag).and_then(|r| r.current.as_ref()) else { return judged };
    let versions = world.tags.range::<Tag, _>(..).filter_map(|(t, r)| Some((version_of(t.as_str())?, t, r)));
    let (mut highest, mut before) = (None, None);
    for (number, tag, record) in versions {
        highest = highest.max(Some((number, tag, record.current.as_ref())));
        if number < version {
            before = before.max(Some((number, tag)));
        }
    }
    let highest = highest.and_then(|(_, _, digest)| digest);

    // The version: never moved, an index, whole, with all platforms, none fewer than before, each under a tag. The one
    // before it is judged by the platforms of its time from now on.
    let previous = before.map(|(number, ..)| number);
    judged.push((tag, good_version(world, pushed, &mut seen)));
    if let Some((major, minor, patch)) = previous {
        let name = format!("{major}.{minor}.{patch}");
        judged.push((name.parse().expect("a tag"), good_version(world, &name, &mut seen)));
    }
    let images = images(world, digest, &mut seen);
    let members = members(world, pushed);

    // What follows it.
    for name in ["latest", &format!("{}", version.0), &format!("{}.{}", version.0, version.1)] {
        let tag: Tag = name.parse().expect("a tag");
        let Some(current) = world.tags.get(&tag).and_then(|r| r.current.as_ref()) else { continue };
        let mut good = Some(current) == highest;
        if name == "latest" {
            let images = self::images(world, current, &mut seen);
            let platforms: Vec<&Platform> = images.iter().flatten().map(|(p, _)| *p).collect();
            good = good && covers(&platforms);
        }
        judged.push((tag, good));
    }

    // Its members: never moved, listed by it, and what their name says.
    for (tag, platform, current) in members {
        let listed = images.iter().flatten().find(|(_, image)| Some(*image) == current);
        let good = unmoved(world, tag) && listed.is_some_and(|(listed, _)| platform.agrees_with_prefix(listed));
        judged.push((tag.clone(), good));
    }
    judged
}

type Seen<'a> = HashMap<&'a Digest, Option<Vec<(&'a Platform, &'a Digest)>>>;

fn covers(platforms: &[&Platform]) -> bool {
    const REQUIRED: [(&str, &str, &str); 3] = [("linux", "amd64", ""), ("linux", "arm64", ""), ("linux", "arm", "v7")];
    REQUIRED.iter().all(|(os, architecture, variant)| {
        platforms
            .iter()
            .any(|p| p.os() == *os && p.architecture() == *architecture && p.variant().unwrap_or_default() == *variant)
    })
}

/// The tags of a version's images, with the platform that each names.
fn members<'a>(world: &'a World, version: &str) -> Vec<(&'a Tag, Platform, Option<&'a Digest>)> {
    let tag: Tag = version.parse().expect("a tag");
    world
        .tags
        .range::<Tag, _>(&tag..)
        .take_while(|(t, _)| t.as_str().starts_with(version))
        .filter_map(|(t, r)| {
            let ending = t.as_str()[version.len()..].strip_prefix('-')?;
            Some((t, suffix(ending)?, r.current.as_ref()))
        })
        .collect()
}

fn good_version<'a>(world: &'a World, name: &str, seen: &mut Seen<'a>) -> bool {
    let version = version_of(name).expect("a version");
    let tag: Tag = name.parse().expect("a tag");
    let Some(digest) = world.tags.get(&tag).and_then(|r| r.current.as_ref()) else { return false };
    let versions = world.tags.iter().filter_map(|(t, r)| Some((version_of(t.as_str())?, r.current.as_ref())));
    let before = versions.filter(|(number, _)| *number < version).max_by_key(|(number, _)| *number);
    let images = self::images(world, digest, seen);
    let platforms: Vec<&Platform> = images.iter().flatten().map(|(p, _)| *p).collect();
    let kept = before.and_then(|(_, digest)| digest).is_none_or(|digest| {
        self::images(world, digest, seen)
            .iter()
            .flatten()
            .all(|(platform, _)| platforms.iter().any(|p| platform.agrees_with(p)))
    });
    let members = members(world, name);
    let tagged = images.iter().flatten().all(|(platform, image)| {
        members.iter().any(|(_, p, current)| *current == Some(image) && p.agrees_with_prefix(platform))
    });
    unmoved(world, &tag) && covers(&platforms) && kept && tagged
}

fn version_of(tag: &str) -> Option<(u64, u64, u64)> {
    let number = |text: &str| {
        (text == "0" || !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    let mut parts = tag.split('.');
    let version = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    parts.next().is_none().then_some(version)
}

fn unmoved(world: &World, tag: &Tag) -> bool {
    world.tags.get(tag).is_some_and(|record| {
        let digests: BTreeSet<_> =
            record.history.iter().flat_map(|h| h.sightings()).filter_map(|s| s.digest.as_ref()).collect();
        digests.len() == 1 && digests.first().copied() == record.current.as_ref()
    })
}

/// The images of an index with their platforms; `None` where it is no index or not what it says. Each index is
/// looked at once, whoever asks.
fn images<'a>(world: &'a World, digest: &'a Digest, seen: &mut Seen<'a>) -> Option<Vec<(&'a Platform, &'a Digest)>> {
    if let Some(known) = seen.get(digest) {
        return known.clone();
    }
    let found = (|| {
        let index = world.manifests.get(digest)?.parsed.as_ref().ok()?.index()?;
        let mut found = Vec::with_capacity(index.entries.len());
        for entry in &index.entries {
            let manifest = world.manifests.get(&entry.digest)?;
            let Content::Single(single) = &manifest.parsed.as_ref().ok()?.content else { return None };
            let config = world.configs.get(&single.config.digest)?;
            let (stated, own) = (entry.platform()?, config.parsed.as_ref().ok()?.platform()?);
            if manifest.size != entry.size || config.size != single.config.size || !stated.agrees_with(own) {
                return None;
            }
            found.push((stated, &entry.digest));
        }
        Some(found)
    })();
    seen.insert(digest, found.clone());
    found
}
