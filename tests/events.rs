//! Every payload under `tests/data/events` is understood as its folder's `expected.json` says, and hostile
//! ones are understood as nothing, by every format.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidewaiter::event::{Format, FormatError, Headers, Parsed, Request, describe};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A captured request: the body, empty where there is none, and its headers.
struct Sample {
    name: String,
    format: Format,
    headers: String,
    body: Vec<u8>,
}

impl Sample {
    fn load(format: Format, name: &str) -> Sample {
        let at = data().join(format.as_str());
        Sample {
            name: format!("{format}/{name}"),
            format,
            headers: read(&at.join(format!("{name}.http-headers"))),
            body: fs::read(at.join(format!("{name}.json"))).unwrap_or_default(),
        }
    }

    fn parse(&self) -> Result<Parsed, FormatError> {
        self.parse_as(self.format, &self.body)
    }

    fn parse_as(&self, format: Format, body: &[u8]) -> Result<Parsed, FormatError> {
        let headers = Headers::from_lines(&self.headers).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        format.parse(&Request { method: headers.method(), headers: &headers, body })
    }
}

/// The names of the samples in a format's folder, from its header files: each sample has one.
fn names(format: Format) -> Vec<String> {
    let folder = data().join(format.as_str());
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| Some(file.strip_suffix(".http-headers")?.to_owned()))
        .collect();
    names.sort();
    names
}

fn samples() -> Vec<Sample> {
    Format::ALL.iter().flat_map(|f| names(*f).into_iter().map(|name| Sample::load(*f, &name))).collect()
}

/// Each folder's samples and its `expected.json` name each other, and each sample is understood as expected.
#[test]
fn samples_are_understood_as_expected() {
    let mut faults = Vec::new();
    for format in Format::ALL {
        let expected: serde_json::Map<String, Value> =
            serde_json::from_str(&read(&data().join(format.as_str()).join("expected.json"))).unwrap();
        let names = names(*format);
        assert!(!names.is_empty(), "{format} has no samples");
        let mut listed: Vec<_> = expected.keys().cloned().collect();
        listed.sort();
        assert_eq!(listed, names, "{format}: the samples and expected.json differ");
        for (name, expected) in &expected {
            let sample = Sample::load(*format, name);
            let found = match sample.parse() {
                Ok(parsed) => describe(&parsed),
                Err(error) => json!({ "error": error.to_string() }),
            };
            if found != *expected {
                faults.push(format!("{}\n  expected {expected}\n  found    {found}", sample.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
