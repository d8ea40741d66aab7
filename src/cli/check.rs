//! `tidewaiter check`: judges images as they are now, in a registry or on this machine.

use std::collections::BTreeSet;

use super::clients::Clients;
use super::fail::Failure;
use super::judging::{Flags, record};
use super::local;
use super::targets::{Target, reference};
use super::terminal::Terminal;
use crate::clock::{Clock, SystemClock};
use crate::history::Origin;
use crate::image::{Digest, Reference, Repository, Tag};
use crate::pipeline::{Live, LiveError, Source};
use crate::policy::{PolicySet, Verdict};
use crate::report::{Problem, Report, visible};
use crate::store::embedded::ReadOnly;

/// Most tags that are named to somebody who asked for one that is not there.
const NEAREST_MAX: usize = 5;

const EXAMPLES: &str = "\
Examples:
  tidewaiter check contoso.azurecr.io/iot/sensor:1.0.1 contoso.azurecr.io/iot/sensor:latest
  tidewaiter check localhost:5000/iot/sensor:1.0.1 --policy policies/
  tidewaiter check oci:build/image --as contoso.azurecr.io/iot/sensor:1.0.2 -o junit=report.xml";

/// Judge images now, in a registry or in a local image layout
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(super) struct Args {
    /// HOST/REPO:TAG, HOST/REPO@DIGEST, oci:DIR[:TAG] or oci-archive:FILE[:TAG]; tags of one repository are judged together
    #[arg(value_name = "TARGET", required = true)]
    targets: Vec<String>,
    /// Judge a local image as what it is about to be pushed as
    #[arg(long = "as", value_name = "HOST/REPO:TAG")]
    pushed_as: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

fn help() -> String {
    format!("{EXAMPLES}\n\n{}", super::EXIT_CODES)
}

/// What is asked about one repository.
struct Group {
    repository: Repository,
    tags: BTreeSet<Tag>,
    /// Tags that are to be taken as leading to a digest.
    taken: Vec<(Tag, Digest)>,
    /// Digests whose tags are wanted.
    digests: Vec<Digest>,
}

/// What came out of it so far.
#[derive(Default)]
pub(super) struct Outcome {
    pub verdicts: Vec<Verdict>,
    pub ungoverned: Vec<Repository>,
    pub problems: Vec<Problem>,
    /// How many of the problems say that something is not there.
    pub absent: usize,
}

impl Outcome {
    fn missing(&mut self, target: String, message: String) {
        self.problems.push(Problem { target, message });
        self.absent += 1;
    }

    /// What could not even be looked at. That a repository is not there was determined.
    pub fn failed(&mut self, target: String, error: &LiveError) {
        self.absent += usize::from(matches!(error, LiveError::NoRepository(_)));
        self.problems.push(Problem { target, message: error.to_string() });
    }

    /// The report.
    pub fn report(self) -> (Report, usize) {
        let mut report = Report::new(self.verdicts, SystemClock.now());
        report.ungoverned = self.ungoverned;
        report.problems = self.problems;
        (report, self.absent)
    }
}

pub(super) async fn run(args: Args, terminal: &Terminal) -> Result<u8, Failure> {
    let targets = args.targets.iter().map(|text| Target::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let pushed_as = args.pushed_as.as_deref().map(reference).transpose()?;
    let layouts = targets.iter().filter(|t| matches!(t, Target::Layout(_))).count();
    if let Some(reference) = &pushed_as {
        if layouts != 1 || targets.len() != 1 {
            return Err(Failure::say("`--as` says what one local image is about to be pushed as")
                .help("name one `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`, and nothing else"));
        }
        if reference.tag.is_none() {
            return Err(Failure::say(format!("`--as {reference}` names no tag; policies are about tags"))
                .help(format!("write `--as {}:1.0.1`, with the tag that will be pushed", reference.repository)));
        }
    }
    let (config, loaded) = args.flags.read(terminal)?;
    let record = record(config.as_ref(), terminal);
    let mut clients = Clients::new(&args.flags.reach, config.as_ref())?;
    let mut outcome = Outcome::default();
    let mut groups: Vec<Group> = Vec::new();
    for target in targets {
        match target {
            Target::Image(reference) => add(&mut groups, reference),
            Target::Layout(layout) => {
                local::check(&layout, pushed_as.as_ref(), &loaded.set, record.as_ref(), &mut outcome, terminal).await?;
            }
        }
    }
    let wanted = groups.iter().map(|g| g.tags.len() + g.digests.len()).sum::<usize>();
    let bar = terminal.progress("judging", wanted as u64);
    for group in groups {
        at_registry(&mut clients, &loaded.set, record.as_ref(), group, &bar, &mut outcome).await?;
    }
    bar.finish_and_clear();
    if outcome.verdicts.is_empty() && outcome.problems.is_empty() {
        nothing(&outcome, &loaded.set, terminal);
    }
    let (report, absent) = outcome.report();
    args.flags.finish(&report, absent, terminal)
}

/// One reference judged as it is now, for whoever shows it in another way.
///
/// # Errors
/// Where no client can be made for its registry.
pub(super) async fn one(
    reference: Reference,
    clients: &mut Clients<'_>,
    set: &PolicySet,
    record: Option<&ReadOnly>,
    terminal: &Terminal,
) -> Result<Outcome, Failure> {
    let (mut groups, mut outcome) = (Vec::new(), Outcome::default());
    add(&mut groups, reference);
    let bar = terminal.progress("judging", 1);
    for group in groups {
        at_registry(clients, set, record, group, &bar, &mut outcome).await?;
    }
    bar.finish_and_clear();
    Ok(outcome)
}

async fn at_registry(
    clients: &mut Clients<'_>,
    set: &PolicySet,
    record: Option<&ReadOnly>,
    group: Group,
    bar: &indicatif::ProgressBar,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    if set.governing(&group.repository).is_empty() {
        outcome.ungoverned.push(group.repository);
        return Ok(());
    }
    let source = Source::Registry(clients.client(&group.repository.host, Some(&group.repository.name)).await?);
    judge(&source, set, record, group, bar, outcome).await;
    Ok(())
}

/// Says why there is nothing to judge.
pub(super) fn nothing(outcome: &Outcome, set: &PolicySet, terminal: &Terminal) {
    if outcome.ungoverned.is_empty() {
        return;
    }
    let names: Vec<String> = set.policies().iter().map(|p| format!("`{}`", visible(&p.name))).collect();
    terminal.warn(&format!(
        "nothing was judged: {} {} not govern what was asked for; see `spec.repositories` of the policy",
        names.join(", "),
        if names.len() == 1 { "does" } else { "do" }
    ));
}

fn add(groups: &mut Vec<Group>, reference: Reference) {
    let place = groups.iter().position(|g| g.repository == reference.repository).unwrap_or_else(|| {
        groups.push(Group {
            repository: reference.repository.clone(),
            tags: BTreeSet::new(),
            taken: Vec::new(),
            digests: Vec::new(),
        });
        groups.len() - 1
    });
    let group = &mut groups[place];
    match (reference.tag, reference.digest) {
        (Some(tag), digest) => {
            group.taken.extend(digest.map(|digest| (tag.clone(), digest)));
            group.tags.insert(tag);
        }
        (None, Some(digest)) => group.digests.push(digest),
        (None, None) => {}
    }
}

/// Judges what is asked about one repository; what stands in the way becomes a problem of the report.
async fn judge(
    source: &Source,
    set: &PolicySet,
    record: Option<&ReadOnly>,
    mut group: Group,
    bar: &indicatif::ProgressBar,
    outcome: &mut Outcome,
) {
    let repository = group.repository.clone();
    let mut live = Live::new(source, set, repository.clone());
    if let Some(record) = record
        && let Err(error) = live.remember(record).await
    {
        return outcome.failed(repository.to_string(), &error);
    }
    for (tag, digest) in group.taken {
        live.pretend(tag, digest);
    }
    if !group.digests.is_empty() {
        // A policy is about tags: an image without one is judged by those that lead to it.
        match live.tags().await {
            Ok(all) => {
                bar.inc_length(all.len() as u64);
                live.resolve(&all, || bar.inc(1)).await;
                for digest in group.digests {
                    let here: Vec<Tag> =
                        all.iter().filter(|tag| live.digest(tag) == Some(&Some(digest.clone()))).cloned().collect();
                    if here.is_empty() {
                        outcome.missing(
                            format!("{repository}@{digest}"),
                            "no tag leads to this digest, and policies are about tags: write REPO:TAG@DIGEST to judge it as that tag".to_owned(),
                        );
                    }
                    group.tags.extend(here);
                }
            }
            Err(error) => outcome.failed(repository.to_string(), &error),
        }
    }
    let asked: Vec<Tag> = group.tags.into_iter().collect();
    live.resolve(&asked, || bar.inc(1)).await;
    let (absent, mut there): (Vec<Tag>, Vec<Tag>) = asked.into_iter().partition(|t| live.digest(t) == Some(&None));
    if !absent.is_empty() {
        let known = live.tags().await.unwrap_or_default();
        for tag in absent {
            match live.remembers(&tag).await {
                // That it was there once is what `present` and `immutable` are about.
                Ok(true) => there.push(tag),
                Ok(false) => outcome.missing(format!("{repository}:{tag}"), not_there(&tag, &known)),
                Err(error) => return outcome.failed(repository.to_string(), &error),
            }
        }
    }
    match live.judge(&there, false, Origin::Check, SystemClock.now()).await {
        Ok(verdicts) => outcome.verdicts.extend(verdicts),
        Err(error) => outcome.failed(repository.to_string(), &error),
    }
}

/// That a tag is not there, with those that may be meant.
fn not_there(tag: &Tag, known: &[Tag]) -> String {
    if known.is_empty() {
        return "there is no such tag: the repository has none, or is not there".to_owned();
    }
    let mut nearest: Vec<&Tag> = known.iter().collect();
    nearest.sort_by_key(|other| strsim::damerau_levenshtein(tag.as_str(), other.as_str()));
    let named: Vec<&str> = nearest.iter().take(NEAREST_MAX).map(|t| t.as_str()).collect();
    let more = known.len().saturating_sub(NEAREST_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("there is no such tag; the repository has {}{more}", named.join(", "))
}
