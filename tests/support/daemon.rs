//! The daemon itself: started with a configuration, asked on its admin port, stopped, killed, started again.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use super::http::Http;
use super::program::Program;

/// Longer than the daemon's own deadline for draining.
const STOP: Duration = Duration::from_secs(45);

/// A running `tidewaiter serve`.
pub struct Daemon {
    program: Program,
    binary: PathBuf,
    config: PathBuf,
    admin: String,
    http: Http,
}

impl Daemon {
    /// Starts `binary` with the configuration file `config`, whose admin listener is at `admin` (a URL; for https
    /// `http` must trust it), and waits until it is ready. What it says goes to `tidewaiter.log` beside `config`.
    pub async fn start(binary: &Path, config: &Path, admin: &str, http: Http) -> anyhow::Result<Daemon> {
        let program = spawn(binary, config)?;
        let (binary, config, admin) = (binary.to_owned(), config.to_owned(), admin.to_owned());
        let mut daemon = Daemon { program, binary, config, admin, http };
        daemon.ready().await?;
        Ok(daemon)
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let (url, http) = (format!("{}/readyz", self.admin), &self.http);
        self.program.until(async || http.get(&url).await.is_ok()).await
    }

    /// Starts it again after [`stop`](Daemon::stop) or a kill, with the same configuration and store.
    pub async fn again(&mut self) -> anyhow::Result<()> {
        self.program = spawn(&self.binary, &self.config)?;
        self.ready().await
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.program.signal("TERM")?;
        self.program.ended(STOP).await
    }

    /// The process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Where its admin listener is.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// What the admin listener shows at `path`, as JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.http.get_json(&format!("{}{path}", self.admin)).await
    }

    /// The list at `/api/v1/{name}?{query}`, newest first.
    pub async fn list(&self, name: &str, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let mut page = self.get(&format!("/api/v1/{name}?{query}")).await?;
        match page[name].take() {
            Value::Array(list) => Ok(list),
            other => anyhow::bail!("/api/v1/{name} has no list `{name}`: {other}"),
        }
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.http.get(&format!("{}/metrics", self.admin)).await?.text())
    }
}

fn spawn(binary: &Path, config: &Path) -> anyhow::Result<Program> {
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(config);
    Program::start(command, &config.with_file_name("tidewaiter.log"))
}
