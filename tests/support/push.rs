//! Puts what [`images`](super::images) builds into a registry, by the uploads of the OCI distribution
//! specification: `POST` and `PUT` for blobs, `PUT` for manifests. It checks the digest that comes back.

use anyhow::{Context, bail};
use base64::Engine as _;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use hyper::{Method, StatusCode};

use super::http::{Http, Response};
use super::images::{Build, Content};

/// Every kind of manifest there is, so that a registry converts nothing.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// One registry to push to.
#[derive(Clone)]
pub struct Pusher {
    http: Http,
    base: String,
    authorization: Option<String>,
}

impl Pusher {
    /// Pushes to `base`, as in `https://localhost:5443`; `user` is `name:password`.
    pub fn new(http: Http, base: &str, user: Option<&str>) -> Pusher {
        let basic = |user| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user));
        Pusher { http, base: base.trim_end_matches('/').to_owned(), authorization: user.map(basic) }
    }

    /// Uploads all of `build`, points `tag` at its root, and gives the root's digest.
    pub async fn push(&self, repository: &str, tag: &str, build: &Build) -> anyhow::Result<String> {
        for blob in &build.blobs {
            self.blob(repository, blob).await?;
        }
        for child in &build.children {
            self.manifest(repository, &child.manifest.digest(), &child.manifest).await?;
        }
        let digest = self.manifest(repository, tag, &build.root).await?;
        for child in build.children.iter().filter(|child| child.vanishes) {
            self.delete(repository, &child.manifest.digest()).await?;
        }
        Ok(digest)
    }

    /// Puts one manifest under `reference`, a tag or its digest.
    pub async fn manifest(&self, repository: &str, reference: &str, manifest: &Content) -> anyhow::Result<String> {
        self.put_manifest(repository, reference, manifest.media_type, manifest.bytes.clone()).await?;
        Ok(manifest.digest())
    }

    /// Points `new` at what `old`, a tag or digest, leads to, with the very bytes; gives the digest.
    pub async fn tag(&self, repository: &str, old: &str, new: &str) -> anyhow::Result<String> {
        let url = format!("{}/v2/{repository}/manifests/{old}", self.base);
        let answer = self.send(Method::GET, &url, &[(ACCEPT.as_str(), MANIFESTS)], Vec::new()).await?;
        expect(&answer, StatusCode::OK, &url)?;
        let media_type = header(&answer, CONTENT_TYPE.as_str())?;
        self.put_manifest(repository, new, &media_type, answer.body.to_vec()).await
    }

    /// The digest that `reference` leads to.
    pub async fn resolve(&self, repository: &str, reference: &str) -> anyhow::Result<String> {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.base);
        let answer = self.send(Method::HEAD, &url, &[(ACCEPT.as_str(), MANIFESTS)], Vec::new()).await?;
        expect(&answer, StatusCode::OK, &url)?;
        header(&answer, "docker-content-digest")
    }

    /// Deletes a manifest by its digest, with all its tags; or one tag, where the registry can do that.
    pub async fn delete(&self, repository: &str, reference: &str) -> anyhow::Result<()> {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.base);
        expect(&self.send(Method::DELETE, &url, &[], Vec::new()).await?, StatusCode::ACCEPTED, &url)
    }

    async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> anyhow::Result<String> {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.base);
        let answer = self.send(Method::PUT, &url, &[(CONTENT_TYPE.as_str(), media_type)], bytes).await?;
        expect(&answer, StatusCode::CREATED, &url)?;
        header(&answer, "docker-content-digest")
    }

    async fn blob(&self, repository: &str, blob: &Content) -> anyhow::Result<()> {
        let digest = blob.digest();
        let there = format!("{}/v2/{repository}/blobs/{digest}", self.base);
        if self.send(Method::HEAD, &there, &[], Vec::new()).await?.status == StatusCode::OK {
            return Ok(());
        }
        let start = format!("{}/v2/{repository}/blobs/uploads/", self.base);
        let answer = self.send(Method::POST, &start, &[], Vec::new()).await?;
        expect(&answer, StatusCode::ACCEPTED, &start)?;
        let location = header(&answer, LOCATION.as_str())?;
        let joint = if location.contains('?') { '&' } else { '?' };
        let origin = if location.starts_with('/') { self.base.as_str() } else { "" };
        let url = format!("{origin}{location}{joint}digest={digest}");
        let headers = [(CONTENT_TYPE.as_str(), "application/octet-stream")];
        expect(&self.send(Method::PUT, &url, &headers, blob.bytes.clone()).await?, StatusCode::CREATED, &url)
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Response> {
        let mut headers = headers.to_vec();
        if let Some(authorization) = &self.authorization {
            headers.push((AUTHORIZATION.as_str(), authorization));
        }
        self.http.send(method, url, &headers, body).await
    }
}

fn expect(answer: &Response, status: StatusCode, url: &str) -> anyhow::Result<()> {
    if answer.status != status {
        bail!("{url}: {status} was expected, {} came: {}", answer.status, answer.text());
    }
    Ok(())
}

fn header(answer: &Response, name: &str) -> anyhow::Result<String> {
    let value = answer.headers.get(name).with_context(|| format!("the registry's answer has no {name}"))?;
    Ok(value.to_str()?.to_owned())
}
