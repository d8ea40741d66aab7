//! Azure Container Registry webhooks (container-registry-webhook-reference), and the record that Event Grid
//! carries as well.

use serde::Deserialize;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, IgnoredReason, Parsed, Request};

/// What happened, as this registry writes it. The management API's longer form has more fields.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    id: Option<String>,
    timestamp: Option<String>,
    action: Option<String>,
    target: Option<Object<Target>>,
    request: Option<Object<Origin>>,
    actor: Option<Object<Actor>>,
}

#[derive(Debug, Deserialize)]
struct Target {
    repository: Option<String>,
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

impl Record {
    /// The registry's own id of the event, different for each replica that tells of one push.
    pub(super) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// What the record claims; `None` where it names no repository. Charts have no `request`, hence no host.
    pub(super) fn claim(&self) -> Option<Claim<'_>> {
        let target = self.target.as_ref()?;
        Some(Claim {
            registry: self.request.as_ref().and_then(|r| r.host.as_deref()).unwrap_or_default(),
            repository: target.repository.as_deref()?,
            tag: target.tag.as_deref().unwrap_or_default(),
            digest: target.digest.as_deref().unwrap_or_default(),
            id: self.id(),
            at: self.timestamp.as_deref().unwrap_or_default(),
            actor: self.actor.as_ref().and_then(|a| a.name.as_deref()).unwrap_or_default(),
        })
    }
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let record: Record = json::from_json(request.body, Limits::PLAIN)?;
    let shape = |expected| FormatError::Shape { format: "acr", expected };
    let action = match record.action.as_deref().ok_or(shape("it has no `action`"))? {
        "push" | "chart_push" => Action::Push,
        "delete" | "chart_delete" => Action::Delete,
        "quarantine" => Action::Quarantine,
        "ping" => return Ok(Parsed::only_ignored(IgnoredReason::Ping, "")),
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    };
    let mut parsed = Parsed::default();
    parsed.claim(action, record.claim().ok_or(shape("it has no `target.repository`"))?);
    Ok(parsed)
}
