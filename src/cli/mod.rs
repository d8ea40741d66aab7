//! The command line: verbs and flags. Parses, calls the rooms, prints, and makes the exit code.
//!
//! Standard output carries the result and nothing else; everything that is said besides goes to standard
//! error. Nothing here judges, stores or speaks a protocol of its own.

mod api;
mod audit;
mod check;
mod clients;
mod dead_letters;
mod doctor;
mod event;
mod explain;
mod fail;
mod init;
mod judging;
mod local;
mod policies;
mod policy;
mod record;
mod replay;
mod rows;
mod serve;
mod shell;
mod store;
mod targets;
mod terminal;
mod trial;

use std::process::ExitCode;

use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use fail::Failure;
use terminal::Terminal;

/// The version, and the revision of the sources it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TIDEWAITER_REVISION"), ")");
/// What the exit codes mean, the same for every command.
const EXIT_CODES: &str = "\
Exit codes:
  0  nothing at or above --fail-on
  1  at least one violation at or above --fail-on
  2  wrong usage, an invalid configuration or policy, or nothing to judge
  3  something could not be determined";

/// Judges every push to a container registry against declarative policies.
#[derive(Debug, Parser)]
#[command(name = "tidewaiter", version = VERSION, about, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(propagate_version = false, disable_help_subcommand = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Audit(audit::Args),
    Policy(policy::Args),
    Event(event::Args),
    Events(record::Events),
    DeadLetters(dead_letters::Args),
    History(record::History),
    Violations(record::Violations),
    Accept(record::Accept),
    Replay(replay::Args),
    Store(store::Args),
    Init(init::Args),
    Doctor(doctor::Args),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let terminal = Terminal::new();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end well; where nobody reads them is no fault either.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli.command, &terminal) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            terminal.complain(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: Command, terminal: &Terminal) -> Result<u8, Failure> {
    match command {
        Command::Serve(args) => wait(serve::run(args, terminal)),
        Command::Audit(args) => wait(audit::run(args, terminal)),
        Command::Check(args) => wait(check::run(args, terminal)),
        Command::Policy(args) => policy::run(args, terminal),
        Command::Event(args) => event::run(args, terminal),
        Command::Events(args) => wait(record::events(args, terminal)),
        Command::DeadLetters(args) => wait(dead_letters::run(args, terminal)),
        Command::History(args) => wait(record::history(args, terminal)),
        Command::Violations(args) => wait(record::violations(args, terminal)),
        Command::Accept(args) => wait(record::accept(args, terminal)),
        Command::Replay(args) => wait(replay::run(args, terminal)),
        Command::Store(args) => store::run(args, terminal),
        Command::Init(args) => init::run(args, terminal),
        Command::Doctor(args) => wait(doctor::run(args, terminal)),
        Command::Completions(args) => shell::completions(&args, Cli::command(), terminal),
        Command::Man(args) => shell::man(&args, Cli::command(), terminal),
    }
}

/// How long a thread for blocking work is kept that has nothing to do: it holds its stack.
const BLOCKING_THREADS_KEPT: Duration = Duration::from_secs(2);

/// Runs a command that waits for others.
fn wait(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_keep_alive(BLOCKING_THREADS_KEPT).build();
    let runtime = runtime.map_err(|error| Failure::say(format!("the program cannot start its threads: {error}")))?;
    let code = runtime.block_on(command);
    runtime.shutdown_background();
    code
}
