//! What the chart gives to Prometheus and Grafana.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::manifests::values;
use crate::tools::{chart, object, objects, rendered, root, told};

#[test]
fn the_rules_arrive_as_they_were_tested() {
    let file = chart().join("ci/monitoring-values.yaml");
    let objects = objects(&rendered(&values(&file)));
    let spec = &object(&objects, "PrometheusRule", "tw-tidewaiter")["spec"];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, spec.to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));

    let shipped = fs::read_to_string(chart().join("files/rules.yaml")).unwrap();
    let shipped: Value = serde_saphyr::from_str(&shipped).unwrap();
    let names = |spec: &Value| -> Vec<Value> {
        spec["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    };
    let mut wanted = names(&shipped);
    wanted.retain(|rule| rule["alert"] != "TidewaiterSourceSilent");
    for rule in wanted.iter_mut().filter(|rule| rule["alert"].is_string()) {
        let page = rule["alert"].as_str().unwrap().to_lowercase();
        rule["annotations"]["runbook_url"] = json!(format!("https://wiki.contoso.example/runbooks/{page}"));
        rule["annotations"]["dashboard_url"] = json!("https://grafana.contoso.example/d/tidewaiter");
    }
    let down = wanted.iter_mut().find(|rule| rule["alert"] == "TidewaiterDown").unwrap();
    down["expr"] = json!(r#"absent(tidewaiter_build_info{job="tw-tidewaiter-admin",namespace="watch"})"#);
    let mut given = names(spec);
    assert_eq!(given.pop().unwrap()["alert"], "OursBusy");
    assert_eq!(given, wanted);

    let dashboard = &object(&objects, "ConfigMap", "tw-tidewaiter-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let json = dashboard["data"]["tidewaiter.json"].as_str().unwrap();
    assert_eq!(json, fs::read_to_string(chart().join("files/dashboards/tidewaiter.json")).unwrap());
    let monitor = &object(&objects, "ServiceMonitor", "tw-tidewaiter")["spec"];
    assert_eq!(
        (&monitor["endpoints"][0]["scheme"], &monitor["endpoints"][0]["port"]),
        (&json!("https"), &json!("admin"))
    );
    let admin = object(&objects, "Service", "tw-tidewaiter-admin");
    for (name, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&admin["metadata"]["labels"][name], value, "the monitor finds the service");
    }
}

/// By default the links lead to the pages of the repository.
#[test]
fn links_to_runbooks_are_joined_with_one_slash() {
    let link = |args: &[&str]| {
        let args = [&["--set", "prometheusRule.enabled=true"], args].concat();
        let objects = objects(&rendered(&args));
        let groups = object(&objects, "PrometheusRule", "tw-tidewaiter")["spec"]["groups"].clone();
        let rules = groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
        let annotations =
            rules.into_iter().find(|rule| rule["alert"] == "TidewaiterDown").unwrap()["annotations"].clone();
        assert!(annotations.get("dashboard_url").is_none(), "nobody's Grafana is known: {annotations}");
        annotations.get("runbook_url").map(|url| url.as_str().unwrap().to_owned())
    };
    let own = link(&[]).unwrap();
    assert_eq!(own, "https://github.com/tidewaiter/tidewaiter/blob/main/docs/runbooks/tidewaiterdown.md");
    assert!(root().join(own.split_once("/main/").unwrap().1).exists());
    for base in ["https://wiki.example", "https://wiki.example/"] {
        let base = format!("prometheusRule.runbookUrl={base}");
        assert_eq!(link(&["--set", &base]).unwrap(), "https://wiki.example/tidewaiterdown.md");
        let bare = link(&["--set", &base, "--set", "prometheusRule.runbookSuffix="]);
        assert_eq!(bare.unwrap(), "https://wiki.example/tidewaiterdown");
    }
    assert_eq!(link(&["--set", "prometheusRule.runbookUrl="]), None);
}

/// Of two releases in one Prometheus, the one that is down is told of by its own rule.
#[test]
fn each_release_tells_of_its_own_end() {
    let folder = tempfile::tempdir().unwrap();
    let expression = |args: &[&str]| {
        let objects = objects(&rendered(&[&["--set", "prometheusRule.enabled=true"], args].concat()));
        object(&objects, "PrometheusRule", "tw-tidewaiter")["spec"].clone()
    };
    fs::write(folder.path().join("rules.yaml"), expression(&[]).to_string()).unwrap();
    let test = r#"
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'tidewaiter_build_info{job="tw-tidewaiter-admin",namespace="watch",pod="a"}', values: '1x3 stale _x9 1x5'}
      - {series: 'tidewaiter_build_info{job="other-tidewaiter-admin",namespace="watch",pod="b"}', values: '1x30'}
    alert_rule_test:
      - {eval_time: 6m, alertname: TidewaiterDown, exp_alerts: []}
      - eval_time: 10m
        alertname: TidewaiterDown
        exp_alerts:
          - exp_labels: {job: tw-tidewaiter-admin, namespace: watch, severity: critical}
            exp_annotations:
              summary: A tidewaiter is not being scraped.
              description: tw-tidewaiter-admin has not been scraped for five minutes. Pushes may go unjudged, and no other alert of it can fire.
              runbook_url: https://github.com/tidewaiter/tidewaiter/blob/main/docs/runbooks/tidewaiterdown.md
      - {eval_time: 15m, alertname: TidewaiterDown, exp_alerts: []}
"#;
    let path = folder.path().join("test.yaml");
    fs::write(&path, test).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));

    // Where another job scrapes it, its labels are said.
    let own = expression(&["--set", "prometheusRule.selector.job=registry-watch"]).to_string();
    assert!(own.contains(r#"absent(tidewaiter_build_info{job=\"registry-watch\"})"#), "{own}");
}
