//! Sets the stage: a registry with TLS that tells tidewaiter of every push, Prometheus and Alertmanager, all on free
//! loopback ports and with everything they write in one folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::support::alertmanager::Alertmanager;
use crate::support::daemon::Daemon;
use crate::support::http::Http;
use crate::support::program::{Program, free_port};
use crate::support::prometheus::{Prometheus, Target};
use crate::support::push::Pusher;
use crate::support::real::{RealRegistry, Setup};
use crate::support::tls::Ca;

/// The folder, in the project's own; git ignores it.
const FOLDER: &str = "demo-run";
/// What the registry says to prove that an event is its own. Worth nothing outside this stage.
const SECRET: &str = "Bearer the-demo-has-no-secrets";
/// What stops a demo that was left running.
const STOP: &str = "stop";

/// Everything that runs.
pub struct Stage {
    /// The folder with all there is, removed at the end unless the demo stays.
    pub folder: Folder,
    /// The program under `cargo`'s target directory.
    pub binary: PathBuf,
    /// The registry's name, which images are pushed to.
    pub host: String,
    /// Pushes there.
    pub pusher: Pusher,
    /// tidewaiter.
    pub daemon: Daemon,
    /// Prometheus, which scrapes tidewaiter.
    pub prometheus: Prometheus,
    /// Alertmanager, which tidewaiter tells.
    pub alertmanager: Alertmanager,
    registry: RealRegistry,
}

impl Stage {
    /// Starts everything.
    pub async fn set() -> anyhow::Result<Stage> {
        let folder = Folder::new()?;
        let binary = std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .map(|directory| directory.join("tidewaiter"))
            .filter(|binary| binary.is_file())
            .context("tidewaiter is not built: run `make demo`")?;

        let ca = Ca::new();
        folder.write("ca.crt", ca.pem())?;
        let issued = ca.issue(&["localhost", "127.0.0.1"]);
        folder.write("tls.crt", &issued.certificate)?;
        folder.write("tls.key", &issued.key)?;
        folder.write("secret", SECRET)?;
        fs::create_dir_all(folder.path("policies"))?;
        folder.write("policies/iot.yaml", include_str!("policies/iot.yaml"))?;

        let (events, admin, port) = (free_port()?, free_port()?, free_port()?);
        let host = format!("localhost:{port}");
        let admin = format!("127.0.0.1:{admin}");
        let (receiver, watcher) = (folder.path("alertmanager"), folder.path("prometheus"));
        let (alertmanager, prometheus) = tokio::try_join!(
            Alertmanager::start(&receiver),
            Prometheus::start(&watcher, Target { address: &admin, ca: None }),
        )?;
        folder.write("tidewaiter.yaml", &configuration(events, &admin, &host, alertmanager.url()))?;

        let admin = format!("http://{admin}");
        let events = format!("https://localhost:{events}/v1/events/local");
        let setup = Setup {
            tls: Some(&ca),
            notify: Some((&events, SECRET)),
            trust: Some(ca.pem()),
            folder: Some(&folder.path("registry")),
            port: Some(port),
            ..Setup::default()
        };
        let registry = RealRegistry::start(setup).await;
        let daemon = Daemon::start(&binary, &folder.path("tidewaiter.yaml"), &admin, Http::new(None)?).await?;
        let pusher = registry.pusher(&host);
        Ok(Stage { folder, binary, host, pusher, daemon, prometheus, alertmanager, registry })
    }

    /// Leaves everything running, and says what stops it.
    pub fn leave(mut self) -> anyhow::Result<String> {
        let mut script =
            String::from("#!/bin/sh\n# Stops the demo that was left running, and removes what it wrote.\n");
        let programs: [(&str, &mut Program); 4] = [
            ("tidewaiter", self.daemon.program()),
            ("docker-registry", self.registry.program()),
            ("prometheus", self.prometheus.program()),
            // The kernel keeps fifteen characters of a name.
            ("prometheus-aler", self.alertmanager.program()),
        ];
        for (name, program) in programs {
            program.stay();
            let id = program.id();
            script += &format!("[ \"$(cat /proc/{id}/comm 2>/dev/null)\" = {name} ] && kill {id}\n");
        }
        script += "rm -rf \"$(dirname \"$0\")\"\n";
        self.folder.write(STOP, &script)?;
        self.folder.stays = true;
        Ok(format!("sh {FOLDER}/{STOP}"))
    }
}

fn configuration(events: u16, admin: &str, host: &str, alertmanager: &str) -> String {
    format!(
        r#"listen: {{events: "127.0.0.1:{events}", admin: "{admin}"}}
tls: {{certificate: tls.crt, key: tls.key}}
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
"#
    )
}

/// The folder of a run.
pub struct Folder {
    path: PathBuf,
    stays: bool,
}

impl Folder {
    fn new() -> anyhow::Result<Folder> {
        let path = std::env::current_dir()?.join(FOLDER);
        if path.join(STOP).exists() {
            bail!("a demo is still running here; stop it with `sh {FOLDER}/{STOP}`");
        }
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(Folder { path, stays: false })
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.stays {
            // What cannot be removed now is removed before the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
