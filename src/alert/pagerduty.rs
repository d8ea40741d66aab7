//! PagerDuty, Events API v2: one incident per fingerprint, triggered and resolved. All text fields are plain.

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::message::{Alert, Subject, page_of};
use super::settings::Links;
use super::text;
use crate::policy::violation::Edge;

/// Longest summary, in characters.
const SUMMARY_MAX: usize = 1024;
/// Longest value of the details.
const DETAIL_MAX: usize = 2000;

/// The body for one alert.
pub(super) fn body(alert: &Alert, routing_key: &SecretString, links: &Links) -> Vec<u8> {
    let dedup_key = format!("tw:{}", alert.fingerprint);
    let body = match alert.edge {
        Edge::Resolved => json!({
            "routing_key": routing_key.expose_secret(), "event_action": "resolve", "dedup_key": dedup_key,
        }),
        Edge::Fired => trigger(alert, routing_key, &dedup_key, links),
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

fn trigger(alert: &Alert, routing_key: &SecretString, dedup_key: &str, links: &Links) -> Value {
    let mut payload = Map::new();
    let mut put = |name: &str, value: String, max: usize| {
        if !value.is_empty() {
            payload.insert(name.to_owned(), Value::String(text::fit(&value, max, text::plain)));
        }
    };
    put("summary", format!("{} – {}", alert.title(), alert.message), SUMMARY_MAX);
    put("severity", alert.severity.as_str().to_owned(), SUMMARY_MAX);
    put("timestamp", time(alert.fired_at), SUMMARY_MAX);
    match &alert.subject {
        Subject::Image { repository, policy, requirement, .. } => {
            put("source", repository.to_string(), SUMMARY_MAX);
            put("component", repository.name.to_string(), SUMMARY_MAX);
            put("group", repository.host.to_string(), SUMMARY_MAX);
            put("class", format!("{policy}/{requirement}"), SUMMARY_MAX);
        }
        Subject::Daemon { topic, name } => {
            put("source", format!("tidewaiter: {name}"), SUMMARY_MAX);
            put("component", "tidewaiter".to_owned(), SUMMARY_MAX);
            put("class", topic.as_str().to_owned(), SUMMARY_MAX);
        }
        Subject::Test => put("source", "tidewaiter".to_owned(), SUMMARY_MAX),
    }
    payload.insert("custom_details".to_owned(), Value::Object(details(alert)));
    let violation = match alert.subject {
        Subject::Image { .. } => links.violation(&alert.fingerprint),
        _ => links.list(),
    };
    let mut hrefs = Vec::new();
    hrefs.extend(violation.iter().map(|url| json!({"href": url, "text": "Open in tidewaiter"})));
    hrefs.extend(page_of(alert).and_then(|r| links.reason(r)).map(|url| json!({"href": url, "text": "What to do"})));
    let mut event = json!({
        "routing_key": routing_key.expose_secret(), "event_action": "trigger", "dedup_key": dedup_key,
        "client": "tidewaiter", "links": hrefs, "payload": payload,
    });
    if let (Some(url), Some(object)) = (violation, event.as_object_mut()) {
        object.insert("client_url".to_owned(), Value::String(url));
    }
    event
}

fn details(alert: &Alert) -> Map<String, Value> {
    let mut details = Map::new();
    let facts = super::facts(alert).into_iter().map(|(name, value)| (name.to_lowercase(), value));
    let rest = [("reason", &alert.reason), ("message", &alert.message), ("advice", &alert.advice)];
    let rest = rest.into_iter().map(|(name, value)| (name.to_owned(), value.clone()));
    for (name, value) in facts.chain(rest).filter(|(_, value)| !value.is_empty()) {
        details.insert(name, Value::String(text::fit(&value, DETAIL_MAX, text::plain)));
    }
    details
}

fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}
