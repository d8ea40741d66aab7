//! Hands the revision of the sources to the program: what `--version` and `tidewaiter_build_info` say.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "a build is told about itself by the environment")]
fn main() {
    // Packagers build from an archive without history, and say the revision themselves.
    println!("cargo::rerun-if-env-changed=TIDEWAITER_REVISION");
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let given = std::env::var("TIDEWAITER_REVISION").ok().filter(|text| !text.is_empty());
    let revision = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=TIDEWAITER_REVISION={revision}");
}

/// What git says, on one line; `None` without git or history.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
