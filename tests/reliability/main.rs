//! Nothing acknowledged is lost, nothing missed stays unseen: crashes, full disks, registries that lie, are slow or
//! away, hooks that say nothing, clocks that jump. Here in short; `make reliability` runs the long forms
//! (`TIDEWAITER_LONG`), and `make sabotage` shows that each test fails where its guarantee is broken on purpose.
//!
//! Every run prints its seed and counts; `TIDEWAITER_SEED` repeats one.

#![expect(
    clippy::disallowed_methods,
    reason = "a test of its own is the edge: it reads its length and seed from the environment"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

mod clock;
mod crash;
mod disk;
#[cfg(failpoints)]
mod fail;
mod house;
mod order;
mod outage;
mod power;
mod random;
mod real;
mod shelf;
mod start;
mod steps;
mod sweep;
mod tape;

/// Whether the long forms are asked for.
fn long() -> bool {
    std::env::var_os("TIDEWAITER_LONG").is_some()
}

/// One of two numbers: the short form's, or the long form's.
fn size(short: usize, long_form: usize) -> usize {
    if long() { long_form } else { short }
}
