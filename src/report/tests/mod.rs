//! The reports against golden files, against parsers that are not ours, and against hostile text.

mod fixtures;
mod listings;
mod machines;
mod people;

use super::*;

/// Compares with a golden file; `TIDEWAITER_BLESS=1` writes it instead, to be read before it is committed.
#[expect(clippy::disallowed_methods, reason = "a switch for people who write expectations anew")]
fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/data/report/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TIDEWAITER_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{name} differs; it is now:\n{text}");
}

/// A reader like the published example's, without colour.
fn plain(width: usize) -> Options {
    Options { width, ..Options::default() }
}
