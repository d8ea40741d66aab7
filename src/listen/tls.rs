//! Certificates: read as a set, checked as a set, swapped while connections go on (T-65); TLS 1.2 and 1.3
//! with authenticated ciphers only, no early data, no renegotiation (T-11).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use notify::Watcher;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::self_signed::SelfSigned;
use crate::clock::Clock;
use crate::metrics::{Listener, Metrics};

/// How often the files are looked at where no notice of a change arrives, as on network file systems.
const POLL: Duration = Duration::from_secs(60);
/// How long a change may take: two files are rarely replaced in one step, and only what is still at fault
/// after this is a fault.
const SETTLE: Duration = Duration::from_millis(500);
/// Largest certificate or key file: a chain of ten has about 20 KiB; authorities' bundles have 250 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted (PEM); without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a key file that every local user can read is accepted all the same.
    pub allow_readable_key: bool,
}

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// The fault.
        source: io::Error,
    },
    /// A file is not what it must be.
    #[error("{path} is not usable: expected {expected}")]
    Content {
        /// The file.
        path: String,
        /// What was looked for.
        expected: &'static str,
    },
    /// Any local user could take the key.
    #[error("{path} can be read by every local user: give it mode 0600 (`chmod 600`)")]
    Readable {
        /// The file.
        path: String,
    },
    /// The certificate has run out, and a valid one is in use.
    #[error("the certificate in {path} expired at {at}; renew it")]
    Expired {
        /// The file.
        path: String,
        /// When it expired.
        at: Timestamp,
    },
    /// Certificate and key do not belong together, or the library refuses them.
    #[error("{certificate} and {key} do not make a server: {source}; the key must be the certificate's own")]
    Pair {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// The fault.
        source: rustls::Error,
    },
    /// The authorities for client certificates are not usable.
    #[error("{path} holds no usable authority for client certificates: {why}")]
    ClientCa {
        /// The file.
        path: String,
        /// The fault.
        why: String,
    },
    /// The library's own set-up failed.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A verified certificate that a client showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its names: DNS names, addresses for mail and URIs of the subject alternative name, and the common name.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub fingerprint: String,
}

/// What was read from the files.
struct Loaded {
    config: ServerConfig,
    expires: Timestamp,
    hash: [u8; 32],
}

/// The certificate of one listener, renewed from its files.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    state: Mutex<State>,
    own: Option<SelfSigned>,
    // Shared by all certificates in turn: a reload does not cut off resumption, and the keys rotate by time.
    ticketer: Arc<dyn ProducesTickets>,
    provider: Arc<CryptoProvider>,
    listener: Listener,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

struct State {
    hash: [u8; 32],
    expires: Timestamp,
    /// The fault told last, so that one fault is told once.
    told: Option<String>,
}

impl Tls {
    /// Reads the files for the first time. An expired certificate is used, with an error logged.
    ///
    /// # Errors
    /// The files do not make a server.
    pub fn load(
        files: TlsFiles,
        listener: Listener,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Tls>, TlsError> {
        Tls::new(files, None, listener, metrics, clock)
    }

    /// The same for a certificate of our own making, which is renewed before it expires.
    ///
    /// # Errors
    /// As for [`Tls::load`].
    pub fn self_signed(
        own: SelfSigned,
        client_ca: Option<PathBuf>,
        listener: Listener,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Tls>, TlsError> {
        let files = TlsFiles {
            certificate: own.certificate().to_owned(),
            key: own.key().to_owned(),
            client_ca,
            allow_readable_key: false,
        };
        Tls::new(files, Some(own), listener, metrics, clock)
    }

    fn new(
        files: TlsFiles,
        own: Option<SelfSigned>,
        listener: Listener,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Tls>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let ticketer = aws_lc_rs::Ticketer::new()?;
        let loaded = read(&files, &provider, &ticketer)?;
        if loaded.expires < clock.now() {
            tracing::error!(certificate = %files.certificate.display(), expired = %loaded.expires,
                "the certificate has expired; senders will refuse it");
        }
        metrics.certificate_read(listener, Some(loaded.expires.as_second()));
        let state = State { hash: loaded.hash, expires: loaded.expires, told: None };
        Ok(Arc::new(Tls {
            files,
            config: ArcSwap::from_pointee(loaded.config),
            state: Mutex::new(state),
            own,
            ticketer,
            provider,
            listener,
            metrics,
            clock,
        }))
    }

    /// Until when the certificate in use is valid.
    pub fn expires(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).expires
    }

    /// Reads the files again; gives whether something changed. On a fault the certificate before stays in use.
    ///
    /// # Errors
    /// The files do not make a server, or only one that has expired.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let loaded = read(&self.files, &self.provider, &self.ticketer)?;
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.told = None;
        if loaded.hash == state.hash {
            return Ok(false);
        }
        let now = self.clock.now();
        if loaded.expires < now && state.expires >= now {
            return Err(TlsError::Expired { path: self.files.certificate.display().to_string(), at: loaded.expires });
        }
        self.config.store(Arc::new(loaded.config));
        state.hash = loaded.hash;
        state.expires = loaded.expires;
        drop(state);
        self.metrics.certificate_read(self.listener, Some(loaded.expires.as_second()));
        tracing::info!(listener = self.listener.as_str(), expires = %loaded.expires, "the certificate was replaced");
        Ok(true)
    }

    /// Follows the files until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let watcher = self.watcher(changed.clone());
        if let Err(error) = &watcher {
            tracing::warn!(%error, every_s = POLL.as_secs(), "no notice of changed certificate files; they are looked at instead");
        }
        // What changed between the first reading and the watch made no notice.
        changed.notify_one();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            self.renew_own();
            if self.reload_here().await.is_err() {
                tokio::time::sleep(SETTLE).await;
                if let Err(error) = self.reload_here().await {
                    self.tell(&error);
                }
            }
        }
    }

    async fn reload_here(self: &Arc<Self>) -> Result<bool, String> {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || this.reload()).await {
            Ok(reloaded) => reloaded.map_err(|error| error.to_string()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    fn tell(&self, error: &str) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.told.as_deref() != Some(error) {
            state.told = Some(error.to_owned());
            drop(state);
            self.metrics.certificate_read(self.listener, None);
            tracing::error!(listener = self.listener.as_str(), error, "the certificate before stays in use");
        }
    }

    fn renew_own(&self) {
        let Some(own) = &self.own else { return };
        match own.renew(self.clock.now()) {
            Ok(_) => {}
            Err(error) => self.tell(&error.to_string()),
        }
    }

    fn watcher(&self, changed: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
        let names: Vec<OsString> =
            [Some(&self.files.certificate), Some(&self.files.key), self.files.client_ca.as_ref()]
                .into_iter()
                .flatten()
                .filter_map(|file| file.file_name().map(OsString::from))
                .collect();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files makes events too, which must not lead to reading them again, and others write beside
            // them. The links through which a mounted secret is replaced begin with two dots.
            let ours = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default();
                name.as_encoded_bytes().starts_with(b"..") || names.iter().any(|known| known == name)
            };
            let other =
                |event: &notify::Event| event.kind.is_access() || !event.need_rescan() && !event.paths.iter().any(ours);
            if !event.is_ok_and(|event| other(&event)) {
                changed.notify_one();
            }
        })?;
        // The directories, not the files: what is replaced by renaming or by a link is another file.
        let mut directories: Vec<&Path> = [Some(&self.files.certificate), Some(&self.files.key)]
            .into_iter()
            .chain([self.files.client_ca.as_ref()])
            .flatten()
            .map(|file| file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .collect();
        directories.sort();
        directories.dedup();
        for directory in directories {
            watcher.watch(directory, notify::RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// Shakes hands over a new connection.
    ///
    /// # Errors
    /// The client speaks no TLS, none of the versions, or shows a certificate that is not accepted.
    pub(super) async fn accept<T>(&self, stream: T) -> io::Result<(TlsStream<T>, Option<ClientCertificate>)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let stream = acceptor.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(client_certificate);
        Ok((stream, certificate))
    }
}

/// The names in a verified certificate; one that cannot be read has none.
fn client_certificate(der: &CertificateDer<'_>) -> ClientCertificate {
    let fingerprint = hex::encode(Sha256::digest(der));
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return ClientCertificate { names: Vec::new(), fingerprint };
    };
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                Some((*name).to_owned())
            }
            _ => None,
        }));
    }
    names.extend(certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned));
    ClientCertificate { names, fingerprint }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let fault = |source| TlsError::Read { path: path.display().to_string(), source };
    if fs::metadata(path).map_err(fault)?.len() > FILE_BYTES_MAX {
        return Err(TlsError::Content { path: path.display().to_string(), expected: "at most 1 MiB" });
    }
    fs::read(path).map_err(fault)
}

fn read(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Loaded, TlsError> {
    let name = |path: &Path| path.display().to_string();
    let content = |path: &Path, expected| TlsError::Content { path: name(path), expected };
    let certificate = read_file(&files.certificate)?;
    let key = read_file(&files.key)?;
    if !files.allow_readable_key {
        let mode = fs::metadata(&files.key).map_err(|source| TlsError::Read { path: name(&files.key), source })?.mode();
        if mode & 0o007 != 0 {
            return Err(TlsError::Readable { path: name(&files.key) });
        }
    }
    let client_ca = files.client_ca.as_deref().map(read_file).transpose()?;

    let mut hash = Sha256::new();
    for part in [&certificate, &key].into_iter().chain(&client_ca) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| content(&files.certificate, "certificates as PEM"))?;
    let leaf = chain.first().ok_or_else(|| content(&files.certificate, "a `BEGIN CERTIFICATE` block"))?;
    let expires = X509Certificate::from_der(leaf)
        .ok()
        .and_then(|(_, leaf)| Timestamp::from_second(leaf.validity().not_after.timestamp()).ok())
        .ok_or_else(|| content(&files.certificate, "an X.509 certificate as its first block"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&key).map_err(|_| content(&files.key, "an unencrypted private key as PEM"))?;

    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match (&files.client_ca, client_ca) {
        (Some(path), Some(pem)) => {
            let fault = |why: String| TlsError::ClientCa { path: name(path), why };
            let mut roots = RootCertStore::empty();
            for authority in CertificateDer::pem_slice_iter(&pem) {
                let authority = authority.map_err(|_| fault("it is not PEM".into()))?;
                roots.add(authority).map_err(|error| fault(error.to_string()))?;
            }
            // Unauthenticated here: which source asks for a certificate is known only from the request.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| fault(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
        certificate: name(&files.certificate),
        key: name(&files.key),
        source,
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.max_early_data_size = 0;
    config.ticketer = ticketer.clone();
    Ok(Loaded { config, expires, hash: hash.finalize().into() })
}
