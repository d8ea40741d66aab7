//! Shared by the integration tests, the demo and the test tool: certificates, images, and the real programs that
//! tidewaiter stands beside. Use with `mod support;`.

pub mod alertmanager;
pub mod daemon;
pub mod http;
pub mod images;
pub mod program;
pub mod prometheus;
pub mod push;
pub mod real;
pub mod tls;
