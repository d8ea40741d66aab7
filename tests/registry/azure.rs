//! The three steps from an Entra identity to an access token, at services that answer as Azure's do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use secrecy::SecretString;
use tidewaiter::registry::{Auth, Azure, AzureIdentity, Budget, Client, RegistryError};

use crate::support::fake::{Fake, Reply, Seen};
use crate::support::real::OCI_MANIFEST;
use crate::support::tls::Ca;
use crate::{client, is_untrusted, name, settings, tag};

const BYTES: &[u8] = br#"{"schemaVersion":2}"#;

/// A registry that knows one Entra token, one refresh token and one access token.
async fn registry(ca: &Ca) -> Fake {
    let own = Arc::new(OnceLock::<String>::new());
    let url = own.clone();
    let fake = Fake::https(ca, move |seen| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        match (seen.path(), seen.header("authorization")) {
            ("/oauth2/exchange", _) if form.contains("access_token=entra") => {
                Reply::new(200, r#"{"refresh_token":"refresh"}"#)
            }
            ("/oauth2/token", _) if form.contains("refresh_token=refresh") => {
                Reply::new(200, r#"{"access_token":"access"}"#)
            }
            ("/oauth2/exchange" | "/oauth2/token", _) => Reply::error(401, "UNAUTHORIZED"),
            (_, Some("Bearer access")) => Reply::new(200, BYTES).with("content-type", OCI_MANIFEST),
            _ => {
                let realm = format!("{}/oauth2/token", url.get().unwrap());
                let scope = seen.path().trim_start_matches("/v2/").split("/manifests").next().unwrap();
                let challenge =
                    format!(r#"Bearer realm="{realm}",service="contoso.azurecr.io",scope="repository:{scope}:pull""#);
                Reply::error(401, "UNAUTHORIZED").with("www-authenticate", challenge)
            }
        }
    })
    .await;
    own.set(fake.url("")).unwrap();
    fake
}

fn at(registry: &Fake, ca: &Ca, identity: AzureIdentity, authority: &Fake) -> Client {
    let mut azure = Azure::new(identity).unwrap();
    if authority.scheme == "https" {
        azure.authority = authority.url("").parse().unwrap();
    } else {
        azure.metadata = authority.url("").parse().unwrap();
    }
    let mut settings = settings("contoso.azurecr.io");
    settings.endpoint = Some(registry.url("").parse().unwrap());
    settings.ca = Some(ca.pem().into());
    settings.auth = Auth::Azure(azure);
    client(settings)
}

fn entra(_: &Seen) -> Reply {
    Reply::new(200, r#"{"token_type":"Bearer","expires_in":"3599","access_token":"entra"}"#)
}

fn secret() -> AzureIdentity {
    AzureIdentity::ClientSecret {
        tenant: "contoso.example".into(),
        client: "app".into(),
        secret: SecretString::from("s&s"),
    }
}

fn form(seen: &Seen) -> Vec<(String, String)> {
    url::form_urlencoded::parse(&seen.body).into_owned().collect()
}

fn has(seen: &Seen, name: &str, value: &str) -> bool {
    form(seen).contains(&(name.to_owned(), value.to_owned()))
}

#[tokio::test]
async fn a_client_secret_becomes_an_access_token_in_three_steps() {
    let ca = Ca::new();
    let (registry, authority) = (registry(&ca).await, Fake::https(&ca, entra).await);
    let client = at(&registry, &ca, secret(), &authority);
    for repository in ["iot/sensor", "iot/other", "iot/sensor"] {
        let session = client.session(Budget::default());
        assert!(session.fetch_tag(&repository.parse().unwrap(), &tag()).await.unwrap().is_some());
    }
    let [sign_in] = &authority.seen()[..] else { panic!("{:?}", authority.seen()) };
    assert_eq!(sign_in.target, "/contoso.example/oauth2/v2.0/token");
    assert!(has(sign_in, "client_secret", "s&s") && has(sign_in, "client_id", "app"));
    assert!(has(sign_in, "scope", "https://containerregistry.azure.net/.default"));
    let steps: Vec<Seen> = registry.seen().into_iter().filter(|seen| seen.method == "POST").collect();
    let paths: Vec<&str> = steps.iter().map(Seen::path).collect();
    assert_eq!(paths, ["/oauth2/exchange", "/oauth2/token", "/oauth2/token"], "one refresh token for both");
    assert!(has(&steps[0], "service", "contoso.azurecr.io") && has(&steps[0], "tenant", "contoso.example"));
    assert!(has(&steps[1], "scope", "repository:iot/sensor:pull") && has(&steps[1], "service", "contoso.azurecr.io"));
    assert!(has(&steps[2], "scope", "repository:iot/other:pull"));
}

#[tokio::test]
async fn workload_identity_reads_its_token_anew() {
    let ca = Ca::new();
    let (registry, authority) = (registry(&ca).await, Fake::https(&ca, entra).await);
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let identity =
        || AzureIdentity::Workload { tenant: "t".into(), client: "app".into(), token_file: token_file.clone() };
    let session = at(&registry, &ca, identity(), &authority).session(Budget::default());
    let error = session.fetch_tag(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Local(_)), "{error}");
    for assertion in ["first", "second"] {
        std::fs::write(&token_file, format!("{assertion}\n")).unwrap();
        let session = at(&registry, &ca, identity(), &authority).session(Budget::default());
        assert!(session.fetch_tag(&name(), &tag()).await.unwrap().is_some());
        assert!(has(authority.seen().last().unwrap(), "client_assertion", assertion));
    }
}

#[tokio::test]
async fn managed_identities_ask_their_own_service() {
    let ca = Ca::new();
    let registry = registry(&ca).await;
    let metadata = Fake::http(entra).await;
    let machine = AzureIdentity::Managed { client: Some("user-assigned".into()) };
    let hosted = AzureIdentity::Hosted {
        endpoint: metadata.url("/msi/token").parse().unwrap(),
        header: SecretString::from("h"),
        client: None,
    };
    for identity in [machine, hosted] {
        let session = at(&registry, &ca, identity, &metadata).session(Budget::default());
        assert!(session.fetch_tag(&name(), &tag()).await.unwrap().is_some());
    }
    let resource = "resource=https%3A%2F%2Fcontainerregistry.azure.net";
    let [machine, hosted] = &metadata.seen()[..] else { panic!() };
    let expected = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&{resource}&client_id=user-assigned");
    assert_eq!((&machine.target, machine.header("metadata")), (&expected, Some("true")));
    assert!(machine.header("x-forwarded-for").is_none());
    let expected = format!("/msi/token?api-version=2019-08-01&{resource}");
    assert_eq!((&hosted.target, hosted.header("x-identity-header")), (&expected, Some("h")));
}

#[tokio::test]
async fn t25_the_identity_services_neither_redirect_nor_leak() {
    let ca = Ca::new();
    let registry = registry(&ca).await;
    let trap = Fake::https(&ca, entra).await;
    let to = trap.url("/");
    let redirecting = Fake::https(&ca, move |_| Reply::new(307, "").with("location", to.clone())).await;
    let session = at(&registry, &ca, secret(), &redirecting).session(Budget::default());
    assert!(is_untrusted(&session.fetch_tag(&name(), &tag()).await.unwrap_err()));
    assert!(trap.seen().is_empty());
    let refusing = Fake::https(&ca, |_| Reply::new(400, r#"{"error":"invalid_client"}"#)).await;
    let session = at(&registry, &ca, secret(), &refusing).session(Budget::default());
    let error = session.fetch_tag(&name(), &tag()).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Unauthorized { said } if said.contains("invalid_client")), "{error}");
    assert!(!format!("{error:?}").contains("s&s"));
}

#[tokio::test]
async fn a_forgotten_refresh_token_is_replaced_by_the_next_request() {
    let ca = Ca::new();
    let registry = registry(&ca).await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    // The first Entra token is for somebody whom the registry does not know.
    let authority = Fake::https(&ca, move |_| {
        let token = if counted.fetch_add(1, Ordering::SeqCst) == 0 { "stranger" } else { "entra" };
        Reply::new(200, format!(r#"{{"access_token":"{token}"}}"#))
    })
    .await;
    let client = at(&registry, &ca, secret(), &authority);
    let error = client.session(Budget::default()).fetch_tag(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert!(client.session(Budget::default()).fetch_tag(&name(), &tag()).await.unwrap().is_some());
    assert_eq!(count.load(Ordering::SeqCst), 2);
}
