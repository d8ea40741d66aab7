//! What is on record: violations, histories, events, and the acceptance of a moved tag.
//!
//! The daemon is asked where it answers; else the embedded store is opened, which works while no daemon has it.

use std::collections::HashSet;
use std::time::Duration;

use clap::ValueEnum;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::api::{Api, Refusal, Where};
use super::fail::{Failure, configuration};
use super::rows;
use super::store::path_of;
use super::targets::reference;
use super::terminal::Terminal;
use crate::app::open_store;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::history::{Origin, Period};
use crate::image::{Host, Reference, RepositoryName, Tag};
use crate::policy::{Answer, Fact, Question, State};
use crate::report::{
    event_json, event_line, events_text, history_json, history_text, listing_json, violation_json, violations_text,
    visible,
};
use crate::store::embedded::EmbeddedStore;
use crate::store::{EventRow, Page, Paging, Recheck, Store, StoreError, ViolationFilter, ViolationRow};

/// Most rows read from the store at a time: as many as it gives.
const PAGE: usize = 1_000;
/// How often `--follow` looks for new events.
const FOLLOW: Duration = Duration::from_secs(1);

/// How a listing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// The flags of every listing.
#[derive(Debug, clap::Args)]
pub(super) struct Listing {
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Most items shown
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    pub place: Where,
}

/// List what is pending and firing
#[derive(Debug, clap::Args)]
pub(super) struct Violations {
    /// Only these states; may be repeated [default: pending and firing]
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = ["pending", "firing", "resolved"])]
    state: Vec<String>,
    /// Only this registry
    #[arg(long, value_name = "HOST")]
    registry: Option<Host>,
    /// Only this repository, without its registry
    #[arg(long, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// Only this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    #[command(flatten)]
    listing: Listing,
}

/// Show which digest a tag had, from when to when, who moved it, and where that is known from
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// HOST/REPO:TAG
    #[arg(value_name = "REFERENCE")]
    reference: String,
    #[command(flatten)]
    listing: Listing,
}

/// List the events recorded, and what became of them
#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Go on with new events as they come, until interrupted
    #[arg(long, conflicts_with = "output")]
    follow: bool,
    /// Only those since a time, or for so long: 2026-11-22T10:00:00Z, 24h
    #[arg(long, value_name = "TIME|DURATION")]
    since: Option<String>,
    /// Only those of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    #[command(flatten)]
    listing: Listing,
}

/// Take a moved tag's new digest as its baseline
#[derive(Debug, clap::Args)]
pub(super) struct Accept {
    /// HOST/REPO:TAG@DIGEST
    #[arg(value_name = "REFERENCE@DIGEST")]
    reference: String,
    /// Why: kept with the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    place: Where,
}

/// Where the record is read from.
pub(super) enum Record {
    Daemon(Api),
    Store(EmbeddedStore),
}

impl Record {
    /// The daemon if it answers, else the store if it is free.
    pub async fn open(place: &Where) -> Result<Record, Failure> {
        let config = configuration(place.config.as_deref())?;
        let api = Api::new(place, config.as_ref())?;
        let why = match api.ask(Method::GET, "/openapi.json", None).await {
            Err(Refusal::NoAnswer(why)) => why,
            Ok(_) | Err(Refusal::Said { .. }) => return Ok(Record::Daemon(api)),
        };
        if place.server.is_some() {
            return Err(Failure::undetermined(why));
        }
        let path = path_of(config.as_ref().unwrap_or(&Config::default_for_no_file()))
            .map_err(|_| Failure::undetermined(why.clone()).help("the daemon is needed: the store is not a file"))?;
        if !path.is_file() {
            return Err(Failure::undetermined(format!("{why}, and there is no store `{}`", path.display()))
                .help("name the daemon's configuration with --config, or its admin listener with --server URL"));
        }
        match open_store(config.as_ref().unwrap_or(&Config::default_for_no_file()), &path) {
            Ok(store) => Ok(Record::Store(store)),
            Err(error @ StoreError::InUse { .. }) => {
                Err(Failure::undetermined(format!("{why}; and {error}")).help(format!(
                    "the daemon runs but its admin listener is not at {}: name its configuration with --config, or the listener with --server URL",
                    api.base()
                )))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Rows page by page, until there are no more or there are enough; and whether there are more.
pub(super) async fn pages<T, F>(most: usize, mut read: impl FnMut(Paging) -> F) -> Result<(Vec<T>, bool), Failure>
where
    F: Future<Output = Result<Page<T>, StoreError>>,
{
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let page = read(Paging { cursor, limit: PAGE.min(most - items.len()) }).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() || items.len() >= most {
            return Ok((items, cursor.is_some()));
        }
    }
}

/// The rows of a list that the daemon gave.
fn read<T>(list: (Vec<Value>, bool), row: impl Fn(&Value) -> Result<T, Failure>) -> Result<(Vec<T>, bool), Failure> {
    Ok((list.0.iter().map(row).collect::<Result<_, _>>()?, list.1))
}

impl Listing {
    /// Whether the list is for people.
    pub fn is_text(&self) -> bool {
        self.output == Form::Text
    }

    pub fn most(&self) -> usize {
        self.limit as usize
    }

    /// Prints a list, and says so when there is more of it.
    pub fn show(
        &self,
        terminal: &Terminal,
        name: &str,
        json: Vec<Value>,
        text: String,
        more: bool,
    ) -> Result<u8, Failure> {
        match self.output {
            Form::Text => terminal.print(&text)?,
            Form::Json => {
                let list = listing_json(name, json, None);
                terminal.print(&format!("{}\n", serde_json::to_string_pretty(&list).unwrap_or_default()))?;
            }
        }
        if more {
            terminal.note(&format!("these are the newest {}; --limit N shows more", self.limit));
        }
        Ok(0)
    }
}

pub(super) async fn violations(args: Violations, terminal: &Terminal) -> Result<u8, Failure> {
    let (found, more): (Vec<ViolationRow>, bool) = match Record::open(&args.listing.place).await? {
        Record::Daemon(api) => {
            let mut query: Vec<(&str, String)> = Vec::new();
            if !args.state.is_empty() {
                query.push(("state", args.state.join(",")));
            }
            query.extend(args.registry.as_ref().map(|r| ("registry", r.to_string())));
            query.extend(args.repository.as_ref().map(|r| ("repository", r.to_string())));
            query.extend(args.policy.as_ref().map(|p| ("policy", p.clone())));
            read(api.list("violations", &query, args.listing.most()).await?, rows::violation)?
        }
        Record::Store(store) => {
            let filter = ViolationFilter {
                states: args.state.iter().filter_map(|word| State::from_word(word)).collect(),
                registry: args.registry.clone(),
                repository: args.repository.as_ref().map(|r| r.to_string()),
                policy: args.policy.clone(),
            };
            pages(args.listing.most(), |paging| store.violations(filter.clone(), paging)).await?
        }
    };
    let text = violations_text(&found, &terminal.listing());
    args.listing.show(terminal, "violations", found.iter().map(violation_json).collect(), text, more)
}

pub(super) async fn history(args: History, terminal: &Terminal) -> Result<u8, Failure> {
    let reference = reference(&args.reference)?;
    let tag = tag_of(&reference)?;
    // Newest first, as listed.
    let periods: Vec<Period> = match Record::open(&args.listing.place).await? {
        Record::Daemon(api) => {
            let query = [("reference", format!("{}:{tag}", reference.repository))];
            match api.list("history", &query, args.listing.most()).await {
                Ok(list) => read(list, rows::period)?.0,
                Err(Refusal::Said { status: 404, .. }) => Vec::new(),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Record::Store(store) => {
            let answers = store.answer(&reference.repository, vec![Question::Tag(tag.clone())]).await?;
            let history = answers.into_iter().find_map(|(_, answer)| match answer {
                Answer::Tag(Fact::Known(record)) => record.history.clone(),
                _ => None,
            });
            let mut periods = history.map(|history| history.periods()).unwrap_or_default();
            periods.reverse();
            periods.truncate(args.listing.most());
            periods
        }
    };
    let oldest_first: Vec<Period> = periods.iter().rev().cloned().collect();
    let text = history_text(&format!("{}:{tag}", reference.repository), &oldest_first, &terminal.listing());
    args.listing.show(terminal, "history", periods.iter().map(history_json).collect(), text, false)
}

fn tag_of(reference: &Reference) -> Result<&Tag, Failure> {
    reference.tag.as_ref().ok_or_else(|| {
        Failure::say(format!("`{reference}` has no tag")).help(format!("write `{}:TAG`", reference.repository))
    })
}

pub(super) async fn events(args: Events, terminal: &Terminal) -> Result<u8, Failure> {
    let since = args.since.as_deref().map(moment).transpose()?;
    let record = Record::open(&args.listing.place).await?;
    if !args.follow {
        let (mut found, more) = read_events(&record, since, args.source.as_deref(), args.listing.most()).await?;
        if let (Record::Store(_), Some(config)) = (&record, configuration(args.listing.place.config.as_deref())?) {
            let open = |name: &str| config.sources.iter().any(|s| s.name == name && s.auth.is_none());
            found.iter_mut().for_each(|row| row.unauthenticated = open(&row.source));
        }
        let text = events_text(&found, &terminal.listing());
        return args.listing.show(terminal, "events", found.iter().map(event_json).collect(), text, more);
    }
    let Record::Daemon(_) = &record else {
        return Err(Failure::undetermined("no daemon answers, so there are no new events to follow")
            .help("start it with `tidewaiter serve`, or leave out --follow to see what is on record"));
    };
    let mut from = since.unwrap_or_else(|| SystemClock.now());
    // What was shown already with this very time of receipt.
    let mut shown: HashSet<String> = HashSet::new();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let (mut found, _) = read_events(&record, Some(from), args.source.as_deref(), PAGE).await?;
        found.reverse();
        for row in &found {
            let key = format!("{:?}", (&row.id, &row.source, row.received_at, &row.repository, &row.tag, &row.digest));
            if shown.contains(&key) {
                continue;
            }
            terminal.print(&event_line(row, &terminal.listing()))?;
            if row.received_at > from {
                from = row.received_at;
                shown.clear();
            }
            shown.insert(key);
        }
        tokio::select! {
            _ = &mut interrupted => return Ok(0),
            () = tokio::time::sleep(FOLLOW) => {}
        }
    }
}

async fn read_events(
    record: &Record,
    since: Option<Timestamp>,
    source: Option<&str>,
    most: usize,
) -> Result<(Vec<EventRow>, bool), Failure> {
    match record {
        Record::Daemon(api) => {
            let mut query: Vec<(&str, String)> = Vec::new();
            query.extend(since.map(|since| ("since", since.to_string())));
            query.extend(source.map(|source| ("source", source.to_owned())));
            read(api.list("events", &query, most).await?, rows::event)
        }
        Record::Store(store) => {
            pages(most, |paging| store.events(since, source.map(str::to_owned), None, paging)).await
        }
    }
}

/// A time, or how long ago.
pub(super) fn moment(text: &str) -> Result<Timestamp, Failure> {
    let ago = || text.parse::<SignedDuration>().ok().and_then(|ago| SystemClock.now().checked_sub(ago.abs()).ok());
    let days = || {
        let days: i64 = text.strip_suffix('d')?.parse().ok()?;
        SystemClock.now().checked_sub(SignedDuration::from_hours(days.checked_mul(24)?)).ok()
    };
    text.parse().ok().or_else(ago).or_else(days).ok_or_else(|| {
        Failure::say(format!("`{}` is neither a time nor a duration", visible(text)))
            .help("write --since 24h, or --since 2026-11-22T10:00:00Z")
    })
}

pub(super) async fn accept(args: Accept, terminal: &Terminal) -> Result<u8, Failure> {
    let reference = reference(&args.reference)?;
    let (Some(tag), Some(digest)) = (&reference.tag, &reference.digest) else {
        return Err(Failure::say(format!("`{reference}` does not say which digest of which tag is accepted"))
            .help(format!("write `{}:TAG@sha256:…`; `tidewaiter history` shows the digests", reference.repository)));
    };
    let reason = args.reason.trim();
    if reason.is_empty() || reason.chars().any(char::is_control) {
        return Err(Failure::say("--reason must be one line that says why; it is kept with the record"));
    }
    match Record::open(&args.place).await? {
        Record::Daemon(api) => {
            let body = json!({ "reference": reference.to_string(), "reason": reason });
            api.ask(Method::POST, "/api/v1/acceptances", Some(&body)).await?;
        }
        Record::Store(store) => {
            let now = SystemClock.now();
            store.accept(&reference.repository, tag, digest, reason, now).await?;
            let recheck = Recheck { tag: Some(tag.clone()), due: now, origin: Origin::PolicyChange, attempts: 0 };
            store.recheck(&reference.repository, vec![recheck]).await?;
            terminal.note("no daemon answers: the tag is judged again when it runs");
        }
    }
    terminal.print(&format!(
        "{}:{tag} is taken to be {digest} from now on: {}\n",
        reference.repository,
        visible(reason)
    ))?;
    Ok(0)
}
