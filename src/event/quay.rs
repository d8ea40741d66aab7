//! Quay notifications (quay/quay, notifications/notificationevent.py). There is no field for the kind: a push
//! is what has `updated_tags`. No digest, no id, no deletes.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claim::{Claim, host_of};
use super::fault::FormatError;
use super::json::{self, Limits};
use super::{Action, IgnoredReason, Parsed, Request};

#[derive(Debug, Deserialize)]
struct Notification {
    repository: Option<String>,
    namespace: Option<String>,
    docker_url: Option<String>,
    updated_tags: Option<Vec<String>>,
    vulnerability: Option<IgnoredAny>,
    threshold_percent: Option<IgnoredAny>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "quay", expected };
    let notification: Notification = json::from_json(request.body, Limits::PLAIN)?;
    let Some(tags) = &notification.updated_tags else {
        return match notification {
            Notification { vulnerability: Some(_), .. } => Ok(Parsed::only_ignored(IgnoredReason::Scan, "")),
            Notification { threshold_percent: Some(_), .. } => Ok(Parsed::only_ignored(IgnoredReason::Quota, "")),
            Notification { repository: None, namespace: None, .. } => {
                Err(shape("it has neither `repository` nor `namespace`"))
            }
            _ => Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, "no `updated_tags`")),
        };
    };
    let repository = notification.repository.as_deref().ok_or(shape("it has no `repository`"))?;
    if tags.is_empty() {
        return Ok(Parsed::only_ignored(IgnoredReason::NamesNothing, "no tag was updated"));
    }
    let mut parsed = Parsed::default();
    for tag in tags {
        let registry = host_of(notification.docker_url.as_deref().unwrap_or_default());
        parsed.claim(Action::Push, Claim { registry, repository, tag, ..Claim::default() });
    }
    Ok(parsed)
}
