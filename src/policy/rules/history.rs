//! Requirements about what the tag was before: `immutable`, `present`, `locked`.

use super::super::judge::{Case, Facts, Gather, Met};
use super::super::observation::{Fact, StoredManifest, TagRecord};
use super::super::reason::Reason;
use super::super::set::{Class, Setting};
use super::super::verdict::{Finding, Rule, State};
use crate::history::Period;
use crate::image::{Descriptor, Digest, Index};

/// `immutable`: the tag has pointed to one digest ever since it was first seen.
pub(in super::super) fn immutable<'a>(
    case: &mut Case<'a>,
    gather: &mut Gather<'a>,
    class: &Class,
    record: &'a TagRecord,
) -> Met {
    let Some((setting, rule)) = &class.require.immutable else { return Met::Yes };
    let Some(history) = &record.history else { return Met::Not("no record of this tag".to_owned()) };
    // By far the most tags: one digest, seen again and again.
    let sightings = history.sightings();
    if record.accepted.is_none()
        && let Some(first) = sightings.first().filter(|s| s.digest.is_some())
        && sightings.iter().all(|s| s.digest == first.digest)
    {
        return Met::Yes;
    }
    let mut periods: Vec<Period> = history.periods();
    if let Some((_, at)) = &record.accepted {
        periods.retain(|p| p.to.is_none_or(|to| to > *at));
    }
    if rule.forget_after_delete
        && let Some(gone) = periods.iter().rposition(|p| p.digest.is_none())
    {
        periods.drain(..=gone);
    }
    let present: Vec<&Period> = periods.iter().filter(|p| p.digest.is_some()).collect();
    let Some(first) = present.first() else { return Met::Yes };
    let accepted = record.accepted.as_ref().map(|(digest, _)| digest.clone());
    let (mut baseline, mut skip) = (accepted.clone().or_else(|| first.digest.clone()), 0);

    // The steps of one push: earlier digests that the index arriving last within the time lists.
    let mut settling_until = None;
    if let Some(settle) = rule.settle.filter(|_| accepted.is_none()) {
        let until = first.from.checked_add(settle).unwrap_or(jiff::Timestamp::MAX);
        let within = present.iter().take_while(|p| p.from <= until).count();
        if within > 1 {
            let last = present[within - 1].digest.clone();
            let Some(members) = last.as_ref().map(|d| listed(gather, d)) else { return Met::Yes };
            match members {
                None => return Met::Asked,
                Some(Err(cause)) => return case.undetermined(Rule::Immutable, cause),
                Some(Ok(members)) => {
                    let forgiven = present[..within - 1]
                        .iter()
                        .all(|p| p.digest.as_ref().is_some_and(|d| members.contains(d) || last.as_ref() == Some(d)));
                    if forgiven {
                        (baseline, skip) = (last, within - 1);
                    } else if case.observation.now < until {
                        settling_until = Some(until);
                    }
                }
            }
        }
    }
    let Some(baseline) = baseline else { return Met::Yes };
    let deviations: Vec<&&Period> = present[skip..].iter().filter(|p| p.digest.as_ref() != Some(&baseline)).collect();
    let Some(since) = deviations.first().map(|p| p.from) else { return Met::Yes };

    // A deleted tag is judged by what it pointed to last: to delete it does not undo the move.
    let current = record.current.as_ref().or_else(|| present.last().and_then(|p| p.digest.as_ref()));
    if current.is_none_or(|c| *c == baseline) {
        // Moved, and moved back before anybody looked: said once, and resolved at once.
        if history.moves() <= record.judged_moves {
            return Met::Yes;
        }
        let other =
            deviations.iter().filter_map(|p| p.digest.as_ref()).map(Digest::short).collect::<Vec<_>>().join(", ");
        let message = format!("the tag pointed to {other} for a while and points to {} again", baseline.short());
        let finding = case.finding(Rule::Immutable, Reason::Restored, setting, message);
        return case.found(Finding { state: State::Resolved, since, ..finding });
    }
    let Some(current) = current else { return Met::Yes };
    let (reason, what) = match difference(gather, &baseline, current) {
        None => return Met::Asked,
        Some(None) => return Met::Yes,
        Some(Some(difference)) => difference,
    };
    let recreated = periods.iter().any(|p| p.digest.is_none());
    let actor = present.iter().rev().find(|p| p.digest.as_ref() == Some(current)).and_then(|p| p.actor.clone());
    let message = format!(
        "{} from {} to {}{}{}",
        if recreated { "the tag was deleted and created again, going" } else { "the tag moved" },
        baseline.short(),
        current.short(),
        actor.map(|a| format!(", by {}", crate::document::quoted(&a))).unwrap_or_default(),
        if what.is_empty() { String::new() } else { format!(": {what}") },
    );
    let finding = case.finding(Rule::Immutable, reason, setting, message);
    let wait = settling_until.map_or(finding.wait, |until| until.duration_since(since).max(finding.wait));
    case.found(Finding {
        since,
        wait: if case.observation.recorded { wait } else { finding.wait },
        expected: vec![baseline.to_string()],
        actual: vec![current.to_string()],
        ..finding
    })
}

/// The digests that an index lists; empty for anything else.
fn listed<'a>(gather: &mut Gather<'a>, digest: &Digest) -> Option<Result<Vec<Digest>, &'a super::Cause>> {
    Some(match gather.manifest(digest)? {
        Fact::Undetermined(cause) => Err(cause),
        fact => Ok(known(fact)
            .and_then(index_of)
            .map(|i| i.entries.iter().map(|e| e.digest.clone()).collect())
            .unwrap_or_default()),
    })
}

fn known(fact: &Fact<std::sync::Arc<StoredManifest>>) -> Option<&StoredManifest> {
    match fact {
        Fact::Known(manifest) => Some(manifest),
        _ => None,
    }
}

fn index_of(manifest: &StoredManifest) -> Option<&Index> {
    manifest.parsed.as_ref().ok()?.index()
}

/// What differs between two digests: the reason, and in words. `Some(None)`: they name the same bytes by two
/// algorithms. `None`: a question was asked.
fn difference<'a>(gather: &mut Gather<'a>, old: &Digest, new: &Digest) -> Option<Option<(Reason, String)>> {
    // Both questions at once saves a round.
    let facts = (gather.manifest(old), gather.manifest(new));
    let (old_fact, new_fact) = (facts.0?, facts.1?);
    let (before, after) = (known(old_fact), known(new_fact));
    if let Some(after) = after
        && old.algorithm() != new.algorithm()
        && old.matches(&after.bytes)
    {
        return Some(None);
    }
    let moved = |text: String| Some(Some((Reason::TagMoved, text)));
    let (Some(before), Some(after)) = (before, after) else { return moved(String::new()) };
    match (index_of(before), index_of(after)) {
        (Some(a), Some(b)) => {
            let changed = changed_platforms(a, b);
            if changed.is_empty() {
                let attestations = |i: &Index| {
                    i.entries.iter().filter(|e| !is_platform(e)).map(|e| e.digest.clone()).collect::<Vec<_>>()
                };
                let reason = if attestations(a) == attestations(b) {
                    Reason::IndexMetadataOnly
                } else {
                    Reason::AttestationOnly
                };
                let what = match reason {
                    Reason::AttestationOnly => "only attestations differ",
                    _ => "the same images in another order or with other annotations",
                };
                return Some(Some((reason, what.to_owned())));
            }
            if same_content(gather, a, b)? {
                return Some(Some((Reason::EnvelopeOnly, "the same content in another envelope".to_owned())));
            }
            moved(changed.join(", "))
        }
        (None, Some(b)) if b.entries.iter().any(|e| e.digest == *old) => {
            Some(Some((Reason::Wrapped, "from one image to an index that contains it".to_owned())))
        }
        (None, None) => {
            let configs = [before, after]
                .map(|m| m.parsed.as_ref().ok().and_then(|m| m.single()).map(|s| s.config.digest.clone()));
            let [Some(a), Some(b)] = configs else { return moved(String::new()) };
            if same_layers(gather, &a, &b)? {
                return Some(Some((Reason::EnvelopeOnly, "the same content in another envelope".to_owned())));
            }
            moved(String::new())
        }
        (Some(_), None) => moved("from an index to one image".to_owned()),
        (None, Some(_)) => moved("from one image to an index".to_owned()),
    }
}

fn is_platform(entry: &Descriptor) -> bool {
    !entry.is_attestation() && !entry.is_unselectable_placeholder()
}

fn name_of(entry: &Descriptor) -> String {
    entry.platform().map_or_else(|| entry.digest.short().to_owned(), |p| p.to_string())
}

/// Which platforms changed, came or went; order and repetition aside.
fn changed_platforms(a: &Index, b: &Index) -> Vec<String> {
    let images = |i: &Index| -> Vec<(String, Digest)> {
        let mut images: Vec<_> =
            i.entries.iter().filter(|e| is_platform(e)).map(|e| (name_of(e), e.digest.clone())).collect();
        images.sort();
        images.dedup();
        images
    };
    let (old, new) = (images(a), images(b));
    let mut out = Vec::new();
    for (name, digest) in &new {
        if !old.contains(&(name.clone(), digest.clone())) {
            let was_there = old.iter().any(|(n, _)| n == name);
            out.push(format!("{name} {}", if was_there { "changed" } else { "added" }));
        }
    }
    out.extend(
        old.iter().filter(|(name, _)| !new.iter().any(|(n, _)| n == name)).map(|(name, _)| format!("{name} removed")),
    );
    out.dedup();
    out
}

/// Whether two indexes have, platform by platform, images of one content in different envelopes.
fn same_content<'a>(gather: &mut Gather<'a>, a: &Index, b: &Index) -> Option<bool> {
    let entries = |i: &Index| i.entries.iter().filter(|e| is_platform(e)).cloned().collect::<Vec<_>>();
    let (old, new) = (entries(a), entries(b));
    if old.len() != new.len() {
        return Some(false);
    }
    let mut asked = false;
    for entry in &new {
        let Some(other) = old.iter().find(|o| name_of(o) == name_of(entry)) else { return Some(false) };
        let facts = (gather.manifest(&other.digest), gather.manifest(&entry.digest));
        let (Some(x), Some(y)) = facts else {
            asked = true;
            continue;
        };
        let configs =
            [&x, &y].map(|f| known(f).and_then(|m| m.parsed.as_ref().ok()?.single()).map(|s| s.config.digest.clone()));
        let [Some(x), Some(y)] = configs else { return Some(false) };
        match same_layers(gather, &x, &y) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => asked = true,
        }
    }
    if asked { None } else { Some(true) }
}

/// Whether two configs are one, or unpack to the same layers and run the same.
fn same_layers<'a>(gather: &mut Gather<'a>, a: &Digest, b: &Digest) -> Option<bool> {
    if a == b {
        return Some(true);
    }
    let facts = (gather.config(a), gather.config(b));
    let layers = |fact: &Fact<std::sync::Arc<super::super::observation::StoredConfig>>| match fact {
        Fact::Known(config) => config
            .parsed
            .as_ref()
            .ok()
            .map(|c| (c.platform().cloned(), c.diff_ids.clone(), execution(&config.bytes)))
            .filter(|(_, l, e)| !l.is_empty() && e.is_some()),
        _ => None,
    };
    let (x, y) = (layers(facts.0?), layers(facts.1?));
    Some(x.is_some() && x == y)
}

/// What a container of an image runs as (image-spec, config.md, `config`), without what is empty: converters leave that
/// out or write it. `None` where it is no object.
fn execution(config: &[u8]) -> Option<serde_json::Map<String, serde_json::Value>> {
    use serde_json::Value;
    const FIELDS: [&str; 10] = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Healthcheck",
    ];
    let mut whole: serde_json::Map<String, Value> = serde_json::from_slice(config).ok()?;
    let mut fields = match whole.remove("config") {
        None | Some(Value::Null) => serde_json::Map::new(),
        Some(Value::Object(fields)) => fields,
        Some(_) => return None,
    };
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    fields.retain(|name, value| FIELDS.contains(&name.as_str()) && says(value));
    Some(fields)
}

/// `present`: a tag once seen is still there.
pub(in super::super) fn present(case: &mut Case<'_>, setting: &Setting, record: &TagRecord) -> Met {
    let Some(history) = &record.history else { return Met::Not("no record of this tag".to_owned()) };
    if record.current.is_some() {
        return Met::Yes;
    }
    let periods = history.periods();
    let Some(last) = periods.iter().rev().find(|p| p.digest.is_some()) else { return Met::Yes };
    let digest = last.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    let finding =
        case.finding(Rule::Present, Reason::Vanished, setting, format!("the tag pointed to {digest} and is gone"));
    case.found(Finding { since: last.to.unwrap_or(case.observation.now), expected: vec![digest], ..finding })
}

/// `locked`: the registry's own write lock is set on tag and manifest.
pub(super) fn locked<'a>(case: &mut Case<'a>, gather: &mut Gather<'a>, setting: &Setting, facts: &Facts<'a>) -> Met {
    let Some(fact) = gather.locked(facts.tag, facts.digest) else { return Met::Asked };
    match fact {
        Fact::Known(true) => Met::Yes,
        Fact::Known(false) => {
            let finding = case.finding(
                Rule::Locked,
                Reason::Unlocked,
                setting,
                "the tag or its manifest can be overwritten".to_owned(),
            );
            case.found(finding)
        }
        Fact::Absent => Met::Not("the registry has no write locks, or does not say".to_owned()),
        Fact::Undetermined(cause) => case.undetermined(Rule::Locked, cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_otherwise_is_not_the_same_in_another_envelope() {
        let runs = |config: &str| execution(format!(r#"{{"os": "linux", "config": {config}}}"#).as_bytes());
        let good = runs(r#"{"Entrypoint": ["/bin/good"], "Env": ["A=1"]}"#).unwrap();
        // What converters add, leave out or reorder.
        let converted =
            runs(r#"{"Env": ["A=1"], "User": "", "Volumes": null, "Image": "x", "Entrypoint": ["/bin/good"]}"#);
        assert_eq!(converted.as_ref(), Some(&good));
        for other in [
            r#"{"Entrypoint": ["/bin/evil"], "Env": ["A=1"]}"#,
            r#"{"Entrypoint": ["/bin/good"], "Env": ["A=1"], "User": "0"}"#,
            r#"{"Entrypoint": ["/bin/good"], "Env": ["A=1"], "Cmd": ["x"]}"#,
            r#"{"Entrypoint": ["/bin/good"]}"#,
        ] {
            assert_ne!(runs(other).as_ref(), Some(&good), "{other}");
        }
        assert!(runs("[]").is_none() && execution(b"{}").unwrap().is_empty());
    }
}
