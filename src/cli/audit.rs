//! `tidewaiter audit`: judges every tag of repositories or of whole registries.

use super::check::{Outcome, nothing};
use super::clients::Clients;
use super::fail::Failure;
use super::judging::Flags;
use super::targets::Area;
use super::terminal::Terminal;
use crate::clock::{Clock, SystemClock};
use crate::history::Origin;
use crate::image::{Host, Repository, RepositoryName};
use crate::pipeline::{Live, Source};
use crate::policy::PolicySet;
use crate::registry::{Budget, Client, Cursor, PAGES_MAX, RegistryError};
use crate::report::Problem;

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
    #[command(flatten)]
    flags: Flags,
}

fn help() -> String {
    format!("{EXAMPLES}\n\n{}", super::EXIT_CODES)
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let areas = args.areas.iter().map(|text| Area::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let (config, loaded) = args.flags.read(terminal)?;
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
        judge(&Source::Registry(client), &loaded.set, repository, (&place, terminal), &mut outcome).await;
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

/// Judges one repository with all its tags and with what it lacks.
async fn judge(
    source: &Source,
    set: &PolicySet,
    repository: &Repository,
    (place, terminal): (&str, &Terminal),
    outcome: &mut Outcome,
) {
    let mut live = Live::new(source, set, repository.clone());
    let tags = match live.tags().await {
        Ok(tags) => tags,
        Err(error) => {
            outcome.failed(repository.to_string(), &error);
            return;
        }
    };
    let bar = terminal.progress(place, tags.len() as u64);
    for chunk in tags.chunks(CHUNK) {
        live.resolve(chunk, || bar.inc(1)).await;
    }
    bar.finish_and_clear();
    // Deleted since they were listed: nobody asked for those by name.
    let there: Vec<_> = tags.into_iter().filter(|tag| live.digest(tag) != Some(&None)).collect();
    match live.judge(&there, true, Origin::Audit, SystemClock.now()).await {
        Ok(verdicts) => outcome.verdicts.extend(verdicts),
        Err(error) => outcome.failed(repository.to_string(), &error),
    }
}
