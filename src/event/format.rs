//! The formats by their published names. Adding one: a file, a line here, a folder of cases.

use std::fmt;
use std::str::FromStr;

use super::fault::FormatError;
use super::text::quote;
use super::{Parsed, Request};
use super::{acr, distribution};

/// Not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not an event format: one of {known}")]
pub struct UnknownFormat {
    given: String,
    known: String,
}

macro_rules! formats {
    ($($variant:ident $name:literal $module:ident $doc:literal),+ $(,)?) => {
        /// The shape of a source's payloads.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Format {
            $(#[doc = $doc] $variant,)+
        }

        impl Format {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Format] = &[$(Format::$variant),+];

            /// The name used in configurations and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Format::$variant => $name),+ }
            }

            /// Reads a request of this format.
            ///
            /// # Errors
            /// The request as a whole is not of this format. A single bad item of a batch is no error: it is
            /// among [`Parsed::ignored`], with a reason that is a fault.
            pub fn parse(self, request: &Request<'_>) -> Result<Parsed, FormatError> {
                if request.method != "POST" && !(self.answers_options() && request.method == "OPTIONS") {
                    return Err(FormatError::Method);
                }
                match self { $(Format::$variant => $module::parse(request)),+ }
            }
        }
    };
}

formats! {
    Acr "acr" acr "Azure Container Registry webhooks.",
    Distribution "distribution" distribution "CNCF Distribution notifications.",
    Gitlab "gitlab" distribution "GitLab container registry: the envelope of CNCF Distribution.",
}

impl Format {
    /// Whether the sender's handshake comes by OPTIONS.
    pub fn answers_options(self) -> bool {
        false
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Format, UnknownFormat> {
        Format::ALL.iter().copied().find(|format| format.as_str() == text).ok_or_else(|| UnknownFormat {
            given: quote(text),
            known: Format::ALL.iter().map(|format| format.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}
