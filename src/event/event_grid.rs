//! Azure Event Grid (event-schema-container-registry, webhook-event-delivery): the Event Grid schema and
//! CloudEvents 1.0, one event or a batch, and both handshakes.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::acr::Record;
use super::fault::FormatError;
use super::json::{self, JsonError, Limits, Object};
use super::{Action, Handshake, IgnoredReason, Parsed, Request};
use crate::image::Host;

/// Largest batch that a subscription can be set to, in events.
const BATCH_MAX: u32 = 5_000;
const LIMITS: Limits = Limits { items: BATCH_MAX, documents: &["data"] };
/// Longest validation code that is repeated to the sender; a UUID has 36.
const CODE_BYTES_MAX: usize = 256;
/// Highest rate of requests that is repeated in a handshake, per minute; the sender asks for 120.
const RATE_MAX: u32 = 1_000_000;
const FORMAT: &str = "event-grid";

/// An event of either schema: `type`, `source` in CloudEvents, `eventType`, `topic` in the Event Grid schema.
#[derive(Debug, Deserialize)]
struct Item<'a> {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<String>,
    #[serde(rename = "eventType")]
    event_type: Option<String>,
    topic: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Validation {
    #[serde(rename = "validationCode")]
    code: String,
}

pub(super) fn parse(request: &Request<'_>) -> Result<Parsed, FormatError> {
    if request.method == "OPTIONS" {
        return consent(request);
    }
    let first = request.body.iter().find(|b| !b.is_ascii_whitespace());
    if first != Some(&b'[') {
        let item: Item<'_> = json::from_json(request.body, LIMITS)?;
        let mut parsed = Parsed::default();
        read(&item, &mut parsed)?;
        return Ok(parsed);
    }
    let mut parsed = Parsed::default();
    let items: Vec<Result<Object<Item<'_>>, JsonError>> = match json::list_from_json(request.body, LIMITS) {
        Ok(items) => items.into_iter().map(Ok).collect(),
        // A batch is not lost for one of its items, so each is read on its own.
        Err(_) => {
            let items: Vec<&RawValue> = json::list_from_json(request.body, LIMITS)?;
            items.into_iter().map(|raw| json::from_scanned(raw.get())).collect()
        }
    };
    let alone = items.len() == 1;
    for item in items {
        match item.map_err(FormatError::from).and_then(|item| read(&item, &mut parsed)) {
            // A body that is nothing but that item is unreadable.
            Err(fault) if alone => return Err(fault),
            Err(fault) => parsed.ignore(IgnoredReason::Malformed, &fault.to_string()),
            Ok(()) => {}
        }
    }
    if !alone && parsed.handshake.take().is_some() {
        parsed.ignore(IgnoredReason::Malformed, "a validation event among others");
    }
    Ok(parsed)
}

fn read(item: &Item<'_>, parsed: &mut Parsed) -> Result<(), FormatError> {
    let shape = |expected| FormatError::Shape { format: FORMAT, expected };
    let (kind, origin) = match (&item.event_type, &item.kind) {
        (Some(kind), None) => (kind, &item.topic),
        (None, Some(kind)) => (kind, &item.source),
        _ => return Err(shape("it must have either `eventType` or `type`")),
    };
    // Older samples of the vendor have the short name alone.
    let action = match kind.strip_prefix("Microsoft.ContainerRegistry.").unwrap_or(kind) {
        "ImagePushed" | "ChartPushed" => Action::Push,
        "ImageDeleted" | "ChartDeleted" => Action::Delete,
        "Microsoft.EventGrid.SubscriptionValidationEvent" => {
            parsed.handshake = Some(validation(&data(item)?)?);
            return Ok(());
        }
        "Microsoft.EventGrid.SubscriptionDeletedEvent" => {
            parsed.ignore(IgnoredReason::Unsubscribed, "");
            return Ok(());
        }
        other => {
            parsed.ignore(IgnoredReason::UnknownEvent, other);
            return Ok(());
        }
    };
    let record: Record = data(item)?;
    let mut claim = record.claim().ok_or(shape("it has no `data.target.repository`"))?;
    // Charts and connected registries have no `request`: the name of the resource is left. It is wrong for
    // registries with a domain name label and for sovereign clouds, which the configuration's aliases cover.
    let derived = origin.as_deref().and_then(registry_of);
    if claim.registry.is_empty() {
        claim.registry = derived.as_deref().unwrap_or_default();
    }
    // The envelope's id is what a redelivery repeats.
    if let Some(id) = &item.id {
        claim.id = id;
    }
    parsed.claim(action, claim);
    Ok(())
}

/// The data of an event: an object, or the text of one, which the vendor's own decoders read as well.
fn data<T: for<'de> Deserialize<'de>>(item: &Item<'_>) -> Result<T, FormatError> {
    let raw = item.data.ok_or(FormatError::Shape { format: FORMAT, expected: "it has no `data`" })?.get();
    if raw.starts_with('"') {
        let text: String = json::from_scanned(raw)?;
        return Ok(json::from_text(&text, Limits::PLAIN)?);
    }
    Ok(json::from_scanned::<Object<T>>(raw)?.0)
}

/// `contoso.azurecr.io` from `…/registries/contoso` or `…/registries/contoso/connectedRegistries/plant7`.
fn registry_of(resource: &str) -> Option<String> {
    let (_, rest) = resource.split_once("/registries/")?;
    let name = rest.split('/').next()?;
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    good.then(|| format!("{name}.azurecr.io"))
}

/// The handshake of the Event Grid schema: the code is repeated, and the status must be 200.
fn validation(validation: &Validation) -> Result<Handshake, FormatError> {
    let code = &validation.code;
    if code.is_empty() || code.len() > CODE_BYTES_MAX {
        return Err(FormatError::Shape { format: FORMAT, expected: "`data.validationCode` must be a short text" });
    }
    let body = json!({ "validationResponse": code }).to_string();
    Ok(Handshake::Answer { status: 200, headers: Vec::new(), body: Some(body) })
}

/// The handshake of CloudEvents (cloudevents/http-webhook.md, 4): consent is in the headers.
fn consent(request: &Request<'_>) -> Result<Parsed, FormatError> {
    const ORIGIN: &str = "WebHook-Request-Origin";
    const RATE: &str = "WebHook-Request-Rate";
    let only = |name| match request.headers.only(name) {
        Ok(value) => Ok(value.map(|v| std::str::from_utf8(v).unwrap_or_default())),
        Err(_) => Err(FormatError::HeaderRepeated(name)),
    };
    let origin = only(ORIGIN)?.ok_or(FormatError::HeaderMissing(ORIGIN))?;
    let origin: Host =
        origin.parse().map_err(|_| FormatError::Header { name: ORIGIN, expected: "it must be a host name" })?;
    let rate = match only(RATE)? {
        None => "*".to_owned(),
        Some(text) => match text.parse::<u32>() {
            Ok(rate @ 1..=RATE_MAX) => rate.to_string(),
            _ => return Err(FormatError::Header { name: RATE, expected: "it must be a number of requests a minute" }),
        },
    };
    let headers = vec![
        ("WebHook-Allowed-Origin", origin.to_string()),
        ("WebHook-Allowed-Rate", rate),
        ("Allow", "POST, OPTIONS".to_owned()),
    ];
    let handshake = Handshake::Answer { status: 200, headers, body: None };
    Ok(Parsed { handshake: Some(handshake), ..Parsed::default() })
}
