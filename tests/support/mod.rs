//! Shared by the integration tests: certificates, a real registry as a subprocess, and a hostile one in memory.
//!
//! Use with `mod support;`. Everything here may panic: a test that cannot be set up has failed.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod fake;
pub mod http;
pub mod real;
pub mod tls;
