//! Golden files: what each sink is sent. `TIDEWAITER_BLESS=1 cargo test` writes them anew; read the difference.

use std::path::PathBuf;

use serde_json::Value;

use super::super::message::Alert;
use super::super::summary::Summary;
use super::super::topic::Topic;
use super::super::{alertmanager, pagerduty, slack, teams, webhook};
use super::*;

/// Every body that every sink is sent for an alert.
pub fn bodies(alert: &Alert) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("alertmanager", alertmanager::body(std::slice::from_ref(alert), &links(), at("2026-11-22T12:01:00Z"))),
        ("slack", slack::body(alert, &links())),
        ("teams", teams::body(alert, &links())),
        ("pagerduty", pagerduty::body(alert, &"R0000000000000000000000000000000".into(), &links())),
        ("webhook", webhook::body(alert, "/tidewaiter/prod-eu")),
    ]
}

#[expect(clippy::disallowed_methods, reason = "the environment says whether golden files are written anew")]
fn check(name: &str, body: &[u8]) {
    let value: Value = serde_json::from_slice(body).unwrap();
    let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/alerts").join(format!("{name}.json"));
    if std::env::var_os("TIDEWAITER_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name}: `TIDEWAITER_BLESS=1 cargo test golden` writes it anew");
}

#[test]
fn golden_files_of_every_sink() {
    let hostile = |mut v: Violation| {
        v.message =
            "<!channel> [x](https://evil.example) *b* `c` {{DATE(2026-01-01,SHORT)}} \u{202e}txt.exe\r\nX: y".into();
        v.expected = vec!["<https://evil.example|ok>".into(), "`".into(), "a\u{200b}b".into()];
        v
    };
    let alerts = [
        ("fired", Alert::of(&repository(), &violation("1.2.3"), Edge::Fired)),
        ("resolved", Alert::of(&repository(), &resolved(violation("1.2.3"), "2026-11-22T12:30:00Z"), Edge::Resolved)),
        ("injection", Alert::of(&repository(), &hostile(violation("1.2.3")), Edge::Fired)),
        ("daemon", Alert::about_self(Topic::HookSilent, "contoso-acr", "no event for 6 h", at("2026-11-22T12:00:00Z"))),
        ("test", Alert::test(at("2026-11-22T12:00:00Z"))),
    ];
    for (case, alert) in &alerts {
        for (sink, body) in bodies(alert) {
            check(&format!("{sink}-{case}"), &body);
        }
    }
}

#[test]
fn golden_summaries() {
    let mut alerts: Vec<Alert> = (0..40)
        .map(|n| {
            let mut v = violation(&format!("1.0.{n}"));
            if n % 4 != 0 {
                v.severity = Severity::Warning;
                v.reason = if n % 3 == 0 { Reason::Lagging } else { Reason::MissingPlatform };
            }
            Alert::of(&repository(), &v, Edge::Fired)
        })
        .collect();
    alerts.push(Alert::of(&repository(), &resolved(violation("1"), "2026-11-22T12:30:00Z"), Edge::Resolved));
    check("slack-summary", &slack::summary(&Summary::of(&alerts), &links()));
    check("teams-summary", &teams::summary(&Summary::of(&alerts), &links()));
}

#[test]
fn without_configured_bases_there_are_no_links() {
    let alert = Alert::of(&repository(), &violation("1.2.3"), Edge::Fired);
    for body in [
        alertmanager::body(std::slice::from_ref(&alert), &Links::default(), alert.since),
        slack::body(&alert, &Links::default()),
        teams::body(&alert, &Links::default()),
        pagerduty::body(&alert, &"R".into(), &Links::default()),
    ] {
        let text = String::from_utf8(body).unwrap().replace("http://adaptivecards.io", "");
        assert!(!text.contains("http"), "{text}");
    }
}

#[test]
fn alertmanager_ends_after_it_starts_whatever_the_clock_says() {
    let fired = Alert::of(&repository(), &violation("1"), Edge::Fired);
    let gone = fired.clone().resolved(at("2026-11-22T12:00:00Z"));
    for alert in [fired, gone] {
        for now in ["2020-01-01T00:00:00Z", "2026-11-22T12:00:00.123Z", "2026-11-22T12:05:00Z"] {
            let body: Value =
                serde_json::from_slice(&alertmanager::body(std::slice::from_ref(&alert), &links(), at(now))).unwrap();
            let time = |name: &str| at(body[0][name].as_str().unwrap());
            assert!(time("startsAt") < time("endsAt"), "{now}");
        }
    }
}
