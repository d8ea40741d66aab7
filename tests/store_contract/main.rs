//! What every store promises, written against the trait, and what the embedded one promises besides.
//!
//! A store joins by a module that opens one and hands it to each function of `contract`.

#![expect(
    clippy::disallowed_methods,
    reason = "tests are told how long to run by the environment, and wait by the real time"
)]

mod contract;
mod crash;
mod embedded;
mod kit;
mod lines;
