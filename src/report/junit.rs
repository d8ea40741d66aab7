//! JUnit XML: a suite is an image reference, a case a requirement of the policy's class.

use quick_junit::{NonSuccessKind, Report as Xml, TestCase, TestCaseStatus, TestSuite};

use super::{Report, Standing, TOOL, distinct, fires_at, moment, subject_name, visible};
use crate::policy::{Finding, Outcome, Rule, Severity, Verdict};

/// The report; findings below `fail_on` are told in a case's output and do not fail it.
pub(super) fn render(report: &Report, fail_on: Severity) -> String {
    let mut xml = Xml::new(TOOL);
    xml.timestamp = report.judged_at.to_string().parse().ok();
    for verdict in &report.verdicts {
        xml.add_test_suite(suite(verdict, fail_on));
    }
    for problem in &report.problems {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type("undetermined").set_message(visible(&problem.message));
        let mut suite = TestSuite::new(visible(&problem.target));
        suite.add_test_case(TestCase::new("reachable", status));
        xml.add_test_suite(suite);
    }
    for repository in &report.ungoverned {
        let mut status = TestCaseStatus::skipped();
        status.set_message("no policy governs this repository");
        let mut suite = TestSuite::new(repository.to_string());
        suite.add_test_case(TestCase::new("policy", status));
        xml.add_test_suite(suite);
    }
    // Written to memory out of strings that are XML already: there is nothing left that could fail.
    xml.to_string().unwrap_or_default()
}

fn suite(verdict: &Verdict, fail_on: Severity) -> TestSuite {
    let mut suite = TestSuite::new(subject_name(verdict));
    suite.timestamp = verdict.judged_at.to_string().parse().ok();
    if let Some(digest) = &verdict.subject.digest {
        suite.add_property(("digest", digest.as_str()));
    }
    suite.add_property(("policyHash", &*verdict.policy_hash));
    let class = verdict.class.as_deref().unwrap_or("none");
    let classname = format!("{}.{}", visible(&verdict.policy), visible(class));
    let mut add = |mut case: TestCase| {
        case.set_classname(classname.as_str());
        suite.add_test_case(case);
    };
    let rules = verdict.evaluated.iter().copied();
    let rules = rules.chain(verdict.findings.iter().map(|f| f.rule));
    for rule in distinct(rules.chain(verdict.not_evaluated.iter().map(|n| n.rule))) {
        add(case(verdict, rule, fail_on));
    }
    if verdict.outcome == Outcome::Ignored {
        let mut status = TestCaseStatus::skipped();
        status.set_message("the policy asks nothing of this tag");
        add(TestCase::new("ignored", status));
    }
    suite
}

fn case(verdict: &Verdict, rule: Rule, fail_on: Severity) -> TestCase {
    let mut findings: Vec<&Finding> = verdict.findings.iter().filter(|f| f.rule == rule).collect();
    findings.sort_by_key(|f| Standing::of(f));
    let skipped = verdict.not_evaluated.iter().find(|n| n.rule == rule);
    let Some(worst) = findings.first() else {
        let status = match skipped {
            Some(skipped) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("not evaluated: {}", visible(&skipped.why)));
                status
            }
            None => TestCaseStatus::success(),
        };
        return TestCase::new(rule.as_str(), status);
    };
    let details = findings.iter().map(|f| detail(f)).collect::<Vec<_>>().join("\n");
    let fails = worst.severity >= fail_on;
    let mut status = match Standing::of(worst) {
        Standing::Critical | Standing::Warning | Standing::Info if fails => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        Standing::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        Standing::Pending => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(format!("pending until {}: {}", moment(fires_at(worst)), visible(&worst.message)));
            let mut case = TestCase::new(rule.as_str(), status);
            case.set_system_out(details);
            return case;
        }
        _ => {
            let mut case = TestCase::new(rule.as_str(), TestCaseStatus::success());
            case.set_system_out(details);
            return case;
        }
    };
    let messages: Vec<String> = distinct(findings.iter().map(|f| visible(&f.message)));
    status.set_type(worst.reason.as_str()).set_message(messages.join("; ")).set_description(details);
    TestCase::new(rule.as_str(), status)
}

/// Everything about one finding that does not fit into a message.
fn detail(finding: &Finding) -> String {
    let mut text = format!("{} ({}, {})", visible(&finding.message), finding.reason, finding.severity);
    if !finding.advice.is_empty() {
        text += &format!("\n{}", visible(&finding.advice));
    }
    if let Some(note) = &finding.note {
        text += &format!("\nNote: {}", visible(note));
    }
    if let Some(at) = finding.source.as_deref() {
        text += &format!("\n{}:{}:{}", visible(&at.file), at.line, at.column);
    }
    text
}
