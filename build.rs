//! Hands the revision of the sources to the program, which `--version` and `tidewaiter_build_info` say, and has the
//! release program linked so that it holds little memory.

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
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        // A position-independent program is relocated when it starts. Unpacked, the list of where is a megabyte that
        // stays in memory; packed it is thirty kilobytes. Needs glibc 2.36, which is that of Debian 12.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// What git says, on one line; `None` without git or history.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
