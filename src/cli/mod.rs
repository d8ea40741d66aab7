//! The command line: verbs and flags. Parses, calls one room, prints, and makes the exit code.

use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    ExitCode::from(2)
}
