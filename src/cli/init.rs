//! `tidewaiter init`: a configuration and a policy to start from, a random secret, and how to register the webhook.
//!
//! Writes files in one folder and never over another. The secret goes into a file of its own that only the
//! owner can read, and is never printed.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use clap::ValueHint;

use super::event::format;
use super::fail::Failure;
use super::terminal::Terminal;
use crate::config::Config;
use crate::event::Format;
use crate::image::{Host, ReferenceError};
use crate::report::visible;

/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;
/// Where senders reach the daemon, until somebody says better.
const ADDRESS: &str = "https://TIDEWAITER-HOST:8443";
/// The same for a registry on this machine.
const LOCAL_ADDRESS: &str = "https://localhost:8443";
const CONFIG_FILE: &str = "tidewaiter.yaml";
const SECRET_FILE: &str = "webhook-secret";
const POLICY_FILE: &str = "policies/versions.yaml";

/// Write a starting configuration and policy, and say how to register the webhook there
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The registry, as references name it
    #[arg(long, value_name = "HOST")]
    registry: String,
    /// What sends the events; guessed from well-known hosts, else CNCF Distribution
    #[arg(long, value_name = "FORMAT", value_parser = format())]
    format: Option<Format>,
    /// Where senders reach the daemon
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    url: Option<String>,
    /// Where the files are written
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Write over files that are there already, the secret included
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let host: Host = args.registry.parse().map_err(|error: ReferenceError| Failure::say(error.to_string()))?;
    let format = args.format.unwrap_or_else(|| usual(&host));
    let source = source_name(&host, format);
    let base = match &args.url {
        None if host.is_loopback() => LOCAL_ADDRESS.to_owned(),
        None => ADDRESS.to_owned(),
        Some(url) => match url::Url::parse(url) {
            Ok(parsed) if parsed.scheme() == "https" && parsed.has_host() => url.trim_end_matches('/').to_owned(),
            _ => {
                return Err(Failure::say(format!("`{}` is no address that events can come to", visible(url)))
                    .help("write it as in --url https://tidewaiter.example.com; events come over TLS only"));
            }
        },
    };
    let config = configuration(&host, format, &source);
    let mut files = vec![(CONFIG_FILE, config, 0o644), (POLICY_FILE, policy(&host), 0o644)];
    if has_secret(format) {
        files.push((SECRET_FILE, format!("{}{}\n", prefix(format), random()?), 0o600));
    }
    if !args.force {
        let there: Vec<String> = files
            .iter()
            .map(|(name, ..)| args.dir.join(name))
            .filter(|p| p.exists())
            .map(|p| format!("`{}`", p.display()))
            .collect();
        if !there.is_empty() {
            return Err(Failure::say(format!(
                "{} {} there already; nothing was written",
                there.join(", "),
                if there.len() == 1 { "is" } else { "are" }
            ))
            .help("choose another folder with --dir, or write over them with --force"));
        }
    }
    for (name, text, mode) in &files {
        write(&args.dir.join(name), text, *mode, args.force)?;
    }
    let path = args.dir.join(CONFIG_FILE);
    // What was just written is right, or this program is wrong: better to know now.
    Config::load(&path)?;
    let mut text = String::from("Written:\n");
    for (name, ..) in &files {
        text += &format!("  {}\n", args.dir.join(name).display());
    }
    let short = host.name().split('.').next().unwrap_or_default();
    let told = register(format)
        .replace("{url}", &format!("{base}/v1/events/{source}"))
        .replace("{secret}", &args.dir.join(SECRET_FILE).display().to_string())
        .replace("{config}", &path.display().to_string())
        .replace("{registry}", host.as_str())
        .replace("{short}", short);
    text += &format!("\n{}\n", told.trim_end());
    if args.url.is_none() && !host.is_loopback() {
        text += "\nTIDEWAITER-HOST is where the daemon will be reached from there.\n";
    }
    let config = path.display();
    text += &format!(
        "\nThen:\n  tidewaiter doctor --config {config}      what is still missing\n  tidewaiter audit {host} --config {config}\n  tidewaiter serve --config {config}\n"
    );
    terminal.print(&text)?;
    if let Some(usual) = foreign(format, &host) {
        terminal.warn(&format!(
            "events of the format `{format}` are about {usual}, and those about another registry than `{host}` are not taken; name the registry that sends them with --registry"
        ));
    }
    if args.format.is_none() {
        terminal.note(&format!("`{host}` is taken to send `{format}` events; --format says otherwise"));
    }
    Ok(0)
}

/// What a well-known registry sends.
fn usual(host: &Host) -> Format {
    let name = host.name();
    let below = |domain: &str| name.ends_with(domain);
    match name {
        "docker.io" => Format::DockerHub,
        "quay.io" => Format::Quay,
        "ghcr.io" => Format::Github,
        "registry.gitlab.com" => Format::Gitlab,
        _ if below(".azurecr.io") || below(".azurecr.cn") || below(".azurecr.us") => Format::Acr,
        _ if name.contains(".dkr.ecr.") => Format::Ecr,
        _ if below("-docker.pkg.dev") || below("gcr.io") => Format::GoogleArtifactRegistry,
        _ if below(".aliyuncs.com") => Format::Alibaba,
        _ if below(".jfrog.io") => Format::Artifactory,
        _ if name.starts_with("harbor.") => Format::Harbor,
        _ => Format::Distribution,
    }
}

/// What the registry of a format is called, where this host is another one: its events would be refused.
fn foreign(format: Format, host: &Host) -> Option<&'static str> {
    let name = host.name();
    let (fits, usual) = match format {
        Format::DockerHub => (name == "docker.io", "docker.io"),
        // The registry of GitHub Enterprise Server is containers.HOST.
        Format::Github => (name == "ghcr.io" || name.starts_with("containers."), "ghcr.io"),
        Format::Ecr => (name.contains(".dkr.ecr."), "ACCOUNT.dkr.ecr.REGION.amazonaws.com"),
        Format::GoogleArtifactRegistry => {
            (name.ends_with("-docker.pkg.dev") || name.ends_with("gcr.io"), "REGION-docker.pkg.dev")
        }
        _ => return None,
    };
    (!fits).then_some(usual)
}

/// A name for the source: the first part of the host and what it sends.
fn source_name(host: &Host, format: Format) -> String {
    if host.is_loopback() {
        return format!("local-{format}");
    }
    let first: String = host
        .name()
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let first = first.trim_matches('-');
    if first.is_empty() { format.to_string() } else { format!("{first}-{format}") }
}

fn register(format: Format) -> &'static str {
    match format {
        Format::Acr => include_str!("register/acr.md"),
        Format::EventGrid => include_str!("register/event-grid.md"),
        Format::Distribution => include_str!("register/distribution.md"),
        Format::Harbor => include_str!("register/harbor.md"),
        Format::DockerHub => include_str!("register/docker-hub.md"),
        Format::Quay => include_str!("register/quay.md"),
        Format::Github => include_str!("register/github.md"),
        Format::Gitlab => include_str!("register/gitlab.md"),
        Format::Artifactory => include_str!("register/artifactory.md"),
        Format::Ecr => include_str!("register/ecr.md"),
        Format::GoogleArtifactRegistry => include_str!("register/google-artifact-registry.md"),
        Format::Zot => include_str!("register/zot.md"),
        Format::Gitea => include_str!("register/gitea.md"),
        Format::Nexus => include_str!("register/nexus.md"),
        Format::Alibaba => include_str!("register/alibaba.md"),
        Format::Angos => include_str!("register/angos.md"),
        Format::Msr => include_str!("register/msr.md"),
    }
}

/// Whether senders prove themselves by a secret of ours.
fn has_secret(format: Format) -> bool {
    format != Format::GoogleArtifactRegistry
}

/// What stands before the secret where it is the whole value of `Authorization`.
fn prefix(format: Format) -> &'static str {
    match format {
        Format::Acr
        | Format::EventGrid
        | Format::Distribution
        | Format::Gitlab
        | Format::Harbor
        | Format::Ecr
        | Format::Zot => "Bearer ",
        _ => "",
    }
}

/// How the sender proves itself, as the configuration says it.
fn authenticity(format: Format) -> String {
    let by = match format {
        Format::DockerHub | Format::Quay | Format::Alibaba | Format::Msr => "query: token",
        Format::Github => "hmac: X-Hub-Signature-256, prefix: \"sha256=\"",
        Format::Gitea => "hmac: X-Gitea-Signature",
        Format::Nexus => "hmac: X-Nexus-Webhook-Signature, algorithm: sha1",
        Format::Angos => "hmac: X-Registry-Signature-256, prefix: \"sha256=\"",
        Format::Artifactory => "header: X-JFrog-Event-Auth",
        Format::GoogleArtifactRegistry => {
            return "{oidc: {issuer: https://accounts.google.com, audience: tidewaiter, emails: [PUSH@PROJECT.iam.gserviceaccount.com]}}".to_owned();
        }
        _ => "header: Authorization",
    };
    format!("{{{by}, valueFiles: [{SECRET_FILE}]}}   # name two files while the secret is being changed")
}

fn configuration(host: &Host, format: Format, source: &str) -> String {
    let local = host.is_loopback();
    let listen = if local { "127.0.0.1:8443" } else { "0.0.0.0:8443" };
    let reach = match (local, format) {
        (true, _) => {
            "    insecure: true                       # plain http, as a registry on this machine speaks it\n    allowPrivate: true\n"
        }
        (_, Format::Acr | Format::EventGrid) => {
            "    auth: {kind: azure}                  # workload identity, managed identity or client secret, from the environment\n"
        }
        _ => "    # auth: {kind: basic, username: robot, passwordFile: registry-password}\n",
    };
    let authenticity = authenticity(format);
    format!(
        "\
# Written by `tidewaiter init`. `tidewaiter doctor --config {CONFIG_FILE}` says what is missing.
listen: {{events: \"{listen}\", admin: \"127.0.0.1:9464\"}}
# tls: {{certificate: tls.crt, key: tls.key}}   # without it a self-signed certificate is made and kept beside the store
store: {{url: \"sqlite:tidewaiter.db\"}}
policies: [policies/]
registries:
  - host: \"{host}\"
{reach}    reconcile: {{every: 6h}}               # finds what no event told
sources:
  - name: {source}   # POST /v1/events/{source}
    format: {format}
    registry: \"{host}\"
    auth: {authenticity}
sinks: []
# sinks:
#   - name: oncall
#     kind: alertmanager                 # alertmanager, slack, teams, pagerduty, webhook
#     url: https://alertmanager.example:9093
#     severities: [warning, critical]
"
    )
}

fn policy(host: &Host) -> String {
    format!(
        "\
# Written by `tidewaiter init`: released versions stay what they are, and `latest` is the highest of them.
# `tidewaiter policy lint policies/` checks it; `tidewaiter policy explain {host}/REPO:TAG` says what it asks of a tag.
apiVersion: tidewaiter.dev/v1
kind: TagPolicy
metadata:
  name: versions
  description: Released versions never change, and latest is the highest of them.
spec:
  repositories: [\"{host}/**\"]
  mode: alert                            # preview: record and count only
  severity: warning
  classes:                               # the first class whose form matches governs the tag
    - name: version
      form: \"{{major}}.{{minor}}.{{patch}}\"
      require:
        immutable: {{severity: critical}}
        intact: true
        # platforms: {{all: [linux/amd64, linux/arm64]}}
    - name: latest
      form: latest
      require:
        follows: {{class: version, for: 15m}}
  otherTags: allow
"
    )
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0u8; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::say("this system gives no random bytes"))?;
    Ok(hex::encode(bytes))
}

fn write(path: &Path, text: &str, mode: u32, force: bool) -> Result<(), Failure> {
    let unwritable = |error: std::io::Error| Failure::say(format!("cannot write `{}`: {error}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(unwritable)?;
    }
    if force && path.exists() {
        // A new file, so that it has this mode and not that of the old one.
        std::fs::remove_file(path).map_err(unwritable)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(path).map_err(unwritable)?;
    file.write_all(text.as_bytes()).map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_valid_for_every_format() {
        for format in Format::ALL {
            for host in ["contoso.azurecr.io", "localhost:5000", "[::1]:5000"] {
                let folder = tempfile::tempdir().unwrap();
                let args = Args {
                    registry: host.to_owned(),
                    format: Some(*format),
                    url: None,
                    dir: folder.path().to_owned(),
                    force: false,
                };
                run(args, &Terminal::new()).unwrap_or_else(|error| panic!("{format} at {host}: {error:?}"));
                let policies = folder.path().join("policies");
                assert_eq!(super::super::policies::load(&[policies]).unwrap().set.policies().len(), 1);
            }
        }
    }

    #[test]
    fn nobody_is_told_to_turn_verification_off() {
        let harbor = register(Format::Harbor);
        assert!(harbor.contains("Verify Remote Certificate: on\n") && harbor.contains("`ca.crt`"), "{harbor}");
    }

    #[test]
    fn a_host_that_does_not_send_the_format_is_pointed_out() {
        let foreign = |format, host: &str| foreign(format, &host.parse().unwrap());
        assert_eq!(foreign(Format::DockerHub, "registry.example"), Some("docker.io"));
        assert_eq!(foreign(Format::DockerHub, "docker.io"), None);
        assert_eq!(foreign(Format::Ecr, "registry.example"), Some("ACCOUNT.dkr.ecr.REGION.amazonaws.com"));
        assert_eq!(foreign(Format::Github, "registry.example"), Some("ghcr.io"));
        assert_eq!(foreign(Format::Github, "containers.github.example"), None, "GitHub Enterprise Server");
        assert_eq!(foreign(Format::Harbor, "registry.example"), None, "anybody may run one");
    }

    #[test]
    fn well_known_hosts_send_what_they_send() {
        for (host, format) in [
            ("contoso.azurecr.io", Format::Acr),
            ("ghcr.io", Format::Github),
            ("docker.io", Format::DockerHub),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Format::Ecr),
            ("europe-docker.pkg.dev", Format::GoogleArtifactRegistry),
            ("registry.example:5000", Format::Distribution),
        ] {
            assert_eq!(usual(&host.parse().unwrap()), format, "{host}");
        }
    }
}
