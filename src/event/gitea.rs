//! Gitea and Forgejo: the `package` webhook event (go-gitea/gitea, modules/structs/hook.go). It carries
//! GitHub's headers as well, so the configured format decides, never the headers.

use serde::Deserialize;

use super::claim::{Claim, host_of};
use super::fault::FormatError;
use super::form;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

const LIMITS: Limits = Limits::with_documents(&["description"]);

#[derive(Debug, Deserialize)]
struct Notification {
    action: Option<String>,
    package: Option<Object<Package>>,
    sender: Option<Object<User>>,
}

#[derive(Debug, Deserialize)]
struct Package {
    owner: Option<Object<User>>,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    /// The tag, or the digest of a manifest without one.
    version: Option<String>,
    html_url: Option<String>,
    created_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct User {
    login: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "gitea", expected };
    match request.headers.get("X-Gitea-Event") {
        Some("package") | None => {}
        Some(other) => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    }
    let body = form::payload(request)?;
    let notification: Notification = json::from_json(&body, LIMITS)?;
    let package = notification.package.as_ref().ok_or(shape("it has no `package`"))?;
    if package.kind != "container" {
        return Ok(Parsed::only_ignored(IgnoredReason::NotAContainerPackage, &package.kind));
    }
    let action = match notification.action.as_deref().ok_or(shape("it has no `action`"))? {
        "created" => Action::Push,
        "deleted" => Action::Delete,
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    };
    let owner = package.owner.as_ref().and_then(|o| o.login.as_deref()).ok_or(shape("it has no `owner.login`"))?;
    let version = package.version.as_deref().filter(|v| !v.is_empty()).ok_or(shape("it has no `version`"))?;
    let mut parsed = Parsed::default();
    parsed.claim(
        action,
        Claim {
            registry: host_of(package.html_url.as_deref().unwrap_or_default()),
            // The casing of the owner leaks into the payload; names in the registry are lower case.
            repository: &format!("{owner}/{}", package.name).to_ascii_lowercase(),
            tag: version,
            digest: "",
            id: request.headers.get("X-Gitea-Delivery").unwrap_or_default(),
            at: package.created_at.as_deref().unwrap_or_default(),
            actor: notification.sender.as_ref().and_then(|s| s.login.as_deref()).unwrap_or_default(),
        },
    );
    Ok(parsed)
}
