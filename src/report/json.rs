//! The report as JSON: the shape of the published surface, additive within `v1`.
//!
//! Keys stand in the published order. Characters that hide are written as `\u` escapes, which every reader
//! turns back, so that a terminal shows what is there (T-61).

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::{Map, Value, json};

use super::visible::hides;
use super::{Report, docs_url};
use crate::policy::{Finding, PolicyLocation, Verdict};

/// The whole report as one document.
pub fn report_json(report: &Report) -> Value {
    let summary = report.summary();
    let mut object = Map::new();
    object.insert("apiVersion".into(), json!("tidewaiter.dev/v1"));
    object.insert("kind".into(), json!("Report"));
    object.insert(
        "summary".into(),
        json!({
            "pass": summary.pass, "violation": summary.violation, "pending": summary.pending,
            "error": summary.error, "ignored": summary.ignored,
        }),
    );
    object.insert("verdicts".into(), report.verdicts.iter().map(verdict_json).collect());
    if !report.problems.is_empty() {
        let problems = report.problems.iter().map(|p| json!({"target": p.target, "message": p.message})).collect();
        object.insert("problems".into(), problems);
    }
    if !report.ungoverned.is_empty() {
        object.insert("ungoverned".into(), report.ungoverned.iter().map(|r| json!(r.to_string())).collect());
    }
    Value::Object(object)
}

/// One verdict, as in the report, the store and the admin API.
pub fn verdict_json(verdict: &Verdict) -> Value {
    let subject = &verdict.subject;
    let mut object = Map::new();
    object.insert(
        "image".into(),
        json!({
            "registry": verdict.repository.host.as_str(),
            "repository": verdict.repository.name.as_str(),
            "tag": subject.tag.as_ref().map(|t| t.as_str()),
            "digest": subject.digest.as_ref().map(|d| d.as_str()),
            "kind": subject.kind.map(|k| k.as_str()),
            "platforms": subject.platforms.iter().map(|p| p.to_string()).collect::<Vec<_>>(),
        }),
    );
    object.insert("policy".into(), json!(&*verdict.policy));
    object.insert("policyHash".into(), json!(&*verdict.policy_hash));
    object.insert("class".into(), json!(verdict.class.as_deref()));
    if let Some(version) = &verdict.at_version {
        object.insert("atVersion".into(), json!(version.as_str()));
    }
    object.insert("outcome".into(), json!(verdict.outcome.as_str()));
    object.insert("origin".into(), json!(verdict.origin.as_str()));
    object.insert("judgedAt".into(), json!(verdict.judged_at.to_string()));
    if verdict.preview {
        object.insert("preview".into(), json!(true));
    }
    object.insert("findings".into(), verdict.findings.iter().map(finding_json).collect());
    let not_evaluated = verdict.not_evaluated.iter().map(|n| json!({"requirement": n.rule.as_str(), "why": n.why}));
    object.insert("notEvaluated".into(), not_evaluated.collect());
    Value::Object(object)
}

/// One finding of a verdict.
pub fn finding_json(finding: &Finding) -> Value {
    let mut object = Map::new();
    object.insert("requirement".into(), json!(finding.rule.as_str()));
    object.insert("reason".into(), json!(finding.reason.as_str()));
    object.insert("severity".into(), json!(finding.severity.as_str()));
    object.insert("state".into(), json!(state_word(finding)));
    object.insert("message".into(), json!(finding.message));
    object.insert("expected".into(), json!(finding.expected));
    object.insert("actual".into(), json!(finding.actual));
    object.insert("since".into(), json!(finding.since.to_string()));
    object.insert("advice".into(), json!(finding.advice));
    object.insert("docs".into(), json!(docs_url(finding.reason)));
    if let Some(note) = &finding.note {
        object.insert("note".into(), json!(&**note));
    }
    if let Some(PolicyLocation { file, line, column }) = finding.source.as_deref() {
        object.insert("source".into(), json!({"file": &**file, "line": line, "column": column}));
    }
    Value::Object(object)
}

/// The hash of the policy by which a recorded verdict ([`verdict_line`]) is a pass, or asks nothing; `None` for any
/// other.
pub fn passed_by(line: &str) -> Option<String> {
    let verdict: Value = serde_json::from_str(line).ok()?;
    let passes = matches!(verdict["outcome"].as_str(), Some("pass" | "ignored"));
    verdict["policyHash"].as_str().filter(|_| passes).map(str::to_owned)
}

/// One verdict on one line, without a line break.
pub fn verdict_line(verdict: &Verdict) -> String {
    write(&verdict_json(verdict), CompactFormatter)
}

pub(super) fn render(report: &Report) -> String {
    pretty(&report_json(report)) + "\n"
}

/// One verdict per line; a problem, which has no verdict, is a line of its own.
pub(super) fn render_lines(report: &Report) -> String {
    let verdicts = report.verdicts.iter().map(verdict_line);
    let problems = report.problems.iter().map(|p| {
        write(&json!({"problem": {"target": p.target, "message": p.message}, "outcome": "error"}), CompactFormatter)
    });
    verdicts.chain(problems).map(|line| line + "\n").collect()
}

/// The value, indented, with what hides escaped.
pub(super) fn pretty(value: &Value) -> String {
    write(value, PrettyFormatter::new())
}

fn write(value: &Value, inner: impl Formatter) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Escaping { inner });
    // Writing a `Value` to memory cannot fail: its keys are strings and its numbers are finite.
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => value.to_string(),
    }
}

/// A formatter that also escapes what JSON lets through unescaped and a terminal does not show.
struct Escaping<F> {
    inner: F,
}

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| hides(*c)) {
            self.inner.write_string_fragment(writer, &rest[..at])?;
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        self.inner.write_string_fragment(writer, rest)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_value(writer)
    }
}

/// Where a finding stands: what could not be determined neither fires nor waits.
pub(super) fn state_word(finding: &Finding) -> &'static str {
    if finding.is_error() { "undetermined" } else { finding.state.as_str() }
}
