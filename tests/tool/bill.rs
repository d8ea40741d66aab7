//! The bill of materials of the program, CycloneDX 1.5, out of what Cargo says about the locked dependencies: what is
//! linked in for one target, and nothing that only builds or tests it. No time and no number that differs each time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// The bill of the package whose manifest is in `root`, for a target.
///
/// # Errors
/// Cargo does not answer, or with something else.
pub fn of(cargo: &str, root: &Path, target: &str) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target, "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    from_metadata(&serde_json::from_slice(&output.stdout)?)
}

fn from_metadata(metadata: &Value) -> anyhow::Result<Vec<u8>> {
    let field = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (field(&node, "id"), node)).collect();
    let root = field(&metadata["resolve"], "root");

    let (mut linked, mut ahead) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(id) = ahead.pop() {
        if !linked.insert(id.clone()) {
            continue;
        }
        let node = nodes.get(&id).with_context(|| format!("cargo metadata does not resolve {id}"))?;
        for dependency in list(&node["deps"]) {
            // Kinds are null, `build` and `dev`: what is linked is the first.
            if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                ahead.push(field(&dependency, "pkg"));
            }
        }
    }

    let mut components: Vec<Value> = Vec::new();
    let mut own = Value::Null;
    for package in list(&metadata["packages"]) {
        let id = field(&package, "id");
        if !linked.contains(&id) {
            continue;
        }
        let (name, version) = (field(&package, "name"), field(&package, "version"));
        let purl = format!("pkg:cargo/{name}@{version}");
        // Slashes are how crates wrote it before SPDX expressions.
        let license = field(&package, "license").replace('/', " OR ").replace("  ", " ");
        let component = json!({
            "type": if id == root { "application" } else { "library" },
            "bom-ref": purl,
            "name": name,
            "version": version,
            "licenses": [{"expression": license}],
            "purl": purl,
        });
        if id == root {
            own = component;
        } else {
            components.push(component);
        }
    }
    components.sort_by_key(|component| field(component, "purl"));
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
    });
    Ok(format!("{bill:#}\n").into_bytes())
}
