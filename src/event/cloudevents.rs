//! CloudEvents 1.0 over HTTP: the attributes of an event, whether they stand in headers (binary mode) or
//! around the data (structured mode). Source: cloudevents/spec, cloudevents/bindings/http-protocol-binding.md.

use serde::Deserialize;

use super::Request;
use super::fault::FormatError;
use super::json::{self, Limits, Object};

/// The attributes that formats read; empty where absent.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub kind: String,
    pub id: String,
    pub time: String,
    /// An extension that Harbor adds: who did it.
    pub operator: String,
}

#[derive(Debug, Deserialize)]
struct Structured<T> {
    specversion: String,
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    time: Option<String>,
    operator: Option<String>,
    data: Object<T>,
}

/// Whether the body carries its own attributes, by its content type.
pub(super) fn is_structured(request: &Request<'_>) -> bool {
    let essence = request.headers.get("content-type").and_then(|text| text.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/cloudevents+json")
}

/// Reads an event of structured mode.
pub(super) fn structured<'de, T: Deserialize<'de>>(
    body: &'de [u8],
    limits: Limits,
) -> Result<(Attributes, T), FormatError> {
    let event: Structured<T> = json::from_json(body, limits)?;
    if event.specversion != "1.0" {
        return Err(FormatError::Shape { format: "CloudEvents", expected: "`specversion` must be 1.0" });
    }
    let attributes = Attributes {
        kind: event.kind,
        id: event.id.unwrap_or_default(),
        time: event.time.unwrap_or_default(),
        operator: event.operator.unwrap_or_default(),
    };
    Ok((attributes, event.data.0))
}

/// Reads an event of binary mode: the attributes from `Ce-*` headers, the data from the body.
pub(super) fn binary<'de, T: Deserialize<'de>>(
    request: &Request<'de>,
    limits: Limits,
) -> Result<(Attributes, T), FormatError> {
    let header = |name: &'static str| match request.headers.only(name) {
        Ok(value) => Ok(value.and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default().to_owned()),
        Err(_) => Err(FormatError::HeaderRepeated(name)),
    };
    let attributes = Attributes {
        kind: header("Ce-Type")?,
        id: header("Ce-Id")?,
        time: header("Ce-Time")?,
        operator: String::new(),
    };
    if attributes.kind.is_empty() {
        return Err(FormatError::HeaderMissing("Ce-Type"));
    }
    Ok((attributes, json::from_json(request.body, limits)?))
}
