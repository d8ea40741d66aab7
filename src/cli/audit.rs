//! `tidewaiter audit`: judges every tag of repositories or of whole registries.

use indicatif::ProgressBar;

use super::check::{Outcome, nothing};
use super::clients::Clients;
use super::fail::Failure;
use super::judging::{self, Flags};
use super::policies;
use super::targets::Area;
use super::terminal::Terminal;
use crate::app::Recorder;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::history::Origin;
use crate::image::{Host, Repository, RepositoryName};
use crate::pipeline::{Live, Source};
use crate::policy::PolicySet;
use crate::registry::{Budget, Client, Cursor, PAGES_MAX, RegistryError};
use crate::report::Problem;
use crate::store::StoreError;
use crate::store::embedded::ReadOnly;

/// Tags looked at in one session: a session has a budget of time, which a registry of any size must not use up.
const CHUNK: usize = 500;
/// What reading the list of repositories may use.
const CATALOG: Budget = Budget { requests: 2 * PAGES_MAX, bytes: 1 << 30, time: std::time::Duration::from_secs(600) };

const EXAMPLES: &str = "\
Examples:
  tidewaiter audit contoso.azurecr.io/iot/sensor
  tidewaiter audit contoso.azurecr.io --policy policies/ -o text -o jsonl=audit.jsonl
  tidewaiter audit contoso.azurecr.io --config tidewaiter.yaml --record";

/// Judge every tag of repositories or of whole registries
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(super) struct Args {
    /// HOST for every repository of a registry, HOST/REPO for one
    #[arg(value_name = "HOST[/REPO]", required = true)]
    areas: Vec<String>,
    /// Write what is found into the configured store: the baseline that later pushes are compared with. A running
    /// daemon does this by itself
    #[arg(long, conflicts_with = "policies")]
    record: bool,
    #[command(flatten)]
    flags: Flags,
}

fn help() -> String {
    format!("{EXAMPLES}\n\n{}", super::EXIT_CODES)
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let areas = args.areas.iter().map(|text| Area::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let (config, loaded) = args.flags.read(terminal)?;
    let recorder = match &config {
        _ if !args.record => None,
        Some(config) => Some(open(config)?),
        None => {
            return Err(Failure::say("--record needs the configuration that says where the store is")
                .help("name it with --config, as in `--config tidewaiter.yaml`"));
        }
    };
    // Who writes the record judges by it.
    let record = if args.record { None } else { judging::record(config.as_ref(), terminal) };
    let mut clients = Clients::new(&args.flags.reach, config.as_ref())?;
    let mut outcome = Outcome::default();
    let mut repositories: Vec<Repository> = Vec::new();
    for area in areas {
        let found = match area {
            Area::Repository(repository) => vec![repository],
            Area::Registry(host) => {
                let bar = terminal.progress(&format!("listing {host}"), 0);
                let listed = catalog(&clients.client(&host, None).await?, &host).await;
                bar.finish_and_clear();
                listed.unwrap_or_else(|error| {
                    let message = format!(
                        "cannot list its repositories: {error}; name them instead, as in `tidewaiter audit {host}/REPO`"
                    );
                    outcome.problems.push(Problem { target: host.to_string(), message });
                    Vec::new()
                })
            }
        };
        repositories.extend(found.into_iter().filter(|r| !repositories.contains(r)).collect::<Vec<_>>());
    }
    for (n, repository) in repositories.iter().enumerate() {
        if loaded.set.governing(repository).is_empty() {
            outcome.ungoverned.push(repository.clone());
            continue;
        }
        let client = clients.client(&repository.host, Some(&repository.name)).await?;
        let place = format!("{}/{} {repository}", n + 1, repositories.len());
        let source = Source::Registry(client);
        let bar = terminal.progress(&place, 0);
        let record = match (&recorder, &record) {
            (Some(recorder), _) => Past::Written(recorder),
            (None, Some(record)) => Past::Read(record),
            (None, None) => Past::Unknown,
        };
        judge(&source, &loaded.set, repository, record, &bar, &mut outcome).await;
        bar.finish_and_clear();
    }
    if outcome.verdicts.is_empty() && outcome.problems.is_empty() {
        nothing(&outcome, &loaded.set, terminal);
    }
    let (report, absent) = outcome.report();
    args.flags.finish(&report, absent, terminal)
}

/// All repositories of a registry, by its own list.
async fn catalog(client: &Client, host: &Host) -> Result<Vec<Repository>, RegistryError> {
    let session = client.session(CATALOG);
    let mut names: Vec<RepositoryName> = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = session.catalog(after).await?;
        names.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(names.into_iter().map(|name| Repository::new(host.clone(), name)).collect())
}

/// The record, for this process alone.
fn open(config: &Config) -> Result<Recorder, Failure> {
    let set = policies::chosen(&[], Some(config))?.set;
    Recorder::open(config, set).map_err(|error| {
        let failure = Failure::say(format!("{error:#}"));
        match error.downcast_ref::<StoreError>() {
            Some(StoreError::InUse { .. }) => {
                failure.help("a running daemon keeps the baseline itself; leave out --record to see the audit only")
            }
            _ => failure,
        }
    })
}

/// What is known of the tags' past.
enum Past<'a> {
    /// Nothing.
    Unknown,
    /// A daemon's record.
    Read(&'a ReadOnly),
    /// The record, which is written besides.
    Written(&'a Recorder),
}

/// Judges one repository with all its tags and with what it lacks; what a recorder is given for goes on record.
async fn judge(
    source: &Source,
    set: &PolicySet,
    repository: &Repository,
    past: Past<'_>,
    bar: &ProgressBar,
    outcome: &mut Outcome,
) {
    let mut live = Live::new(source, set, repository.clone());
    if let Past::Read(record) = &past
        && let Err(error) = live.remember(record).await
    {
        return outcome.failed(repository.to_string(), &error);
    }
    let tags = match live.tags().await {
        Ok(tags) => tags,
        Err(error) => {
            outcome.failed(repository.to_string(), &error);
            return;
        }
    };
    bar.set_length(tags.len() as u64);
    let mut judged = tags.clone();
    if let Past::Written(recorder) = past {
        match recorder.record(repository, &tags, |n| bar.inc(n as u64)).await {
            Ok(verdicts) => outcome.verdicts.extend(verdicts),
            Err(error) => {
                let message = format!("could not be recorded: {error}");
                outcome.problems.push(Problem { target: repository.to_string(), message });
            }
        }
        // Left to be judged is what the repository lacks.
        judged.clear();
    }
    for chunk in judged.chunks(CHUNK) {
        live.resolve(chunk, || bar.inc(1)).await;
    }
    // Deleted since they were listed: nobody asked for those by name.
    let mut there: Vec<_> = judged.into_iter().filter(|tag| live.digest(tag) != Some(&None)).collect();
    match live.unlisted(&tags).await {
        Ok(gone) => there.extend(gone),
        Err(error) => return outcome.failed(repository.to_string(), &error),
    }
    match live.judge(&there, true, Origin::Audit, SystemClock.now()).await {
        Ok(verdicts) => outcome.verdicts.extend(verdicts),
        Err(error) => outcome.failed(repository.to_string(), &error),
    }
}
