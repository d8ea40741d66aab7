//! The page of a reason: for `tidewaiter policy explain`, and as Markdown for the documentation.

use super::text::style::Style;
use super::{Options, docs_url};
use crate::policy::{Reason, Rule};

/// What a reason code means, as text.
pub fn explain_text(reason: Reason, options: &Options) -> String {
    let style = Style::new(options);
    let page = reason.page();
    let kind = if reason.is_undetermined() { "could not be determined" } else { "requirement not met" };
    let mut text = format!("{reason}   ({}: {kind})\n", page.rule);
    for (title, body) in [("What is wrong", page.wrong), ("Why it matters", page.why), ("What to do", page.fix)] {
        text += &format!("\n{title}\n{}", style.paragraph(&style.text(body), 2));
    }
    text + &format!("\n{}\n", docs_url(reason))
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
