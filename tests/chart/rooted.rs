//! The image's root file system on this machine: nothing else to be seen, nothing to be written but the claim's volume,
//! as the image's user without a right; and the program in it serves with the chart's configuration.
//!
//! With `TIDEWAITER_IMAGE` in the environment it is the layer of the image in that layout, as `make image` does it;
//! without it the layer is made here, and has the tests' own program in it with the libraries that it needs.

#![expect(clippy::disallowed_methods, reason = "`make image` names the image in the environment")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::oci::{self, USER};
use crate::run::{Neighbours, PATIENCE, Pod};
use crate::support::http::Http;
use crate::support::program::Program;
use crate::tools::{chart, object, objects, rendered, told};

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Unpacks the only layer of a layout's image for this machine, and gives its settings.
fn unpack(layout: &Path, root: &Path) -> Value {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        layout.join("blobs").join(digest)
    };
    let top = json(&fs::read(layout.join("index.json")).unwrap());
    let index = json(&fs::read(blob(&top["manifests"][0])).unwrap());
    let manifest = json(&fs::read(blob(&index["manifests"][0])).unwrap());
    fs::create_dir(root).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--same-owner", "-xzpf"]).arg(blob(&manifest["layers"][0])).arg("-C").arg(root);
    let output = tar.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    json(&fs::read(blob(&manifest["config"])).unwrap())["config"].clone()
}

/// Puts the tests' program into a root, with the libraries that it needs.
fn install(root: &Path) {
    let program = env!("CARGO_BIN_EXE_tidewaiter");
    fs::copy(program, root.join("usr/bin/tidewaiter")).unwrap();
    let needed = Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8(needed.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = root.join(word.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(word, inside).unwrap();
    }
}

/// What runs in `root` as a container does: a file system of its own that cannot be written except below `data` and
/// `tmp`, the image's user, and no way to more rights.
fn contained(root: &Path, arguments: &[String]) -> Command {
    const ENTER: &str = r#"
        root=$1; shift
        mount --bind "$root" "$root"
        mount --bind "$root/var/lib/tidewaiter" "$root/var/lib/tidewaiter"
        mount --rbind /proc "$root/proc"
        mount -t tmpfs tmpfs "$root/dev"
        for device in null zero full random urandom; do
            touch "$root/dev/$device"
            mount --bind "/dev/$device" "$root/dev/$device"
        done
        mount -o remount,bind,ro "$root"
        exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --inh-caps=-all \
            chroot --userspec=65532:65532 --groups= "$root" "$@"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", ENTER, "sh"]).arg(root).args(arguments);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_serves_with_the_rendered_configuration_and_writes_only_the_claim() {
    let folder = tempfile::tempdir().unwrap();
    if fs::metadata(folder.path()).unwrap().uid() != 0 {
        eprintln!("not root: the image's root file system was not entered");
        return;
    }
    let root = folder.path().join("root");
    let settings = match std::env::var_os("TIDEWAITER_IMAGE") {
        Some(layout) => unpack(&PathBuf::from(layout), &root),
        None => {
            let layout = folder.path().join("layout");
            let authorities = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap();
            let common =
                oci::Common { version: "1.2.3", revision: "abc", authorities: &authorities, license: b"licence\n" };
            let part = oci::Part {
                architecture: "amd64".to_owned(),
                binary: b"program".to_vec(),
                sbom: b"{}\n".to_vec(),
                notices: BTreeMap::new(),
            };
            oci::write(&layout, &common, &[part]).unwrap();
            let settings = unpack(&layout, &root);
            install(&root);
            settings
        }
    };
    assert_eq!(settings["User"], format!("{USER}:{USER}"));

    let file = chart().join("ci/run-values.yaml");
    let objects = objects(&rendered(&["--values", file.to_str().unwrap()]));
    let pod = &object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["template"]["spec"];
    let neighbours = Neighbours::new();
    let laid_out = Pod { root: root.clone(), here: neighbours.here() };
    laid_out.mount(pod, &objects, &neighbours.secrets);
    // What a runtime adds to every root: processes and devices.
    for place in ["proc", "dev"] {
        fs::create_dir(root.join(place)).unwrap();
    }
    // What a kubelet adds: names, and the pod's group on every volume.
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n").unwrap();
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let grouped = Command::new("chgrp").args(["-R", "65532"]).arg(root.join("etc/tidewaiter")).status().unwrap();
    assert!(grouped.success());
    let data = root.join("var/lib/tidewaiter");
    chown(&data, Some(0), Some(USER)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o2775)).unwrap();
    let list = |at: &Path| -> Vec<String> {
        let output = Command::new("find").arg(at).arg("-path").arg(&data).args(["-prune", "-o", "-print"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
    };
    let before = list(&root);

    let registry = neighbours.registry().await;
    let words = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|word| laid_out.text(word.as_str().unwrap())).collect()
    };
    let arguments = [words(&settings["Entrypoint"]), words(&pod["containers"][0]["args"])].concat();
    let mut daemon = Program::start(contained(&root, &arguments), &folder.path().join("log")).unwrap();
    let http = Http::new(Some(neighbours.ca.pem())).unwrap();
    let url = format!("http://127.0.0.1:{}", neighbours.admin);
    daemon.until(async || http.get(&format!("{url}/readyz")).await.is_ok()).await.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    for line in
        ["Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
    {
        assert!(status.contains(line), "{line}:\n{status}");
    }

    neighbours.violate(&registry, &http).await;
    let revision = http.get(&format!("{url}/metrics")).await.unwrap().text();
    assert!(revision.contains("tidewaiter_build_info{"), "{revision}");

    // Beside it, as `helm test` runs it.
    let doctor = [
        words(&settings["Entrypoint"]),
        ["doctor", "--config", "/etc/tidewaiter/config/tidewaiter.yaml"].map(str::to_owned).to_vec(),
    ];
    let output = contained(&root, &doctor.concat()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));

    daemon.signal("TERM").unwrap();
    assert!(daemon.ended(PATIENCE).await.unwrap().success(), "{}", daemon.last_words());
    assert_eq!(before, list(&root), "nothing was written outside of the volume");
    assert_eq!(fs::metadata(data.join("tidewaiter.db")).unwrap().uid(), USER);
}
