//! What is published beside the templates and made from something else: the values' schema, and the table of values.

#![expect(clippy::disallowed_methods, reason = "golden files are rewritten when the environment asks for it")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tidewaiter::config::SCHEMA;

use crate::tools::chart;

/// Compares a file with what it should be; `TIDEWAITER_BLESS` in the environment writes it anew.
fn current(path: &Path, wanted: &str) {
    if std::env::var_os("TIDEWAITER_BLESS").is_some() {
        fs::write(path, wanted).unwrap();
    }
    let there = fs::read_to_string(path).unwrap_or_default();
    assert!(there == wanted, "{} is not current: run the tests with TIDEWAITER_BLESS=1", path.display());
}

/// The configuration's block of the values' schema is the published schema of the configuration. What only a later
/// draft of JSON Schema knows does not occur in it; its definitions are shared.
#[test]
fn the_schema_of_the_values_holds_the_schema_of_the_configuration() {
    let path = chart().join("values.schema.json");
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut config: Value = serde_json::from_str(SCHEMA).unwrap();
    let block = config.as_object_mut().unwrap();
    let definitions = block.remove("$defs").unwrap();
    block.retain(|name, _| !matches!(name.as_str(), "$schema" | "$id" | "title"));
    schema["$defs"] = definitions;
    schema["properties"]["config"] = config;
    current(&path, &format!("{schema:#}\n"));
}

/// `helm-docs` is not needed: a comment that begins with `--` describes the value after it.
#[test]
fn the_table_of_values_is_current() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let mut table = String::from("| value | default | meaning |\n|---|---|---|\n");
    let (mut meaning, mut path): (String, Vec<(usize, String)>) = (String::new(), Vec::new());
    for line in text.lines() {
        let (indent, rest) = (line.len() - line.trim_start().len(), line.trim_start());
        if let Some(comment) = rest.strip_prefix("# -- ") {
            meaning = comment.to_owned();
        } else if let Some(comment) = rest.strip_prefix("# ") {
            if !meaning.is_empty() {
                write!(meaning, " {comment}").unwrap();
            }
        } else if let Some((key, _)) = rest.split_once(':') {
            path.retain(|(depth, _)| *depth < indent);
            path.push((indent, key.to_owned()));
            if meaning.is_empty() {
                continue;
            }
            let keys: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).collect();
            let value = keys.iter().fold(&values, |value, key| &value[*key]);
            let shown = match value {
                Value::Object(fields) if !fields.is_empty() => "see `values.yaml`".to_owned(),
                value => format!("`{value}`"),
            };
            writeln!(table, "| `{}` | {shown} | {} |", keys.join("."), std::mem::take(&mut meaning)).unwrap();
        }
    }
    let path = chart().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, _) = readme.split_once("| value | default | meaning |").expect("the README has the table");
    current(&path, &format!("{before}{table}"));
}

#[test]
fn the_chart_and_the_program_have_one_version() {
    let metadata: Value = serde_saphyr::from_str(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).unwrap();
    assert_eq!(metadata["appVersion"], json!(env!("CARGO_PKG_VERSION")));
}
