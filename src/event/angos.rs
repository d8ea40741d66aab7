//! angos (project-angos/angos, doc/reference/event-webhooks.md). Its events are intents: they come before the
//! operation, which a refusal prevents. The four tries of one refusal carry one id.

use serde::Deserialize;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request, Stage};

#[derive(Debug, Deserialize)]
struct Notification {
    id: Option<String>,
    timestamp: Option<String>,
    kind: String,
    /// The repository; the field `repository` is the configured group.
    namespace: Option<String>,
    digest: Option<String>,
    /// A tag, or a digest.
    reference: Option<String>,
    tag: Option<String>,
    actor: Option<Object<Actor>>,
}

#[derive(Debug, Deserialize)]
struct Actor {
    username: Option<String>,
    id: Option<String>,
    internal: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "angos", expected };
    let notification: Notification = json::from_json(request.body, Limits::PLAIN)?;
    let kind = notification.kind.as_str();
    if request.headers.get("X-Registry-Event").is_some_and(|header| header != kind) {
        return Err(shape("`kind` must be what the `X-Registry-Event` header says"));
    }
    let action = match kind {
        "manifest.push" => Action::Push,
        "manifest.delete" | "tag.delete" => Action::Delete,
        "manifest.pull" => return Ok(Parsed::only_ignored(IgnoredReason::Pull, kind)),
        "blob.push" | "blob.pull" => return Ok(Parsed::only_ignored(IgnoredReason::Blob, kind)),
        // The second event of a push by tag.
        "tag.create" => return Ok(Parsed::only_ignored(IgnoredReason::AlreadyTold, kind)),
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    };
    let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let (tag, reference) = (text(&notification.tag), text(&notification.reference));
    // A push by tag names the tag in `reference` alone.
    let tag = if tag.is_empty() { reference } else { tag };
    if tag.is_empty() && text(&notification.digest).is_empty() {
        return Err(shape("it has neither `tag`, `reference` nor `digest`"));
    }
    let actor = notification.actor.as_ref();
    let actor = actor.and_then(|a| a.username.as_deref().or(a.id.as_deref()).or(a.internal.as_deref()));
    let mut parsed = Parsed::default();
    parsed.claim(
        action,
        Claim {
            registry: "",
            repository: notification.namespace.as_deref().ok_or(shape("it has no `namespace`"))?,
            tag: &tag,
            // When a tag goes, the manifest may stay.
            digest: if kind == "tag.delete" { "" } else { notification.digest.as_deref().unwrap_or_default() },
            id: notification.id.as_deref().unwrap_or_default(),
            at: notification.timestamp.as_deref().unwrap_or_default(),
            actor: actor.unwrap_or_default(),
        },
    );
    parsed.events.iter_mut().for_each(|event| event.stage = Stage::Intended);
    Ok(parsed)
}
