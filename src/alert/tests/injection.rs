//! T-54: hostile strings through every sink, read back by a parser that looks for anything active.

use regex::Regex;
use serde_json::Value;

use super::super::message::Alert;
use super::super::summary::Summary;
use super::super::topic::Topic;
use super::super::{slack, teams, text};
use super::encoding::bodies;
use super::*;

const SEEDS: &[&str] = &[
    "<!channel>",
    "<!here|here>",
    "<@U012345>",
    "<#C012345>",
    "<!subteam^S1>",
    "<!date^1^{date}|x>",
    "<https://evil.example|login>",
    "https://evil.example/",
    "mailto:a@evil.example",
    "@channel",
    "@here",
    "[login](https://evil.example)",
    "![x](https://evil.example/i.png)",
    "[a]: https://evil.example",
    "<at>Everyone</at>",
    "*bold*",
    "_it_",
    "~s~",
    "`code`",
    "```\nblock\n```",
    "> quote",
    "# head",
    "- item",
    "1. item",
    "***",
    "| a | b |",
    "{{DATE(2026-01-01T00:00:00Z,SHORT)}}",
    "{{TIME(2026-01-01T00:00:00Z)}}",
    "${secret}",
    "{{ .Labels.alertname }}",
    "{{ template \"x\" }}",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;script&gt;",
    "&#60;b&#62;",
    "javascript:alert(1)",
    "\"}],\"actions\":[{\"type\":\"Action.OpenUrl\"}]",
    "\\",
    "\\\\`",
    "\\u003c",
    "%0d%0aX: y",
    "\r\nX-Evil: 1",
    "\n\n\n",
    "\u{0}",
    "\u{1b}[31mred",
    "\u{202e}exe.txt",
    "\u{2066}x\u{2069}",
    "\u{200b}",
    "\u{feff}",
    "\u{e0041}\u{e0042}",
    "\u{ad}",
    "\u{2028}",
    ":tada:",
    ":rotating_light:",
    "ＡＢ＜",
    "é̂̃",
    "😀👩‍👩‍👧",
    "'; DROP TABLE x;--",
    "%s%n",
    "$(id)",
];

fn corpus() -> Vec<String> {
    let mut all = Vec::new();
    for seed in SEEDS {
        all.push((*seed).to_owned());
        all.push(format!("the tag {seed} moved"));
        all.push(format!("{seed}{seed}"));
        all.push(format!("`{seed}`"));
        all.push(format!("\\{seed}"));
        all.push(format!("{}{seed}", "x".repeat(1495)));
        all.push(seed.repeat(700));
    }
    all
}

#[test]
fn t54_nothing_from_outside_is_active_in_any_sink() {
    let corpus = corpus();
    assert!(corpus.len() >= 300);
    for hostile in &corpus {
        let mut v = violation("1.2.3");
        v.message = hostile.clone();
        v.advice = hostile.clone();
        v.expected = vec![hostile.clone(); 40];
        v.actual = vec![hostile.clone()];
        v.key.policy = hostile.as_str().into();
        v.key.class = hostile.as_str().into();
        let alerts = [
            Alert::of(&repository(), &v, Edge::Fired),
            Alert::of(&repository(), &resolved(v, "2026-11-22T12:30:00Z"), Edge::Resolved),
            Alert::about_self(Topic::SinkParked, hostile, hostile, at("2026-11-22T12:00:00Z")),
        ];
        for alert in &alerts {
            for (sink, body) in bodies(alert) {
                inspect(sink, &body);
            }
        }
        inspect("slack", &slack::summary(&Summary::of(&alerts), &links()));
        inspect("teams", &teams::summary(&Summary::of(&alerts), &links()));
    }
}

fn inspect(sink: &str, body: &[u8]) {
    let value: Value = serde_json::from_slice(body).expect("well-formed");
    let strings = strings(&value);
    for (path, text) in &strings {
        let lines =
            text.split('\n').filter(|_| sink == "slack").chain([text.as_str()].into_iter().filter(|_| sink != "slack"));
        for line in lines {
            assert!(!line.chars().any(text::is_hidden), "{sink} {path}: {text:?}");
        }
        let last = path.rsplit('/').next().unwrap();
        if matches!(last, "url" | "href" | "generatorURL" | "runbook_url" | "client_url") {
            let ours = ["https://tidewaiter.example.com/", "https://docs.example.com/reasons/"];
            assert!(ours.iter().any(|base| text.starts_with(base)) && !text.contains("evil"), "{sink} {path}: {text}");
        }
    }
    match sink {
        "slack" => slack_is_inert(&value),
        "teams" => teams_is_inert(&value, body.len()),
        "alertmanager" => alertmanager_is_inert(&value),
        "pagerduty" => assert!(value["payload"]["summary"].as_str().is_none_or(|s| s.chars().count() <= 1024)),
        _ => {
            assert!(
                value
                    .as_object()
                    .unwrap()
                    .keys()
                    .all(|k| k.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
            );
        }
    }
}

fn strings(value: &Value) -> Vec<(String, String)> {
    fn walk(value: &Value, path: String, out: &mut Vec<(String, String)>) {
        match value {
            Value::String(text) => out.push((path, text.clone())),
            Value::Array(list) => list.iter().enumerate().for_each(|(n, v)| walk(v, format!("{path}/{n}"), out)),
            Value::Object(map) => map.iter().for_each(|(k, v)| walk(v, format!("{path}/{k}"), out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk(value, String::new(), &mut out);
    out
}

fn objects<'a>(value: &'a Value, out: &mut Vec<&'a serde_json::Map<String, Value>>) {
    match value {
        Value::Array(list) => list.iter().for_each(|v| objects(v, out)),
        Value::Object(map) => {
            out.push(map);
            map.values().for_each(|v| objects(v, out));
        }
        _ => {}
    }
}

fn slack_is_inert(value: &Value) {
    let field = Regex::new(r"^\*[A-Z][a-z]+\*\n`[^`<>\n]*`$").unwrap();
    let context = Regex::new(
        r"^severity \*[a-z]+\* · (since|resolved) <!date\^\d+\^\{date_num\} \{time_secs\}\|[0-9T:Z-]+> · id `[0-9a-f]{8}`$",
    )
    .unwrap();
    let fallback = value["text"].as_str().unwrap();
    assert!(!fallback.contains(['<', '>']) && !fallback.is_empty(), "{fallback}");
    assert_eq!(
        (value["parse"].as_str(), value["link_names"].as_bool(), value["mrkdwn"].as_bool()),
        (Some("none"), Some(false), Some(false))
    );
    let mut all = Vec::new();
    objects(&value["blocks"], &mut all);
    for object in all {
        let text = object.get("text").and_then(Value::as_str).unwrap_or_default();
        match object["type"].as_str().unwrap() {
            "mrkdwn" => assert!(field.is_match(text) || context.is_match(text), "{text:?}"),
            "plain_text" => {
                assert_eq!(object["emoji"], false);
                assert!(!text.is_empty() && text.chars().count() <= 3000);
            }
            "header" => assert!(object["text"]["text"].as_str().unwrap().chars().count() <= 150),
            "section" | "actions" | "context" | "button" => {}
            other => panic!("{other}"),
        }
    }
}

fn teams_is_inert(value: &Value, bytes: usize) {
    assert!(bytes <= 20_000, "{bytes}");
    let mut all = Vec::new();
    objects(&value["attachments"][0]["content"], &mut all);
    for object in all {
        match object.get("type").and_then(Value::as_str) {
            Some("TextBlock") => markdown_is_inert(object["text"].as_str().unwrap()),
            Some("TextRun") => assert_eq!(object.len(), 2, "a run is text and nothing else"),
            Some("AdaptiveCard" | "FactSet" | "RichTextBlock" | "Action.OpenUrl") => {}
            None => {
                if let Some(fact) = object.get("value") {
                    markdown_is_inert(fact.as_str().unwrap());
                }
            }
            Some(other) => panic!("{other}"),
        }
    }
}

fn markdown_is_inert(text: &str) {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            // The cut is between escapes, so an escape always has what it escapes.
            assert!(chars.next().is_some_and(|c| c.is_ascii_punctuation()), "{text}");
        } else {
            assert!(!"`*_{}[]()<>#~|&!$".contains(c), "{c} in {text}");
        }
    }
}

fn alertmanager_is_inert(value: &Value) {
    for alert in value.as_array().unwrap() {
        for (name, label) in alert["labels"].as_object().unwrap() {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase()));
            assert!(!label.as_str().unwrap().is_empty());
        }
        for (_, text) in strings(alert) {
            assert!(!text.contains(['<', '>', '[', ']']), "{text}");
        }
    }
}
