//! Alertmanager, API v2: alerts as labels and annotations. Labels are the identity and are built so that they
//! cannot be refused: fixed names, no empty value. One refused alert answers 400 for the whole array, although
//! the others were taken.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use super::message::{Alert, Subject, page_of};
use super::settings::Links;
use super::text;
use crate::policy::violation::Edge;

/// How often every firing alert is told again; Alertmanager keeps nothing durable.
pub(super) const REFRESH_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// How long a resolved alert is told again.
pub(super) const RESOLVED_FOR: SignedDuration = SignedDuration::from_mins(5);
/// Three refreshes may be lost before a firing alert resolves by itself.
const ENDS_AFTER_REFRESHES: i32 = 4;
/// How long an alert about the daemon itself stays that is not told again, since the daemon is gone as well.
const SELF_STAYS: SignedDuration = SignedDuration::from_hours(1);
/// A test message stays just long enough to be seen.
const TEST_STAYS: SignedDuration = SignedDuration::from_mins(5);
/// Longest label value, in UTF-16 units: above every name there is.
const LABEL_UNITS_MAX: usize = 255;
/// Longest annotation, in UTF-16 units.
const ANNOTATION_UNITS_MAX: usize = 2000;

/// The path under an Alertmanager's address.
pub(super) const PATH: &str = "/api/v2/alerts";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator_url: Option<String>,
}

/// The body that tells these alerts, as they stand at `now`.
pub(super) fn body(alerts: &[Alert], links: &Links, now: Timestamp) -> Vec<u8> {
    let wire: Vec<Wire> = alerts.iter().map(|alert| encode(alert, links, now)).collect();
    serde_json::to_vec(&wire).unwrap_or_default()
}

fn encode(alert: &Alert, links: &Links, now: Timestamp) -> Wire {
    let starts = alert.fired_at;
    let ends = match (alert.edge, &alert.subject) {
        (Edge::Resolved, _) => now,
        (Edge::Fired, Subject::Image { .. }) => later(now, REFRESH_EVERY * ENDS_AFTER_REFRESHES),
        (Edge::Fired, Subject::Daemon { .. }) => later(now, SELF_STAYS),
        (Edge::Fired, Subject::Test) => later(now, TEST_STAYS),
    };
    // A start that is not before the end is refused; the clocks of two replicas may differ by more than the alert lasted.
    let ends = ends.max(later(starts, SignedDuration::from_millis(1)));
    Wire {
        labels: labels(alert),
        annotations: annotations(alert, links),
        starts_at: rfc3339(starts),
        ends_at: rfc3339(ends),
        generator_url: match alert.subject {
            Subject::Image { .. } => links.violation(&alert.fingerprint),
            _ => links.list(),
        },
    }
}

fn labels(alert: &Alert) -> Map<String, Value> {
    let severity = ("severity", alert.severity.as_str().to_owned());
    let pairs = match &alert.subject {
        Subject::Image { repository, tag, policy, class, requirement, .. } => vec![
            ("alertname", "TidewaiterViolation".to_owned()),
            severity,
            ("registry", repository.host.to_string()),
            ("repository", repository.name.to_string()),
            ("tag", tag.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("policy", policy.clone()),
            ("class", class.clone()),
            ("requirement", requirement.as_str().to_owned()),
        ],
        Subject::Daemon { topic, name } => vec![
            ("alertname", "TidewaiterTrouble".to_owned()),
            severity,
            ("topic", topic.as_str().to_owned()),
            ("name", name.clone()),
        ],
        Subject::Test => vec![("alertname", "TidewaiterTest".to_owned()), severity],
    };
    filled(pairs, LABEL_UNITS_MAX)
}

fn annotations(alert: &Alert, links: &Links) -> Map<String, Value> {
    let description = match (alert.message.trim_end_matches('.'), alert.advice.as_str()) {
        (message, "") => message.to_owned(),
        (message, advice) => format!("{message}. {advice}"),
    };
    filled(
        vec![
            ("summary", alert.title()),
            ("description", description),
            ("reason", alert.reason.clone()),
            ("runbook_url", page_of(alert).and_then(|r| links.reason(r)).unwrap_or_default()),
        ],
        ANNOTATION_UNITS_MAX,
    )
}

fn filled(pairs: Vec<(&str, String)>, units_max: usize) -> Map<String, Value> {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), Value::String(text::fit(&value, units_max, harmless_downstream))))
        .collect()
}

/// Alertmanager shows annotations as text, but hands them on unescaped to chat services, where `<!channel>` calls
/// everybody and `[a](b)` is a link.
fn harmless_downstream(c: char, out: &mut String) {
    out.push(match c {
        '<' => '‹',
        '>' => '›',
        '[' => '⟦',
        ']' => '⟧',
        other => other,
    });
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// To the millisecond, which every reader of RFC 3339 takes.
fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}
