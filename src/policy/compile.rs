//! From documents as written to policies as checked: all faults at once, each with its place.
//!
//! The JSON Schema has already been applied and has told what is wrong with the shape; what is checked is meaning:
//! forms, globs, platforms, classes named by relations, dates, expressions.

mod require;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, civil};
use sha2::{Digest as _, Sha256};

use super::form::Form;
use super::load::Document;
use super::scope::{Glob, Scope, TagGlob};
use super::set::{Class, Exception, Line, Mode, PlatformSet, Policy, PolicySet, Requirements, Revision, Setting};
use super::verdict::{PolicyLocation, Rule, Severity};
use crate::document::{Fault, Node, Source, Span, duration};
use crate::image::PlatformRequirement;

/// Most classes of one policy: a table that somebody can read has a dozen.
const CLASSES_MAX: usize = 200;

/// Reads a file that a policy names by `file:`, for its JSON Schemas.
pub type ReadFile<'a> = &'a dyn Fn(&Source, &str) -> Result<String, String>;

/// Makes the policies out of all documents; test documents are passed over.
///
/// # Errors
/// Every fault of every document.
pub fn compile(documents: &[Document], read_file: ReadFile<'_>) -> Result<PolicySet, Vec<Fault>> {
    compile_with(documents, read_file, Doubts::default())
}

/// What may be there in documents that could not be read, or have faults of shape: it is not said to be missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doubts {
    /// Platform sets.
    pub sets: bool,
}

/// The same for documents that may have faults of shape, which are told already.
pub(super) fn compile_with(
    documents: &[Document],
    read_file: ReadFile<'_>,
    doubts: Doubts,
) -> Result<PolicySet, Vec<Fault>> {
    let mut compiler = Compiler { faults: Vec::new(), sets: BTreeMap::new(), read_file, doubts };
    for document in documents.iter().filter(|d| d.kind() == "PlatformSet") {
        compiler.platform_set(document);
    }
    let mut policies: Vec<Policy> = Vec::new();
    let mut places: BTreeMap<&str, &Document> = BTreeMap::new();
    for document in documents.iter().filter(|d| d.kind() == "TagPolicy") {
        // A name that is missing is told already.
        if let Some(first) = places.get(document.name()).filter(|_| !document.name().is_empty()) {
            let span = document.node.at("/metadata/name").map_or(document.node.span, |n| n.span);
            let position = first.source.position(first.node.at("/metadata/name").map_or(0, |n| n.span.start));
            compiler.faults.push(
                Fault::error(
                    &document.source,
                    span,
                    "duplicate-policy",
                    format!("two policies are named `{}`", document.name()),
                )
                .label("second policy of this name")
                .help(format!("the first is in {}:{}:{}", first.source.name, position.line, position.column)),
            );
            continue;
        }
        places.insert(document.name(), document);
        policies.extend(compiler.policy(document));
    }
    if compiler.faults.is_empty() { Ok(PolicySet::new(policies)) } else { Err(compiler.faults) }
}

struct Compiler<'a> {
    faults: Vec<Fault>,
    sets: BTreeMap<String, (Arc<PlatformSet>, String)>,
    read_file: ReadFile<'a>,
    doubts: Doubts,
}

/// What a policy says before its relations are resolved.
struct Context<'a> {
    source: &'a Source,
    severity: Severity,
    classes: &'a [Class],
    identities: &'a [String],
    lines: Vec<Line>,
    sets_used: Vec<String>,
    /// The schemas of files that were read, whose content is part of what the policy says.
    files: Vec<String>,
}

pub(super) fn location(source: &Source, span: Span) -> Option<Arc<PolicyLocation>> {
    let position = source.position(span.start);
    Some(Arc::new(PolicyLocation { file: source.name.clone(), line: position.line, column: position.column }))
}

pub(super) fn text(node: Option<&Node>) -> &str {
    node.and_then(Node::as_str).unwrap_or_default()
}

pub(super) fn strings(node: Option<&Node>) -> Vec<&Node> {
    match node {
        Some(node) if node.as_str().is_some() => vec![node],
        Some(node) => node.items().iter().collect(),
        None => Vec::new(),
    }
}

/// Stands for a setting that is not written: every default applies.
fn unwritten() -> &'static Node {
    static NOTHING: Node = Node { span: Span { start: 0, end: 0 }, value: crate::document::Value::Null, written: None };
    &NOTHING
}

/// A requirement that is written short as `false` is not asked for.
fn asked(node: Option<&Node>) -> Option<&Node> {
    node.filter(|n| n.as_bool() != Some(false))
}

impl Compiler<'_> {
    fn fault(
        &mut self,
        source: &Source,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Fault {
        self.faults.push(Fault::error(source, span, code, message).label(label));
        let last = self.faults.len() - 1;
        &mut self.faults[last]
    }

    fn platform_set(&mut self, document: &Document) {
        let name = document.name().to_owned();
        let mut revisions = Vec::new();
        for revision in document.node.at("/spec/revisions").map(Node::items).unwrap_or_default() {
            let platforms = self.platforms(&document.source, revision.get("platforms"));
            let from = revision.get("from").and_then(|n| self.date(&document.source, n));
            revisions.push(Revision { from, platforms });
        }
        revisions.sort_by_key(|r| r.from);
        if let Some(pair) = revisions.windows(2).find(|w| w[0].from == w[1].from) {
            let from = pair[0].from.map(|d| d.to_string()).unwrap_or_default();
            let span = document.node.at("/spec/revisions").map_or(document.node.span, |n| n.span);
            self.fault(
                &document.source,
                span,
                "duplicate-revision",
                format!("two revisions hold from {from}"),
                "give each its own date",
            );
        }
        let json = document.node.at("/spec").map(Node::to_json).unwrap_or_default().to_string();
        // Files that shall stand alone may each bring the set along; only two that differ are a fault.
        if !name.is_empty() && self.sets.get(&name).is_some_and(|(_, known)| *known != json) {
            let span = document.node.at("/metadata/name").map_or(document.node.span, |n| n.span);
            self.fault(
                &document.source,
                span,
                "duplicate-platform-set",
                format!("two platform sets are named `{name}` and differ"),
                "second set of this name",
            );
        }
        if !revisions.is_empty() {
            let set = PlatformSet { name: Some(name.as_str().into()), revisions };
            self.sets.insert(name, (Arc::new(set), json));
        }
    }

    fn platforms(&mut self, source: &Source, node: Option<&Node>) -> Vec<PlatformRequirement> {
        let mut platforms: Vec<PlatformRequirement> = Vec::new();
        for item in node.map(Node::items).unwrap_or_default() {
            match text(Some(item)).parse::<PlatformRequirement>() {
                Ok(platform) if platforms.contains(&platform) => {
                    self.fault(
                        source,
                        item.span,
                        "duplicate-platform",
                        format!("`{platform}` is listed twice"),
                        "remove one of them",
                    );
                }
                Ok(platform) if !platform.platform().is_selectable() => {
                    let near = platform.platform().nearest_built_for();
                    let label = near.map_or_else(
                        || "use Go's names, as in `linux/arm/v7`".to_owned(),
                        |near| format!("did you mean `{near}`?"),
                    );
                    let message = format!("no runtime looks for `{platform}`");
                    self.fault(source, item.span, "invalid-platform", message, label);
                }
                Ok(platform) => platforms.push(platform),
                Err(error) => {
                    self.fault(source, item.span, "invalid-platform", error.to_string(), "not a platform");
                }
            }
        }
        platforms
    }

    fn date(&mut self, source: &Source, node: &Node) -> Option<civil::Date> {
        match text(Some(node)).parse() {
            Ok(date) => Some(date),
            Err(_) => {
                self.fault(
                    source,
                    node.span,
                    "invalid-date",
                    format!("`{}` is not a date", text(Some(node))),
                    "write YYYY-MM-DD",
                );
                None
            }
        }
    }

    fn wait(&mut self, source: &Source, node: Option<&Node>) -> SignedDuration {
        let Some(node) = node else { return SignedDuration::ZERO };
        match duration(text(Some(node))) {
            Ok(duration) => SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX),
            Err(error) => {
                self.fault(source, node.span, "invalid-duration", error.to_string(), "not a duration");
                SignedDuration::ZERO
            }
        }
    }

    fn setting(&mut self, source: &Source, severity: Severity, span: Span, node: &Node) -> Setting {
        Setting {
            severity: node.get("severity").and_then(Node::as_str).and_then(Severity::from_word).unwrap_or(severity),
            wait: self.wait(source, node.get("for")),
            note: node.get("note").and_then(Node::as_str).map(Into::into),
            enforce: strings(node.get("enforce")).into_iter().filter_map(Node::as_str).map(Into::into).collect(),
            source: location(source, span),
        }
    }

    fn scope(&mut self, source: &Source, nodes: &[&Node]) -> Scope {
        let mut entries = Vec::new();
        for node in nodes {
            let written = text(Some(node));
            let (includes, glob) = match written.strip_prefix('!') {
                Some(glob) => (false, glob),
                None => (true, written),
            };
            match Glob::parse(glob) {
                Ok(glob) => entries.push((includes, glob)),
                Err(error) => {
                    self.fault(source, node.span, "invalid-glob", error.to_string(), "matches nothing");
                }
            }
        }
        Scope::new(entries)
    }

    fn policy(&mut self, document: &Document) -> Option<Policy> {
        let source = &document.source;
        let spec = document.node.get("spec")?;
        let before = self.faults.len();
        let severity =
            spec.get("severity").and_then(Node::as_str).and_then(Severity::from_word).unwrap_or(Severity::Critical);
        let mode = match text(spec.get("mode")) {
            "preview" => Mode::Preview,
            "enforce" => Mode::Enforce,
            _ => Mode::Alert,
        };
        let scope = self.scope(source, &strings(spec.get("repositories")));
        let class_nodes = spec.get("classes").map(Node::items).unwrap_or_default();
        if class_nodes.len() > CLASSES_MAX {
            let span = spec.entry("classes").map_or(spec.span, |(k, _)| k.span);
            self.fault(
                source,
                span,
                "too-many-classes",
                format!("the policy has {} classes, at most {CLASSES_MAX} are allowed", class_nodes.len()),
                "one form can list alternatives",
            );
            return None;
        }
        let mut classes: Vec<Class> = Vec::with_capacity(class_nodes.len());
        for node in class_nodes {
            let name = text(node.get("name"));
            let before = class_nodes.iter().take(classes.len()).filter(|_| !name.is_empty());
            if let Some(first) = before.into_iter().find(|c| text(c.get("name")) == name) {
                let also = first.get("name").map_or(first.span, |n| n.span);
                let span = node.get("name").map_or(node.span, |n| n.span);
                let fault = self.fault(
                    source,
                    span,
                    "duplicate-class",
                    format!("two classes are named `{name}`"),
                    "second class of this name",
                );
                fault.also.push((also, "first".into()));
                fault.help = Some("`follows` and `memberOf` name a class, so names must differ".into());
            }
            let forms = self.forms(source, node);
            let expected = asked(node.get("expected")).map(|e| self.setting(source, severity, e.span, e));
            classes.push(Class {
                name: name.into(),
                forms,
                expected,
                require: Requirements::default(),
                source: location(source, node.get("name").map_or(node.span, |n| n.span)),
                is_followed: false,
            });
        }
        let identities = identities(&classes, class_nodes);
        let mut context = Context {
            source,
            severity,
            classes: &classes,
            identities: &identities,
            lines: Vec::new(),
            sets_used: Vec::new(),
            files: Vec::new(),
        };
        let required: Vec<Requirements> = class_nodes
            .iter()
            .enumerate()
            .map(|(n, node)| self.requirements(&mut context, n, node.get("require")))
            .collect();
        // `expected` looks for any tag of the class.
        for (n, class) in classes.iter().enumerate() {
            if class.expected.is_some() {
                add_line(&mut context.lines, n, &context.identities[n], None, Vec::new());
            }
        }
        let Context { lines, sets_used, files, .. } = context;
        let followed: Vec<usize> =
            required.iter().filter_map(|r| r.follows.as_ref().map(|(_, f)| f.target.class)).collect();
        for (n, (class, require)) in classes.iter_mut().zip(required).enumerate() {
            class.require = require;
            class.is_followed = followed.contains(&n);
        }
        let mut lines = lines;
        // Followers as a whole, and what they follow: concerned when there is nothing to follow any more.
        let followers = classes.iter().enumerate().filter(|(_, c)| c.require.follows.is_some()).map(|(n, _)| n);
        for n in followers.chain(followed.iter().copied()) {
            add_line(&mut lines, n, &identities[n], None, Vec::new());
        }
        let other_tags = match spec.get("otherTags") {
            Some(node) if node.as_str() == Some("allow") => None,
            Some(node) => Some(self.setting(source, severity, node.span, node)),
            None => None,
        };
        let exceptions = self.exceptions(source, spec.get("exceptions"));
        if self.faults.len() > before {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(document.node.to_json().to_string());
        for name in &sets_used {
            if let Some((_, json)) = self.sets.get(name) {
                hash.update(json);
            }
        }
        for file in &files {
            // By its own hash, so that no two files can be taken for one.
            hash.update(Sha256::digest(file));
        }
        Some(Policy {
            name: document.name().into(),
            description: document.node.at("/metadata/description").and_then(Node::as_str).map(str::to_owned),
            hash: format!("sha256:{}", hex::encode(hash.finalize())).into(),
            mode,
            scope,
            classes,
            other_tags,
            exceptions,
            lines,
        })
    }

    fn forms(&mut self, source: &Source, class: &Node) -> Vec<Form> {
        let mut forms = Vec::new();
        let written =
            strings(class.get("form")).into_iter().map(|n| (n, false)).chain(class.get("regex").map(|n| (n, true)));
        for (node, is_regex) in written {
            let form_text = text(Some(node));
            let form = if is_regex { Form::regex(form_text) } else { Form::parse(form_text) };
            match form {
                Ok(form) => forms.push(form),
                Err(error) => {
                    let exact = within(source, node.span, form_text, &error.range);
                    let label = error.help.clone().unwrap_or_default();
                    self.fault(source, exact, "invalid-form", error.message, label);
                }
            }
        }
        forms
    }

    fn exceptions(&mut self, source: &Source, node: Option<&Node>) -> Vec<Exception> {
        let mut exceptions = Vec::new();
        for item in node.map(Node::items).unwrap_or_default() {
            let mut rules = Vec::new();
            for rule in item.get("requirements").map(Node::items).unwrap_or_default() {
                match Rule::from_word(text(Some(rule))) {
                    Some(rule) => rules.push(rule),
                    None => {
                        let names = Rule::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ");
                        self.fault(
                            source,
                            rule.span,
                            "unknown-requirement",
                            format!("there is no requirement `{}`", text(Some(rule))),
                            format!("one of {names}"),
                        );
                    }
                }
            }
            let Some(until) = item.get("until").and_then(|n| self.date(source, n)) else { continue };
            exceptions.push(Exception {
                tags: strings(item.get("tags")).into_iter().map(|n| TagGlob::new(text(Some(n)))).collect(),
                rules,
                repositories: item.get("repositories").map(|n| self.scope(source, &strings(Some(n)))),
                until,
                reason: text(item.get("reason")).into(),
                source: location(source, item.span),
            });
        }
        exceptions
    }
}

/// The place of a part of a text that a scalar gives: exact where the scalar has the text as it is, which is within a
/// plain or quoted scalar on one line; else the scalar.
fn within(source: &Source, scalar: Span, text: &str, part: &std::ops::Range<usize>) -> Span {
    let found = source.slice(scalar).find(text).map(|at| scalar.start + at);
    found.map_or(scalar, |start| Span::new(start + part.start, start + part.end))
}

/// The names that every form of a class captures: only these can be relied on in a relation.
pub(super) fn names_of_all(class: &Class) -> Vec<Arc<str>> {
    let Some((first, rest)) = class.forms.split_first() else { return Vec::new() };
    first.names().iter().filter(|n| rest.iter().all(|f| f.names().contains(n))).cloned().collect()
}

/// What decides which tags a class has: its forms, those of the classes before it, and what its tags must lead to.
fn identities(classes: &[Class], nodes: &[Node]) -> Vec<String> {
    let mut before = String::new();
    let mut out = Vec::with_capacity(classes.len());
    for (class, node) in classes.iter().zip(nodes) {
        for form in &class.forms {
            before.push_str(form.as_str());
            before.push('\n');
        }
        let require = |key: &str| node.get("require").and_then(|r| asked(r.get(key)));
        let kind = match require("kind") {
            Some(kind) => text(Some(kind.get("is").unwrap_or(kind))),
            None if require("index").is_some() || require("platforms").is_some() => "image",
            None => "any",
        };
        out.push(format!("{before}{kind}"));
        before.push('\n');
    }
    out
}

fn add_line(
    lines: &mut Vec<Line>,
    class: usize,
    identity: &str,
    form: Option<usize>,
    shared: Vec<Arc<str>>,
) -> super::observation::LineId {
    let line = Line::new(class, identity, form, shared);
    let id = line.id.clone();
    if !lines.contains(&line) {
        lines.push(line);
    }
    id
}
