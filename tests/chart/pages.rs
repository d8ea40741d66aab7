//! What the pages about clusters show: values that the chart takes, objects that Kubernetes knows, commands that do what is said.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::manifests::{of_text, outgoing};
use crate::tools::{chart, object, program, root, template, told};

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

fn blocks(text: &str) -> Vec<&str> {
    text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn what_the_documentation_shows_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for name in ["kubernetes.md", "acr-aks.md"] {
        for block in blocks(&page(name)) {
            let file = folder.path().join("values.yaml");
            fs::write(&file, block).unwrap();
            let output = template(&chart(), &["--values", file.to_str().unwrap()]);
            assert!(output.status.success(), "{name}:\n{block}\n{}", told(&output));
            count += 1;
        }
    }
    assert_eq!(count, 6, "blocks were found");
}

/// Somebody who takes all blocks of the page has alerts that arrive.
#[test]
fn the_blocks_of_the_page_fit_together() {
    let text = page("kubernetes.md");
    let objects = of_text(&blocks(&text).concat(), &[]);
    let policy = &object(&objects, "NetworkPolicy", "tw-tidewaiter")["spec"];
    assert_eq!(outgoing(policy), [53, 53, 443, 9093, 8443]);
}

/// The pod that takes a backup out of the claim is one that a restricted namespace takes, and sees the claim's files.
#[test]
fn the_pod_that_hands_out_a_backup_is_valid() {
    let text = page("upgrade-and-backup.md");
    let [block] = blocks(&text)[..] else { panic!("one block") };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.yaml");
    fs::write(&file, block).unwrap();
    let checked = program("kubernetes-validate")
        .args(["--strict", "--quiet", "--no-warn", "-k", "1.33"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", told(&checked));

    let copy: Value = serde_saphyr::from_str(block).unwrap();
    let daemon = of_text("{fullnameOverride: tidewaiter}", &[]);
    let daemon = &object(&daemon, "StatefulSet", "tidewaiter")["spec"]["template"]["spec"];
    let (mut ours, theirs) = (copy["spec"]["securityContext"].clone(), daemon["securityContext"].clone());
    ours["fsGroupChangePolicy"] = theirs["fsGroupChangePolicy"].clone();
    assert_eq!(ours, theirs, "the same user reads what the daemon wrote");
    assert_eq!(copy["spec"]["containers"][0]["securityContext"], daemon["containers"][0]["securityContext"]);
    assert_eq!(copy["spec"]["volumes"][0]["persistentVolumeClaim"], json!({"claimName": "data-tidewaiter-0"}));
}

/// The last of the certificates that `openssl s_client -showcerts` prints is the authority's.
#[test]
fn the_command_for_the_authority_keeps_the_last_certificate() {
    let text = page("kubernetes.md");
    let line = text.lines().find(|line| line.contains("-showcerts")).unwrap();
    let filter = line.split_once(" | ").unwrap().1.strip_suffix(" > ca.crt").unwrap();
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let printed =
        format!("depth=1\n 0 s:CN = a\n{} 1 s:CN = b\n{}---\nServer certificate\nDONE\n", pem("AAAA"), pem("BBBB"));
    let mut shell = Command::new("sh");
    let mut shell = shell.args(["-c", filter]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(printed.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), pem("BBBB"));
}
