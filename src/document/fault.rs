//! Faults in documents, and how they are shown.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::{Position, Source, Span, is_plain};

/// Most faults reported of one document: who has more repairs these first.
pub const FAULTS_MAX: usize = 100;

/// Longest piece of a document shown with a fault, in bytes. Past that, as in JSON on one line, only the
/// place is named: drawing costs by the size of what is shown, and a hundred faults must stay cheap (T-39).
const SHOWN_BYTES_MAX: usize = 16 << 10;

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The document is not used.
    Error,
    /// The document is used, and something about it is probably not meant.
    Warning,
}

/// One thing that is wrong at one place of a document. Equality ignores nothing; order is by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The document.
    pub source: Source,
    /// The offending text.
    pub span: Span,
    /// A stable kebab-case word for the kind of fault.
    pub code: &'static str,
    /// What is wrong: one line, beginning in lower case, without a full stop.
    pub message: String,
    /// What would be right, shown beside the offending text; may be empty.
    pub label: String,
    /// More that helps, shown below.
    pub help: Option<String>,
    /// Other places of the same document that belong to the fault, each with what it is.
    pub also: Vec<(Span, String)>,
    /// Whether the document can be used all the same.
    pub severity: Severity,
    /// The offending text may be a secret: the place is named, the text is not shown.
    pub concealed: bool,
}

impl Fault {
    /// An error at a place, without label, help or further places.
    pub fn error(source: &Source, span: Span, code: &'static str, message: impl Into<String>) -> Fault {
        Fault {
            source: source.clone(),
            span,
            code,
            message: message.into(),
            label: String::new(),
            help: None,
            also: Vec::new(),
            severity: Severity::Error,
            concealed: false,
        }
    }

    /// The same fault as a warning.
    pub fn warning(mut self) -> Fault {
        self.severity = Severity::Warning;
        self
    }

    /// The same fault without showing the text it is about.
    pub fn concealed(mut self) -> Fault {
        self.concealed = true;
        self
    }

    /// The same fault with what would be right.
    pub fn label(mut self, label: impl Into<String>) -> Fault {
        self.label = label.into();
        self
    }

    /// The same fault with more that helps.
    pub fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }

    /// The same fault with another place that belongs to it.
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Fault {
        self.also.push((span, label.into()));
        self
    }

    /// Line and column of the offending text.
    pub fn position(&self) -> Position {
        self.source.position(self.span.start)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One line: `file:line:col: error: message: label`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position();
        write!(f, "{}:{line}:{column}: {}: {}", name(&self.source), self.severity, self.message)?;
        if !self.label.is_empty() {
            write!(f, ": {}", self.label)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// All faults as a compiler shows them, one after the other with an empty line between; with ANSI colours
/// if `colour` is set. Ends with a newline unless there is nothing to show.
pub fn render(faults: &[Fault], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for (n, fault) in faults.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        out.push_str(&render_one(fault, &renderer));
        out.push('\n');
    }
    out
}

fn render_one(fault: &Fault, renderer: &Renderer) -> String {
    let level = || match fault.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let window = window(fault);
    let text = &fault.source.text[window.start..window.end];
    let shift = |span: Span| {
        let start = span.start.clamp(window.start, window.end);
        // A span that runs over lines is shown on its first one: the rest is what belongs to it.
        let line_end = fault.source.text[start..window.end].find('\n').map_or(window.end, |n| start + n);
        start - window.start..span.end.clamp(start, line_end.max(start)) - window.start
    };
    let label = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let snippet = Snippet::source(text)
        .line_start(fault.source.position(window.start).line)
        .path(name(&fault.source))
        .annotation(AnnotationKind::Primary.span(shift(fault.span)).label(label(&fault.label)))
        .annotations(
            fault.also.iter().map(|(span, text)| AnnotationKind::Context.span(shift(*span)).label(label(text))),
        );
    let title = level().primary_title(fault.message.as_str());
    let mut groups = if text.len() <= SHOWN_BYTES_MAX && !fault.concealed && !tells_a_secret(text) {
        vec![title.element(snippet)]
    } else {
        let Position { line, column } = fault.position();
        let place = title.element(Origin::path(name(&fault.source)).line(line).char_column(column));
        let label = (!fault.label.is_empty()).then(|| Level::NOTE.secondary_title(fault.label.as_str()));
        std::iter::once(place).chain(label.map(Group::with_title)).collect()
    };
    if let Some(help) = &fault.help {
        groups.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
    }
    renderer.render(&groups)
}

/// Whether somebody wrote a secret into the text itself, which is a fault of its own and may stand beside any other:
/// what is shown ends in logs (T-62). Names of files and variables that hold secrets are no secrets.
fn tells_a_secret(text: &str) -> bool {
    const NAMES: [&str; 7] = ["password", "passwd", "secret", "token", "credential", "apikey", "routingkey"];
    let key = |before: &str| {
        let word = before.trim_end().trim_end_matches(['"', '\'']);
        let word = word.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).next();
        word.unwrap_or_default().to_ascii_lowercase()
    };
    text.match_indices(':').any(|(at, _)| {
        let key = key(&text[..at]);
        let value = text[at + 1..].trim_start_matches(' ');
        NAMES.iter().any(|name| key.ends_with(name)) && !value.is_empty() && !value.starts_with(['\n', '{'])
    })
}

/// The whole lines that the places of a fault stand on. Only these are handed to the renderer, whose work
/// grows with the text it gets, so that a hundred faults in a large file stay cheap.
fn window(fault: &Fault) -> Span {
    let text = &fault.source.text;
    let places = || std::iter::once(&fault.span).chain(fault.also.iter().map(|(span, _)| span)).map(|s| s.start);
    let first = fault.source.before(places().min().unwrap_or_default());
    let last = fault.source.before(places().max().unwrap_or_default()).len();
    let start = first.rfind('\n').map_or(0, |n| n + 1);
    Span::new(start, text[last..].find('\n').map_or(text.len(), |n| last + n))
}

/// The name of a source as one line without control characters: file names come from outside (T-61).
fn name(source: &Source) -> String {
    source.name.chars().flat_map(|c| if is_plain(c) { vec![c] } else { c.escape_default().collect() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t62_a_secret_in_the_text_is_never_shown() {
        for line in [
            "auth: {kind: basik, username: me, password: hunter2}",
            "auth: {kind: basik, \"clientSecret\" : \"hunter2\"}",
            "é: x, routingKey: hunter2",
            "api_token: hunter2",
        ] {
            let source = Source::new("a.yaml", line);
            let fault = Fault::error(&source, Span::new(0, 4), "wrong-value", "this is wrong").label("so it is");
            let shown = render(&[fault], false);
            assert!(!shown.contains("hunter2") && shown.contains("this is wrong"), "{shown}");
        }
        for line in ["auth: {kind: basik, passwordFile: secret.txt}", "auth: {valueFiles: [token]}", "secret:\n  x: y"]
        {
            let source = Source::new("a.yaml", line);
            let fault = Fault::error(&source, Span::new(0, 4), "wrong-value", "this is wrong");
            let shown = render(&[fault], false);
            assert!(shown.contains(line.lines().next().unwrap()), "{shown}");
        }
    }
}
