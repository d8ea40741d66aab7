//! The doctor's look at secrets that could be read: whether they can be guessed, and whether they can be sent as they are.
//! Says where a secret is and never what it is.

use super::{Findings, State, count};
use crate::config::{Config, Origin, RegistryAuth, Secret, SinkAuth, SourceAuth};

/// A shared secret of fewer characters can be found by trying: sixteen hexadecimal digits are 64 bits.
const CHARACTERS_MIN: usize = 16;
/// What `init` writes where only the user knows the address.
const PLACEHOLDER: &str = "PUSH@PROJECT.iam.gserviceaccount.com";

pub(super) fn look(config: &Config, found: &mut Findings) {
    for source in &config.sources {
        let whose = format!("source `{}`", source.name);
        match &source.auth {
            Some(SourceAuth::Header { values, .. }) => {
                guessed(&whose, values, found);
                header(&whose, values, found);
            }
            Some(SourceAuth::Basic { passwords: secrets, .. } | SourceAuth::Query { values: secrets, .. }) => {
                guessed(&whose, secrets, found);
                header(&whose, secrets, found);
            }
            Some(SourceAuth::Hmac { keys, .. }) => guessed(&whose, keys, found),
            Some(SourceAuth::Oidc { emails, .. }) if emails.iter().any(|email| email == PLACEHOLDER) => found.add(
                "sources",
                State::Fault,
                format!("{whose}: `emails` still has {PLACEHOLDER}, which is nobody: every event is refused"),
                "write the e-mail address of the service account that the push subscription signs in as",
            ),
            _ => {}
        }
    }
    if let Some(token) = &config.admin.token {
        guessed("`admin`", std::slice::from_ref(token), found);
        header("`admin`", std::slice::from_ref(token), found);
    }
    for registry in &config.registries {
        if let RegistryAuth::Token(token) = &registry.auth {
            header(&format!("registry {}", registry.host), std::slice::from_ref(token), found);
        }
    }
    for sink in &config.sinks {
        if let SinkAuth::Bearer(token) = &sink.auth {
            header(&format!("sink `{}`", sink.name), std::slice::from_ref(token), found);
        }
    }
}

fn place(secret: &Secret) -> String {
    match secret.origin() {
        Origin::File(path) => format!("the secret `{}`", path.display()),
        Origin::Variable(name) => format!("the secret in {name}"),
        Origin::Configuration => "its secret".to_owned(),
    }
}

/// What could not be read has been told.
fn read(secrets: &[Secret]) -> impl Iterator<Item = &Secret> {
    secrets.iter().filter(|secret| !secret.expose().is_empty())
}

fn guessed(whose: &str, secrets: &[Secret], found: &mut Findings) {
    for secret in read(secrets) {
        let length = secret.expose().strip_prefix("Bearer ").unwrap_or(secret.expose()).chars().count();
        if length < CHARACTERS_MIN {
            found.add(
                "configuration",
                State::Warning,
                format!(
                    "{whose}: {} has {}, and can be guessed",
                    place(secret),
                    count(length as u64, "character", "characters")
                ),
                "make a random one, as `openssl rand -hex 32` does; two may be valid while it is changed",
            );
        }
    }
}

/// Passwords and query parameters with line ends could be sent, but nobody means them.
fn header(whose: &str, secrets: &[Secret], found: &mut Findings) {
    for secret in read(secrets).filter(|secret| secret.expose().contains(['\n', '\r', '\0'])) {
        found.add(
            "configuration",
            State::Fault,
            format!("{whose}: {} has more than one line, which no header carries: it never matches", place(secret)),
            "leave one line in it; only the line end after it is left out",
        );
    }
}
