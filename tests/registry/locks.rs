//! Azure's write locks, read with a right of their own, from a registry that answers as Azure's do and from one that
//! does not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidewaiter::image::Digest;
use tidewaiter::registry::{Auth, Azure, AzureIdentity, Budget, Client, Locks, RegistryError};

use crate::support::azure::{AzureRegistry, HOST};
use crate::support::fake::Reply;
use crate::support::images::{Build, Form, image};
use crate::support::tls::Ca;
use crate::{basic, client, is_untrusted, name, settings, tag};

const TAGS: &str = "/acr/v1/iot/sensor/_tags/";
const MANIFESTS: &str = "/acr/v1/iot/sensor/_manifests/";

fn at(registry: &AzureRegistry, ca: &Ca) -> Client {
    let mut settings = settings(HOST);
    settings.endpoint = Some(registry.fake.url("").parse().unwrap());
    settings.ca = Some(ca.pem().into());
    settings.auth = basic();
    client(settings)
}

fn build() -> Build {
    image(&"linux/amd64".parse().unwrap(), "1.0.1", Form::Oci)
}

#[test]
fn locks_are_asked_for_at_azures_registries_only() {
    let of = |host: &str, auth: Auth| {
        let mut settings = settings(host);
        settings.auth = auth;
        client(settings).has_locks()
    };
    assert!(
        of("contoso.azurecr.io", basic()) && of("contoso.azurecr.cn", basic()) && of("contoso.azurecr.us", basic())
    );
    assert!(!of("registry.example", basic()));
    // Behind a name of its own it is told by its sign-in.
    let identity = Azure::new(AzureIdentity::Managed { client: None }).unwrap();
    assert!(of("registry.example", Auth::Azure(identity)));
}

#[tokio::test]
async fn a_version_is_locked_when_its_tag_and_its_manifest_are() {
    let ca = Ca::new();
    let registry = AzureRegistry::start(&ca).await;
    let text = registry.push("1.0.1", &build());
    let digest: Digest = text.parse().unwrap();
    let client = at(&registry, &ca);
    assert!(client.has_locks());
    let read = async || client.session(Budget::default()).locks(&name(), &tag(), &digest).await;

    assert_eq!(read().await, Ok(Locks::Open));
    assert!(registry.asked(MANIFESTS).is_empty(), "a tag that can be moved is not locked, whatever its manifest is");
    registry.lock(&text);
    assert_eq!(read().await, Ok(Locks::Open));
    registry.lock("1.0.1");
    assert_eq!(read().await, Ok(Locks::Set));
    registry.unlock(&text);
    assert_eq!(read().await, Ok(Locks::Open));
    // One sign-in, for the right that locks need and for no other.
    let tokens = registry.asked("/oauth2/token");
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    assert!(tokens[0].ends_with("scope=repository%3Aiot%2Fsensor%3Ametadata_read"), "{tokens:?}");
    // Content is read with its own.
    assert!(client.session(Budget::default()).fetch_tag(&name(), &tag()).await.unwrap().is_some());
    assert!(registry.asked("/oauth2/token")[1].ends_with("%3Apull"));

    registry.push("1.0.1", &image(&"linux/arm64".parse().unwrap(), "1.0.1", Form::Oci));
    assert_eq!(read().await, Ok(Locks::Moved));
}

#[tokio::test]
async fn t33_whatever_is_not_clear_is_no_lock() {
    let ca = Ca::new();
    let registry = AzureRegistry::start(&ca).await;
    let text = registry.push("1.0.1", &build());
    registry.lock("1.0.1");
    registry.lock(&text);
    let digest: Digest = text.parse().unwrap();
    let client = at(&registry, &ca);
    let read = async || client.session(Budget::default()).locks(&name(), &tag(), &digest).await;
    let good =
        format!(r#"{{"tag":{{"name":"1.0.1","digest":"{text}","changeableAttributes":{{"writeEnabled":false}}}}}}"#);
    for reply in [
        Reply::error(401, "UNAUTHORIZED"),
        Reply::error(403, "DENIED"),
        Reply::error(404, "TAG_UNKNOWN"),
        Reply::new(404, "<html>no such page</html>"),
        Reply::error(405, "UNSUPPORTED"),
        Reply::error(500, "UNKNOWN"),
        Reply::new(200, ""),
        Reply::new(200, "{"),
        Reply::new(200, &good.as_bytes()[..good.len() - 9]),
        Reply::new(200, good.replace("\"writeEnabled\":false", "")),
        Reply::new(200, good.replace("false", "0")),
        Reply::new(200, "[".repeat(10_000)),
        Reply::new(204, ""),
    ] {
        for path in [TAGS, MANIFESTS] {
            let said = reply.clone();
            registry.fault(move |asked| asked.starts_with(path).then(|| said.clone()));
            let error = read().await.expect_err(path);
            assert!(!matches!(error, RegistryError::Untrusted(_)), "{error}");
        }
    }
    registry.fault(|_| Some(Reply::new(307, "").with("location", "https://contoso.example/")));
    assert!(is_untrusted(&read().await.unwrap_err()));
    registry.fault(|_| None);
    assert_eq!(read().await, Ok(Locks::Set));
}

#[tokio::test]
async fn a_credential_for_content_does_not_see_locks() {
    let ca = Ca::new();
    let registry = AzureRegistry::start(&ca).await;
    let text = registry.push("1.0.1", &build());
    registry.lock("1.0.1");
    registry.lock(&text);
    registry.grants_content_only(true);
    let session = at(&registry, &ca).session(Budget::default());
    let error = session.locks(&name(), &tag(), &text.parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert!(registry.asked("/oauth2/token").len() <= 2, "it does not sign in again and again");
    assert!(session.fetch_tag(&name(), &tag()).await.unwrap().is_some());
}

#[tokio::test]
async fn t31_a_pause_is_kept_and_a_long_one_is_told() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let ca = Ca::new();
    let registry = AzureRegistry::start(&ca).await;
    let text = registry.push("1.0.1", &build());
    let client = at(&registry, &ca);
    let read = async || client.session(Budget::default()).locks(&name(), &tag(), &text.parse().unwrap()).await;
    let throttled = |pause: &str| Reply::error(429, "TOOMANYREQUESTS").with("retry-after", pause);
    registry.fault(move |_| (ASKED.fetch_add(1, Ordering::SeqCst) == 0).then(|| throttled("1")));
    let begun = tokio::time::Instant::now();
    assert_eq!(read().await, Ok(Locks::Open));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    registry.fault(move |_| Some(throttled("3600")));
    let error = read().await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Throttled { retry_after } if retry_after > Duration::from_secs(3_000)),
        "{error}"
    );
}
