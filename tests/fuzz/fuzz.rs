//! `tests/fuzz/run`: every format reads a million payloads changed at random, without a panic and in bounded memory.
//!
//! `cargo run --release --example fuzz -- [INPUTS [SEED [FORMAT]...]]`. A short version is in `tests/events.rs`.

mod mutate;

use std::time::Instant;

use mutate::Random;
use tidewaiter::event::Format;

const INPUTS: u64 = 1_000_000;
/// Growth of the process's memory that is taken for a leak or a bomb, in KiB: the largest body is 256 KiB, and
/// what is read from one is bounded (T-07).
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// The most memory the process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let inputs = arguments.next().map_or(Ok(INPUTS), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let wanted = arguments.map(|text| text.parse()).collect::<Result<Vec<Format>, _>>()?;
    println!(
        "{:26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "format", "inputs", "refused", "nothing", "events", "s", "peak KiB"
    );
    for format in Format::ALL.iter().filter(|format| wanted.is_empty() || wanted.contains(format)) {
        let seeds = mutate::seeds(*format);
        // What the corpus itself takes is no growth.
        mutate::run(*format, &seeds, 1_000, &mut Random::new(0));
        let (before, began) = (peak(), Instant::now());
        let count = mutate::run(*format, &seeds, inputs, &mut Random::new(seed));
        let after = peak();
        println!(
            "{:26} {:>9} {:>9} {:>9} {:>9} {:>9.1} {after:>10}",
            format.as_str(),
            count.inputs,
            count.refused,
            count.nothing,
            count.events,
            began.elapsed().as_secs_f64(),
        );
        anyhow::ensure!(after - before <= GROWTH_KIB_MAX, "{format}: memory grew from {before} to {after} KiB");
    }
    println!("no panic; memory bounded");
    Ok(())
}
