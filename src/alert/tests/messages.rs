//! What an alert is, and whom it goes to.

use super::super::message::{Alert, SinkInfo, alerts_about_self, alerts_for, fingerprint};
use super::super::topic::Topic;
use super::*;

fn sinks() -> Vec<SinkInfo> {
    vec![
        SinkInfo { name: "all".into(), severities: Severity::ALL.to_vec() },
        SinkInfo { name: "worst".into(), severities: vec![Severity::Critical] },
    ]
}

#[test]
fn each_edge_goes_to_each_sink_that_takes_its_severity() {
    let mut warning = violation("2");
    warning.severity = Severity::Warning;
    let mut preview = violation("3");
    preview.preview = true;
    let gone = resolved(violation("4"), "2026-11-22T13:00:00Z");
    let changes = [
        change(violation("1"), &[Edge::Fired]),
        change(warning, &[Edge::Fired]),
        change(preview, &[Edge::Fired]),
        change(gone, &[Edge::Fired, Edge::Resolved]),
        change(violation("5"), &[]),
    ];
    let told: Vec<(String, String)> = alerts_for(&changes, &repository(), &sinks())
        .iter()
        .map(|a| (a.sink.to_string(), Alert::from_json(&a.body).unwrap().title()))
        .collect();
    let expected = [
        ("all", "Tag moved: iot/sensor:1"),
        ("worst", "Tag moved: iot/sensor:1"),
        ("all", "Tag moved: iot/sensor:2"),
        ("all", "Tag moved: iot/sensor:4"),
        ("worst", "Tag moved: iot/sensor:4"),
        ("all", "Resolved: tag moved: iot/sensor:4"),
        ("worst", "Resolved: tag moved: iot/sensor:4"),
    ];
    assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn the_outbox_gives_back_what_was_put_in() {
    let mut tagless = violation("1");
    tagless.key.tag = None;
    tagless.digest = None;
    for alert in [
        Alert::of(&repository(), &violation("1.2.3"), Edge::Fired),
        Alert::of(&repository(), &resolved(violation("1.2.3"), "2026-11-22T13:00:00Z"), Edge::Resolved),
        Alert::of(&repository(), &tagless, Edge::Fired),
        Alert::about_self(Topic::HookSilent, "contoso-acr", "nothing for 6 h", at("2026-11-22T13:00:00Z")),
        Alert::test(at("2026-11-22T13:00:00Z")),
    ] {
        let stored = alert.for_sink(&"x".into());
        assert_eq!(stored.key, alert.id);
        assert_eq!(Alert::from_json(&stored.body).unwrap(), alert);
    }
    assert!(Alert::from_json("{}").is_err() && Alert::from_json("").is_err());
}

#[test]
fn the_fingerprint_is_of_what_is_violated_and_the_key_of_the_edge() {
    let fired = Alert::of(&repository(), &violation("1.2.3"), Edge::Fired);
    let mut later = resolved(violation("1.2.3"), "2026-11-22T13:00:00Z");
    later.digest = None;
    later.reason = Reason::Restored;
    later.severity = Severity::Warning;
    let gone = Alert::of(&repository(), &later, Edge::Resolved);
    assert_eq!(fired.fingerprint, gone.fingerprint);
    assert_ne!(fired.id, gone.id);
    assert_eq!(fired.id, Alert::of(&repository(), &violation("1.2.3"), Edge::Fired).id);
    let mut again = violation("1.2.3");
    again.fired_at = Some(at("2026-11-23T12:00:00Z"));
    let again = Alert::of(&repository(), &again, Edge::Fired);
    assert_eq!(fired.fingerprint, again.fingerprint);
    assert_ne!(fired.id, again.id);
    assert!(fired.id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{}", fired.id);
}

#[test]
fn t55_no_choice_of_names_makes_fingerprints_collide() {
    let mut seen = std::collections::HashMap::new();
    for repository in ["a.io/b", "a.io/b/c", "a.io/b/c/d"] {
        for tag in [None, Some("c"), Some("c-d"), Some("d"), Some("c_d")] {
            for policy in ["", "p", "p/c", "c", "cp", "p:c", "p\0c"] {
                for class in ["", "p", "c", "c/p", "/", "\0c", "cp"] {
                    for rule in [Rule::Index, Rule::Immutable] {
                        let mut v = violation("x");
                        v.key = ViolationKey {
                            policy: policy.into(),
                            tag: tag.map(|t| t.parse().unwrap()),
                            class: class.into(),
                            rule,
                        };
                        let print = fingerprint(&repository.parse().unwrap(), &v);
                        let was = seen.insert(print, (repository, v.key.clone()));
                        assert_eq!(was, None, "{repository} {:?}", v.key);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_long_or_many_is_bounded() {
    let mut v = violation("1");
    v.message = "x\u{202e}".repeat(100_000);
    v.expected = vec!["y".repeat(100_000); 1000];
    let alert = Alert::of(&repository(), &v, Edge::Fired);
    assert!(alert.for_sink(&"x".into()).body.len() < 20_000);
    assert_eq!(alert.expected.last().unwrap(), "and 968 more");
}

#[test]
fn trouble_of_its_own_goes_to_the_other_sinks() {
    let alert = Alert::about_self(Topic::SinkParked, "worst", "refused", at("2026-11-22T13:00:00Z"));
    let told = alerts_about_self(&alert, &sinks(), Some("worst"));
    assert_eq!(told.iter().map(|a| &*a.sink).collect::<Vec<_>>(), ["all"]);
    assert_eq!(alerts_about_self(&alert, &sinks(), None).len(), 2);
    let over = alert.clone().resolved(at("2026-11-22T14:00:00Z"));
    assert_eq!((over.fingerprint == alert.fingerprint, over.id == alert.id), (true, false));
}
