//! The bill of materials of the program, CycloneDX 1.5, out of what Cargo says about the locked dependencies: what is
//! linked in for one target, and nothing that only builds or tests it; and the texts of the licences. No time and no number
//! that differs each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// Something in the image that Cargo does not know of: a package of the distribution.
#[derive(Clone)]
pub struct Foreign {
    pub name: String,
    pub version: String,
    /// An SPDX expression.
    pub license: String,
}

/// What is said of a program.
pub struct Bill {
    /// The bill of materials.
    pub sbom: Vec<u8>,
    /// The licence texts of what is linked in, as their authors ship them: each text once, with what it is for.
    pub notices: Vec<u8>,
}

/// The bill of the package whose manifest is in `root`, for a target, with what is `foreign` to Cargo.
///
/// # Errors
/// Cargo does not answer, or with something else; a licence cannot be read.
pub fn of(cargo: &str, root: &Path, target: &str, foreign: &[Foreign]) -> anyhow::Result<Bill> {
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target, "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    from_metadata(&serde_json::from_slice(&output.stdout)?, foreign)
}

fn from_metadata(metadata: &Value, foreign: &[Foreign]) -> anyhow::Result<Bill> {
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
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
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
            let manifest = field(&package, "manifest_path");
            for text in licenses(Path::new(&manifest).parent().unwrap_or(Path::new(".")))? {
                texts.entry(text).or_default().insert(format!("{name} {version}"));
            }
        }
    }
    components.extend(foreign.iter().map(|one| {
        let purl = format!("pkg:deb/debian/{}@{}", one.name, one.version);
        json!({
            "type": "library",
            "bom-ref": purl,
            "name": one.name,
            "version": one.version,
            "licenses": [{"expression": one.license}],
            "purl": purl,
        })
    }));
    components.sort_by_key(|component| field(component, "purl"));
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
    });
    let mut notices = String::new();
    for (text, packages) in texts {
        let packages: Vec<String> = packages.into_iter().collect();
        notices.push_str(&format!("{}\n\n{}\n\n{RULE}\n", packages.join(", "), text.trim_end()));
    }
    Ok(Bill { sbom: format!("{bill:#}\n").into_bytes(), notices: notices.into_bytes() })
}

/// Between two notices.
const RULE: &str = "================================================================================";

/// The texts of a package's licences, in the order of their names.
fn licenses(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let named = |file: &fs::DirEntry| {
        let name = file.file_name().to_string_lossy().to_ascii_uppercase();
        ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"].iter().any(|word| name.starts_with(word))
    };
    let mut texts = Vec::new();
    for file in files.iter().filter(|file| named(file) && file.path().is_file()) {
        let text = fs::read(file.path()).with_context(|| file.path().display().to_string())?;
        texts.push(String::from_utf8_lossy(&text).replace("\r\n", "\n"));
    }
    Ok(texts)
}
