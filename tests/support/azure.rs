//! Azure's registry as far as judging asks it: content, its token service, and the attributes of tags and manifests,
//! each behind the right that Azure asks for. In memory, with TLS. Facts: Azure's own documentation of its REST API.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::json;

use super::fake::{Fake, Reply, Seen};
use super::images::{Build, Content};
use super::tls::Ca;

/// What it is called, wherever it is reached.
pub const HOST: &str = "contoso.azurecr.io";
/// The one repository that it has.
pub const REPOSITORY: &str = "iot/sensor";

type Fault = Box<dyn Fn(&str) -> Option<Reply> + Send>;

#[derive(Default)]
struct State {
    manifests: HashMap<String, Content>,
    blobs: HashMap<String, Vec<u8>>,
    tags: BTreeMap<String, String>,
    /// Tags and digests that cannot be written.
    locked: BTreeSet<String>,
    /// Whether the credential is good for content only, as AcrPull is.
    content_only: bool,
    fault: Option<Fault>,
}

pub struct AzureRegistry {
    pub fake: Fake,
    state: Arc<Mutex<State>>,
}

impl AzureRegistry {
    pub async fn start(ca: &Ca) -> AzureRegistry {
        let state = Arc::new(Mutex::new(State::default()));
        let own = Arc::new(OnceLock::<String>::new());
        let (shared, url) = (state.clone(), own.clone());
        let fake = Fake::https(ca, move |seen| answer(&shared.lock().unwrap(), url.get().unwrap(), seen)).await;
        own.set(fake.url("")).unwrap();
        AzureRegistry { fake, state }
    }

    /// Takes an image under a tag, and gives its digest.
    pub fn push(&self, tag: &str, build: &Build) -> String {
        let mut state = self.state.lock().unwrap();
        let manifests = build.children.iter().map(|child| &child.manifest).chain([&build.root]);
        state.manifests.extend(manifests.map(|manifest| (manifest.digest(), manifest.clone())));
        state.blobs.extend(build.blobs.iter().map(|blob| (blob.digest(), blob.bytes.clone())));
        state.tags.insert(tag.to_owned(), build.root.digest());
        build.root.digest()
    }

    /// Locks a tag or a digest against writing.
    pub fn lock(&self, what: &str) {
        self.state.lock().unwrap().locked.insert(what.to_owned());
    }

    /// Takes the lock away.
    pub fn unlock(&self, what: &str) {
        self.state.lock().unwrap().locked.remove(what);
    }

    /// From now on the credential is good for content only, or for attributes too.
    pub fn grants_content_only(&self, only: bool) {
        self.state.lock().unwrap().content_only = only;
    }

    /// What is answered to authorised questions about attributes, by their path; `None` leaves the true answer.
    pub fn fault(&self, fault: impl Fn(&str) -> Option<Reply> + Send + 'static) {
        self.state.lock().unwrap().fault = Some(Box::new(fault));
    }

    /// The paths asked for so far that begin so.
    pub fn asked(&self, prefix: &str) -> Vec<String> {
        self.fake.seen().iter().map(|seen| seen.target.clone()).filter(|target| target.starts_with(prefix)).collect()
    }
}

fn answer(state: &State, url: &str, seen: &Seen) -> Reply {
    let path = seen.path();
    if path == "/oauth2/token" {
        return token(state, seen);
    }
    let (rest, action) = match (path.strip_prefix("/v2/"), path.strip_prefix("/acr/v1/")) {
        (Some(rest), _) => (rest, "pull"),
        (None, Some(rest)) => (rest, "metadata_read"),
        (None, None) => return Reply::new(404, "<html>no such page</html>"),
    };
    let scope = format!("repository:{REPOSITORY}:{action}");
    let given = seen.header("authorization");
    if given != Some(&format!("Bearer {scope}")) {
        let insufficient = if given.is_some() { r#",error="insufficient_scope""# } else { "" };
        let challenge = format!(r#"Bearer realm="{url}/oauth2/token",service="{HOST}",scope="{scope}"{insufficient}"#);
        return Reply::error(401, "UNAUTHORIZED").with("www-authenticate", challenge);
    }
    let Some(rest) = rest.strip_prefix(REPOSITORY) else { return Reply::error(404, "NAME_UNKNOWN") };
    if action == "metadata_read" {
        return match state.fault.as_ref().and_then(|fault| fault(path)) {
            Some(reply) => reply,
            None => attributes(state, rest),
        };
    }
    if let Some(reference) = rest.strip_prefix("/manifests/") {
        let digest = state.tags.get(reference).map_or(reference, String::as_str);
        return match state.manifests.get(digest) {
            Some(manifest) => Reply::new(200, manifest.bytes.clone())
                .with("content-type", manifest.media_type)
                .with("docker-content-digest", digest),
            None => Reply::error(404, "MANIFEST_UNKNOWN"),
        };
    }
    if let Some(digest) = rest.strip_prefix("/blobs/") {
        return state.blobs.get(digest).map_or(Reply::error(404, "BLOB_UNKNOWN"), |blob| Reply::new(200, blob.clone()));
    }
    let tags: Vec<&String> = state.tags.keys().collect();
    Reply::new(200, json!({ "name": REPOSITORY, "tags": tags }).to_string())
}

/// A token says what it is good for. Less than was asked for is granted without an error.
fn token(state: &State, seen: &Seen) -> Reply {
    if !seen.header("authorization").is_some_and(|given| given.starts_with("Basic ")) {
        return Reply::error(401, "UNAUTHORIZED");
    }
    let query = seen.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "scope");
    let mut granted = asked.map(|(_, scope)| scope.into_owned()).unwrap_or_default();
    if state.content_only {
        granted = granted.replace("metadata_read", "pull");
    }
    Reply::new(200, json!({ "access_token": granted }).to_string())
}

fn attributes(state: &State, rest: &str) -> Reply {
    let of = |what: &str| {
        let write = !state.locked.contains(what);
        json!({ "deleteEnabled": write, "writeEnabled": write, "readEnabled": true, "listEnabled": true })
    };
    let times = ["2020-03-17T18:22:04.1182907Z", "2020-04-03T09:14:51.0456221Z"];
    if let Some(tag) = rest.strip_prefix("/_tags/") {
        let Some(digest) = state.tags.get(tag) else { return Reply::error(404, "TAG_UNKNOWN") };
        let tag = json!({
            "name": tag, "digest": digest, "createdTime": times[0], "lastUpdateTime": times[1], "signed": false,
            "changeableAttributes": of(tag),
        });
        return Reply::new(200, json!({ "registry": HOST, "imageName": REPOSITORY, "tag": tag }).to_string());
    }
    let Some(digest) = rest.strip_prefix("/_manifests/") else { return Reply::error(404, "NAME_UNKNOWN") };
    let Some(manifest) = state.manifests.get(digest) else { return Reply::error(404, "MANIFEST_UNKNOWN") };
    let manifest = json!({
        "digest": digest, "imageSize": manifest.bytes.len(), "createdTime": times[0], "lastUpdateTime": times[1],
        "mediaType": manifest.media_type, "changeableAttributes": of(digest),
    });
    Reply::new(200, json!({ "registry": HOST, "imageName": REPOSITORY, "manifest": manifest }).to_string())
}
