//! Test documents as checked: every name known, every time later than the one before, every policy compiled.
//! Nothing is judged before all of this holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{Timestamp, civil};

use super::super::compile::{ReadFile, compile, location, strings, text};
use super::super::load::{Document, inner};
use super::super::reason::Reason;
use super::super::set::PolicySet;
use super::super::verdict::{Outcome, PolicyLocation, Rule, Severity};
use super::manifests::{Catalogue, build};
use crate::document::{Fault, Node, Source, duration};
use crate::image::{Repository, Tag};

/// The beginning of every case that does not say another.
const START: &str = "2026-01-01T00:00:00Z";

/// One test document.
pub(super) struct Suite {
    pub name: Arc<str>,
    pub policy: Arc<str>,
    pub repository: Repository,
    pub catalogue: Arc<Catalogue>,
    pub cases: Vec<Case>,
}

/// One case.
pub(super) struct Case {
    pub name: String,
    pub source: Option<Arc<PolicyLocation>>,
    pub existing: Vec<(Tag, String)>,
    pub recorded: bool,
    pub start: Timestamp,
    /// The policies in force at its beginning.
    pub policies: Arc<PolicySet>,
    /// Whether its registry has write locks.
    pub has_locks: bool,
    pub steps: Vec<Step>,
}

/// One thing that happens.
pub(super) struct Step {
    pub title: String,
    pub at: Timestamp,
    /// The policies in force from now on, where they change.
    pub apply: Option<Arc<PolicySet>>,
    pub registry: Vec<(String, Health)>,
    pub untag: Vec<Tag>,
    pub delete: Vec<String>,
    pub push: Vec<(Tag, String)>,
    pub push_by_digest: Vec<String>,
    pub lock: Vec<Tag>,
    pub unlock: Vec<Tag>,
    pub silently: bool,
    pub times: u64,
    pub report: Option<Report>,
    pub accept: Vec<(Tag, String)>,
    pub audit: bool,
    pub expect: Vec<Expectation>,
}

/// An event without a change of the registry.
pub(super) struct Report {
    pub push: Vec<(Tag, String)>,
    pub delete: Vec<String>,
    pub untag: Vec<Tag>,
    pub happened: Timestamp,
}

/// How the registry answers for a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    Fine,
    NotFound,
    Corrupt,
    Failing(String),
}

/// What is expected of a tag or a class.
pub(super) struct Expectation {
    pub subject: Subject,
    pub source: Option<Arc<PolicyLocation>>,
    pub class: Option<String>,
    pub outcome: Option<Outcome>,
    /// Requirements by name; `None` where only the outcome was written.
    pub findings: Option<Vec<(Rule, Wanted)>>,
}

/// What an expectation speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Tag(Tag),
    Class(Arc<str>),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Tag(tag) => tag.fmt(f),
            Subject::Class(class) => write!(f, "class:{class}"),
        }
    }
}

/// What is expected of one requirement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub state: String,
    pub reason: Option<Reason>,
    pub severity: Option<Severity>,
    pub message: Option<String>,
    pub expected: Option<Vec<String>>,
    pub actual: Option<Vec<String>>,
}

/// Reads all test documents against the policies given with them.
///
/// # Errors
/// Every fault of every document.
pub(super) fn suites(
    tests: &[Document],
    documents: &[Document],
    read_file: ReadFile<'_>,
) -> Result<Vec<Suite>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut suites = Vec::new();
    // Faults of the policies themselves are told once, whatever the tests.
    let all = compile(documents, read_file)?;
    for test in tests.iter().filter(|d| d.kind() == "TagPolicyTest") {
        let mut reader = Reader { source: &test.source, documents, read_file, faults: Vec::new() };
        let suite = reader.suite(test, &all);
        faults.append(&mut reader.faults);
        suites.extend(suite);
    }
    if faults.is_empty() { Ok(suites) } else { Err(faults) }
}

struct Reader<'a> {
    source: &'a Source,
    documents: &'a [Document],
    read_file: ReadFile<'a>,
    faults: Vec<Fault>,
}

/// What a case may name.
struct Names<'a> {
    catalogue: &'a Catalogue,
    policy: &'a str,
}

impl Reader<'_> {
    fn fault(&mut self, node: &Node, code: &'static str, message: String, label: impl Into<String>) {
        self.faults.push(Fault::error(self.source, node.span, code, message).label(label));
    }

    fn suite(&mut self, test: &Document, all: &PolicySet) -> Option<Suite> {
        let spec = test.node.get("spec")?;
        let written = spec.get("repository")?;
        let repository: Repository = match text(Some(written)).parse() {
            Ok(repository) => repository,
            Err(error) => {
                self.fault(written, "invalid-repository", format!("{error}"), "not a repository");
                return None;
            }
        };
        let policy = self.policy(spec, written, &repository, all)?;
        let catalogue = match build(self.source, spec.get("manifests")) {
            Ok(catalogue) => Arc::new(catalogue),
            Err(mut faults) => {
                self.faults.append(&mut faults);
                return None;
            }
        };
        let start = spec.get("start").map_or_else(|| START.parse().ok(), |n| self.absolute(n))?;
        let names = Names { catalogue: &catalogue, policy: &policy };
        let cases = spec.get("cases").map(Node::items).unwrap_or_default();
        let cases = cases.iter().filter_map(|node| self.case(node, start, &names)).collect();
        Some(Suite { name: test.name().into(), policy, repository, catalogue, cases })
    }

    /// The policy under test: the one named, or the only one that governs the repository.
    fn policy(&mut self, spec: &Node, written: &Node, repository: &Repository, all: &PolicySet) -> Option<Arc<str>> {
        let governing: Vec<Arc<str>> = all.governing(repository).iter().map(|p| p.name.clone()).collect();
        let Some(named) = spec.get("policy") else {
            return match governing.as_slice() {
                [one] => Some(one.clone()),
                [] => {
                    self.fault(
                        written,
                        "ungoverned-repository",
                        format!("no policy governs `{repository}`"),
                        "give the policy under test beside its tests",
                    );
                    None
                }
                many => {
                    self.fault(
                        written,
                        "ambiguous-policy",
                        format!("{} policies govern `{repository}`", many.len()),
                        format!("say which in `policy`: {}", many.join(", ")),
                    );
                    None
                }
            };
        };
        let name = text(Some(named));
        if let Some(found) = governing.iter().find(|p| ***p == *name) {
            return Some(found.clone());
        }
        if all.policies().iter().any(|p| *p.name == *name) {
            let message = format!("the policy `{name}` does not govern `{repository}`");
            self.fault(written, "ungoverned-repository", message, "outside its `repositories`");
        } else {
            let names: Vec<&str> = all.policies().iter().map(|p| &*p.name).collect();
            let label = format!("the policies given are {}", names.join(", "));
            self.fault(named, "unknown-policy", format!("there is no policy `{name}` among the files given"), label);
        }
        None
    }

    fn absolute(&mut self, node: &Node) -> Option<Timestamp> {
        let written = text(Some(node));
        let midnight = || {
            let day: civil::Date = written.parse().ok()?;
            Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        };
        let parsed = if written.contains('T') { written.parse().ok() } else { midnight() };
        if parsed.is_none() {
            self.fault(node, "invalid-time", format!("`{written}` is no time"), "write 2026-01-31T10:00:00Z");
        }
        parsed
    }

    /// An absolute time, or one that is so much after another.
    fn moment(&mut self, node: &Node, base: Timestamp) -> Option<Timestamp> {
        let Some(after) = text(Some(node)).strip_prefix('+') else { return self.absolute(node) };
        match duration(after).ok().and_then(|d| base.checked_add(d).ok()) {
            Some(time) => Some(time),
            None => {
                self.fault(node, "invalid-time", format!("`+{after}` is no time"), "write +15m or +1h30m");
                None
            }
        }
    }

    /// The documents with some of them replaced, compiled: only the policy under test is in force.
    fn compiled(&mut self, policy: &str, replacing: &[Document]) -> Option<Arc<PolicySet>> {
        let replaced = |d: &Document| replacing.iter().any(|r| r.kind() == d.kind() && r.name() == d.name());
        let wanted = |d: &&Document| d.kind() == "PlatformSet" || (d.kind() == "TagPolicy" && d.name() == policy);
        let documents: Vec<Document> =
            self.documents.iter().filter(|d| !replaced(d)).chain(replacing).filter(wanted).cloned().collect();
        match compile(&documents, self.read_file) {
            Ok(set) => Some(Arc::new(set)),
            Err(mut faults) => {
                self.faults.append(&mut faults);
                None
            }
        }
    }

    fn case(&mut self, node: &Node, start: Timestamp, names: &Names<'_>) -> Option<Case> {
        let start = node.get("start").map_or(Some(start), |n| self.moment(n, start))?;
        let existing = self.tag_map(node.get("existing"), names);
        let mut known: BTreeSet<Tag> = existing.iter().map(|(tag, _)| tag.clone()).collect();
        let mut policies = self.compiled(names.policy, &[])?;
        let first = policies.clone();
        let mut applied: Vec<Document> = Vec::new();
        let mut at = start;
        let mut steps = Vec::new();
        for (n, step) in node.get("steps").map(Node::items).unwrap_or_default().iter().enumerate() {
            let next = match step.get("at") {
                Some(written) => self.moment(written, at)?,
                // The first step is the beginning; every further one comes a second later.
                None if n == 0 => at,
                None => at.checked_add(jiff::SignedDuration::from_secs(1)).unwrap_or(at),
            };
            if next < at {
                let written = step.get("at").unwrap_or(step);
                self.fault(
                    written,
                    "time-runs-back",
                    format!("{next} is before {at}, the time of the step before"),
                    "a step comes after the one before",
                );
            }
            at = next.max(at);
            let mut apply = None;
            for document in step.get("apply").map(Node::items).unwrap_or_default() {
                match inner(self.source, document) {
                    Ok(document) if matches!(document.kind(), "TagPolicy" | "PlatformSet") => {
                        applied.retain(|d| d.kind() != document.kind() || d.name() != document.name());
                        applied.push(document);
                    }
                    Ok(_) => self.fault(
                        document,
                        "unexpected-document",
                        "only a TagPolicy or a PlatformSet can be applied".into(),
                        "not a policy",
                    ),
                    Err(mut faults) => self.faults.append(&mut faults),
                }
                apply = Some(());
            }
            if apply.is_some() {
                policies = self.compiled(names.policy, &applied)?;
            }
            steps.push(self.step(
                step,
                n,
                start,
                at,
                apply.map(|()| policies.clone()),
                names,
                &mut known,
                &policies,
            )?);
        }
        let has_locks = steps.iter().any(|s| !s.lock.is_empty() || !s.unlock.is_empty());
        Some(Case {
            name: text(node.get("name")).to_owned(),
            source: location(self.source, node.get("name").map_or(node.span, |n| n.span)),
            existing,
            recorded: node.get("record").and_then(Node::as_bool).unwrap_or(true),
            start,
            policies: first,
            has_locks,
            steps,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one step read out of what surrounds it, in one place")]
    fn step(
        &mut self,
        node: &Node,
        n: usize,
        start: Timestamp,
        at: Timestamp,
        apply: Option<Arc<PolicySet>>,
        names: &Names<'_>,
        known: &mut BTreeSet<Tag>,
        policies: &PolicySet,
    ) -> Option<Step> {
        let title = match node.get("name") {
            Some(name) => format!("step {} ({})", n + 1, text(Some(name))),
            None => format!("step {}", n + 1),
        };
        let mut registry = Vec::new();
        for (key, value) in node.get("registry").map(Node::entries).unwrap_or_default() {
            if &*key.text != "*" && !names.catalogue.names.contains_key(&*key.text) {
                let label = "add it to `manifests`";
                let fault = Fault::error(
                    self.source,
                    key.span,
                    "unknown-manifest",
                    format!("there is no manifest `{}`", key.text),
                );
                self.faults.push(fault.label(label));
            }
            let health = match text(Some(value)) {
                "ok" => Health::Fine,
                "404" => Health::NotFound,
                "corrupt" => Health::Corrupt,
                "timeout" => Health::Failing("the registry did not answer in time".into()),
                status => Health::Failing(format!("the registry answered with status {status}")),
            };
            registry.push((key.text.to_string(), health));
        }
        let push = self.tag_map(node.get("push"), names);
        let report = node.get("report").map(|report| Report {
            push: self.tag_map(report.get("push"), names),
            delete: self.manifest_list(report.get("delete"), names),
            untag: self.tags(report.get("untag")),
            happened: report.get("happened").and_then(|n| self.moment(n, start)).unwrap_or(at),
        });
        known.extend(push.iter().map(|(tag, _)| tag.clone()));
        known.extend(report.iter().flat_map(|r| &r.push).map(|(tag, _)| tag.clone()));
        for pointer in ["/untag", "/lock", "/unlock", "/report/untag"] {
            for written in strings(node.at(pointer)) {
                self.must_be_known(written, text(Some(written)), known);
            }
        }
        for (key, _) in node.get("accept").map(Node::entries).unwrap_or_default() {
            self.must_be_known(&Node::new(key.span, crate::document::Value::Null), &key.text, known);
        }
        let mut expect = Vec::new();
        for (key, value) in node.get("expect").map(Node::entries).unwrap_or_default() {
            let at_key = Node::new(key.span, crate::document::Value::Null);
            let subject = match key.text.strip_prefix("class:") {
                Some(class) => {
                    let expecting = |p: &Arc<super::super::set::Policy>| {
                        p.classes.iter().any(|c| *c.name == *class && c.expected.is_some())
                    };
                    if !policies.policies().iter().any(expecting) {
                        let message = format!("the policy has no class `{class}` that is `expected`");
                        self.fault(&at_key, "unknown-class", message, "nothing is judged of it");
                    }
                    Subject::Class(class.into())
                }
                None => {
                    self.must_be_known(&at_key, &key.text, known);
                    let Ok(tag) = key.text.parse() else { continue };
                    Subject::Tag(tag)
                }
            };
            expect.push(self.expectation(subject, &at_key, value, policies));
        }
        Some(Step {
            title,
            at,
            apply,
            registry,
            untag: self.tags(node.get("untag")),
            delete: self.manifest_list(node.get("delete"), names),
            push,
            push_by_digest: self.manifest_list(node.get("pushByDigest"), names),
            lock: self.tags(node.get("lock")),
            unlock: self.tags(node.get("unlock")),
            silently: node.get("silently").and_then(Node::as_bool).unwrap_or(false),
            times: node.get("times").and_then(Node::as_u64).unwrap_or(1),
            report,
            accept: self.tag_map(node.get("accept"), names),
            audit: node.get("audit").is_some(),
            expect,
        })
    }

    fn must_be_known(&mut self, node: &Node, tag: &str, known: &BTreeSet<Tag>) {
        if !tag.parse::<Tag>().is_ok_and(|t| known.contains(&t)) {
            let message = format!("no step up to here has pushed the tag `{tag}`");
            self.fault(node, "unknown-tag", message, "a slip of the keyboard?");
        }
    }

    fn tags(&mut self, node: Option<&Node>) -> Vec<Tag> {
        strings(node).into_iter().filter_map(|n| text(Some(n)).parse().ok()).collect()
    }

    fn tag_map(&mut self, node: Option<&Node>, names: &Names<'_>) -> Vec<(Tag, String)> {
        let mut out = Vec::new();
        for (key, value) in node.map(Node::entries).unwrap_or_default() {
            self.manifest(value, names);
            match key.text.parse() {
                Ok(tag) => out.push((tag, text(Some(value)).to_owned())),
                Err(error) => {
                    self.faults.push(Fault::error(self.source, key.span, "invalid-tag", format!("{error}")));
                }
            }
        }
        out
    }

    fn manifest_list(&mut self, node: Option<&Node>, names: &Names<'_>) -> Vec<String> {
        let items = strings(node);
        items.iter().for_each(|n| self.manifest(n, names));
        items.into_iter().map(|n| text(Some(n)).to_owned()).collect()
    }

    fn manifest(&mut self, node: &Node, names: &Names<'_>) {
        let name = text(Some(node));
        if !names.catalogue.names.contains_key(name) {
            self.fault(node, "unknown-manifest", format!("there is no manifest `{name}`"), "add it to `manifests`");
        }
    }

    fn expectation(&mut self, subject: Subject, key: &Node, node: &Node, policies: &PolicySet) -> Expectation {
        let source = location(self.source, key.span);
        if let Some(word) = node.as_str() {
            return Expectation { subject, source, class: None, outcome: Outcome::from_word(word), findings: None };
        }
        let class = node.get("class").map(|n| text(Some(n)).to_owned());
        if let (Some(name), Some(written)) = (&class, node.get("class"))
            && !policies.policies().iter().flat_map(|p| &p.classes).any(|c| *c.name == **name)
        {
            self.fault(written, "unknown-class", format!("the policy has no class `{name}`"), "no class of the policy");
        }
        let mut findings = Vec::new();
        for (key, value) in node.entries() {
            let Some(rule) = Rule::from_word(&key.text) else { continue };
            let list = |name: &str| {
                value.get(name).map(|n| {
                    let mut items: Vec<String> =
                        strings(Some(n)).into_iter().map(|n| text(Some(n)).to_owned()).collect();
                    items.sort();
                    items
                })
            };
            let reason = value.get("reason").and_then(|n| {
                let reason = Reason::from_code(text(Some(n)));
                if reason.is_none() {
                    let message = format!("there is no reason `{}`", text(Some(n)));
                    self.fault(n, "unknown-reason", message, "`tidewaiter policy explain` lists them");
                }
                reason
            });
            findings.push((
                rule,
                Wanted {
                    state: value.as_str().unwrap_or_else(|| text(value.get("state"))).to_owned(),
                    reason,
                    severity: value.get("severity").and_then(Node::as_str).and_then(Severity::from_word),
                    message: value.get("message").and_then(Node::as_str).map(str::to_owned),
                    expected: list("expected"),
                    actual: list("actual"),
                },
            ));
        }
        let outcome = node.get("outcome").and_then(Node::as_str).and_then(Outcome::from_word);
        Expectation { subject, source, class, outcome, findings: Some(findings) }
    }
}
