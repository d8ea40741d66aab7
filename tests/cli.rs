//! The command line as users and scripts meet it: the built program, real registries, exit codes, what is printed
//! where, and what is said when something is wrong.

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use support::azure::AzureRegistry;
use support::fake::Reply;
use support::images::{Build, Form, Index, chart};
use support::real::{RealRegistry, Setup};
use support::tls::Ca;
use tempfile::TempDir;

const TIER1: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
const POLICY: &str = r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: edge}
spec:
  repositories: ["**/iot/**", "localhost/sensor"]
  severity: critical
  classes:
    - name: version
      form: "{major}.{minor}.{patch}"
      expected: true
      require:
        immutable: true
        index: true
        platforms: {all: [linux/amd64, linux/arm64, linux/arm/v7]}
        intact: true
    - name: latest
      form: latest
      require:
        follows: {class: version, for: 15m, severity: warning}
  otherTags: deny
"#;

/// What a command did.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn with(self, code: i32) -> Done {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    fn out(self, text: &str) -> Done {
        assert!(self.out.contains(text), "`{text}` is not in the output: {self:#?}");
        self
    }

    #[track_caller]
    fn err(self, text: &str) -> Done {
        assert!(self.err.contains(text), "`{text}` is not on standard error: {self:#?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A folder to work in, with a policy and nothing of the user's.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
        Desk { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewaiter"));
        command.args(arguments).current_dir(self.path()).env_clear().env("HOME", self.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments))
    }

    /// The same with `--policy policy.yaml` after the verb and its targets.
    fn judge(&self, arguments: &[&str]) -> Done {
        self.run(&[arguments, &["--policy", "policy.yaml"]].concat())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn finish(mut command: Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Done { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

fn index(platforms: &[&str], version: &str) -> Build {
    let platforms: Vec<_> = platforms.iter().map(|text| text.parse().unwrap()).collect();
    Index { platforms: &platforms, version, form: Form::Oci, attested: false, faults: &[] }.build().unwrap()
}

#[tokio::test]
async fn images_of_a_loopback_registry_are_judged_without_any_configuration() {
    let registry = RealRegistry::start(Setup::default()).await;
    let (desk, host) = (Desk::new(), registry.host());
    registry.push("iot/good", "1.0.0", &index(&TIER1, "a")).await;
    registry.push("iot/good", "latest", &index(&TIER1, "a")).await;
    registry.push("iot/bad", "1.0.1", &index(&TIER1[..2], "b")).await;
    let digest = registry.push("iot/bad", "latest", &index(&TIER1[..2], "b")).await;
    registry.push("other", "v1", &index(&TIER1, "c")).await;
    let of = |name: &str| format!("{host}/{name}");

    desk.judge(&["check", &of("iot/good:1.0.0"), &of("iot/good:latest")]).with(0).out("2 tags meet policy edge");
    // Tags of one repository share their row of causes.
    let bad = desk.judge(&["check", &of("iot/bad:latest"), &of("iot/bad:1.0.1")]).with(1);
    let bad = bad.out("latest, at 1.0.1").out("✗ 1.0.1").out("linux/arm/v7 is missing").out("1 violation");
    assert!(bad.err.is_empty(), "{}", bad.err);
    assert!(!bad.out.contains('\u{1b}'), "no colour without a terminal: {}", bad.out);

    let report = desk.judge(&["check", &of("iot/bad:1.0.1"), "-o", "json"]).with(1).json();
    assert_eq!(report["kind"], "Report");
    assert_eq!(report["verdicts"][0]["image"]["digest"], digest.as_str());
    assert_eq!(report["verdicts"][0]["findings"][0]["reason"], "missing-platform");
    assert_eq!(report["verdicts"][0]["notEvaluated"][0]["requirement"], "immutable");
    assert_eq!(report["verdicts"][0]["origin"], "check");

    // A digest is judged by the tags that lead to it.
    desk.judge(&["check", &format!("{}@{digest}", of("iot/bad"))]).with(1).out("1.0.1").out("latest");
    desk.judge(&["check", &format!("{}@{digest}", of("iot/good"))]).with(2).out("no tag leads to this digest");

    // What the exit code can be told.
    desk.judge(&["check", &of("iot/bad:1.0.1"), "--exit-zero"]).with(0).out("linux/arm/v7");
    let warned = POLICY.replace("severity: critical", "severity: warning");
    desk.write("warned.yaml", warned);
    desk.run(&["check", &of("iot/bad:1.0.1"), "--policy", "warned.yaml", "--fail-on", "critical"]).with(0);
    desk.run(&["check", &of("iot/bad:1.0.1"), "--policy", "warned.yaml", "--fail-on", "warning"]).with(1);

    // Nothing to judge.
    desk.judge(&["check", &of("iot/good:1.0.9")]).with(2).out("there is no such tag; the repository has 1.0.0, latest");
    // Nothing judged may be accepted; a name that is not there is a slip, and no pass.
    desk.judge(&["check", &of("iot/good:1.0.9"), "--allow-empty"]).with(2);
    desk.judge(&["audit", &of("iot/none"), "--allow-empty"]).with(2).out("there is no repository");
    desk.judge(&["check", &of("iot/good:1.0.9"), &of("iot/good:1.0.0")]).with(3);
    desk.judge(&["check", &of("other:v1")]).with(2).err("`edge` does not govern").out("no policy governs");
    desk.judge(&["check", &of("other:v1"), "--allow-empty"]).with(0);

    // The shipped policies where none is named.
    desk.run(&["check", &of("iot/bad:1.0.1")]).with(1).out("policy iot-edge-module");

    // Reports into files, the text on standard output.
    desk.judge(&["check", &of("iot/bad:1.0.1"), "-o", "text", "-o", "junit=a.xml", "-o", "sarif=b.json"])
        .with(1)
        .out("missing");
    assert!(fs::read_to_string(desk.path().join("a.xml")).unwrap().contains("missing-platform"));
    let sarif: Value = serde_json::from_slice(&fs::read(desk.path().join("b.json")).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    desk.judge(&["check", &of("iot/bad:1.0.1"), "-o", "text", "-o", "json"]).with(2).err("only one report");
}

#[tokio::test]
async fn every_tag_of_a_registry_is_audited() {
    let registry = RealRegistry::start(Setup::default()).await;
    let (desk, host) = (Desk::new(), registry.host());
    registry.push("iot/good", "1.0.0", &index(&TIER1, "a")).await;
    registry.push("iot/chart", "1.0.0", &chart("chart", "1.0.0")).await;
    registry.push("iot/odd", "v1.0.0", &index(&TIER1, "a")).await;
    registry.push("other", "v1", &index(&TIER1, "c")).await;

    let all = desk.judge(&["audit", &host]).with(1).out("iot/good: 1 tag meets policy edge");
    let all = all.out("the tag leads to a Helm chart").out("drop the `v`");
    // What a class lacks is said by an audit, and by no check of a single tag.
    let all = all.out("lacks any tag of the form").out(&format!("no policy governs {host}/other"));
    assert!(all.err.is_empty(), "{}", all.err);
    let odd = desk.judge(&["check", &format!("{host}/iot/odd:v1.0.0"), "-o", "json"]).with(1).json();
    assert_eq!(odd["verdicts"].as_array().unwrap().len(), 1);

    desk.judge(&["audit", &format!("{host}/iot/good")]).with(0);
    let lines = desk.judge(&["audit", &host, "-o", "jsonl"]).with(1);
    assert!(lines.out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", lines.out);
    desk.judge(&["audit", &format!("{host}/iot/none")]).with(2).out("there is no repository");
    desk.judge(&["audit", &format!("{host}/iot/good:1.0.0")]).with(2).err(&format!("write `{host}/iot/good`"));
}

#[tokio::test]
async fn private_authorities_and_credentials_of_the_container_tools_are_used() {
    let ca = Ca::new();
    let setup = Setup { tls: Some(&ca), user: Some(("robot", "s3cret")), ..Setup::default() };
    let registry = RealRegistry::start(setup).await;
    let (desk, host) = (Desk::new(), registry.host());
    registry.push("iot/good", "1.0.0", &index(&TIER1, "a")).await;
    let target = format!("{host}/iot/good:1.0.0");
    desk.write("ca.crt", ca.pem());

    // Never plain http to a registry that speaks TLS, and nobody is trusted who was not named.
    desk.judge(&["check", &target]).with(3).out("TLS");
    desk.judge(&["check", &target, "--ca", "ca.crt"]).with(3).out("credential");
    let auth = base64::engine::general_purpose::STANDARD.encode("robot:s3cret");
    desk.write(".docker/config.json", json!({ "auths": { &host: { "auth": auth } } }).to_string());
    desk.judge(&["check", &target, "--ca", "ca.crt"]).with(0);
    desk.judge(&["audit", &host, "--ca", "ca.crt"]).with(0);
    desk.write("auth.json", json!({ "auths": { &host: { "auth": auth } } }).to_string());
    fs::remove_dir_all(desk.path().join(".docker")).unwrap();
    let mut command = desk.command(&["check", &target, "--ca", "ca.crt", "--policy", "policy.yaml"]);
    command.env("REGISTRY_AUTH_FILE", "auth.json");
    finish(command).with(0);
    // The same by a configuration.
    desk.write("password", "s3cret\n");
    let config = format!(
        "policies: [policy.yaml]\nregistries:\n  - host: \"{host}\"\n    ca: ca.crt\n    allowPrivate: true\n    auth: {{kind: basic, username: robot, passwordFile: password}}\n"
    );
    desk.write("tidewaiter.yaml", config);
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut fs::metadata(desk.path().join("password")).unwrap().permissions(),
        0o600,
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(desk.path().join("password"), mode).unwrap();
    desk.run(&["check", &target, "--config", "tidewaiter.yaml"]).with(0).out("policy edge");
    desk.run(&["doctor", "--config", "tidewaiter.yaml"]).with(0).out("lists repositories and reads tags");
    // A helper program is named and not run.
    desk.write("auth.json", json!({ "credHelpers": { &host: "evil" } }).to_string());
    let mut command = desk.command(&["check", &target, "--ca", "ca.crt", "--policy", "policy.yaml"]);
    command.env("REGISTRY_AUTH_FILE", "auth.json");
    finish(command).with(2).err("kept by the helper `evil`");
}

/// Writes a layout as `skopeo copy … oci:` does.
fn layout(folder: &Path, images: &[(&str, &Build)]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let mut manifests = Vec::new();
    for (name, build) in images {
        let children = build.children.iter().map(|child| &child.manifest);
        for content in build.blobs.iter().chain(children).chain([&build.root]) {
            fs::write(blobs.join(content.digest().strip_prefix("sha256:").unwrap()), &content.bytes).unwrap();
        }
        manifests.push(json!({
            "mediaType": build.root.media_type, "digest": build.root.digest(), "size": build.root.bytes.len(),
            "annotations": { "org.opencontainers.image.ref.name": name },
        }));
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn local_images_are_judged_as_what_they_will_be_pushed_as() {
    let desk = Desk::new();
    let (good, bad) = (index(&TIER1, "a"), index(&TIER1[..2], "b"));
    layout(&desk.path().join("sensor"), &[("1.0.0", &good), ("1.0.1", &bad)]);
    let pushed = "registry.invalid/iot/sensor:1.0.2";

    // No registry is asked: there is none.
    desk.judge(&["check", "oci:sensor:1.0.0", "--as", pushed]).with(0).out("1 tag meets policy edge");
    let bad = desk.judge(&["check", "oci:sensor:1.0.1", "--as", pushed]).with(1).out("linux/arm/v7 is missing");
    bad.out("not evaluated").out("a local image is judged by itself");
    desk.judge(&["check", "oci:sensor:1.0.0", "--as", "registry.invalid/iot/sensor:latest"]).with(0).out("follows");

    // Without --as it is said what it is taken for.
    desk.judge(&["check", "oci:sensor:1.0.0"]).with(0).err("judged as localhost/sensor:1.0.0");
    desk.judge(&["check", "oci:sensor"]).with(1).out("1.0.0").out("1.0.1");

    desk.judge(&["check", "oci:sensor:9", "--as", pushed]).with(2).err("it has `1.0.0`, `1.0.1`");
    desk.judge(&["check", "oci:nowhere", "--as", pushed]).with(2).err("nowhere");
    desk.judge(&["check", "oci:sensor:1.0.0", "--as", "registry.invalid/iot/sensor"]).with(2).err("tag");
    desk.judge(&["check", "registry.invalid/iot/a:1", "--as", pushed]).with(2).err("one local image");

    let archive =
        Command::new("tar").args(["-C", "sensor", "-cf", "sensor.tar", "."]).current_dir(desk.path()).status();
    assert!(archive.unwrap().success());
    desk.judge(&["check", "oci-archive:sensor.tar:1.0.0", "--as", pushed]).with(0);
}

#[test]
fn wrong_usage_says_what_to_type() {
    let desk = Desk::new();
    for (arguments, text) in [
        (&["check", "alpine:3"][..], "write `docker.io/library/alpine:3`"),
        (&["check", "https://contoso.azurecr.io/a:1"], "write `contoso.azurecr.io/a:1`"),
        (&["check", "contoso.azurecr.io/a"], "tidewaiter audit contoso.azurecr.io/a"),
        (&["check", "contoso.azurecr.io/a:1", "-o", "yaml"], "`yaml` is not a format"),
        (&["check", "contoso.azurecr.io/a:1", "--fail-on", "high"], "info, warning, critical"),
        (&["check", "contoso.azurecr.io/a:1", "--policy", "none.yaml"], "no file or folder `none.yaml`"),
        (&["check", "contoso.azurecr.io/a:1", "--config", "none.yaml"], "none.yaml"),
        (&["check"], "TARGET"),
        (&["chek"], "'check'"),
        (&["history", "contoso.azurecr.io/a:1"], "there is no store `tidewaiter.db`"),
        (&["accept", "contoso.azurecr.io/a:1", "--reason", "x"], "a:TAG@sha256:"),
        (&["store", "info"], "there is no store"),
        (&["policy", "explain", "missing-platfrm"], "did you mean `missing-platform`?"),
        (&["man", "chek"], "no command `chek`"),
        (&["events", "--since", "yesterday"], "--since 24h"),
    ] {
        let done = desk.run(arguments);
        assert!(done.code == 2 || done.code == 3, "{arguments:?}: {done:?}");
        assert!(done.err.contains(text), "{arguments:?} does not say `{text}`: {}", done.err);
        assert!(done.out.is_empty(), "{arguments:?}: {}", done.out);
    }
}

#[test]
fn a_registry_that_does_not_answer_is_an_error_and_no_pass() {
    let desk = Desk::new();
    let port = support::program::free_port().unwrap();
    desk.judge(&["check", &format!("127.0.0.1:{port}/iot/a:1.0.0")]).with(3).out("no answer from the registry");
    desk.judge(&["audit", &format!("127.0.0.1:{port}")]).with(3);
    let done = desk.judge(&["check", &format!("127.0.0.1:{port}/iot/a:1.0.0"), "--exit-zero"]);
    done.with(0);
}

#[test]
fn payloads_are_understood_as_published() {
    let desk = Desk::new();
    let body = r#"{"id":"1","timestamp":"2026-11-22T10:00:00Z","action":"push","target":{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:80f0d5c8786bb9e621a45ece0db56d11cdc624ad20da9fe62e9d25490f331d7d","repository":"iot/sensor","tag":"1.0.1"},"request":{"host":"contoso.azurecr.io","method":"PUT"}}"#;
    desk.write("push.json", body);
    let expected = json!({
        "events": [{
            "action": "push", "registry": "contoso.azurecr.io", "repository": "iot/sensor", "tag": "1.0.1",
            "digest": "sha256:80f0d5c8786bb9e621a45ece0db56d11cdc624ad20da9fe62e9d25490f331d7d",
        }],
        "ignored": [], "handshake": null,
    });
    assert_eq!(desk.run(&["event", "parse", "--format", "acr", "push.json"]).with(0).json(), expected);
    for arguments in [&["event", "parse", "--format", "acr", "-"][..], &["event", "parse", "--format", "acr"]] {
        let mut command = desk.command(arguments);
        command.stdin(fs::File::open(desk.path().join("push.json")).unwrap());
        assert_eq!(finish(command).with(0).json(), expected);
    }
    desk.write("hello.http-headers", ":method: OPTIONS\nWebHook-Request-Origin: eventgrid.azure.net\n");
    let hello =
        desk.run(&["event", "parse", "--format", "event-grid", "--headers", "hello.http-headers"]).with(0).json();
    assert_eq!(hello["handshake"]["headers"]["WebHook-Allowed-Origin"], "eventgrid.azure.net");
    desk.write("broken.json", "{");
    desk.run(&["event", "parse", "--format", "acr", "broken.json"]).with(2).err("this is no `acr` event");
    desk.run(&["event", "parse", "--format", "github", "push.json"]).with(2).err("--headers FILE");
    desk.run(&["event", "parse", "--format", "acr", "nothing.json"]).with(2).err("cannot read `nothing.json`");
    desk.run(&["event", "parse", "--format", "docker", "push.json"]).with(2).err("docker-hub");
}

#[test]
fn policies_are_linted_tested_and_explained() {
    let desk = Desk::new();
    desk.run(&["policy", "lint", "policy.yaml"]).with(0).out("1 file, 1 document: no faults");
    desk.write("bad.yaml", POLICY.replace("otherTags: deny", "otherTags: forbid"));
    let bad = desk.run(&["policy", "lint", "bad.yaml"]).with(2).out("error: `forbid` is not allowed here");
    bad.out("--> bad.yaml:21:14").out("^^^^^^ use `deny` or `allow`");
    let list = desk.run(&["policy", "lint", "bad.yaml", "-o", "json"]).with(2).json();
    assert_eq!((&list[0]["line"], &list[0]["column"]), (&json!(21), &json!(14)));
    // The same faults wherever policies are read; no registry is asked first.
    desk.run(&["check", "registry.invalid/iot/a:1.0.0", "--policy", "bad.yaml"])
        .with(2)
        .err("`forbid` is not allowed here");

    let schema = desk.run(&["policy", "schema"]).with(0).json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");

    let explained = desk.judge(&["policy", "explain", "registry.invalid/iot/a:1.0.0"]).with(0);
    explained.out("class version, by the form {major}.{minor}.{patch}: major 1, minor 0, patch 0").out("immutable");
    desk.judge(&["policy", "explain", "registry.invalid/iot/a:v1"]).with(0).out("other tags are denied");
    desk.run(&["policy", "explain", "missing-platform"]).with(0).out("What to do");
    for topic in tidewaiter::alert::Topic::ALL {
        let told = desk.run(&["policy", "explain", topic.as_str()]).with(0);
        told.out("What to do").out("When it is over").out("trouble of the daemon itself");
    }

    desk.write(
        "policy.test.yaml",
        r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicyTest
metadata: {name: edge}
spec:
  policy: edge
  repository: registry.invalid/iot/a
  manifests:
    whole: {index: [linux/amd64, linux/arm64, linux/arm/v7]}
  cases:
    - name: a version
      steps:
        - push: {1.0.0: whole}
          expect: {1.0.0: pass}
"#,
    );
    desk.run(&["policy", "test", "policy.test.yaml"]).with(0).out("1 case: 1 passed, 0 failed");
    let wrong =
        fs::read_to_string(desk.path().join("policy.test.yaml")).unwrap().replace("1.0.0: pass", "1.0.0: violation");
    desk.write("policy.test.yaml", wrong);
    desk.run(&["policy", "test", "policy.test.yaml"]).with(1).out("FAIL").out("violation");
    desk.run(&["policy", "test", "policy.test.yaml", "-o", "junit"]).with(1).out("<failure");
    desk.run(&["policy", "test", "policy.test.yaml", "--coverage"]).with(1).out("platforms of class version");
    desk.run(&["policy", "test", "policy.yaml"]).with(2).err("there is no test");
}

#[tokio::test]
async fn what_init_writes_is_found_well_by_the_doctor() {
    let registry = RealRegistry::start(Setup::default()).await;
    registry.push("iot/good", "1.0.0", &index(&TIER1, "a")).await;
    let (desk, host) = (Desk::new(), registry.host());
    let init = desk.run(&["init", "--registry", &host, "--dir", "new"]).with(0);
    let secret = fs::read_to_string(desk.path().join("new/webhook-secret")).unwrap();
    assert!(!init.out.contains(secret.trim().trim_start_matches("Bearer ")), "t62: the secret is not printed");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(desk.path().join("new/webhook-secret")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    init.out("notifications:").out("/v1/events/local-distribution");
    desk.run(&["init", "--registry", &host, "--dir", "new"]).with(2).err("nothing was written");
    assert_eq!(fs::read_to_string(desk.path().join("new/webhook-secret")).unwrap(), secret);
    desk.run(&["init", "--registry", &host, "--dir", "new", "--force"]).with(0);
    assert_ne!(fs::read_to_string(desk.path().join("new/webhook-secret")).unwrap(), secret);

    let config = "new/tidewaiter.yaml";
    desk.run(&["doctor", "--config", config]).with(0).out("lists repositories and reads tags").out("everything works");
    let checks = desk.run(&["doctor", "--config", config, "-o", "json"]).with(0).json();
    assert!(checks["checks"].as_array().unwrap().iter().all(|check| check["state"] != "fault"), "{checks}");
    desk.run(&["audit", &host, "--config", config]).with(0).out("1 tag meets policy versions");
    assert!(!desk.path().join("new/tidewaiter.db").exists(), "looking makes no store");

    // Each fault with what to do.
    let text = fs::read_to_string(desk.path().join(config)).unwrap();
    let port = support::program::free_port().unwrap();
    let unreachable = text.replace(&host, &format!("127.0.0.1:{port}"))
        + &format!("sinks:\n  - {{name: oncall, kind: alertmanager, url: \"http://127.0.0.1:{port}\"}}\n");
    desk.write(config, unreachable.replace("sinks: []\n", ""));
    let done = desk.run(&["doctor", "--config", config]).with(1);
    done.out("no answer from the registry").out("`oncall` cannot be reached").out("2 faults");
    desk.write(config, "registries: 7\n");
    desk.run(&["doctor", "--config", config]).with(2).err("tidewaiter.yaml:1:13");
    desk.write(config, text);
    desk.write("new/policies/bad.yaml", POLICY.replace("otherTags: deny", "otherTags: forbid"));
    desk.run(&["doctor", "--config", config]).with(2).out("`forbid` is not allowed here");
}

#[tokio::test]
async fn a_reference_is_explained_with_its_results() {
    let registry = RealRegistry::start(Setup::default()).await;
    let (desk, host) = (Desk::new(), registry.host());
    let good = registry.push("iot/good", "1.0.0", &index(&TIER1, "a")).await;
    registry.push("iot/bad", "1.0.1", &index(&TIER1[..2], "b")).await;
    registry.push("iot/bad", "latest", &index(&TIER1, "c")).await;
    registry.push("iot/bad", "v1", &index(&TIER1, "c")).await;
    let explain = |reference: &str| desk.judge(&["policy", "explain", &format!("{host}/{reference}")]).with(0);

    let done = explain("iot/good:1.0.0").out(&format!("iot/good:1.0.0, now {}", good.as_str()));
    let done = done.out("  ✓ platforms       critical  all of linux/amd64").out("  ✓ intact");
    let done = done.out("  · immutable       critical\n      not evaluated: no record of this tag\n");
    assert!(done.err.is_empty(), "{}", done.err);
    // What is asked stands there with what comes of it; a build is failed by `check`.
    let done = explain("iot/bad:1.0.1").out("  ✓ index");
    done.out("  ✗ platforms       critical  all of linux/amd64, linux/arm64, linux/arm/v7\n      linux/arm/v7 is");
    explain("iot/bad:latest").out("  ! follows         warning   the highest of class version; for 15m");
    explain("iot/bad:v1").out("✗ no class has this form, and other tags are denied (critical)\n      `v1` has none of");

    // Without the registry there is the explanation alone, and one line that says why; many ask before they push.
    let absent = explain("iot/good:2.0.0").out("    platforms       critical  all of");
    let absent = absent.err("iot/good:2.0.0 is explained without results: there is no such tag");
    assert_eq!(absent.err.lines().count(), 1, "{}", absent.err);
    let away = desk.judge(&["policy", "explain", "127.0.0.1:1/iot/good:1.0.0"]).with(0).out("    platforms  ");
    let away = away.err("127.0.0.1:1/iot/good:1.0.0 is explained without results: no answer from the registry");
    assert_eq!(away.err.lines().count(), 1, "{}", away.err);
    let reference = format!("{host}/iot/good:1.0.0");
    let offline = desk.judge(&["policy", "explain", &reference, "--offline"]).with(0).out("    platforms  ");
    assert!(offline.err.is_empty() && !offline.out.contains('✓'), "{offline:#?}");
    desk.judge(&["policy", "explain", &reference, "--ca", "none.crt"]).with(2).err("none.crt");

    // With a configuration the record is read, as `check` does.
    let config = format!(
        "store: {{url: \"sqlite:t.db\"}}\npolicies: [policy.yaml]\nregistries:\n  - {{host: \"{host}\", insecure: true, allowPrivate: true}}\n"
    );
    desk.write("t.yaml", config);
    let run = |arguments: &[&str]| desk.run(&[arguments, &["--config", "t.yaml"]].concat());
    run(&["policy", "explain", &reference]).with(0).err("there is no record yet in").out("  · immutable");
    let unread = run(&["policy", "lint", "policy.yaml"]).with(0).out("no faults");
    unread.err("there is no record yet in `t.db`: what the patterns match is not looked at");
    run(&["audit", &host, "--record"]).with(1);
    run(&["policy", "explain", &reference]).with(0).out("  ✓ immutable       critical\n");
    registry.push("iot/good", "1.0.0", &index(&TIER1, "d")).await;
    run(&["policy", "explain", &reference]).with(0).out("  ✗ immutable       critical\n      the tag moved from");

    // Patterns are tried on the repositories on record, whatever policies are named.
    let linted = run(&["policy", "lint"]).with(0).out("1 warning");
    linted.out("`localhost/sensor` matches none of the 2 repositories on record").out("policy.yaml:6:31");
    desk.write(
        "other.yaml",
        POLICY.replace("**/iot/**", &format!("{host}/itt/*")).replace("name: edge", "name: other"),
    );
    let linted = run(&["policy", "lint", "other.yaml", "-o", "json"]).with(0).json();
    assert_eq!((&linted[0]["code"], &linted[0]["line"]), (&json!("pattern-without-match"), &json!(6)), "{linted:#}");
    assert!(linted[0]["message"].as_str().unwrap().contains("/itt/*` matches none of the 2"), "{linted:#}");
    desk.run(&["policy", "lint"]).with(2).err("PATH");
}

const LOCKED: &str = r#"
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata: {name: locks}
spec:
  repositories: ["**/iot/**"]
  classes:
    - {name: version, form: "{major}.{minor}.{patch}", require: {locked: true}}
"#;

// The registry in memory answers while a command is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_locks_are_read_where_the_registry_is_azures() {
    let ca = Ca::new();
    let azure = AzureRegistry::start(&ca).await;
    let desk = Desk::new();
    desk.write("locks.yaml", LOCKED);
    desk.write("ca.crt", ca.pem());
    desk.write("password", "s3cret\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(desk.path().join("password"), mode).unwrap();
    let endpoint = azure.fake.url("");
    let config = format!(
        "store: {{url: \"sqlite:t.db\"}}\npolicies: [locks.yaml]\nregistries:\n  - host: contoso.azurecr.io\n    endpoint: \"{endpoint}\"\n    ca: ca.crt\n    allowPrivate: true\n    auth: {{kind: basic, username: robot, passwordFile: password}}\n"
    );
    desk.write("t.yaml", config);
    let run = |arguments: &[&str]| desk.run(&[arguments, &["--config", "t.yaml"]].concat());
    let image = "contoso.azurecr.io/iot/sensor";
    for (tag, version) in [("1.0.0", "a"), ("1.0.1", "b"), ("edge", "c")] {
        let digest = azure.push(tag, &index(&TIER1, version));
        azure.lock(tag);
        if tag == "1.0.0" {
            azure.lock(&digest);
        }
    }
    let (first, second) = (format!("{image}:1.0.0"), format!("{image}:1.0.1"));

    run(&["check", &first]).with(0).out("1 tag meets policy locks");
    run(&["check", &second]).with(1).out("the tag or its manifest can be overwritten");
    run(&["policy", "explain", &first]).with(0).out("  ✓ locked");
    // Nobody asks for what no policy asks for.
    assert!(
        run(&["check", &format!("{image}:edge")]).code != 1 && azure.asked("/acr/v1/iot/sensor/_tags/edge").is_empty()
    );
    // What cannot be read is no pass: exit code 3.
    azure.grants_content_only(true);
    run(&["check", &first]).with(3).out("the write lock cannot be read").out("AcrPull");
    azure.grants_content_only(false);
    let moved = index(&TIER1, "d").root.digest();
    azure.fault(move |path| {
        let other = format!(r#"{{"tag":{{"digest":"{moved}","changeableAttributes":{{"writeEnabled":false}}}}}}"#);
        path.contains("/_tags/").then(|| Reply::new(200, other))
    });
    run(&["check", &first]).with(3).out("the tag was moved while its write lock was asked for");
    azure.fault(|_| None);

    // The daemon's own way, onto the record; what judges the record alone goes by what was read.
    run(&["audit", image, "--record"]).with(1);
    let listed = run(&["violations", "-o", "json"]).with(0).json();
    let found: Vec<(&Value, &Value)> =
        listed["violations"].as_array().unwrap().iter().map(|v| (&v["tag"], &v["reason"])).collect();
    assert_eq!(found, [(&json!("1.0.1"), &json!("unlocked"))], "{listed:#}");
    run(&["replay", "--policy", "locks.yaml"]).with(0).out("nothing would change");

    // A lock that comes or goes raises no event; the sweep finds it.
    let newer = index(&TIER1, "b").root.digest();
    azure.lock(&newer);
    run(&["audit", image, "--record"]).with(0);
    run(&["violations"]).with(0).out("no violations");
    azure.unlock("1.0.0");
    run(&["audit", image, "--record"]).with(1);
    run(&["violations"]).with(0).out("1.0.0").out("locked");

    // Registries that have no locks: neither a pass nor a finding.
    let plain = RealRegistry::start(Setup::default()).await;
    plain.push("iot/good", "1.0.0", &index(&TIER1, "a")).await;
    let target = format!("{}/iot/good:1.0.0", plain.host());
    let done = desk.run(&["check", &target, "--policy", "locks.yaml"]).out("not evaluated: locked");
    assert!(done.out.contains("the registry has no write locks"), "{}", done.out);
}

#[tokio::test]
async fn the_record_is_read_from_the_store_and_from_the_daemon_alike() {
    let registry = RealRegistry::start(Setup::default()).await;
    let first = registry.push("iot/good", "1.0.0", &index(&TIER1, "a")).await;
    let (desk, host) = (Desk::new(), registry.host());
    desk.run(&["init", "--registry", &host]).with(0);
    let admin = format!("127.0.0.1:{}", support::program::free_port().unwrap());
    let events = format!("127.0.0.1:{}", support::program::free_port().unwrap());
    let text = fs::read_to_string(desk.path().join("tidewaiter.yaml")).unwrap();
    desk.write("tidewaiter.yaml", text.replace("127.0.0.1:9464", &admin).replace("127.0.0.1:8443", &events));
    let run = |arguments: &[&str]| desk.run(&[arguments, &["--config", "tidewaiter.yaml"]].concat());
    let tag = format!("{host}/iot/good:1.0.0");

    run(&["history", &tag]).with(3).err("there is no store");
    // Without a record the past is not judged, and a run says so once.
    let without = run(&["check", &tag]).with(0).err("there is no record yet in").out("not evaluated: immutable");
    assert_eq!(without.err.lines().count(), 1, "{}", without.err);
    let audit = run(&["audit", &host, "--record"]).with(0);
    assert!(!audit.out.contains("not evaluated"), "with a record there is a history: {}", audit.out);
    run(&["history", &tag]).with(0).out(first.as_str()).out("audit");
    run(&["violations"]).with(0).out("no violations");

    // A released version moves: the next audit finds it, and it is on record.
    let moved = index(&TIER1, "b");
    run(&["check", &tag]).with(0).out("1 tag meets");
    layout(&desk.path().join("next"), &[("1.0.0", &moved)]);
    run(&["check", "oci:next", "--as", &tag]).with(1).out("the tag moved from");
    let second = registry.push("iot/good", "1.0.0", &moved).await;
    // A check reads the record and writes nothing.
    for _ in 0..2 {
        run(&["check", &tag]).with(1).out("immutable").out(first.short());
        run(&["audit", &format!("{host}/iot/good")]).with(1).out("immutable");
    }
    run(&["violations"]).with(0).out("no violations");
    run(&["audit", &format!("{host}/iot/good"), "--record"]).with(1).out("immutable");
    let listed = run(&["violations", "-o", "json"]).with(0).json();
    assert_eq!(listed["violations"][0]["requirement"], "immutable");
    assert_eq!(listed["violations"][0]["digest"], second.as_str());
    run(&["violations", "--state", "resolved"]).with(0).out("no violations");
    run(&["violations", "--registry", "other.invalid"]).with(0).out("no violations");
    run(&["dead-letters"]).with(0).out("no dead letters");
    run(&["events"]).with(0).out("no events");
    run(&["store", "info"]).with(0).out("repositories    1");
    run(&["store", "verify"]).with(0).out("is whole");
    run(&["store", "backup", "copy.db"]).with(0).out("copy.db is a copy of");
    run(&["store", "backup", "copy.db"]).with(2).err("`copy.db` is there already, and is not written over");
    desk.run(&["store", "verify", "copy.db"]).with(0);
    // Other policies over what is on record: the registry is not asked.
    run(&["replay", "--policy", "policies"]).with(0).out("1 tag was judged: nothing would change");
    desk.write("strict.yaml", POLICY.replace("linux/arm/v7]", "linux/arm/v7, linux/s390x]"));
    let replayed = run(&["replay", "--policy", "strict.yaml"]).with(0).out("1 verdict would change");
    let replayed = replayed.out("iot/good\n  1.0.0             violation\n").out("+ platforms (critical): linux/s390x");
    assert!(!replayed.out.contains("immutable"), "both say that it moved: {}", replayed.out);
    let json = run(&["replay", "--policy", "strict.yaml", "-o", "json", "--since", "1h"]).with(0).json();
    assert_eq!((&json["kind"], &json["summary"]["changed"]), (&json!("Replay"), &json!(1)), "{json:#}");
    assert_eq!(json["changes"][0]["after"]["findings"][1]["reason"], "missing-platform", "{json:#}");
    run(&["replay", "--policy", "strict.yaml", "--since", "2099-01-01T00:00:00Z"]).with(0).out("0 tags were judged");
    let by_store = (run(&["history", &tag, "-o", "json"]).json(), run(&["violations"]).out);

    let http = support::http::Http::new(None).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidewaiter"));
    let config = desk.path().join("tidewaiter.yaml");
    let daemon = support::daemon::Daemon::start(binary, &config, &format!("http://{admin}"), http).await;
    let mut daemon = daemon.unwrap_or_else(|error| panic!("{error:#}"));
    let by_daemon = (run(&["history", &tag, "-o", "json"]).json(), run(&["violations"]).out);
    assert_eq!(by_store, by_daemon);
    desk.run(&["violations", "--server", &format!("http://{admin}")]).with(0).out("immutable");
    run(&["dead-letters", "--retry"]).with(0).err("0 could be read now");
    run(&["audit", &host, "--record"]).with(2).err("in use by another process").err("keeps the baseline itself");
    // A check judges by the record while the daemon has it, also by another policy.
    let checked = run(&["check", &tag, "-o", "json"]).with(1).json();
    assert_eq!(checked["verdicts"][0]["findings"][0]["requirement"], "immutable", "{checked:#}");
    assert_eq!(checked["verdicts"][0]["findings"][0]["since"], by_store.0["history"][0]["from"], "{checked:#}");
    run(&["check", &tag, "--policy", "policy.yaml"]).with(1).out("policy edge").out("immutable");
    run(&["doctor"]).with(0).out("in use by a running daemon");
    run(&["store", "verify"]).with(0).out("is whole");
    // Somewhere else the daemon is not found, and the store is its own.
    desk.write("elsewhere.yaml", "store: {url: \"sqlite:tidewaiter.db\"}\nlisten: {admin: \"127.0.0.1:1\"}\n");
    desk.run(&["violations", "--config", "elsewhere.yaml"]).with(3).err("admin listener is not at http://127.0.0.1:1");

    let accepted = format!("{tag}@{second}");
    run(&["accept", &accepted, "--reason", "rebuilt on purpose"]).with(0).out("from now on: rebuilt on purpose");
    let resolved = async || {
        let listed = run(&["violations", "--state", "resolved", "-o", "json"]).json();
        Ok(listed["violations"].as_array().filter(|list| !list.is_empty()).map(|list| list[0]["requirement"].clone()))
    };
    let found =
        support::program::eventually("the violation is resolved", std::time::Duration::from_secs(20), resolved).await;
    assert_eq!(found.unwrap(), "immutable");
    daemon.stop().await.unwrap();
}

#[test]
fn help_manual_completions_and_version_are_there() {
    let desk = Desk::new();
    let help = desk.run(&["--help"]).with(0).out("Exit codes:");
    for verb in [
        "serve",
        "check",
        "audit",
        "policy",
        "event",
        "events",
        "history",
        "violations",
        "accept",
        "replay",
        "store",
        "init",
        "doctor",
    ] {
        assert!(help.out.contains(&format!("\n  {verb} ")), "{verb}: {}", help.out);
        desk.run(&[verb, "--help"]).with(0);
        desk.run(&["man", verb]).with(0).out(".TH");
    }
    desk.run(&["man"]).with(0).out("tidewaiter");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        desk.run(&["completions", shell]).with(0).out("tidewaiter");
    }
    desk.run(&["--version"]).with(0).out(concat!("tidewaiter ", env!("CARGO_PKG_VERSION"), " ("));
    desk.run(&[]).with(2).err("Usage:");
}
