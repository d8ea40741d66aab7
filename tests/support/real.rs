//! The distribution registry itself, as a subprocess on a free loopback port, with its storage in a temporary
//! folder. Ends when dropped.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidewaiter::image::Digest;

use super::http::{Http, Response};
use super::tls::Ca;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

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
}

pub struct RealRegistry {
    process: Child,
    folder: TempDir,
    port: u16,
    http: Http,
    scheme: &'static str,
    authorization: Option<String>,
}

impl RealRegistry {
    /// Starts one and waits until it answers.
    pub async fn start(setup: Setup<'_>) -> RealRegistry {
        // Between finding a port and using it another process may take it: then once more.
        for _ in 0..5 {
            if let Some(registry) = RealRegistry::try_start(&setup).await {
                return registry;
            }
        }
        panic!("docker-registry does not start: is the Debian package `docker-registry` installed?");
    }

    async fn try_start(setup: &Setup<'_>) -> Option<RealRegistry> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            path("data")
        );
        if let Some(ca) = setup.tls {
            let issued = ca.issue(&["localhost", "127.0.0.1"]);
            std::fs::write(path("tls.crt"), issued.certificate).unwrap();
            std::fs::write(path("tls.key"), issued.key).unwrap();
            writeln!(config, "  tls: {{certificate: {}, key: {}}}", path("tls.crt"), path("tls.key")).unwrap();
        }
        if let Some((user, password)) = setup.user {
            let line = Command::new("htpasswd").args(["-Bbn", "-C", "4", user, password]).output().unwrap().stdout;
            std::fs::write(path("htpasswd"), line).unwrap();
            writeln!(config, "auth:\n  htpasswd: {{realm: test, path: {}}}", path("htpasswd")).unwrap();
        }
        if let Some((url, authorization)) = setup.notify {
            writeln!(config, "notifications:\n  endpoints:\n    - name: test\n      url: {url}\n      headers: {{Authorization: [{authorization:?}]}}\n      timeout: 2s\n      threshold: 3\n      backoff: 200ms").unwrap();
        }
        std::fs::write(path("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.args(["serve", &path("config.yml")]).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(pem) = setup.trust {
            std::fs::write(path("trust.crt"), pem).unwrap();
            command.env("SSL_CERT_FILE", path("trust.crt"));
        }
        let process = command.spawn().expect("docker-registry runs");
        let mut registry = RealRegistry {
            process,
            folder,
            port,
            http: Http::new(setup.tls.map(Ca::pem)),
            scheme: if setup.tls.is_some() { "https" } else { "http" },
            authorization: setup.user.map(|(u, p)| format!("Basic {}", STANDARD.encode(format!("{u}:{p}")))),
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if registry.process.try_wait().unwrap().is_some() {
                return None;
            }
            if registry.http.send(Method::GET, &registry.url("/v2/"), &[], "").await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where its storage and configuration are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.host())
    }

    /// A request with the registry's own credential.
    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response {
        let mut headers = headers.to_vec();
        if let Some(value) = &self.authorization {
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
        let (_, bytes) = self.push_image_content(repository, platform, salt).await;
        self.push_manifest(repository, tag, OCI_MANIFEST, &bytes).await
    }

    /// Pushes an index of one image for each platform.
    pub async fn push_index(&self, repository: &str, tag: &str, platforms: &[&str], salt: &str) -> Digest {
        let mut entries = Vec::new();
        for platform in platforms {
            let (declared, bytes) = self.push_image_content(repository, platform, salt).await;
            let digest = Digest::of(&bytes);
            self.push_manifest(repository, digest.as_str(), OCI_MANIFEST, &bytes).await;
            entries.push(json!({"mediaType": OCI_MANIFEST, "digest": digest.as_str(), "size": bytes.len(), "platform": declared}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        self.push_manifest(repository, tag, OCI_INDEX, index.to_string().as_bytes()).await
    }

    /// Deletes a manifest, with all its tags.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) {
        let done = self.request(Method::DELETE, &format!("/v2/{repository}/manifests/{digest}"), &[], vec![]).await;
        assert_eq!(done.status, 202, "{:?}", done.body);
    }

    async fn push_image_content(&self, repository: &str, platform: &str, salt: &str) -> (Value, Vec<u8>) {
        let mut parts = platform.split('/');
        let (os, architecture, variant) = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
        let mut declared = json!({"os": os, "architecture": architecture});
        if let Some(variant) = variant {
            declared["variant"] = variant.into();
        }
        let layer = format!("layer {platform} {salt}").into_bytes();
        let mut config = declared.clone();
        config["rootfs"] = json!({"type": "layers", "diff_ids": [Digest::of(&layer).as_str()]});
        let config = config.to_string().into_bytes();
        let (config_digest, layer_digest) =
            (self.push_blob(repository, &config).await, self.push_blob(repository, &layer).await);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config_digest.as_str(), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest.as_str(), "size": layer.len()}],
        });
        (declared, manifest.to_string().into_bytes())
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
