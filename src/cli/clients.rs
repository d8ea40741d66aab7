//! Clients for the registries that are named on the command line: credentials from the configuration, else from
//! the container tools' own files; plain http only where container tools speak it too.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueHint;
use secrecy::ExposeSecret;

use super::fail::Failure;
use super::terminal::variable;
use crate::app::registry_settings;
use crate::config::Config;
use crate::image::{Host, RepositoryName};
use crate::registry::{Auth, Budget, Client, RegistryError, Settings, auth_files};
use crate::report::visible;

/// Largest certificate file read, in bytes: the whole of a system's authorities is a quarter of it.
const CA_BYTES_MAX: u64 = 1 << 20;
/// What finding out whether a registry speaks TLS may use.
const PROBE: Budget = Budget { requests: 8, bytes: 1 << 20, time: Duration::from_secs(15) };

/// How registries are reached.
#[derive(Debug, clap::Args)]
pub(super) struct Reach {
    /// Speak plain http; loopback registries are tried with TLS first, and need no flag
    #[arg(long)]
    plain_http: bool,
    /// Trust the certificate authorities in this PEM file, besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
}

/// Makes clients, each once.
pub(super) struct Clients<'a> {
    config: Option<&'a Config>,
    plain_http: bool,
    ca: Option<Vec<u8>>,
    files: Vec<PathBuf>,
    /// Hosts of which it is known that they speak plain http.
    plain: HashMap<Host, bool>,
    made: Vec<(Host, Auth, Client)>,
}

impl<'a> Clients<'a> {
    /// For these flags and this configuration.
    ///
    /// # Errors
    /// Where the certificates cannot be read.
    pub fn new(reach: &Reach, config: Option<&'a Config>) -> Result<Clients<'a>, Failure> {
        let ca = reach.ca.as_ref().map(|path| {
            let length = std::fs::metadata(path).map(|m| m.len());
            match length.and_then(|length| Ok((length, std::fs::read(path)?))) {
                Ok((length, bytes)) if length <= CA_BYTES_MAX => Ok(bytes),
                Ok(_) => Err(Failure::say(format!("`--ca {}` is larger than {CA_BYTES_MAX} bytes", path.display()))),
                Err(error) => Err(Failure::say(format!("cannot read `--ca {}`: {error}", path.display()))),
            }
        });
        let files = auth_files::default_paths(|name| variable(name).map(Into::into), user_number());
        Ok(Clients {
            config,
            plain_http: reach.plain_http,
            ca: ca.transpose()?,
            files,
            plain: HashMap::new(),
            made: Vec::new(),
        })
    }

    /// The client for a repository; without a name, for the registry as a whole. Whoever has one credential shares
    /// one client, and with it connections and pace.
    pub async fn client(&mut self, host: &Host, name: Option<&RepositoryName>) -> Result<Client, Failure> {
        if let Some(registry) = self.config.and_then(|c| c.registry(host)) {
            if let Some(made) = self.find(&registry.host, None) {
                return Ok(made);
            }
            let settings = registry_settings(registry).map_err(|error| Failure::say(format!("{error:#}")))?;
            return self.make(settings);
        }
        let auth = self.credential(host, name)?;
        if let Some(made) = self.find(host, Some(&auth)) {
            return Ok(made);
        }
        let mut settings = Settings::new(host.clone());
        settings.ca = self.ca.clone();
        // Whoever types a host means it, wherever it is.
        settings.allow_private = true;
        settings.insecure = self.plain_http || self.speaks_plainly(&settings, name).await?;
        if settings.insecure {
            if auth.is_credential() && self.plain_http {
                return Err(Failure::say(format!("no credential is sent to `{host}` over plain http"))
                    .help("leave out --plain-http and let the registry speak TLS, or log out of it"));
            }
            // A loopback registry that has no TLS: what needs no credential is read all the same.
            settings.auth = Auth::Anonymous;
            if let Some(made) = self.find(host, Some(&Auth::Anonymous)) {
                return Ok(made);
            }
        } else {
            settings.auth = auth;
        }
        self.make(settings)
    }

    fn find(&self, host: &Host, auth: Option<&Auth>) -> Option<Client> {
        let found = self.made.iter().find(|(h, a, _)| h == host && auth.is_none_or(|auth| same(a, auth)));
        found.map(|(_, _, client)| client.clone())
    }

    fn make(&mut self, settings: Settings) -> Result<Client, Failure> {
        let (host, auth) = (settings.host.clone(), settings.auth.clone());
        let client = Client::new(settings, Arc::new(())).map_err(|error| Failure::say(format!("`{host}`: {error}")))?;
        self.made.push((host, auth, client.clone()));
        Ok(client)
    }

    fn credential(&self, host: &Host, name: Option<&RepositoryName>) -> Result<Auth, Failure> {
        match auth_files::credential(&self.files, host, name) {
            Ok(auth_files::Lookup::Found(auth)) => Ok(auth),
            Ok(auth_files::Lookup::Nothing) => Ok(Auth::Anonymous),
            Ok(auth_files::Lookup::Helper { helper, file }) => {
                let text = format!(
                    "the credential of `{host}` is kept by the helper `{}` (`{}`), which is not run",
                    visible(&helper),
                    file.display()
                );
                Err(Failure::say(text).help(format!(
                    "store one in a file of its own, as in `skopeo login --authfile auth.json {host}`, and set REGISTRY_AUTH_FILE=auth.json; or use --config"
                )))
            }
            Err(error) => Err(Failure::say(error.to_string())),
        }
    }

    /// Whether a loopback registry speaks plain http: TLS is tried first, as container tools do.
    async fn speaks_plainly(&mut self, settings: &Settings, name: Option<&RepositoryName>) -> Result<bool, Failure> {
        let host = &settings.host;
        if !settings.origin().is_loopback() {
            return Ok(false);
        }
        if let Some(plain) = self.plain.get(host) {
            return Ok(*plain);
        }
        let secure = answers(settings, name).await?;
        let plain = match secure {
            Ok(()) => false,
            Err(RegistryError::Tls(_) | RegistryError::Connect(_)) => {
                let insecure = Settings { insecure: true, ..settings.clone() };
                answers(&insecure, name).await?.is_ok()
            }
            Err(_) => false,
        };
        self.plain.insert(host.clone(), plain);
        Ok(plain)
    }
}

/// Whether there is a registry that speaks as the settings say; what it says does not matter.
async fn answers(settings: &Settings, name: Option<&RepositoryName>) -> Result<Result<(), RegistryError>, Failure> {
    let client = Client::new(settings.clone(), Arc::new(()))
        .map_err(|error| Failure::say(format!("`{}`: {error}", settings.host)))?;
    let session = client.session(PROBE);
    let said = match name {
        Some(name) => session.tags(name, None).await.map(|_| ()),
        None => session.catalog(None).await.map(|_| ()),
    };
    Ok(match said {
        Ok(()) | Err(RegistryError::Unauthorized { .. } | RegistryError::Forbidden { .. }) => Ok(()),
        Err(RegistryError::Throttled { .. } | RegistryError::Server { .. }) => Ok(()),
        // A TLS server says 400 to plain http; a registry says 404 to what it does not have.
        Err(RegistryError::Unexpected { status, .. }) if status != 400 => Ok(()),
        Err(error) => Err(error),
    })
}

/// Whether two credentials are one.
fn same(a: &Auth, b: &Auth) -> bool {
    match (a, b) {
        (Auth::Anonymous, Auth::Anonymous) => true,
        (Auth::Basic { user, password }, Auth::Basic { user: u, password: p }) => {
            user == u && password.expose_secret() == p.expose_secret()
        }
        (Auth::Token { token }, Auth::Token { token: t }) | (Auth::Identity { token }, Auth::Identity { token: t }) => {
            token.expose_secret() == t.expose_secret()
        }
        _ => false,
    }
}

/// The user's number, where the container tools' files go by it.
fn user_number() -> Option<u32> {
    #[cfg(unix)]
    {
        // The process's own entry belongs to whoever runs it.
        std::fs::metadata("/proc/self").ok().map(|m| std::os::unix::fs::MetadataExt::uid(&m))
    }
    #[cfg(not(unix))]
    {
        None
    }
}
