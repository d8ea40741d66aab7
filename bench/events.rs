//! Parsing and normalising a sender's payload, beside a typed parse of the same bytes that checks nothing.

use std::hint::black_box;

use serde::Deserialize;
use tidewaiter::event::{Format, Headers, Request};

use crate::harness::{Figure, Goal, in_turns};

const ROUNDS: usize = 21;
/// Captured: what docker-registry 2.8.2 sent of an index, 1,029 bytes.
const BODY: &[u8] = include_bytes!("../tests/data/events/distribution/captured-v2-index-push.json");
const HEADERS: &str = include_str!("../tests/data/events/distribution/captured-v2-index-push.http-headers");

/// The payload as its documentation has it: what a program would write that trusts its sender.
#[derive(Deserialize)]
struct Envelope {
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read as a whole, as such a program does")]
struct Event {
    id: String,
    timestamp: String,
    action: String,
    target: Target,
    request: Origin,
    actor: Actor,
    source: Source,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read as a whole, as such a program does")]
struct Target {
    media_type: String,
    size: u64,
    digest: String,
    length: u64,
    repository: String,
    url: String,
    tag: Option<String>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read as a whole, as such a program does")]
struct Origin {
    id: String,
    addr: String,
    host: String,
    method: String,
    useragent: String,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read as a whole, as such a program does")]
struct Actor {
    name: Option<String>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read as a whole, as such a program does")]
struct Source {
    addr: String,
    #[serde(rename = "instanceID")]
    instance_id: String,
}

pub fn run() -> anyhow::Result<Vec<Figure>> {
    let headers = Headers::from_lines(HEADERS)?;
    let request = Request { method: "POST", headers: &headers, body: BODY };
    anyhow::ensure!(Format::Distribution.parse(&request)?.events.len() == 1, "the payload is one event");
    anyhow::ensure!(serde_json::from_slice::<Envelope>(BODY)?.events.len() == 1, "the payload is one event");
    let pair = in_turns(
        ROUNDS,
        &mut || {
            let _ = black_box(Format::Distribution.parse(black_box(&request)));
        },
        &mut || {
            let _ = black_box(serde_json::from_slice::<Envelope>(black_box(BODY)));
        },
    )
    .scaled(1e6);
    let name = "event of 1 KiB, parsed and normalised";
    Ok(vec![
        Figure::absolute(name, pair.value, "µs", Goal::AtMost(10.0)),
        Figure::beside(name, "µs", &pair, "typed serde parse", Goal::RatioAtMost(2.0)),
    ])
}
