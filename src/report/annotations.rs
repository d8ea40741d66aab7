//! What build services show beside a run: workflow commands of GitHub Actions, logging commands of Azure
//! Pipelines, and a summary in Markdown. Each has its own encoder: a name in a registry must not become a
//! command or a link (T-54).

use super::text::causes::{causes, tag_names, unevaluated};
use super::text::grid::class_text;
use super::text::{Block, blocks};
use super::{Report, Standing, count, docs_url, fires_at, moment, subject_name, visible};
use crate::policy::{Finding, NotEvaluated, PolicyLocation, Verdict};

/// Most bytes of a job summary: GitHub refuses one of more than 1 MiB whole.
const SUMMARY_BYTES_MAX: usize = 900_000;
/// Most tags named in one cell of the summary.
const SUMMARY_TAGS_MAX: usize = 20;

/// Findings of one image in order of importance, the worst image first: GitHub shows ten of each kind a step.
fn worst_first(report: &Report) -> Vec<(&Verdict, Vec<&Finding>)> {
    let mut images: Vec<(&Verdict, Vec<&Finding>)> =
        report.verdicts.iter().map(|v| (v, v.findings.iter().collect())).collect();
    for (_, findings) in &mut images {
        findings.retain(|f: &&Finding| Standing::of(f) != Standing::Resolved);
        findings.sort_by_key(|f| Standing::of(f));
    }
    images.retain(|(v, findings)| !findings.is_empty() || !v.not_evaluated.is_empty());
    images.sort_by_key(|(_, findings)| findings.first().map_or(Standing::Resolved, |f| Standing::of(f)));
    images
}

/// The message of an annotation: it is shown far from its group, so it names the image.
fn sentence(verdict: &Verdict, finding: &Finding) -> String {
    let mut text = format!("{}: {}", subject_name(verdict), visible(&finding.message));
    if Standing::of(finding) == Standing::Pending {
        text += &format!(" (pending until {})", moment(fires_at(finding)));
    }
    text
}

fn skipped_sentence(verdict: &Verdict, skipped: &NotEvaluated) -> String {
    format!("{}: not evaluated: {} ({})", subject_name(verdict), skipped.rule, visible(&skipped.why))
}

pub(super) fn github(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let message = format!("{}: {}", visible(&problem.target), visible(&problem.message));
        text += &format!("::error title=undetermined::{}\n", github_data(&message));
    }
    for (verdict, findings) in worst_first(report) {
        let name = github_data(&subject_name(verdict));
        let requirements = count(verdict.evaluated.len().max(findings.len()), "requirement", "requirements");
        text += &format!("::group::{name} ({requirements})\n");
        for finding in findings {
            let kind = match Standing::of(finding) {
                Standing::Critical | Standing::Error => "error",
                Standing::Warning => "warning",
                Standing::Pending | Standing::Info | Standing::Resolved => "notice",
            };
            let mut properties = String::new();
            if let Some(PolicyLocation { file, line, column }) = finding.source.as_deref() {
                properties = format!("file={},line={line},col={column},", github_property(&visible(file)));
            }
            properties += &format!("title={}/{}", finding.rule, finding.reason);
            let mut message = sentence(verdict, finding);
            if !finding.advice.is_empty() {
                message += &format!("\n{}", visible(&finding.advice));
            }
            text += &format!("::{kind} {properties}::{}\n", github_data(&message));
        }
        for skipped in &verdict.not_evaluated {
            text += &format!("{}\n", skipped_sentence(verdict, skipped));
        }
        text += "::endgroup::\n";
    }
    text + &closing_line(report)
}

/// A message, as the runner unescapes it.
fn github_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property, as the runner unescapes it.
fn github_property(text: &str) -> String {
    github_data(text).replace(':', "%3A").replace(',', "%2C")
}

pub(super) fn azure_devops(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let message = format!("{}: {}", visible(&problem.target), visible(&problem.message));
        text += &format!("##vso[task.logissue type=error]{}\n", azure_data(&message));
    }
    for (verdict, findings) in worst_first(report) {
        for finding in findings {
            let message = azure_data(&sentence(verdict, finding));
            let kind = match Standing::of(finding) {
                Standing::Critical | Standing::Error => "error",
                Standing::Warning => "warning",
                // There is no third kind: what is only good to know stays a line of the log.
                Standing::Pending | Standing::Info | Standing::Resolved => {
                    text += &format!("{message}\n");
                    continue;
                }
            };
            let mut properties = format!("type={kind};");
            if let Some(PolicyLocation { file, line, column }) = finding.source.as_deref() {
                let file = azure_property(&visible(file));
                properties += &format!("sourcepath={file};linenumber={line};columnnumber={column};");
            }
            properties += &format!("code={}/{}", finding.rule, finding.reason);
            text += &format!("##vso[task.logissue {properties}]{message}\n");
        }
        for skipped in &verdict.not_evaluated {
            text += &format!("{}\n", azure_data(&skipped_sentence(verdict, skipped)));
        }
    }
    text + &closing_line(report)
}

/// A message, as the Azure agent unescapes it.
fn azure_data(text: &str) -> String {
    text.replace('%', "%AZP25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property, as the Azure agent unescapes it.
fn azure_property(text: &str) -> String {
    azure_data(text).replace(']', "%5D").replace(';', "%3B")
}

fn closing_line(report: &Report) -> String {
    let s = report.summary();
    format!(
        "tidewaiter: {}, {}, {} pending, {} pass, {} ignored\n",
        count(s.violation, "violation", "violations"),
        count(s.error, "error", "errors"),
        s.pending,
        s.pass,
        s.ignored
    )
}

/// A summary to append to the file that `GITHUB_STEP_SUMMARY` names, or to a merge request.
pub(super) fn markdown(report: &Report) -> String {
    let s = report.summary();
    let mut text = format!(
        "## tidewaiter\n\n| violation | error | pending | pass | ignored |\n|---:|---:|---:|---:|---:|\n| {} | {} | {} | {} | {} |\n",
        s.violation, s.error, s.pending, s.pass, s.ignored
    );
    for problem in &report.problems {
        text += &format!("\n❓ {}: {}\n", markdown_code(&problem.target), markdown_text(&problem.message));
    }
    let mut blocks = blocks(report);
    blocks.sort_by_key(|b| causes(&b.verdicts).first().map_or(Standing::Resolved, |c| c.standing));
    let mut left = 0;
    for block in &blocks {
        let section = markdown_block(block);
        if text.len() + section.len() > SUMMARY_BYTES_MAX {
            left += 1;
        } else {
            text += &section;
        }
    }
    if left > 0 {
        text += &format!("\n{} more did not fit into this summary.\n", count(left, "repository", "repositories"));
    }
    for repository in &report.ungoverned {
        text += &format!("\nNo policy governs {}.\n", markdown_code(&repository.to_string()));
    }
    text
}

fn markdown_block(block: &Block<'_>) -> String {
    let causes = causes(&block.verdicts);
    let mut text =
        format!("\n### {} — policy {}\n\n", markdown_code(&block.repository.to_string()), markdown_code(block.policy));
    if block.passes() {
        text += &format!("✅ {}\n", count(block.verdicts.len(), "tag", "tags"));
    }
    if !causes.is_empty() {
        text += "| | tags | requirement | severity | what is wrong | what to do |\n|---|---|---|---|---|---|\n";
    }
    for cause in &causes {
        let sign = match cause.standing {
            Standing::Critical => "❌",
            Standing::Warning => "⚠️",
            Standing::Error => "❓",
            Standing::Pending => "⏳",
            Standing::Info | Standing::Resolved => "ℹ️",
        };
        let names = tag_names(cause.members.iter().map(|(v, _)| *v));
        let mut tags: Vec<String> = names.iter().take(SUMMARY_TAGS_MAX).map(|n| markdown_code(n)).collect();
        if names.len() > SUMMARY_TAGS_MAX {
            tags.push(format!("{} more", names.len() - SUMMARY_TAGS_MAX));
        }
        let advice = cause.members.first().map(|(_, f)| markdown_text(&f.advice)).unwrap_or_default();
        text += &format!(
            "| {sign} | {} | [{}]({}) | {} | {} | {advice} |\n",
            tags.join(", "),
            cause.rule,
            docs_url(cause.reason),
            cause.severity,
            markdown_text(&cause.headline),
        );
    }
    for group in unevaluated(&block.verdicts) {
        let rules: Vec<&str> = group.rules.iter().map(|r| r.as_str()).collect();
        text += &format!("\nNot evaluated: {} ({}).\n", rules.join(", "), markdown_text(&group.why));
    }
    let classes = super::distinct(block.verdicts.iter().map(|v| class_text(v)));
    let classes: Vec<String> = classes.iter().take(SUMMARY_TAGS_MAX).map(|c| markdown_code(c)).collect();
    text + &format!("\nClasses: {}\n", classes.join(", "))
}

/// Foreign text that Markdown shows as it is: punctuation as entities, and nothing that becomes a link, a
/// mention or a reference.
fn markdown_text(text: &str) -> String {
    let mut shown = String::new();
    for c in visible(text).replace("www.", "www&.").chars() {
        match c {
            // The comment parts the name from the sign, so that no reader makes an address or a mention of it.
            '@' => shown += "&#64;<!-- -->",
            '&' => shown += "&#38;",
            c if c.is_ascii_punctuation() && !matches!(c, '.' | ',' | '-' | '/' | '\'' | '(' | ')') => {
                shown += &format!("&#{};", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown.replace("www&#38;.", "www&#46;")
}

/// A name as code, where nothing is active; a backtick cannot be escaped there.
fn markdown_code(text: &str) -> String {
    format!("`{}`", visible(text).replace('`', "'").replace('|', "\\|"))
}
