//! `tidewaiter policy test`: runs the test documents beside policies and shows what differs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{ValueEnum, ValueHint};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::fail::Failure;
use super::policies;
use super::terminal::Terminal;
use crate::app::read_beside_policy;
use crate::document::{Fault, Source};
use crate::policy::trial::{self, CaseResult, Difference, Trial};
use crate::policy::{self, Document, PolicyLocation};
use crate::report::visible;

/// The exit code of cases that came out otherwise than expected.
const FAILED: u8 = 1;

/// Run the tests of policies; exit code 1 if one fails
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders with `kind: TagPolicyTest` documents; beside a file, the policies of its folder are read too
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Where the policies under test are, if not there; may be repeated
    #[arg(short, long = "policy", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    policies: Vec<PathBuf>,
    /// How the results are written
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Show which requirements no case ever made fail
    #[arg(long)]
    coverage: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Junit,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Result<u8, Failure> {
    let tests = documents(&policies::sources(&args.paths)?)?;
    if !tests.iter().any(|d| d.kind() == "TagPolicyTest") {
        return Err(
            Failure::say("there is no test in what was named").help("a test is a document of `kind: TagPolicyTest`")
        );
    }
    let mut places = args.policies.clone();
    if places.is_empty() {
        let folders: BTreeSet<&Path> = args.paths.iter().filter(|p| p.is_file()).filter_map(|p| p.parent()).collect();
        places.extend(
            folders.into_iter().map(|f| if f.as_os_str().is_empty() { PathBuf::from(".") } else { f.to_owned() }),
        );
    }
    let mut under_test = tests.clone();
    if !places.is_empty() {
        let known: BTreeSet<_> = tests.iter().map(|d| same(&d.source)).collect();
        let others = policies::sources(&places)?;
        under_test.extend(documents(&others.into_iter().filter(|s| !known.contains(&same(s))).collect::<Vec<_>>())?);
    }
    let trial = trial::run(&tests, &under_test, &read_beside_policy)?;
    match args.output {
        Form::Text => terminal.print(&text(&trial, args.coverage))?,
        Form::Junit => terminal.print(&junit(&trial))?,
    }
    Ok(if trial.passed() { 0 } else { FAILED })
}

/// What tells that two sources are one file, however they were named.
fn same(source: &Source) -> PathBuf {
    let path = PathBuf::from(&*source.name);
    path.canonicalize().unwrap_or(path)
}

fn documents(sources: &[Source]) -> Result<Vec<Document>, Failure> {
    let mut all = Vec::new();
    let mut faults: Vec<Fault> = Vec::new();
    for source in sources {
        match policy::documents(source) {
            Ok(documents) => all.extend(documents),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(all) } else { Err(faults.into()) }
}

fn place(location: Option<&PolicyLocation>) -> String {
    location.map(|at| format!("{}:{}:{}", visible(&at.file), at.line, at.column)).unwrap_or_default()
}

fn text(trial: &Trial, coverage: bool) -> String {
    let mut text = String::new();
    for case in trial.cases.iter().filter(|c| !c.passed()) {
        text += &format!("✗ {}: {}   {}\n", visible(&case.suite), visible(&case.name), place(case.source.as_deref()));
        for difference in &case.differences {
            text += &shown(difference, "    ");
        }
        text.push('\n');
    }
    if coverage && !trial.uncovered.is_empty() {
        text += "No case made these fail:\n";
        for uncovered in &trial.uncovered {
            let class = if uncovered.class.is_empty() {
                String::new()
            } else {
                format!("class {}, ", visible(&uncovered.class))
            };
            text += &format!(
                "  {}: {class}{}   {}\n",
                visible(&uncovered.policy),
                uncovered.rule,
                place(uncovered.source.as_deref())
            );
        }
        text.push('\n');
    }
    let failed = trial.cases.iter().filter(|c| !c.passed()).count();
    let passed = trial.cases.len() - failed;
    let expectations: usize = trial.cases.iter().map(|c| c.expectations).sum();
    text += &format!("{} cases, {expectations} expectations: ", trial.cases.len());
    text += &match failed {
        0 => "all pass\n".to_owned(),
        n => format!("{n} failed, {passed} passed\n"),
    };
    if coverage && trial.uncovered.is_empty() {
        text += "every requirement was made to fail by a case\n";
    }
    text
}

fn shown(difference: &Difference, indent: &str) -> String {
    let mut text = format!(
        "{indent}{} after {}, at {}   {}\n",
        visible(&difference.subject),
        visible(&difference.step),
        difference.at,
        place(difference.source.as_deref())
    );
    for line in &difference.lines {
        text += &format!("{indent}  {:<16}expected  {}\n", visible(&line.what), visible(&line.expected));
        text += &format!("{indent}  {:<16}but was   {}\n", "", visible(&line.actual));
    }
    text
}

fn junit(trial: &Trial) -> String {
    let mut xml = Report::new("tidewaiter policy test");
    let mut suites: Vec<(&str, Vec<&CaseResult>)> = Vec::new();
    for case in &trial.cases {
        match suites.iter_mut().find(|(name, _)| **name == *case.suite) {
            Some((_, cases)) => cases.push(case),
            None => suites.push((&case.suite, vec![case])),
        }
    }
    for (name, cases) in suites {
        let mut suite = TestSuite::new(visible(name));
        for case in cases {
            let status = if case.passed() {
                TestCaseStatus::success()
            } else {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                let details: String = case.differences.iter().map(|d| shown(d, "")).collect();
                let n = case.differences.len();
                status
                    .set_message(format!("{n} {} not met", if n == 1 { "expectation is" } else { "expectations are" }));
                status.set_description(details);
                status
            };
            let mut test = TestCase::new(visible(&case.name), status);
            test.set_classname(visible(&case.policy));
            suite.add_test_case(test);
        }
        xml.add_test_suite(suite);
    }
    xml.to_string().unwrap_or_default()
}
