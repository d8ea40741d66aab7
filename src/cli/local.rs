//! Images on this machine: judged by themselves, as what they are about to be pushed as.
//!
//! What depends on other tags of the repository is not evaluated, because only the registry knows those. With a record
//! at hand, what the tag was before is: pushing the image would move it.

use std::path::Path;

use super::check::Outcome;
use super::fail::Failure;
use super::terminal::Terminal;
use crate::clock::{Clock, SystemClock};
use crate::history::Origin;
use crate::image::{Digest, Reference, Repository, Tag};
use crate::pipeline::{Live, LiveError, Source};
use crate::policy::{NotEvaluated, Outcome as Word, PolicySet, Rule, Verdict};
use crate::registry::{Layout, LayoutReference};
use crate::report::visible;
use crate::store::embedded::ReadOnly;

/// Requirements that look at other tags, at the past, or at the registry's own settings.
const NEEDS_REGISTRY: [Rule; 7] = [
    Rule::KeepsPlatforms,
    Rule::Immutable,
    Rule::Present,
    Rule::Follows,
    Rule::MemberOf,
    Rule::MembersTagged,
    Rule::Locked,
];
/// Why those are not evaluated.
const WHY: &str = "a local image is judged by itself";

/// One image of a layout and what it is judged as.
struct Judged {
    repository: Repository,
    tag: Tag,
    digest: Digest,
}

/// Judges the images of a layout.
pub(super) async fn check(
    reference: &LayoutReference,
    pushed_as: Option<&Reference>,
    set: &PolicySet,
    record: Option<&ReadOnly>,
    outcome: &mut Outcome,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let layout = Layout::open(reference).map_err(|error| Failure::say(error.to_string()))?;
    let images = images(&layout, reference, pushed_as)?;
    if pushed_as.is_none() {
        let named: Vec<String> = images.iter().map(|i| format!("{}:{}", i.repository, i.tag)).collect();
        terminal.note(&format!(
            "{} is judged as {}; `--as HOST/REPO:TAG` says what it will be pushed as",
            shown(reference),
            named.join(", ")
        ));
    }
    let source = Source::Layout(layout);
    for image in images {
        if set.governing(&image.repository).is_empty() {
            if pushed_as.is_none() {
                terminal.note(&format!(
                    "no policy governs {}: say what the image will be pushed as, with `--as HOST/REPO:{}`",
                    image.repository, image.tag
                ));
            }
            outcome.ungoverned.push(image.repository);
            continue;
        }
        let undetermined = |error: LiveError| Failure::undetermined(error.to_string());
        let mut live = Live::new(&source, set, image.repository);
        if let Some(record) = record {
            live.remember(record).await.map_err(undetermined)?;
        }
        let recorded = live.is_recorded();
        live.pretend(image.tag.clone(), image.digest);
        let verdicts = live.judge(&[image.tag], false, Origin::Check, SystemClock.now()).await.map_err(undetermined)?;
        outcome.verdicts.extend(verdicts.into_iter().map(|verdict| by_itself(verdict, set, recorded)));
    }
    Ok(())
}

fn shown(reference: &LayoutReference) -> String {
    let kind = if reference.archive { "oci-archive" } else { "oci" };
    visible(&format!("{kind}:{}", reference.path.display()))
}

/// The images that are meant, each with its name: `--as`, else the whole reference that the layout gives it, else
/// a repository of this machine called like the layout.
fn images(layout: &Layout, reference: &LayoutReference, pushed_as: Option<&Reference>) -> Result<Vec<Judged>, Failure> {
    let shown = shown(reference);
    let names: Vec<&str> = layout.entries().iter().filter_map(|e| e.name.as_deref()).collect();
    let which = match (&reference.name, names.first()) {
        (None, Some(first)) => Some(format!("name one of {}, as in `{shown}:{}`", some(&names), visible(first))),
        (Some(_), Some(_)) => Some(format!("it has {}", some(&names))),
        (_, None) => None,
    };
    let helped = |failure: Failure| match &which {
        Some(help) => failure.help(help.clone()),
        None => failure,
    };
    if let Some(Reference { repository, tag: Some(tag), .. }) = pushed_as {
        let fetched =
            layout.resolve(reference.name.as_deref()).map_err(|error| helped(Failure::say(error.to_string())))?;
        return Ok(vec![Judged { repository: repository.clone(), tag: tag.clone(), digest: fetched.digest }]);
    }
    let entries: Vec<(&Digest, Option<&str>)> = match reference.name.as_deref() {
        Some(name) => {
            layout.resolve(Some(name)).map_err(|error| helped(Failure::say(error.to_string())))?;
            layout
                .entries()
                .iter()
                .filter(|e| e.name.as_deref() == Some(name))
                .map(|e| (&e.digest, Some(name)))
                .collect()
        }
        None => layout.entries().iter().map(|e| (&e.digest, e.name.as_deref())).collect(),
    };
    if entries.is_empty() {
        return Err(Failure::say(format!("`{shown}` holds no image")));
    }
    entries.into_iter().map(|(digest, name)| judged(&reference.path, &shown, digest, name)).collect()
}

fn judged(path: &Path, shown: &str, digest: &Digest, name: Option<&str>) -> Result<Judged, Failure> {
    let name = name.ok_or_else(|| {
        Failure::say(format!("the image in `{shown}` has no name, and policies are about tags"))
            .help("say what it will be pushed as, with `--as HOST/REPO:TAG`")
    })?;
    if let Ok(Reference { repository, tag: Some(tag), .. }) = name.parse() {
        return Ok(Judged { repository, tag, digest: digest.clone() });
    }
    let unusable = || {
        Failure::say(format!("the image `{}` in `{shown}` has a name that is no tag", visible(name)))
            .help("say what it will be pushed as, with `--as HOST/REPO:TAG`")
    };
    let tag: Tag = name.parse().map_err(|_| unusable())?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    let repository = format!("localhost/{}", if plain.is_empty() { "image" } else { plain });
    let repository = repository.parse().map_err(|_| unusable())?;
    Ok(Judged { repository, tag, digest: digest.clone() })
}

fn some(names: &[&str]) -> String {
    const NAMED_MAX: usize = 10;
    let mut named: Vec<String> = names.iter().take(NAMED_MAX).map(|n| format!("`{}`", visible(n))).collect();
    if names.len() > NAMED_MAX {
        named.push(format!("{} more", names.len() - NAMED_MAX));
    }
    named.join(", ")
}

/// The verdict without what an image alone cannot tell.
fn by_itself(mut verdict: Verdict, set: &PolicySet, recorded: bool) -> Verdict {
    let class = set
        .policies()
        .iter()
        .find(|p| p.name == verdict.policy)
        .and_then(|p| p.classes.iter().find(|c| Some(&c.name) == verdict.class.as_ref()));
    let asked: Vec<Rule> =
        class.map(|c| c.require.rules().into_iter().map(|(rule, _)| rule).collect()).unwrap_or_default();
    let aside = |rule: Rule| NEEDS_REGISTRY.contains(&rule) && !(recorded && rule == Rule::Immutable);
    verdict.findings.retain(|f| !aside(f.rule));
    // There is no registry here: what is missing is missing in the layout.
    for finding in &mut verdict.findings {
        finding.message = finding.message.replace("the registry", "the layout");
        finding.advice = match finding.is_error() || finding.advice.contains("registry") {
            true => "Write the layout again, with everything that its images list.".to_owned(),
            false => std::mem::take(&mut finding.advice),
        };
    }
    for not in &mut verdict.not_evaluated {
        not.why = not.why.replace("the registry", "the layout");
    }
    verdict.evaluated.retain(|rule| !aside(*rule));
    verdict.not_evaluated.retain(|n| !aside(n.rule));
    verdict
        .not_evaluated
        .extend(asked.into_iter().filter(|rule| aside(*rule)).map(|rule| NotEvaluated { rule, why: WHY.to_owned() }));
    verdict.outcome = Verdict::outcome_of(&verdict.findings, verdict.outcome == Word::Ignored);
    verdict
}
