//! The registry client against a real registry and against hostile ones.

mod support;

#[path = "registry/azure.rs"]
mod azure;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/real.rs"]
mod real;
#[path = "registry/sign_in.rs"]
mod sign_in;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tidewaiter::registry::{Auth, Budget, Client, RegistryError, Session, Settings};

use support::fake::Fake;
use support::tls::Ca;

pub const PASSWORD: &str = "correct horse";

pub fn settings(host: &str) -> Settings {
    let mut settings = Settings::new(host.parse().unwrap());
    settings.allow_private = true;
    settings.timeout = Duration::from_secs(5);
    settings
}

/// For a fake without TLS.
pub fn plain(fake: &Fake) -> Session {
    let mut settings = settings(&fake.host());
    settings.insecure = true;
    session(settings)
}

/// For a fake with TLS, with or without a password.
pub fn secure(fake: &Fake, ca: &Ca, auth: Auth) -> Session {
    let mut settings = settings(&fake.host());
    settings.ca = Some(ca.pem().into());
    settings.auth = auth;
    session(settings)
}

pub fn session(settings: Settings) -> Session {
    client(settings).session(Budget::default())
}

pub fn client(settings: Settings) -> Client {
    Client::new(settings, Arc::new(())).unwrap()
}

pub fn basic() -> Auth {
    Auth::Basic { user: "robot".into(), password: SecretString::from(PASSWORD) }
}

pub fn name() -> tidewaiter::image::RepositoryName {
    "iot/sensor".parse().unwrap()
}

pub fn tag() -> tidewaiter::image::Tag {
    "1.0.1".parse().unwrap()
}

pub fn is_untrusted(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Untrusted(_))
}
