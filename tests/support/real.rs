//! The distribution registry itself, as a subprocess on a free loopback port, with its storage in a folder that is
//! temporary unless one is named. Ends when dropped.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use tempfile::TempDir;
use tidewaiter::image::Digest;

use super::http::{Http, Response};
use super::images::{Build, Form, Index, Platform, image};
use super::program::{Program, free_port};
use super::push::Pusher;
use super::tls::Ca;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How the registry is to be started.
#[derive(Default)]
pub struct Setup<'a> {
    /// TLS with a certificate for `localhost` and `127.0.0.1` of this authority.
    pub tls: Option<&'a Ca>,
    /// The only user and its password.
    pub user: Option<(&'a str, &'a str)>,
    /// Where events go: address, and the value of `Authorization`. An https address needs `trust`.
    pub notify: Option<(&'a str, &'a str)>,
    /// PEM of the authority that the registry trusts when it sends events.
    pub trust: Option<&'a str>,
    /// Where it keeps its things, if they shall outlive it.
    pub folder: Option<&'a Path>,
    /// The port, where something else has to know it before the registry starts.
    pub port: Option<u16>,
}

pub struct RealRegistry {
    program: Program,
    folder: PathBuf,
    /// Removes the folder after the process has gone: fields are dropped in this order.
    _temporary: Option<TempDir>,
    port: u16,
    http: Http,
    scheme: &'static str,
    user: Option<String>,
}

impl RealRegistry {
    /// Starts one and waits until it answers.
    pub async fn start(setup: Setup<'_>) -> RealRegistry {
        // Between finding a port and using it another process may take it: then once more.
        let mut tries = 0..5;
        loop {
            match RealRegistry::try_start(&setup).await {
                Ok(registry) => return registry,
                Err(error) if tries.next().is_none() => panic!("{error:#}"),
                Err(_) => {}
            }
        }
    }

    async fn try_start(setup: &Setup<'_>) -> anyhow::Result<RealRegistry> {
        let temporary = if setup.folder.is_none() { Some(tempfile::tempdir()?) } else { None };
        let folder = setup.folder.map_or_else(|| temporary.as_ref().unwrap().path().to_owned(), Path::to_owned);
        fs::create_dir_all(&folder)?;
        let port = setup.port.map_or_else(free_port, Ok)?;
        let path = |name: &str| folder.join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: test\n",
            path("data")
        );
        if let Some(ca) = setup.tls {
            let issued = ca.issue(&["localhost", "127.0.0.1"]);
            fs::write(path("tls.crt"), issued.certificate)?;
            fs::write(path("tls.key"), issued.key)?;
            writeln!(config, "  tls: {{certificate: {}, key: {}}}", path("tls.crt"), path("tls.key"))?;
        }
        if let Some((user, password)) = setup.user {
            let line = Command::new("htpasswd").args(["-Bbn", "-C", "4", user, password]).output()?.stdout;
            fs::write(path("htpasswd"), line)?;
            writeln!(config, "auth:\n  htpasswd: {{realm: test, path: {}}}", path("htpasswd"))?;
        }
        if let Some((url, authorization)) = setup.notify {
            // Without the ignored type every blob would be an event of its own.
            writeln!(
                config,
                "notifications:\n  endpoints:\n    - name: test\n      url: {url}\n      headers: {{Authorization: [{authorization:?}]}}\n      timeout: 2s\n      threshold: 3\n      backoff: 200ms\n      ignoredmediatypes: [application/octet-stream]"
            )?;
        }
        fs::write(path("config.yml"), config)?;
        let mut command = Command::new("docker-registry");
        command.args(["serve", &path("config.yml")]);
        if let Some(pem) = setup.trust {
            fs::write(path("trust.crt"), pem)?;
            command.env("SSL_CERT_FILE", path("trust.crt"));
        }
        let program = Program::start(command, &folder.join("registry.log"))?;
        let mut registry = RealRegistry {
            program,
            folder,
            _temporary: temporary,
            port,
            http: Http::new(setup.tls.map(Ca::pem))?,
            scheme: if setup.tls.is_some() { "https" } else { "http" },
            user: setup.user.map(|(user, password)| format!("{user}:{password}")),
        };
        let (url, http) = (registry.url("/v2/"), &registry.http);
        registry.program.until(async || http.send(Method::GET, &url, &[], "").await.is_ok()).await?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where its storage and configuration are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Pushes what [`images`](super::images) builds, to the registry under the name `host`, which is what its
    /// events will call it.
    pub fn pusher(&self, host: &str) -> Pusher {
        Pusher::new(self.http.clone(), &format!("{}://{host}", self.scheme), self.user.as_deref())
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.host())
    }

    /// A request with the registry's own credential.
    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response {
        let mut headers = headers.to_vec();
        let authorization = self.user.as_ref().map(|user| format!("Basic {}", STANDARD.encode(user)));
        if let Some(value) = &authorization {
            headers.push(("authorization", value));
        }
        let url = if path.starts_with('/') { self.url(path) } else { path.to_owned() };
        self.http.send(method, &url, &headers, body).await.unwrap()
    }

    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let start = self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], vec![]).await;
        let location = start.headers["location"].to_str().unwrap();
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{separator}digest={digest}");
        let headers = [("content-type", "application/octet-stream")];
        let done = self.request(Method::PUT, &target, &headers, bytes.to_vec()).await;
        assert_eq!(done.status, 201, "{:?}", done.body);
        digest
    }

    /// Puts a manifest under a tag or digest.
    pub async fn push_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let done = self.request(Method::PUT, &path, &[("content-type", media_type)], bytes.to_vec()).await;
        assert_eq!(done.status, 201, "{:?}", done.body);
        Digest::of(bytes)
    }

    /// Pushes an image of one platform, such as `linux/arm/v7`. `salt` makes its bytes differ from others.
    pub async fn push_image(&self, repository: &str, tag: &str, platform: &str, salt: &str) -> Digest {
        self.push(repository, tag, &image(&platform.parse().unwrap(), salt, Form::Oci)).await
    }

    /// Pushes an index of one image for each platform.
    pub async fn push_index(&self, repository: &str, tag: &str, platforms: &[&str], salt: &str) -> Digest {
        let platforms: Vec<Platform> = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
        let index = Index { platforms: &platforms, version: salt, form: Form::Oci, attested: false, faults: &[] };
        self.push(repository, tag, &index.build().unwrap()).await
    }

    /// Pushes what [`images`](super::images) builds.
    pub async fn push(&self, repository: &str, tag: &str, build: &Build) -> Digest {
        self.pusher(&self.host()).push(repository, tag, build).await.unwrap().parse().unwrap()
    }

    /// Deletes a manifest, with all its tags.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) {
        let done = self.request(Method::DELETE, &format!("/v2/{repository}/manifests/{digest}"), &[], vec![]).await;
        assert_eq!(done.status, 202, "{:?}", done.body);
    }
}
