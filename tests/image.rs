//! The container image: the same files give the same digest, other tools read it, and a registry takes it. Made here
//! with a small program in place of the real one, which `make image` builds.

#[path = "tool/bill.rs"]
mod bill;
#[path = "tool/oci.rs"]
mod oci;
#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::real::{RealRegistry, Setup};

const COMMON: oci::Common<'_> =
    oci::Common { version: "1.2.3", revision: "abc", authorities: b"authorities\n", license: b"licence\n" };
/// The smallest policy that asks of our image what the real one is asked.
const POLICY: &str = include_str!("../image/policy.yaml");

fn part(architecture: &str, binary: &str) -> oci::Part {
    let notices = [("libc6-dev/copyright".to_owned(), b"notice\n".to_vec())].into();
    oci::Part { architecture: architecture.to_owned(), binary: binary.into(), sbom: b"{}\n".to_vec(), notices }
}

fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; tests/install.sh installs it"))
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Every file of a folder, with its bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut ahead = vec![folder.to_owned()];
    while let Some(path) = ahead.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                ahead.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                all.push((name, fs::read(path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn the_same_files_give_the_same_bytes_and_other_files_another_digest() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, three) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("three"));
    let parts = [part("amd64", "program"), part("arm64", "program for arm")];
    let first = oci::write(&one, &COMMON, &parts).unwrap();
    assert_eq!(first, oci::write(&two, &COMMON, &parts).unwrap());
    assert_eq!(files(&one), files(&two));
    // Written again in the same place, nothing is left of what was there.
    assert_eq!(first, oci::write(&one, &COMMON, &parts).unwrap());
    assert_eq!(files(&one), files(&two));
    assert_ne!(first.digest, oci::write(&three, &COMMON, &parts[..1]).unwrap().digest);
    let other = oci::Common { revision: "def", ..COMMON };
    assert_ne!(first.digest, oci::write(&three, &other, &parts).unwrap().digest);
    let refused = oci::write(folder.path(), &COMMON, &parts).unwrap_err();
    assert!(refused.to_string().contains("no image layout"), "{refused}");
}

/// The tool itself, which Cargo has built beside the tests where it runs all of them.
fn tool() -> PathBuf {
    let build = ["build", "--locked", "--quiet", "--example", "image"];
    let built = Command::new(env!("CARGO")).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", told(&built));
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/image")
}

#[test]
fn the_tool_packs_the_same_image_wherever_whenever_and_for_whomever() {
    let (folder, tool) = (tempfile::tempdir().unwrap(), tool());
    let pack = |place: &str, umask: &str, mode: u32, zone: &str, language: &str, changed: SystemTime| {
        let here = folder.path().join(place);
        fs::create_dir_all(&here).unwrap();
        for (name, text) in [("program", "program"), ("authorities.pem", "authorities\n"), ("copyright", "notice\n")] {
            fs::write(here.join(name), text).unwrap();
            fs::set_permissions(here.join(name), fs::Permissions::from_mode(mode)).unwrap();
            fs::File::options().read(true).open(here.join(name)).unwrap().set_modified(changed).unwrap();
        }
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(&tool).current_dir(&here);
        command.args(["--program", "x86_64-unknown-linux-gnu=program", "--authorities", "authorities.pem"]);
        command.args(["--foreign", "any/libc6-dev=2.36-9=LGPL-2.1-or-later=copyright", "--out", "layout"]);
        command.env("TZ", zone).env("LC_ALL", language).env("TMPDIR", &here);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        (files(&here.join("layout")), output.stdout)
    };
    let one = pack("one", "022", 0o644, "UTC", "C", SystemTime::UNIX_EPOCH + Duration::from_hours(500_000));
    let other = pack("a longer/way to", "077", 0o700, "Pacific/Auckland", "de_DE.UTF-8", SystemTime::UNIX_EPOCH);
    assert!(one == other, "{}\n{}", String::from_utf8_lossy(&one.1), String::from_utf8_lossy(&other.1));
}

#[test]
fn the_image_runs_as_nobody_from_a_root_with_nothing_in_it_but_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    oci::write(&layout, &COMMON, &[part("amd64", "program")]).unwrap();
    let inspected = run("skopeo", &["inspect", "--config", &format!("oci:{}:1.2.3", layout.display())]);
    assert!(inspected.status.success(), "{}", told(&inspected));
    let config: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"amd64".into()));
    let settings = &config["config"];
    assert_eq!(settings["User"], "65532:65532");
    assert_eq!(settings["Entrypoint"], serde_json::json!(["/usr/bin/tidewaiter"]));
    assert_eq!(settings["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");
    assert_eq!(settings["Labels"]["org.opencontainers.image.revision"], "abc");

    let raw = run("skopeo", &["inspect", "--raw", &format!("oci:{}:1.2.3", layout.display())]);
    let index: Value = serde_json::from_slice(&raw.stdout).unwrap();
    let blob =
        |digest: &Value| fs::read(layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))).unwrap();
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
    let layer = folder.path().join("layer.tar.gz");
    fs::write(&layer, blob(&manifest["layers"][0]["digest"])).unwrap();
    let listed = run("tar", &["--numeric-owner", "--utc", "--full-time", "-tvzf", layer.to_str().unwrap()]);
    assert!(listed.status.success(), "{}", told(&listed));
    let listing = String::from_utf8(listed.stdout).unwrap();
    let mut paths = Vec::new();
    for line in listing.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (mode, owner, path) = (fields[0], fields[1], fields[5]);
        assert_eq!((fields[3], fields[4]), ("1970-01-01", "00:00:00"), "{line}");
        assert_eq!(owner, if path == "var/lib/tidewaiter/" { "65532/65532" } else { "0/0" }, "{line}");
        assert!(!mode.contains('s'), "nothing here gives anybody another's rights: {line}");
        assert!(path == "tmp/" || !mode[5..].contains('w'), "{line}");
        paths.push(path);
    }
    for path in [
        "usr/bin/tidewaiter",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/share/doc/tidewaiter/LICENSE",
        "usr/share/doc/libc6-dev/copyright",
    ] {
        assert!(paths.contains(&path), "{path} is missing: {paths:?}");
    }
    assert_eq!(paths.len(), 21, "{paths:?}");
}

#[test]
fn the_bill_of_materials_names_what_is_linked_and_its_licence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libc = bill::Foreign {
        name: "libc6-dev".to_owned(),
        version: "2.36-9+deb12u14".to_owned(),
        license: "LGPL-2.1-or-later".to_owned(),
    };
    let made = || bill::of(env!("CARGO"), root, "x86_64-unknown-linux-gnu", std::slice::from_ref(&libc)).unwrap();
    let (first, second) = (made(), made());
    assert!(first.sbom == second.sbom && first.notices == second.notices);
    let notices = String::from_utf8(first.notices).unwrap();
    for text in ["rustls ", "tokio ", "Permission is hereby granted", "Apache License"] {
        assert!(notices.contains(text), "{text}");
    }
    let bill: Value = serde_json::from_slice(&first.sbom).unwrap();
    assert_eq!(bill["metadata"]["component"]["name"], "tidewaiter");
    let components = bill["components"].as_array().unwrap();
    let has = |name: &str| components.iter().any(|component| component["name"] == name);
    assert!(has("rustls") && has("rusqlite") && has("libsqlite3-sys") && has("libc6-dev"));
    for absent in ["proptest", "tempfile", "cc", "flate2", "windows-sys"] {
        assert!(!has(absent), "{absent} is not linked into the program");
    }
    for component in components {
        let license = component["licenses"][0]["expression"].as_str().unwrap();
        assert!(!license.is_empty() && !license.contains('/'), "{component}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layout_passes_our_own_policy_and_a_registry_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, policy) = (folder.path().join("layout"), folder.path().join("policy.yaml"));
    let written = oci::write(&layout, &COMMON, &[part("amd64", "program"), part("arm64", "program")]).unwrap();
    fs::write(&policy, POLICY).unwrap();
    let source = format!("oci:{}:1.2.3", layout.display());
    let check = |name: &str| {
        let args = ["check", &source, "--as", name, "--policy", policy.to_str().unwrap()];
        run(env!("CARGO_BIN_EXE_tidewaiter"), &args)
    };
    let passed = check("ghcr.io/tidewaiter/tidewaiter:1.2.3");
    assert!(passed.status.success(), "{}", told(&passed));
    let refused = check("ghcr.io/tidewaiter/tidewaiter:v1.2.3");
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));

    let registry = RealRegistry::start(Setup::default()).await;
    for name in ["1.2.3", "1.2.3-sbom-amd64"] {
        let (from, to) =
            (format!("oci:{}:{name}", layout.display()), format!("docker://{}/tidewaiter:{name}", registry.host()));
        let all = ["--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &from, &to];
        let copied = run("skopeo", &all);
        assert!(copied.status.success(), "{name}: {}", told(&copied));
    }
    let reference = format!("docker://{}/tidewaiter:1.2.3", registry.host());
    let raw = run("skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &reference]);
    assert_eq!(String::from_utf8_lossy(&raw.stdout).trim(), written.digest, "{}", told(&raw));
    // Judged there, where it is.
    let pushed = format!("{}/tidewaiter:1.2.3", registry.host());
    let judged = run(env!("CARGO_BIN_EXE_tidewaiter"), &["check", &pushed, "--policy", policy.to_str().unwrap()]);
    assert!(
        judged.status.success() && told(&judged).contains("1 tag meets policy tidewaiter-image"),
        "{}",
        told(&judged)
    );
}
