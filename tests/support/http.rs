//! A small HTTP client for tests: one request, the whole answer, a certificate authority if one is named.
//! It follows no redirect and repeats nothing, so a test sees what was said.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

/// Nothing in a test takes longer to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends requests over http, and over https to whom the authority vouches for.
#[derive(Clone, Debug)]
pub struct Http {
    client: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, with what is no UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("the answer is no JSON: {}", self.text()))
    }
}

impl Http {
    /// A client that trusts the authority in `ca`, or the system's where none is given.
    pub fn new(ca: Option<&Path>) -> anyhow::Result<Http> {
        let mut roots = rustls::RootCertStore::empty();
        match ca {
            Some(file) => {
                for certificate in CertificateDer::pem_file_iter(file)
                    .with_context(|| format!("{} is no PEM file that can be read", file.display()))?
                {
                    roots.add(certificate?)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Http { client })
    }

    /// Sends `request` and reads the whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let what = format!("{} {}", request.method(), request.uri());
        let exchange = async {
            let response = self.client.request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("{what}: no answer within {} s", PATIENCE.as_secs()))?
            .with_context(|| what)
    }

    /// The body of `url`, which must answer with success.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        let answer = self.send(Request::get(url).body(Full::default())?).await?;
        if !answer.status.is_success() {
            bail!("GET {url}: {}: {}", answer.status, answer.text());
        }
        Ok(answer)
    }

    /// The JSON at `url`.
    pub async fn get_json(&self, url: &str) -> anyhow::Result<Value> {
        self.get(url).await?.json()
    }
}
