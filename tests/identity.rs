//! What proves who sends is fetched from where the configuration says and nowhere else, seldom, and in bounds.

#![expect(clippy::disallowed_methods, reason = "tokens are made for the real time, as a sender makes them")]

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use support::fake::{Fake, Reply, Then};
use support::tls::Ca;
use tidewaiter::event::authenticity::{Expected, Identity, Refused, verify_token};
use tidewaiter::identity::{Certificates, Fetch, Issuer, Reach, Subscriptions};
use tidewaiter::intake::{CertificateSource, Confirm, KeySource, NoCertificate};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ecr-events";
const SNS: &str = "sns.eu-west-1.amazonaws.com";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A signing key under an id.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Signer {
        Signer { id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwks(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "kid": self.id, "crv": "P-256", "x": x, "y": y}]}).to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id});
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }
}

fn reach(ca: &Ca) -> Reach {
    Reach { ca: Some(ca.pem().into()), allow_private: true, endpoint: None }
}

fn fetch(ca: &Ca) -> Fetch {
    Fetch::new(&reach(ca)).unwrap()
}

/// Connections to the service end at `fake`, which shows a certificate for the service's name.
fn at(ca: &Ca, fake: &Fake) -> Fetch {
    Fetch::new(&Reach { endpoint: Some(fake.host().parse().unwrap()), ..reach(ca) }).unwrap()
}

fn knows(issuer: &Issuer, signer: &Signer) -> Result<(), Refused> {
    let now = Timestamp::now();
    let claims =
        json!({"iss": "https://issuer.example", "aud": "tidewaiter", "sub": "sender", "exp": now.as_second() + 60});
    let expected = Expected {
        issuer: "https://issuer.example".into(),
        audience: "tidewaiter".into(),
        identity: Identity::Subject("sender".into()),
    };
    verify_token(&signer.token(&claims), &issuer.keys(), &expected, now)
}

/// Runs `issuer` until its first attempt is over.
async fn first(issuer: Issuer) -> (Arc<Issuer>, CancellationToken) {
    let (issuer, stop) = (Arc::new(issuer), CancellationToken::new());
    tokio::spawn(issuer.clone().run(stop.clone()));
    issuer.first(Duration::from_secs(20)).await;
    (issuer, stop)
}

#[tokio::test]
async fn t01_keys_come_from_the_issuers_discovery_document() {
    let (ca, signer) = (Ca::new(), Signer::new("one"));
    let jwks = signer.jwks();
    let fake = Fake::https(&ca, move |seen| {
        let host = seen.header("host").unwrap().to_owned();
        match seen.path() {
            "/tenant/v2.0/.well-known/openid-configuration" => Reply::new(
                200,
                json!({"issuer": format!("https://{host}/tenant/v2.0"), "jwks_uri": format!("https://{host}/keys")})
                    .to_string(),
            ),
            "/keys" => Reply::new(200, jwks.clone()),
            _ => Reply::new(404, ""),
        }
    })
    .await;
    let (issuer, _stop) = first(Issuer::new(&fake.url("/tenant/v2.0"), None, fetch(&ca))).await;
    assert_eq!(knows(&issuer, &signer), Ok(()));
    let paths: Vec<String> = fake.seen().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(paths, ["/tenant/v2.0/.well-known/openid-configuration", "/keys"]);
    assert!(fake.authorizations().is_empty());
}

#[tokio::test]
async fn t01_keys_come_from_the_configured_address() {
    let (ca, signer) = (Ca::new(), Signer::new("one"));
    let jwks = signer.jwks();
    let fake = Fake::https(&ca, move |_| Reply::new(200, jwks.clone())).await;
    let keys = fake.url("/certs").parse().unwrap();
    let (issuer, _stop) = first(Issuer::new("https://issuer.example", Some(keys), fetch(&ca))).await;
    assert_eq!(knows(&issuer, &signer), Ok(()));
    assert_eq!(knows(&issuer, &Signer::new("one")), Err(Refused::Wrong));
    assert_eq!(knows(&issuer, &Signer::new("other")), Err(Refused::UnknownKey));
}

/// An answer does not choose where a request goes, and an issuer that lies is not believed.
#[tokio::test]
async fn t17_an_issuer_does_not_lead_elsewhere() {
    let ca = Ca::new();
    let trap = Fake::https(&ca, |_| Reply::new(200, Signer::new("trap").jwks())).await;
    let trapped = trap.url("/keys");
    let base: fn(&str) -> String = |host| format!("https://{host}");
    type Case = (&'static str, Box<dyn Fn(&str) -> Reply + Send + Sync>);
    let elsewhere = trapped.clone();
    let moved = trapped.clone();
    let cases: Vec<Case> = vec![
        (
            "keys at another host",
            Box::new(move |host| Reply::new(200, json!({"issuer": base(host), "jwks_uri": elsewhere}).to_string())),
        ),
        ("a redirect", Box::new(move |_| Reply::new(302, "").with("location", moved.clone()))),
        (
            "a host in user information",
            Box::new(move |host| {
                let uri = format!("https://{host}@{}", trapped.trim_start_matches("https://"));
                Reply::new(200, json!({"issuer": base(host), "jwks_uri": uri}).to_string())
            }),
        ),
        (
            "plain http",
            Box::new(move |host| {
                Reply::new(200, json!({"issuer": base(host), "jwks_uri": format!("http://{host}/keys")}).to_string())
            }),
        ),
        (
            "another issuer",
            Box::new(move |host| {
                Reply::new(
                    200,
                    json!({"issuer": "https://other.example", "jwks_uri": format!("{}/keys", base(host))}).to_string(),
                )
            }),
        ),
        ("no document", Box::new(|_| Reply::new(200, "<html>"))),
    ];
    for (what, answer) in cases {
        let fake = Fake::https(&ca, move |seen| match seen.path() {
            "/.well-known/openid-configuration" => answer(seen.header("host").unwrap()),
            _ => Reply::new(200, Signer::new("trap").jwks()),
        })
        .await;
        let (issuer, stop) = first(Issuer::new(&fake.url(""), None, fetch(&ca))).await;
        stop.cancel();
        assert_eq!(knows(&issuer, &Signer::new("trap")), Err(Refused::UnknownKey), "{what}");
        assert!(fake.seen().iter().all(|seen| seen.path() != "/keys"), "{what}");
    }
    assert!(trap.seen().is_empty());
}

#[tokio::test]
async fn t19_an_issuer_at_a_private_address_needs_leave() {
    let ca = Ca::new();
    let fake = Fake::https(&ca, |_| Reply::new(200, Signer::new("one").jwks())).await;
    let public = Fetch::new(&Reach { ca: Some(ca.pem().into()), ..Reach::default() }).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let keys = format!("https://{host}:{}/", fake.port).parse().unwrap();
        let (_, stop) = first(Issuer::new("https://issuer.example", Some(keys), public.clone())).await;
        stop.cancel();
    }
    assert!(fake.seen().is_empty());
    assert!(Fetch::new(&Reach { ca: Some(b"no certificate".to_vec()), ..Reach::default() }).is_err());
}

#[tokio::test]
async fn t28_an_issuer_is_verified_and_bounded() {
    let ca = Ca::new();
    let trusted = fetch(&ca);
    let stranger = Fake::https(&Ca::new(), |_| Reply::new(200, Signer::new("one").jwks())).await;
    let endless = Fake::https(&ca, |_| Reply::new(200, "{\"keys\":[").then(Then::Flood)).await;
    for fake in [&stranger, &endless] {
        let keys = fake.url("/").parse().unwrap();
        let (issuer, stop) = first(Issuer::new("https://issuer.example", Some(keys), trusted.clone())).await;
        stop.cancel();
        assert_eq!(knows(&issuer, &Signer::new("one")), Err(Refused::UnknownKey));
    }
    assert!(stranger.seen().is_empty());
}

/// Tokens with unknown keys, which anybody can send, make one request a minute at most; and one is enough.
#[tokio::test]
async fn t10_new_keys_are_found_and_nobody_makes_us_ask_often() {
    let (ca, old, new) = (Ca::new(), Signer::new("old"), Arc::new(Signer::new("new")));
    let rotated = Arc::new(AtomicBool::new(false));
    let (first_keys, second_keys, now_new) = (old.jwks(), new.jwks(), rotated.clone());
    let fake = Fake::https(&ca, move |_| {
        Reply::new(200, if now_new.load(Ordering::SeqCst) { second_keys.clone() } else { first_keys.clone() })
    })
    .await;
    let keys = fake.url("/").parse().unwrap();
    let (issuer, _stop) = first(Issuer::new("https://issuer.example", Some(keys), fetch(&ca))).await;
    assert_eq!(knows(&issuer, &old), Ok(()));
    assert_eq!(knows(&issuer, &new), Err(Refused::UnknownKey));
    rotated.store(true, Ordering::SeqCst);
    tokio::time::pause();
    for _ in 0..1_000 {
        issuer.renew();
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(59)).await;
    tokio::task::yield_now().await;
    assert_eq!(fake.seen().len(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    support::program::eventually("the new keys", Duration::from_secs(20), async || Ok(knows(&issuer, &new).ok()))
        .await
        .unwrap();
    assert_eq!(knows(&issuer, &old), Err(Refused::UnknownKey), "what was withdrawn is no longer trusted");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn t01_signing_certificates_are_fetched_once() {
    let ca = Ca::new();
    let signing = ca.issue(&["sns.amazonaws.com"]).certificate;
    let served = signing.clone();
    let fake = Fake::https_as(ca.issue(&[SNS]), move |seen| match seen.path() {
        "/SimpleNotificationService-1.pem" => Reply::new(200, served.clone()),
        "/moved.pem" => Reply::new(302, "").with("location", "https://evil.example/a.pem"),
        "/large.pem" => Reply::new(200, "x".repeat(100_000)),
        "/junk.pem" => Reply::new(200, "junk"),
        "/away.pem" => Reply::new(503, ""),
        _ => Reply::new(404, ""),
    })
    .await;
    let certificates = Arc::new(Certificates::new(&[TOPIC.to_owned()], at(&ca, &fake)));
    let url = format!("https://{SNS}/SimpleNotificationService-1.pem");
    let asked = (0..20).map(|_| {
        let (certificates, url) = (certificates.clone(), url.clone());
        tokio::spawn(async move { certificates.certificate(&url).await })
    });
    for asked in asked.collect::<Vec<_>>() {
        let found = asked.await.unwrap().expect("a certificate");
        assert_eq!(
            x509_parser::pem::Pem::iter_from_buffer(signing.as_bytes()).next().unwrap().unwrap().contents,
            *found
        );
    }
    assert_eq!(fake.seen().len(), 1, "one request for all");
    for bad in ["moved", "large", "junk", "missing"] {
        let found = certificates.certificate(&format!("https://{SNS}/{bad}.pem")).await;
        assert_eq!(found, Err(NoCertificate::Wrong), "{bad}");
    }
    let found = certificates.certificate(&format!("https://{SNS}/away.pem")).await;
    assert_eq!(found, Err(NoCertificate::Unavailable), "it may be had later");
    let before = fake.seen().len();
    assert_eq!(before, 6);
    for elsewhere in [
        "https://evil.example/a.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem",
        "https://sns.us-east-1.amazonaws.com/a.pem",
        "http://sns.eu-west-1.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com/a",
        "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
    ] {
        assert_eq!(certificates.certificate(elsewhere).await, Err(NoCertificate::Wrong), "{elsewhere}");
    }
    assert_eq!(fake.seen().len(), before, "nothing went out");
    // Made-up addresses at the service's own host are soon not followed any more.
    for n in 0..100 {
        assert!(certificates.certificate(&format!("https://{SNS}/{n}.pem")).await.is_err());
    }
    assert!(fake.seen().len() < before + 20, "{} requests", fake.seen().len());
    assert!(certificates.certificate(&url).await.is_ok(), "what is at hand stays at hand");
}

#[tokio::test]
async fn t17_only_wanted_subscriptions_are_confirmed() {
    let ca = Ca::new();
    let fake = Fake::https_as(ca.issue(&[SNS]), |_| Reply::new(200, "<ConfirmSubscriptionResponse/>")).await;
    let tasks = TaskTracker::new();
    let wanted = [("amazon".to_owned(), vec![TOPIC.to_owned()], at(&ca, &fake))];
    let subscriptions = Subscriptions::new(wanted, tasks.clone(), CancellationToken::new());
    let url = format!("https://{SNS}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc");
    let other = "arn:aws:sns:eu-west-1:123456789012:other";
    for (source, topic, url) in [
        ("other", TOPIC, url.as_str()),
        ("amazon", other, &url),
        ("amazon", TOPIC, "https://evil.example/?Action=ConfirmSubscription"),
        ("amazon", TOPIC, "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription"),
        ("amazon", TOPIC, "http://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"),
    ] {
        assert!(!subscriptions.confirm(source, topic, url), "{source} {topic} {url}");
    }
    assert!(subscriptions.confirm("amazon", TOPIC, &url));
    tasks.close();
    tasks.wait().await;
    let seen = fake.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].method.as_str(), seen[0].header("host")), ("GET", Some(SNS)));
    assert!(seen[0].target.contains("Token=abc"));
}
