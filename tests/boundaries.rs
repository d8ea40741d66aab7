//! Holds the walls of the house: which room may import which, and what the pure rooms must never say.
//!
//! It reads the source as text, comments, literals and tests set aside, so it finds a path wherever one is
//! written, and it needs nothing but the files. A new room is a new line of [`ROOMS`].

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything that a room may import.
enum May {
    /// These rooms and no other.
    Use(&'static [&'static str]),
    /// Whatever there is: the rooms that wire.
    UseAll,
}
use May::{Use, UseAll};

/// The rooms, pure ones first, then from the outside inwards to those that wire.
const ROOMS: &[(&str, May)] = &[
    // Pure: values in, values out.
    ("image", Use(&[])),
    ("backoff", Use(&[])),
    // Nothing at all, but in a build for a test.
    ("failpoint", Use(&[])),
    ("document", Use(&[])),
    ("event", Use(&["image"])),
    ("history", Use(&["image"])),
    ("policy", Use(&["image", "event", "history", "document"])),
    // One piece of the outside each. A room owns its settings, and `config` fills them from what is written;
    // so none of them imports `config`, and each can be started by a test with settings of its own.
    ("clock", Use(&[])),
    // The log is stamped by the clock, and counts its lines by level.
    ("telemetry", Use(&["clock", "metrics"])),
    ("shutdown", Use(&[])),
    ("metrics", Use(&["image", "event", "history", "policy"])),
    ("listen", Use(&["clock", "metrics", "shutdown"])),
    ("registry", Use(&["image", "backoff", "clock", "metrics"])),
    ("store", Use(&["image", "event", "history", "policy", "clock", "metrics"])),
    ("intake", Use(&["image", "event", "history", "listen", "store", "clock", "metrics", "shutdown"])),
    ("alert", Use(&["image", "policy", "store", "backoff", "clock", "metrics", "shutdown"])),
    // Opens connections by the rules of `registry`, and is what `intake` asks for keys and certificates.
    ("identity", Use(&["event", "registry", "intake", "backoff"])),
    // What it prints of the record are the rows that `store` reads.
    ("report", Use(&["image", "event", "history", "policy", "document", "store"])),
    (
        "admin",
        Use(&["image", "event", "history", "policy", "listen", "store", "report", "clock", "metrics", "shutdown"]),
    ),
    (
        "config",
        Use(&["image", "event", "policy", "document", "registry", "store", "intake", "alert", "admin", "telemetry"]),
    ),
    // The conductors: they call the others and touch nothing themselves.
    (
        "pipeline",
        Use(&[
            "image", "event", "history", "policy", "registry", "store", "report", "alert", "backoff", "clock",
            "metrics", "shutdown",
        ]),
    ),
    ("cli", UseAll),
    ("app", UseAll),
    // The map of rooms, and the way in.
    ("lib", UseAll),
    ("main", UseAll),
];

/// The rooms that could become a package of their own: no I/O, no clock, no async, no log.
const PURE: &[&str] = &["image", "backoff", "document", "event", "history", "policy"];

/// What a pure room never says, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("tokio", "no async"),
    ("async fn", "no async"),
    (".await", "no async"),
    ("hyper", "no network"),
    // Addresses of `std::net` are values; these reach out.
    ("TcpStream", "no network"),
    ("TcpListener", "no network"),
    ("UdpSocket", "no network"),
    ("ToSocketAddrs", "no network"),
    ("std::fs", "no files"),
    ("std::io::std", "no terminal"),
    ("rusqlite", "no database"),
    ("std::process", "no other programs"),
    ("std::thread", "no threads"),
    ("std::env", "the environment is read at the edge"),
    ("Instant::now", "the time is a field of what is judged"),
    ("SystemTime::now", "the time is a field of what is judged"),
    ("Timestamp::now", "the time is a field of what is judged"),
    ("Zoned::now", "the time is a field of what is judged"),
    ("now_v7", "the time is a field of what is judged"),
    ("tracing", "what is worth telling is a value"),
    ("prometheus", "what is worth counting is a value"),
    ("print!", "what is worth telling is a value"),
    ("println!", "what is worth telling is a value"),
];

/// One wall broken.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: PathBuf,
    line: usize,
    word: String,
    why: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}`: {}", self.file.display(), self.line, self.word, self.why)
    }
}

#[test]
fn rooms_import_only_what_they_may() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 10, "the sources were not found below {}", source.display());
    let texts: Vec<(&Path, String)> =
        files.iter().map(|file| (file.strip_prefix(&source).unwrap(), fs::read_to_string(file).unwrap())).collect();
    let tests: Vec<PathBuf> = texts.iter().flat_map(|(file, text)| test_modules(file, &code_of(text))).collect();
    let breaches: Vec<String> = texts
        .iter()
        // A module of tests belongs to no room: it may build whatever it tests with.
        .filter(|(file, _)| !tests.iter().any(|module| file.with_extension("").starts_with(module)))
        .flat_map(|(file, text)| breaches(file, text))
        .map(|breach| breach.to_string())
        .collect();
    assert!(
        breaches.is_empty(),
        "{} (the table is in tests/boundaries.rs):\n  src/{}",
        match breaches.len() {
            1 => "a wall is broken".to_owned(),
            n => format!("{n} walls are broken"),
        },
        breaches.join("\n  src/")
    );
}

#[test]
fn the_table_is_whole() {
    let known: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for (room, may) in ROOMS {
        assert_eq!(known.iter().filter(|other| *other == room).count(), 1, "{room} is in the table once");
        let Use(others) = may else { continue };
        for other in *others {
            assert!(known.contains(other), "{room} may import {other}, which is no room");
            assert!(
                !PURE.contains(room) || PURE.contains(other),
                "{room} is pure and may import {other}, which is not"
            );
        }
    }
    for room in PURE {
        assert!(known.contains(room), "{room} is called pure and is no room");
    }
}

/// The test of the test: each text is put where it would be, and the words found are compared.
#[test]
fn a_broken_wall_is_found() {
    for (file, text, expected) in [
        ("policy/mod.rs", "use crate::image::Tag;\n", vec![]),
        ("policy/mod.rs", "\nuse crate::store::Store;\n", vec!["2 crate::store"]),
        (
            "image/tag.rs",
            "use crate::{\n    image::Digest,\n    policy::{Rule, event},\n    store,\n};\n",
            vec!["3 crate::policy", "4 crate::store"],
        ),
        ("event/mod.rs", "fn f() -> crate::registry::Client { todo!() }", vec!["1 crate::registry"]),
        ("event/mod.rs", "pub(crate) fn f() {}", vec![]),
        ("event/acr.rs", "use super::super::store::Store;", vec!["1 super::super::"]),
        ("event/acr.rs", "use super::Event;", vec![]),
        ("backoff.rs", "use super::image::Tag;", vec!["1 super::"]),
        (
            "image/mod.rs",
            "// tokio, crate::store\n/* std::fs /* nested */ tokio */ const A: &str = \"std::env \\\" tokio\";",
            vec![],
        ),
        (
            "image/mod.rs",
            "const A: &str = r#\"tokio \" tokio\"#; const B: char = '\"'; fn f<'a>() { tokio::spawn() }",
            vec!["1 tokio"],
        ),
        ("policy/judge.rs", "let now = jiff::Timestamp::now();\nprintln!();", vec!["1 Timestamp::now", "2 println!"]),
        (
            "policy/judge.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests { use crate::store::Store; fn f() { std::fs::read(\"x\"); } }",
            vec![],
        ),
        (
            "policy/judge.rs",
            "#[cfg(test)]\nmod golden;\n#[cfg(test)]\nuse std::fs;\nfn f() { std::env::args() }",
            vec!["5 std::env"],
        ),
        (
            "policy/judge.rs",
            "#[cfg(test)]\nmod golden;\n#[cfg(test)]\nuse std::fs;\nfn f() { std::env::args() }",
            vec!["5 std::env"],
        ),
        ("policy/judge.rs", "fn retracing_hypertokio() {}", vec![]),
        ("intake/mod.rs", "use tokio::net::TcpListener;\nuse crate::config::Config;", vec!["2 crate::config"]),
        ("cli/mod.rs", "use crate::{app, store::Store};", vec![]),
        ("kitchen/mod.rs", "", vec!["1 kitchen"]),
    ] {
        let found: Vec<String> =
            breaches(Path::new(file), text).iter().map(|b| format!("{} {}", b.line, b.word)).collect();
        assert_eq!(found, expected, "{file}: {text}");
    }
}

#[test]
fn modules_of_tests_are_known_by_their_declaration() {
    for (file, code, expected) in [
        ("report/mod.rs", "#[cfg(test)]\nmod tests;\nmod text;", vec!["report/tests"]),
        ("report/text.rs", "#[cfg(test)] pub(crate) mod golden;", vec!["report/text/golden"]),
        ("backoff.rs", "#[cfg(test)]\nmod tests { mod inner {} }", vec!["backoff/tests"]),
        ("backoff.rs", "#[cfg(test)]\nfn f() {}\nmod real;", vec![]),
    ] {
        let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
        assert_eq!(test_modules(Path::new(file), code), expected, "{file}: {code}");
    }
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    into.sort();
}

/// What is wrong in one file; `file` is below `src`.
fn breaches(file: &Path, text: &str) -> Vec<Breach> {
    let breach =
        |line: usize, word: &str, why: String| Breach { file: file.to_owned(), line, word: word.to_owned(), why };
    let first = file.components().next().unwrap().as_os_str().to_str().unwrap();
    let room = first.strip_suffix(".rs").unwrap_or(first);
    let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![breach(1, room, "is no room of the table: add it with what it may import".into())];
    };
    let code = &without_tests(&code_of(text));
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;

    let mut found = Vec::new();
    if let Use(others) = may {
        for (at, import) in imports(code) {
            if import != room && ROOMS.iter().any(|(name, _)| *name == import) && !others.contains(&import) {
                found.push(breach(line_of(at), &format!("crate::{import}"), format!("`{room}` may not import it")));
            }
        }
        // `super` past the room's own door would be a way around the check above.
        let depth = file.components().count() - usize::from(file.file_name().is_some_and(|name| name == "mod.rs"));
        let way_out = "super::".repeat(depth);
        for at in words(code, &way_out) {
            found.push(breach(line_of(at), &way_out, "leaves the room: write `crate::`".into()));
        }
    }
    if PURE.contains(&room) {
        for (word, why) in FORBIDDEN {
            for at in words(code, word) {
                found.push(breach(line_of(at), word, format!("`{room}` is pure: {why}")));
            }
        }
    }
    found.sort_by_key(|breach| breach.line);
    found
}

const TEST: &str = "#[cfg(test)]";

/// Where the modules are that `file` declares for tests alone, as paths below `src` without an extension.
fn test_modules(file: &Path, code: &str) -> Vec<PathBuf> {
    let within = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => file.with_file_name(""),
        _ => file.with_extension(""),
    };
    let declared = code.match_indices(TEST).filter_map(|(at, _)| {
        let item = &code[at + TEST.len()..];
        let words: Vec<&str> = item[..item.find(['{', ';'])?].split_whitespace().collect();
        words.iter().position(|word| *word == "mod").and_then(|at| words.get(at + 1).copied())
    });
    declared.map(|name| within.join(name)).collect()
}

/// The code with every item blanked out that is for tests alone, line by line as before.
fn without_tests(code: &str) -> String {
    let mut rest = String::with_capacity(code.len());
    let mut from = 0;
    while let Some(at) = code[from..].find(TEST) {
        rest.push_str(&code[from..from + at]);
        let item = &code[from + at + TEST.len()..];
        let mut depth = 0;
        let end = item.find(|c| match c {
            '{' => {
                depth += 1;
                false
            }
            '}' => {
                depth -= 1;
                depth == 0
            }
            c => c == ';' && depth == 0,
        });
        let next = from + at + TEST.len() + end.map_or(item.len(), |end| end + 1);
        rest.extend(code[from + at..next].chars().filter(|c| *c == '\n'));
        from = next;
    }
    rest.push_str(&code[from..]);
    rest
}

/// The first names after every `crate::`, with where they stand; of `crate::{a::b, c}` these are `a` and `c`.
fn imports(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for at in words(code, "crate::") {
        let start = at + "crate::".len();
        if !code[start..].starts_with('{') {
            found.push((start, name_at(code, start)));
            continue;
        }
        let (mut depth, mut expects_name) = (0, false);
        for (offset, character) in code[start..].char_indices() {
            match character {
                '{' => (depth, expects_name) = (depth + 1, depth == 0),
                '}' => depth -= 1,
                ',' => expects_name = depth == 1,
                c if c.is_whitespace() => {}
                _ if expects_name => {
                    found.push((start + offset, name_at(code, start + offset)));
                    expects_name = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn name_at(code: &str, start: usize) -> &str {
    let rest = &code[start..];
    &rest[..rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())]
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands and is not part of a longer name.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let joins =
            |edge: Option<char>, neighbour: Option<char>| edge.is_some_and(is_name) && neighbour.is_some_and(is_name);
        !joins(word.chars().next(), before) && !joins(word.chars().next_back(), after)
    })
}

/// The text with comments and the contents of literals blanked out, line by line as before.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = code.chars().next_back();
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !before.is_some_and(is_name)) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if let Some(length) = character(rest) {
            length
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        // One blank in place of it, so that what stood on either side does not grow together.
        code.push(' ');
        code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        rest = &rest[length..];
    }
    code
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = if rest[at..].starts_with("/*") {
            depth += 1;
            2
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of `r"…"`, `br#"…"#` and their like, if one begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|p| rest.strip_prefix(p).is_some_and(|r| r.trim_start_matches('#').starts_with('"')))?;
    let body = &rest[prefix.len()..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let start = prefix.len() + hashes + 1;
    Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()))
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal, if one begins here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let mut characters = rest.strip_prefix('\'')?.chars();
    let first = characters.next()?;
    (first == '\\' || characters.next() == Some('\'')).then(|| quoted(rest, '\''))
}
