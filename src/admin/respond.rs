//! The answers of the admin listener, and what becomes of its faults.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::listen::Answer;
use crate::metrics;
use crate::store::StoreError;

/// The page loads its own script and style, asks its own API, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Fault {
    NotFound,
    Method {
        allowed: Vec<&'static str>,
    },
    Unauthenticated,
    NoToken,
    ForeignName,
    MediaType,
    TooLarge,
    /// The body did not come, or not whole.
    Body,
    /// The caller's mistake, for people.
    Invalid(String),
    /// There is no such thing on record.
    Unknown(String),
    /// It may work later.
    Unavailable(String),
    Store(StoreError),
}

impl Fault {
    pub(super) fn answer(self) -> Answer {
        let (status, message) = match self {
            Fault::NotFound => (StatusCode::NOT_FOUND, "not found; /openapi.json lists what is there".to_owned()),
            Fault::Method { allowed } => {
                let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "not by this method");
                let allowed = HeaderValue::from_str(&allowed.join(", "));
                allowed.into_iter().for_each(|allowed| {
                    answer.headers_mut().insert(ALLOW, allowed);
                });
                return answer;
            }
            Fault::Unauthenticated => {
                let answer = error(StatusCode::UNAUTHORIZED, "send the admin token as `Authorization: Bearer …`");
                return with(answer, WWW_AUTHENTICATE, "Bearer realm=\"tidewaiter\"");
            }
            Fault::NoToken => (
                StatusCode::FORBIDDEN,
                "this changes the record and needs a token: set `admin.tokenFile` or `admin.tokenEnv`, and send it \
                 as `Authorization: Bearer …`"
                    .to_owned(),
            ),
            Fault::ForeignName => (
                StatusCode::FORBIDDEN,
                "without a token the API answers on this machine under `localhost` and addresses only".to_owned(),
            ),
            Fault::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json".to_owned()),
            Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB".to_owned()),
            Fault::Body => (StatusCode::BAD_REQUEST, "the body did not come whole and in time".to_owned()),
            Fault::Invalid(message) => (StatusCode::BAD_REQUEST, message),
            Fault::Unknown(message) => (StatusCode::NOT_FOUND, message),
            Fault::Unavailable(message) => return unavailable(&message),
            Fault::Store(error @ StoreError::NotCurrent(_)) => (StatusCode::CONFLICT, error.to_string()),
            Fault::Store(error @ StoreError::Cursor(_)) => (StatusCode::BAD_REQUEST, error.to_string()),
            // Where the store lies and how it is damaged is for the log.
            Fault::Store(StoreError::Damaged { what, .. }) => {
                return unavailable(&format!("the store is damaged at {what}"));
            }
            Fault::Store(StoreError::Broken(_) | StoreError::InUse { .. } | StoreError::Newer { .. }) => {
                return unavailable("the store cannot be used");
            }
            Fault::Store(error) => return unavailable(&error.to_string()),
        };
        error(status, &message)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        let callers = matches!(error, StoreError::NotCurrent(_) | StoreError::Cursor(_));
        if !callers && !error.is_transient() {
            tracing::error!(%error, "the admin API could not be answered");
        }
        Fault::Store(error)
    }
}

fn error(status: StatusCode, message: &str) -> Answer {
    json(status, &json!({ "error": message }))
}

fn unavailable(message: &str) -> Answer {
    with(error(StatusCode::SERVICE_UNAVAILABLE, message), RETRY_AFTER, "5")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let answer = with(answer, CONTENT_TYPE, content_type);
    with(with(answer, CACHE_CONTROL, "no-store"), X_CONTENT_TYPE_OPTIONS, "nosniff")
}

/// A JSON document.
pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    raw_json(status, value.to_string())
}

/// A text that is JSON already.
pub(super) fn raw_json(status: StatusCode, text: String) -> Answer {
    plain(status, "application/json", Bytes::from(text))
}

pub(super) fn text(text: &'static str) -> Answer {
    plain(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

pub(super) fn metrics(text: String) -> Answer {
    plain(StatusCode::OK, metrics::CONTENT_TYPE, Bytes::from(text))
}

pub(super) fn file(content_type: &'static str, text: &'static str) -> Answer {
    plain(StatusCode::OK, content_type, Bytes::from_static(text.as_bytes()))
}

/// A part of the console.
pub(super) fn page(content_type: &'static str, text: &'static str) -> Answer {
    let answer = with(file(content_type, text), CONTENT_SECURITY_POLICY, POLICY);
    with(with(answer, X_FRAME_OPTIONS, "DENY"), REFERRER_POLICY, "no-referrer")
}

/// Ready, or why not.
pub(super) fn ready(reasons: &[String]) -> Answer {
    match reasons {
        [] => json(StatusCode::OK, &json!({ "ready": true, "reasons": [] })),
        _ => json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reasons": reasons })),
    }
}
