//! The formats by their published names. Adding one: a file, a line here, a folder of cases.

use std::fmt;
use std::str::FromStr;

use super::fault::FormatError;
use super::text::quote;
use super::{Parsed, Request};
use super::{
    acr, alibaba, angos, artifactory, distribution, docker_hub, ecr, event_grid, gitea, github,
    google_artifact_registry, harbor, msr, nexus, quay, zot,
};

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
    EventGrid "event-grid" event_grid "Azure Event Grid, either schema.",
    Distribution "distribution" distribution "CNCF Distribution notifications.",
    Harbor "harbor" harbor "Harbor webhooks, either format.",
    DockerHub "docker-hub" docker_hub "Docker Hub webhooks.",
    Quay "quay" quay "Quay notifications.",
    Github "github" github "GitHub container registry.",
    Gitlab "gitlab" distribution "GitLab container registry: the envelope of CNCF Distribution.",
    Artifactory "artifactory" artifactory "JFrog Artifactory.",
    Ecr "ecr" ecr "Amazon ECR by EventBridge or SNS.",
    GoogleArtifactRegistry "google-artifact-registry" google_artifact_registry "Google Artifact Registry by Pub/Sub.",
    Zot "zot" zot "zot.",
    Gitea "gitea" gitea "Gitea and Forgejo.",
    Nexus "nexus" nexus "Sonatype Nexus repository.",
    Alibaba "alibaba" alibaba "Alibaba Cloud Container Registry.",
    Angos "angos" angos "angos.",
    Msr "msr" msr "Mirantis Secure Registry.",
}

/// Largest body of a sender that tells of one thing at a time, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Largest body of a sender that batches, in bytes; Event Grid's own limit is the same.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

impl Format {
    /// Whether the sender's handshake comes by OPTIONS.
    pub fn answers_options(self) -> bool {
        self == Format::EventGrid
    }

    /// The default limit of a body, in bytes.
    pub fn body_bytes_max(self) -> usize {
        match self {
            Format::EventGrid | Format::Distribution | Format::Gitlab => BATCH_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        }
    }

    /// Whether a body of this `Content-Type` is read. JSON always, and none at all; text from SNS; forms where
    /// a webhook can be configured to send them.
    pub fn accepts(self, content_type: Option<&str>) -> bool {
        let Some(text) = content_type else { return true };
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => true,
            "text/plain" => self == Format::Ecr,
            "application/x-www-form-urlencoded" => matches!(self, Format::Github | Format::Gitea),
            other => other.starts_with("application/") && other.ends_with("+json"),
        }
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
