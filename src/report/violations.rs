//! Violations on record: what is pending, firing or resolved.

use serde_json::{Map, Value, json};

use super::text::style::{Style, Tone, chars, pad};
use super::{Options, Standing, count, docs_url, moment, visible};
use crate::policy::{Severity, State};
use crate::store::ViolationRow;

/// One violation, as the admin API lists it. The fields after `resolvedAt` are additive.
pub fn violation_json(row: &ViolationRow) -> Value {
    let violation = &row.violation;
    let key = &violation.key;
    let mut object = Map::new();
    object.insert("policy".into(), json!(&*key.policy));
    object.insert("class".into(), json!((!key.class.is_empty()).then_some(&*key.class)));
    object.insert("requirement".into(), json!(key.rule.as_str()));
    object.insert("reason".into(), json!(violation.reason.as_str()));
    object.insert("severity".into(), json!(violation.severity.as_str()));
    object.insert("state".into(), json!(violation.state.as_str()));
    object.insert("registry".into(), json!(row.repository.host.as_str()));
    object.insert("repository".into(), json!(row.repository.name.as_str()));
    object.insert("tag".into(), json!(key.tag.as_ref().map(|t| t.as_str())));
    object.insert("digest".into(), json!(violation.digest.as_ref().map(|d| d.as_str())));
    object.insert("message".into(), json!(violation.message));
    object.insert("expected".into(), json!(violation.expected));
    object.insert("actual".into(), json!(violation.actual));
    object.insert("since".into(), json!(violation.since.to_string()));
    object.insert("firedAt".into(), json!(violation.fired_at.map(|t| t.to_string())));
    object.insert("resolvedAt".into(), json!(violation.resolved_at.map(|t| t.to_string())));
    object.insert("firesAt".into(), json!(violation.fires_at.map(|t| t.to_string())));
    object.insert("advice".into(), json!(violation.advice));
    object.insert("docs".into(), json!(docs_url(violation.reason)));
    object.insert("preview".into(), json!(violation.preview));
    Value::Object(object)
}

/// The violations, in the order given: each with its state, since when, and what to do.
pub fn violations_text(rows: &[ViolationRow], options: &Options) -> String {
    let style = Style::new(options);
    if rows.is_empty() {
        return "no violations\n".to_owned();
    }
    let names: Vec<String> = rows.iter().map(name).collect();
    let limit = style.width / 2;
    let name_width = names.iter().map(|n| chars(n)).filter(|w| *w <= limit).max().unwrap_or(0);
    let rule_width = rows.iter().map(|r| r.violation.key.rule.as_str().len()).max().unwrap_or(0);
    let severity_width = rows.iter().map(|r| r.violation.severity.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (row, name) in rows.iter().zip(&names) {
        let violation = &row.violation;
        let head = format!(
            "{}   {}   {}   {}",
            pad(name, name_width),
            pad(violation.key.rule.as_str(), rule_width),
            pad(violation.severity.as_str(), severity_width),
            violation.state
        );
        let preview = if violation.preview { " (preview)" } else { "" };
        text += &format!("{} {head}{preview}\n", style.mark(standing(row)));
        text += &style.paragraph(&style.text(&violation.message), 4);
        if violation.state != State::Resolved && !violation.advice.is_empty() {
            text += &style.paragraph(&style.text(&violation.advice), 4);
        }
        let policy = style.text(&violation.key.policy);
        let mut when = format!("policy {policy}, {}, since {}", violation.reason, moment(violation.since));
        if let Some(at) = violation.fires_at {
            when += &format!(", fires {}", moment(at));
        }
        if let Some(at) = violation.resolved_at {
            when += &format!(", resolved {}", moment(at));
        }
        let when = style.paragraph(&when, 4);
        text += &format!("{}\n", style.paint(Tone::Note, when.trim_end_matches('\n')));
    }
    let of = |state: State| rows.iter().filter(|r| r.violation.state == state).count();
    let states: Vec<String> =
        State::ALL.iter().rev().filter(|s| of(**s) > 0).map(|s| format!("{} {s}", of(*s))).collect();
    text + &format!("\n{}: {}\n", count(rows.len(), "violation", "violations"), states.join(", "))
}

fn name(row: &ViolationRow) -> String {
    let key = &row.violation.key;
    match &key.tag {
        Some(tag) => format!("{}:{tag}", row.repository),
        None if key.class.is_empty() => row.repository.to_string(),
        None => format!("{} (class {})", row.repository, visible(&key.class)),
    }
}

fn standing(row: &ViolationRow) -> Standing {
    match (row.violation.state, row.violation.severity) {
        (State::Resolved, _) => Standing::Resolved,
        (_, Severity::Info) => Standing::Info,
        (State::Pending, _) => Standing::Pending,
        (State::Firing, Severity::Warning) => Standing::Warning,
        (State::Firing, Severity::Critical) => Standing::Critical,
    }
}
