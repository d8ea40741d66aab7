//! Signatures against the published vector, and what keys and addresses are accepted.

use super::super::settings::{Auth, SettingsError};
use super::super::webhook::signature_headers;
use super::*;

fn signatures(keys: &[SigningKey], id: &str, second: i64, body: &str) -> Vec<String> {
    let headers = signature_headers(keys, id, Timestamp::from_second(second).unwrap(), body.as_bytes());
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn t57_public_vector() {
    assert_eq!(
        signatures(&[key()], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, r#"{"test": 2432232314}"#),
        [
            "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp: 1614265330",
            "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ]
    );
}

#[test]
fn t57_two_keys_sign_during_a_change() {
    let new = SigningKey::parse(&format!("whsec_{}", "QUFB".repeat(8)).into()).unwrap();
    let [old_only, new_only, both] =
        [vec![key()], vec![new.clone()], vec![new, key()]].map(|keys| signatures(&keys, "m", 1, "{}").pop().unwrap());
    let part = |line: &str| line.strip_prefix("webhook-signature: ").unwrap().to_owned();
    assert_eq!(part(&both), format!("{} {}", part(&new_only), part(&old_only)));
}

#[test]
fn without_a_key_there_is_no_signature() {
    assert_eq!(signatures(&[], "m", 1, "{}"), ["webhook-id: m", "webhook-timestamp: 1"]);
}

#[test]
fn t57_keys_have_24_to_64_bytes() {
    let encoded = |bytes: usize| {
        use base64::Engine as _;
        format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(vec![7_u8; bytes]))
    };
    for (text, good) in [
        (encoded(23), false),
        (encoded(24), true),
        (encoded(64), true),
        (encoded(65), false),
        ("whsec_".into(), false),
        ("whsec_!!!!".into(), false),
        (encoded(24)[6..].to_owned(), false),
    ] {
        assert_eq!(SigningKey::parse(&text.as_str().into()).is_ok(), good, "{text}");
    }
}

#[test]
fn t56_only_plain_addresses_are_addresses() {
    for good in [
        "https://hooks.slack.com/services/T0/B0/x",
        "http://127.0.0.1:9093",
        "https://prod-1.logic.azure.com:443/workflows/a/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=a-b_c",
    ] {
        let target = Target::new(good.into()).unwrap();
        assert_eq!(target.uri().unwrap().to_string().trim_end_matches('/'), good, "sent verbatim");
        assert_eq!(format!("{target:?}"), "Target(..)");
    }
    for bad in [
        "",
        "x",
        "/x",
        "ftp://a/b",
        "https://",
        "https://user:secret@a/b",
        "https://a/b#c",
        "https://a b",
        "file:///etc",
        "unix:/x",
    ] {
        let fault = Target::new(bad.into()).expect_err(bad);
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }
}

#[test]
fn links_begin_with_a_plain_base() {
    for bad in
        ["javascript:alert(1)", "x", "https://u:p@a", "https://a/?q", "https://a/|b", "https://a/(b)", "https://a/#f"]
    {
        assert!(matches!(Links::new(Some(bad), None), Err(SettingsError::Link(_))), "{bad}");
    }
    assert_eq!(links().list().unwrap(), "https://tidewaiter.example.com/");
    assert_eq!(links().reason("tag-moved").unwrap(), "https://docs.example.com/reasons/tag-moved");
}

#[test]
fn t62_credentials_are_headers_and_never_shown() {
    let auth = Auth::basic("tw", &"canary".into()).unwrap();
    assert_eq!(auth.header().unwrap(), "Basic dHc6Y2FuYXJ5");
    let bearer = Auth::bearer(&"canary".into()).unwrap();
    let mut shown = format!("{auth:?} {bearer:?} {:?}", bearer.header());
    shown += &format!("{:?}", settings("webhook", "https://example.com/canary"));
    shown += &format!("{:?}", settings("pagerduty", "https://example.com/canary"));
    assert!(!shown.contains("canary") && !shown.contains("R0000"), "{shown}");
    assert!(Auth::bearer(&"a\nb".into()).is_err() && Auth::basic("a:b", &"c".into()).is_err());
}
