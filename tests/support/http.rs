//! Plain requests, for setting up and for looking from outside: no checks, no redirects, no second try.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

/// Nothing in a test takes longer to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that trusts one authority, or none.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A whole answer.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    /// Trusts the authorities in `ca`, a PEM text; nobody without it.
    pub fn new(ca: Option<&str>) -> anyhow::Result<Http> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
            roots.add(certificate.context("the authority's certificate is no PEM")?)?;
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Http { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// One request and its answer, whatever the status.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Response> {
        let what = format!("{method} {url}");
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).with_context(|| what.clone())?;
        let exchange = async {
            let (parts, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Response { status: parts.status, headers: parts.headers, body })
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        answered.with_context(|| format!("{what}: no answer in {} s", PATIENCE.as_secs()))?.context(what)
    }

    /// What `url` shows; any status but success is an error.
    pub async fn get(&self, url: &str) -> anyhow::Result<Response> {
        let response = self.send(Method::GET, url, &[], "").await?;
        if !response.status.is_success() {
            bail!("GET {url}: {}: {}", response.status, response.text());
        }
        Ok(response)
    }

    /// The JSON that `url` shows.
    pub async fn get_json(&self, url: &str) -> anyhow::Result<Value> {
        let response = self.get(url).await?;
        serde_json::from_slice(&response.body).with_context(|| format!("GET {url}: no JSON: {}", response.text()))
    }
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
