//! Why a command ended without its result, and the exit code that this makes.

use crate::config::Config;
use crate::document::Fault;
use crate::report::visible;
use crate::store::StoreError;

/// Wrong usage, an invalid document, or nothing to work on.
const INVALID: u8 = 2;
/// Something could not be determined.
const UNDETERMINED: u8 = 3;

/// What is said on standard error before the program ends.
#[derive(Debug)]
pub(super) enum Failure {
    /// One sentence, and perhaps what to type.
    Say {
        /// The exit code.
        code: u8,
        /// What is wrong: lower case, one line.
        text: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// Faults in documents.
    Faults(Vec<Fault>),
}

impl Failure {
    /// Wrong usage, or something that makes the command pointless.
    pub fn say(text: impl Into<String>) -> Failure {
        Failure::Say { code: INVALID, text: text.into(), help: None }
    }

    /// Somebody else did not answer.
    pub fn undetermined(text: impl Into<String>) -> Failure {
        Failure::Say { code: UNDETERMINED, text: text.into(), help: None }
    }

    /// The same with what to do.
    pub fn help(mut self, text: impl Into<String>) -> Failure {
        if let Failure::Say { help, .. } = &mut self {
            *help = Some(text.into());
        }
        self
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Say { code, .. } => *code,
            Failure::Faults(_) => INVALID,
        }
    }
}

impl From<Vec<Fault>> for Failure {
    fn from(faults: Vec<Fault>) -> Failure {
        Failure::Faults(faults)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::say(visible(&error.to_string()))
    }
}

/// A configuration as it was named; `None` where none was.
pub(super) fn configuration(path: Option<&std::path::Path>) -> Result<Option<Config>, Failure> {
    Ok(path.map(Config::load).transpose()?)
}
