//! The daemon's admin API, as the commands that read the record ask it. The address and the token come from
//! the configuration or the command line; nothing that an answer says is followed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueHint;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::fail::Failure;
use super::terminal::variable;
use crate::config::Config;
use crate::image::Host;
use crate::report::visible;

/// Where the daemon's admin listener is unless it is told otherwise.
const DEFAULT: &str = "http://127.0.0.1:9464";
/// How long a connection may take: the daemon is near.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest answer read, in bytes: a page of a thousand violations is a megabyte or two.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Items asked for at a time: as many as the daemon gives.
const PAGE: usize = 1_000;

/// Where the daemon is.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The configuration of the daemon: where it listens, its token, its store
    #[arg(short, long, value_name = "FILE", env = "TIDEWAITER_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The daemon's admin listener, where it is not at the configured address; its token is taken from
    /// TIDEWAITER_TOKEN
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub server: Option<String>,
    /// Trust the certificate authorities in this PEM file, besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
}

/// Why the daemon did not do what it was asked.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Nobody answered, or nobody who is a daemon.
    NoAnswer(String),
    /// The daemon says why not.
    Said {
        /// The status.
        status: u16,
        /// Its own words.
        message: String,
    },
}

/// The daemon.
pub(super) struct Api {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    token: Option<SecretString>,
}

impl Api {
    /// The daemon of a configuration, or at `--server`.
    ///
    /// # Errors
    /// An address that is none, a token that would go in the clear, certificates that cannot be read.
    pub fn new(place: &Where, config: Option<&Config>) -> Result<Api, Failure> {
        let base = match (&place.server, config) {
            (Some(server), _) => server.trim_end_matches('/').to_owned(),
            (None, Some(config)) => configured(config),
            (None, None) => DEFAULT.to_owned(),
        };
        let unusable = || {
            Failure::say(format!("`{}` is no address of an admin listener", visible(&base)))
                .help("write it as in --server http://127.0.0.1:9464")
        };
        let url = Url::parse(&base).map_err(|_| unusable())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !matches!(url.path(), "" | "/") {
            return Err(unusable());
        }
        let token = token(place, config);
        let host: Option<Host> = url.host_str().and_then(|host| host.parse().ok());
        let near = host.is_some_and(|host| host.is_loopback());
        if token.is_some() && url.scheme() == "http" && !near {
            return Err(Failure::say(format!("no token is sent to `{}` over plain http", visible(&base)))
                .help("give the admin listener a certificate (`admin.tls`) and write https"));
        }
        // The daemon of a configuration has the certificate that the configuration names, whoever issued it, and is
        // reached at loopback, which is no name of it.
        let own = match (&place.server, &place.ca, config.and_then(|config| config.admin.tls.as_ref())) {
            (None, None, Some(files)) => Some(files.certificate.as_path()),
            _ => None,
        };
        Ok(Api { client: client(place, own)?, base, token })
    }

    /// The address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The items of a list, page by page, until there are no more or there are enough; and whether there are more.
    pub async fn list(&self, name: &str, query: &[(&str, String)], most: usize) -> Result<(Vec<Value>, bool), Refusal> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            pairs.extend_pairs(query).append_pair("limit", &PAGE.min(most - items.len()).to_string());
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
            let mut page = self.ask(Method::GET, &format!("/api/v1/{name}?{}", pairs.finish()), None).await?;
            // The array is called after the path.
            let Value::Array(list) = page[name].take() else {
                return Err(Refusal::NoAnswer(format!("{} does not answer as a tidewaiter daemon does", self.base)));
            };
            items.extend(list);
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() || items.len() >= most {
                return Ok((items, cursor.is_some()));
            }
        }
    }

    /// One request with a JSON answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let no_answer = |why: String| Refusal::NoAnswer(format!("{} does not answer: {}", self.base, visible(&why)));
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(|_| no_answer("not an address".to_owned()))?;
        let mut request = Request::builder().method(method).uri(uri).header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut value =
                value.map_err(|_| no_answer("the token has characters that no header can carry".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(bytes)).map_err(|error| no_answer(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER, async {
            let answer = self.client.request(request).await.map_err(|error| no_answer(innermost(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| no_answer(error.to_string()))?.to_bytes()))
        });
        let (status, bytes) = answer.await.map_err(|_| no_answer(format!("not within {} s", ANSWER.as_secs())))??;
        let json: Option<Value> = serde_json::from_slice(&bytes).ok();
        match json {
            Some(json) if status.is_success() => Ok(json),
            Some(json) if json["error"].is_string() => {
                let message = visible(json["error"].as_str().unwrap_or_default());
                Err(Refusal::Said { status: status.as_u16(), message })
            }
            _ => Err(Refusal::NoAnswer(format!("{} answers {status}, not as a tidewaiter daemon does", self.base))),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            Refusal::NoAnswer(why) => Failure::undetermined(why),
            Refusal::Said { status: 401, message } => Failure::say(format!("the daemon refuses: {message}"))
                .help("name its configuration with --config, or give its token in TIDEWAITER_TOKEN"),
            Refusal::Said { status: 500.., message } => Failure::undetermined(format!("the daemon says: {message}")),
            Refusal::Said { message, .. } => Failure::say(format!("the daemon refuses: {message}")),
        }
    }
}

/// The address that the configuration gives the admin listener, as seen from this machine.
fn configured(config: &Config) -> String {
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    let mut address = config.listen.admin;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{address}")
}

/// The token: from the environment, else from the configuration, else the one that a daemon without a configured
/// token leaves beside its store for its own user.
fn token(place: &Where, config: Option<&Config>) -> Option<SecretString> {
    if let Some(token) = variable("TIDEWAITER_TOKEN").filter(|token| !token.is_empty()) {
        return Some(token.into());
    }
    let own = Config::default_for_no_file();
    let config = match (config, &place.server) {
        (Some(config), _) => config,
        // A stranger's daemon is not told what is kept in this folder.
        (None, Some(_)) => return None,
        (None, None) => &own,
    };
    match &config.admin.token {
        Some(token) => Some(token.expose().to_owned().into()),
        None => {
            let text = std::fs::read_to_string(config.state_folder().join("admin-token")).ok()?;
            Some(text.trim().to_owned().into())
        }
    }
}

fn client(place: &Where, own: Option<&Path>) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, Failure> {
    let builder = rustls::ClientConfig::builder();
    let tls = match own {
        Some(certificate) => {
            let verifier = Arc::new(Pinned::read(certificate)?);
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        None => builder.with_root_certificates(roots(place)?).with_no_client_auth(),
    };
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The authorities that a daemon elsewhere is verified by.
fn roots(place: &Where) -> Result<rustls::RootCertStore, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    // What of the system's cannot be read is no authority; the rest is.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &place.ca {
        let unusable = |why: String| Failure::say(format!("`--ca {}` is not usable: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// Takes one certificate and no other: the first of the file that the configuration names, letter by letter. That its
/// key is there is proven by the handshake as always; names, authorities and times say nothing more.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn read(path: &Path) -> Result<Pinned, Failure> {
        let unusable = |why: String| {
            Failure::say(format!("the certificate of the admin listener, `{}`, is not usable: {why}", path.display()))
                .help("`tidewaiter doctor` looks at it; --ca names its authority instead")
        };
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let first =
            CertificateDer::pem_slice_iter(&pem).next().ok_or_else(|| unusable("there is none in it".into()))?;
        let certificate = first.map_err(|error| unusable(error.to_string()))?;
        Ok(Pinned { certificate, provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()) })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("its certificate is not the one that the configuration names".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The cause that says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
