//! The log: one event is one line, as text for a terminal or as JSON for everything else (T-61).
//!
//! Fields have the names `event.id`, `image.repository`, `image.digest`, `policy.name`, `verdict`,
//! `duration_ms`. Whatever a value holds, it is escaped and cut: text from outside cannot begin a line, move
//! the cursor or turn the reading direction. Every message is counted by level.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::clock::Clock;
use crate::metrics::Metrics;

/// Longest value of a field, in characters: an error with its causes fits.
const VALUE_CHARS_MAX: usize = 2_000;
/// What is logged unless configured otherwise: our own words, and others' when something is wrong.
pub const FILTER_DEFAULT: &str = "warn,tidewaiter=info";

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// Whether levels are coloured.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
}

/// Not the name of a log format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a log format is `text` or `json`")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Format, UnknownFormat> {
        match text {
            "text" => Ok(Format::Text { colour: false }),
            "json" => Ok(Format::Json),
            _ => Err(UnknownFormat),
        }
    }
}

impl Format {
    /// Text on a terminal, coloured unless `no_colour`; JSON elsewhere.
    pub fn for_standard_error(no_colour: bool) -> Format {
        if io::stderr().is_terminal() { Format::Text { colour: !no_colour } } else { Format::Json }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a filter.
    #[error("`{given}` is not a log filter: write a level, or `target=level,…`, as in `{FILTER_DEFAULT}`")]
    Filter {
        /// What was given.
        given: String,
        /// The fault.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody set it up before.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Logs to standard error from now on, what `filter` lets through.
///
/// # Errors
/// The filter is none, or logging is set up already.
pub fn init(format: Format, filter: &str, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { given: filter.chars().take(160).collect(), source })?;
    let lines = Lines { format, clock, metrics, out: Mutex::new(io::stderr()) };
    Registry::default().with(filter).with(lines).try_init()?;
    Ok(())
}

/// The layer that writes lines to `out` and counts them.
pub struct Lines<W> {
    format: Format,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    out: Mutex<W>,
}

impl<W: Write + Send + 'static> Lines<W> {
    /// Lines in `format` to `out`.
    pub fn new(format: Format, out: W, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Lines<W> {
        Lines { format, clock, metrics, out: Mutex::new(out) }
    }
}

/// Fields in the order they were given; a later one of the same name replaces an earlier one.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    named: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    /// A number or truth value: needs no quotes.
    Plain(String),
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match (name, value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            (_, value) => match self.named.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.named.push((name, value)),
            },
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut bounded = Bounded { text: String::new(), left: VALUE_CHARS_MAX };
        // A full line is no fault.
        let _ = write!(bounded, "{value:?}");
        self.put(field, Value::Text(bounded.text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            // Some errors repeat their cause in their own words.
            let words = error.to_string();
            if !text.contains(&words) {
                let _ = write!(text, ": {words}");
            }
            cause = error.source();
        }
        self.record_str(field, &text);
    }
}

/// Text of bounded length; it is escaped where it is shown, once.
struct Bounded {
    text: String,
    left: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                if !self.text.ends_with('…') {
                    self.text.push('…');
                }
                return Err(fmt::Error);
            }
            self.left -= 1;
            self.text.push(c);
        }
        Ok(())
    }
}

/// Whether a character changes how the rest of a line is shown, or is not shown at all.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = event.metadata().level();
        self.metrics.logged(level);
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut around: Vec<(&'static str, String)> = Vec::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(known) = span.extensions().get::<Fields>() {
                let own = |name: &str| fields.named.iter().any(|(n, _)| *n == name);
                around
                    .extend(known.named.iter().filter(|(name, _)| !own(name)).map(|(n, v)| (*n, v.shown(self.format))));
            }
        }
        let shown = fields.named.iter().map(|(name, value)| (*name, value.shown(self.format))).chain(around);
        let mut line = String::with_capacity(160);
        let now = self.clock.now();
        match self.format {
            Format::Json => {
                let _ = write!(line, r#"{{"timestamp":"{now:.6}","level":"{}","message":"#, word(level));
                line.push_str(&quoted(&fields.message));
                let _ = write!(line, r#","target":{}"#, quoted(event.metadata().target()));
                for (name, value) in shown {
                    let _ = write!(line, ",{}:{value}", quoted(name));
                }
                line.push('}');
            }
            Format::Text { colour } => {
                let (on, off) = if colour { (paint(level), "\u{1b}[0m") } else { ("", "") };
                let _ = write!(line, "{now:.3} {on}{:>5}{off} {}", word(level), escaped(&fields.message));
                for (name, value) in shown {
                    let _ = write!(line, " {name}={value}");
                }
            }
        }
        line.push('\n');
        // A log that cannot be written must not stop what it tells of.
        let _ = self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).write_all(line.as_bytes());
    }
}

impl Value {
    fn shown(&self, format: Format) -> String {
        match (self, format) {
            (Value::Plain(text), _) => text.clone(),
            (Value::Text(text), Format::Json) => quoted(text),
            (Value::Text(text), Format::Text { .. }) => {
                let simple =
                    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || hides(c) || c == '"' || c == '=');
                if simple { text.clone() } else { quoted(text) }
            }
        }
    }
}

/// As a JSON string, in which nothing hides: what JSON itself leaves as it is, is escaped its way.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    if !json.contains(hides) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hides(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// For people, in one line.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hides(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn word(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn paint(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG | Level::TRACE => "\u{1b}[2m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, log: impl FnOnce()) -> (String, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let out = Memory::default();
        let clock = Arc::new(SetClock::at("2026-11-22T10:00:00Z".parse().unwrap()));
        let lines = Lines::new(format, out.clone(), metrics.clone(), clock);
        tracing::subscriber::with_default(Registry::default().with(lines), log);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        (text, metrics)
    }

    const EVIL: [&str; 8] = [
        "a\nlevel=error forged",
        "a\r\n{\"level\":\"error\"}",
        "\u{1b}[2J\u{1b}[31mred",
        "\u{202e}txt.exe",
        "a\u{2028}b\u{85}c",
        "zero\u{200b}width\u{feff}",
        "\0\u{7}\u{8}",
        "\"},{\"level\":\"error\"",
    ];

    #[test]
    fn t61_one_event_is_one_line_whatever_it_holds() {
        for format in [Format::Json, Format::Text { colour: false }] {
            for evil in EVIL {
                let (text, _) = logged(format, || {
                    let span = tracing::info_span!("work", event.id = evil);
                    let _in = span.enter();
                    tracing::info!(image.repository = evil, other = ?evil, "{evil}");
                });
                assert!(text.ends_with('\n'));
                let line = text.trim_end_matches('\n');
                assert!(!line.chars().any(hides), "{line:?}");
                if format == Format::Json {
                    let value: serde_json::Value = serde_json::from_str(line).unwrap();
                    assert_eq!(value["level"], "info");
                    assert!(value["event.id"].is_string() && value["image.repository"].is_string());
                }
            }
        }
    }

    #[test]
    fn t61_what_is_escaped_reads_back_as_it_was() {
        for evil in EVIL {
            let (text, _) = logged(Format::Json, || tracing::info!(a = evil, "{evil}"));
            let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
            assert_eq!((value["a"].as_str(), value["message"].as_str()), (Some(evil), Some(evil)));
        }
        let (text, _) = logged(Format::Text { colour: false }, || tracing::info!(a = "x y\nz", "one\ntwo"));
        assert!(text.ends_with(" info one\\ntwo a=\"x y\\nz\"\n"), "{text}");
    }

    #[test]
    fn t61_values_are_cut() {
        let (text, _) = logged(Format::Json, || tracing::info!(a = "x".repeat(1_000_000), "b"));
        assert!(text.len() < VALUE_CHARS_MAX + 300 && text.contains('…'));
    }

    #[test]
    fn lines_read_well_and_are_counted() {
        let log = || {
            let error: Box<dyn std::error::Error> = "no route".into();
            tracing::warn!(error, duration_ms = 12, verdict = "pass", ok = true, "the sink did not answer");
        };
        let (text, metrics) = logged(Format::Text { colour: false }, log);
        assert_eq!(
            text,
            "2026-11-22T10:00:00.000Z  warn the sink did not answer error=\"no route\" duration_ms=12 verdict=pass ok=true\n"
        );
        assert!(metrics.encode().unwrap().contains("tidewaiter_log_messages_total{level=\"warn\"} 1"));
        let (text, _) = logged(Format::Json, log);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["duration_ms"], &value["verdict"]), (&12.into(), &"pass".into()));
        let (text, _) = logged(Format::Text { colour: true }, log);
        assert!(text.contains("\u{1b}[33m warn\u{1b}[0m"));
    }
}
