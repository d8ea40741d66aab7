//! Prometheus' side: the shipped rules, their tests and runbooks, the dashboard, every query of both asked of a real
//! Prometheus that scrapes the real daemon over TLS, and the size of what it scrapes.

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;
use support::daemon::Daemon;
use support::http::Http;
use support::program::{eventually, free_port};
use support::stage::{PATIENCE, SECRET, Stage, write};
use support::tls::Ca;

const POLICY: &str = include_str!("demo/policies/iot.yaml");
/// Most bytes of a scrape with [`POLICIES`] and [`REGISTRIES`].
const SCRAPE_BYTES: usize = 256 * 1024;
/// Longest scrape of the same.
const SCRAPE_TIME: Duration = Duration::from_millis(10);
const POLICIES: usize = 500;
const REGISTRIES: usize = 50;
/// Names that are sent, and the most series that they may leave behind.
const HOSTILE: usize = 100_000;
const SERIES: usize = 2_000;

/// Where the pages of `docs/runbooks` are read.
const RUNBOOKS: &str = "https://github.com/tidewaiter/tidewaiter/blob/main/docs/runbooks";

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidewaiter"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> PathBuf {
    root().join("charts/tidewaiter/files")
}

/// An alert or a recording rule.
struct Rule {
    alert: Option<String>,
    expr: String,
    annotations: BTreeMap<String, String>,
    severity: Option<String>,
}

fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(files().join("rules.yaml")).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| Rule {
            alert: rule["alert"].as_str().map(str::to_owned),
            expr: rule["expr"].as_str().unwrap().to_owned(),
            annotations: rule["annotations"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned()))
                .collect(),
            severity: rule["labels"]["severity"].as_str().map(str::to_owned),
        })
        .collect()
}

/// Every query of the dashboards, with its panel's title.
fn dashboard_queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    let board = dashboard();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap().to_owned();
            let query = target["expr"].as_str().unwrap();
            // As Grafana fills them in for `All`.
            let query = query.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$job", ".*");
            assert!(!query.contains('$'), "{title}: a variable that is not filled in: {query}");
            queries.push((title, query));
        }
    }
    queries
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(files().join("dashboards/tidewaiter.json")).unwrap()).unwrap()
}

/// The names of series that stand in an expression, without the endings of a histogram.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
    let ours = words.filter(|word| word.starts_with("tidewaiter_") || word.starts_with("process_"));
    ours.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

fn promtool(args: &[&str], file: &Path) {
    let output = Command::new("promtool").args(args).arg(file).output();
    let output = output.expect("promtool: tests/install.sh installs it");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {args:?} {}:\n{}", file.display(), String::from_utf8_lossy(&said));
}

#[test]
fn the_rules_do_what_their_tests_say() {
    promtool(&["check", "rules"], &files().join("rules.yaml"));
    let mut tests = String::new();
    for file in ["rules_test.yaml", "rules_days_test.yaml"] {
        promtool(&["test", "rules"], &files().join(file));
        tests.push_str(&fs::read_to_string(files().join(file)).unwrap());
    }
    for alert in rules().iter().filter_map(|rule| rule.alert.as_deref()) {
        let mentioned = |line: &&str| line.contains(&format!("alertname: {alert}"));
        let fires = tests.lines().filter(mentioned).any(|line| !line.contains("exp_alerts: []"));
        let silent = tests.lines().filter(mentioned).any(|line| line.contains("exp_alerts: []"));
        assert!(fires && silent, "{alert} has a test in which it fires, and one in which it does not");
    }
}

#[test]
fn every_alert_says_what_it_should_and_has_a_runbook() {
    let mut pages = BTreeSet::new();
    for rule in rules() {
        let Some(alert) = rule.alert else { continue };
        assert!(alert.starts_with("Tidewaiter"), "{alert}");
        let (summary, description) = (&rule.annotations["summary"], &rule.annotations["description"]);
        assert!(summary.ends_with('.') && !summary.contains("{{"), "{alert}: one sentence, no values: {summary}");
        assert!(description.ends_with('.'), "{alert}: {description}");
        let page = alert.to_lowercase();
        assert_eq!(rule.annotations["runbook_url"], format!("{RUNBOOKS}/{page}.md"), "{alert}");
        assert!(rule.annotations.keys().all(|name| name != "dashboard_url"), "{alert}: nobody's Grafana is known");
        // The severity of a violation is the policy's own.
        let severity = rule.severity.as_deref();
        assert_eq!(severity.is_none(), alert == "TidewaiterViolationFiring", "{alert}: {severity:?}");
        assert!(severity.is_none_or(|word| ["info", "warning", "critical"].contains(&word)), "{alert}: {severity:?}");
        let text = fs::read_to_string(root().join(format!("docs/runbooks/{page}.md"))).unwrap_or_default();
        assert!(
            text.starts_with(&format!("# {alert}\n")),
            "docs/runbooks/{page}.md is missing, or about another alert"
        );
        for heading in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
            assert!(text.contains(heading), "docs/runbooks/{page}.md has no `{heading}`");
        }
        pages.insert(format!("{page}.md"));
    }
    let there = fs::read_dir(root().join("docs/runbooks")).unwrap();
    let there: BTreeSet<String> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, pages, "a page for each alert and no other");
}

#[test]
fn the_dashboard_keeps_to_the_conventions() {
    let board = dashboard();
    assert_eq!((board["uid"].as_str(), board["schemaVersion"].as_u64()), (Some("tidewaiter"), Some(39)));
    assert!(board.get("id").is_none());
    let variables = board["templating"]["list"].as_array().unwrap();
    assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&"datasource".into(), &"prometheus".into()));
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}: its number is taken", panel["title"]);
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{}", panel["title"]);
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}: no unit", panel["title"]);
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_is_answered_by_a_prometheus_that_scrapes_the_daemon_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::set(folder.path(), binary(), POLICY, true).await.unwrap();
    let digest = stage.push("iot/arm", "1.0.0", &["linux/amd64", "linux/arm64"], "1", &[]).await.unwrap();
    stage.verdict("iot/arm", "1.0.0", &digest).await.unwrap();
    stage.alert("iot/arm", "platforms", true).await.unwrap();

    let text = stage.daemon.metrics().await.unwrap();
    let exported: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let (rules, dashboard) = (rules(), dashboard_queries());
    let queries = rules.iter().map(|rule| (rule.alert.as_deref().unwrap_or("record"), rule.expr.as_str()));
    let queries: Vec<(&str, &str)> =
        queries.chain(dashboard.iter().map(|(title, query)| (title.as_str(), query.as_str()))).collect();
    for (whence, query) in &queries {
        for name in names(query) {
            assert!(exported.contains(name.as_str()), "{whence}: /metrics has no {name}");
        }
    }

    let fired = r#"max by (policy, requirement, severity) (tidewaiter_violations{state="firing"}) > 0"#;
    let firing =
        eventually("a violation that fires", PATIENCE, async || Ok(stage.prometheus.query(fired).await?.pop()));
    let (labels, value) = firing.await.unwrap();
    assert_eq!((labels.as_str(), value), (r#"{policy="iot-demo", requirement="platforms", severity="critical"}"#, 1.0));

    // A recorded series is not there, as this Prometheus has no rules: what it stands for is asked in its place.
    let ratio = "registry:tidewaiter_registry_requests_failed:ratio_rate5m";
    let recorded = rules.iter().find(|rule| rule.expr.contains(r#"status=~"5xx|none""#)).unwrap();
    for (whence, query) in queries {
        let query = query.replace(ratio, &format!("({})", recorded.expr));
        stage.prometheus.query(&query).await.unwrap_or_else(|error| panic!("{whence}: {query}: {error:#}"));
        // Where an alert asks for too much, what it looks at is there all the same; so is what a panel shows.
        let present = query.replace(" > 0", "");
        if whence.starts_with("Tidewaiter") {
            continue;
        }
        let what = format!("{whence}: {present}");
        eventually(&what, PATIENCE, async || Ok(stage.prometheus.query(&present).await?.pop())).await.unwrap();
    }
}

/// A configuration with a large number of policies, each over all registries.
struct Large {
    folder: tempfile::TempDir,
    daemon: Daemon,
    events: String,
    http: Http,
}

impl Large {
    async fn start(policies: usize, registries: usize) -> Large {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let issued = ca.issue(&["localhost", "127.0.0.1"]);
        let path = |name: &str| folder.path().join(name);
        write(&path("tls.crt"), &issued.certificate).unwrap();
        write(&path("tls.key"), &issued.key).unwrap();
        write(&path("secret"), SECRET).unwrap();
        let mut documents = String::new();
        for n in 0..policies {
            let class = "classes: [{name: version, form: \"{major}.{minor}.{patch}\", require: {immutable: true}}]";
            writeln!(
                documents,
                "---\napiVersion: tidewaiter.dev/v1\nkind: TagPolicy\nmetadata: {{name: policy-{n}}}\nspec:\n  repositories: [\"*/team-{n}/**\"]\n  mode: alert\n  {class}\n  otherTags: deny"
            )
            .unwrap();
        }
        write(&path("policies.yaml"), &documents).unwrap();
        let (events, admin) = (free_port().unwrap(), free_port().unwrap());
        let mut config = format!(
            "listen: {{events: \"127.0.0.1:{events}\", admin: \"127.0.0.1:{admin}\"}}\ntls: {{certificate: tls.crt, key: tls.key}}\nadmin: {{tls: {{certificate: tls.crt, key: tls.key}}}}\nstore: {{url: \"sqlite:tidewaiter.db\"}}\npolicies: [policies.yaml]\nlog: {{level: error}}\nregistries:\n"
        );
        // Nobody listens there: what has no answer is told by status, so every registry has series.
        for n in 0..registries {
            let port = free_port().unwrap();
            writeln!(config, "  - {{host: \"registry-{n}.example\", endpoint: \"http://127.0.0.1:{port}\", insecure: true, allowPrivate: true}}").unwrap();
        }
        config.push_str(
            "sources:\n  - {name: local, format: distribution, auth: {header: Authorization, valueFiles: [secret]}}\n",
        );
        write(&path("tidewaiter.yaml"), &config).unwrap();
        let http = Http::new(Some(ca.pem())).unwrap();
        let admin = format!("https://localhost:{admin}");
        let daemon = Daemon::start(binary(), &path("tidewaiter.yaml"), &admin, http.clone()).await.unwrap();
        Large { folder, daemon, events: format!("https://localhost:{events}/v1/events/"), http }
    }

    async fn post(&self, source: &str, body: String) -> u16 {
        let headers =
            [("authorization", SECRET), ("content-type", "application/vnd.docker.distribution.events.v1+json")];
        let url = format!("{}{source}", self.events);
        self.http.send(Method::POST, &url, &headers, body).await.unwrap().status.as_u16()
    }
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_of_a_large_configuration_over_tls_is_small_and_quick() {
    let large = Large::start(POLICIES, REGISTRIES).await;
    let text = eventually("requests to every registry", PATIENCE, async || {
        let text = large.daemon.metrics().await?;
        let asked = |n: usize| {
            text.contains(&format!(
                "tidewaiter_registry_requests_total{{operation=\"catalog\",registry=\"registry-{n}.example\""
            ))
        };
        Ok((0..REGISTRIES).all(asked).then_some(text))
    });
    let text = text.await.unwrap();
    assert!(text.contains(&format!("tidewaiter_policies {POLICIES}\n")));
    assert!(text.len() <= SCRAPE_BYTES, "{} bytes in {} series", text.len(), series(&text));
    // The quickest of some: the machine is busy with other tests.
    let mut quickest = Duration::MAX;
    for _ in 0..50 {
        let start = Instant::now();
        large.daemon.metrics().await.unwrap();
        quickest = quickest.min(start.elapsed());
    }
    assert!(quickest <= SCRAPE_TIME, "{quickest:?} for {} bytes", text.len());
    drop(large.folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_force_has_one_hash_that_changes_with_the_policies() {
    let large = Large::start(2, 1).await;
    let hash = async || {
        let text = large.daemon.metrics().await?;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("tidewaiter_config_info{")).collect();
        let [line] = lines[..] else { anyhow::bail!("one series: {lines:?}") };
        let hash = line.strip_prefix("tidewaiter_config_info{hash=\"").and_then(|rest| rest.strip_suffix("\"} 1"));
        Ok(hash.unwrap_or_else(|| panic!("{line}")).to_owned())
    };
    let first = hash().await.unwrap();
    assert!(first.len() == 12 && first.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
    let file = large.folder.path().join("policies.yaml");
    let text = fs::read_to_string(&file).unwrap();
    write(&file, &text.replacen("immutable: true", "index: true", 1)).unwrap();
    let changed = eventually("another hash", PATIENCE, async || Ok(Some(hash().await?).filter(|now| *now != first)));
    changed.await.unwrap();
    // What was in force before has the hash of before: replicas can be compared.
    write(&file, &text).unwrap();
    eventually("the first hash", PATIENCE, async || Ok(Some(hash().await?).filter(|now| *now == first))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t59_a_hundred_thousand_hostile_names_make_no_series() {
    let large = Large::start(2, 1).await;
    let hostile = |n: usize| format!("a\\\"}} {n}\\n\\u0000{{}}=evil-{n}");
    let digest = format!("sha256:{}", "a".repeat(64));
    let before = series(&large.daemon.metrics().await.unwrap());
    // Hosts, repositories, tags, actors, actions and ids, five hundred to a body; each body is one batch.
    const BATCH: usize = 500;
    for batch in 0..HOSTILE / BATCH {
        let mut events = Vec::new();
        for n in batch * BATCH..(batch + 1) * BATCH {
            let name = hostile(n);
            let host = if n % 50 == 0 { "registry-0.example".to_owned() } else { name.clone() };
            let action = if n % 7 == 0 { name.as_str() } else { "push" };
            let repository = if n % 3 == 0 { format!("team-{n}/evil") } else { name.clone() };
            events.push(format!(
                r#"{{"id":"{name}","timestamp":"2026-11-22T10:00:00Z","action":"{action}","target":{{"mediaType":"application/vnd.oci.image.index.v1+json","size":1,"digest":"{digest}","length":1,"repository":"{repository}","url":"https://{host}/v2/","tag":"{name}"}},"request":{{"id":"{name}","host":"{host}","method":"PUT"}},"actor":{{"name":"{name}"}},"source":{{"addr":"{host}"}}}}"#
            ));
        }
        let status = large.post("local", format!("{{\"events\":[{}]}}", events.join(","))).await;
        assert!([202, 413].contains(&status), "{status}");
        assert_ne!(status, 413, "the batch is too large for the test to mean anything");
    }
    for n in 0..100 {
        assert_eq!(large.post(&format!("evil-{n}"), "{}".to_owned()).await, 404);
    }
    let text = large.daemon.metrics().await.unwrap();
    assert!(!text.contains("evil"), "a name from outside is in /metrics");
    assert!(series(&text) <= SERIES, "{} series, {before} before", series(&text));
}
