//! Alibaba Cloud Container Registry webhooks: pushes only, no id; the time has no zone and is not read.

use serde::Deserialize;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, Parsed, Request};

#[derive(Debug, Deserialize)]
struct Notification {
    push_data: Object<PushData>,
    repository: Object<Repository>,
}

#[derive(Debug, Deserialize)]
struct PushData {
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    repo_full_name: String,
    region: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let Notification { push_data, repository } = json::from_json(request.body, Limits::PLAIN)?;
    // Wrong for instances of the Enterprise Edition, whose hosts the body does not name: a source's configured
    // registry and its aliases decide.
    let registry = match repository.region.as_deref().unwrap_or_default() {
        "" => String::new(),
        region => format!("registry.{region}.aliyuncs.com"),
    };
    let mut parsed = Parsed::default();
    parsed.claim(
        Action::Push,
        Claim {
            registry: &registry,
            repository: &repository.repo_full_name,
            tag: push_data.tag.as_deref().unwrap_or_default(),
            digest: push_data.digest.as_deref().unwrap_or_default(),
            ..Claim::default()
        },
    );
    Ok(parsed)
}
