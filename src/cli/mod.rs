//! The command line: verbs and flags. Parses, calls one room, prints, and makes the exit code.

use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let config = match (args.next().as_deref(), args.next().as_deref(), args.next()) {
        (Some("serve"), Some("--config"), Some(path)) => crate::config::Config::load(&PathBuf::from(path)),
        _ => return ExitCode::from(2),
    };
    let config = match config {
        Ok(config) => config,
        Err(faults) => {
            eprint!("{}", crate::document::render(&faults, false));
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    match runtime.block_on(crate::app::serve(config)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
