//! Amazon ECR, by EventBridge: delivered as it is, through an SNS topic (wrapped or raw), or in the
//! CloudEvents shape that a common input transformer makes. All three name no registry; its address follows
//! from account and region.

use serde::Deserialize;

use super::claim::Claim;
use super::fault::FormatError;
use super::json::{self, Limits, Object};
use super::sns;
use super::{Action, Handshake, IgnoredReason, Parsed, Request};

/// An event stands as text within a message.
const LIMITS: Limits = Limits::with_documents(&["Message"]);

/// Any of the shapes; which one it is, one key tells.
#[derive(Debug, Deserialize)]
struct Body {
    // SNS
    #[serde(rename = "Type")]
    sns_type: Option<String>,
    #[serde(rename = "TopicArn")]
    topic: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    // EventBridge
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    account: Option<String>,
    region: Option<String>,
    detail: Option<Object<Detail>>,
    // CloudEvents
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<String>,
    data: Option<Object<Data>>,
    // both
    id: Option<String>,
    time: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Detail {
    result: Option<String>,
    #[serde(rename = "action-type")]
    action: Option<String>,
    #[serde(rename = "repository-name")]
    repository: Option<String>,
    #[serde(rename = "image-digest")]
    digest: Option<String>,
    #[serde(rename = "image-tag")]
    tag: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Data {
    #[serde(rename = "repositoryName")]
    repository: String,
    #[serde(rename = "imageDigest")]
    digest: Option<String>,
    #[serde(rename = "imageTag")]
    tag: Option<String>,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    let body: Body = json::from_json(request.body, LIMITS)?;
    let shape = |expected| FormatError::Shape { format: "ecr", expected };
    match body.sns_type.as_deref() {
        None => read(&body),
        Some("Notification") => {
            let message = body.message.as_deref().ok_or(shape("it has no `Message`"))?;
            // One level only: what is in the message is an event, never another message.
            read(&json::from_text(message, Limits::PLAIN)?)
        }
        Some("SubscriptionConfirmation") => {
            let topic = body.topic.ok_or(shape("it has no `TopicArn`"))?;
            let url = body.subscribe_url.filter(|url| sns::url_is_of_the_service(url));
            let url = url.ok_or(shape("`SubscribeURL` must be at sns.<region>.amazonaws.com"))?;
            Ok(Parsed { handshake: Some(Handshake::Confirm { topic, url }), ..Parsed::default() })
        }
        // Its SubscribeURL would subscribe again.
        Some("UnsubscribeConfirmation") => Ok(Parsed::only_ignored(IgnoredReason::Unsubscribed, "")),
        Some(other) => Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    }
}

fn read(body: &Body) -> Result<Parsed, FormatError> {
    match (body.detail_type.as_deref(), body.kind.as_deref()) {
        (Some("ECR Image Action"), None) => image_action(body),
        (Some("ECR Image Scan" | "ECR Scan Resource Change"), None) => {
            Ok(Parsed::only_ignored(IgnoredReason::Scan, ""))
        }
        (Some(other), None) => Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
        (None, Some("com.amazon.ecr.image.push")) => transformed(Action::Push, body),
        (None, Some("com.amazon.ecr.image.delete")) => transformed(Action::Delete, body),
        (None, Some(other)) => Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
        _ => Err(FormatError::Shape { format: "ecr", expected: "it must have either `detail-type` or `type`" }),
    }
}

fn image_action(body: &Body) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "ecr", expected };
    let detail = body.detail.as_ref().ok_or(shape("it has no `detail`"))?;
    if detail.result.as_deref() != Some("SUCCESS") {
        return Ok(Parsed::only_ignored(IgnoredReason::NotDone, detail.result.as_deref().unwrap_or_default()));
    }
    let action = match detail.action.as_deref().unwrap_or_default() {
        "PUSH" => Action::Push,
        "DELETE" => Action::Delete,
        other => return Ok(Parsed::only_ignored(IgnoredReason::UnknownEvent, other)),
    };
    let account = body.account.as_deref().ok_or(shape("it has no `account`"))?;
    let region = body.region.as_deref().ok_or(shape("it has no `region`"))?;
    let repository = detail.repository.as_deref().ok_or(shape("it has no `detail.repository-name`"))?;
    Ok(claim(body, action, &host(account, region), repository, detail.tag.as_deref(), detail.digest.as_deref()))
}

fn transformed(action: Action, body: &Body) -> Result<Parsed, FormatError> {
    let shape = |expected| FormatError::Shape { format: "ecr", expected };
    let data = body.data.as_ref().ok_or(shape("it has no `data`"))?;
    // urn:aws:ecr:REGION:ACCOUNT:repository/NAME
    let mut parts = body.source.as_deref().unwrap_or_default().splitn(6, ':');
    let (region, account) = (parts.nth(3), parts.next());
    let (Some(region), Some(account)) = (region, account) else {
        return Err(shape("`source` must be urn:aws:ecr:REGION:ACCOUNT:repository/NAME"));
    };
    Ok(claim(body, action, &host(account, region), &data.repository, data.tag.as_deref(), data.digest.as_deref()))
}

fn claim(
    body: &Body,
    action: Action,
    registry: &str,
    repository: &str,
    tag: Option<&str>,
    digest: Option<&str>,
) -> Parsed {
    let (tag, digest) = (tag.unwrap_or_default(), digest.unwrap_or_default());
    if tag.is_empty() && digest.is_empty() {
        return Parsed::only_ignored(IgnoredReason::Malformed, "neither a tag nor a digest");
    }
    let (id, at) = (body.id.as_deref().unwrap_or_default(), body.time.as_deref().unwrap_or_default());
    let mut parsed = Parsed::default();
    parsed.claim(action, Claim { registry, repository, tag, digest, id, at, actor: "" });
    parsed
}

/// The registry of an account in a region. Text that is no account or region makes no host, which is refused.
fn host(account: &str, region: &str) -> String {
    let good = account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let host = format!("{account}.dkr.ecr.{region}.{suffix}");
    if good { host } else { format!("?{host}") }
}
