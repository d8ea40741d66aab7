//! Credentials that the container tools keep: `auth.json` and `config.json` (containers-auth.json(5)). Reads the
//! files it is given and nothing else; helper programs are named, never run, because a file of somebody's would
//! then choose what is executed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::Deserialize;

use super::settings::Auth;
use crate::image::{Host, RepositoryName};

/// Largest file read, in bytes: hundreds of entries with tokens.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The key under which Docker keeps Docker Hub's credential.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What the files say about a registry.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// A credential.
    Found(Auth),
    /// It is kept by a helper program, which is not run.
    Helper {
        /// The helper's name, after `docker-credential-`.
        helper: String,
        /// The file that says so.
        file: PathBuf,
    },
    /// Nothing.
    Nothing,
}

/// A file that is there but cannot be used. Its content is never quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credentials in `{}` cannot be used: {why}", .path.display())]
pub struct AuthFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, without a word of the file.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The files that the container tools would read, best first. The environment is asked through `variable`, and
/// `uid` is the user's number, so that only the caller touches the process.
pub fn default_paths(variable: impl Fn(&str) -> Option<OsString>, uid: Option<u32>) -> Vec<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = folder("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = folder("HOME");
    let runtime = folder("XDG_RUNTIME_DIR")
        .map(|dir| dir.join("containers/auth.json"))
        .or_else(|| uid.map(|uid| PathBuf::from(format!("/run/containers/{uid}/auth.json"))));
    let config = folder("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = folder("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    [runtime, config.map(|dir| dir.join("containers/auth.json")), docker.map(|dir| dir.join("config.json"))]
        .into_iter()
        .flatten()
        .collect()
}

/// Looks for the credential of `host`, or of a namespace there that `name` lies in: the first file that says
/// something counts, and in it the longest key. Files that are not there say nothing.
pub fn credential(paths: &[PathBuf], host: &Host, name: Option<&RepositoryName>) -> Result<Lookup, AuthFileError> {
    for path in paths {
        let fault = |why: String| AuthFileError { path: path.clone(), why };
        let Some(bytes) = read(path).map_err(|error| fault(error.to_string()))? else { continue };
        // The parser's own message may quote a value.
        let file: AuthFile = serde_json::from_slice(&bytes)
            .map_err(|e| fault(format!("line {}, column {} is not as expected", e.line(), e.column())))?;
        match look_up(file, path, host, name).map_err(fault)? {
            Lookup::Nothing => {}
            found => return Ok(found),
        }
    }
    Ok(Lookup::Nothing)
}

fn look_up(mut file: AuthFile, path: &Path, host: &Host, name: Option<&RepositoryName>) -> Result<Lookup, String> {
    let helper = |helper| Ok(Lookup::Helper { helper, file: path.to_owned() });
    let hub = (host.as_str() == "docker.io").then_some(DOCKER_HUB_KEY);
    if let Some(name) = [Some(host.as_str()), hub].into_iter().flatten().find_map(|key| file.cred_helpers.remove(key)) {
        return helper(name);
    }
    let keys = keys(host, name);
    let exact = keys.iter().find_map(|key| file.auths.remove(key));
    // Older files have addresses for keys.
    let entry = exact.or_else(|| {
        let key = file.auths.keys().find(|key| host_of(key) == Some(host.as_str()) || Some(key.as_str()) == hub)?;
        file.auths.remove(&key.clone())
    });
    let Some(entry) = entry else { return Ok(Lookup::Nothing) };
    match (entry.into_auth()?, file.creds_store) {
        (Some(auth), _) => Ok(Lookup::Found(auth)),
        (None, Some(name)) => helper(name),
        (None, None) => Ok(Lookup::Nothing),
    }
}

/// The keys that may stand for a repository, the longest first: `host/a/b`, `host/a`, `host`.
fn keys(host: &Host, name: Option<&RepositoryName>) -> Vec<String> {
    let whole = name.map_or_else(|| host.to_string(), |name| format!("{host}/{name}"));
    let ends = whole.match_indices('/').map(|(at, _)| at).chain([whole.len()]);
    let mut keys: Vec<String> = ends.map(|end| whole[..end].to_owned()).collect();
    keys.reverse();
    keys
}

/// The host of a key that is an address with nothing but `/`, `/v1/` or `/v2/` after it.
fn host_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    matches!(path, "" | "v1" | "v1/" | "v2" | "v2/").then_some(host)
}

impl AuthEntry {
    fn into_auth(self) -> Result<Option<Auth>, String> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Auth::Token { token: token.into() }));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Auth::Identity { token: token.into() }));
        }
        if let (Some(user), Some(password)) = (given(self.username), given(self.password)) {
            return Ok(Some(Auth::Basic { user, password: password.into() }));
        }
        let Some(encoded) = given(self.auth) else { return Ok(None) };
        let unusable = || "an `auth` that is not `user:password` in base64".to_owned();
        let decoded = STANDARD.decode(encoded.trim()).map_err(|_| unusable())?;
        let decoded = String::from_utf8(decoded).map_err(|_| unusable())?;
        let (user, password) = decoded.split_once(':').ok_or_else(unusable)?;
        // Docker pads the password with zeros.
        let password = SecretString::from(password.trim_end_matches('\0'));
        Ok(Some(Auth::Basic { user: user.to_owned(), password }))
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn find(json: &str, host: &str, name: Option<&str>) -> Result<String, AuthFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, json).unwrap();
        let name = name.map(|name| name.parse().unwrap());
        let found = credential(&[dir.path().join("absent"), path], &host.parse().unwrap(), name.as_ref())?;
        Ok(match found {
            Lookup::Found(Auth::Basic { user, password }) => format!("basic {user} {}", password.expose_secret()),
            Lookup::Found(Auth::Token { token }) => format!("token {}", token.expose_secret()),
            Lookup::Found(Auth::Identity { token }) => format!("identity {}", token.expose_secret()),
            Lookup::Found(other) => format!("{other:?}"),
            Lookup::Helper { helper, .. } => format!("helper {helper}"),
            Lookup::Nothing => "nothing".to_owned(),
        })
    }

    #[test]
    fn credentials_are_found_as_the_container_tools_find_them() {
        // `dTpw` is `u:p`; `bnM6cDpw` is `ns:p:p`.
        let file = r#"{"auths": {
            "r.io": {"auth": "dTpw"}, "r.io/team": {"auth": "bnM6cDpw"},
            "https://old.io/v1/": {"auth": "dTpw"}, "https://index.docker.io/v1/": {"auth": "dTpw"},
            "id.io": {"auth": "PHRva2VuPjo=", "identitytoken": "refresh"}, "reg.io": {"registrytoken": "t"},
            "store.io": {}, "plain.io:5000": {"username": "u", "password": "p"}},
            "credsStore": "desktop", "credHelpers": {"ecr.io": "ecr-login"}}"#;
        for (host, name, expected) in [
            ("r.io", None, "basic u p"),
            ("r.io", Some("other/x"), "basic u p"),
            ("r.io", Some("team/x/y"), "basic ns p:p"),
            ("r.io", Some("teams/x"), "basic u p"),
            ("old.io", None, "basic u p"),
            ("docker.io", Some("library/x"), "basic u p"),
            ("id.io", None, "identity refresh"),
            ("reg.io", None, "token t"),
            ("plain.io:5000", None, "basic u p"),
            ("plain.io", None, "nothing"),
            ("store.io", None, "helper desktop"),
            ("ecr.io", None, "helper ecr-login"),
            ("io", None, "nothing"),
            ("evil-r.io", None, "nothing"),
            ("index.docker.io", None, "basic u p"),
        ] {
            assert_eq!(find(file, host, name).unwrap(), expected, "{host} {name:?}");
        }
    }

    #[test]
    fn t35_a_bad_file_is_named_and_never_quoted() {
        for json in [
            r#"{"auths": {"r.io": {"auth": "hunter2!"}}}"#,
            r#"{"auths": {"r.io": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"auths": {"r.io": "hunter2"}}"#,
            r#"{"auths": hunter2}"#,
        ] {
            let error = find(json, "r.io", None).unwrap_err().to_string();
            assert!(error.contains("auth.json") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_usual_places_are_those_of_the_container_tools() {
        let paths = |variables: &'static [(&str, &str)], uid| {
            let look = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
            default_paths(look, uid).iter().map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            paths(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7")], Some(7)),
            ["/run/user/7/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(
            paths(
                &[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d"), ("XDG_RUNTIME_DIR", "")],
                Some(0)
            ),
            ["/run/containers/0/auth.json", "/c/containers/auth.json", "/d/config.json"]
        );
        assert_eq!(paths(&[("REGISTRY_AUTH_FILE", "/f"), ("HOME", "/h")], None), ["/f"]);
        assert!(paths(&[], None).is_empty());
    }
}
