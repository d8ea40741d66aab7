//! Form-encoded bodies: GitHub and Gitea send `payload=<JSON>` where a webhook is configured so.

use std::borrow::Cow;

use super::Request;
use super::fault::FormatError;

/// The JSON of the body: the body itself, or its `payload` where the content type says it is a form.
pub(super) fn payload<'a>(request: &Request<'a>) -> Result<Cow<'a, [u8]>, FormatError> {
    let essence = request.headers.get("content-type").and_then(|text| text.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Cow::Borrowed(request.body));
    }
    let mut payloads = request.body.split(|b| *b == b'&').filter_map(|pair| pair.strip_prefix(b"payload="));
    match (payloads.next(), payloads.next()) {
        (Some(value), None) => decode(value).map(Cow::Owned).ok_or(FormatError::Form("a `%` without two digits")),
        (None, _) => Err(FormatError::Form("it has no `payload`")),
        (Some(_), Some(_)) => Err(FormatError::Form("it has more than one `payload`")),
    }
}

/// Percent-decoding, strictly: what is not well-formed is not guessed at.
pub(super) fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit()? * 16 + digit()?
            }
            other => *other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Headers;

    fn read(body: &str) -> Option<String> {
        let headers: Headers<'_> = [("Content-Type", "application/x-www-form-urlencoded")].into_iter().collect();
        let request = Request { method: "POST", headers: &headers, body: body.as_bytes() };
        payload(&request).ok().map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    #[test]
    fn t07_a_form_has_one_well_formed_payload() {
        assert_eq!(read("payload=%7B%22a%22%3A+1%7d"), Some(r#"{"a": 1}"#.into()));
        assert_eq!(read("x=1&payload=%7B%7D"), Some("{}".into()));
        for bad in ["", "x=1", "payload=%7", "payload=%zz", "payload=%", "payload=1&payload=2", "Payload=1", "{}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
