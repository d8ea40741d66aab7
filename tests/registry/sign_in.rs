//! Signing in at token services, honest and not: T-25, T-27.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;
use tidewaiter::registry::{Auth, Budget, RegistryError, TokenService};

use crate::support::fake::{Fake, Reply, Seen};
use crate::support::real::OCI_MANIFEST;
use crate::support::tls::Ca;
use crate::{basic, client, is_untrusted, name, secure, session, settings, tag};

const BYTES: &[u8] = br#"{"schemaVersion":2}"#;

/// A registry that wants the token `good` and answers its own token requests by `token`.
async fn registry(
    ca: &Ca,
    challenge: impl Fn(&str) -> String,
    token: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> Fake {
    let own = Arc::new(OnceLock::<String>::new());
    let header = own.clone();
    let fake = Fake::https(ca, move |seen| match (seen.path(), seen.header("authorization")) {
        ("/token", _) => token(seen),
        (_, Some("Bearer good")) => Reply::new(200, BYTES).with("content-type", OCI_MANIFEST),
        _ => Reply::error(401, "UNAUTHORIZED").with("www-authenticate", header.get().unwrap().clone()),
    })
    .await;
    own.set(challenge(&fake.url(""))).unwrap();
    fake
}

fn usual(url: &str) -> String {
    format!(r#"Bearer realm="{url}/token",service="r",scope="repository:iot/sensor:pull""#)
}

fn good(_: &Seen) -> Reply {
    Reply::new(200, r#"{"token":"good","expires_in":300}"#)
}

#[tokio::test]
async fn a_token_is_got_once_and_kept() {
    let ca = Ca::new();
    let fake = registry(&ca, usual, good).await;
    let mut settings = settings(&fake.host());
    settings.ca = Some(ca.pem().into());
    settings.auth = basic();
    let client = client(settings);
    for _ in 0..3 {
        let session = client.session(Budget::default());
        assert!(session.fetch_tag(&name(), &tag()).await.unwrap().is_some());
    }
    let seen: Vec<String> = fake.seen().iter().map(|seen| seen.target.clone()).collect();
    let manifests = "/v2/iot/sensor/manifests/1.0.1";
    let token = "/token?service=r&scope=repository%3Aiot%2Fsensor%3Apull";
    assert_eq!(seen, [manifests, token, manifests, manifests, manifests]);
    assert!(fake.seen()[1].header("authorization").unwrap().starts_with("Basic "));
}

#[tokio::test]
async fn t34_those_who_need_a_token_together_get_one_together() {
    let ca = Ca::new();
    let fake = registry(&ca, usual, good).await;
    let mut settings = settings(&fake.host());
    settings.ca = Some(ca.pem().into());
    let client = client(settings);
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let session = client.session(Budget::default());
            tokio::spawn(async move { session.fetch_tag(&name(), &tag()).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(fake.seen().iter().filter(|seen| seen.path() == "/token").count(), 1);
}

#[tokio::test]
async fn t27_tokens_are_kept_by_repository_and_client() {
    let ca = Ca::new();
    let plain_challenge = |url: &str| format!(r#"Bearer realm="{url}/token",service="r""#);
    let fake = registry(&ca, plain_challenge, good).await;
    let session_a = secure(&fake, &ca, basic());
    session_a.fetch_tag(&name(), &tag()).await.unwrap();
    session_a.fetch_tag(&"other".parse().unwrap(), &tag()).await.unwrap();
    let session_b = secure(&fake, &ca, Auth::Anonymous);
    session_b.fetch_tag(&name(), &tag()).await.unwrap();
    let tokens: Vec<Seen> = fake.seen().into_iter().filter(|seen| seen.path() == "/token").collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[1].target.contains("repository%3Aother%3Apull"));
    assert!(tokens[2].header("authorization").is_none());
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let ca = Ca::new();
    let count = AtomicUsize::new(0);
    let fake = registry(&ca, usual, move |_| {
        let token = if count.fetch_add(1, Ordering::SeqCst) == 0 { "stale" } else { "good" };
        Reply::new(200, format!(r#"{{"token":"{token}","expires_in":300}}"#))
    })
    .await;
    let session = secure(&fake, &ca, basic());
    // The first token is refused at once: one round per request, so this request fails…
    let error = session.fetch_tag(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    // …and the next begins with the kept token, is refused, and gets a new one.
    assert!(session.fetch_tag(&name(), &tag()).await.unwrap().is_some());
}

#[tokio::test]
async fn t25_no_credential_goes_to_a_realm_elsewhere() {
    let ca = Ca::new();
    let trap = Fake::https(&ca, good).await;
    let clear = Fake::http(good).await;
    for realm in [
        trap.url("/token"),
        clear.url("/token"),
        format!("https://robot@{}/token", trap.host()),
        "https://169.254.169.254/token".to_owned(),
        "https://registry.example/token".to_owned(),
    ] {
        let challenge = |_: &str| format!(r#"Bearer realm="{realm}",service="r""#);
        let fake = registry(&ca, challenge, good).await;
        for auth in [basic(), Auth::Anonymous, Auth::Identity { token: SecretString::from("refresh") }] {
            let error = secure(&fake, &ca, auth).fetch_tag(&name(), &tag()).await.unwrap_err();
            assert!(is_untrusted(&error), "{realm}: {error}");
        }
        assert!(fake.authorizations().is_empty());
    }
    assert!(trap.seen().is_empty() && clear.seen().is_empty());
}

#[tokio::test]
async fn t25_token_requests_are_not_redirected() {
    let ca = Ca::new();
    let trap = Fake::https(&ca, good).await;
    for status in [301, 302, 303, 307, 308] {
        let to = trap.url("/token");
        let fake = registry(&ca, usual, move |_| Reply::new(status, "").with("location", to.clone())).await;
        for auth in [basic(), Auth::Identity { token: SecretString::from("refresh") }] {
            assert!(is_untrusted(&secure(&fake, &ca, auth).fetch_tag(&name(), &tag()).await.unwrap_err()));
        }
    }
    assert!(trap.seen().is_empty());
}

#[tokio::test]
async fn t25_a_configured_token_service_elsewhere_is_used_and_no_other() {
    let ca = Ca::new();
    let service = Fake::https(&ca, good).await;
    for (realm, named, fine) in [
        (service.url("/token"), "r", true),
        (service.url("/token2"), "r", false),
        (service.url("/token"), "another", false),
        ("SELF/token".to_owned(), "r", false),
    ] {
        let challenge = |url: &str| format!(r#"Bearer realm="{}",service="{named}""#, realm.replace("SELF", url));
        let fake = registry(&ca, challenge, good).await;
        let mut settings = settings(&fake.host());
        settings.ca = Some(ca.pem().into());
        settings.auth = basic();
        settings.token_service =
            Some(TokenService { realm: service.url("/token").parse().unwrap(), service: "r".to_owned() });
        let result = session(settings).fetch_tag(&name(), &tag()).await;
        assert_eq!(result.is_ok(), fine, "{realm} {named}: {result:?}");
    }
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn t25_refusals_of_the_token_service_are_typed() {
    let ca = Ca::new();
    type Check = fn(&RegistryError) -> bool;
    let cases: [(u16, &str, Check); 6] = [
        (401, "", |e| matches!(e, RegistryError::Unauthorized { .. })),
        (403, "", |e| matches!(e, RegistryError::Forbidden { .. })),
        (500, "", |e| matches!(e, RegistryError::Server { .. })),
        (404, "", |e| matches!(e, RegistryError::Unexpected { .. })),
        (200, "{}", |e| matches!(e, RegistryError::Protocol(_))),
        (200, r#"{"token":"a\r\nx-evil: 1"}"#, |e| matches!(e, RegistryError::Protocol(_))),
    ];
    for (status, body, check) in cases {
        let fake = registry(&ca, usual, move |_| Reply::new(status, body)).await;
        let error = secure(&fake, &ca, basic()).fetch_tag(&name(), &tag()).await.unwrap_err();
        assert!(check(&error), "{status} {body}: {error}");
        assert!(!format!("{error:?}").contains(crate::PASSWORD));
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let ca = Ca::new();
    let fake = registry(&ca, usual, good).await;
    let auth = Auth::Identity { token: SecretString::from("refresh me") };
    assert!(secure(&fake, &ca, auth).fetch_tag(&name(), &tag()).await.unwrap().is_some());
    let token = fake.seen().into_iter().find(|seen| seen.path() == "/token").unwrap();
    let form = String::from_utf8(token.body).unwrap();
    assert_eq!(token.method, "POST");
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=refresh+me"), "{form}");
    assert!(form.contains("scope=repository%3Aiot%2Fsensor%3Apull"), "{form}");
}

#[tokio::test]
async fn t34_a_pause_of_the_token_service_counts_for_the_registry() {
    let ca = Ca::new();
    let fake = registry(&ca, usual, |_| Reply::new(429, "").with("retry-after", "60")).await;
    let session = secure(&fake, &ca, basic());
    for _ in 0..2 {
        let error = session.fetch_tag(&name(), &tag()).await.unwrap_err();
        let RegistryError::Throttled { retry_after } = error else { panic!("{error}") };
        assert!(retry_after > Duration::from_secs(50));
    }
    assert_eq!(fake.seen().len(), 2);
}
