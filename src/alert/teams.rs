//! Microsoft Teams through a workflow: an adaptive card of version 1.4 in the one envelope that workflows read.
//! Sentences and lists stand in text runs, which know no markup; names in facts are escaped. Kept below 20 KB: the workflow
//! adds to it, and refuses 28 KB.

use serde_json::{Value, json};

use super::message::{Alert, Subject, page_of};
use super::settings::Links;
use super::summary::Summary;
use super::text;
use crate::policy::Severity;
use crate::policy::violation::Edge;

/// Longest title, in UTF-16 units.
const TITLE_MAX: usize = 200;
/// Longest value of a fact, and of what was expected or is there.
const FACT_MAX: usize = 500;
/// Longest sentence; with all facts at three bytes a unit the card stays below [`CARD_BYTES_MAX`].
const SENTENCE_MAX: usize = 1500;
/// What a workflow takes for certain, in bytes.
pub(super) const CARD_BYTES_MAX: usize = 20_000;

/// The body for one alert.
pub(super) fn body(alert: &Alert, links: &Links) -> Vec<u8> {
    let colour = match (alert.edge, alert.severity) {
        (Edge::Resolved, _) => "Good",
        (Edge::Fired, Severity::Critical) => "Attention",
        (Edge::Fired, Severity::Warning) => "Warning",
        (Edge::Fired, Severity::Info) => "Accent",
    };
    let (lists, names): (Vec<_>, Vec<_>) =
        super::facts(alert).into_iter().partition(|(name, _)| matches!(*name, "Expected" | "Actual"));
    let mut facts: Vec<Value> = names.iter().map(|(name, value)| fact(name, value)).collect();
    facts.push(fact("Severity", alert.severity.as_str()));
    facts.push(fact("Since", &format!("{:.0}", alert.since)));
    if alert.edge == Edge::Resolved {
        facts.push(fact("Resolved", &format!("{:.0}", alert.at())));
    }
    let advice = if alert.edge == Edge::Fired { alert.advice.as_str() } else { "" };
    let mut actions = Vec::new();
    if matches!(alert.subject, Subject::Image { .. }) {
        actions.extend(links.violation(&alert.fingerprint).map(|url| open("Open violation", &url)));
    }
    actions.extend(page_of(alert).and_then(|r| links.reason(r)).map(|url| open("What to do", &url)));
    // Facts go first when it is too large, sentences stay.
    loop {
        let sentences = [alert.message.as_str(), advice].into_iter().filter(|s| !s.is_empty()).map(sentence);
        let mut content = vec![title(&alert.title(), colour)];
        if !facts.is_empty() {
            content.push(json!({"type": "FactSet", "facts": facts}));
        }
        content.extend(sentences);
        content.extend(lists.iter().map(|(name, value)| text_run(&format!("{name}: {value}"), FACT_MAX)));
        let card = envelope(content, &actions);
        if card.len() <= CARD_BYTES_MAX || facts.pop().is_none() {
            return card;
        }
    }
}

/// The body for many alerts at once.
pub(super) fn summary(summary: &Summary<'_>, links: &Links) -> Vec<u8> {
    let colour = if summary.worst() == Some(Severity::Critical) { "Attention" } else { "Warning" };
    let mut content = vec![title(&summary.title(), colour)];
    content.extend(summary.lines().iter().map(|line| text_run(line, 300)));
    let actions: Vec<Value> = links.list().map(|url| open("Open the list", &url)).into_iter().collect();
    envelope(content, &actions)
}

fn envelope(content: Vec<Value>, actions: &[Value]) -> Vec<u8> {
    let body = json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": {"width": "Full"},
                "body": content,
                "actions": actions,
            }
        }]
    });
    serde_json::to_vec(&body).unwrap_or_default()
}

fn title(title: &str, colour: &str) -> Value {
    json!({
        "type": "TextBlock", "text": text::fit(title, TITLE_MAX, markdown), "weight": "Bolder", "size": "Medium",
        "style": "heading", "color": colour, "wrap": true,
    })
}

fn sentence(sentence: &str) -> Value {
    text_run(sentence, SENTENCE_MAX)
}

fn text_run(line: &str, max: usize) -> Value {
    json!({"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text::fit(line, max, text::plain)}]})
}

fn fact(name: &str, value: &str) -> Value {
    json!({"title": name, "value": text::fit(value, FACT_MAX, markdown)})
}

fn open(label: &str, url: &str) -> Value {
    json!({"type": "Action.OpenUrl", "title": label, "url": url})
}

/// Markdown's active characters, those of HTML, and the braces of `{{DATE(…)}}`, which cards replace before
/// they read Markdown.
fn markdown(c: char, out: &mut String) {
    if matches!(
        c,
        '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '<' | '>' | '#' | '~' | '|' | '&' | '!' | '$'
    ) {
        out.push('\\');
    }
    out.push(c);
}
