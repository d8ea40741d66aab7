//! JSON Schemas (draft 2020-12), and documents judged by them.
//!
//! A schema of ours carries two annotations beside the standard ones: `x-hint` says in a few words what would
//! be right where a `pattern`, `format`, `oneOf` or bound fails (`write a duration, as in "15m"`), and
//! `description` explains a property. Remote references are never followed: `jsonschema` is built without its
//! retrievers, so a schema that has one does not compile.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::explain::Explainer;
use super::fault::{FAULTS_MAX, Fault};
use super::node::Node;
use super::source::Source;

/// Largest compiled pattern of a schema, in bytes (threat model, section 5).
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Most parts that a schema of others comes to with its references written out: each may be asked of every value.
const PARTS_MAX: u64 = 10_000;
/// Deepest nesting of a schema of others, references included: validators are recursive.
const DEPTH_MAX: usize = 100;
/// Most questions of parts to values in one validation: some seconds on a small machine.
const QUESTIONS_MAX: u64 = 50_000_000;

/// A compiled schema. Build it once; validating shares it.
#[derive(Debug)]
pub struct Schema {
    json: Json,
    validator: jsonschema::Validator,
    /// The parts that it comes to with its references written out; 0 for the program's own.
    parts: u64,
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
    /// One that could go on for ever, or that refers to what is not in it.
    #[error("{0}")]
    Unbounded(String),
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
        Ok(Schema { json, validator, parts: 0 })
    }

    /// Compiles a schema that somebody else wrote: one that ends for every value, since it neither refers to itself nor
    /// comes to more than some thousands of parts.
    ///
    /// # Errors
    /// As [`Schema::from_json`]; and a schema that is not bounded, or that refers to anything but its own parts.
    pub fn foreign(json: Json) -> Result<Schema, SchemaError> {
        let mut walk = Expansion { root: &json, known: HashMap::new(), open: Vec::new() };
        let parts = walk.parts(&json, 0, false)?;
        Ok(Schema { parts, ..Schema::from_json(json)? })
    }

    /// Whether a value can be validated within the work allowed.
    pub fn is_bounded_over(&self, instance: &Json) -> bool {
        fn values(json: &Json) -> u64 {
            1 + match json {
                Json::Array(items) => items.iter().map(values).sum::<u64>(),
                Json::Object(fields) => fields.values().map(values).sum(),
                _ => 0,
            }
        }
        values(instance).saturating_mul(self.parts) <= QUESTIONS_MAX
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

/// Counts the parts of a schema with its references written out.
struct Expansion<'a> {
    root: &'a Json,
    /// What references come to.
    known: HashMap<&'a str, u64>,
    /// References that are being followed.
    open: Vec<&'a str>,
}

impl<'a> Expansion<'a> {
    /// `named`: the keys are names of somebody's properties, and no keywords.
    fn parts(&mut self, schema: &'a Json, depth: usize, named: bool) -> Result<u64, SchemaError> {
        if depth > DEPTH_MAX {
            return Err(SchemaError::Unbounded(format!("the schema is nested more than {DEPTH_MAX} deep")));
        }
        let mut sum = 1_u64;
        match schema {
            Json::Array(items) => {
                for item in items {
                    sum = sum.saturating_add(self.parts(item, depth + 1, false)?);
                }
            }
            Json::Object(fields) => {
                for (key, value) in fields {
                    let more = match (key.as_str(), value) {
                        _ if named => self.parts(value, depth + 1, false)?,
                        // Values, and parts that count where they are referred to.
                        ("const" | "enum" | "default" | "examples" | "$defs" | "definitions", _) => 0,
                        ("$ref", Json::String(target)) => self.reference(target, depth)?,
                        ("$dynamicRef" | "$recursiveRef", Json::String(_)) => {
                            return Err(SchemaError::Unbounded(format!("`{key}` is not followed: use `$ref`")));
                        }
                        ("properties" | "patternProperties" | "dependentSchemas", _) => {
                            self.parts(value, depth + 1, true)?
                        }
                        _ => self.parts(value, depth + 1, false)?,
                    };
                    sum = sum.saturating_add(more);
                }
            }
            _ => {}
        }
        if sum > PARTS_MAX {
            return Err(SchemaError::Unbounded(format!(
                "the schema comes to more than {PARTS_MAX} parts with its references written out"
            )));
        }
        Ok(sum)
    }

    fn reference(&mut self, target: &'a str, depth: usize) -> Result<u64, SchemaError> {
        if let Some(parts) = self.known.get(target) {
            return Ok(*parts);
        }
        let shown = super::quoted(target);
        if self.open.contains(&target) || target == "#" {
            return Err(SchemaError::Unbounded(format!("the schema refers to itself by {shown}")));
        }
        let found = target.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
        let Some(found) = found.and_then(|pointer| self.root.pointer(pointer)) else {
            return Err(SchemaError::Unbounded(format!(
                "{shown} is no part of the schema: write `#/$defs/NAME`; other documents are never fetched"
            )));
        };
        self.open.push(target);
        let parts = self.parts(found, depth + 1, false)?;
        self.open.pop();
        self.known.insert(target, parts);
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{read, render};
    use serde_json::json;

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
    fn t39_a_schema_of_others_cannot_go_on_for_ever() {
        let doubling: serde_json::Map<_, _> = (0..20)
            .map(|n| (format!("d{n}"), json!({"allOf": [{"$ref": format!("#/$defs/d{}", n + 1)}, {"$ref": format!("#/$defs/d{}", n + 1)}]})))
            .chain([("d20".to_owned(), json!({"type": "object"}))])
            .collect();
        let chain: serde_json::Map<_, _> = (0..5_000)
            .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
            .chain([("d5000".to_owned(), json!(true))])
            .collect();
        for (schema, why) in [
            (json!({"$ref": "#"}), "refers to itself"),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [true, {"$ref": "#/$defs/a"}]}}}),
                "refers to itself",
            ),
            (json!({"properties": {"a": {"$ref": "#"}}}), "refers to itself"),
            (json!({"properties": {"default": {"$ref": "#"}}}), "refers to itself"),
            (json!({"$ref": "#/$defs/d0", "$defs": doubling}), "comes to more than"),
            (json!({"$ref": "#/$defs/d0", "$defs": chain}), "deep"),
            (json!({"$dynamicRef": "#x"}), "`$dynamicRef`"),
            (json!({"$ref": "#anchor", "$anchor": "anchor"}), "`#anchor`"),
            (json!({"$ref": "https://example.com/schema.json"}), "never fetched"),
        ] {
            let error = Schema::foreign(schema.clone()).unwrap_err().to_string();
            assert!(error.contains(why), "{schema:.200}: {error}");
        }
        let fine = json!({
            "properties": {"a": {"$ref": "#/$defs/t"}, "b": {"items": {"$ref": "#/$defs/t"}}, "$ref": {"type": "string"}},
            "enum": [{"$ref": "#"}], "$defs": {"t": {"type": "string"}, "unused": {"$ref": "#/$defs/unused"}}
        });
        let schema = Schema::foreign(fine).unwrap();
        assert!(schema.is_bounded_over(&json!({"a": "x"})));
        let wide = Schema::foreign(json!({"items": {"allOf": vec![json!({"type": "integer"}); 1_000]}})).unwrap();
        assert!(!wide.is_bounded_over(&json!(vec![1; 200_000])));
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
