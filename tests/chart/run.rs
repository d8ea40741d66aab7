//! The rendered pod on this machine: its volumes laid out in a folder as a kubelet lays them out, its container's
//! arguments given to the built program, its probes asked, and a changed ConfigMap swapped in below it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::http::Http;
use crate::support::images::{Form, Index, Platform};
use crate::support::program::{Program, eventually, free_port};
use crate::support::real::{RealRegistry, Setup};
use crate::support::tls::Ca;
use crate::tools::{chart, object, objects, rendered, told};

pub const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "Bearer a-test-has-no-secrets";

/// The pod's file system below a folder.
pub struct Pod {
    pub root: PathBuf,
    /// What stands in place of paths and ports of the cluster.
    pub here: Vec<(String, String)>,
}

impl Pod {
    pub fn text(&self, text: &str) -> String {
        self.here.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    pub fn path(&self, mount: &str) -> PathBuf {
        self.root.join(mount.trim_start_matches('/'))
    }

    /// Lays out a ConfigMap or a Secret: the files in a folder of their own, a link to it that is replaced in one step,
    /// and links to the files through it.
    fn project(&self, mount: &str, files: &BTreeMap<String, String>, mode: u32, version: u32) {
        let folder = self.path(mount);
        let inside = folder.join(format!("..version_{version}"));
        fs::create_dir_all(&inside).unwrap();
        for (name, text) in files {
            let file = inside.join(name);
            fs::write(&file, self.text(text)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let link = folder.join(name);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        let next = folder.join("..data_tmp");
        symlink(inside.file_name().unwrap(), &next).unwrap();
        fs::rename(next, folder.join("..data")).unwrap();
    }

    /// Lays out every volume that the container mounts.
    pub fn mount(&self, pod: &Value, objects: &[Value], secrets: &BTreeMap<&str, BTreeMap<String, String>>) {
        let volumes = pod["volumes"].as_array().unwrap();
        for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
            let (name, at) = (&mount["name"], mount["mountPath"].as_str().unwrap());
            let Some(volume) = volumes.iter().find(|volume| &volume["name"] == name) else {
                assert_eq!(name, "data", "only the claim's volume is made by the StatefulSet");
                fs::create_dir_all(self.path(at)).unwrap();
                continue;
            };
            if let Some(name) = volume["configMap"]["name"].as_str() {
                self.project(at, &data(object(objects, "ConfigMap", name)), 0o644, 1);
            } else if let Some(name) = volume["secret"]["secretName"].as_str() {
                let mode = volume["secret"]["defaultMode"].as_u64().unwrap();
                assert_eq!(mode, 0o440, "the pod's group reads, nobody else");
                self.project(at, &secrets[name], 0o440, 1);
            } else {
                assert!(volume["emptyDir"].is_object(), "{volume}");
                fs::create_dir_all(self.path(at)).unwrap();
            }
        }
    }

    fn command(&self, container: &Value) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewaiter"));
        command.args(container["args"].as_array().unwrap().iter().map(|arg| self.text(arg.as_str().unwrap())));
        // The image's root file system cannot be written.
        command.current_dir("/");
        command
    }
}

fn data(object: &Value) -> BTreeMap<String, String> {
    let data = object["data"].as_object().unwrap().iter();
    data.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect()
}

/// What is around the pod on this machine: the ports that it and the registry have here, and what they know of each
/// other.
pub struct Neighbours {
    pub ca: Ca,
    pub admin: u16,
    events: u16,
    port: u16,
    pub secrets: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Neighbours {
    pub fn new() -> Neighbours {
        let ca = Ca::new();
        let issued = ca.issue(&["localhost", "127.0.0.1"]);
        let secrets = BTreeMap::from([
            ("registry-ca", one("ca.crt", ca.pem())),
            ("tidewaiter-webhook", one("value", SECRET)),
            ("tidewaiter-tls", [("tls.crt".to_owned(), issued.certificate), ("tls.key".to_owned(), issued.key)].into()),
        ]);
        let (events, admin, port) = (free_port().unwrap(), free_port().unwrap(), free_port().unwrap());
        Neighbours { ca, admin, events, port, secrets }
    }

    /// What stands in place of the cluster's ports and of the registry's name.
    pub fn here(&self) -> Vec<(String, String)> {
        let here = [
            ("0.0.0.0:8443", format!("127.0.0.1:{}", self.events)),
            ("0.0.0.0:9464", format!("127.0.0.1:{}", self.admin)),
            ("REGISTRY", format!("localhost:{}", self.port)),
        ];
        here.into_iter().map(|(there, here)| (there.to_owned(), here)).collect()
    }

    /// The registry, which tells the pod of every push.
    pub async fn registry(&self) -> RealRegistry {
        let address = format!("https://localhost:{}/v1/events/local", self.events);
        RealRegistry::start(Setup {
            tls: Some(&self.ca),
            notify: Some((&address, SECRET)),
            trust: Some(self.ca.pem()),
            port: Some(self.port),
            ..Setup::default()
        })
        .await
    }

    /// Where the violations that are not over are listed.
    pub fn firing(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/violations?state=firing", self.admin)
    }

    /// Pushes an image without arm64, which the rendered policy asks for, and waits until the daemon says so.
    pub async fn violate(&self, registry: &RealRegistry, http: &Http) {
        let platforms: [Platform; 1] = ["linux/amd64".parse().unwrap()];
        let index = Index { platforms: &platforms, version: "1", form: Form::Oci, attested: false, faults: &[] };
        let pusher = registry.pusher(&format!("localhost:{}", self.port));
        pusher.push("iot/sensor", "1.0.0", &index.build().unwrap()).await.unwrap();
        let violation = eventually("the violation", PATIENCE, async || {
            let list = http.get_json(&self.firing()).await?;
            Ok(list["violations"].as_array().and_then(|list| list.first().cloned()))
        });
        assert_eq!(violation.await.unwrap()["reason"], "missing-platform");
    }
}

fn one(name: &str, text: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), text.to_owned())].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rendered_container_starts_judges_and_reads_changed_policies() {
    let folder = tempfile::tempdir().unwrap();
    let file = chart().join("ci/run-values.yaml");
    let objects = objects(&rendered(&["--values", file.to_str().unwrap()]));
    let pod = &object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];

    let neighbours = Neighbours::new();
    let node = |name: &str| {
        let root = folder.path().join(name);
        let mut here = neighbours.here();
        for place in ["etc/tidewaiter", "var/lib/tidewaiter"] {
            here.push((format!("/{place}"), root.join(place).display().to_string()));
        }
        Pod { root, here }
    };
    let laid_out = node("daemon");
    laid_out.mount(pod, &objects, &neighbours.secrets);
    let registry = neighbours.registry().await;
    let mut daemon = Program::start(laid_out.command(container), &folder.path().join("log")).unwrap();
    let http = Http::new(Some(neighbours.ca.pem())).unwrap();
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "admin");
        let probed = format!(
            "{}://127.0.0.1:{}{}",
            get["scheme"].as_str().unwrap().to_lowercase(),
            neighbours.admin,
            get["path"].as_str().unwrap()
        );
        daemon.until(async || http.get(&probed).await.is_ok()).await.unwrap();
    }

    neighbours.violate(&registry, &http).await;

    // `helm test` runs beside it, and finds nothing wrong.
    let test = &object(&objects, "Pod", "tw-tidewaiter-doctor")["spec"];
    let beside = node("doctor");
    beside.mount(test, &objects, &neighbours.secrets);
    // A pod has ports of its own; here both are on one machine.
    let config = beside.root.join("etc/tidewaiter/config/tidewaiter.yaml");
    let mut text = fs::read_to_string(&config).unwrap();
    for port in [neighbours.events, neighbours.admin] {
        text = text.replace(&port.to_string(), &free_port().unwrap().to_string());
    }
    fs::remove_file(&config).unwrap();
    fs::write(&config, text).unwrap();
    let output = beside.command(&test["containers"][0]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));

    // The ConfigMap changes: the policy asks for no platforms any more, and the violation is over.
    let policies = object(&objects, "ConfigMap", "tw-tidewaiter-policies");
    let lenient = data(policies)
        .into_iter()
        .map(|(name, text)| (name, text.replace(", platforms: {all: [linux/amd64, linux/arm64]}", "")));
    laid_out.project("/etc/tidewaiter/policies", &lenient.collect(), 0o644, 2);
    eventually("no violation", PATIENCE, async || {
        let list = http.get_json(&neighbours.firing()).await?;
        Ok(list["violations"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
    .await
    .unwrap();

    // What is written is in the claim's volume.
    assert!(laid_out.path("/var/lib/tidewaiter/tidewaiter.db").exists());
    daemon.signal("TERM").unwrap();
    assert!(daemon.ended(PATIENCE).await.unwrap().success(), "{}", daemon.last_words());
}

/// With no certificate of anybody's, the program makes one, and senders inside the cluster can verify it by the name
/// of the service.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_its_own_making_names_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let objects = objects(&rendered(&[]));
    let pod = &object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["template"]["spec"];
    let (events, admin) = (free_port().unwrap(), free_port().unwrap());
    let root = folder.path().join("daemon");
    let here = [
        ("/etc/tidewaiter", root.join("etc/tidewaiter").display().to_string()),
        ("/var/lib/tidewaiter", root.join("var/lib/tidewaiter").display().to_string()),
        ("0.0.0.0:8443", format!("127.0.0.1:{events}")),
        ("0.0.0.0:9464", format!("127.0.0.1:{admin}")),
    ];
    let laid_out = Pod { root, here: here.into_iter().map(|(there, here)| (there.to_owned(), here)).collect() };
    laid_out.mount(pod, &objects, &BTreeMap::new());
    let mut daemon = Program::start(laid_out.command(&pod["containers"][0]), &folder.path().join("log")).unwrap();
    let http = Http::new(None).unwrap();
    let ready = format!("http://127.0.0.1:{admin}/readyz");
    daemon.until(async || http.get(&ready).await.is_ok()).await.unwrap();

    let ca = fs::read(laid_out.path("/var/lib/tidewaiter/ca.crt")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    for name in ["tw-tidewaiter.watch.svc", "tw-tidewaiter.watch.svc.cluster.local", "tw-tidewaiter"] {
        let stream = TcpStream::connect(("127.0.0.1", events)).await.unwrap();
        let verified = connector.connect(ServerName::try_from(name).unwrap(), stream).await;
        assert!(verified.is_ok(), "{name}: {:?}", verified.err());
    }
    let stream = TcpStream::connect(("127.0.0.1", events)).await.unwrap();
    let other = ServerName::try_from("other.watch.svc").unwrap();
    assert!(connector.connect(other, stream).await.is_err(), "the name of another service is refused");
    daemon.signal("TERM").unwrap();
    assert!(daemon.ended(PATIENCE).await.unwrap().success(), "{}", daemon.last_words());
}
