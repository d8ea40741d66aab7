//! Slack incoming webhook: blocks, and a text for notifications. Names stand in code, sentences in plain-text
//! objects, where Slack reads no markup; `&`, `<` and `>` are escaped wherever it does, so that nothing from
//! outside can mention or link.

use serde_json::{Value, json};

use super::http::Answer;
use super::message::{Alert, Subject, page_of};
use super::settings::Links;
use super::summary::Summary;
use super::text;
use crate::policy::violation::Edge;

/// Slack's limits, in characters: header, text of a section, one field, text beside the blocks (40,000 allowed,
/// notifications show far less).
const HEADER_MAX: usize = 150;
const SECTION_MAX: usize = 3000;
const FIELD_MAX: usize = 500;
const FALLBACK_MAX: usize = 500;
/// Longest address of a button.
const URL_MAX: usize = 3000;

/// The body for one alert.
pub(super) fn body(alert: &Alert, links: &Links) -> Vec<u8> {
    let mut blocks = vec![header(&alert.title())];
    let fields = fields(alert);
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    blocks.push(section(&alert.message));
    if alert.edge == Edge::Fired && !alert.advice.is_empty() {
        blocks.push(section(&alert.advice));
    }
    let mut buttons = Vec::new();
    if matches!(alert.subject, Subject::Image { .. }) {
        buttons.extend(links.violation(&alert.fingerprint).and_then(|url| button("Open violation", url)));
    }
    buttons.extend(page_of(alert).and_then(|r| links.reason(r)).and_then(|url| button("What to do", url)));
    if !buttons.is_empty() {
        blocks.push(json!({"type": "actions", "elements": buttons}));
    }
    let (word, time) = match alert.edge {
        Edge::Fired => ("since", alert.since),
        Edge::Resolved => ("resolved", alert.at()),
    };
    let context = format!(
        "severity *{}* · {word} <!date^{}^{{date_num}} {{time_secs}}|{time:.0}> · id `{}`",
        alert.severity,
        time.as_second(),
        &alert.id.get(..8).unwrap_or_default(),
    );
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": context, "verbatim": true}]}));
    let fallback = format!("{}: {} – {}", alert.severity, alert.title(), alert.message);
    message(&fallback, blocks)
}

/// The body for many alerts at once.
pub(super) fn summary(summary: &Summary<'_>, links: &Links) -> Vec<u8> {
    let title = summary.title();
    let mut blocks = vec![header(&title), section(&summary.lines().join("\n"))];
    blocks.extend(
        links.list().and_then(|url| button("Open the list", url)).map(|b| json!({"type": "actions", "elements": [b]})),
    );
    message(&title, blocks)
}

/// Success is 200 with the text `ok`; anything else with 200 did not come from Slack.
pub(super) fn is_delivered(answer: &Answer) -> bool {
    answer.status == 200 && answer.body.trim() == "ok"
}

fn message(fallback: &str, blocks: Vec<Value>) -> Vec<u8> {
    let body = json!({
        "text": text::fit(fallback, FALLBACK_MAX, entities),
        "mrkdwn": false,
        "parse": "none",
        "link_names": false,
        "unfurl_links": false,
        "unfurl_media": false,
        "blocks": blocks,
    });
    serde_json::to_vec(&body).unwrap_or_default()
}

fn header(title: &str) -> Value {
    json!({"type": "header", "text": plain_text(title, HEADER_MAX)})
}

fn section(sentence: &str) -> Value {
    json!({"type": "section", "text": plain_text(sentence, SECTION_MAX)})
}

/// Slack refuses an empty text.
fn plain_text(text: &str, max: usize) -> Value {
    let shown: Vec<String> = text.split('\n').map(|line| text::fit(line, max, text::plain)).collect();
    let shown = cut_lines(shown, max);
    json!({"type": "plain_text", "text": if shown.is_empty() { "–".to_owned() } else { shown }, "emoji": false})
}

/// As many whole lines as fit.
fn cut_lines(lines: Vec<String>, max: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for line in lines {
        let units = line.encode_utf16().count() + 1;
        if used + units > max + 1 {
            break;
        }
        if used > 0 {
            out.push('\n');
        }
        out.push_str(&line);
        used += units;
    }
    out
}

fn fields(alert: &Alert) -> Vec<Value> {
    let pairs = super::facts(alert);
    pairs.iter().map(|(name, value)| json!({"type": "mrkdwn", "text": field(name, value), "verbatim": true})).collect()
}

fn field(name: &str, value: &str) -> String {
    format!("*{name}*\n`{}`", text::fit(value, FIELD_MAX, code))
}

fn button(label: &str, url: String) -> Option<Value> {
    (url.len() <= URL_MAX)
        .then(|| json!({"type": "button", "text": {"type": "plain_text", "text": label, "emoji": false}, "url": url}))
}

/// Slack's three entities.
fn entities(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        other => out.push(other),
    }
}

/// Inside a code span, which a backtick would end.
fn code(c: char, out: &mut String) {
    if c == '`' { out.push('\'') } else { entities(c, out) }
}
