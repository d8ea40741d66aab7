//! Verdicts for people: a grid for each repository and policy, then what is wrong and what to do, then one
//! line that sums up. What matters most comes last, where a terminal shows it; nothing depends on colour.

pub(super) mod causes;
pub(super) mod grid;
pub(super) mod style;

use std::collections::HashMap;

use super::{Options, Report, Standing, TOOL, count, distinct, fires_at, moment};
use crate::image::Repository;
use crate::policy::{Outcome, Reason, Verdict};
use causes::{Cause, causes, tag_names, unevaluated};
use style::{Glyph, Style, Tone, chars, pad};

/// Most tags for which the grid shows those that pass as well.
const GRID_ALL_MAX: usize = 20;
/// Most tags listed under a finding; all are in the JSON report.
const TAGS_LISTED_MAX: usize = 100;
/// Most different pieces of advice under one finding. Tags with one digest share theirs.
const ADVICE_MAX: usize = 3;
/// Columns that the tags of a finding may take before the rest is listed below it.
const TAGS_COLUMN: usize = 32;

/// The verdicts of one policy on one repository.
pub(super) struct Block<'a> {
    pub(super) repository: &'a Repository,
    pub(super) policy: &'a str,
    pub(super) verdicts: Vec<&'a Verdict>,
}

impl Block<'_> {
    pub(super) fn passes(&self) -> bool {
        self.verdicts.iter().all(|v| matches!(v.outcome, Outcome::Pass | Outcome::Ignored))
    }

    fn worst(&self) -> Outcome {
        self.verdicts.iter().map(|v| v.outcome).max().unwrap_or(Outcome::Pass)
    }
}

/// The verdicts by repository and policy, in order of appearance.
pub(super) fn blocks(report: &Report) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut places = HashMap::new();
    for verdict in &report.verdicts {
        let place = *places.entry((&verdict.repository, &*verdict.policy)).or_insert_with(|| {
            blocks.push(Block { repository: &verdict.repository, policy: &verdict.policy, verdicts: Vec::new() });
            blocks.len() - 1
        });
        blocks[place].verdicts.push(verdict);
    }
    blocks
}

pub(super) fn render(report: &Report, options: &Options) -> String {
    let style = Style::new(options);
    let mut text = String::new();
    let mut blocks = blocks(report);
    // The worst come last: after an audit of a thousand repositories they are what is on the screen.
    blocks.sort_by_key(|b| if b.passes() { Outcome::Pass } else { b.worst() });
    let (passing, others): (Vec<Block<'_>>, Vec<Block<'_>>) = blocks.into_iter().partition(Block::passes);
    for block in &passing {
        text += &passing_line(block, &style);
    }
    for block in &others {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &block_text(block, &style);
    }
    let rest = loose_ends(report, &style);
    text += if text.is_empty() { rest.trim_start_matches('\n') } else { &rest };
    if !text.is_empty() {
        text.push('\n');
    }
    text + &footer(report, &style)
}

/// What stands outside of any verdict: problems, and repositories that no policy governs.
fn loose_ends(report: &Report, style: &Style) -> String {
    let mut text = String::new();
    if !report.problems.is_empty() {
        text.push('\n');
    }
    for problem in &report.problems {
        let target = style.text(&problem.target);
        text += &format!("{} {target}\n", style.mark(Standing::Error));
        text += &style.paragraph(&style.text(&problem.message), 4);
    }
    if !report.ungoverned.is_empty() {
        const NAMED_MAX: usize = 5;
        let mut names: Vec<String> = report.ungoverned.iter().take(NAMED_MAX).map(|r| r.to_string()).collect();
        if report.ungoverned.len() > NAMED_MAX {
            names.push(format!("{} more", report.ungoverned.len() - NAMED_MAX));
        }
        let line = format!("{} no policy governs {}", style.glyph(Glyph::Note), names.join(", "));
        text += &format!("\n{}\n", style.wrap(&line, 0, 2));
    }
    text
}

/// One friendly line for a repository without a fault, and what is worth knowing of it nevertheless.
fn passing_line(block: &Block<'_>, style: &Style) -> String {
    // What a class lacks has a verdict too, and is no tag.
    let tags = || block.verdicts.iter().filter(|v| v.subject.tag.is_some() || v.subject.digest.is_some());
    let judged = tags().filter(|v| v.outcome == Outcome::Pass).count();
    let ignored = tags().count() - judged;
    let policy = style.text(block.policy);
    let (glyph, tone, what) = match (judged, ignored) {
        (0, n) => {
            let what = format!("policy {policy} asks nothing of {}", count(n, "tag", "tags"));
            (Glyph::Note, Tone::Note, what)
        }
        (n, ignored) => {
            let verb = if n == 1 { "meets" } else { "meet" };
            let rest = if ignored == 0 { String::new() } else { format!("; {ignored} ignored") };
            (Glyph::Yes, Tone::Good, format!("{} {verb} policy {policy}{rest}", count(n, "tag", "tags")))
        }
    };
    let line = format!("{}: {what}", block.repository);
    let line = style.wrap(&line, 2, 4);
    let mut text = format!("{} {line}\n", style.paint(tone, style.glyph(glyph)));
    text += &findings_text(&causes(&block.verdicts), style);
    text + &not_evaluated_text(block, style)
}

fn block_text(block: &Block<'_>, style: &Style) -> String {
    let repository = block.repository.to_string();
    let preview = if block.verdicts.iter().any(|v| v.preview) { " (preview)" } else { "" };
    let policy = format!("policy {}{preview}", style.text(block.policy));
    let mut text = style
        .spread((&repository, &style.paint(Tone::Heading, &repository)), (&policy, &style.paint(Tone::Note, &policy)));
    let all = &block.verdicts;
    let plain = |v: &&&Verdict| matches!(v.outcome, Outcome::Pass | Outcome::Ignored) && all.len() > GRID_ALL_MAX;
    let hidden: Vec<&Verdict> = all.iter().filter(plain).copied().collect();
    let shown: Vec<&Verdict> = all.iter().filter(|v| !plain(v)).copied().collect();
    text += &grid::grid(&shown, style);
    if !hidden.is_empty() {
        let passing = hidden.iter().filter(|v| v.outcome == Outcome::Pass).count();
        let ignored = hidden.len() - passing;
        let mut parts = Vec::new();
        if passing > 0 {
            let verb = if passing == 1 { "passes" } else { "pass" };
            parts.push(format!("{} {verb}", count(passing, "more tag", "more tags")));
        }
        if ignored > 0 {
            let verb = if ignored == 1 { "is" } else { "are" };
            parts.push(format!("{} {verb} ignored", count(ignored, "tag", "tags")));
        }
        let line = parts.join(", ");
        text += &format!("  {} {line}\n", style.paint(Tone::Good, style.glyph(Glyph::Yes)));
    }
    text.push('\n');
    text += &findings_text(&causes(all), style);
    text + &not_evaluated_text(block, style)
}

fn findings_text(causes: &[Cause<'_>], style: &Style) -> String {
    let names: Vec<Vec<String>> = causes.iter().map(|c| tag_names(c.members.iter().map(|(v, _)| *v))).collect();
    let heads: Vec<(String, bool)> = names.iter().map(|n| fit(n, TAGS_COLUMN)).collect();
    let tags_width = heads.iter().map(|(h, _)| chars(h)).filter(|w| *w <= TAGS_COLUMN).max().unwrap_or(0);
    let rule_width = causes.iter().map(|c| c.rule.as_str().len()).max().unwrap_or(0);
    let severity_width = causes.iter().map(|c| c.severity.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (cause, (names, (tags, whole))) in causes.iter().zip(names.iter().zip(&heads)) {
        let head = format!(
            "{}   {}   {}   ",
            pad(tags, tags_width),
            pad(cause.rule.as_str(), rule_width),
            pad(cause.severity.as_str(), severity_width)
        );
        let column = 4 + chars(&head);
        let mut message = style.text(&cause.headline);
        match cause.standing {
            Standing::Pending => message += &pending_until(cause),
            Standing::Resolved => message += " (resolved)",
            _ => {}
        }
        text += &format!("  {} ", style.mark(cause.standing));
        // A hanging paragraph needs some width to read well; without it the message goes below.
        if column + 30 <= style.width || column + chars(&message) <= style.width {
            text += &format!("{head}{}\n", style.wrap(&message, column, column));
        } else {
            text += &format!("{}\n{}", head.trim_end(), style.paragraph(&message, 6));
        }
        text += &advice_text(cause, style);
        if !whole {
            let mut listed = names[..names.len().min(TAGS_LISTED_MAX)].join(", ");
            if names.len() > TAGS_LISTED_MAX {
                listed += &format!(" and {} more: `-o json` lists them", names.len() - TAGS_LISTED_MAX);
            }
            text += &style.paragraph(&format!("Tags: {listed}"), 6);
        }
    }
    text
}

/// As many names as fit, and how many more there are; whether that is all of them.
fn fit(names: &[String], columns: usize) -> (String, bool) {
    let all = names.join(", ");
    if chars(&all) <= columns || names.len() <= 1 {
        return (all, true);
    }
    let mut shown = 1;
    let text = |n: usize| format!("{} and {} more", names[..n].join(", "), names.len() - n);
    while shown + 1 < names.len() && chars(&text(shown + 1)) <= columns {
        shown += 1;
    }
    (text(shown), false)
}

fn pending_until(cause: &Cause<'_>) -> String {
    let first = cause.members.iter().map(|(_, f)| fires_at(f)).min();
    first.map(|at| format!(" (pending until {})", moment(at))).unwrap_or_default()
}

/// What to do, once for each digest that has the cause, and the policy's notes.
fn advice_text(cause: &Cause<'_>, style: &Style) -> String {
    let digests = distinct(cause.members.iter().map(|(v, _)| v.subject.digest.as_ref()));
    let of_digest = digests.iter().filter_map(|digest| {
        let member = cause.members.iter().find(|(v, _)| v.subject.digest.as_ref() == *digest);
        member.map(|(_, f)| f.advice.as_str()).filter(|a| !a.is_empty())
    });
    let advice = distinct(of_digest);
    let mut text = String::new();
    for line in advice.iter().take(ADVICE_MAX) {
        text += &style.paragraph(&style.text(line), 6);
    }
    if advice.len() > ADVICE_MAX {
        let rest = advice.len() - ADVICE_MAX;
        text += &style.paragraph(&format!("The other tags likewise; `-o json` has the advice for {rest} more."), 6);
    }
    for note in distinct(cause.members.iter().filter_map(|(_, f)| f.note.as_deref())) {
        text += &style.paragraph(&format!("Note: {}", style.text(note)), 6);
    }
    text
}

fn not_evaluated_text(block: &Block<'_>, style: &Style) -> String {
    let mut text = String::new();
    for group in unevaluated(&block.verdicts) {
        let rules: Vec<&str> = group.rules.iter().map(|r| r.as_str()).collect();
        let whose = if group.verdicts.len() == block.verdicts.len() {
            String::new()
        } else {
            format!(" for {}", fit(&tag_names(group.verdicts.iter().copied()), TAGS_COLUMN).0)
        };
        let line = format!("not evaluated{whose}: {} ({})", rules.join(", "), style.text(&group.why));
        let mark = style.mark(Standing::Info);
        text += &format!("  {mark} {}\n", style.wrap(&line, 4, 6));
    }
    text
}

/// The line that sums up, and how to learn more of the worst reason.
fn footer(report: &Report, style: &Style) -> String {
    if report.verdicts.is_empty() && report.problems.is_empty() {
        return "nothing was judged\n".to_owned();
    }
    let summary = report.summary();
    // What a class lacks is told of no tag: it counts as a violation and not as a tag.
    let there = report.verdicts.iter().filter(|v| v.subject.tag.is_some() || v.subject.digest.is_some());
    let tags = distinct(there.map(|v| (&v.repository, &v.subject.tag, &v.subject.digest))).len();
    let policies = distinct(report.verdicts.iter().map(|v| &v.policy)).len();
    let counts = [
        (summary.violation > 0).then(|| count(summary.violation, "violation", "violations")),
        (summary.error > 0).then(|| count(summary.error, "error", "errors")),
        (summary.pending > 0).then(|| format!("{} pending", summary.pending)),
        (summary.pass > 0).then(|| format!("{} pass", summary.pass)),
        (summary.ignored > 0).then(|| format!("{} ignored", summary.ignored)),
    ];
    let mut counts: Vec<String> = counts.into_iter().flatten().collect();
    if summary.pass > 0 && counts.len() == 1 {
        counts = vec!["all pass".to_owned()];
    }
    let left =
        format!("{}, {}: {}", count(tags, "tag", "tags"), count(policies, "policy", "policies"), counts.join(", "));
    let painted = style.paint(Tone::Heading, &left);
    match worst_reason(report) {
        Some(reason) => {
            let hint = format!("{TOOL} policy explain {reason}");
            style.spread((&left, &painted), (&hint, &style.paint(Tone::Note, &hint)))
        }
        None => painted + "\n",
    }
}

fn worst_reason(report: &Report) -> Option<Reason> {
    let findings = report.verdicts.iter().flat_map(|v| &v.findings);
    let told = findings.filter(|f| Standing::of(f) < Standing::Info);
    told.min_by_key(|f| Standing::of(f)).map(|f| f.reason)
}
