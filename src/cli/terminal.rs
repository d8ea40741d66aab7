//! The two ways out: standard output for the result, standard error for everything else; and what is known of
//! whoever reads them.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::fail::Failure;
use crate::document;
use crate::policy::Severity;
use crate::report::{self, WIDTH_DEFAULT};

/// How often a bar is drawn while nothing moves, so that one sees that the program lives.
const TICK: Duration = Duration::from_millis(120);

/// What is known of the reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    colour_out: bool,
    colour_err: bool,
    unicode: bool,
    width: usize,
}

impl Terminal {
    /// Looks at the process's streams and at the usual variables: `NO_COLOR`, `CLICOLOR_FORCE`, `TERM`, the locale.
    pub fn new() -> Terminal {
        let on_terminal = io::stdout().is_terminal();
        let width =
            if on_terminal { terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)) } else { None };
        Terminal {
            colour_out: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            colour_err: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            unicode: !on_terminal || locale_is_unicode(),
            width: width.unwrap_or(WIDTH_DEFAULT),
        }
    }

    /// How reports are set for standard output.
    pub fn options(&self, fail_on: Severity) -> report::Options {
        report::Options { colour: self.colour_out, unicode: self.unicode, width: self.width, fail_on }
    }

    /// How reports are set for a file: nothing of the terminal.
    pub fn options_of_file(fail_on: Severity) -> report::Options {
        report::Options { fail_on, ..report::Options::default() }
    }

    /// How listings are set for standard output.
    pub fn listing(&self) -> report::Options {
        self.options(Severity::Warning)
    }

    /// Writes the result.
    ///
    /// # Errors
    /// Where it cannot be written. A reader that has gone, as `head` does, is none.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::say(format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Says something that is no result and no fault.
    pub fn note(&self, text: &str) {
        self.tell("note", "1;36", text);
    }

    /// Says something that is probably not meant.
    pub fn warn(&self, text: &str) {
        self.tell("warning", "1;33", text);
    }

    /// Says why there is no result.
    pub fn complain(&self, failure: &Failure) {
        match failure {
            Failure::Say { text, help, .. } => {
                self.tell("error", "1;31", text);
                if let Some(help) = help {
                    self.tell("help", "1;36", help);
                }
            }
            Failure::Faults(faults) => self.faults(faults),
        }
    }

    /// Shows faults of documents.
    pub fn faults(&self, faults: &[document::Fault]) {
        self.err(&document::render(faults, self.colour_err));
    }

    fn tell(&self, word: &str, code: &str, text: &str) {
        let line = if self.colour_err {
            format!("\u{1b}[{code}m{word}\u{1b}[0m: {text}\n")
        } else {
            format!("{word}: {text}\n")
        };
        self.err(&line);
    }

    fn err(&self, text: &str) {
        // Where nobody listens there is nobody to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// A bar on standard error, drawn only where that is a terminal.
    pub fn progress(&self, what: &str, total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        bar
    }
}

/// Whether the locale is not one that says it shows ASCII only.
fn locale_is_unicode() -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| variable(name).filter(|v| !v.is_empty()));
    said.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// An environment variable that is text.
#[expect(clippy::disallowed_methods, reason = "this is the edge where the environment is read")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
