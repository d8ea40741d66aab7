//! The page of a reason, and what one requirement came to: for `tidewaiter policy explain`, and as Markdown for the
//! documentation.

use super::text::style::{Glyph, Style, Tone};
use super::{Options, REASONS_URL, Standing};
use crate::policy::{Reason, Rule, Verdict};

/// How far what is said of a requirement stands below it.
const INDENT: usize = 6;

/// What a reason code means, as text.
pub fn explain_text(reason: Reason, options: &Options) -> String {
    let page = reason.page();
    let kind = if reason.is_undetermined() { "could not be determined" } else { "requirement not met" };
    let parts = [("What is wrong", page.wrong), ("Why it matters", page.why), ("What to do", page.fix)];
    page_text(reason.as_str(), &format!("{}: {kind}", page.rule), &parts, options)
}

/// A page on a stable code: its title, what kind of thing it is, and its parts.
pub fn page_text(code: &str, kind: &str, parts: &[(&str, &str)], options: &Options) -> String {
    let style = Style::new(options);
    let mut text = format!("{code}   ({kind})\n");
    for (title, body) in parts {
        text += &format!("\n{title}\n{}", style.paragraph(&style.text(body), 2));
    }
    text + &format!("\n{REASONS_URL}{code}\n")
}

/// What one requirement came to: its sign, and what there is to say of it, to be set below it. `None` where the verdict
/// says nothing of it.
pub fn requirement_text(verdict: &Verdict, rule: Rule, options: &Options) -> Option<(String, String)> {
    let style = Style::new(options);
    let say = |text: &str| style.paragraph(&style.text(text), INDENT);
    let (mut worst, mut text) = (None, String::new());
    for finding in verdict.findings.iter().filter(|finding| finding.rule == rule) {
        let standing = Standing::of(finding);
        worst = Some(worst.map_or(standing, |worst: Standing| worst.min(standing)));
        text += &say(&finding.message);
        if standing == Standing::Pending {
            text += &say(&format!("pending since {:.0}: it fires when it lasts {:#}", finding.since, finding.wait));
        }
        if !finding.advice.is_empty() {
            text += &say(&finding.advice);
        }
    }
    if let Some(worst) = worst {
        return Some((style.mark(worst), text));
    }
    if let Some(not) = verdict.not_evaluated.iter().find(|not| not.rule == rule) {
        let sign = style.paint(Tone::Note, style.glyph(Glyph::Note));
        return Some((sign, say(&format!("not evaluated: {}", not.why))));
    }
    verdict.evaluated.contains(&rule).then(|| (style.paint(Tone::Good, style.glyph(Glyph::Yes)), String::new()))
}

/// What a reason code means, as a section of Markdown.
pub fn reason_markdown(reason: Reason) -> String {
    let page = reason.page();
    let undetermined = if reason.is_undetermined() {
        "An *error*: something could not be determined. It is neither a pass nor a violation.\n\n"
    } else {
        ""
    };
    format!(
        "### `{reason}`\n\n{}\n\n{undetermined}**Why it matters.** {}\n\n**What to do.** {}\n",
        page.wrong, page.why, page.fix
    )
}

/// One document with every reason code, by requirement.
pub fn reasons_markdown() -> String {
    let mut text = String::from(
        "# Reason codes\n\nEvery finding has a stable reason code. `tidewaiter policy explain REASON` prints the same pages.\n",
    );
    for rule in Rule::ALL {
        let reasons: Vec<Reason> = Reason::ALL.iter().copied().filter(|r| r.page().rule == *rule).collect();
        if reasons.is_empty() {
            continue;
        }
        text += &format!("\n## {rule}\n");
        for reason in reasons {
            text += "\n";
            text += &reason_markdown(reason);
        }
    }
    text
}
