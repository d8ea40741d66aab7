//! Policies from files: read, compiled as a whole, swapped at once; and followed while the daemon runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::settings;
use crate::alert::{self, Alert, Topic};
use crate::config::{Config, Policies};
use crate::document::{Fault, Source, render};
use crate::pipeline::Pipeline;
use crate::policy::{self, PolicySet};
use crate::store::Store;

/// Largest policy file, in bytes (threat model, section 5).
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How often files are looked at even without a notice: the floor under lost notices.
const POLL: Duration = Duration::from_secs(30);
/// When policies in force are put to the record again after the store failed at it.
const OWED: Duration = Duration::from_secs(2);
/// What an alert about them names.
const POLICIES: &str = "policies";
/// Editors and ConfigMaps change several files in a row.
const SETTLE: Duration = Duration::from_millis(200);

/// Everything that is wrong with the policies, as shown to people.
#[derive(Debug)]
pub struct PolicyFault(pub Vec<Fault>);

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(render(&self.0, false).trim_end())
    }
}

impl std::error::Error for PolicyFault {}

/// Reads and compiles the policies.
///
/// # Errors
/// Every fault of every file, each with its place.
pub fn load(policies: &Policies) -> Result<PolicySet, PolicyFault> {
    let sources = match policies {
        Policies::Shipped => policy::shipped().iter().map(|(name, text)| Source::new(*name, *text)).collect(),
        Policies::Paths(paths) => sources(paths)?,
    };
    Ok(policy::load(&sources, &beside).map_err(PolicyFault)?.1)
}

/// Reads a file that a policy names, from the policy's own folder and nowhere above it.
pub fn beside(source: &Source, name: &str) -> Result<String, String> {
    let path = Path::new(name);
    let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !plain {
        return Err("name a file in the policy's own folder".to_owned());
    }
    let folder = Path::new(&*source.name).parent().unwrap_or(Path::new("."));
    text(&folder.join(path)).map_err(|e| e.to_string())
}

fn text(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        let message = format!("{size} bytes are more than the {FILE_BYTES_MAX} that a policy file may have");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    std::fs::read_to_string(path)
}

/// The files that paths name: themselves, or the policy files in them.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, PolicyFault> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|e| unreadable(path, &e))?;
            let mut inside: Vec<PathBuf> = entries
                .filter_map(|e| e.ok().map(|e| e.path()))
                .filter(|p| is_named_like_policies(p))
                .filter(|p| p.is_file())
                .collect();
            inside.sort();
            files.extend(inside);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn is_named_like_policies(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

/// Whether what happened in a watched folder may have changed the policies: neither does the reading of them, nor what
/// else is written there, as the store often is.
fn concerns(paths: &[PathBuf], event: &notify::Event) -> bool {
    let may_be = |changed: &PathBuf| {
        let name = changed.file_name().unwrap_or_default();
        // The links through which a ConfigMap is replaced begin so.
        is_named_like_policies(changed)
            || name.as_encoded_bytes().starts_with(b"..")
            || paths.iter().any(|path| path.file_name() == Some(name))
    };
    !event.kind.is_access() && (event.need_rescan() || event.paths.iter().any(may_be))
}

fn unreadable(path: &Path, error: &std::io::Error) -> PolicyFault {
    let source = Source::new(path.display().to_string(), "");
    let span = crate::document::Span::new(0, 0);
    PolicyFault(vec![Fault::error(&source, span, "unreadable-file", format!("cannot read the policies: {error}"))])
}

/// There were policies, and now there is none.
fn none_left(paths: &[PathBuf]) -> PolicyFault {
    let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let source = Source::new(named.join(", "), "");
    let message = "there is no policy left; to require nothing, put `observe-everything.yaml` there or start again";
    PolicyFault(vec![Fault::error(&source, crate::document::Span::new(0, 0), "no-policy", message)])
}

/// The texts of policy files: those named, and those in named folders that end in `.yaml`, `.yml` or `.json`. Of a folder's
/// JSON files, those that a policy beside them names by `file:` are its schemas and no policies.
///
/// # Errors
/// What cannot be read.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, PolicyFault> {
    let files = files(paths)?;
    let read = |path: &PathBuf| {
        text(path).map(|t| Source::new(path.display().to_string(), t)).map_err(|e| unreadable(path, &e))
    };
    let all: Vec<Source> = files.iter().map(read).collect::<Result<_, _>>()?;
    let named = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let beside = |source: &&Source| Path::new(&*source.name).parent() == path.parent();
        let ways =
            [format!("file:{name}"), format!("file: {name}"), format!("file: \"{name}\""), format!("file: '{name}'")];
        all.iter().filter(beside).any(|source| ways.iter().any(|way| source.text.contains(way)))
    };
    // What says of itself that it is a document of the policy language is one, whoever names it.
    let is_schema = |path: &Path, source: &Source| {
        path.extension().is_some_and(|e| e == "json")
            && !paths.iter().any(|given| given == path)
            && !source.text.contains("apiVersion")
            && named(path)
    };
    let schemas: Vec<bool> = files.iter().zip(&all).map(|(path, source)| is_schema(path, source)).collect();
    Ok(all.into_iter().zip(schemas).filter(|(_, schema)| !schema).map(|(source, _)| source).collect())
}

/// Tells that the policies on disk are those in force, where people know of others; whether that is on record.
async fn over<S: Store>(pipeline: &Pipeline<S>) -> bool {
    let about = (Topic::PolicyReloadFailed, POLICIES);
    let Pipeline { store, sinks, clock, .. } = pipeline;
    alert::ends(&**store, sinks, about, "the policies on disk are valid, and those in force", clock.now()).await
}

/// Follows the policy files until `stop`. What is invalid leaves the policies before in force, is told, counted
/// and alerted; what is valid is put in force at once, and every tag it governs is judged again.
pub(super) async fn watch<S: Store>(
    policies: Policies,
    config: Config,
    pipeline: Pipeline<S>,
    stop: CancellationToken,
) {
    let mut settled = pipeline.policies_changed().await;
    let none = Vec::new();
    let paths = match &policies {
        Policies::Paths(paths) => paths,
        Policies::Shipped => &none,
    };
    let changed = Arc::new(Notify::new());
    let mut watcher = {
        let (changed, paths) = (changed.clone(), paths.clone());
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|event| !concerns(&paths, &event)) {
                changed.notify_one();
            }
        })
        .ok()
    };
    if let Some(watcher) = &mut watcher {
        for path in paths {
            // The folder, not the file: ConfigMaps are replaced through a link beside it.
            let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new(".")) };
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "no notice of changed policies; they are looked at every 30 s");
            }
        }
    }
    // What changed between the first reading and the watch made no notice.
    changed.notify_one();
    let mut told: Option<String> = None;
    // What people were told before a restart is over as well: without valid policies there is no start.
    let mut alerted = !over(&pipeline).await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed.notified() => {}
            () = tokio::time::sleep(if settled { POLL } else { OWED }) => {}
        }
        if !settled {
            settled = pipeline.policies_changed().await;
        }
        if alerted && told.is_none() {
            alerted = !over(&pipeline).await;
        }
        if paths.is_empty() {
            continue;
        }
        tokio::time::sleep(SETTLE).await;
        let now = pipeline.clock.now();
        let loading = policies.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&loading)).await;
        // Whoever empties a folder by mistake must not have every violation taken for mended.
        let emptied = |set: &PolicySet| set.policies().is_empty() && !pipeline.policies.load().policies().is_empty();
        let loaded = loaded.map(|set| set.and_then(|set| if emptied(&set) { Err(none_left(paths)) } else { Ok(set) }));
        match loaded {
            Ok(Ok(set)) => {
                let recovered = told.take().is_some();
                if alerted {
                    alerted = !over(&pipeline).await;
                }
                if set.hash() == pipeline.policies.load().hash() {
                    if recovered {
                        pipeline.metrics.policies_read(Some(set.policies().len()), now);
                        tracing::info!("the policies on disk are those in force again");
                    }
                    continue;
                }
                settings::announce(&pipeline.metrics, &config, &set);
                pipeline.metrics.policies_read(Some(set.policies().len()), now);
                tracing::info!(policies = set.policies().len(), hash = set.hash(), "new policies are in force");
                pipeline.policies.store(Arc::new(set));
                settled = pipeline.policies_changed().await;
            }
            Ok(Err(fault)) => {
                let text = fault.to_string();
                if told.as_deref() != Some(&text) {
                    pipeline.metrics.policies_read(None, now);
                    tracing::error!("the policies on disk are not valid; those before stay in force:\n{text}");
                    let first = fault.0.first().map(ToString::to_string).unwrap_or_default();
                    let alert = Alert::about_self(Topic::PolicyReloadFailed, POLICIES, &first, now);
                    alert::begins(&*pipeline.store, &pipeline.sinks, alert.into()).await;
                    alerted = true;
                    told = Some(text);
                }
            }
            Err(error) => tracing::error!(%error, "loading the policies ended by a fault of the program"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_have_changed_policies_has_them_read_again() {
        use notify::event::{AccessKind, AccessMode, CreateKind, DataChange, Event, EventKind, Flag, ModifyKind};
        let paths = [PathBuf::from("etc/policies"), PathBuf::from("etc/one.policy")];
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let concerned = |kind, path: &str| concerns(&paths, &Event::new(kind).add_path(path.into()));
        for path in
            ["etc/policies/a.yaml", "etc/policies/schema.json", "etc/policies/..data", "etc/one.policy", "etc/policies"]
        {
            assert!(concerned(written, path) && concerned(EventKind::Create(CreateKind::Any), path), "{path}");
            assert!(!concerned(EventKind::Access(AccessKind::Open(AccessMode::Any)), path), "{path}");
        }
        for path in ["etc/tidewaiter.db", "etc/tidewaiter.db-wal", "etc/tidewaiter.db.journal-a", "etc/ca.crt"] {
            assert!(!concerned(written, path), "{path}");
        }
        assert!(concerns(&paths, &Event::new(EventKind::Other).set_flag(Flag::Rescan)), "events were lost");
    }

    #[test]
    fn an_emptied_folder_is_told_with_what_to_do() {
        let told = none_left(&[PathBuf::from("policies")]).to_string();
        assert!(told.contains("there is no policy left") && told.contains("policies"), "{told}");
    }

    #[test]
    fn schemas_beside_policies_are_no_policies() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "policy.yaml",
            "apiVersion: tidewaiter.dev/v1\nkind: TagPolicy\nmetadata: {name: a}\nspec:\n  repositories: ['a.example/**']\n  classes:\n    - {name: a, form: a, require: {config: 'file:labels.json', manifest: {file: m.json}}}\n",
        );
        write("labels.json", r#"{"type": "object"}"#);
        write("m.json", "true");
        let all = || Policies::Paths(vec![folder.path().to_owned()]);
        let before = load(&all()).unwrap_or_else(|fault| panic!("{fault}")).hash().to_owned();
        write("labels.json", r#"{"type": "object", "required": ["config"]}"#);
        assert_ne!(load(&all()).unwrap().hash(), before, "a changed schema is a changed policy");
        // What nobody names is told: it may be meant as a policy.
        write("other.json", "{}");
        assert!(load(&all()).unwrap_err().to_string().contains("other.json"));
    }
}
