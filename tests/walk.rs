//! The page about a plain registry, typed as it stands: its commands in one shell, and what it says they print. Only
//! ports are others, and the images, which are made here in place of being fetched.

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::images::{Form, Index, Platform};
use support::program::free_port;
use support::real::{RealRegistry, Setup};

/// A command, and what it prints, as far as the page says.
#[derive(Debug, Default)]
struct Step {
    command: String,
    prints: Vec<String>,
}

/// The commands of a page, with their here-documents.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in page.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let mut inside = false;
        for line in block.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) if !inside => {
                    inside = command.contains("<<END");
                    steps.push(Step { command: format!("{command}\n"), prints: Vec::new() });
                }
                (_, Some(step)) if inside => {
                    writeln!(step.command, "{line}").unwrap();
                    inside = line != "END";
                }
                (_, Some(step)) => {
                    // What differs each time stands as three dots.
                    let parts = line.split('…').map(str::trim).filter(|part| !part.is_empty());
                    step.prints.extend(parts.map(str::to_owned));
                }
                (_, None) => panic!("output before the first command: {line}"),
            }
        }
    }
    steps
}

/// One shell that types everything. A command is typed again until it prints what it should, as a person would who
/// waits for it; the doctor may find faults.
fn script(steps: &[Step]) -> String {
    let mut script = String::from("trap 'kill $(jobs -p)' EXIT\n");
    for (n, step) in steps.iter().enumerate() {
        let command = step.command.trim_end();
        if command.ends_with('&') {
            writeln!(script, "{command}").unwrap();
            continue;
        }
        let may_fail = command.starts_with("tidewaiter doctor") || command.starts_with("tidewaiter violations");
        let mut holds = String::from(if may_fail { "true" } else { "[ $code -eq 0 ]" });
        for text in &step.prints {
            write!(holds, " && grep -qF -- {} out.{n}", shell(text)).unwrap();
        }
        writeln!(
            script,
            "for turn in $(seq 200); do\n{{\n{command}\n}} > out.{n} 2>&1; code=$?\nif {holds}; then break; fi\nsleep 0.1\ndone\nif ! {{ {holds}; }}; then echo step {n}, code $code; cat out.{n}; exit 1; fi"
        )
        .unwrap();
        if command.starts_with("tidewaiter init") {
            script.push_str("sed -i \"s/:8443/:$EVENTS/; s/:9464/:$ADMIN/\" tidewaiter.yaml\n");
        }
    }
    script
}

fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Keeps an image in a layout, as what a person would fetch.
async fn image(folder: &Path, name: &str) {
    let registry = RealRegistry::start(Setup::default()).await;
    let platforms: [Platform; 1] = ["linux/amd64".parse().unwrap()];
    let index = Index { platforms: &platforms, version: name, form: Form::Oci, attested: false, faults: &[] };
    registry.push("image", "1", &index.build().unwrap()).await;
    let (from, to) =
        (format!("docker://{}/image:1", registry.host()), format!("oci:{}:1", folder.join(name).display()));
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--all", "--src-tls-verify=false", &from, &to])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_a_plain_registry_is_typed_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        image(folder.path(), name).await;
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plain-registry.md")).unwrap();
    let (registry, events, admin) = (free_port().unwrap(), free_port().unwrap(), free_port().unwrap());
    let page = page
        .replace("localhost:5000", &format!("localhost:{registry}"))
        .replace("localhost:8443", &format!("localhost:{events}"))
        .replace("docker://docker.io/library/busybox:1.36.0", "oci:one:1")
        .replace("docker://docker.io/library/busybox:1.36.1", "oci:two:1");
    let mut steps = steps(&page);
    steps.retain(|step| !step.command.starts_with("apt-get"));
    assert!(steps.len() >= 10, "{steps:?}");
    assert!(steps.iter().any(|step| step.prints.iter().any(|text| text.contains("firing"))), "{steps:?}");

    let program = Path::new(env!("CARGO_BIN_EXE_tidewaiter")).parent().unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", program.display());
    let mut typed = Command::new("timeout");
    typed.args(["--kill-after=5", "120", "bash", "-c", &script(&steps)]).current_dir(folder.path());
    typed.env_clear().env("PATH", path).env("HOME", folder.path()).stdin(Stdio::null());
    typed.env("EVENTS", events.to_string()).env("ADMIN", admin.to_string()).env("LANG", "C.UTF-8");
    let output = typed.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
