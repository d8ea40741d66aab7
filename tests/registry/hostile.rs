//! What a registry may do to those who ask it: T-19, T-26, T-29, T-31, T-33, T-34, T-35.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidewaiter::image::{Digest, MANIFEST_BYTES_MAX};
use tidewaiter::registry::{Auth, Budget, Exceeded, RegistryError};

use crate::support::fake::{Fake, Reply, Then};
use crate::support::real::OCI_MANIFEST;
use crate::support::tls::Ca;
use crate::{basic, client, is_untrusted, name, plain, secure, settings, tag};

const BYTES: &[u8] = br#"{"schemaVersion":2}"#;

fn manifest(body: impl Into<Vec<u8>>) -> Reply {
    Reply::new(200, body).with("content-type", OCI_MANIFEST)
}

/// What `fetch_manifest` of the digest of [`BYTES`] makes of a reply.
async fn by_digest(reply: Reply) -> Result<Option<tidewaiter::registry::Fetched>, RegistryError> {
    let fake = Fake::http(move |_| reply.clone()).await;
    plain(&fake).fetch_manifest(&name(), &Digest::of(BYTES)).await
}

/// What `fetch_tag` makes of a reply.
async fn by_tag(reply: Reply) -> Result<Option<tidewaiter::registry::Fetched>, RegistryError> {
    let fake = Fake::http(move |_| reply.clone()).await;
    plain(&fake).fetch_tag(&name(), &tag()).await
}

#[tokio::test]
async fn t29_only_the_bytes_of_the_digest_are_handed_on() {
    assert_eq!(by_digest(manifest(BYTES)).await.unwrap().unwrap().bytes, BYTES);
    let mut flipped = BYTES.to_vec();
    flipped[3] ^= 1;
    for body in [&flipped[..], &BYTES[..BYTES.len() - 1], b"", b"other"] {
        let stated = manifest(body).with("docker-content-digest", Digest::of(BYTES).to_string());
        for result in [by_digest(manifest(body)).await, by_digest(stated.clone()).await, by_tag(stated).await] {
            assert!(matches!(result, Err(RegistryError::DigestMismatch { .. })), "{result:?}");
        }
    }
}

#[tokio::test]
async fn t29_a_stated_digest_must_be_one() {
    let hex = Digest::of(BYTES).hex().to_owned();
    for stated in [
        format!("sha512:{hex}"),
        format!("md5:{hex}"),
        format!("sha256:{}", hex.to_uppercase()),
        "sha256:../../../etc/passwd".to_owned(),
        String::new(),
    ] {
        let result = by_tag(manifest(BYTES).with("docker-content-digest", stated.clone())).await;
        assert!(matches!(result, Err(RegistryError::Protocol(_))), "{stated}: {result:?}");
    }
    let twice = manifest(BYTES)
        .with("docker-content-digest", Digest::of(BYTES).to_string())
        .with("docker-content-digest", Digest::of(b"x").to_string());
    assert!(matches!(by_tag(twice).await, Err(RegistryError::Protocol(_))));
    let long = Digest::with(tidewaiter::image::Algorithm::Sha512, BYTES);
    let result = by_tag(manifest(BYTES).with("docker-content-digest", long.to_string())).await;
    assert_eq!(result.unwrap().unwrap().digest, long);
    assert_eq!(by_tag(manifest(BYTES)).await.unwrap().unwrap().digest, Digest::of(BYTES));
}

#[tokio::test]
async fn t30_a_manifest_without_one_clear_type_is_refused() {
    for reply in [Reply::new(200, BYTES), manifest(BYTES).with("content-type", "application/json")] {
        assert!(matches!(by_tag(reply).await, Err(RegistryError::Protocol(_))));
    }
}

#[tokio::test]
async fn t31_bodies_are_bounded_whatever_they_declare() {
    let big = vec![b' '; MANIFEST_BYTES_MAX + 1];
    let declared = Reply::new(200, "").with("content-length", "99999999999999").then(Then::Hang);
    for reply in [manifest(big), declared, manifest("").then(Then::Flood)] {
        let start = Instant::now();
        let result = by_digest(reply).await;
        assert!(matches!(result, Err(RegistryError::TooLarge { .. })), "{result:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let compressed = manifest(BYTES).with("content-encoding", "gzip");
    assert!(matches!(by_digest(compressed).await, Err(RegistryError::Protocol(_))));
    let truncated = Reply::new(200, BYTES).with("content-length", (BYTES.len() + 1).to_string());
    let result = by_digest(truncated).await;
    assert!(matches!(result, Err(RegistryError::Connect(_))), "{result:?}");
}

#[tokio::test]
async fn t31_dripping_and_silence_end_in_time() {
    for then in [Then::Drip, Then::Hang] {
        let fake = Fake::http(move |_| manifest("").then(then)).await;
        let mut settings = settings(&fake.host());
        settings.insecure = true;
        settings.timeout = Duration::from_millis(300);
        let error = client(settings.clone()).session(Budget::default()).fetch_tag(&name(), &tag()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Timeout(_)) && error.is_transient(), "{error}");
        settings.timeout = Duration::from_secs(20);
        let budget = Budget { time: Duration::from_millis(300), ..Budget::default() };
        let error = client(settings).session(budget).fetch_tag(&name(), &tag()).await.unwrap_err();
        assert_eq!(error, RegistryError::Budget(Exceeded::Time(budget.time)));
    }
}

#[tokio::test]
async fn t31_a_session_has_so_many_requests_and_bytes() {
    let fake = Fake::http(|_| manifest(BYTES)).await;
    let mut settings = settings(&fake.host());
    settings.insecure = true;
    let client = client(settings);
    let session = client.session(Budget { requests: 3, ..Budget::default() });
    for _ in 0..3 {
        session.fetch_tag(&name(), &tag()).await.unwrap();
    }
    let error = session.fetch_tag(&name(), &tag()).await.unwrap_err();
    assert_eq!(error, RegistryError::Budget(Exceeded::Requests(3)));
    assert_eq!(fake.seen().len(), 3);
    let session = client.session(Budget { bytes: BYTES.len() as u64 + 1, ..Budget::default() });
    session.fetch_tag(&name(), &tag()).await.unwrap();
    let error = session.fetch_tag(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Budget(Exceeded::Bytes(_))), "{error}");
}

#[tokio::test]
async fn t33_only_the_protocols_own_404_means_not_there() {
    for code in ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "TAG_UNKNOWN", "NOT_FOUND"] {
        assert_eq!(by_tag(Reply::error(404, code)).await.unwrap(), None, "{code}");
        let fake = Fake::http(move |_| Reply::error(404, code)).await;
        assert_eq!(plain(&fake).head_tag(&name(), &tag()).await.unwrap(), None, "{code}");
    }
    for reply in [
        Reply::new(404, ""),
        Reply::new(404, "<html>not found</html>"),
        Reply::new(404, r#"{"errors":[]}"#),
        Reply::new(404, "{}"),
        Reply::error(404, "DENIED"),
        Reply::new(204, ""),
        Reply::error(400, "MANIFEST_UNKNOWN"),
        Reply::error(500, "MANIFEST_UNKNOWN"),
        Reply::error(401, "UNAUTHORIZED"),
        Reply::error(403, "DENIED"),
        Reply::error(405, "UNSUPPORTED"),
        Reply::new(502, "<html>"),
        Reply::new(503, ""),
    ] {
        let status = reply.status;
        let fake = Fake::http(move |_| reply.clone()).await;
        let session = plain(&fake);
        let error = session.fetch_tag(&name(), &tag()).await.unwrap_err();
        let as_expected = match status {
            401 => matches!(error, RegistryError::Unauthorized { .. }),
            403 => matches!(error, RegistryError::Forbidden { .. }),
            500.. => matches!(error, RegistryError::Server { status: s, .. } if s == status),
            _ => matches!(error, RegistryError::Unexpected { status: s, .. } if s == status),
        };
        assert!(as_expected, "{status}: {error}");
        assert!(session.head_tag(&name(), &tag()).await.is_err(), "{status}");
        assert!(session.tags(&name(), None).await.is_err(), "{status}");
        assert!(session.catalog(None).await.is_err(), "{status}");
    }
}

#[tokio::test]
async fn t35_hostile_error_text_is_short_and_inert() {
    let hostile = "\u{1b}]0;owned\u{7}\u{202e}".repeat(500);
    for reply in [
        Reply::new(500, hostile.clone()),
        Reply::new(403, serde_json::json!({"errors": [{"code": hostile, "message": hostile}]}).to_string()),
    ] {
        let text = by_tag(reply).await.unwrap_err().to_string();
        assert!(text.is_ascii() || text.chars().all(|c| c == '…' || (' '..='~').contains(&c)), "{text}");
        assert!(text.len() < 800, "{}", text.len());
    }
}

#[tokio::test]
async fn a_head_without_a_digest_falls_back_to_get() {
    let fake = Fake::http(|_| manifest(BYTES)).await;
    assert_eq!(plain(&fake).head_tag(&name(), &tag()).await.unwrap(), Some(Digest::of(BYTES)));
    let methods: Vec<String> = fake.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["HEAD", "GET"]);
    let head = &fake.seen()[0];
    assert!(head.header("accept").unwrap().contains("image.index.v1+json"));
    assert_eq!(head.header("accept-encoding"), Some("identity"));
    assert!(head.header("user-agent").unwrap().starts_with("tidewaiter/"));
}

#[tokio::test]
async fn t34_a_short_pause_is_kept_by_all_and_a_long_one_told() {
    let count = AtomicUsize::new(0);
    let fake = Fake::http(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::error(429, "TOOMANYREQUESTS").with("retry-after", "2"),
        _ => manifest(BYTES),
    })
    .await;
    let mut one = settings(&fake.host());
    one.insecure = true;
    one.concurrency = 1;
    let client_of_one = client(one);
    let sessions: Vec<_> = (0..3).map(|_| client_of_one.session(Budget::default())).collect();
    let tasks: Vec<_> = sessions
        .into_iter()
        .map(|session| tokio::spawn(async move { session.fetch_tag(&name(), &tag()).await.unwrap().unwrap() }))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seen = fake.seen();
    assert_eq!(seen.len(), 4);
    for later in &seen[1..] {
        assert!(later.at - seen[0].at >= Duration::from_secs(2), "{:?}", later.at - seen[0].at);
    }

    let fake = Fake::http(|_| Reply::new(503, "").with("retry-after", "60")).await;
    let mut settings = settings(&fake.host());
    settings.insecure = true;
    let client = client(settings);
    for _ in 0..3 {
        let error = client.session(Budget::default()).fetch_tag(&name(), &tag()).await.unwrap_err();
        let RegistryError::Throttled { retry_after } = error else { panic!("{error}") };
        assert!(retry_after > Duration::from_secs(50) && error.is_transient());
    }
    assert_eq!(fake.seen().len(), 1, "no request before the time");
}

#[tokio::test]
async fn t19_loopback_is_not_reached_unless_configured() {
    let fake = Fake::http(|_| manifest(BYTES)).await;
    for host in [fake.host(), format!("localhost:{}", fake.port)] {
        let mut settings = settings(&host);
        settings.insecure = true;
        settings.allow_private = false;
        let error = client(settings).session(Budget::default()).fetch_tag(&name(), &tag()).await.unwrap_err();
        assert!(matches!(error, RegistryError::PrivateAddress { .. }), "{host}: {error}");
    }
    assert!(fake.seen().is_empty());
}

fn blob_or_redirect(to: String) -> impl Fn(&crate::support::fake::Seen) -> Reply + Send + Sync {
    move |seen| match seen.header("authorization") {
        None => Reply::error(401, "UNAUTHORIZED").with("www-authenticate", r#"Basic realm="x""#),
        Some(_) => Reply::new(307, "").with("location", to.clone()),
    }
}

#[tokio::test]
async fn t26_a_redirect_to_storage_carries_no_credential() {
    let ca = Ca::new();
    let storage = Fake::https(&ca, |_| Reply::new(200, BYTES)).await;
    let registry = Fake::https(&ca, blob_or_redirect(storage.url("/signed?sig=secret"))).await;
    let session = secure(&registry, &ca, basic());
    let blob = session.fetch_blob(&name(), &Digest::of(BYTES), 1 << 20).await.unwrap().unwrap();
    assert_eq!(blob, BYTES);
    assert_eq!(registry.authorizations().len(), 1);
    assert!(storage.authorizations().is_empty());
    assert_eq!(storage.seen()[0].target, "/signed?sig=secret");
    assert!(storage.seen()[0].header("cookie").is_none() && storage.seen()[0].header("referer").is_none());
}

#[tokio::test]
async fn t26_a_credential_dropped_once_stays_away() {
    let ca = Ca::new();
    // B sends back to A; A would be pleased to see the credential again.
    let back = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let to = back.clone();
    let b = Fake::https(&ca, move |_| Reply::new(307, "").with("location", to.get().unwrap().clone())).await;
    let b_url = b.url("/b");
    let a = Fake::https(&ca, move |seen| match (seen.path(), seen.header("authorization")) {
        ("/back", _) => Reply::new(200, BYTES),
        (_, None) => Reply::error(401, "UNAUTHORIZED").with("www-authenticate", r#"Basic realm="x""#),
        _ => Reply::new(307, "").with("location", b_url.clone()),
    })
    .await;
    back.set(a.url("/back")).unwrap();
    let session = secure(&a, &ca, basic());
    assert_eq!(session.fetch_blob(&name(), &Digest::of(BYTES), 1 << 20).await.unwrap().unwrap(), BYTES);
    assert!(b.authorizations().is_empty());
    let returned = a.seen().into_iter().find(|seen| seen.path() == "/back").unwrap();
    assert_eq!(returned.header("authorization"), None);
}

#[tokio::test]
async fn t26_a_challenge_after_a_redirect_is_not_answered() {
    let ca = Ca::new();
    let challenge = || Reply::error(401, "UNAUTHORIZED").with("www-authenticate", r#"Basic realm="x""#);
    let other = Fake::https(&ca, move |_| challenge()).await;
    let to = other.url("/b");
    // One redirects those who have signed in, one redirects everybody: then no round of sign-in is used up yet.
    let after = Fake::https(&ca, blob_or_redirect(to.clone())).await;
    let at_once = Fake::https(&ca, move |_| Reply::new(307, "").with("location", to.clone())).await;
    for registry in [after, at_once] {
        let error = secure(&registry, &ca, basic()).fetch_blob(&name(), &Digest::of(BYTES), 9).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    }
    assert_eq!((other.seen().len(), other.authorizations().len()), (2, 0));
}

#[tokio::test]
async fn t26_redirects_to_weaker_transport_loops_and_inside_are_refused() {
    let ca = Ca::new();
    let clear = Fake::http(|_| Reply::new(200, BYTES)).await;
    for location in [
        clear.url("/b"),
        "/again".to_owned(),
        "https://user:pass@storage.example/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "ftp://storage.example/".to_owned(),
        "https://169.254.169.254/metadata".to_owned(),
        "https://[::ffff:127.0.0.1]/".to_owned(),
        "https://2852039166/".to_owned(),
    ] {
        let to = location.clone();
        let registry = Fake::https(&ca, move |_| Reply::new(307, "").with("location", to.clone())).await;
        let session = secure(&registry, &ca, Auth::Anonymous);
        let error = session.fetch_blob(&name(), &Digest::of(BYTES), 1 << 20).await.unwrap_err();
        let refused = is_untrusted(&error) || matches!(error, RegistryError::PrivateAddress { .. });
        assert!(refused, "{location}: {error}");
        assert!(!error.to_string().contains("pass"), "{error}");
        assert!(registry.seen().len() <= 4, "{}", registry.seen().len());
    }
    assert!(clear.seen().is_empty());
    // Without a word on where to.
    let registry = Fake::https(&ca, |_| Reply::new(307, "")).await;
    assert!(secure(&registry, &ca, Auth::Anonymous).fetch_tag(&name(), &tag()).await.is_err());
}

#[tokio::test]
async fn t26_lists_neither_redirect_nor_continue_elsewhere() {
    let trap = Fake::http(|_| Reply::new(200, r#"{"tags":["evil"]}"#)).await;
    let link = format!(r#"<{}>; rel="next""#, trap.url("/v2/iot/sensor/tags/list?last=x"));
    let fake = Fake::http(move |_| Reply::new(200, r#"{"tags":["1.0"]}"#).with("link", link.clone())).await;
    assert!(is_untrusted(&plain(&fake).tags(&name(), None).await.unwrap_err()));
    let to = trap.url("/v2/iot/sensor/tags/list");
    let fake = Fake::http(move |_| Reply::new(307, "").with("location", to.clone())).await;
    assert!(is_untrusted(&plain(&fake).tags(&name(), None).await.unwrap_err()));
    assert!(trap.seen().is_empty());
}

#[tokio::test]
async fn t21_a_list_may_hold_anything() {
    let fake = Fake::http(|_| Reply::new(200, r#"{"name":"x","tags":["1.0","../x","a b","latest"]}"#)).await;
    let page = plain(&fake).tags(&name(), None).await.unwrap().unwrap();
    assert_eq!((page.items.len(), page.skipped, page.next), (2, 2, None));
    for (body, good) in
        [(r#"{"tags":null}"#, true), ("{}", false), ("[]", false), (r#"{"tags":[1]}"#, false), ("", false)]
    {
        let fake = Fake::http(move |_| Reply::new(200, body)).await;
        assert_eq!(plain(&fake).tags(&name(), None).await.is_ok(), good, "{body}");
    }
}

#[tokio::test]
async fn t28_wrong_name_and_expired_certificates_are_refused() {
    let ca = Ca::new();
    let wrong = ca.issue(&["registry.example"]);
    let expired = ca.issue_with(&["127.0.0.1"], |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    for issued in [wrong, expired] {
        let fake = Fake::https_as(issued, |_| manifest(BYTES)).await;
        let error = secure(&fake, &ca, basic()).fetch_tag(&name(), &tag()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Tls(_)), "{error}");
        assert!(fake.seen().is_empty());
    }
}

/// Thousands of sessions may wait at a time, and a future lives on the stack while it is made: with the sign-in
/// steps inlined it once overflowed that.
#[tokio::test]
async fn the_future_of_a_request_stays_small() {
    let fake = Fake::http(|_| manifest(BYTES)).await;
    let (session, name, tag) = (plain(&fake), name(), tag());
    let bytes = std::mem::size_of_val(&session.fetch_tag(&name, &tag));
    assert!(bytes < 16 << 10, "{bytes}");
}
