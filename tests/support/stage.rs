//! The whole stage: a registry with TLS that tells tidewaiter of every push, tidewaiter, the Alertmanager it tells and
//! the Prometheus that watches it; all on free loopback ports, with everything they write in one folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::alertmanager::Alertmanager;
use super::daemon::Daemon;
use super::http::Http;
use super::images::{Fault, Form, Index, Platform};
use super::program::{Program, eventually, free_port};
use super::prometheus::{Prometheus, Target};
use super::push::Pusher;
use super::real::{RealRegistry, Setup};
use super::tls::Ca;

/// Far longer than anything takes: when it is over, something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// What the registry says to prove that an event is its own. Worth nothing outside a stage.
pub const SECRET: &str = "Bearer a-stage-has-no-secrets";

/// Everything that runs.
pub struct Stage {
    /// Where everything is written.
    pub folder: PathBuf,
    /// The registry's name, which images are pushed to.
    pub host: String,
    /// Where the registry's events go.
    pub events: String,
    /// tidewaiter.
    pub daemon: Daemon,
    /// Prometheus, which scrapes tidewaiter.
    pub prometheus: Prometheus,
    /// Alertmanager, which tidewaiter tells.
    pub alertmanager: Alertmanager,
    /// The registry.
    pub registry: RealRegistry,
    /// Pushes there.
    pub pusher: Pusher,
}

impl Stage {
    /// Starts everything in `folder`: the program `binary` with one policy file, its admin listener with TLS or not.
    pub async fn set(folder: &Path, binary: &Path, policy: &str, admin_tls: bool) -> anyhow::Result<Stage> {
        let ca = Ca::new();
        let issued = ca.issue(&["localhost", "127.0.0.1"]);
        write(&folder.join("ca.crt"), ca.pem())?;
        write(&folder.join("tls.crt"), &issued.certificate)?;
        write(&folder.join("tls.key"), &issued.key)?;
        write(&folder.join("secret"), SECRET)?;
        fs::create_dir_all(folder.join("policies"))?;
        write(&folder.join("policies/iot.yaml"), policy)?;

        let (events, admin, port) = (free_port()?, format!("127.0.0.1:{}", free_port()?), free_port()?);
        let host = format!("localhost:{port}");
        let (authority, receiver, watcher) =
            (folder.join("ca.crt"), folder.join("alertmanager"), folder.join("prometheus"));
        let target = Target { address: &admin, ca: admin_tls.then_some(authority.as_path()) };
        let (alertmanager, prometheus) =
            tokio::try_join!(Alertmanager::start(&receiver), Prometheus::start(&watcher, target))?;

        let address = format!("https://localhost:{events}/v1/events/local");
        let setup = Setup {
            tls: Some(&ca),
            notify: Some((&address, SECRET)),
            trust: Some(ca.pem()),
            folder: Some(&folder.join("registry")),
            port: Some(port),
            ..Setup::default()
        };
        let registry = RealRegistry::start(setup).await;

        let config = folder.join("tidewaiter.yaml");
        write(&config, &configuration(events, &admin, admin_tls, &host, alertmanager.url()))?;
        let scheme = if admin_tls { "https" } else { "http" };
        let http = Http::new(Some(ca.pem()))?;
        let daemon = Daemon::start(binary, &config, &format!("{scheme}://{admin}"), http).await?;
        let pusher = registry.pusher(&host);
        Ok(Stage {
            folder: folder.to_owned(),
            host,
            events: address,
            daemon,
            prometheus,
            alertmanager,
            registry,
            pusher,
        })
    }

    /// Pushes an index and gives its digest.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        platforms: &[&str],
        version: &str,
        faults: &[Fault],
    ) -> anyhow::Result<String> {
        let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse()).collect::<anyhow::Result<_>>()?;
        let index = Index { platforms: &platforms, version, form: Form::Oci, attested: false, faults };
        self.pusher.push(repository, tag, &index.build()?).await
    }

    /// Waits for the newest verdict on a tag to be about `digest`.
    pub async fn verdict(&self, repository: &str, tag: &str, digest: &str) -> anyhow::Result<Value> {
        let query = [("registry", self.host.as_str()), ("repository", repository), ("tag", tag)];
        eventually(&format!("a verdict on {repository}:{tag}"), PATIENCE, async || {
            let verdicts = self.daemon.list("verdicts", &query).await?;
            Ok(verdicts.into_iter().next().filter(|verdict| verdict["image"]["digest"] == digest))
        })
        .await
    }

    /// Waits for a violation in a state.
    pub async fn violation(&self, repository: &str, requirement: &str, state: &str) -> anyhow::Result<Value> {
        eventually(&format!("{requirement} of {repository} {state}"), PATIENCE, async || {
            let query = [("registry", self.host.as_str()), ("repository", repository), ("state", state)];
            let violations = self.daemon.list("violations", &query).await?;
            Ok(violations.into_iter().find(|violation| violation["requirement"] == requirement))
        })
        .await
    }

    /// Waits until Alertmanager has an alert for a repository and requirement, or has none.
    pub async fn alert(&self, repository: &str, requirement: &str, there: bool) -> anyhow::Result<()> {
        let what = if there { "an alert" } else { "no alert" };
        eventually(&format!("{what} for {requirement} of {repository}"), PATIENCE, async || {
            let alerts = self.alertmanager.alerts().await?;
            let has = alerts.iter().any(|alert| {
                alert["labels"]["repository"] == repository && alert["labels"]["requirement"] == requirement
            });
            Ok((has == there).then_some(()))
        })
        .await
    }

    /// The processes, each with its name as the kernel keeps it: fifteen characters.
    pub fn programs(&mut self) -> [(&'static str, &mut Program); 4] {
        [
            ("tidewaiter", self.daemon.program()),
            ("docker-registry", self.registry.program()),
            ("prometheus", self.prometheus.program()),
            ("prometheus-aler", self.alertmanager.program()),
        ]
    }
}

fn configuration(events: u16, admin: &str, admin_tls: bool, host: &str, alertmanager: &str) -> String {
    let admin_section = if admin_tls { "admin: {tls: {certificate: tls.crt, key: tls.key}}\n" } else { "" };
    format!(
        r#"listen: {{events: "127.0.0.1:{events}", admin: "{admin}"}}
{admin_section}tls: {{certificate: tls.crt, key: tls.key}}
store: {{url: "sqlite:tidewaiter.db"}}
policies: [policies/]
registries:
  - host: {host}
    ca: ca.crt
    allowPrivate: true
sources:
  - name: local
    format: distribution
    registry: {host}
    auth: {{header: Authorization, valueFiles: [secret]}}
sinks:
  - name: oncall
    kind: alertmanager
    url: {alertmanager}
    allowPrivate: true
"#
    )
}

/// Writes a file that only its owner can read, as the configuration asks of secrets.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}
