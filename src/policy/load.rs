//! From texts to documents, and to policies: each validated against the published schema, and every fault of every file
//! told at once.
//!
//! Meaning is checked in documents with faults of shape too, so that nobody mends one to be shown the next. What is
//! found there only because of a fault of shape is not told: one cause, one fault.

use std::sync::LazyLock;

use super::compile::{Doubts, ReadFile, compile_with};
use super::set::PolicySet;
use crate::document::{FAULTS_MAX, Fault, Node, Schema, Source, Span, read};

/// The published JSON Schema of policy documents.
pub const SCHEMA: &str = include_str!("schema.json");

static COMPILED_SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(SCHEMA).expect("the shipped schema compiles, as a test shows"));

/// A document that passed its schema.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file.
    pub source: Source,
    /// The document in it.
    pub node: Node,
}

impl Document {
    /// The document's `kind`.
    pub fn kind(&self) -> &str {
        self.node.get("kind").and_then(Node::as_str).unwrap_or_default()
    }

    /// The document's `metadata.name`.
    pub fn name(&self) -> &str {
        self.node.at("/metadata/name").and_then(Node::as_str).unwrap_or_default()
    }
}

/// Reads the documents of a file and validates each against the schema.
///
/// # Errors
/// Every fault, by place.
pub fn documents(source: &Source) -> Result<Vec<Document>, Vec<Fault>> {
    let nodes = read(source)?;
    let faults: Vec<Fault> = nodes.iter().flat_map(|node| COMPILED_SCHEMA.validate(source, node)).collect();
    if faults.is_empty() {
        Ok(nodes.into_iter().map(|node| Document { source: source.clone(), node }).collect())
    } else {
        Err(faults)
    }
}

/// A document that stands inside another, such as a policy that a test applies; validated like a file.
pub(super) fn inner(source: &Source, node: &Node) -> Result<Document, Vec<Fault>> {
    let faults = COMPILED_SCHEMA.validate(source, node);
    if faults.is_empty() { Ok(Document { source: source.clone(), node: node.clone() }) } else { Err(faults) }
}

/// The documents of files, and the policies that they make.
///
/// # Errors
/// Every fault of every file, file by file and by place: of shape and of meaning.
pub fn load(sources: &[Source], read_file: ReadFile<'_>) -> Result<(Vec<Document>, PolicySet), Vec<Fault>> {
    let mut documents: Vec<Document> = Vec::new();
    let mut faults: Vec<Fault> = Vec::new();
    let mut doubts = Doubts::default();
    // Where nothing more is told, because enough is.
    let mut closed: Vec<(Source, Span)> = Vec::new();
    for source in sources {
        let nodes = match read(source) {
            Ok(nodes) => nodes,
            Err(found) => {
                doubts.sets = true;
                faults.extend(found);
                continue;
            }
        };
        for node in nodes {
            let document = Document { source: source.clone(), node };
            let found = COMPILED_SCHEMA.validate(source, &document.node);
            doubts.sets |= !found.is_empty() && !matches!(document.kind(), "TagPolicy" | "TagPolicyTest");
            if found.len() >= FAULTS_MAX {
                closed.push((source.clone(), document.node.span));
            }
            faults.extend(found);
            documents.push(document);
        }
    }
    let compiled = compile_with(&documents, read_file, doubts);
    let of_meaning = match compiled {
        Ok(set) if faults.is_empty() => return Ok((documents, set)),
        Ok(_) => Vec::new(),
        Err(found) => found,
    };
    let apart = |fault: &Fault, span: Span| fault.span.end <= span.start || span.end <= fault.span.start;
    let of_its_own = |fault: &Fault| {
        faults.iter().filter(|shape| shape.source.name == fault.source.name).all(|shape| apart(fault, shape.span))
            && closed.iter().all(|(source, span)| source.name != fault.source.name || apart(fault, *span))
    };
    let besides: Vec<Fault> = of_meaning.into_iter().filter(of_its_own).take(FAULTS_MAX).collect();
    faults.extend(besides);
    let place = |fault: &Fault| sources.iter().position(|source| source.name == fault.source.name);
    faults.sort_by_key(|fault| (place(fault), fault.span));
    Err(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn faults(texts: &[&str]) -> Vec<String> {
        let sources: Vec<Source> =
            texts.iter().enumerate().map(|(n, text)| Source::new(format!("{n}.yaml"), *text)).collect();
        let found = load(&sources, &|_: &Source, _: &str| Err("no such file".to_owned())).err().unwrap_or_default();
        found.iter().map(|f| format!("{}:{} {}", f.source.name, f.position().line, f.code)).collect()
    }

    const SET: &str = "apiVersion: tidewaiter.dev/v1\nkind: PlatformSet\nmetadata: {name: tier1}\nspec: {revisions: [{from: 2020-01-01, platforms: [linux/amd64]}]}\n";

    /// A policy of these classes.
    fn policy(classes: &str) -> String {
        format!(
            "apiVersion: tidewaiter.dev/v1\nkind: TagPolicy\nmetadata: {{name: a}}\nspec:\n  repositories: [a.example/**]\n  classes:\n{classes}"
        )
    }

    #[test]
    fn faults_of_shape_and_of_meaning_are_told_in_one_run() {
        let text = policy(
            "    - {name: version, form: '{majr}', require: {platforms: tier2, intact: 5}}\n    - {name: latest, form: latest, requires: {}, require: {follows: versoin, platforms: [linux]}}\n  otherTags: forbid\n  exceptions: [{tags: [a], until: 2026-13-01, reason: x}]\n",
        );
        assert_eq!(
            faults(&[&text]),
            [
                "0.yaml:7 invalid-form",
                "0.yaml:7 unknown-platform-set",
                "0.yaml:7 wrong-type",
                "0.yaml:8 unknown-key",
                "0.yaml:8 unknown-class",
                "0.yaml:8 wrong-value",
                "0.yaml:9 wrong-word",
                "0.yaml:10 missing-key",
                "0.yaml:10 wrong-value",
            ]
        );
        // Several files: what is wrong with one hides nothing of the others.
        let bad = policy("    - {name: a, form: '{nope}'}\n");
        assert_eq!(faults(&["a: [", &bad]), ["0.yaml:1 unclosed", "1.yaml:7 invalid-form"]);
    }

    #[test]
    fn what_only_follows_from_another_fault_is_not_told() {
        let version = "    - {name: version, form: '{major}.{minor}', require: {intact: true}}\n";
        for (texts, told) in [
            // The class that a relation names is there, under a misspelt key or with a form that is none.
            (
                vec![policy(
                    "    - {nmae: version, form: '{major}'}\n    - {name: latest, form: latest, require: {follows: version}}\n",
                )],
                &["0.yaml:7 unknown-key"][..],
            ),
            (
                vec![policy(
                    "    - {name: version, fomr: '{major}'}\n    - {name: rolling, form: '{major}', require: {memberOf: version}}\n",
                )],
                &["0.yaml:7 unknown-key"],
            ),
            (
                vec![policy(
                    "    - {name: version, form: '{majr}'}\n    - {name: rolling, form: '{major}', require: {memberOf: version}}\n",
                )],
                &["0.yaml:7 invalid-form"],
            ),
            (
                vec![policy("    - {nmae: one, form: a}\n    - {nmae: two, form: b}\n")],
                &["0.yaml:7 unknown-key", "0.yaml:8 unknown-key"],
            ),
            // The set is there, in a document or file with a fault of its own.
            (
                vec![
                    policy("    - {name: version, form: '{major}', require: {platforms: tier1}}\n"),
                    SET.replace("revisions", "revision"),
                ],
                &["1.yaml:4 unknown-key"],
            ),
            (
                vec![
                    policy("    - {name: version, form: '{major}', require: {platforms: tier1}}\n"),
                    SET.replace("PlatformSet", "PlatformSets"),
                ],
                &["1.yaml:2 wrong-word"],
            ),
            (
                vec![
                    policy("    - {name: version, form: '{major}', require: {platforms: tier1}}\n"),
                    format!("{SET}  - x"),
                ],
                &["1.yaml:5 syntax"],
            ),
            (
                vec![SET.replace("metadata: {name: tier1}", "metadata: {}"), SET.replace("{name: tier1}", "{}")],
                &["0.yaml:3 missing-key", "1.yaml:3 missing-key"],
            ),
            // A value of the wrong kind is wrong once.
            (
                vec![policy(&version.replace("{intact: true}", "{intact: {for: 15}, platforms: {all: [5]}}"))],
                &["0.yaml:7 not-text", "0.yaml:7 not-text"],
            ),
        ] {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(faults(&texts), told, "{}", texts.join("---\n"));
        }
    }

    #[test]
    fn what_a_policy_reads_from_files_is_part_of_its_hash() {
        let text = policy("    - {name: a, form: a, require: {config: 'file:a.json', manifest: {file: b.json}}}\n");
        let hash = |a: &'static str, b: &'static str| {
            let read = move |_: &Source, name: &str| Ok(if name == "a.json" { a.to_owned() } else { b.to_owned() });
            let (_, set) = load(&[Source::new("p.yaml", text.as_str())], &read).unwrap();
            (set.hash().to_owned(), set.policies()[0].hash.clone())
        };
        let before = hash("{}", "{}");
        assert_eq!(before, hash("{}", "{}"));
        for (a, b) in [("{ }", "{}"), ("{}", r#"{"type": "object"}"#), ("{}", "true")] {
            let after = hash(a, b);
            assert!(after.0 != before.0 && after.1 != before.1, "{a} {b}");
        }
    }

    proptest! {
        /// Documents of a wrong shape are compiled too, so nothing there may rely on the schema.
        #[test]
        fn t39_no_policy_panics_whatever_is_wrong_with_it(
            which in 0..5_usize, cut in 0..4_000_usize, length in 0..60_usize, put in "[a-z0-9{}\\[\\]:,\" \\n-]{0,12}"
        ) {
            let (_, text) = super::super::templates()[which % super::super::templates().len()];
            let at = text.floor_char_boundary(cut.min(text.len()));
            let end = text.floor_char_boundary((at + length).min(text.len()));
            let text = format!("{}{put}{}", &text[..at], &text[end..]);
            let _ = load(&[Source::new("f.yaml", text)], &|_: &Source, _: &str| Err(String::new()));
        }
    }
}
