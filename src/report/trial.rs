//! What policy tests came to: for people, with what differs, and as JUnit XML.

use quick_junit::{NonSuccessKind, Report as Xml, TestCase, TestCaseStatus, TestSuite};

use super::text::style::{Style, Tone};
use super::{Options, TOOL, count, visible};
use crate::policy::trial::{CaseResult, Difference, Trial};

/// The cases that failed with what differs, and one line that sums up.
pub fn trial_text(trial: &Trial, options: &Options) -> String {
    let style = Style::new(options);
    let mut out = String::new();
    let failed: Vec<&CaseResult> = trial.cases.iter().filter(|c| !c.passed()).collect();
    for case in &failed {
        out += &format!("{} {}\n", style.paint(Tone::Bad, "FAIL"), title(case));
        for difference in &case.differences {
            out += &detail(difference, &style);
        }
        out.push('\n');
    }
    let passed = trial.cases.len() - failed.len();
    let expectations: usize = trial.cases.iter().map(|c| c.expectations).sum();
    out += &format!(
        "{}: {} passed, {} failed; {}\n",
        count(trial.cases.len(), "case", "cases"),
        passed,
        failed.len(),
        count(expectations, "expectation", "expectations"),
    );
    out
}

/// The requirements that no case ever made fail, one a line.
pub fn coverage_text(trial: &Trial) -> String {
    if trial.uncovered.is_empty() {
        return "Every requirement has a case that makes it fail.\n".to_owned();
    }
    let mut out = String::from("No case makes these requirements fail:\n");
    for gap in &trial.uncovered {
        let place = gap.source.as_deref().map(|at| format!("  {}:{}:{}", visible(&at.file), at.line, at.column));
        let class = if gap.class.is_empty() { String::new() } else { format!(" of class {}", visible(&gap.class)) };
        out += &format!("  {}: {}{class}{}\n", visible(&gap.policy), gap.rule, place.unwrap_or_default());
    }
    out
}

/// A suite for each document, a case for each case.
pub fn trial_junit(trial: &Trial) -> String {
    let mut xml = Xml::new(TOOL);
    for cases in trial.cases.chunk_by(|a, b| a.suite == b.suite) {
        let mut suite = TestSuite::new(visible(&cases[0].suite));
        for case in cases {
            let mut status = TestCaseStatus::success();
            if !case.passed() {
                let plain = Style::new(&Options { colour: false, ..Options::default() });
                let details: String = case.differences.iter().map(|d| detail(d, &plain)).collect();
                status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_type("expectation").set_message(
                    case.differences
                        .iter()
                        .map(|d| format!("{}: {}", d.step, visible(&d.subject)))
                        .collect::<Vec<_>>()
                        .join("; "),
                );
                status.set_description(details);
            }
            let mut xml_case = TestCase::new(visible(&case.name), status);
            xml_case.set_classname(visible(&case.policy));
            suite.add_test_case(xml_case);
        }
        xml.add_test_suite(suite);
    }
    // Written to memory out of strings that are XML already: there is nothing left that could fail.
    xml.to_string().unwrap_or_default()
}

fn title(case: &CaseResult) -> String {
    let place = case.source.as_deref().map(|at| format!("   {}:{}", visible(&at.file), at.line));
    format!("{}: {}{}", visible(&case.suite), visible(&case.name), place.unwrap_or_default())
}

/// What differs after one step, expected and actual one below the other.
fn detail(difference: &Difference, style: &Style) -> String {
    let line = difference.source.as_deref().map(|at| format!(" (line {})", at.line)).unwrap_or_default();
    let mut out =
        format!("  {} at {}, {}{line}\n", visible(&difference.step), difference.at, visible(&difference.subject));
    for line in &difference.lines {
        out += &format!("    {}\n", line.what);
        out += &format!("    {}\n", style.paint(Tone::Good, &format!("- expected {}", style.text(&line.expected))));
        out += &format!("    {}\n", style.paint(Tone::Bad, &format!("+ actual   {}", style.text(&line.actual))));
    }
    out
}
