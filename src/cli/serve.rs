//! `tidewaiter serve`: the daemon, which `app` wires.

use std::path::PathBuf;

use clap::ValueHint;

use super::fail::{Failure, configuration};
use super::terminal::Terminal;
use crate::app::{self, PolicyFault};
use crate::config::Config;

/// Run the daemon: receive events, judge, record, alert
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration. Without one: loopback, self-signed TLS, the embedded store in the working directory, the
    /// shipped policies, and no registry, source or sink
    #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let config = configuration(args.config.as_deref())?;
    if config.is_none() {
        terminal.note("no --config: nothing is received until there is a source; `tidewaiter init --registry HOST` writes a configuration");
    }
    let config = config.unwrap_or_else(Config::default_for_no_file);
    app::serve(config).await.map_err(|error| match error.downcast::<PolicyFault>() {
        Ok(PolicyFault(faults)) => Failure::Faults(faults),
        Err(error) => Failure::say(format!("{error:#}")),
    })
}
