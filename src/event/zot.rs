//! zot (project-zot/zot, pkg/extensions/events): CloudEvents in binary mode, structured where a bridge makes
//! them so. The payload names no registry.

use serde::Deserialize;

use super::claim::Claim;
use super::cloudevents;
use super::fault::FormatError;
use super::json::{Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

/// The whole manifest comes along as text.
const LIMITS: Limits = Limits::with_documents(&["manifest"]);

#[derive(Debug, Deserialize)]
struct Data {
    name: Option<String>,
    /// A tag, or a digest.
    reference: Option<String>,
    digest: Option<String>,
    actor: Option<Object<Actor>>,
}

#[derive(Debug, Deserialize)]
struct Actor {
    name: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let (attributes, data) = match cloudevents::is_structured(request) {
        true => cloudevents::structured::<Data>(request.body, LIMITS)?,
        false => cloudevents::binary::<Data>(request, LIMITS)?,
    };
    // Newer releases let the prefix be configured: the last two parts tell.
    let kind = attributes
        .kind
        .rmatch_indices('.')
        .nth(1)
        .map_or(attributes.kind.as_str(), |(at, _)| attributes.kind.get(at + 1..).unwrap_or_default());
    let action = match kind {
        "image.updated" => Action::Push,
        "image.deleted" => Action::Delete,
        "image.lint_failed" => return Ok(Parsed::only_ignored(IgnoredReason::NotDone, kind)),
        "image.scanned" => return Ok(Parsed::only_ignored(IgnoredReason::Scan, kind)),
        "repository.created" => return Ok(Parsed::only_ignored(IgnoredReason::NamesNothing, kind)),
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    };
    let shape = |expected| FormatError::Shape { format: "zot", expected };
    let reference = data.reference.as_deref().filter(|text| !text.is_empty()).ok_or(shape("it has no `reference`"))?;
    let mut parsed = Parsed::default();
    parsed.claim(
        action,
        Claim {
            registry: "",
            repository: data.name.as_deref().ok_or(shape("it has no `name`"))?,
            tag: reference,
            digest: data.digest.as_deref().unwrap_or_default(),
            id: &attributes.id,
            at: &attributes.time,
            actor: data.actor.as_ref().and_then(|a| a.name.as_deref()).unwrap_or_default(),
        },
    );
    Ok(parsed)
}
