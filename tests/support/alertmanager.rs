//! Prometheus' Alertmanager itself, on a free loopback port, alone and with no receiver.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::http::Http;
use super::program::{Program, free_port};

/// A running Alertmanager.
pub struct Alertmanager {
    program: Program,
    http: Http,
    url: String,
}

impl Alertmanager {
    /// Starts one that keeps its things in `folder`, and waits until it takes alerts.
    pub async fn start(folder: &Path) -> anyhow::Result<Alertmanager> {
        fs::create_dir_all(folder)?;
        let config = folder.join("alertmanager.yml");
        fs::write(
            &config,
            "route: {receiver: nobody, group_by: [alertname, registry, repository], group_wait: 0s, group_interval: 1s}\n\
             receivers: [{name: nobody}]\n",
        )?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={}", url.trim_start_matches("http://")))
            // Empty: no gossip with others.
            .arg("--cluster.listen-address=");
        let mut program = Program::start(command, &folder.join("alertmanager.log"))?;
        let http = Http::new(None)?;
        let ready = format!("{url}/-/ready");
        program.until(async || http.get(&ready).await.is_ok()).await?;
        Ok(Alertmanager { program, http, url })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// The alerts that are active now, as it shows them: `labels`, `annotations`, `startsAt` and so on.
    pub async fn alerts(&self) -> anyhow::Result<Vec<Value>> {
        let alerts = self.http.get_json(&format!("{}/api/v2/alerts?active=true", self.url)).await?;
        Ok(alerts.as_array().cloned().unwrap_or_default())
    }
}
