//! JFrog Artifactory platform webhooks, domain `docker`. No id and no time.

use serde::Deserialize;

use super::claim::{Claim, host_of};
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

#[derive(Debug, Deserialize)]
struct Notification {
    domain: String,
    event_type: String,
    data: Object<Data>,
    /// Empty on installations that set no custom base URL.
    jpd_origin: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Data {
    repo_key: Option<String>,
    image_name: Option<String>,
    tag: Option<String>,
    sha256: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "artifactory", expected };
    let notification: Notification = json::from_json(request.body, Limits::PLAIN)?;
    match notification.domain.as_str() {
        "docker" => {}
        // The artifact domain tells each file of a push again.
        "artifact" => return Ok(Parsed::only_ignored(IgnoredReason::AlreadyTold, "artifact")),
        other => return Ok(Parsed::only_ignored(IgnoredReason::NotAContainerPackage, other)),
    }
    let action = match notification.event_type.as_str() {
        "pushed" | "promoted" => Action::Push,
        "deleted" => Action::Delete,
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    };
    let data = &notification.data;
    let key = data.repo_key.as_deref().ok_or(shape("it has no `data.repo_key`"))?;
    let image = data.image_name.as_deref().ok_or(shape("it has no `data.image_name`"))?;
    // The checksum of the stored manifest file, which is what a registry calls its digest.
    let digest = match data.sha256.as_deref().unwrap_or_default() {
        "" => String::new(),
        hex => format!("sha256:{hex}"),
    };
    let tag = data.tag.as_deref().unwrap_or_default();
    if tag.is_empty() && digest.is_empty() {
        return Err(shape("`data` has neither `tag` nor `sha256`"));
    }
    let mut parsed = Parsed::default();
    parsed.claim(
        action,
        Claim {
            registry: host_of(notification.jpd_origin.as_deref().unwrap_or_default()),
            repository: &format!("{key}/{image}"),
            tag,
            digest: &digest,
            actor: notification.source.as_deref().unwrap_or_default(),
            ..Claim::default()
        },
    );
    Ok(parsed)
}
