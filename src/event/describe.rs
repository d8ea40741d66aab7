//! What `tidewaiter event parse` prints: the published shape of a parsed payload.

use serde_json::{Map, Value, json};

use super::{Event, Handshake, Ignored, Parsed};

/// What is left to do before Amazon SNS sends anything.
const CONFIRM: &str = "verify the signature and TopicArn allow-list, then GET SubscribeURL (host must be \
     sns.<region>.amazonaws.com[.cn])";

/// `parsed` as the published JSON: null for what the sender did not say.
pub fn describe(parsed: &Parsed) -> Value {
    json!({
        "events": parsed.events.iter().map(event).collect::<Vec<_>>(),
        "ignored": parsed.ignored.iter().map(ignored).collect::<Vec<_>>(),
        "handshake": parsed.handshake.as_ref().map(handshake),
    })
}

fn event(event: &Event) -> Value {
    json!({
        "action": event.action.as_str(),
        "registry": event.registry.as_ref().map(|host| host.as_str()),
        "repository": event.repository.as_str(),
        "tag": event.tag.as_ref().map(|tag| tag.as_str()),
        "digest": event.digest.as_ref().map(|digest| digest.as_str()),
    })
}

fn ignored(ignored: &Ignored) -> Value {
    json!({ "reason": ignored.reason.as_str() })
}

fn handshake(handshake: &Handshake) -> Value {
    match handshake {
        Handshake::Answer { status, headers, body } => {
            let mut out = Map::new();
            out.insert("status".into(), json!(status));
            if !headers.is_empty() {
                let headers = headers.iter().map(|(name, value)| ((*name).into(), json!(value)));
                out.insert("headers".into(), Value::Object(headers.collect()));
            }
            if let Some(body) = body {
                // The body was made as JSON; shown as text should it ever be something else.
                out.insert("body".into(), serde_json::from_str(body).unwrap_or_else(|_| json!(body)));
            }
            Value::Object(out)
        }
        Handshake::Confirm { .. } => json!({ "then": CONFIRM }),
    }
}
