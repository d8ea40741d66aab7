//! The happy path, and the refusals, of the distribution registry itself.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tidewaiter::image::{Digest, MediaType, Tag};
use tidewaiter::registry::{Auth, Budget, Client, Layout, LayoutReference, RegistryError};

use crate::support::fake::{Fake, Reply};
use crate::support::real::{OCI_MANIFEST, RealRegistry, Setup};
use crate::support::tls::Ca;
use crate::{PASSWORD, basic, name, session, settings, tag};

#[tokio::test]
async fn tags_manifests_and_blobs_of_a_real_registry_are_read() {
    let registry = RealRegistry::start(Setup::default()).await;
    let index = registry.push_index("iot/sensor", "1.0.1", &["linux/amd64", "linux/arm/v7"], "a").await;
    let mut settings = settings(&registry.host());
    settings.insecure = true;
    let session = session(settings);

    assert_eq!(session.head_tag(&name(), &tag()).await.unwrap(), Some(index.clone()));
    let fetched = session.fetch_tag(&name(), &tag()).await.unwrap().unwrap();
    assert_eq!((&fetched.digest, &fetched.media_type), (&index, &MediaType::OciIndex));
    assert_eq!(session.fetch_manifest(&name(), &index).await.unwrap().unwrap(), fetched);
    assert!(session.head_manifest(&name(), &index).await.unwrap());

    let parsed = tidewaiter::image::Manifest::parse(&fetched.bytes, Some(&fetched.media_type)).unwrap();
    let child = &parsed.index().unwrap().entries[0].digest;
    let child = session.fetch_manifest(&name(), child).await.unwrap().unwrap();
    assert_eq!(child.media_type, MediaType::parse(OCI_MANIFEST));
    let parsed = tidewaiter::image::Manifest::parse(&child.bytes, Some(&child.media_type)).unwrap();
    let config = &parsed.single().unwrap().config;
    let blob = session.fetch_blob(&name(), &config.digest, 1 << 20).await.unwrap().unwrap();
    assert_eq!(blob.len() as u64, config.size);
    assert!(session.head_blob(&name(), &config.digest).await.unwrap());
    let error = session.fetch_blob(&name(), &config.digest, config.size - 1).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");

    let absent = Digest::of(b"absent");
    let other: Tag = "2.0.0".parse().unwrap();
    assert_eq!(session.head_tag(&name(), &other).await.unwrap(), None);
    assert_eq!(session.fetch_tag(&name(), &other).await.unwrap(), None);
    assert_eq!(session.fetch_tag(&"no/such".parse().unwrap(), &tag()).await.unwrap(), None);
    assert_eq!(session.fetch_manifest(&name(), &absent).await.unwrap(), None);
    assert_eq!(session.fetch_blob(&name(), &absent, 10).await.unwrap(), None);
    assert!(!session.head_manifest(&name(), &absent).await.unwrap());
    assert!(!session.head_blob(&name(), &absent).await.unwrap());
    assert!(session.tags(&"no/such".parse().unwrap(), None).await.unwrap().is_none());
}

#[tokio::test]
async fn long_lists_are_read_in_pages() {
    let registry = RealRegistry::start(Setup::default()).await;
    let digest = registry.push_image("iot/sensor", "t0", "linux/amd64", "a").await;
    let manifest = registry
        .request(hyper::Method::GET, &format!("/v2/iot/sensor/manifests/{digest}"), &[("accept", OCI_MANIFEST)], vec![])
        .await;
    for n in 1..250 {
        registry.push_manifest("iot/sensor", &format!("t{n}"), OCI_MANIFEST, &manifest.body).await;
    }
    let mut settings = settings(&registry.host());
    settings.insecure = true;
    let session = session(settings);
    let (mut tags, mut pages, mut after) = (std::collections::BTreeSet::new(), 0, None);
    loop {
        let page = session.tags(&name(), after).await.unwrap().unwrap();
        tags.extend(page.items);
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(tags.len(), 250);
    assert!(pages <= 3, "{pages}");
    let repositories = session.catalog(None).await.unwrap();
    assert_eq!(repositories.items, [name()]);
}

#[tokio::test]
async fn a_password_is_used_over_tls_and_a_wrong_one_refused() {
    let ca = Ca::new();
    let registry =
        RealRegistry::start(Setup { tls: Some(&ca), user: Some(("robot", PASSWORD)), ..Setup::default() }).await;
    let digest = registry.push_image("iot/sensor", "1.0.1", "linux/amd64", "a").await;
    let with = |auth| {
        let mut settings = settings(&registry.host());
        settings.ca = Some(ca.pem().into());
        settings.auth = auth;
        session(settings)
    };
    assert_eq!(with(basic()).head_tag(&name(), &tag()).await.unwrap(), Some(digest));
    let wrong = Auth::Basic { user: "robot".into(), password: SecretString::from("wrong") };
    for auth in [wrong, Auth::Anonymous, Auth::Token { token: SecretString::from("x") }] {
        let error = with(auth).fetch_tag(&name(), &tag()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn t28_an_unknown_authority_is_refused_and_no_credential_goes_in_the_clear() {
    let (ca, other) = (Ca::new(), Ca::new());
    let registry = RealRegistry::start(Setup { tls: Some(&ca), ..Setup::default() }).await;
    for authorities in [None, Some(other.pem().into())] {
        let mut settings = settings(&registry.host());
        settings.ca = authorities;
        let error = session(settings).fetch_tag(&name(), &tag()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Tls(_)), "{error}");
    }
    let mut insecure = settings(&registry.host());
    insecure.insecure = true;
    insecure.auth = basic();
    assert!(Client::new(insecure, Arc::new(())).is_err());
    let mut implied = settings(&registry.host());
    implied.endpoint = Some(format!("http://{}", registry.host()).parse().unwrap());
    assert!(Client::new(implied, Arc::new(())).is_err());
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_a_passing_fault() {
    let registry = RealRegistry::start(Setup::default()).await;
    let mut settings = settings(&registry.host());
    settings.insecure = true;
    drop(registry);
    let client = Client::new(settings, Arc::new(())).unwrap();
    let error = client.session(Budget::default()).fetch_tag(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Connect(_)) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn layouts_that_skopeo_writes_hold_what_the_registry_holds() {
    let registry = RealRegistry::start(Setup::default()).await;
    let index = registry.push_index("iot/sensor", "1.0.1", &["linux/amd64", "linux/arm/v7"], "a").await;
    let folder = tempfile::tempdir().unwrap();
    for target in [
        format!("oci:{}:1.0.1", folder.path().join("dir").display()),
        format!("oci-archive:{}:1.0.1", folder.path().join("file.tar").display()),
    ] {
        let from = format!("docker://{}/iot/sensor:1.0.1", registry.host());
        let copied = std::process::Command::new("skopeo")
            .args([
                "copy",
                "--all",
                "--preserve-digests",
                "--insecure-policy",
                "--src-tls-verify=false",
                &from,
                &target,
            ])
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let reference = LayoutReference::parse(&target).unwrap();
        let layout = Layout::open(&reference).unwrap();
        for name in [reference.name.as_deref(), None] {
            let fetched = layout.resolve(name).unwrap();
            assert_eq!((&fetched.digest, &fetched.media_type), (&index, &MediaType::OciIndex));
            let parsed = tidewaiter::image::Manifest::parse(&fetched.bytes, Some(&fetched.media_type)).unwrap();
            for entry in &parsed.index().unwrap().entries {
                assert!(layout.fetch_manifest(&entry.digest, &entry.media_type).unwrap().is_some());
            }
        }
    }
}

/// The support that other tests rely on: a registry that tells of pushes over TLS.
#[tokio::test]
async fn the_real_registry_sends_its_events() {
    let ca = Ca::new();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let listener = Fake::https(&ca, move |seen| {
        let _ = told.send(seen.clone());
        Reply::new(200, "")
    })
    .await;
    let url = listener.url("/v1/events/test");
    let setup = Setup { notify: Some((&url, "Bearer secret")), trust: Some(ca.pem()), ..Setup::default() };
    let registry = RealRegistry::start(setup).await;
    registry.push_image("iot/sensor", "1.0.1", "linux/amd64", "a").await;
    let event = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
    assert_eq!(event.header("authorization"), Some("Bearer secret"));
    assert_eq!(event.header("content-type"), Some("application/vnd.docker.distribution.events.v1+json"));
}
