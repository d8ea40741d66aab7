//! Signatures and tokens against real ones: every signature in the samples' headers, SNS messages signed by a
//! certificate made for this test, tokens signed here. The shared key of all samples is in their description.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use tidewaiter::event::Headers;
use tidewaiter::event::authenticity::{
    Algorithm, Credential, Encoding, Expected, Identity, KeySet, Refused, Secrets, SnsMessage, bearer_token,
    signing_cert_url_is_trusted, verify_token,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn hmac(header: &str, algorithm: Algorithm, prefix: &str, key: &str) -> Credential {
    Credential::Hmac {
        header: header.into(),
        algorithm,
        encoding: Encoding::Hex,
        prefix: prefix.into(),
        secrets: Secrets::new(vec![SecretString::from(key)]).unwrap(),
    }
}

/// The signatures of all senders that sign, over the samples as they came.
#[test]
fn t01_the_senders_signatures_are_right() {
    let schemes = [
        ("github", "X-Hub-Signature-256", Algorithm::Sha256, "sha256=", 4),
        ("github", "X-Hub-Signature", Algorithm::Sha1, "sha1=", 4),
        ("gitea", "X-Gitea-Signature", Algorithm::Sha256, "", 4),
        ("gitea", "X-Hub-Signature-256", Algorithm::Sha256, "sha256=", 4),
        ("nexus", "X-Nexus-Webhook-Signature", Algorithm::Sha1, "", 5),
        ("artifactory", "X-JFrog-Event-Auth", Algorithm::Sha256, "", 4),
        ("angos", "X-Registry-Signature-256", Algorithm::Sha256, "sha256=", 8),
    ];
    for (format, header, algorithm, prefix, at_least) in schemes {
        let right = hmac(header, algorithm, prefix, "example-shared-secret");
        let wrong = hmac(header, algorithm, prefix, "example-shared-secre");
        let mut checked = 0;
        for entry in fs::read_dir(data("events").join(format)).unwrap() {
            let path = entry.unwrap().path();
            let Some(body) = path.to_str().and_then(|p| p.strip_suffix(".http-headers")) else { continue };
            let (text, body) = (fs::read_to_string(&path).unwrap(), bytes(Path::new(&format!("{body}.json"))));
            let headers = Headers::from_lines(&text).unwrap();
            let check = |credential: &Credential, body: &[u8]| credential.check_head(&headers, "")?.check_body(body);
            match check(&right, &body) {
                Ok(()) => {
                    checked += 1;
                    assert_eq!(check(&wrong, &body), Err(Refused::Wrong), "{}", path.display());
                    assert_eq!(check(&right, &[&body[..], b"\n"].concat()), Err(Refused::Wrong), "{}", path.display());
                }
                // Made samples carry no signature.
                Err(Refused::Missing) => assert!(path.to_string_lossy().contains("/made-"), "{}", path.display()),
                // One sample of Artifactory carries the secret itself.
                fault => assert_eq!(fault, Err(Refused::Malformed), "{}", path.display()),
            }
        }
        assert!(checked >= at_least, "{format} {header}: {checked} signatures");
    }
}

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn t01_sns_messages_are_verified() {
    let certificate = bytes(&data("authenticity/sns-signing.der"));
    for name in [
        "sns-notification.v1",
        "sns-notification.v2",
        "sns-notification-subject.v2",
        "sns-subscription-confirmation.v1",
        "sns-unsubscribe-confirmation.v2",
    ] {
        let body = bytes(&data("authenticity").join(format!("{name}.json")));
        let value: Value = serde_json::from_slice(&body).unwrap();
        let message = SnsMessage::read(&body).unwrap();
        assert_eq!(message.verify(&certificate, now()), Ok(()), "{name}");
        assert_eq!(message.topic(), "arn:aws:sns:eu-west-1:123456789012:ecr-events");
        assert!(signing_cert_url_is_trusted(message.signing_cert_url()));

        let verify = |change: &dyn Fn(&mut Value)| {
            let mut changed = value.clone();
            change(&mut changed);
            SnsMessage::read(changed.to_string().as_bytes()).and_then(|m| m.verify(&certificate, now()))
        };
        for key in ["Message", "MessageId", "Timestamp", "TopicArn", "Subject"] {
            assert_eq!(
                verify(&|v| v[key] = json!("other")).is_err(),
                key != "Subject" || name.contains("notification"),
                "{name} {key}"
            );
        }
        for version in ["", "0", "3", "01"] {
            assert!(verify(&|v| v["SignatureVersion"] = json!(version)).is_err(), "{name} {version}");
        }
        let other = if name.ends_with("v1") { "2" } else { "1" };
        assert_eq!(verify(&|v| v["SignatureVersion"] = json!(other)), Err(Refused::Wrong), "{name}");
        assert_eq!(verify(&|v| v["Signature"] = json!("RVhBTVBMRQ==")), Err(Refused::Wrong), "{name}");
        assert_eq!(verify(&|v| v["Signature"] = json!("")), Err(Refused::Wrong), "{name}");
        assert!(verify(&|v| v["SigningCertURL"] = json!("https://evil.example/a.pem")).is_err());

        assert_eq!(message.verify(&certificate, "2020-01-01T00:00:00Z".parse().unwrap()), Err(Refused::Expired));
        assert_eq!(message.verify(b"", now()), Err(Refused::Malformed));
        assert!(message.verify(&certificate[..certificate.len() - 1], now()).is_err());
    }
    let raw = bytes(&data("events/ecr/sns-notification-raw.json"));
    assert!(SnsMessage::read(&raw).is_err(), "a raw delivery has no signature");
}

#[test]
fn t18_certificates_come_from_the_service_only() {
    assert!(signing_cert_url_is_trusted("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"));
    for bad in [
        "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem",
        "http://sns.eu-west-1.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com/a",
        "https://sns.eu-west-1.amazonaws.com/?x=a.pem",
        "https://sns.eu-west-1.amazonaws.com/x#a.pem",
        "https://bucket.s3.amazonaws.com/a.pem",
    ] {
        assert!(!signing_cert_url_is_trusted(bad), "{bad}");
    }
}

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static EC: LazyLock<EcdsaKeyPair> = LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn keys() -> KeySet {
    let (_, public) = RSAPublicKey::from_der(RSA.public_key().as_ref()).unwrap();
    let (n, e) = (public.modulus.iter().copied().skip_while(|b| *b == 0).collect::<Vec<_>>(), public.exponent);
    let point = EC.public_key().as_ref();
    let set = json!({"keys": [
        {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": encode([&[0], &n[..]].concat()), "e": encode(e)},
        {"kty": "EC", "kid": "ec", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])},
        {"kty": "RSA", "kid": "encryption", "use": "enc", "n": encode(&n), "e": "AQAB"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "EC", "kid": "curve", "crv": "P-384", "x": "AA", "y": "AA"},
    ]});
    KeySet::from_json(set.to_string().as_bytes()).unwrap()
}

fn sign(header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let random = SystemRandom::new();
    let signature = if header["kid"] == "ec" {
        EC.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec()
    } else {
        let mut signature = vec![0; RSA.public_modulus_len()];
        RSA.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
        signature
    };
    format!("{signed}.{}", encode(signature))
}

fn claims() -> Value {
    json!({"iss": "https://accounts.google.com", "aud": "https://tide.example/v1/events/gar", "sub": "1071",
           "email": "push@contoso.iam.gserviceaccount.com", "email_verified": true, "azp": "app",
           "iat": now().as_second(), "exp": now().as_second() + 3600})
}

fn expected(identity: Identity) -> Expected {
    Expected {
        issuer: "https://accounts.google.com".into(),
        audience: "https://tide.example/v1/events/gar".into(),
        identity,
    }
}

fn by_email() -> Expected {
    expected(Identity::Email("push@contoso.iam.gserviceaccount.com".into()))
}

fn check(header: Value, claims: &Value, expected: &Expected) -> Result<(), Refused> {
    verify_token(&sign(&header, claims), &keys(), expected, now())
}

#[test]
fn t01_a_token_needs_the_right_issuer_audience_and_identity() {
    let rsa = || json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"});
    let ec = || json!({"alg": "ES256", "kid": "ec"});
    assert_eq!(check(rsa(), &claims(), &by_email()), Ok(()));
    assert_eq!(check(ec(), &claims(), &by_email()), Ok(()));
    assert_eq!(check(ec(), &claims(), &expected(Identity::Subject("1071".into()))), Ok(()));
    assert_eq!(check(ec(), &claims(), &expected(Identity::Application("app".into()))), Ok(()));
    assert_eq!(check(ec(), &claims(), &expected(Identity::Subject("other".into()))), Err(Refused::Wrong));

    let with = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        check(ec(), &claims, &by_email())
    };
    assert_eq!(with("aud", json!(["x", "https://tide.example/v1/events/gar"])), Ok(()));
    for (key, value) in [
        ("iss", json!("accounts.google.com")),
        ("iss", json!("https://accounts.google.com.evil.example")),
        ("aud", json!("https://tide.example/v1/events/other")),
        ("aud", json!([])),
        ("email", json!("other@contoso.iam.gserviceaccount.com")),
        ("email", json!(null)),
        ("email_verified", json!(false)),
        ("email_verified", json!(null)),
    ] {
        assert_eq!(with(key, value.clone()), Err(Refused::Wrong), "{key} {value}");
    }
    for (key, value) in
        [("email_verified", json!("true")), ("exp", json!("soon")), ("exp", json!(null)), ("aud", json!(1))]
    {
        assert_eq!(with(key, value.clone()), Err(Refused::Malformed), "{key} {value}");
    }
    let second = now().as_second();
    for (key, value, result) in [
        ("exp", second - 59, Ok(())),
        ("exp", second - 60, Err(Refused::Expired)),
        ("nbf", second + 60, Ok(())),
        ("nbf", second + 61, Err(Refused::Expired)),
    ] {
        assert_eq!(with(key, json!(value)), result, "{key} {}", value - second);
    }
}

#[test]
fn t01_a_token_is_verified_by_the_keys_own_algorithm() {
    let good = sign(&json!({"alg": "ES256", "kid": "ec"}), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    for (header, refused) in [
        (json!({"alg": "none", "kid": "ec"}), Refused::Malformed),
        (json!({"alg": "HS256", "kid": "rsa"}), Refused::Malformed),
        (json!({"alg": "RS256", "kid": "ec"}), Refused::Wrong),
        (json!({"alg": "ES256", "kid": "rsa"}), Refused::Wrong),
        (json!({"alg": "RS256", "kid": "encryption"}), Refused::UnknownKey),
        (json!({"alg": "RS256", "kid": "shared"}), Refused::UnknownKey),
        (json!({"alg": "RS256"}), Refused::Malformed),
        (json!({"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false}), Refused::Malformed),
    ] {
        assert_eq!(check(header.clone(), &claims(), &by_email()), Err(refused), "{header}");
    }
    let swapped = format!("{}.{}.{}", parts[0], encode(json!({"iss": "x"}).to_string()), parts[2]);
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    for bad in [swapped, unsigned] {
        assert_eq!(verify_token(&bad, &keys(), &by_email(), now()), Err(Refused::Wrong), "{bad}");
    }
    let long = format!("{good}{}", "A".repeat(9000));
    for bad in ["", ".", "..", "a.b.c", "a.b.c.d", &format!("{good}."), &format!("{good}="), &format!(" {good}"), &long]
    {
        assert!(verify_token(bad, &keys(), &by_email(), now()).is_err(), "{bad}");
    }
}

#[test]
fn t02_one_bearer_token() {
    let token = |fields: &[(&str, &str)]| bearer_token(&fields.iter().copied().collect()).map(str::to_owned);
    assert_eq!(token(&[("authorization", "Bearer a.b.c")]), Ok("a.b.c".into()));
    assert_eq!(token(&[]), Err(Refused::Missing));
    assert_eq!(token(&[("Authorization", "Basic a")]), Err(Refused::Malformed));
    assert_eq!(token(&[("Authorization", "Bearer")]), Err(Refused::Malformed));
    assert_eq!(token(&[("Authorization", "Bearer a"), ("Authorization", "Bearer a")]), Err(Refused::Repeated));
    assert!(KeySet::from_json(b"{}").is_err() && KeySet::from_json(b"{\"keys\":[],\"keys\":[]}").is_err());
}
