//! What every store promises, written against the trait, and what the embedded one promises besides.
//!
//! A store joins by a module that opens one and hands it to each function of `contract`.

mod contract;
mod crash;
mod embedded;
mod kit;
mod lines;
