//! Prometheus itself, on a free loopback port, scraping one target every second.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::http::Http;
use super::program::{Program, free_port};

/// What is scraped.
pub struct Target<'a> {
    /// Host and port.
    pub address: &'a str,
    /// The authority of its certificate; plain http without one.
    pub ca: Option<&'a Path>,
}

/// A running Prometheus.
pub struct Prometheus {
    program: Program,
    http: Http,
    url: String,
}

impl Prometheus {
    /// Starts one that keeps its things in `folder`, and waits until it answers queries.
    pub async fn start(folder: &Path, target: Target<'_>) -> anyhow::Result<Prometheus> {
        fs::create_dir_all(folder)?;
        let mut config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: tidewaiter\n    static_configs: [{{targets: [{:?}]}}]\n",
            target.address
        );
        if let Some(ca) = target.ca {
            let ca = ca.canonicalize()?;
            writeln!(config, "    scheme: https\n    tls_config: {{ca_file: {:?}, server_name: localhost}}", ca)?;
        }
        let file = folder.join("prometheus.yml");
        fs::write(&file, config)?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={}", url.trim_start_matches("http://")));
        let mut program = Program::start(command, &folder.join("prometheus.log"))?;
        let http = Http::new(None)?;
        let ready = format!("{url}/-/ready");
        program.until(async || http.get(&ready).await.is_ok()).await?;
        Ok(Prometheus { program, http, url })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// What an expression gives now: labels as PromQL writes them, without the job's, and the value.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.http.get_json(&format!("{}/api/v1/query?query={query}", self.url)).await?;
        let result = answer["data"]["result"].as_array().context("Prometheus answers with a vector")?;
        result.iter().map(|sample| Ok((labels(&sample["metric"]), value(&sample["value"][1])?))).collect()
    }
}

fn labels(metric: &Value) -> String {
    let pairs = metric.as_object().into_iter().flatten();
    let shown = pairs.filter(|(name, _)| !matches!(name.as_str(), "__name__" | "job" | "instance"));
    let shown: Vec<String> = shown.map(|(name, value)| format!("{name}={value}")).collect();
    format!("{{{}}}", shown.join(", "))
}

fn value(sample: &Value) -> anyhow::Result<f64> {
    sample.as_str().context("a sample is a text")?.parse().context("a sample is a number")
}
