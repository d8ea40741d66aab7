//! `tidewaiter dead-letters`: what came and could not be read; with `--retry` it is read again, by the daemon
//! where one answers, else here.

use hyper::Method;
use serde_json::{Value, json};

use super::fail::{Failure, configuration};
use super::record::{Listing, Record, pages};
use super::terminal::Terminal;
use crate::app;
use crate::config::Config;
use crate::report::{dead_letter_json, dead_letters_text};
use crate::store::Store;

/// List what came and could not be read, with the fault; read it again after an upgrade
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read all of them again, by the formats and the configuration of now; `-o json` lists those that are left
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    listing: Listing,
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let record = Record::open(&args.listing.place).await?;
    if args.retry {
        let (read, recorded, kept) = retry(&args, &record).await?;
        let events = if recorded == 1 { "event" } else { "events" };
        terminal.note(&format!("{read} could be read now, with {recorded} new {events}; {kept} still cannot"));
        if args.listing.is_text() {
            if kept > 0 {
                terminal.note("`tidewaiter dead-letters` lists those");
            }
            return Ok(0);
        }
    }
    let (letters, more) = match &record {
        Record::Daemon(api) => api.list("dead-letters", &[], args.listing.most()).await?,
        Record::Store(store) => {
            let (letters, more) = pages(args.listing.most(), |paging| store.dead_letters(paging)).await?;
            (letters.iter().map(dead_letter_json).collect(), more)
        }
    };
    let text = dead_letters_text(&letters, &terminal.listing());
    args.listing.show(terminal, "dead-letters", letters, text, more)
}

/// How many letters could be read, how many events in them were new, and how many letters are left.
async fn retry(args: &Args, record: &Record) -> Result<(u64, u64, u64), Failure> {
    match record {
        Record::Daemon(api) => {
            let done = api.ask(Method::POST, "/api/v1/dead-letters/retry", Some(&json!({}))).await?;
            let count = |name: &str| done.get(name).and_then(Value::as_u64).unwrap_or_default();
            Ok((count("read"), count("recorded"), count("kept")))
        }
        Record::Store(store) => {
            let config = configuration(args.listing.place.config.as_deref())?;
            let config = config.unwrap_or_else(Config::default_for_no_file);
            let done = app::retry_dead_letters(&config, store).await;
            let done = done.map_err(|error| Failure::undetermined(format!("{error:#}")))?;
            Ok((done.read, done.recorded, done.kept))
        }
    }
}
