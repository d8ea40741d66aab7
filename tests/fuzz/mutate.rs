//! Payloads changed at random, the same ones for the same seed: what real senders send, cut, spliced, flipped,
//! repeated, and with values that have hurt parsers before.

use std::fs;
use std::path::Path;

use tidewaiter::event::{Format, Headers, Request};

/// What a parser is not expecting at some place.
const POISON: &[&[u8]] = &[
    b"null",
    b"true",
    b"-0",
    b"1e999999",
    b"99999999999999999999999",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"\\u0000\"",
    b"\"\\ud800\"",
    b"\"\\",
    b"\xff",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\0",
    b"\"sha256:\"",
    b"\"../../etc\"",
    b"\"@\"",
    b"\"sha512:00\"",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b"\"e\xcc\x81\"",
    b"=",
    b"%00",
    b"&payload=",
    b"eyJhIjoxfQ==",
    b"Zm9v\n",
    b":",
    b",",
    b"\"",
    b"}",
];
/// Longest body made: beyond it the listener reads none.
const BYTES_MAX: usize = 256 * 1024;

/// Random numbers (SplitMix64): fast, and good enough to choose places.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// A payload to begin with: its header lines and its body.
pub struct Seed {
    headers: String,
    body: Vec<u8>,
}

/// The payloads of a format.
pub fn seeds(format: Format) -> Vec<Seed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/events").join(format.as_str());
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok()?.strip_suffix(".http-headers").map(str::to_owned)
        })
        .collect();
    names.sort();
    let load = |name: &String| Seed {
        headers: fs::read_to_string(folder.join(format!("{name}.http-headers"))).unwrap(),
        body: fs::read(folder.join(format!("{name}.json"))).unwrap_or_default(),
    };
    names.iter().map(load).collect()
}

/// What came of inputs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Inputs.
    pub inputs: u64,
    /// Not of the format at all.
    pub refused: u64,
    /// Read, and nothing to act on.
    pub nothing: u64,
    /// Read as events.
    pub events: u64,
}

/// Has `format` read `inputs` payloads made from its own; panics if it does.
pub fn run(format: Format, seeds: &[Seed], inputs: u64, random: &mut Random) -> Count {
    let mut count = Count::default();
    let mut body = Vec::new();
    for _ in 0..inputs {
        let seed = &seeds[random.below(seeds.len())];
        body.clear();
        body.extend_from_slice(&seed.body);
        for _ in 0..=random.below(4) {
            let other = &seeds[random.below(seeds.len())].body;
            change(&mut body, other, random);
        }
        body.truncate(BYTES_MAX);
        let headers = Headers::from_lines(&seed.headers).unwrap();
        count.inputs += 1;
        match format.parse(&Request { method: headers.method(), headers: &headers, body: &body }) {
            Err(_) => count.refused += 1,
            Ok(parsed) if parsed.events.is_empty() => count.nothing += 1,
            Ok(parsed) => {
                count.events += 1;
                // What came through obeys the grammars, so it can be written and read again.
                for event in parsed.events {
                    assert_eq!(event.repository.as_str().parse().as_ref(), Ok(&event.repository));
                    assert!(
                        event.actor.is_none_or(|actor| actor.len() <= 1_024 && !actor.chars().any(char::is_control))
                    );
                }
            }
        }
    }
    count
}

fn change(body: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(body.len() + 1);
    match random.below(8) {
        0 => body.truncate(at),
        1 => {
            body.truncate(at);
            body.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        2 | 3 => {
            if let Some(byte) = body.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        4 => {
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        5 => {
            let poison = POISON[random.below(POISON.len())];
            body.splice(at..at, poison.iter().copied());
        }
        6 => {
            // A value gone, and poison in its place.
            let end = (at + random.below(40)).min(body.len());
            let poison = POISON[random.below(POISON.len())];
            body.splice(at..end, poison.iter().copied());
        }
        _ => {
            // A piece of it again, which repeats keys and items.
            let end = (at + random.below(400)).min(body.len());
            let piece = body[at..end].to_vec();
            body.splice(at..at, piece);
        }
    }
}
