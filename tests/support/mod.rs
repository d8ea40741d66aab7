//! Shared by the integration tests, the demo and the test tool: certificates, images, the real programs that
//! tidewaiter stands beside, and a hostile registry in memory. Use with `mod support;` and an `#[expect(dead_code)]`.

pub mod alertmanager;
pub mod azure;
pub mod daemon;
pub mod fake;
pub mod http;
pub mod images;
pub mod program;
pub mod prometheus;
pub mod push;
pub mod real;
pub mod stage;
pub mod tls;
