//! What programs read: JSON, JUnit, SARIF, annotations, policy reports, and the exit code.

use quick_junit::{NonSuccessKind, TestCaseStatus};
use serde_json::Value;

use super::fixtures::*;
use super::*;
use crate::policy::Rule;
use crate::report::visible::hides;

fn all() -> Vec<(&'static str, Report)> {
    vec![
        ("example", example()),
        ("all-pass", all_pass()),
        ("mixed", mixed()),
        ("many", many()),
        ("hostile", hostile()),
        ("empty", Report::new(vec![], now())),
    ]
}

fn value(report: &Report, format: Format) -> Value {
    serde_json::from_str(&report.render(format, &Options::default())).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_format_as_the_golden_files_say() {
    let endings = [
        (Format::Json, "json"),
        (Format::Jsonl, "jsonl"),
        (Format::Junit, "xml"),
        (Format::Sarif, "sarif"),
        (Format::Github, "github"),
        (Format::AzureDevops, "azure"),
        (Format::Markdown, "md"),
        (Format::PolicyReport, "policyreport.json"),
        (Format::OpenReports, "openreports.json"),
    ];
    for (format, ending) in endings {
        golden(&format!("example.{ending}"), &example().render(format, &Options::default()));
        golden(&format!("mixed.{ending}"), &mixed().render(format, &Options::default()));
    }
    for (format, ending) in [(Format::Github, "github"), (Format::AzureDevops, "azure"), (Format::Markdown, "md")] {
        golden(&format!("hostile.{ending}"), &hostile().render(format, &Options::default()));
    }
}

#[test]
fn json_has_the_published_shape() {
    let report = value(&example(), Format::Json);
    assert_eq!(keys(&report), ["apiVersion", "kind", "summary", "verdicts"]);
    assert_eq!(report["apiVersion"], "tidewaiter.dev/v1");
    assert_eq!(keys(&report["summary"]), ["pass", "violation", "pending", "error", "ignored"]);
    assert_eq!(report["summary"]["violation"], 2);
    let verdict = &report["verdicts"][0];
    assert_eq!(
        keys(verdict),
        ["image", "policy", "policyHash", "class", "outcome", "origin", "judgedAt", "findings", "notEvaluated"]
    );
    assert_eq!(keys(&verdict["image"]), ["registry", "repository", "tag", "digest", "kind", "platforms"]);
    assert_eq!(verdict["image"]["platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));
    assert_eq!(verdict["judgedAt"], "2026-11-22T10:00:00Z");
    let finding = &verdict["findings"][0];
    let published = ["requirement", "reason", "severity", "state", "message", "expected", "actual", "since"];
    assert_eq!(keys(finding)[..8], published);
    assert_eq!(keys(finding)[8..], ["advice", "docs", "source"]);
    assert_eq!(
        verdict["notEvaluated"][0],
        serde_json::json!({"requirement": "immutable", "why": "no record of this tag"})
    );
    assert_eq!(value(&Report::new(vec![], now()), Format::Json)["verdicts"], serde_json::json!([]));
}

#[test]
fn t61_json_gives_back_what_was_said_and_shows_nothing_that_hides() {
    let report = value(&hostile(), Format::Json);
    for (n, text) in HOSTILE.iter().enumerate() {
        assert_eq!(report["verdicts"][n]["findings"][0]["message"], **text);
    }
    let lines = hostile().render(Format::Jsonl, &Options::default());
    assert_eq!(lines.lines().count(), 2 * HOSTILE.len());
    assert!(lines.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()));
}

#[test]
fn t61_no_format_shows_what_hides() {
    for (name, report) in all() {
        for format in Format::ALL {
            let text = report.render(*format, &Options::default());
            let hidden = text.chars().find(|c| *c != '\n' && hides(*c));
            // The emoji of the summary are followed by a selector of ours.
            let ours = *format == Format::Markdown && hidden == Some('\u{fe0f}');
            assert!(hidden.is_none() || ours, "{name} {format}: {hidden:?}");
            assert!(text.is_empty() || text.ends_with('\n'), "{name} {format}");
        }
    }
}

#[test]
fn t54_no_line_becomes_a_command_that_is_not_ours() {
    let starts = ["::error ", "::warning ", "::notice ", "::group::", "::endgroup::"];
    for format in Format::ALL {
        for line in hostile().render(*format, &plain(60)).lines() {
            if line.trim_start().starts_with("::") {
                assert!(*format == Format::Github && starts.iter().any(|s| line.starts_with(s)), "{format}: {line}");
            }
            let vso = line.matches("##vso[").count() + line.matches("##[").count();
            let ours = usize::from(*format == Format::AzureDevops && line.starts_with("##vso[task.logissue type="));
            // Formats that go to files keep what was said.
            if !matches!(format, Format::Json | Format::Jsonl) {
                assert_eq!(vso, ours, "{format}: {line}");
            }
        }
    }
    for line in hostile().render(Format::Github, &Options::default()).lines().filter(|l| l.starts_with("::error file="))
    {
        let (properties, _) = line["::error ".len()..].split_once("::").unwrap();
        let names: Vec<&str> = properties.split(',').filter_map(|p| p.split_once('=').map(|(n, _)| n)).collect();
        assert_eq!(names, ["file", "line", "col", "title"], "{line}");
    }
    for line in hostile().render(Format::AzureDevops, &Options::default()).lines() {
        let Some(rest) = line.strip_prefix("##vso[task.logissue ") else { continue };
        let (properties, _) = rest.split_once(']').unwrap();
        let names: Vec<&str> = properties.split(';').filter_map(|p| p.split_once('=').map(|(n, _)| n)).collect();
        assert!(names == ["type", "sourcepath", "linenumber", "columnnumber", "code"] || names == ["type"], "{line}");
    }
}

#[test]
fn t54_the_summary_has_no_active_element_but_ours() {
    let text = hostile().render(Format::Markdown, &Options::default());
    for line in text.lines() {
        // What stands in code is inactive; our own links and the comment that parts addresses are left out.
        let outside: String = line.split('`').step_by(2).collect::<String>().replace("<!-- -->", "");
        let outside = outside.replace("](https://tidewaiter.dev/reasons/lying-index)", "");
        for active in ["<", "](", "://", "www.", "@", "**", "~~"] {
            assert!(!outside.contains(active), "{active}: {line}");
        }
        if line.starts_with("| ❌") {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 7, "{line}");
        }
    }
}

/// The schema is OASIS's own (sarif-schema-2.1.0.json); a stray bracket in the pattern of `language`, which
/// strict validators refuse, is taken out.
#[test]
fn sarif_meets_the_schema_of_oasis() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../tests/data/report/sarif-schema-2.1.0.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for (name, report) in all() {
        let sarif = value(&report, Format::Sarif);
        let faults: Vec<String> = schema.iter_errors(&sarif).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}");
        let run = &sarif["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        let mut prints = std::collections::HashSet::new();
        for result in run["results"].as_array().unwrap() {
            let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"]);
            assert!(rule["help"]["text"].is_string() && rule["fullDescription"]["text"].is_string());
            // SARIF 2.1.0, section 3.27.10: a level other than none only with the kind fail.
            assert_eq!(result["kind"] == "fail", result["level"] != "none", "{name}");
            let print = result["partialFingerprints"]["primaryLocationLineHash"].as_str().unwrap();
            assert!(prints.insert(format!("{} {print}", result["ruleId"])), "{name}: {print} twice");
        }
    }
}

#[test]
fn junit_is_read_back() {
    for (name, report) in all() {
        let xml = report.render(Format::Junit, &Options::default());
        let read = quick_junit::Report::deserialize_from_str(&xml).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read.test_suites.len(), report.verdicts.len() + report.problems.len() + report.ungoverned.len());
    }
    let read = quick_junit::Report::deserialize_from_str(&mixed().render(Format::Junit, &Options::default())).unwrap();
    let counts: Vec<(usize, usize, usize)> =
        read.test_suites.iter().map(|s| (s.failures, s.errors, s.skipped)).collect();
    // Error, lagging, pending, artifact (platforms not evaluated), resolved, tagless, problem, ungoverned.
    let expected = [(0, 1, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)];
    assert_eq!(counts, expected);

    let lenient = Options { fail_on: Severity::Critical, ..Options::default() };
    let read = quick_junit::Report::deserialize_from_str(&mixed().render(Format::Junit, &lenient)).unwrap();
    let lagging = read.test_suites[1].test_cases.iter().find(|c| c.name.as_str() == "follows").unwrap();
    assert!(matches!(lagging.status, TestCaseStatus::Success { .. }));
    assert!(lagging.system_out.as_ref().unwrap().as_str().contains("lagging"));
    let kind = read.test_suites[3].test_cases.iter().find(|c| c.name.as_str() == "kind").unwrap();
    assert!(matches!(kind.status, TestCaseStatus::NonSuccess { kind: NonSuccessKind::Failure, .. }));
}

#[test]
fn policy_reports_are_what_their_definitions_ask() {
    for (format, version, kind) in [
        (Format::PolicyReport, "wgpolicyk8s.io/v1alpha2", "PolicyReport"),
        (Format::OpenReports, "openreports.io/v1alpha1", "Report"),
    ] {
        for (name, report) in all() {
            let document = value(&report, format);
            let objects =
                if document["kind"] == "List" { document["items"].as_array().unwrap().clone() } else { vec![document] };
            for object in &objects {
                assert_eq!((&object["apiVersion"], &object["kind"]), (&version.into(), &kind.into()), "{name}");
                assert_eq!(object.get("source").is_some(), format == Format::OpenReports);
                let label = object["metadata"]["name"].as_str().unwrap();
                assert!(label.len() <= 253 && !label.ends_with('-'));
                assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{label}");
                for result in object["results"].as_array().unwrap() {
                    assert!(["pass", "fail", "warn", "error", "skip"].contains(&result["result"].as_str().unwrap()));
                    let severity = result["severity"].as_str().unwrap();
                    assert!(["critical", "high", "medium", "low", "info"].contains(&severity));
                    assert!(!result["policy"].as_str().unwrap().is_empty());
                    assert!(result["properties"].as_object().unwrap().values().all(Value::is_string));
                    assert!(result["timestamp"]["seconds"].is_i64() && result["timestamp"]["nanos"].is_i64());
                }
                assert!(object.to_string().len() < 1_500_000, "{name} is more than etcd takes");
            }
        }
    }
    let passing = value(&all_pass(), Format::PolicyReport);
    assert_eq!(
        passing["items"][1]["summary"],
        serde_json::json!({"pass": 3, "fail": 0, "warn": 0, "error": 0, "skip": 1})
    );
}

#[test]
fn the_exit_code_is_the_published_one() {
    let rules = ExitRules::default();
    let critical = ExitRules { fail_on: Severity::Critical, ..rules };
    let info = ExitRules { fail_on: Severity::Info, ..rules };
    let zero = ExitRules { exit_zero: true, ..rules };
    let empty_allowed = ExitRules { allow_empty: true, ..rules };
    let only = |n: usize| Report::new(vec![mixed().verdicts[n].clone()], now());
    let (error, lagging, pending) = (only(0), only(1), only(2));
    let nothing = Report::new(vec![], now());
    let mut problem = nothing.clone();
    problem.problems = mixed().problems;
    let mut both = error.clone();
    both.verdicts.extend(lagging.verdicts.clone());
    for (what, report, rules, code) in [
        ("passes", &all_pass(), rules, 0),
        ("an info fails where infos fail", &all_pass(), info, 1),
        ("a violation", &example(), rules, 1),
        ("a warning", &lagging, rules, 1),
        ("a warning below the limit", &lagging, critical, 0),
        ("pending is no violation", &pending, rules, 0),
        ("resolved is no violation", &only(4), rules, 0),
        ("an error outweighs a pass", &error, rules, 3),
        ("a violation outweighs an error", &both, rules, 1),
        ("an error beside a violation that does not count", &both, critical, 3),
        ("nothing to judge", &nothing, rules, 2),
        ("nothing to judge, accepted", &nothing, empty_allowed, 0),
        ("nothing to judge is a fault even so", &nothing, zero, 2),
        ("nothing could be looked at", &problem, rules, 3),
        ("nothing could be looked at, emptiness accepted", &problem, empty_allowed, 3),
        ("violations told only", &example(), zero, 0),
        ("errors told only", &error, zero, 0),
    ] {
        assert_eq!(rules.code(report), code, "{what}");
    }
}

#[test]
fn what_was_not_evaluated_is_in_every_output() {
    let mut report = all_pass();
    report.verdicts.truncate(1);
    assert!(report.verdicts[0].not_evaluated.iter().any(|n| n.rule == Rule::Present));
    for format in Format::ALL {
        let text = report.render(*format, &Options::default());
        assert!(text.contains("present") && text.contains("no record of this tag"), "{format}: {text}");
    }
}
