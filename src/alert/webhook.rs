//! Signed webhooks: one CloudEvent 1.0 in structured mode, signed as Standard Webhooks describes. The id stays
//! over all attempts, the timestamp is that of the attempt, and during a change of keys both sign (T-57).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::message::{Alert, Subject};
use super::settings::SigningKey;
use crate::policy::Severity;
use crate::policy::violation::Edge;

/// The media type of the structured mode.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// The event for one alert; the same bytes for every attempt.
pub(super) fn body(alert: &Alert, source: &str) -> Vec<u8> {
    let (kind, edge) = match (&alert.subject, alert.edge) {
        (Subject::Image { .. }, Edge::Fired) => ("violation", "firing"),
        (Subject::Image { .. }, Edge::Resolved) => ("violation", "resolved"),
        (Subject::Daemon { .. }, Edge::Fired) => ("daemon", "firing"),
        (Subject::Daemon { .. }, Edge::Resolved) => ("daemon", "resolved"),
        (Subject::Test, _) => ("test", "sent"),
    };
    let source = match &alert.subject {
        Subject::Image { repository, .. } => format!("{source}/{}", repository.host),
        _ => source.to_owned(),
    };
    let (severity_text, severity_number) = match alert.severity {
        Severity::Info => ("INFO", 9),
        Severity::Warning => ("WARN", 13),
        Severity::Critical => ("ERROR", 17),
    };
    let event = json!({
        "specversion": "1.0",
        "id": alert.id,
        "source": source,
        "type": format!("dev.tidewaiter.{kind}.{edge}.v1"),
        "subject": alert.name(),
        "time": time(alert.at()),
        "datacontenttype": "application/json",
        "severitytext": severity_text,
        "severitynumber": severity_number,
        "data": data(alert),
    });
    serde_json::to_vec(&event).unwrap_or_default()
}

/// A finding of the JSON report, with its image.
fn data(alert: &Alert) -> Value {
    let mut data = Map::new();
    match &alert.subject {
        Subject::Image { repository, tag, digest, policy, class, requirement } => {
            data.insert(
                "image".into(),
                json!({
                    "registry": repository.host.as_str(), "repository": repository.name.as_str(),
                    "tag": tag.as_ref().map(|t| t.as_str()), "digest": digest.as_ref().map(|d| d.as_str()),
                }),
            );
            data.insert("policy".into(), json!(policy));
            data.insert("class".into(), json!(class));
            data.insert("requirement".into(), json!(requirement.as_str()));
        }
        Subject::Daemon { name, .. } => {
            data.insert("name".into(), json!(name));
        }
        Subject::Test => {}
    }
    data.insert("reason".into(), json!(alert.reason));
    data.insert("severity".into(), json!(alert.severity.as_str()));
    data.insert("state".into(), json!(if alert.edge == Edge::Fired { "firing" } else { "resolved" }));
    data.insert("message".into(), json!(alert.message));
    data.insert("advice".into(), json!(alert.advice));
    data.insert("expected".into(), json!(alert.expected));
    data.insert("actual".into(), json!(alert.actual));
    data.insert("since".into(), json!(time(alert.since)));
    data.insert("firedAt".into(), json!(time(alert.fired_at)));
    data.insert("resolvedAt".into(), json!(alert.resolved_at.map(time)));
    data.insert("fingerprint".into(), json!(alert.fingerprint));
    Value::Object(data)
}

/// The three headers of Standard Webhooks for one attempt at `now`; without a key, no signature.
pub(super) fn signature_headers(
    keys: &[SigningKey],
    id: &str,
    now: Timestamp,
    body: &[u8],
) -> Vec<(HeaderName, HeaderValue)> {
    let timestamp = now.as_second().to_string();
    let signatures: Vec<String> = keys.iter().map(|key| sign(key, id, &timestamp, body)).collect();
    [("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signatures.join(" "))]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)))
        .collect()
}

/// `v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`.
fn sign(key: &SigningKey, id: &str, timestamp: &str, body: &[u8]) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.bytes()) else { return String::new() };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}
