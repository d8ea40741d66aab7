//! Mirantis Secure Registry, once Docker Trusted Registry (its guide, "Manage webhooks"): one event a request, with
//! the digest, without an id. The kind is in `type`, what it is about in `contents`.

use serde::Deserialize;

use super::claim::{Claim, host_of};
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

#[derive(Debug, Deserialize)]
struct Notification {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "createdAt")]
    created_at: Option<String>,
    contents: Option<Object<Contents>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    namespace: Option<String>,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
    /// What one would pull; empty in the event of the test button.
    image_name: Option<String>,
    author: Option<String>,
    pushed_at: Option<String>,
    deleted_at: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "msr", expected };
    let notification: Notification = json::from_json(request.body, Limits::PLAIN)?;
    let kind = notification.kind.as_deref().ok_or(shape("it has no `type`"))?;
    let action = match kind {
        "TAG_PUSH" | "MANIFEST_PUSH" => Action::Push,
        "TAG_DELETE" | "MANIFEST_DELETE" => Action::Delete,
        "TAG_PULL" | "MANIFEST_PULL" => return Ok(Parsed::only_ignored(IgnoredReason::Pull, kind)),
        "SCAN_COMPLETED" | "SCAN_FAILED" | "SCANNER_UPDATE_COMPLETED" => {
            return Ok(Parsed::only_ignored(IgnoredReason::Scan, kind));
        }
        // Each is a push at the registry where the image arrives, which tells it.
        "PROMOTION" | "PUSH_MIRRORING" | "POLL_MIRRORING" => {
            return Ok(Parsed::only_ignored(IgnoredReason::Replication, kind));
        }
        chart if chart.starts_with("CHART_") => {
            return Ok(Parsed::only_ignored(IgnoredReason::NotAContainerPackage, kind));
        }
        _ => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, kind)),
    };
    let contents = notification.contents.as_ref().ok_or(shape("it has no `contents`"))?;
    let namespace = contents.namespace.as_deref().ok_or(shape("it has no `contents.namespace`"))?;
    let repository = contents.repository.as_deref().ok_or(shape("it has no `contents.repository`"))?;
    let image = contents.image_name.as_deref().unwrap_or_default();
    if image.is_empty() {
        return Ok(Parsed::only_ignored(IgnoredReason::Ping, "it names no image, as the test button does"));
    }
    let registry = host_of(image);
    let repository = format!("{namespace}/{repository}");
    let path = image.strip_prefix(registry).and_then(|rest| rest.strip_prefix('/')?.strip_prefix(&repository));
    if !path.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@'])) {
        return Ok(Parsed::only_ignored(IgnoredReason::Contradictory, "`imageName` is of another repository"));
    }
    let mut parsed = Parsed::default();
    parsed.claim(
        action,
        Claim {
            registry,
            repository: &repository,
            // A manifest's event is about the digest alone.
            tag: contents.tag.as_deref().filter(|_| kind.starts_with("TAG_")).unwrap_or_default(),
            digest: contents.digest.as_deref().unwrap_or_default(),
            id: "",
            at: [&contents.pushed_at, &contents.deleted_at, &notification.created_at]
                .into_iter()
                .find_map(|at| at.as_deref())
                .unwrap_or_default(),
            actor: contents.author.as_deref().unwrap_or_default(),
        },
    );
    Ok(parsed)
}
