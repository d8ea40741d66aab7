//! Recorded events: what came, from whom, and what became of it.

use serde_json::{Map, Value, json};

use super::table::table;
use super::text::style::{Glyph, Style};
use super::{Options, moment, visible};
use crate::store::{DeadLetter, EventRow};

/// Stands beside a source that takes events from anybody.
const UNAUTHENTICATED: &str = " (unauthenticated)";
/// How much of a dead letter's body is shown, in characters: enough to see what it is.
const EXCERPT_CHARS_MAX: usize = 1_000;

/// One event, as the admin API lists it; `fault` is additive and there only with a fault,
/// `unauthenticated` only where it is true.
pub fn event_json(row: &EventRow) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), json!(row.id));
    object.insert("source".into(), json!(row.source));
    if row.unauthenticated {
        object.insert("unauthenticated".into(), json!(true));
    }
    object.insert("receivedAt".into(), json!(row.received_at.to_string()));
    object.insert("action".into(), json!(row.action.as_str()));
    object.insert("registry".into(), json!(row.repository.host.as_str()));
    object.insert("repository".into(), json!(row.repository.name.as_str()));
    object.insert("tag".into(), json!(row.tag.as_ref().map(|t| t.as_str())));
    object.insert("digest".into(), json!(row.digest.as_ref().map(|d| d.as_str())));
    object.insert("state".into(), json!(row.state));
    if let Some(fault) = &row.fault {
        object.insert("fault".into(), json!(fault));
    }
    Value::Object(object)
}

/// A dead letter, as the admin API lists it: what it is and the beginning of its body. The body is kept whole.
pub fn dead_letter_json(letter: &DeadLetter) -> Value {
    let headers: Map<String, Value> = letter.headers.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
    let excerpt: String = String::from_utf8_lossy(&letter.body).chars().take(EXCERPT_CHARS_MAX).collect();
    json!({
        "id": letter.id,
        "source": &*letter.source,
        "receivedAt": letter.received_at.to_string(),
        "fault": letter.fault,
        "headers": headers,
        "bytes": letter.body.len(),
        "excerpt": excerpt,
    })
}

/// Dead letters as the admin API lists them, for people: one line each, and below it the fault and how the body
/// begins.
pub fn dead_letters_text(letters: &[Value], options: &Options) -> String {
    /// How much of a body a line has room for, in characters.
    const BEGINNING_CHARS_MAX: usize = 160;
    let style = Style::new(options);
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let word = |letter: &Value, name: &str| style.text(letter[name].as_str().unwrap_or_default());
    let mut text = String::new();
    for letter in letters {
        let received = letter["receivedAt"].as_str().and_then(|text| text.parse().ok());
        let mark = if letter["unauthenticated"] == true { UNAUTHENTICATED } else { "" };
        text += &format!(
            "{}   {}{mark}   {} bytes\n",
            received.map_or_else(String::new, moment),
            word(letter, "source"),
            letter["bytes"].as_u64().unwrap_or_default(),
        );
        text += &style.paragraph(&word(letter, "fault"), 2);
        text += &format!("  {}\n", style.cut(&word(letter, "excerpt"), BEGINNING_CHARS_MAX));
    }
    text
}

/// The events as a table, in the order given; the faults stand below.
pub fn events_text(rows: &[EventRow], options: &Options) -> String {
    let style = Style::new(options);
    if rows.is_empty() {
        return "no events\n".to_owned();
    }
    let cells: Vec<Vec<String>> = rows.iter().map(|r| cells(r, &style)).collect();
    let mut text = table(&["received", "source", "id", "action", "digest", "state", "reference"], &cells, &style);
    let faults: Vec<&EventRow> = rows.iter().filter(|r| r.fault.is_some()).collect();
    if !faults.is_empty() {
        text.push('\n');
    }
    for row in faults {
        let fault = row.fault.as_deref().unwrap_or_default();
        let line = format!("{} {}: {}", style.text(&row.state), reference(row), style.text(fault));
        text += &style.paragraph(&line, 0);
    }
    text
}

/// One event on one line, for `events --follow`: one event, one line, whatever is in it (T-61).
pub fn event_line(row: &EventRow, options: &Options) -> String {
    let style = Style::new(options);
    let mut line = cells(row, &style).join("   ");
    if let Some(fault) = &row.fault {
        line += &format!("   {}", style.text(fault));
    }
    line + "\n"
}

fn cells(row: &EventRow, style: &Style) -> Vec<String> {
    /// Longest id shown; senders use UUIDs of 36 characters.
    const ID_CHARS_MAX: usize = 36;
    let none = style.glyph(Glyph::None);
    vec![
        moment(row.received_at),
        style.text(&row.source) + if row.unauthenticated { UNAUTHENTICATED } else { "" },
        row.id.as_deref().map_or(none.to_owned(), |id| style.cut(&style.text(id), ID_CHARS_MAX)),
        row.action.as_str().to_owned(),
        row.digest.as_ref().map_or(none.to_owned(), |d| d.short().to_owned()),
        style.text(&row.state),
        reference(row),
    ]
}

fn reference(row: &EventRow) -> String {
    match &row.tag {
        Some(tag) => visible(&format!("{}:{tag}", row.repository)),
        None => row.repository.to_string(),
    }
}
