//! CNCF Distribution notifications (distribution/distribution, notifications/event.go), version 2 and 3, and
//! GitLab's fork of it: an envelope of events.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use std::collections::BTreeMap;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};
use crate::image::MediaType;

#[derive(Debug, Deserialize)]
struct Envelope {
    events: Option<Vec<Object<Item>>>,
}

/// The same, its items unread.
#[derive(Deserialize)]
struct RawEnvelope<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Item {
    id: Option<String>,
    timestamp: Option<String>,
    action: String,
    target: Object<Target>,
    request: Option<Object<Origin>>,
    actor: Option<Object<Actor>>,
}

/// Version 3 writes fields that are absent as `""`.
#[derive(Debug, Deserialize)]
struct Target {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    repository: Option<String>,
    url: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Origin {
    host: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Actor {
    name: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    match json::from_json::<Envelope>(request.body, Limits::PLAIN) {
        Ok(Envelope { events: Some(items) }) => {
            let mut parsed = Parsed::default();
            items.iter().for_each(|item| read(item, &mut parsed));
            Ok(parsed)
        }
        // An empty envelope is written as `{}`: `events` is left out. Anything else without it is another
        // format's body, sent to the wrong source.
        Ok(Envelope { events: None }) => {
            let all: BTreeMap<String, IgnoredAny> = json::from_json(request.body, Limits::PLAIN)?;
            match all.keys().all(|key| key == "events") {
                true => Ok(Parsed::default()),
                false => Err(FormatError::Shape { format: "distribution", expected: "it has no `events`" }),
            }
        }
        Err(error) => one_by_one(request.body).ok_or(error.into()),
    }
}

/// Reads the items of an envelope that is sound as a whole each on its own, so that one malformed item does not
/// cost the others. `None` where no item can be read.
fn one_by_one(body: &[u8]) -> Option<Parsed> {
    let envelope: RawEnvelope<'_> = json::from_json(body, Limits::PLAIN).ok()?;
    let mut parsed = Parsed::default();
    let mut any = false;
    for raw in envelope.events {
        match json::from_scanned::<Object<Item>>(raw.get()) {
            Ok(item) => {
                any = true;
                read(&item, &mut parsed);
            }
            Err(fault) => parsed.ignore(IgnoredReason::Malformed, &fault.to_string()),
        }
    }
    any.then_some(parsed)
}

fn read(item: &Item, parsed: &mut Parsed) {
    let target = &item.target;
    let action = match item.action.as_str() {
        "push" if is_blob(target) => return parsed.ignore(IgnoredReason::Blob, ""),
        "push" => Action::Push,
        // Of a manifest, a tag, a repository, or a blob: the last cannot be told from the first.
        "delete" => Action::Delete,
        "pull" => return parsed.ignore(IgnoredReason::Pull, ""),
        "mount" => return parsed.ignore(IgnoredReason::Mount, ""),
        other => return parsed.ignore(IgnoredReason::UnknownEvent, other),
    };
    let Some(repository) = target.repository.as_deref() else {
        return parsed.ignore(IgnoredReason::Malformed, "no `target.repository`");
    };
    let claim = Claim {
        registry: item.request.as_ref().and_then(|r| r.host.as_deref()).unwrap_or_default(),
        repository,
        tag: target.tag.as_deref().unwrap_or_default(),
        digest: target.digest.as_deref().unwrap_or_default(),
        id: item.id.as_deref().unwrap_or_default(),
        at: item.timestamp.as_deref().unwrap_or_default(),
        actor: item.actor.as_ref().and_then(|a| a.name.as_deref()).unwrap_or_default(),
    };
    parsed.claim(action, claim);
}

/// Whether a push is of a layer or a config. The address tells, by its last segment but one; the media type
/// where there is no address. Where neither says anything it is taken for a manifest: the registry is asked,
/// and knows.
fn is_blob(target: &Target) -> bool {
    let kind = target.url.as_deref().and_then(|url| url.rsplit('/').nth(1));
    match (kind, target.media_type.as_deref()) {
        (Some("manifests"), _) => false,
        (Some("blobs"), _) => true,
        (_, None | Some("")) => false,
        (_, Some(text)) => matches!(
            MediaType::parse(text),
            MediaType::Other(_)
                | MediaType::OciConfig
                | MediaType::DockerConfig
                | MediaType::OciEmpty
                | MediaType::HelmConfig
        ),
    }
}
