//! Every case of `tests/data/policy` and of the shipped policies comes out as it says.

use std::fs;
use std::path::{Path, PathBuf};

use tidewaiter::document::{Source, render};
use tidewaiter::policy::{Document, documents, trial};

fn read(folder: &str) -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let name = format!("{folder}/{}", path.file_name().unwrap().to_string_lossy());
        let source = Source::new(name, fs::read_to_string(&path).unwrap());
        out.extend(documents(&source).unwrap_or_else(|faults| panic!("{}", render(&faults, false))));
    }
    out
}

fn run(folder: &str) -> trial::Trial {
    let documents = read(folder);
    let no_files = |_: &Source, name: &str| Err(format!("no file `{name}`"));
    trial::run(&documents, &documents, &no_files).unwrap_or_else(|faults| panic!("{}", render(&faults, false)))
}

fn must_pass(folder: &str) {
    let trial = run(folder);
    assert!(!trial.cases.is_empty());
    assert!(trial.passed(), "{}", tidewaiter::report::trial_text(&trial, &tidewaiter::report::Options::default()));
}

#[test]
fn the_catalogue_of_cases() {
    must_pass("tests/data/policy");
}
