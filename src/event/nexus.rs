//! Sonatype Nexus repository webhooks: components of format `docker`. No host and no digest.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

#[derive(Debug, Deserialize)]
struct Notification {
    action: String,
    timestamp: Option<String>,
    initiator: Option<String>,
    component: Option<Object<Component>>,
    asset: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Component {
    format: String,
    name: Option<String>,
    version: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "nexus", expected };
    let notification: Notification = json::from_json(request.body, Limits::PLAIN)?;
    match request.headers.get("X-Nexus-Webhook-ID") {
        Some("rm:repository:component") => {}
        // A component's event comes with those of its assets.
        Some("rm:repository:asset") => return Ok(Parsed::only_ignored(IgnoredReason::AlreadyTold, "asset")),
        None if notification.asset.is_some() => return Ok(Parsed::only_ignored(IgnoredReason::AlreadyTold, "asset")),
        None => {}
        Some(other) => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    }
    let action = match notification.action.as_str() {
        "CREATED" | "UPDATED" => Action::Push,
        "DELETED" => Action::Delete,
        // Only the registry's internal ids of what is gone; a sweep finds out.
        "PURGED" => return Ok(Parsed::only_ignored(IgnoredReason::NamesNothing, "PURGED")),
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    };
    let component = notification.component.as_ref().ok_or(shape("it has no `component`"))?;
    if component.format != "docker" {
        return Ok(Parsed::only_ignored(IgnoredReason::NotAContainerPackage, &component.format));
    }
    let version = component.version.as_deref().filter(|v| !v.is_empty()).ok_or(shape("it has no `version`"))?;
    let mut parsed = Parsed::default();
    parsed.claim(
        action,
        Claim {
            // `repositoryName` is where the server keeps it, not a part of the image's name.
            repository: component.name.as_deref().ok_or(shape("it has no `component.name`"))?,
            tag: version,
            id: request.headers.get("X-Nexus-Webhook-Delivery").unwrap_or_default(),
            at: notification.timestamp.as_deref().unwrap_or_default(),
            actor: notification.initiator.as_deref().unwrap_or_default(),
            ..Claim::default()
        },
    );
    Ok(parsed)
}
