//! Why a whole request is not what its format says.

use super::json::JsonError;

/// A body that cannot be read as its source's format: kept as a dead letter by the listener, exit code 2 for
/// the command line.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not JSON, or JSON of another shape, or beyond the limits.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// JSON of the right outline that lacks what every such event has.
    #[error("the body is not what `{format}` sends: {expected}")]
    Shape {
        /// What the body was read as.
        format: &'static str,
        /// What was looked for.
        expected: &'static str,
    },
    /// A header that the format cannot do without.
    #[error("the request has no `{0}` header, which says what the body is")]
    HeaderMissing(&'static str),
    /// A header that may be there only once.
    #[error("the request has more than one `{0}` header")]
    HeaderRepeated(&'static str),
    /// A header with an unusable value.
    #[error("the `{name}` header is not usable: {expected}")]
    Header {
        /// Its name.
        name: &'static str,
        /// What was looked for.
        expected: &'static str,
    },
    /// A form-encoded body without a readable `payload`.
    #[error("the form-encoded body is not usable: {0}")]
    Form(&'static str),
    /// A base64 field that is none.
    #[error("`{0}` is not base64")]
    Base64(&'static str),
    /// A method by which this format sends nothing.
    #[error("events of this format come by POST")]
    Method,
}
