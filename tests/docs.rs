//! The documentation that is made from the program: configuration, metrics, reason codes. Each page is compared with
//! what it is made of; `TIDEWAITER_BLESS` in the environment writes it anew. And every link within leads somewhere.

#![expect(clippy::disallowed_methods, reason = "golden files are rewritten when the environment asks for it")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;
use tidewaiter::config::{Config, Outside, SCHEMA};
use tidewaiter::document::{Source, render};
use tidewaiter::metrics::Metrics;
use tidewaiter::policy::{compile, documents};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn current(page: &str, wanted: &str) {
    let path = root().join("docs").join(page);
    if std::env::var_os("TIDEWAITER_BLESS").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == wanted, "docs/{page} is not current: run the tests with TIDEWAITER_BLESS=1");
}

#[test]
fn the_configuration_reference_is_current() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut page = String::from(
        "# Configuration reference\n\n<!-- Made from src/config/schema.json by tests/docs.rs. -->\n\n\
         `tidewaiter.yaml` is given with `--config`. Everything in it has a default; without a file the daemon listens on\n\
         loopback, keeps its record in the working directory and has no registry, source or sink. Paths are relative to the\n\
         file's own folder. Secrets come from files (`…File`) or the environment (`…Env`) and are never printed; nothing is\n\
         expanded from the environment. A fault names file, line, column and what would be right, and all faults are told at\n\
         once. An editor checks as you type with `src/config/schema.json`.\n\n\
         Durations are numbers with `ms`, `s`, `m`, `h`, `d` or `w`, as in `1h30m`; sizes are bytes, or have `KiB`, `MiB` or `GiB`.\n",
    );
    for (name, setting) in schema["properties"].as_object().unwrap() {
        write!(page, "\n## `{name}`\n\n").unwrap();
        writeln!(page, "{}", described(&schema, setting)).unwrap();
        let rows = rows(&schema, "", inner(&schema, setting));
        if !rows.is_empty() {
            page.push_str("\n| setting | type | default | meaning |\n|---|---|---|---|\n");
            page.push_str(&rows);
        }
    }
    current("configuration.md", &page);
}

/// The definition that a setting refers to, or itself.
fn resolved<'a>(schema: &'a Value, setting: &'a Value) -> &'a Value {
    match setting["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => setting,
    }
}

/// The object that a setting is, or is a list of.
fn inner<'a>(schema: &'a Value, setting: &'a Value) -> &'a Value {
    let setting = resolved(schema, setting);
    if setting["items"].is_object() { resolved(schema, &setting["items"]) } else { setting }
}

fn described(schema: &Value, setting: &Value) -> String {
    let own = setting["description"].as_str().or_else(|| resolved(schema, setting)["description"].as_str());
    let mut text = own.unwrap_or("").to_owned();
    if resolved(schema, setting)["type"] == "array" && inner(schema, setting)["properties"].is_object() {
        text.push_str(" A list; each entry has:");
    }
    if setting["default"].is_boolean() {
        write!(text, " Default: `{}`.", setting["default"]).unwrap();
    }
    text
}

/// The rows of an object's settings, those of objects within after their own.
fn rows(schema: &Value, prefix: &str, object: &Value) -> String {
    let mut rows = String::new();
    let required: Vec<&str> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, setting) in object["properties"].as_object().into_iter().flatten() {
        let (path, target) = (format!("{prefix}{name}"), resolved(schema, setting));
        let default = match &setting["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            value => format!("`{value}`"),
        };
        let meaning = described(schema, setting).replace('|', "\\|");
        writeln!(rows, "| `{path}` | {} | {default} | {meaning} |", kind(schema, target)).unwrap();
        rows.push_str(&self::rows(schema, &format!("{path}."), inner(schema, setting)));
    }
    rows
}

fn kind(schema: &Value, setting: &Value) -> String {
    if let Some(words) = setting["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_str().unwrap())).collect();
        return words.join(", ");
    }
    let named = |name: &str| schema["$defs"].get(name) == Some(setting);
    for name in ["duration", "size", "path", "url", "host", "address", "variable", "name"] {
        if named(name) {
            return name.to_owned();
        }
    }
    match setting["type"].as_str() {
        Some("array") => format!("list of {}", kind(schema, resolved(schema, &setting["items"]))),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("string") => "text".to_owned(),
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

#[test]
fn the_metrics_reference_is_current() {
    let metrics = Metrics::new().unwrap();
    let mut page = String::from(
        "# Metrics\n\n<!-- Made from src/metrics/list.rs by tests/docs.rs. -->\n\n\
         `GET /metrics` on the admin listener, in Prometheus' text format. No label ever holds a repository, a tag, a digest, an\n\
         address or an error text, so the number of series does not grow with the registry. A name that is not in the\n\
         configuration is counted as `other`.\n\n\
         Every combination that the configuration makes possible is there as 0 from the start, so that rates see the first\n\
         increment. With more than 100 policies, or 10 registries, their series are there from their first use on, and times\n\
         of requests are not told apart by registry: so a scrape stays small.\n\n\
         Gauges that are read from the store are the same on every replica: take `max`. Counters are each process's own: take\n\
         `sum`. The shipped rules and the dashboard (`charts/tidewaiter/files/`) do so; each alert has a page in\n\
         [runbooks](runbooks/). The usual `process_…` series are there as well.\n\n\
         | series | type | labels | meaning |\n|---|---|---|---|\n",
    );
    let mut catalogue = metrics.catalogue().to_vec();
    catalogue.sort_by(|a, b| a.name.cmp(&b.name));
    for series in catalogue {
        let labels: Vec<String> = series.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{}` | {} | {} | {} |", series.name, series.kind, labels.join(", "), series.help).unwrap();
    }
    current("metrics.md", &page);
}

#[test]
fn the_reason_codes_are_current() {
    current("reasons.md", &(tidewaiter::report::reasons_markdown() + &tidewaiter::alert::topics_markdown()));
}

/// Files that any configuration of the documentation may name.
struct Anything;

impl Outside for Anything {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok("a secret of some length".to_owned())
    }

    fn mode(&self, _: &Path) -> io::Result<Option<u32>> {
        Ok(Some(0o600))
    }

    fn variable(&self, _: &str) -> Option<String> {
        Some("a secret of some length".to_owned())
    }
}

/// A block that begins with the name of its file is the whole of it.
#[test]
fn configurations_and_policies_in_the_documentation_are_valid() {
    let (mut configurations, mut policies) = (0, 0);
    for page in ["README.md", "docs/harbor.md", "docs/acr-aks.md", "docs/plain-registry.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let source = Source::new(page, block);
            if block.starts_with("# tidewaiter.yaml\n") {
                configurations += 1;
                let read = Config::parse(&source, Path::new("/etc/tidewaiter"), &Anything);
                assert!(read.is_ok(), "{page}:\n{}", render(&read.unwrap_err(), false));
            } else if block.contains("kind: TagPolicy") {
                policies += 1;
                let documents = documents(&source);
                let compiled = documents.and_then(|documents| compile(&documents, &|_, _| Err("no file".to_owned())));
                assert!(compiled.is_ok(), "{page}:\n{}", render(&compiled.unwrap_err(), false));
            }
        }
    }
    assert!(configurations >= 2 && policies >= 2, "{configurations} configurations, {policies} policies");
}

#[test]
fn links_within_the_documentation_lead_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("charts/tidewaiter/README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { pages.push(path) }
        }
    }
    let mut linked = String::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if link.contains("://") || target.is_empty() {
                continue;
            }
            let path = page.parent().unwrap_or(Path::new(".")).join(target);
            assert!(path.exists(), "{}: {link} leads nowhere", page.display());
            writeln!(linked, "{}", path.canonicalize().unwrap().display()).unwrap();
        }
    }
    for page in pages.iter().filter(|page| page.parent() == Some(&root().join("docs"))) {
        let page = page.canonicalize().unwrap();
        assert!(linked.lines().any(|line| Path::new(line) == page), "nothing links to {}", page.display());
    }
}

/// Every example policy of the pages for people is a policy, and no requirement is without its line.
#[test]
fn examples_of_policies_are_policies() {
    use tidewaiter::document::{Source, render};
    use tidewaiter::policy::{Rule, VARIABLES, lint, load};
    let read = |page: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    for page in ["README.md", "docs/policies.md"] {
        let text = read(page);
        let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
        let policies: Vec<&str> = blocks.filter(|block| block.contains("kind: TagPolicy\n")).collect();
        assert!(!policies.is_empty(), "{page}");
        for block in policies {
            let none = |_: &Source, name: &str| Err(format!("no file {name}"));
            let (documents, set) =
                load(&[Source::new(page, block)], &none).unwrap_or_else(|f| panic!("{}", render(&f, false)));
            let faults = lint(&documents, &set, None, jiff::civil::date(2026, 11, 23));
            assert!(faults.is_empty(), "{}", render(&faults, false));
        }
    }
    let page = read("docs/policies.md");
    for rule in Rule::ALL {
        assert!(page.contains(&format!("`{rule}`")), "docs/policies.md says nothing of `{rule}`");
    }
    for variable in VARIABLES {
        assert!(page.contains(&format!("`{variable}")), "docs/policies.md says nothing of `{variable}`");
    }
}
