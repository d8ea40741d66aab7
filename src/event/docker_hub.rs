//! Docker Hub webhooks: a tag was pushed. No digest, no id, no other events.

use serde::Deserialize;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::{Action, Parsed, Request};

/// What the registry's own references begin with; the body does not name it.
const HOST: &str = "docker.io";
/// The overview page of a repository has up to 25,000 characters, and the Dockerfile was sent as well.
const LIMITS: Limits = Limits::with_documents(&["full_description", "dockerfile"]);

#[derive(Debug, Deserialize)]
struct Notification {
    push_data: Object<PushData>,
    repository: Object<Repository>,
}

#[derive(Debug, Deserialize)]
struct PushData {
    tag: String,
    pusher: Option<String>,
    /// Seconds; older samples have a fraction.
    pushed_at: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    repo_name: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let notification: Notification = json::from_json(request.body, LIMITS)?;
    let repository = notification.repository.full_name().ok_or(FormatError::Shape {
        format: "docker-hub",
        expected: "`repository` must have `repo_name`, or `namespace` and `name`",
    })?;
    let push = &notification.push_data;
    // The cast saturates, and a time that far away is none.
    let at = push.pushed_at.and_then(|seconds| jiff::Timestamp::from_second(seconds as i64).ok());
    let mut parsed = Parsed::default();
    parsed.claim(
        Action::Push,
        Claim {
            registry: HOST,
            repository: &repository,
            tag: &push.tag,
            at: &at.map(|at| at.to_string()).unwrap_or_default(),
            actor: push.pusher.as_deref().unwrap_or_default(),
            ..Claim::default()
        },
    );
    Ok(parsed)
}

impl Repository {
    fn full_name(&self) -> Option<String> {
        match (&self.repo_name, &self.namespace, &self.name) {
            // An official image is written without its namespace.
            (Some(name), ..) if !name.contains('/') => Some(format!("library/{name}")),
            (Some(name), ..) => Some(name.clone()),
            (None, Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            _ => None,
        }
    }
}
