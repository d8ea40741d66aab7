//! Google Artifact Registry and Container Registry, through a Pub/Sub push subscription, wrapped or unwrapped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

const LIMITS: Limits = Limits::with_documents(&["data"]);
const FORMAT: &str = "google-artifact-registry";

/// Either form: a wrapped body has `message`, an unwrapped one has `action`.
#[derive(Debug, Deserialize)]
struct Body {
    message: Option<Object<Message>>,
    #[serde(default)]
    action: Option<String>,
    digest: Option<String>,
    tag: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Message {
    data: String,
    #[serde(rename = "messageId")]
    id: Option<String>,
    #[serde(rename = "publishTime")]
    time: Option<String>,
}

/// `digest` is `HOST/PATH@DIGEST`, `tag` is `HOST/PATH:TAG`; either may be missing.
#[derive(Debug, Deserialize)]
struct Change {
    action: String,
    digest: Option<String>,
    tag: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let body: Body = json::from_json(request.body, LIMITS)?;
    match body {
        Body { message: Some(message), action: None, .. } => {
            let inner = STANDARD.decode(&message.data).map_err(|_| FormatError::Base64("message.data"))?;
            let change: Change = json::from_json(&inner, Limits::PLAIN)?;
            let (id, at) = (message.id.as_deref().unwrap_or_default(), message.time.as_deref().unwrap_or_default());
            Ok(read(&change, id, at))
        }
        Body { message: None, action: Some(action), digest, tag } => {
            let header = |name| request.headers.get(name).unwrap_or_default();
            let change = Change { action, digest, tag };
            Ok(read(&change, header("x-goog-pubsub-message-id"), header("x-goog-pubsub-publish-time")))
        }
        _ => Err(FormatError::Shape { format: FORMAT, expected: "it must have either `message` or `action`" }),
    }
}

fn read(change: &Change, id: &str, at: &str) -> Parsed {
    let action = match change.action.as_str() {
        "INSERT" => Action::Push,
        "DELETE" => Action::Delete,
        other => return Parsed::only_ignored(IgnoredReason::UnknownEvent, other),
    };
    let present = |text: &'_ Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if !present(&change.digest) && !present(&change.tag) {
        return Parsed::only_ignored(IgnoredReason::Malformed, "neither `digest` nor `tag`");
    }
    let by_digest = change.digest.as_deref().filter(|text| !text.is_empty()).map(|text| split(text, '@'));
    let by_tag = change.tag.as_deref().filter(|text| !text.is_empty()).map(|text| split(text, ':'));
    let (Some(name), digest, tag) = (match (by_digest, by_tag) {
        (Some(Some((name, digest))), Some(Some((same, tag)))) if name == same => (Some(name), digest, tag),
        (Some(Some(_)), Some(Some(_))) => {
            return Parsed::only_ignored(IgnoredReason::Contradictory, "digest and tag name different repositories");
        }
        (Some(Some((name, digest))), None) => (Some(name), digest, ""),
        (None, Some(Some((name, tag)))) => (Some(name), "", tag),
        _ => (None, "", ""),
    }) else {
        return Parsed::only_ignored(IgnoredReason::Malformed, "`digest` is HOST/PATH@DIGEST, `tag` is HOST/PATH:TAG");
    };
    let Some((registry, repository)) = name.split_once('/') else {
        return Parsed::only_ignored(IgnoredReason::InvalidRepository, name);
    };
    let mut parsed = Parsed::default();
    parsed.claim(action, Claim { registry, repository, tag, digest, id, at, actor: "" });
    parsed
}

/// The name before `mark` and what follows it, which is not empty. The last colon is the tag's: a port stands
/// before the path.
fn split(text: &str, mark: char) -> Option<(&str, &str)> {
    let (name, rest) = if mark == '@' { text.split_once('@') } else { text.rsplit_once(':') }?;
    (!rest.is_empty() && !rest.contains('/')).then_some((name, rest))
}
