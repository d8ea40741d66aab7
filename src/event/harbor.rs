//! Harbor webhooks (goharbor/harbor, src/pkg/notifier/formats): the Default format and CloudEvents.

use serde::Deserialize;

use super::claim::{Claim, host_of};
use super::cloudevents;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

/// The Default format.
#[derive(Debug, Deserialize)]
struct Notification {
    #[serde(rename = "type")]
    kind: String,
    occur_at: Option<i64>,
    operator: Option<String>,
    event_data: Object<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    resources: Option<Vec<Object<Resource>>>,
    repository: Option<Object<Repository>>,
    retention: Option<Object<Retention>>,
}

/// What was pushed or deleted. Where there is no tag, `tag` repeats the digest; of several only the first is
/// named.
#[derive(Debug, Deserialize)]
struct Resource {
    digest: Option<String>,
    tag: Option<String>,
    resource_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    repo_full_name: String,
}

#[derive(Debug, Deserialize)]
struct Retention {
    harbor_hostname: Option<String>,
    project_name: String,
    deleted_artifact: Option<Vec<Object<Retained>>>,
}

#[derive(Debug, Deserialize)]
struct Retained {
    status: Option<String>,
    name_tag: String,
}

/// What is the same for all items of a notification.
struct Common<'a> {
    id: &'a str,
    at: &'a str,
    actor: &'a str,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    if cloudevents::is_structured(request) {
        let (attributes, data) = cloudevents::structured::<Data>(request.body, Limits::PLAIN)?;
        let common = Common { id: &attributes.id, at: &attributes.time, actor: &attributes.operator };
        return read(&attributes.kind, &data, &common);
    }
    let notification: Notification = json::from_json(request.body, Limits::PLAIN)?;
    let at = notification.occur_at.and_then(|s| jiff::Timestamp::from_second(s).ok());
    let at = at.map(|at| at.to_string()).unwrap_or_default();
    let common = Common { id: "", at: &at, actor: notification.operator.as_deref().unwrap_or_default() };
    read(&notification.kind, &notification.event_data, &common)
}

fn read(kind: &str, data: &Data, common: &Common<'_>) -> Result<Parsed, FormatError> {
    // The names of the Default format, of release 1, and of CloudEvents.
    match kind {
        "PUSH_ARTIFACT" | "pushImage" | "harbor.artifact.pushed" => artifacts(Action::Push, data, common),
        "DELETE_ARTIFACT" | "deleteImage" | "harbor.artifact.deleted" => artifacts(Action::Delete, data, common),
        "TAG_RETENTION" | "harbor.tag_retention.finished" => retention(data, common),
        "PULL_ARTIFACT" | "pullImage" | "harbor.artifact.pulled" => Ok(Parsed::only_ignored(IgnoredReason::Pull, "")),
        "REPLICATION" | "harbor.replication.status.changed" => Ok(Parsed::only_ignored(IgnoredReason::Replication, "")),
        _ if ["SCANNING_", "scanning", "harbor.scan."].iter().any(|prefix| kind.starts_with(prefix)) => {
            Ok(Parsed::only_ignored(IgnoredReason::Scan, kind))
        }
        _ if ["QUOTA_", "quota", "harbor.quota."].iter().any(|prefix| kind.starts_with(prefix)) => {
            Ok(Parsed::only_ignored(IgnoredReason::Quota, kind))
        }
        other => Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    }
}

fn artifacts(action: Action, data: &Data, common: &Common<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "harbor", expected };
    let repository = data.repository.as_ref().ok_or(shape("it has no `repository`"))?;
    let resources = data.resources.as_deref().filter(|r| !r.is_empty()).ok_or(shape("it has no `resources`"))?;
    let mut parsed = Parsed::default();
    for resource in resources {
        let (tag, digest) =
            (resource.tag.as_deref().unwrap_or_default(), resource.digest.as_deref().unwrap_or_default());
        if tag.is_empty() && digest.is_empty() {
            // A delete of neither would mean the whole repository, which Harbor does not tell.
            parsed.ignore(IgnoredReason::Malformed, "neither a tag nor a digest");
            continue;
        }
        let claim = Claim {
            registry: host_of(resource.resource_url.as_deref().unwrap_or_default()),
            repository: &repository.repo_full_name,
            tag,
            digest,
            id: common.id,
            at: common.at,
            actor: common.actor,
        };
        parsed.claim(action, claim);
    }
    Ok(parsed)
}

/// What a retention run deleted; the names lack the project.
fn retention(data: &Data, common: &Common<'_>) -> Result<Parsed, FormatError> {
    let retention = data.retention.as_ref();
    let retention = retention.ok_or(FormatError::Shape { format: "harbor", expected: "it has no `retention`" })?;
    let mut parsed = Parsed::default();
    for deleted in retention.deleted_artifact.as_deref().unwrap_or_default() {
        if deleted.status.as_deref().is_some_and(|status| !status.eq_ignore_ascii_case("success")) {
            parsed.ignore(IgnoredReason::NotDone, &deleted.name_tag);
            continue;
        }
        let Some((name, (tag, digest))) = (match deleted.name_tag.split_once('@') {
            Some((name, digest)) => Some((name, ("", digest))),
            None => deleted.name_tag.split_once(':').map(|(name, tag)| (name, (tag, ""))),
        })
        .filter(|(_, (tag, digest))| !tag.is_empty() || !digest.is_empty()) else {
            parsed.ignore(IgnoredReason::Malformed, &deleted.name_tag);
            continue;
        };
        let repository = format!("{}/{name}", retention.project_name);
        let claim = Claim {
            registry: retention.harbor_hostname.as_deref().unwrap_or_default(),
            repository: &repository,
            tag,
            digest,
            id: common.id,
            at: common.at,
            actor: common.actor,
        };
        parsed.claim(Action::Delete, claim);
    }
    if parsed.events.is_empty() && parsed.ignored.is_empty() {
        parsed.ignore(IgnoredReason::NamesNothing, "a retention run that deleted nothing");
    }
    Ok(parsed)
}
