//! The only place where what went wrong becomes a status and a public text.
//!
//! Answers follow what senders do with them (events documentation; T-15): never a redirect, never 410, 503
//! for whatever may work later. Refusals for missing and wrong credentials are the same to the last byte.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use crate::event::Handshake;
use crate::listen::Answer;
use crate::store::StoreError;

/// Seconds after which a sender may try again what a burst was in the way of.
const SOON: &str = "1";
/// The same for a store that is out of reach.
const LATER: &str = "5";
/// The same for what somebody must first mend, or the judging must first catch up with.
const MUCH_LATER: &str = "30";

/// Why a request was not recorded.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No such path or source.
    NotFound,
    /// The source is there, the method is not.
    Method {
        /// Whether OPTIONS is.
        options: bool,
    },
    /// The target is over the limit.
    TargetTooLong,
    /// Not authentic, whatever the reason.
    Unauthenticated,
    /// What proves it authentic cannot be fetched now.
    KeyUnavailable,
    /// A body that is encoded, or of a type that the format does not have.
    MediaType,
    /// The body is over the limit.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body did not come in time.
    BodySlow,
    /// The body's framing is wrong, or the connection broke.
    BodyBroken,
    /// As much is being recorded as may be at once.
    Busy,
    /// Recording took too long; it may or may not have happened, and a redelivery does no harm.
    Late,
    /// The store refused.
    Store(StoreError),
    /// The sender asked, and may not.
    Denied {
        /// Why, bounded and without control characters.
        reason: String,
    },
}

impl Refusal {
    pub(super) fn answer(&self) -> Answer {
        match self {
            Refusal::NotFound => text(StatusCode::NOT_FOUND, "not found"),
            Refusal::Method { options } => {
                let allow = if *options { "POST, OPTIONS" } else { "POST" };
                with(text(StatusCode::METHOD_NOT_ALLOWED, "events come by POST"), ALLOW, allow)
            }
            Refusal::TargetTooLong => close(text(StatusCode::URI_TOO_LONG, "the address is too long")),
            Refusal::Unauthenticated => {
                let answer = text(StatusCode::UNAUTHORIZED, "the credential is missing or wrong");
                with(answer, WWW_AUTHENTICATE, "Basic realm=\"tidewaiter\"")
            }
            Refusal::MediaType => text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be plain, not encoded, of the content type that this source's format has",
            ),
            Refusal::TooLarge { limit } => {
                close(text(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is larger than {limit} bytes")))
            }
            Refusal::BodySlow => close(text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
            Refusal::BodyBroken => close(text(StatusCode::BAD_REQUEST, "the body's framing is wrong")),
            Refusal::KeyUnavailable => unavailable(LATER, "the key that proves this cannot be fetched now"),
            Refusal::Busy => unavailable(SOON, "too many events at once"),
            Refusal::Late => unavailable(LATER, "recording took too long"),
            Refusal::Store(error) => match error {
                StoreError::BacklogFull { .. } => unavailable(MUCH_LATER, "the backlog is full"),
                StoreError::DiskFull => unavailable(MUCH_LATER, "the store has no space left"),
                _ => unavailable(LATER, "the store cannot record now"),
            },
            Refusal::Denied { reason } => {
                let body = serde_json::json!({ "error": reason }).to_string();
                json(StatusCode::FORBIDDEN, body)
            }
        }
    }
}

/// What became of the items of a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub recorded: u64,
    pub duplicate: u64,
    pub ignored: u64,
    pub dead: u64,
}

impl Tally {
    /// The answer once everything is durable.
    pub(super) fn answer(self) -> Answer {
        let Tally { recorded, duplicate, ignored, dead } = self;
        json(
            StatusCode::ACCEPTED,
            format!("{{\"recorded\":{recorded},\"duplicate\":{duplicate},\"ignored\":{ignored},\"dead\":{dead}}}"),
        )
    }
}

/// The answer that a sender's handshake asks for; `None` for one that is not an answer.
pub(super) fn handshake(handshake: &Handshake) -> Option<Answer> {
    let Handshake::Answer { status, headers, body } = handshake else { return None };
    let status = StatusCode::from_u16(*status).ok()?;
    let mut answer = match body {
        Some(body) => json(status, body.clone()),
        None => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = status;
            answer
        }
    };
    for (name, value) in headers {
        // Header names of formats are constants; a value that cannot stand in a header is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    Some(answer)
}

fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// `message` must not need escaping: it is our own.
fn text(status: StatusCode, message: &str) -> Answer {
    json(status, format!("{{\"error\":\"{message}\"}}"))
}

fn unavailable(retry_after: &'static str, message: &str) -> Answer {
    with(text(StatusCode::SERVICE_UNAVAILABLE, message), RETRY_AFTER, retry_after)
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

/// Where the message's end is not known or not waited for, the connection ends.
fn close(answer: Answer) -> Answer {
    with(answer, CONNECTION, "close")
}
