//! GitHub container registry: the `package` and `registry_package` webhook events. There are no deletes.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claim::{Claim, host_of};
use super::fault::FormatError;
use super::form;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

/// A package's readme and the release notes of its version come along.
const LIMITS: Limits =
    Limits::with_documents(&["body", "body_html", "readme", "description", "summary", "manifest", "docker_metadata"]);
const FORMAT: &str = "github";

#[derive(Debug, Deserialize)]
struct Notification {
    action: Option<String>,
    package: Option<Object<Package>>,
    registry_package: Option<Object<Package>>,
    sender: Option<Object<User>>,
    zen: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: Option<String>,
    package_type: Option<String>,
    updated_at: Option<String>,
    owner: Option<Object<User>>,
    package_version: Option<Object<Version>>,
}

#[derive(Debug, Deserialize)]
struct User {
    login: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Version {
    package_url: Option<String>,
    container_metadata: Option<Object<Container>>,
}

#[derive(Debug, Deserialize)]
struct Container {
    tag: Option<Object<TagOf>>,
    manifest: Option<Object<ManifestOf>>,
}

#[derive(Debug, Deserialize)]
struct TagOf {
    name: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ManifestOf {
    digest: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: FORMAT, expected };
    let body = form::payload(request)?;
    let notification: Notification = json::from_json(&body, LIMITS)?;
    let package = match (request.headers.get("X-GitHub-Event"), &notification.package, &notification.registry_package) {
        (Some("ping"), ..) => return Ok(Parsed::only_ignored(IgnoredReason::Ping, "")),
        (Some("package"), Some(package), _) | (Some("registry_package"), _, Some(package)) => package,
        (Some("package" | "registry_package"), ..) => return Err(shape("it has no package")),
        (Some(other), ..) => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
        // A body without its headers, as a person may hand one in: the key tells the same.
        (None, Some(package), None) | (None, None, Some(package)) => package,
        (None, None, None) if notification.zen.is_some() => return Ok(Parsed::only_ignored(IgnoredReason::Ping, "")),
        (None, ..) => return Err(FormatError::HeaderMissing("X-GitHub-Event")),
    };
    let kind = package.package_type.as_deref().unwrap_or_default();
    if !kind.eq_ignore_ascii_case("container") {
        return Ok(Parsed::only_ignored(IgnoredReason::NotAContainerPackage, kind));
    }
    match notification.action.as_deref().ok_or(shape("it has no `action`"))? {
        "published" | "updated" => {}
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    }
    let owner = package.owner.as_ref().and_then(|o| o.login.as_deref()).ok_or(shape("it has no `owner.login`"))?;
    let name = package.name.as_deref().ok_or(shape("it has no `name`"))?;
    let version = package.package_version.as_ref().ok_or(shape("it has no `package_version`"))?;
    let container = version.container_metadata.as_ref();
    let tag = container.and_then(|c| c.tag.as_ref());
    let of_tag = tag.and_then(|t| t.digest.as_deref()).filter(|digest| !digest.is_empty());
    let of_manifest = container.and_then(|c| c.manifest.as_ref()).and_then(|m| m.digest.as_deref());
    let mut parsed = Parsed::default();
    parsed.claim(
        Action::Push,
        Claim {
            registry: host_of(version.package_url.as_deref().unwrap_or_default()),
            // The casing of the owner leaks into the payload; names in the registry are lower case.
            repository: &format!("{owner}/{name}").to_ascii_lowercase(),
            tag: tag.and_then(|t| t.name.as_deref()).unwrap_or_default(),
            digest: of_tag.or(of_manifest).unwrap_or_default(),
            id: request.headers.get("X-GitHub-Delivery").unwrap_or_default(),
            at: package.updated_at.as_deref().unwrap_or_default(),
            actor: notification.sender.as_ref().and_then(|s| s.login.as_deref()).unwrap_or_default(),
        },
    );
    Ok(parsed)
}
