//! `tidewaiter doctor`: each fault that it can find, made here, found, and told with what to do about it.

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use jiff::SignedDuration;
use serde_json::Value;
use support::fake::{Fake, Reply};
use support::images::{Form, Index, Platform};
use support::program::free_port;
use support::real::{OCI_MANIFEST, RealRegistry, Setup};
use support::tls::{Ca, Issued};
use tempfile::TempDir;
use tidewaiter::clock::{Clock, SystemClock};

/// A policy over `iot` and one that governs nothing anybody has.
const POLICIES: &str = r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: edge}
spec:
  repositories: ["**/iot/**"]
  classes: [{name: version, form: "{major}.{minor}.{patch}", require: {index: true}}]
  otherTags: deny
---
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: misspelt}
spec:
  repositories: ["**/itt/**"]
  classes: [{name: version, form: "{major}.{minor}.{patch}", require: {index: true}}]
  otherTags: deny
"#;

/// A folder with a configuration, and what the doctor says of it.
struct Patient {
    folder: TempDir,
    ca: Ca,
}

/// The findings and the exit code.
struct Told {
    checks: Vec<Value>,
    code: Option<i32>,
    text: String,
}

impl Patient {
    fn new() -> Patient {
        let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let patient = Patient { folder, ca };
        patient.write("ca.crt", patient.ca.pem());
        patient.write("secret", "s3cr3t-s3cr3t-s3cr3t");
        patient.write("policies.yaml", POLICIES);
        patient.certificate(&patient.ca.issue(&["localhost"]));
        patient
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn certificate(&self, issued: &Issued) {
        self.write("tls.crt", &issued.certificate);
        self.write("tls.key", &issued.key);
    }

    /// What the doctor says with this configuration, besides the ports, the certificate and the policies.
    fn with(&self, config: &str) -> Told {
        let head = "listen: {events: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}\ntls: {certificate: tls.crt, key: tls.key}\npolicies: [policies.yaml]\n";
        self.exactly(&format!("{head}{config}"))
    }

    fn exactly(&self, config: &str) -> Told {
        self.write("tidewaiter.yaml", config);
        let run = |form: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tidewaiter"));
            command.args(["doctor", "--config", "tidewaiter.yaml", "-o", form]);
            command.current_dir(self.path()).env_clear().stdin(Stdio::null()).output().unwrap()
        };
        let (json, text) = (run("json"), run("text"));
        assert_eq!(json.status.code(), text.status.code());
        let said = [text.stdout, text.stderr].concat();
        let document: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json:?}"));
        let checks = document["checks"].as_array().unwrap().clone();
        for check in &checks {
            let advised = !check["advice"].as_str().unwrap().is_empty();
            assert!(check["state"] == "ok" || advised, "each fault is told with what to do: {check}");
        }
        assert!(!format!("{document}{}", String::from_utf8_lossy(&said)).contains("s3cr3t"), "t62: no secret is shown");
        Told { checks, code: json.status.code(), text: String::from_utf8(said).unwrap() }
    }

    /// What it says with this registry behind a fake, over verified TLS.
    fn asking(&self, fake: &Fake, more: &str) -> Told {
        let host = fake.host();
        self.with(&format!("registries:\n  - {{host: \"{host}\", ca: ca.crt, allowPrivate: true, {more}}}\n"))
    }
}

impl Told {
    /// There is such a finding, with this state; in the text as well, with its advice.
    #[track_caller]
    fn has(&self, area: &str, state: &str, message: &str, advice: &str) -> &Told {
        let found = self.checks.iter().find(|check| {
            let text = |name: &str| check[name].as_str().unwrap();
            text("area") == area
                && text("state") == state
                && text("message").contains(message)
                && text("advice").contains(advice)
        });
        assert!(found.is_some(), "no {state} of {area}: `{message}` with `{advice}`:\n{}", self.text);
        // An invalid configuration is shown at its place instead, as everywhere.
        let shown = self.text.contains(message) && self.text.contains(advice);
        assert!(shown || self.text.contains(" --> tidewaiter.yaml:"), "{}", self.text);
        self
    }

    #[track_caller]
    fn ends(&self, code: i32) -> &Told {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }
}

fn expiring(ca: &Ca, days: i64) -> Issued {
    let day = |days: i64| {
        let at = SystemClock.now() + SignedDuration::from_hours(24 * days);
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    ca.issue_with(&["localhost"], |params| {
        params.not_before = day(days - 90);
        params.not_after = day(days);
    })
}

#[test]
fn configuration_and_secrets() {
    let patient = Patient::new();
    patient.with("").ends(0).has(
        "configuration",
        "ok",
        "0 registries, 0 sources, 0 sinks; all secrets can be read",
        "",
    );
    let unknown = patient.exactly("registies: []\n");
    unknown.ends(2).has("configuration", "fault", "did you mean `registries`?", "mend the file at this place");
    let registry = "registries: [{host: a.example, auth: {kind: basic, username: a, passwordFile: FILE}}]\n";
    let missing = patient.with(&registry.replace("FILE", "nowhere"));
    let advice = "put the secret into `nowhere`, readable by the daemon's user only";
    missing.ends(2).has("configuration", "fault", "tidewaiter.yaml:4:79: error: cannot read the secret", advice);
    patient.write("open", "s3cr3t");
    fs::set_permissions(patient.path().join("open"), fs::Permissions::from_mode(0o644)).unwrap();
    let readable = patient.with(&registry.replace("FILE", "open"));
    readable.ends(2).has("configuration", "fault", "can be read by group or others", "`chmod 600 open`");
    patient.write("policies.yaml", &POLICIES.replace("otherTags: deny", "otherTags: forbid"));
    patient.with("").ends(2).has("policies", "fault", "`forbid` is not allowed here", "");
}

#[test]
fn certificates_and_the_days_they_have() {
    let patient = Patient::new();
    patient.certificate(&expiring(&patient.ca, 60));
    patient.with("").ends(0).has("certificate", "ok", "events: ", "").has(
        "certificate",
        "ok",
        "is good for 59 days",
        "",
    );
    patient.certificate(&expiring(&patient.ca, 10));
    patient.with("").ends(0).has(
        "certificate",
        "warning",
        "ends in 9 days",
        "renew it; a changed file is read at once",
    );
    patient.certificate(&expiring(&patient.ca, -2));
    patient.with("").ends(1).has("certificate", "fault", "has expired", "renew it");
    patient.certificate(&expiring(&patient.ca, 60));
    patient.write("tls.key", &patient.ca.issue(&["localhost"]).key);
    patient.with("").ends(1).has("certificate", "fault", "events: ", "mend the files named under `tls`");
    patient.certificate(&expiring(&patient.ca, 60));
    let admin = patient.with("admin: {tls: {certificate: nowhere.crt, key: tls.key}}\n");
    admin.ends(1).has("certificate", "fault", "admin: ", "mend the files named under `tls`");
    let own = patient.exactly("policies: [policies.yaml]\n");
    own.has("certificate", "warning", "self-signed, kept in", "give senders `ca.crt` from there to trust");

    // The authority that a registry is verified by.
    let old = Ca::new();
    patient.write("old.crt", &expiring(&old, -1).certificate);
    let port = free_port().unwrap();
    let registry =
        patient.with(&format!("registries: [{{host: \"127.0.0.1:{port}\", allowPrivate: true, ca: old.crt}}]\n"));
    registry.ends(1).has("certificate", "fault", "authority of 127.0.0.1", "get the authority's new certificate");
}

#[test]
fn the_store() {
    let patient = Patient::new();
    let good = patient.with("");
    good.has("store", "ok", "a durable write in", "").has("store", "ok", "is not there yet; the daemon makes it", "");
    assert_eq!(fs::read_dir(patient.path()).unwrap().count(), 6, "nothing is left behind");
    let nowhere = patient.with("store: {url: \"sqlite:nowhere/tidewaiter.db\"}\n");
    nowhere.ends(0).has("store", "warning", "there is no folder `nowhere` yet; the daemon makes it", "`store.url`");
    patient.write("file", "");
    let nowhere = patient.with("store: {url: \"sqlite:file/tidewaiter.db\"}\n");
    nowhere.ends(1).has("store", "fault", "cannot write in", "make the folder, and let the daemon's user write there");
    fs::remove_file(patient.path().join("file")).unwrap();
    patient.write("tidewaiter.db", "this is no database, and has been something else for a long time");
    patient.with("").ends(1).has("store", "fault", "the store is damaged", "restore it from a backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_registry_is_there() {
    let patient = Patient::new();
    let port = free_port().unwrap();
    let host = format!("127.0.0.1:{port}");
    let nobody = patient.with(&format!("registries: [{{host: \"{host}\", allowPrivate: true}}]\n"));
    nobody.ends(1).has(
        "registry",
        "fault",
        &format!("{host}: no answer from the registry"),
        "check `host`, `endpoint`",
    );
    let private = patient.with(&format!("registries: [{{host: \"{host}\"}}]\n"));
    private.ends(1).has("registry", "fault", "private or reserved address", "set `allowPrivate: true`");
    let fake = Fake::https(&Ca::new(), |_| Reply::new(200, "{}")).await;
    patient.asking(&fake, "").ends(1).has("registry", "fault", "TLS is refused", "set `ca` of this registry");
    let page = Fake::https(&patient.ca, |_| Reply::new(404, "<html>no such page</html>")).await;
    patient.asking(&page, "").ends(1).has("registry", "fault", "answers 404", "there is a server, and no registry");
    let busy = Fake::https(&patient.ca, |_| Reply::new(500, "")).await;
    patient.asking(&busy, "").ends(1).has("registry", "fault", "answers 500", "the registry itself");
    let settings = patient.with("registries: [{host: a.example, ca: nowhere.crt}]\n");
    settings.ends(1).has("registry", "fault", "nowhere.crt", "mend its settings");
    let plain = patient.with(&format!("registries: [{{host: \"{}\", allowPrivate: true}}]\n", plain_http()));
    plain.ends(1).has("registry", "fault", "answers plain HTTP, not TLS", "`insecure: true`");
}

/// Each secret that cannot be used is a line of its own, and everything else is looked at all the same.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_cannot_be_used_hide_nothing_else() {
    let patient = Patient::new();
    patient.write("empty", "");
    patient.write("open", "s3cr3t-s3cr3t-s3cr3t");
    fs::set_permissions(patient.path().join("open"), fs::Permissions::from_mode(0o644)).unwrap();
    let fake = guarded(&patient.ca, |_| true).await;
    let (host, port) = (fake.host(), free_port().unwrap());
    let config = format!(
        "registries:
  - {{host: \"{host}\", ca: ca.crt, allowPrivate: true, auth: {{kind: basic, username: reader, passwordFile: nowhere}}}}
sources:
  - {{name: a, format: zot, registry: \"{host}\", auth: {{header: Authorization, valueFiles: [empty, open]}}}}
sinks:
  - {{name: b, kind: webhook, url: \"https://127.0.0.1:{port}\", tokenEnv: NOT_SET, signingKeyFile: nowhere}}
  - {{name: c, kind: slack, urlFile: nowhere}}
"
    );
    let told = patient.with(&config);
    let fault = |message: &str, advice: &str| {
        told.has("configuration", "fault", message, advice);
    };
    fault("cannot read the secret `nowhere`", "put the secret into `nowhere`");
    fault("the secret `empty` is empty", "write the secret into `empty`");
    fault("the secret `open` can be read by group or others", "chmod 600 open");
    fault("the environment variable `NOT_SET` is not set", "set NOT_SET");
    told.ends(2)
        .has("certificate", "ok", "events: ", "")
        .has("store", "ok", "a durable write in", "")
        .has("registry", "warning", "answers; what the credential may do was not tried", "mend the secret")
        .has("sink", "fault", &format!("`b` cannot be reached: Connection refused (os error 111) (port {port})"), "")
        .has("sink", "warning", "`c` was not tried", "mend the secret");
    assert!(fake.authorizations().is_empty(), "nothing is signed in with");
}

#[test]
fn secrets_that_can_be_guessed_or_not_be_sent() {
    let patient = Patient::new();
    patient.write("short", "s3cr3t\n");
    patient.write("two", "s3cr3t-s3cr3t-s3cr3t\ns3cr3t\n");
    let told = patient.with(
        "registries: [{host: a.example, ca: nowhere.crt}]
sources:
  - {name: a, format: zot, registry: a.example, auth: {header: Authorization, valueFiles: [short, two]}}
  - {name: b, format: google-artifact-registry, auth: {oidc: {issuer: https://accounts.google.com, audience: t, emails: [PUSH@PROJECT.iam.gserviceaccount.com]}}}
",
    );
    told.ends(1)
        .has("configuration", "warning", "source `a`: the secret `short` has 6 characters", "openssl rand -hex 32")
        .has("configuration", "fault", "source `a`: the secret `two` has more than one line", "leave one line in it")
        .has("sources", "fault", "still has PUSH@PROJECT", "the service account");
}

#[test]
fn addresses_that_cannot_be_listened_on() {
    let patient = Patient::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let listen =
        |events: &str, admin: &str| patient.exactly(&format!("listen: {{events: \"{events}\", admin: \"{admin}\"}}\n"));
    let told = listen(&taken.to_string(), "127.0.0.1:0");
    told.ends(1).has(
        "listener",
        "fault",
        &format!("`listen.events`: cannot listen on {taken}: another program listens there already"),
        "stop it, or set `listen.events`",
    );
    let port = free_port().unwrap();
    let told = listen(&format!("0.0.0.0:{port}"), &format!("127.0.0.1:{port}"));
    told.ends(1).has("listener", "fault", "are one address", "give them different ports");
    let told = listen("192.0.2.1:8443", "127.0.0.1:0");
    told.ends(1).has("listener", "fault", "this machine does not have the address", "0.0.0.0");
}

#[test]
fn no_policies_are_a_warning_as_the_daemon_starts_with_them() {
    let patient = Patient::new();
    for policies in ["policies: []\n", "policies: [empty]\n"] {
        fs::create_dir_all(patient.path().join("empty")).unwrap();
        let told = patient.exactly(policies);
        told.has("policies", "warning", "there is none: nothing is judged", "`kind: TagPolicy`");
        assert_ne!(told.code, Some(2), "{}", told.text);
    }
}

/// A server that speaks no TLS and says so, as they all do.
fn plain_http() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    address
}

/// A registry that takes user `reader` and gives the rights that `may` says.
async fn guarded(ca: &Ca, may: fn(&str) -> bool) -> Fake {
    let good = format!("Basic {}", base64::prelude::BASE64_STANDARD.encode("reader:s3cr3t-s3cr3t-s3cr3t"));
    Fake::https(ca, move |seen| match (seen.header("authorization"), seen.path()) {
        (Some(value), path) if value == good => match path {
            path if !may(path) => Reply::error(403, "DENIED"),
            "/v2/" => Reply::new(200, "{}"),
            "/v2/_catalog" => Reply::new(200, r#"{"repositories":["iot/sensor"]}"#),
            "/v2/iot/sensor/tags/list" => Reply::new(200, r#"{"name":"iot/sensor","tags":["1.0.0"]}"#),
            _ => Reply::new(200, "{}").with("content-type", OCI_MANIFEST),
        },
        _ => Reply::error(401, "UNAUTHORIZED").with("www-authenticate", "Basic realm=\"r\""),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_credential_may_do() {
    let patient = Patient::new();
    let auth = |user: &str| format!("auth: {{kind: basic, username: {user}, passwordFile: secret}}");
    let all = guarded(&patient.ca, |_| true).await;
    patient.asking(&all, &auth("reader")).ends(0).has(
        "registry",
        "ok",
        "lists repositories and reads tags and manifests, tried with iot/sensor",
        "",
    );
    let wrong = patient.asking(&all, &auth("somebody"));
    wrong.ends(1).has("registry", "fault", "refuses the credential", "has expired or was replaced");
    let nobody = patient.asking(&all, "auth: {kind: anonymous}");
    nobody.ends(0).has("registry", "warning", "does not list its repositories", "`reconcile.repositories`");

    let pull = guarded(&patient.ca, |path| path != "/v2/_catalog").await;
    let unknown = patient.asking(&pull, &auth("reader"));
    unknown.ends(0).has("registry", "warning", "does not list its repositories", "write a repository's name");
    let named = patient.asking(&pull, &format!("{}, reconcile: {{repositories: [iot/sensor]}}", auth("reader")));
    let message = "reads tags and manifests, tried with iot/sensor, and may not list repositories";
    named.ends(0).has("registry", "warning", message, "no more than pull");

    let list = guarded(&patient.ca, |path| !path.contains("/manifests/")).await;
    let advice = "give the credential the rights to pull and to list tags";
    let listed = patient.asking(&list, &auth("reader"));
    listed.ends(1).has("registry", "fault", "the manifest of iot/sensor:1.0.0 cannot be read", advice);
    let blind = guarded(&patient.ca, |path| !path.contains("/tags/")).await;
    let blind = patient.asking(&blind, &auth("reader"));
    blind.ends(1).has("registry", "fault", "the tags of iot/sensor cannot be read", advice);
    assert!(all.seen().iter().all(|seen| ["GET", "HEAD"].contains(&seen.method.as_str())), "it only reads");
}

/// Where a token service signs in, the doctor asks it for no right at first, as `docker login` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_tried_at_a_token_service() {
    let patient = Patient::new();
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let known = port.clone();
    let fake = Fake::https(&patient.ca, move |seen| match (seen.header("authorization"), seen.path()) {
        (Some(value), "/token") if value.starts_with("Basic cmVhZGVyO") => Reply::new(200, r#"{"token":"t"}"#),
        (_, "/token") => Reply::error(401, "UNAUTHORIZED"),
        (Some("Bearer t"), "/v2/_catalog") => Reply::new(200, r#"{"repositories":[]}"#),
        (Some("Bearer t"), _) => Reply::new(200, "{}"),
        _ => {
            let realm = format!("Bearer realm=\"https://127.0.0.1:{}/token\",service=\"r\"", known.get().unwrap());
            Reply::error(401, "UNAUTHORIZED").with("www-authenticate", realm)
        }
    })
    .await;
    port.set(fake.port).unwrap();
    let auth = |user: &str| format!("auth: {{kind: basic, username: {user}, passwordFile: secret}}");
    let good = patient.asking(&fake, &auth("reader"));
    good.ends(0).has("registry", "ok", "there is none yet to try reading with", "");
    let first = fake.seen().into_iter().find(|seen| seen.path() == "/token").unwrap();
    assert_eq!(first.target, "/token?service=r");
    patient.asking(&fake, &auth("somebody")).ends(1).has("registry", "fault", "refuses the credential", "check `auth`");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_disagree() {
    let patient = Patient::new();
    for (ahead, state, message) in [(-120, "warning", "s ahead of 127.0.0.1"), (600, "fault", "s behind 127.0.0.1")] {
        let fake = Fake::https(&patient.ca, move |seen| {
            let time = SystemClock.now() + SignedDuration::from_secs(ahead);
            let date = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let body = if seen.path() == "/v2/_catalog" { r#"{"repositories":[]}"# } else { "{}" };
            Reply::new(200, body).with("date", date)
        })
        .await;
        patient.asking(&fake, "").has("clock", state, message, "take their time from the network (NTP)");
    }
    let fake = Fake::https(&patient.ca, |_| Reply::new(200, r#"{"repositories":[]}"#).with("date", "soon")).await;
    let told = patient.asking(&fake, "");
    told.ends(0);
    assert_eq!(told.checks.iter().filter(|check| check["area"] == "clock").count(), 1, "{}", told.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks() {
    let patient = Patient::new();
    let sink = |url: &str, more: &str| {
        patient.write("chat", &format!("{url}/s3cr3t"));
        format!("sinks: [{{name: oncall, kind: slack, urlFile: chat, allowPrivate: true{more}}}]\n")
    };
    let port = free_port().unwrap();
    let nobody = patient.with(&sink(&format!("https://127.0.0.1:{port}"), ""));
    nobody.ends(1).has("sink", "fault", "`oncall` cannot be reached", "check its address and the network");
    let fake = Fake::https(&patient.ca, |_| Reply::new(200, "ok")).await;
    let good = patient.with(&sink(&fake.url(""), ", ca: ca.crt"));
    good.ends(0).has("sink", "ok", "`oncall` accepts connections; --send-test sends a message", "");
    assert!(fake.seen().is_empty(), "nothing is sent unless it is asked for");
    let untrusted = patient.with(&sink(&fake.url(""), ""));
    untrusted.ends(1).has("sink", "fault", "`oncall` cannot be reached", "set `ca` of this sink");
    let plain = patient.with(&sink(&format!("https://{}", plain_http()), ""));
    plain.ends(1).has("sink", "fault", "it answers plain HTTP, not TLS", "the port where it speaks TLS");
    let unreadable = patient.with(&sink(&fake.url(""), ", ca: nowhere.crt"));
    unreadable.ends(1).has("sink", "fault", "nowhere.crt", "mend its settings");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_govern_nothing_by_the_record_alone() {
    let patient = Patient::new();
    let registry = RealRegistry::start(Setup::default()).await;
    let platforms: [Platform; 1] = ["linux/amd64".parse().unwrap()];
    let index = Index { platforms: &platforms, version: "1", form: Form::Oci, attested: false, faults: &[] };
    registry.push("iot/sensor", "1.0.0", &index.build().unwrap()).await;
    let config = format!("registries: [{{host: \"{}\", insecure: true, allowPrivate: true}}]\n", registry.host());
    let message = "`misspelt` governs none of what is known so far: 1 repository, such as";
    let told = patient.with(&config);
    told.ends(0).has("policies", "warning", message, "check `spec.repositories`");
    assert!(!told.text.contains("`edge` governs none"), "{}", told.text);

    // The registry is gone, and what it had is on record.
    let mut audit = Command::new(env!("CARGO_BIN_EXE_tidewaiter"));
    audit.args(["audit", &registry.host(), "--record", "--config", "tidewaiter.yaml"]).current_dir(patient.path());
    let audited = audit.output().unwrap();
    assert!([Some(0), Some(1)].contains(&audited.status.code()), "{audited:?}");
    let without = patient.with("");
    without.ends(0).has("policies", "warning", message, "check `spec.repositories`");
    without.has("store", "ok", "1 tag of 1 repository", "");
}
