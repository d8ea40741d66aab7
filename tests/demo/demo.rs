//! `make demo`: a registry, pushes good and bad, and each being judged as it arrives.
//!
//! Nothing here is pretended: a real registry with TLS tells a real tidewaiter, which tells a real Alertmanager, and
//! a real Prometheus watches. What is shown is read from their APIs.

mod folder;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anstream::{eprintln, print, println};
use anyhow::Context;
use clap::Parser;
use serde_json::Value;

use folder::Folder;
use support::program::eventually;
use support::stage::{PATIENCE, Stage};

const DEVICES: &[&str] = &["linux/amd64", "linux/arm64", "linux/arm/v7"];

/// Shows pushes being judged, beside a real registry.
#[derive(Parser)]
struct Cli {
    /// Leave everything running at the end
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::select! {
        outcome = run(&cli) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n\x1b[31merror:\x1b[0m {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut folder = Folder::new()?;
    let mut stage = Stage::set(folder.path(), &folder::binary()?, include_str!("policies/iot.yaml"), false).await?;
    println!("docker-registry at {}, with TLS, tells tidewaiter of every push;", stage.host);
    println!("tidewaiter tells Alertmanager, and Prometheus watches. All were ready in {}.", told(start.elapsed()));
    let shown = match story(&stage).await {
        Ok(()) => summary(&stage, cli).await,
        Err(error) => Err(error),
    };
    if let Err(error) = shown {
        let words = stage.daemon.program().last_words();
        return Err(error.context(format!("tidewaiter said last:\n{words}\nand then")));
    }
    println!("\nThe whole of it took {}.", told(start.elapsed()));
    if cli.keep {
        let admin = stage.daemon.admin().to_owned();
        let (prometheus, alertmanager) = (stage.prometheus.url().to_owned(), stage.alertmanager.url().to_owned());
        println!("\nIt is still running: tidewaiter {admin}, Prometheus {prometheus}, Alertmanager {alertmanager}.");
        println!("Stop it with: {}", folder.leave(&mut stage)?);
    }
    Ok(())
}

/// Six pushes and what becomes of them.
async fn story(stage: &Stage) -> anyhow::Result<()> {
    title("A complete release, and latest with it");
    let step = Push { repository: "iot/sensor", tag: "1.0.0", platforms: DEVICES, version: "1.0.0" };
    push(stage, &step).await?;
    tag(stage, "iot/sensor", "1.0.0", "latest").await?;

    title("A version tag is moved to another image");
    let mut step = Push { repository: "iot/pump", tag: "1.0.0", platforms: DEVICES, version: "1.0.0" };
    push(stage, &step).await?;
    step.version = "1.0.0 again";
    push(stage, &step).await?;

    title("A release without arm/v7");
    let step = Push { repository: "iot/valve", tag: "1.0.1", platforms: &DEVICES[..2], version: "1.0.1" };
    push(stage, &step).await?;

    title("A tag of the wrong form");
    let step = Push { repository: "iot/meter", tag: "v1.0.0", platforms: DEVICES, version: "1.0.0" };
    push(stage, &step).await?;

    title("A new release, and latest stays behind");
    let step = Push { repository: "iot/sensor", tag: "1.1.0", platforms: DEVICES, version: "1.1.0" };
    push(stage, &step).await?;
    let pushed = Instant::now();
    println!("    latest has 2 s to follow ...");
    let lags = stage.violation("iot/sensor", "follows", "firing").await?;
    verdict("violation", "latest", Some(&lags), pushed.elapsed());
    stage.alert("iot/sensor", "follows", true).await?;
    println!("    Alertmanager has it after {}", told(pushed.elapsed()));

    title("The fault is mended");
    let moved = Instant::now();
    tag(stage, "iot/sensor", "1.1.0", "latest").await?;
    stage.violation("iot/sensor", "follows", "resolved").await?;
    stage.alert("iot/sensor", "follows", false).await?;
    println!("    resolved in the record and in Alertmanager after {}", told(moved.elapsed()));
    Ok(())
}

/// What is known at the end, from the command line, Prometheus and Alertmanager.
async fn summary(stage: &Stage, cli: &Cli) -> anyhow::Result<()> {
    title("What is wrong now");
    println!("    $ tidewaiter violations");
    let output = Command::new(folder::binary()?)
        .args(["violations", "--config"])
        .arg(stage.folder.join("tidewaiter.yaml"))
        .output()
        .context("tidewaiter violations")?;
    for line in String::from_utf8_lossy(&output.stdout).lines().chain(String::from_utf8_lossy(&output.stderr).lines()) {
        println!("    {line}");
    }

    title("What Prometheus knows");
    for expression in [
        "sum by (policy, outcome) (tidewaiter_verdicts_total)",
        "tidewaiter_violations{state=\"firing\"} > 0",
        "histogram_quantile(0.5, sum by (le) (tidewaiter_event_verdict_seconds_bucket))",
    ] {
        println!("    {expression}");
        // A scrape may be a second away, and a rate needs two.
        let samples = eventually(expression, PATIENCE, async || {
            let samples = stage.prometheus.query(expression).await?;
            Ok((!samples.is_empty() && samples.iter().all(|(_, value)| value.is_finite())).then_some(samples))
        })
        .await?;
        for (labels, value) in samples {
            println!("      {value:<8.4} {labels}");
        }
    }

    title("What Alertmanager holds");
    for alert in stage.alertmanager.alerts().await? {
        let label = |name: &str| text(&alert["labels"][name]).to_owned();
        let image = format!("{}:{}", label("repository"), label("tag"));
        println!("    {:<9} {image:<20} {:<10} {}", label("severity"), label("requirement"), annotation(&alert));
    }

    title("To try more");
    if !cli.keep {
        println!("    make demo KEEP=1 leaves all of this running");
        return Ok(());
    }
    let (host, folder, program) = (&stage.host, folder::NAME, folder::binary()?);
    println!(
        "    cargo run --example push -- index {host}/iot/sensor:1.2.0 --platforms linux/amd64 --ca {folder}/ca.crt"
    );
    println!("    {} check {host}/iot/sensor:1.2.0 --config {folder}/tidewaiter.yaml", program.display());
    println!("    {} history {host}/iot/pump:1.0.0 --config {folder}/tidewaiter.yaml", program.display());
    println!("    edit {folder}/policies/iot.yaml: what is on record is judged again");
    Ok(())
}

struct Push<'a> {
    repository: &'a str,
    tag: &'a str,
    platforms: &'a [&'a str],
    version: &'a str,
}

/// Pushes, and shows the verdict as it arrives.
async fn push(stage: &Stage, Push { repository, tag, platforms, version }: &Push<'_>) -> anyhow::Result<()> {
    println!("    push {repository}:{tag}  {}", platforms.join(" "));
    let digest = stage.push(repository, tag, platforms, version, &[]).await?;
    judged(stage, repository, tag, &digest).await
}

/// Points a tag at what another leads to, and shows the verdict as it arrives.
async fn tag(stage: &Stage, repository: &str, old: &str, new: &str) -> anyhow::Result<()> {
    println!("    tag  {repository}:{new}  as {old}");
    let digest = stage.pusher.tag(repository, old, new).await?;
    judged(stage, repository, new, &digest).await
}

async fn judged(stage: &Stage, repository: &str, tag: &str, digest: &str) -> anyhow::Result<()> {
    let pushed = Instant::now();
    let found = stage.verdict(repository, tag, digest).await?;
    let took = pushed.elapsed();
    let findings = found["findings"].as_array().context("a verdict has findings")?;
    if findings.is_empty() {
        verdict(text(&found["outcome"]), tag, None, took);
    }
    for finding in findings {
        verdict(text(&found["outcome"]), tag, Some(finding), took);
    }
    Ok(())
}

fn title(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

fn verdict(outcome: &str, tag: &str, finding: Option<&Value>, took: Duration) {
    let (colour, sign) = match outcome {
        "pass" => (32, '✓'),
        "violation" => (31, '✗'),
        _ => (33, '·'),
    };
    print!("  \x1b[{colour}m{sign}\x1b[0m {tag:<8} {outcome}");
    if let Some(finding) = finding {
        let word = |name: &str| text(&finding[name]).to_owned();
        print!("  {}  {}  {}", word("requirement"), word("severity"), word("message"));
    }
    println!("  \x1b[2mafter {}\x1b[0m", told(took));
}

fn annotation(alert: &Value) -> &str {
    text(&alert["annotations"]["summary"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn told(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
