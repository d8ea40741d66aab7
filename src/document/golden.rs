//! Faults as users see them: documents under `tests/data/diagnostics` with the rendered faults beside them.
//!
//! With `TIDEWAITER_BLESS` set in the environment of the test run, the expected files are written anew; read
//! the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Schema, Source, read, render};

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

/// The documents of a folder with the names that diagnostics give them.
fn documents(folder: &str) -> Vec<(PathBuf, Source)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(data(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "yaml" || e == "json"));
    paths.sort();
    assert!(!paths.is_empty());
    let source = |path: &PathBuf| {
        let name = format!("policies/{}", path.file_name().unwrap().to_str().unwrap());
        (path.clone(), Source::new(name, fs::read_to_string(path).unwrap()))
    };
    paths.iter().map(source).collect()
}

fn rendered(schema: &Schema, source: &Source) -> String {
    let faults = match read(source) {
        Ok(nodes) => nodes.iter().flat_map(|node| schema.validate(source, node)).collect(),
        Err(faults) => faults,
    };
    render(&faults, false)
}

fn policy_schema() -> Schema {
    Schema::new(include_str!("../policy/schema.json")).unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for people who write expectations anew")]
fn t39_faults_look_as_recorded() {
    let schema = policy_schema();
    let mut wrong = Vec::new();
    for (path, source) in documents("diagnostics") {
        let actual = rendered(&schema, &source);
        let expected = path.with_extension("txt");
        if std::env::var_os("TIDEWAITER_BLESS").is_some() {
            fs::write(&expected, &actual).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != actual {
            wrong.push(format!("{}:\n{actual}", source.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn t39_a_policy_of_nothing_but_faults_is_told_quickly() {
    let schema = policy_schema();
    let head = "apiVersion: tidewaiter.dev/v1\nkind: TagPolicy\nmetadata: {name: a}\nspec:\n  repositories: [a/b]\n";
    for spec in [
        format!("  classes: [{}]\n", "{form: 1},".repeat(12_000)),
        format!("  classes: [{}]\n", "{name: a, form: b, require: {platforms: []}},".repeat(4_000)),
        format!("  exceptions: [{}]\n", "[],".repeat(40_000)),
    ] {
        let source = Source::new("f", format!("{head}{spec}"));
        let start = std::time::Instant::now();
        assert!(!rendered(&schema, &source).is_empty());
        // Release builds stay under 50 ms (T-39); the margin is for unoptimised builds on busy machines.
        let took = start.elapsed();
        assert!(took.as_secs() < 4, "{took:?} for {:.20}", spec);
    }
}

#[test]
fn examples_are_valid() {
    let schema = policy_schema();
    for (_, source) in documents("policy") {
        assert_eq!(rendered(&schema, &source), "", "{}", source.name);
    }
}

/// Editors show descriptions: every property has one, itself or through what it refers to.
#[test]
fn every_property_of_the_published_schema_is_described() {
    fn visit(schema: &serde_json::Value, path: &str, missing: &mut Vec<String>) {
        let entries: Vec<(String, &serde_json::Value)> = match schema {
            serde_json::Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
            serde_json::Value::Array(items) => items.iter().enumerate().map(|(n, v)| (n.to_string(), v)).collect(),
            _ => return,
        };
        for (key, value) in entries {
            let at = format!("{path}/{key}");
            let is_property = path.ends_with("/properties") && !path.contains("/if/") && !path.contains("/then/");
            if is_property && value.get("description").is_none() {
                missing.push(at.clone());
            }
            visit(value, &at, missing);
        }
    }
    let mut missing = Vec::new();
    visit(policy_schema().json(), "", &mut missing);
    assert_eq!(missing, [""; 0]);
}
