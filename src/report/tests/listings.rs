//! The listings of the record: violations, history, events.

use serde_json::Value;

use super::fixtures::*;
use super::*;
use crate::event::Action;
use crate::history::{Known, Origin, Period};
use crate::policy::violation::{Violation, ViolationKey};
use crate::policy::{Rule, State};
use crate::store::{EventRow, ViolationRow};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn violations() -> Vec<ViolationRow> {
    let violation = Violation {
        key: ViolationKey {
            policy: "iot-edge-module".into(),
            tag: Some("1.0.1".parse().unwrap()),
            class: "version".into(),
            rule: Rule::Platforms,
        },
        reason: Reason::MissingPlatform,
        severity: Severity::Critical,
        state: State::Firing,
        digest: Some(digest("9f3c1e04aa6b")),
        message: "linux/arm/v7 is required by platform set iot-edge-tier1 and is not in the index".into(),
        advice: "Publish 1.0.2 with linux/arm/v7.".into(),
        expected: vec!["linux/arm/v7".into()],
        actual: vec![],
        since: now(),
        fires_at: None,
        fired_at: Some(now()),
        resolved_at: None,
        preview: false,
    };
    let pending = Violation {
        key: ViolationKey { tag: None, class: "rolling".into(), rule: Rule::Expected, ..violation.key.clone() },
        reason: Reason::ExpectedMissing,
        severity: Severity::Warning,
        state: State::Pending,
        digest: None,
        message: "the repository has no tag of class rolling".into(),
        fires_at: "2026-11-22T10:15:00Z".parse().ok(),
        fired_at: None,
        preview: true,
        ..violation.clone()
    };
    let resolved = Violation {
        state: State::Resolved,
        message: HOSTILE[0].into(),
        resolved_at: "2026-11-22T11:00:00.25Z".parse().ok(),
        ..violation.clone()
    };
    [violation, pending, resolved].map(|violation| ViolationRow { repository: repository(), violation }).to_vec()
}

fn periods() -> Vec<Period> {
    let first = Period {
        digest: Some(digest("9f3c1e04aa6b")),
        from: "2026-11-20T09:00:00Z".parse().unwrap(),
        to: "2026-11-21T09:00:00Z".parse().ok(),
        known: Known::Observed,
        origin: Origin::Event,
        actor: Some("build@contoso\u{202e}".into()),
    };
    let gone = Period { digest: None, from: first.to.unwrap(), to: Some(now()), actor: None, ..first.clone() };
    let last = Period {
        digest: Some(digest("00c4a7")),
        from: now(),
        to: None,
        known: Known::Reported,
        origin: Origin::Audit,
        actor: None,
    };
    vec![first, gone, last]
}

fn events() -> Vec<EventRow> {
    let judged = EventRow {
        number: 7,
        id: Some("cb8c3971-9adc-488b-xxxx-43cbb4974ff5".into()),
        source: "contoso-acr".into(),
        unauthenticated: false,
        received_at: now(),
        action: Action::Push,
        repository: repository(),
        tag: Some("1.0.1".parse().unwrap()),
        digest: Some(digest("9f3c1e04aa6b")),
        state: "judged".into(),
        fault: None,
    };
    let retrying = EventRow {
        number: 8,
        id: Some(HOSTILE[3].into()),
        unauthenticated: true,
        tag: None,
        digest: None,
        action: Action::Delete,
        state: "retrying".into(),
        fault: Some(HOSTILE[6].into()),
        ..judged.clone()
    };
    vec![retrying, judged]
}

#[test]
fn listings_have_the_published_fields() {
    let violation = violation_json(&violations()[0]);
    let published = [
        "policy",
        "class",
        "requirement",
        "reason",
        "severity",
        "state",
        "registry",
        "repository",
        "tag",
        "digest",
        "message",
        "expected",
        "actual",
        "since",
        "firedAt",
        "resolvedAt",
    ];
    assert_eq!(keys(&violation)[..published.len()], published);
    assert_eq!(violation["firedAt"], "2026-11-22T10:00:00Z");
    assert_eq!(violation["resolvedAt"], Value::Null);
    let period = history_json(&periods()[1]);
    assert_eq!(keys(&period), ["digest", "from", "to", "known", "origin", "actor"]);
    assert_eq!(period["digest"], Value::Null);
    let event = event_json(&events()[1]);
    let published = ["id", "source", "receivedAt", "action", "registry", "repository", "tag", "digest", "state"];
    assert_eq!(keys(&event), published);
    let listing = listing_json("events", vec![event], Some("c"));
    assert_eq!(keys(&listing), ["events", "next"]);
}

#[test]
fn listings_as_the_golden_files_say() {
    let options = Options::default();
    golden("violations.txt", &violations_text(&violations(), &options));
    golden("violations-60.txt", &violations_text(&violations(), &plain(60)));
    golden("history.txt", &history_text("contoso.azurecr.io/iot/sensor:1.0.1", &periods(), &options));
    golden("events.txt", &events_text(&events(), &options));
    assert_eq!(violations_text(&[], &options), "no violations\n");
    assert_eq!(events_text(&[], &options), "no events\n");
    assert_eq!(history_text("a.io/b:1", &[], &options), "a.io/b:1: no record\n");
}

#[test]
fn t61_one_event_is_one_line() {
    for row in events() {
        let line = event_line(&row, &Options::default());
        assert_eq!(line.lines().count(), 1);
        assert!(!line.trim_end_matches('\n').chars().any(char::is_control));
    }
}
