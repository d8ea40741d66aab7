//! Every payload under `tests/data/events` is understood as its folder's `expected.json` says, and hostile
//! ones are understood as nothing, by every format.

#[path = "fuzz/mutate.rs"]
mod mutate;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidewaiter::event::{Format, FormatError, Headers, Parsed, Request, describe};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A captured request: the body, empty where there is none, and its headers.
struct Sample {
    name: String,
    format: Format,
    headers: String,
    body: Vec<u8>,
}

impl Sample {
    fn load(format: Format, name: &str) -> Sample {
        let at = data().join(format.as_str());
        Sample {
            name: format!("{format}/{name}"),
            format,
            headers: read(&at.join(format!("{name}.http-headers"))),
            body: fs::read(at.join(format!("{name}.json"))).unwrap_or_default(),
        }
    }

    fn parse(&self) -> Result<Parsed, FormatError> {
        self.parse_as(self.format, &self.body)
    }

    fn parse_as(&self, format: Format, body: &[u8]) -> Result<Parsed, FormatError> {
        let headers = Headers::from_lines(&self.headers).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        format.parse(&Request { method: headers.method(), headers: &headers, body })
    }
}

/// The names of the samples in a format's folder, from its header files: each sample has one.
fn names(format: Format) -> Vec<String> {
    let folder = data().join(format.as_str());
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| Some(file.strip_suffix(".http-headers")?.to_owned()))
        .collect();
    names.sort();
    names
}

fn samples() -> Vec<Sample> {
    Format::ALL.iter().flat_map(|f| names(*f).into_iter().map(|name| Sample::load(*f, &name))).collect()
}

/// Each folder's samples and its `expected.json` name each other, and each sample is understood as expected.
#[test]
fn samples_are_understood_as_expected() {
    let mut faults = Vec::new();
    for format in Format::ALL {
        let expected: serde_json::Map<String, Value> =
            serde_json::from_str(&read(&data().join(format.as_str()).join("expected.json"))).unwrap();
        let names = names(*format);
        assert!(!names.is_empty(), "{format} has no samples");
        let mut listed: Vec<_> = expected.keys().cloned().collect();
        listed.sort();
        assert_eq!(listed, names, "{format}: the samples and expected.json differ");
        for (name, expected) in &expected {
            let sample = Sample::load(*format, name);
            let found = match sample.parse() {
                Ok(parsed) => describe(&parsed),
                Err(error) => json!({ "error": error.to_string() }),
            };
            if found != *expected {
                faults.push(format!("{}\n  expected {expected}\n  found    {found}", sample.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The values of one field of the events of a payload.
fn values(parsed: &Parsed) -> Vec<Value> {
    let described = describe(parsed);
    let events = described["events"].as_array().into_iter().flatten();
    events.flat_map(|event| event.as_object().into_iter().flat_map(|fields| fields.values().cloned())).collect()
}

/// Whether `found` says nothing that the genuine payload did not say.
fn says_nothing_new(found: &Parsed, genuine: &Parsed) -> bool {
    let known = values(genuine);
    values(found).iter().all(|value| value.is_null() || known.contains(value))
}

/// What a place in a JSON document becomes.
enum Change<'a> {
    Replace(&'a Value),
    /// The member comes twice, first with this value.
    Repeat(&'a Value),
    /// The key in the other case.
    OtherCase,
}

/// `value` as JSON text with the `nth` member of its objects changed. Counts `nth` down as it goes.
fn render(value: &Value, nth: &mut usize, change: &Change<'_>, out: &mut String) {
    match value {
        Value::Object(members) => {
            out.push('{');
            for (n, (key, value)) in members.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                let here = *nth == 0;
                *nth = nth.wrapping_sub(1);
                let quoted = json!(key).to_string();
                match (here, change) {
                    (true, Change::Replace(new)) => out.push_str(&format!("{quoted}:{new}")),
                    (true, Change::Repeat(new)) => out.push_str(&format!("{quoted}:{new},{quoted}:{value}")),
                    (true, Change::OtherCase) => {
                        let other: String = key
                            .chars()
                            .map(|c| if c.is_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
                            .collect();
                        out.push_str(&format!("{}:{value}", json!(other)));
                    }
                    (false, _) => {
                        out.push_str(&quoted);
                        out.push(':');
                        render(value, nth, change, out);
                    }
                }
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                render(item, nth, change, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// The samples with a JSON body, parsed both ways.
fn bodies() -> Vec<(Sample, Value, Parsed)> {
    samples()
        .into_iter()
        .filter_map(|sample| {
            let value: Value = serde_json::from_slice(&sample.body).ok()?;
            let parsed = sample.parse().ok()?;
            Some((sample, value, parsed))
        })
        .collect()
}

/// The keys of a document, in order.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(members) => members.iter().map(|(key, value)| format!("{key}{{{}}}", shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        _ => String::new(),
    }
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.len() + members.values().map(self::members).sum::<usize>(),
        Value::Array(items) => items.iter().map(members).sum(),
        _ => 0,
    }
}

/// Every member of every sample changed in every way: whatever is understood was in the genuine payload.
fn change_everything(
    what: &str,
    changes: &[Change<'_>],
    check: impl Fn(&Result<Parsed, FormatError>, &Parsed) -> bool,
) {
    let mut shapes = HashSet::new();
    for (sample, value, genuine) in bodies() {
        // Made samples are changed already; of those with the same keys one is enough.
        if sample.name.contains("/made-") || !shapes.insert((sample.format, genuine.events.len(), shape(&value))) {
            continue;
        }
        // A retention run writes NAME:TAG in one field, where `sha256:zz` is a tag of the repository `sha256`.
        if sample.name == "harbor/tag_retention" && what == "hostile names" {
            continue;
        }
        for nth in 0..members(&value) {
            // What no text changes is not read, and one text is enough to see it.
            let mut probe = String::new();
            render(&value, &mut { nth }, &Change::Replace(&json!("!")), &mut probe);
            let unread = sample.parse_as(sample.format, probe.as_bytes()).is_ok_and(|found| found == genuine);
            for change in if unread { &changes[..1] } else { changes } {
                let mut text = String::new();
                render(&value, &mut { nth }, change, &mut text);
                let found = sample.parse_as(sample.format, text.as_bytes());
                assert!(check(&found, &genuine), "{what}: {}: {text:.600}: {found:?}", sample.name);
            }
        }
    }
}

#[test]
fn t17_t18_t21_hostile_names_become_no_event() {
    let mut strings: Vec<Value> = serde_json::from_str(&read(&data().join("hostile/strings.json"))).unwrap();
    strings.push(json!("a/".repeat(4000)));
    strings.push(json!("é".repeat(9000)));
    // Of an address the path is dropped, so those with a slash may name another host. It is only compared.
    let (paths, strings): (Vec<_>, Vec<_>) =
        strings.iter().partition(|text| text.as_str().is_some_and(|text| text.contains('/')));
    let changes: Vec<_> = strings.into_iter().map(Change::Replace).collect();
    change_everything("hostile names", &changes, |found, genuine| match found {
        Ok(found) => says_nothing_new(found, genuine),
        Err(_) => true,
    });
    let changes: Vec<_> = paths.into_iter().map(Change::Replace).collect();
    change_everything("hostile paths", &changes, |found, genuine| match found {
        Ok(found) => {
            let mut found = found.clone();
            found.events.iter_mut().for_each(|event| event.registry = None);
            says_nothing_new(&found, genuine)
        }
        Err(_) => true,
    });
}

#[test]
fn t07_wrong_types_become_no_event() {
    let values = [
        json!(null),
        json!(0),
        json!(-1.5e300),
        json!(true),
        json!([]),
        json!({}),
        json!([["x"]]),
        json!({"a": {"b": []}}),
    ];
    let changes: Vec<_> = values.iter().map(Change::Replace).collect();
    change_everything("wrong types", &changes, |found, genuine| match found {
        Ok(found) => says_nothing_new(found, genuine),
        Err(_) => true,
    });
}

#[test]
fn t07_repeated_keys_and_keys_in_another_case_change_no_meaning() {
    let values = [json!("evil"), json!({"repository": "evil", "tag": "evil"}), json!([{"repository": "evil"}])];
    let changes: Vec<_> = values.iter().map(Change::Repeat).collect();
    change_everything("repeated keys", &changes, |found, genuine| match found {
        Ok(found) => found.events.iter().all(|event| genuine.events.contains(event)),
        Err(_) => true,
    });
    change_everything("another case", &[Change::OtherCase], |found, genuine| match found {
        Ok(found) => says_nothing_new(found, genuine),
        Err(_) => true,
    });
}

/// No format takes a body that was cut off, and none finds an event in a body that is not JSON.
#[test]
fn t06_t07_cut_bombed_and_garbled_bodies_are_refused_by_every_format() {
    for (sample, ..) in bodies() {
        let body = sample.body.trim_ascii();
        for length in (0..body.len()).step_by(13) {
            let found = sample.parse_as(sample.format, &body[..length]);
            assert!(found.is_err(), "{} cut at {length}: {found:?}", sample.name);
        }
    }
    let deep = |open: &str, n: usize| open.repeat(n).into_bytes();
    let bombs: Vec<Vec<u8>> = vec![
        Vec::new(),
        b" ".repeat(4096),
        deep("[", 1_000_000),
        deep("[", 256 * 1024),
        deep("{\"a\":", 100_000),
        deep("{\"events\":[", 100_000),
        b"1e999999".to_vec(),
        b"null".to_vec(),
        b"\"events\"".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{\"action\":\"\xff\"}".to_vec(),
        b"{\"action\":\"\xc0\xaf\"}".to_vec(),
        b"{\"action\":\"\xed\xa0\x80\"}".to_vec(),
        b"{\"action\":\"push\0\"}".to_vec(),
        b"{\"action\":push}".to_vec(),
        b"{\"action\":NaN}".to_vec(),
        b"{\"action\":\"push\",}".to_vec(),
        b"{}{}".to_vec(),
        b"{} x".to_vec(),
        b"// {}\n{}".to_vec(),
        b"<event/>".to_vec(),
        b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
        format!("{{\"events\":[{}]}}", vec!["{}"; 100_000].join(",")).into_bytes(),
        format!("{{{}}}", (0..20_000).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",")).into_bytes(),
        format!("{{\"x\":\"{}\"}}", "x".repeat(200_000)).into_bytes(),
    ];
    for sample in samples() {
        for bomb in &bombs {
            let found = sample.parse_as(sample.format, bomb);
            let nothing = found.as_ref().is_ok_and(|p| p.events.is_empty());
            // What is of no interest by its headers alone is not read.
            assert!(
                found.is_err() || nothing && sample.parse().is_ok_and(|p| p.events.is_empty()),
                "{}: {found:?}",
                sample.name
            );
        }
    }
}

/// A payload of one sender, sent to the address of another, is never taken for an event of something else.
#[test]
fn t17_payloads_at_the_wrong_source_say_nothing_new() {
    for (sample, _, genuine) in bodies() {
        for format in Format::ALL {
            if let Ok(found) = sample.parse_as(*format, &sample.body) {
                let known = values(&genuine);
                let named = found.events.iter().all(|e| known.contains(&json!(e.repository.as_str())));
                assert!(named, "{} as {format}: {found:?}", sample.name);
            }
        }
    }
}

/// The short version of `tests/fuzz/run`.
#[test]
fn t08_a_thousand_changed_payloads_of_each_format_panic_nowhere() {
    for format in Format::ALL {
        let count = mutate::run(*format, &mutate::seeds(*format), 1_000, &mut mutate::Random::new(7));
        assert_eq!(count.inputs, 1_000);
        // Changes that leave nothing to read, or everything as it was, would prove little.
        assert!(count.refused > 100 && count.events > 10, "{format}: {count:?}");
    }
}

/// Bodies garbled at random, over every format. `PROPTEST_CASES` sets how many; a release runs 1,000,000.
mod fuzz {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::sync::OnceLock;

    use super::*;

    fn corpus() -> &'static [Sample] {
        static CORPUS: OnceLock<Vec<Sample>> = OnceLock::new();
        CORPUS.get_or_init(samples)
    }

    proptest! {
        #[test]
        fn t08_no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), headers in any::<Index>()) {
            let sample = headers.get(corpus());
            for format in Format::ALL {
                let _ = sample.parse_as(*format, &bytes);
            }
        }

        #[test]
        fn t08_no_mutation_panics(
            one in any::<Index>(),
            other in any::<Index>(),
            cut in any::<Index>(),
            splice in any::<Index>(),
            flips in prop::collection::vec((any::<Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:,0e-/@.\0".to_vec())]), 0..6),
        ) {
            let (sample, other) = (one.get(corpus()), other.get(corpus()));
            let mut body = sample.body.clone();
            if flips.len() % 2 == 1 && !body.is_empty() && !other.body.is_empty() {
                body.truncate(cut.index(body.len()));
                body.extend_from_slice(&other.body[splice.index(other.body.len())..]);
            }
            for (at, byte) in flips {
                if !body.is_empty() {
                    let at = at.index(body.len());
                    body[at] = byte;
                }
            }
            for format in [sample.format, other.format] {
                if let Ok(parsed) = sample.parse_as(format, &body) {
                    for event in &parsed.events {
                        prop_assert!(event.actor.as_deref().is_none_or(|a| !a.chars().any(char::is_control)));
                    }
                }
            }
        }
    }
}

/// What the published shape leaves out: the sender's id, the time, the actor, and whether it has happened yet.
#[test]
fn ids_times_actors_and_stages_are_read() {
    use tidewaiter::event::Stage::{self, Done, Intended};
    type Case = (Format, &'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>, Stage);
    let cases: &[Case] = &[
        (
            Format::Acr,
            "push",
            Some("6f0f9a1e-2f5b-4f86-9d0e-1a4b7c2d9e31"),
            Some("2026-02-11T09:24:13.104937442Z"),
            None,
            Done,
        ),
        (
            Format::EventGrid,
            "image-pushed.cloudevents",
            Some("831e1650-001e-001b-66ab-eeb76e069632"),
            Some("2026-02-11T09:24:15.276585742Z"),
            None,
            Done,
        ),
        (
            Format::Distribution,
            "delete-repository.v2",
            Some("a0d4f8b2-3c65-4e97-8f1a-2b7c9d0e5a58"),
            Some("2026-02-12T07:20:00.1Z"),
            Some("admin"),
            Done,
        ),
        (
            Format::Gitlab,
            "push-tag",
            Some("a582a0f3-e620-43e6-8e98-ff850fc9d985"),
            Some("2026-02-11T09:24:13.17327Z"),
            Some("release-bot"),
            Done,
        ),
        (Format::Harbor, "push_artifact", None, Some("2026-02-11T09:24:13Z"), Some("ci-bot"), Done),
        (
            Format::Harbor,
            "push_artifact.cloudevents",
            Some("4b2f89a6-548d-4c12-9993-a1f5790b97d3"),
            Some("2026-02-11T09:24:13Z"),
            Some("ci-bot"),
            Done,
        ),
        (Format::DockerHub, "push-float-times", None, Some("2026-02-11T09:24:13Z"), Some("contosobot"), Done),
        (Format::Quay, "repo_push", None, None, None, Done),
        (
            Format::Github,
            "package-published",
            Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            Some("2026-02-11T09:24:15Z"),
            Some("contoso-ci[bot]"),
            Done,
        ),
        (Format::Artifactory, "docker-pushed", None, None, Some("jfrog/ci-bot@contoso.example"), Done),
        (
            Format::Ecr,
            "sns-notification",
            Some("13cde686-328b-6117-af20-0e5566167483"),
            Some("2026-02-11T09:24:34Z"),
            None,
            Done,
        ),
        (
            Format::GoogleArtifactRegistry,
            "insert-tag",
            Some("11849302843671122"),
            Some("2026-02-11T09:24:16.113Z"),
            None,
            Done,
        ),
        (
            Format::GoogleArtifactRegistry,
            "insert-tag.unwrapped",
            Some("11849302843671125"),
            Some("2026-02-11T09:24:16.113Z"),
            None,
            Done,
        ),
        (
            Format::Zot,
            "image-updated",
            Some("0b6a1f7e-51c4-4d3a-9e28-7c5f0d2b8a41"),
            Some("2026-02-11T09:24:13.512345678Z"),
            Some("ci-bot"),
            Done,
        ),
        (
            Format::Gitea,
            "package-created",
            Some("f6266f16-1bf3-46a5-9ea4-602e06ead474"),
            Some("2026-02-11T09:24:13Z"),
            Some("ci-bot"),
            Done,
        ),
        (
            Format::Nexus,
            "component-created",
            Some("7c5d8e7a-0f4b-4a52-9d1c-3e6f2b8a0d15"),
            Some("2026-02-11T09:24:14.664Z"),
            Some("ci-bot/192.0.2.44"),
            Done,
        ),
        (Format::Alibaba, "push", None, None, None, Done),
        (
            Format::Angos,
            "manifest-push",
            Some("550e8400-e29b-41d4-a716-446655440001"),
            Some("2026-02-11T09:24:13.123456Z"),
            Some("ci-bot"),
            Intended,
        ),
        (
            Format::Angos,
            "manifest-delete",
            Some("550e8400-e29b-41d4-a716-446655440003"),
            Some("2026-02-11T09:24:13.123456Z"),
            Some("prune"),
            Intended,
        ),
    ];
    for (format, name, id, at, actor, stage) in cases {
        let parsed = Sample::load(*format, name).parse().unwrap();
        let event = &parsed.events[0];
        assert_eq!(event.id.as_deref(), *id, "{format}/{name}");
        assert_eq!(event.at.map(|at| at.to_string()).as_deref(), *at, "{format}/{name}");
        assert_eq!(event.actor.as_deref(), *actor, "{format}/{name}");
        assert_eq!(event.stage, *stage, "{format}/{name}");
    }
}

/// The subscription that waits for confirmation, which the published shape tells in words only.
#[test]
fn a_subscription_names_its_topic_and_address() {
    use tidewaiter::event::Handshake;
    let parsed = Sample::load(Format::Ecr, "sns-subscription-confirmation").parse().unwrap();
    let Some(Handshake::Confirm { topic, url }) = parsed.handshake else { panic!("{parsed:?}") };
    assert_eq!(topic, "arn:aws:sns:eu-west-1:123456789012:ecr-events");
    assert!(url.starts_with("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&"), "{url}");
}

#[test]
fn formats_have_the_published_names() {
    let names = "acr event-grid distribution harbor docker-hub quay github gitlab artifactory ecr \
                 google-artifact-registry zot gitea nexus alibaba angos msr";
    assert_eq!(
        Format::ALL.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
        names.split_whitespace().collect::<Vec<_>>()
    );
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(*format));
        let headers = Headers::default();
        for method in ["GET", "PUT", "post", ""] {
            let request = Request { method, headers: &headers, body: b"{}" };
            assert!(matches!(format.parse(&request), Err(FormatError::Method)), "{format} {method}");
        }
        assert!(format.accepts(None) && format.accepts(Some("application/json; charset=utf-8")));
        assert!(!format.accepts(Some("image/png")) && !format.accepts(Some("application/xml")));
    }
    let error = "ACR".parse::<Format>().unwrap_err().to_string();
    assert!(error.starts_with("`ACR` is not an event format: one of acr, event-grid,"), "{error}");
}
