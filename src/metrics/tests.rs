//! Tests of the room: what is exported from the start, what goes, and what never becomes a series.

use super::bounds::{POLICIES_IN_FULL, REGISTRIES_IN_FULL};
use super::*;
use std::collections::BTreeSet;

fn names() -> Names {
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    Names {
        sources: set(&["contoso-acr"]),
        registries: set(&["contoso.azurecr.io"]),
        sinks: set(&["oncall"]),
        policies: set(&["iot", "gone"]),
        requirements: [
            ("iot".to_owned(), Rule::Platforms, Severity::Critical),
            ("gone".to_owned(), Rule::Immutable, Severity::Critical),
        ]
        .into(),
    }
}

fn series(metrics: &Metrics) -> usize {
    metrics.encode().unwrap().lines().filter(|l| !l.starts_with('#')).count()
}

#[test]
fn combinations_of_the_configuration_are_there_before_the_first_event() {
    let metrics = Metrics::new().unwrap();
    metrics.announce(names());
    let text = metrics.encode().unwrap();
    for line in [
        r#"tidewaiter_events_total{action="push",result="recorded",source="contoso-acr"} 0"#,
        r#"tidewaiter_events_total{action="none",result="rejected",source="contoso-acr"} 0"#,
        r#"tidewaiter_verdicts_total{origin="event",outcome="violation",policy="iot"} 0"#,
        r#"tidewaiter_violations_total{policy="iot",requirement="platforms",severity="critical"} 0"#,
        r#"tidewaiter_violations{policy="iot",requirement="platforms",severity="critical",state="firing"} 0"#,
        r#"tidewaiter_alerts_total{result="dropped",sink="oncall"} 0"#,
        r#"tidewaiter_http_requests_total{code="503",listener="events"} 0"#,
        r#"tidewaiter_limit_reached_total{limit="framing"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "missing: {line}\n{text}");
    }
}

#[test]
fn series_of_policies_that_are_gone_are_removed() {
    let metrics = Metrics::new().unwrap();
    metrics.announce(names());
    metrics.violation_fired("gone", Rule::Immutable, Severity::Critical);
    let mut later = names();
    later.policies.remove("gone");
    later.requirements.retain(|(policy, ..)| policy != "gone");
    metrics.announce(later);
    let text = metrics.encode().unwrap();
    assert!(!text.contains(r#"policy="gone""#) && text.contains(r#"policy="iot""#), "{text}");
}

#[test]
fn violations_that_are_no_longer_counted_fall_to_zero() {
    let metrics = Metrics::new().unwrap();
    metrics.announce(names());
    let line = |n| format!(r#"{{policy="iot",requirement="platforms",severity="critical",state="firing"}} {n}"#);
    metrics.violations([("iot", Rule::Platforms, Severity::Critical, State::Firing, 3)]);
    assert!(metrics.encode().unwrap().contains(&line(3)));
    metrics.violations([]);
    assert!(metrics.encode().unwrap().contains(&line(0)));
}

#[test]
fn a_large_configuration_shows_what_there_is_and_not_what_there_could_be() {
    let metrics = Metrics::new().unwrap();
    let many = |word: &str, n: usize| (0..n).map(|n| format!("{word}-{n}")).collect::<BTreeSet<_>>();
    let (policies, registries) = (many("policy", POLICIES_IN_FULL + 1), many("registry", REGISTRIES_IN_FULL + 1));
    let requirements = policies.iter().map(|p| (p.clone(), Rule::Index, Severity::Info)).collect();
    metrics.announce(Names { policies, registries, requirements, ..Names::default() });
    metrics.violations([("policy-1", Rule::Index, Severity::Info, State::Firing, 1)]);
    metrics.registry_request("registry-1", Operation::Token, RequestStatus::Success, Duration::ZERO);
    let text = metrics.encode().unwrap();
    assert!(text.contains(r#"tidewaiter_violations{policy="policy-1""#) && !text.contains(r#"policy="policy-2""#));
    assert!(text.contains(r#"requests_total{operation="token",registry="registry-1",status="2xx"} 1"#), "{text}");
    assert!(text.contains(r#"seconds_count{operation="token",registry="other",status="2xx"} 1"#), "{text}");
    metrics.violations([]);
    assert!(!metrics.encode().unwrap().contains("tidewaiter_violations{"));
}

#[test]
fn a_busy_large_configuration_is_scraped_in_a_quarter_of_a_megabyte() {
    let metrics = Metrics::new().unwrap();
    let many = |word: &str, n: usize| (0..n).map(|n| format!("{word}-{n}")).collect::<BTreeSet<_>>();
    let (policies, registries) = (many("policy", 500), many("registry.example", 50));
    metrics.announce(Names { policies: policies.clone(), registries: registries.clone(), ..Names::default() });
    for policy in &policies {
        for outcome in [Outcome::Pass, Outcome::Violation] {
            metrics.verdict(policy, outcome, Origin::Event);
        }
        metrics.violation_fired(policy, Rule::Platforms, Severity::Critical);
    }
    metrics.violations(policies.iter().map(|p| (p.as_str(), Rule::Platforms, Severity::Critical, State::Firing, 1)));
    for registry in &registries {
        use Operation::{GetManifest, HeadManifest, ListTags, Token};
        for operation in [HeadManifest, GetManifest, ListTags, Token] {
            metrics.registry_request(registry, operation, RequestStatus::Success, Duration::ZERO);
        }
    }
    let text = metrics.encode().unwrap();
    assert!(text.len() <= 256 * 1024, "{} bytes", text.len());
}

#[test]
fn t59_hostile_names_make_no_series() {
    let metrics = Metrics::new().unwrap();
    metrics.announce(names());
    let use_all = |name: &str| {
        metrics.event_counters(name).add(Some(Action::Push), EventResult::Recorded, 1);
        metrics.verdict(name, Outcome::Pass, Origin::Event);
        metrics.violation_fired(name, Rule::Index, Severity::Info);
        metrics.violations([(name, Rule::Index, Severity::Info, State::Firing, 1)]);
        metrics.registry_request(name, Operation::GetManifest, RequestStatus::Success, Duration::ZERO);
        metrics.registry_throttled(name);
        metrics.token_refreshed(name, Success::Ok);
        metrics.alerts(name, AlertResult::Delivered, 1);
        metrics.alert_backlog([(name, 1)]);
        metrics.enforcement(name, Enforcement::Lock, EnforcementResult::Done);
        metrics.reconciles_every(name, Duration::from_secs(1));
        metrics.reconciled(name, jiff::Timestamp::UNIX_EPOCH, 1);
        metrics.config(name);
    };
    use_all("first");
    let before = series(&metrics);
    for n in 0..100_000u32 {
        use_all(&format!("a\"}} {n}\n"));
        metrics.answered(Listener::Events, n as u16, Duration::ZERO);
    }
    assert_eq!(series(&metrics), before);
    assert!(before < 2_000, "{before}");
}

#[test]
fn t60_label_values_are_escaped() {
    let metrics = Metrics::new().unwrap();
    let evil = "a\\\"}\nevil_total 1";
    metrics.announce(Names { sinks: [evil.to_owned()].into(), ..Names::default() });
    let text = metrics.encode().unwrap();
    assert!(!text.lines().any(|l| l.starts_with("evil_total")));
    assert!(text.contains(r#"sink="a\\\"}\nevil_total 1""#), "{text}");
}

#[test]
fn every_series_has_a_help_text_and_promtool_finds_nothing_to_say() {
    use std::io::Write;
    let metrics = Metrics::new().unwrap();
    metrics.announce(names());
    metrics.certificate_read(Listener::Events, Some(1));
    metrics.config("abc");
    metrics.registry_request(
        "contoso.azurecr.io",
        Operation::ListTags,
        RequestStatus::Server,
        Duration::from_millis(3),
    );
    let text = metrics.encode().unwrap();
    for line in text.lines().filter(|l| l.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(text.lines().any(|l| l.starts_with(&format!("# HELP {name} ")) && l.len() > name.len() + 9), "{name}");
    }
    let Ok(mut promtool) = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
    else {
        eprintln!("promtool is not installed; the text format was not checked by it");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = promtool.wait_with_output().unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}
