//! The registry client against a real registry and against hostile ones.

#[expect(dead_code, reason = "shared by the test binaries, each of which uses its own part")]
mod support;

#[path = "registry/azure.rs"]
mod azure;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/locks.rs"]
mod locks;
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

const PASSWORD: &str = "correct horse";

fn settings(host: &str) -> Settings {
    let mut settings = Settings::new(host.parse().unwrap());
    settings.allow_private = true;
    settings.timeout = Duration::from_secs(5);
    settings
}

/// For a fake without TLS.
fn plain(fake: &Fake) -> Session {
    let mut settings = settings(&fake.host());
    settings.insecure = true;
    session(settings)
}

/// For a fake with TLS, with or without a password.
fn secure(fake: &Fake, ca: &Ca, auth: Auth) -> Session {
    let mut settings = settings(&fake.host());
    settings.ca = Some(ca.pem().into());
    settings.auth = auth;
    session(settings)
}

fn session(settings: Settings) -> Session {
    client(settings).session(Budget::default())
}

fn client(settings: Settings) -> Client {
    Client::new(settings, Arc::new(())).unwrap()
}

fn basic() -> Auth {
    Auth::Basic { user: "robot".into(), password: SecretString::from(PASSWORD) }
}

fn name() -> tidewaiter::image::RepositoryName {
    "iot/sensor".parse().unwrap()
}

fn tag() -> tidewaiter::image::Tag {
    "1.0.1".parse().unwrap()
}

fn is_untrusted(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Untrusted(_))
}
