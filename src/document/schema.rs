//! JSON Schemas (draft 2020-12), and documents judged by them.
//!
//! A schema of ours carries two annotations beside the standard ones: `x-hint` says in a few words what would
//! be right where a `pattern`, `format`, `oneOf` or bound fails (`write a duration, as in "15m"`), and
//! `description` explains a property. Remote references are never followed: `jsonschema` is built without its
//! retrievers, so a schema that has one does not compile.

use serde_json::Value as Json;

use super::explain::Explainer;
use super::fault::{FAULTS_MAX, Fault};
use super::node::Node;
use super::source::Source;

/// Largest compiled pattern of a schema, in bytes (threat model, section 5).
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A compiled schema. Build it once; validating shares it.
#[derive(Debug)]
pub struct Schema {
    json: Json,
    validator: jsonschema::Validator,
}

/// Why a text is no schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not JSON.
    #[error("the schema is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not a schema of draft 2020-12, or one that refers to something outside itself.
    #[error("this is not a JSON Schema of draft 2020-12 that stands for itself: {0}")]
    Schema(String),
}

impl Schema {
    /// Compiles the text of a schema.
    pub fn new(text: &str) -> Result<Schema, SchemaError> {
        Schema::from_json(serde_json::from_str(text)?)
    }

    /// Compiles a schema that was read already, such as one that stands inside a policy.
    pub fn from_json(json: Json) -> Result<Schema, SchemaError> {
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .offline()
            // The linear engine: a pattern with look-around is refused instead of backtracking (T-40).
            .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
            .build(&json)
            .map_err(|error| SchemaError::Schema(super::quoted(&error.to_string())))?;
        Ok(Schema { json, validator })
    }

    /// The schema as JSON, as it is published.
    pub fn json(&self) -> &Json {
        &self.json
    }

    /// Everything that is wrong with a document, by place; empty where it is valid. One cause is told once,
    /// and at most [`FAULTS_MAX`] faults are told.
    pub fn validate(&self, source: &Source, node: &Node) -> Vec<Fault> {
        let instance = node.to_json();
        let mut explainer = Explainer::new(&self.json, source, node);
        for error in self.validator.iter_errors(&instance).take(4 * FAULTS_MAX) {
            explainer.explain(&error);
        }
        explainer.finish()
    }

    /// What is wrong with a JSON value that has no places, in bounded lines of `pointer: message`.
    pub fn check(&self, instance: &Json) -> Vec<String> {
        let line = |error: jsonschema::ValidationError<'_>| {
            let pointer = error.instance_path().as_str();
            let message = super::quoted(&error.masked().to_string());
            format!("{}: {}", if pointer.is_empty() { "/" } else { pointer }, message.trim_matches('`'))
        };
        self.validator.iter_errors(instance).take(FAULTS_MAX).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{read, render};

    const SCHEMA: &str = r##"{
      "$schema": "https://json-schema.org/draft/2020-12/schema",
      "type": "object", "additionalProperties": false, "required": ["name"],
      "properties": {
        "name": {"type": "string", "minLength": 1, "description": "What it is called.\n\nMore."},
        "otherTags": {"oneOf": [{"enum": ["deny", "allow"]}, {"$ref": "#/$defs/map"}]},
        "tags": {"type": "array", "maxItems": 3, "uniqueItems": true, "items": {"type": "string"}},
        "immutable": {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/map"}]},
        "form": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "severity": {"enum": ["info", "warning", "critical", "none", "fatal"]}
      },
      "$defs": {
        "map": {"type": "object", "additionalProperties": false, "properties": {"for": {"$ref": "#/$defs/duration"}}},
        "duration": {"type": "string", "pattern": "^[0-9]+m$", "x-hint": "write a duration, as in \"15m\""}
      }
    }"##;

    /// One-line faults of a document under the schema above.
    fn faults(text: &str) -> Vec<String> {
        let source = Source::new("f", text);
        let schema = Schema::new(SCHEMA).unwrap();
        schema.validate(&source, &read(&source).unwrap()[0]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_fault_says_where_what_and_what_would_be_right() {
        for (text, expected) in [
            ("name: a", ""),
            ("name: a\notherTags: forbid", "f:2:12: error: `forbid` is not allowed here: use `deny` or `allow`"),
            ("name: a\notherTags: {fro: 1m}", "f:2:13: error: `fro` is not allowed here: did you mean `for`?"),
            ("name: a\notherTags: {for: x}", "f:2:18: error: `x` is not allowed here: write a duration, as in \"15m\""),
            ("name: a\notherTags: {for: 15}", "f:2:18: error: `15` is a number here: write a duration, as in \"15m\""),
            (
                "name: a\notherTags: [deny]",
                "f:2:12: error: `otherTags` must be text or a map, not a list: expected text or a map",
            ),
            ("name: a\ntags: [1.0]", "f:2:8: error: `1.0` is a number here: write it in quotes: \"1.0\""),
            ("name: a\ntags: [a, 1.0.0, 2026-01-31]", ""),
            ("name: a\ntags: x", "f:2:7: error: `tags` must be a list, not text: expected a list"),
            ("name: a\ntags:", "f:2:1: error: `tags` has no value: expected a list"),
            ("name: a\ntags: [a, a]", "f:2:11: error: `tags` has the same entry twice: second"),
            (
                "name: a\nimmutable: yes",
                "f:2:12: error: `immutable` must be `true` or `false` or a map, not text: write `true`",
            ),
            ("name: a\nform: [x, 1.0]", "f:2:11: error: `1.0` is a number here: write it in quotes: \"1.0\""),
            ("name: a\nform: 1.0", "f:2:7: error: `1.0` is a number here: write it in quotes: \"1.0\""),
            (
                "name: a\nseverity: eror",
                "f:2:11: error: `eror` is not allowed here: use `info`, `warning`, `critical`, `none` or `fatal`",
            ),
            ("name: a\nseverity: criticl", "f:2:11: error: `criticl` is not allowed here: did you mean `critical`?"),
            ("name: ''", "f:1:7: error: `name` is empty"),
            ("nmae: a", "f:1:1: error: `nmae` is not allowed here: did you mean `name`?"),
            ("tags: []", "f:1:1: error: the document lacks `name`: add `name`"),
            ("[]", "f:1:1: error: the document must be a map, not a list: expected a map"),
        ] {
            assert_eq!(faults(text).join("\n"), expected, "{text}");
        }
    }

    #[test]
    fn faults_are_all_told_at_once_and_by_place() {
        let found = faults("x: 1\nname: 5\ntags: [a, 2]\notherTags: no\n");
        let lines: Vec<&str> = found.iter().map(|f| &f[..4]).collect();
        assert_eq!(lines, ["f:1:", "f:2:", "f:3:", "f:4:"]);
    }

    #[test]
    fn rendered_as_the_published_interface_shows() {
        let text = "\n".repeat(12) + "name: a\nspec:\n";
        let source = Source::new("policies/iot.yaml", text.replace("spec:", "otherTags: forbid"));
        let faults = Schema::new(SCHEMA).unwrap().validate(&source, &read(&source).unwrap()[0]);
        let expected = "\
error: `forbid` is not allowed here
  --> policies/iot.yaml:14:12
   |
14 | otherTags: forbid
   |            ^^^^^^ use `deny` or `allow`
";
        assert_eq!(render(&faults, false), expected);
        assert!(render(&faults, true).contains("\u{1b}["));
    }

    #[test]
    fn remote_references_are_never_followed() {
        for reference in ["https://example.com/schema.json", "file:///etc/hostname", "other.json"] {
            let error = Schema::new(&format!("{{\"$ref\": \"{reference}\"}}")).unwrap_err();
            assert!(matches!(error, SchemaError::Schema(_)), "{reference}: {error}");
        }
    }

    #[test]
    fn t39_a_document_of_nothing_but_faults_is_told_quickly() {
        for text in [
            format!("[{}]", "{a: b},".repeat(15_000)),
            format!("name: a\ntags: [{}]", "1,".repeat(40_000)),
            (0..20_000).map(|n| format!("k{n}: 1\n")).collect(),
            format!("name: a\nform: [{}]", "[],".repeat(40_000)),
        ] {
            let source = Source::new("f", text);
            let schema = Schema::new(SCHEMA).unwrap();
            let nodes = read(&source).unwrap();
            let start = std::time::Instant::now();
            let faults = schema.validate(&source, &nodes[0]);
            render(&faults, false);
            assert!(!faults.is_empty() && faults.len() <= FAULTS_MAX);
            assert!(start.elapsed().as_secs() < 4, "{:?} for {:.20}", start.elapsed(), source.text);
        }
    }
}
