//! `tidewaiter event parse`: what a payload is understood as, by the listener's own code.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::ValueHint;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::fail::Failure;
use super::terminal::Terminal;
use crate::event::{Format, Headers, Request, describe};

/// Largest file of headers read, in bytes: the listener takes 64 fields.
const HEADERS_BYTES_MAX: u64 = 64 << 10;

/// Look at the payloads that registries send
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Parse(Parse),
}

/// Print what a payload is understood as, as JSON; exit code 2 if it is not what its format says
#[derive(Debug, clap::Args)]
struct Parse {
    /// The format of the payload
    #[arg(long, value_name = "FORMAT", value_parser = format())]
    format: Format,
    /// A file of `Name: value` lines that came with it; `:method: OPTIONS` gives the method
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    headers: Option<PathBuf>,
    /// The method, where it is not POST
    #[arg(long)]
    method: Option<String>,
    /// The body; `-` or nothing is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    body: Option<PathBuf>,
}

/// The formats by their names.
pub(super) fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.iter().map(|f| f.as_str())).try_map(|word| word.parse::<Format>())
}

pub(super) fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let Verb::Parse(args) = args.verb;
    let lines = match &args.headers {
        Some(path) => String::from_utf8_lossy(&read(path, HEADERS_BYTES_MAX)?).into_owned(),
        None => String::new(),
    };
    let headers = Headers::from_lines(&lines).map_err(|error| {
        let path = args.headers.as_deref().unwrap_or(Path::new("")).display();
        Failure::say(format!("`{path}`: {error}"))
    })?;
    let method = args.method.as_deref().unwrap_or_else(|| headers.method()).to_ascii_uppercase();
    let limit = args.format.body_bytes_max() as u64;
    let body = match &args.body {
        Some(path) => read(path, limit)?,
        // A handshake by OPTIONS has no body; waiting for somebody to type one would look like a fault.
        None if method == "OPTIONS" => Vec::new(),
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::say("no payload: name a file, or pipe one in")
                .help(format!("as in `tidewaiter event parse --format {} payload.json`", args.format)));
        }
        None => read(Path::new("-"), limit)?,
    };
    let request = Request { method: &method, headers: &headers, body: &body };
    let parsed = args.format.parse(&request).map_err(|error| {
        let failure = Failure::say(format!("this is no `{}` event: {error}", args.format));
        match &error {
            crate::event::FormatError::HeaderMissing(_) if args.headers.is_none() => {
                failure.help("give the headers that came with it, with --headers FILE")
            }
            _ => failure,
        }
    })?;
    let text = serde_json::to_string_pretty(&describe(&parsed)).unwrap_or_default();
    terminal.print(&format!("{text}\n"))?;
    Ok(0)
}

/// The bytes of a file or of standard input, no more than a sender may send.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { format!("`{}`", path.display()) };
    let unreadable = |error: std::io::Error| Failure::say(format!("cannot read {name}: {error}"));
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    }
    if bytes.len() as u64 > limit {
        return Err(Failure::say(format!("{name} is larger than the {limit} bytes that the listener takes")));
    }
    Ok(bytes)
}
