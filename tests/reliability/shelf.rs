//! A registry whose contents are a table, and which can be away, throttle, or lie.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::fake::{Fake, Reply, Seen};
use crate::support::images::{self, Build, Content, Form, Index, Platform};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Well,
    /// Every answer is a 503 without a word about when.
    Broken,
    /// 429 with `Retry-After` in seconds.
    Throttled(u32),
    /// The list of repositories is refused, as to a credential for some of them.
    Unlisted,
    /// Connections are taken and nothing is ever said.
    Silent,
    /// Manifests asked for by digest come with a byte changed.
    Lying,
}

#[derive(Default)]
struct State {
    mode: Mode,
    tags: BTreeMap<String, BTreeMap<String, String>>,
    contents: HashMap<String, (&'static str, Vec<u8>)>,
    gone: BTreeSet<(String, String)>,
}

/// The table. Clones are the same.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<State>>);

impl Shelf {
    /// Serves it over plain http.
    pub async fn serve(&self) -> Fake {
        let shelf = self.clone();
        Fake::http(move |seen| shelf.answer(seen)).await
    }

    pub fn set(&self, mode: Mode) {
        self.0.lock().unwrap().mode = mode;
    }

    /// Puts a build under a tag; its digest.
    pub fn put(&self, repository: &str, tag: &str, build: &Build) -> String {
        let mut state = self.0.lock().unwrap();
        let root = build.root.digest();
        let children = build.children.iter().map(|child| &child.manifest);
        for content in children.chain(&build.blobs).chain([&build.root]) {
            state.gone.remove(&(repository.to_owned(), content.digest()));
            state.contents.insert(content.digest(), (content.media_type, content.bytes.clone()));
        }
        state.tags.entry(repository.to_owned()).or_default().insert(tag.to_owned(), root.clone());
        root
    }

    /// Takes a tag away.
    pub fn untag(&self, repository: &str, tag: &str) {
        self.0.lock().unwrap().tags.get_mut(repository).unwrap().remove(tag);
    }

    /// Deletes a manifest, and no tag.
    pub fn delete(&self, repository: &str, digest: &str) {
        self.0.lock().unwrap().gone.insert((repository.to_owned(), digest.to_owned()));
    }

    /// All tags: repository, tag, digest.
    pub fn all(&self) -> BTreeSet<(String, String, String)> {
        let state = self.0.lock().unwrap();
        let each = |(repository, tags): (&String, &BTreeMap<String, String>)| {
            tags.iter().map(|(tag, digest)| (repository.clone(), tag.clone(), digest.clone())).collect::<Vec<_>>()
        };
        state.tags.iter().flat_map(each).collect()
    }

    fn answer(&self, seen: &Seen) -> Reply {
        let state = self.0.lock().unwrap();
        match state.mode {
            Mode::Well | Mode::Lying | Mode::Unlisted => {}
            Mode::Broken => return Reply::new(503, "down"),
            Mode::Throttled(seconds) => return Reply::new(429, "").with("retry-after", seconds.to_string()),
            Mode::Silent => return Reply::silence(),
        }
        let json =
            |value: serde_json::Value| Reply::new(200, value.to_string()).with("content-type", "application/json");
        let path = seen.path().strip_prefix("/v2/").unwrap_or_default();
        if path == "_catalog" && state.mode == Mode::Unlisted {
            return Reply::error(403, "DENIED");
        }
        if path == "_catalog" {
            return json(json!({"repositories": state.tags.keys().collect::<Vec<_>>()}));
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return match state.tags.get(repository) {
                Some(tags) => json(json!({"name": repository, "tags": tags.keys().collect::<Vec<_>>()})),
                None => Reply::error(404, "NAME_UNKNOWN"),
            };
        }
        let Some((repository, kind, reference)) = ["/manifests/", "/blobs/"]
            .into_iter()
            .find_map(|kind| path.split_once(kind).map(|(repository, reference)| (repository, kind, reference)))
        else {
            return Reply::new(404, "");
        };
        let tags = state.tags.get(repository);
        let digest = tags.and_then(|t| t.get(reference)).map_or(reference, String::as_str);
        let there = tags.is_some() && !state.gone.contains(&(repository.to_owned(), digest.to_owned()));
        match state.contents.get(digest).filter(|_| there) {
            Some((media_type, bytes)) => {
                let mut bytes = bytes.clone();
                if state.mode == Mode::Lying && kind == "/manifests/" {
                    let at = bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len() - 2);
                    bytes.insert(at + 1, b' ');
                }
                Reply::new(200, bytes).with("docker-content-digest", digest).with("content-type", *media_type)
            }
            None if kind == "/blobs/" => Reply::error(404, "BLOB_UNKNOWN"),
            None => Reply::error(404, "MANIFEST_UNKNOWN"),
        }
    }
}

/// Where requests went of late.
pub fn requests(fake: &Fake, part: &str) -> usize {
    fake.seen().iter().filter(|seen| seen.path().contains(part)).count()
}

pub const DEVICES: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

/// An index for these platforms; another version is another digest.
pub fn index(platforms: &[&str], version: &str) -> Build {
    let platforms: Vec<Platform> = platforms.iter().map(|p| p.parse().unwrap()).collect();
    Index { platforms: &platforms, version, form: Form::Oci, attested: false, faults: &[] }.build().unwrap()
}

/// A single image, which violates a policy that asks for an index.
pub fn single(version: &str) -> Build {
    images::image(&"linux/amd64".parse().unwrap(), version, Form::Oci)
}

/// A manifest without anything below it, cheap to make and to ask for.
pub fn bare(version: &str) -> Build {
    let json = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [],
        "annotations": {"version": version}});
    let root = Content { media_type: "application/vnd.oci.image.index.v1+json", bytes: json.to_string().into_bytes() };
    Build { blobs: vec![], children: vec![], root }
}
