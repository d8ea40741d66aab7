//! The doctor's look at registries: whether each answers, whether its clock and ours agree, whether it takes the
//! credential, and what the credential may read, tried with a repository that is known.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Findings, State};
use crate::app::registry_settings;
use crate::clock::{Clock, SystemClock};
use crate::config::{Registry, RegistryAuth};
use crate::image::{Host, Repository};
use crate::policy::PolicySet;
use crate::registry::{Access, Budget, Client, RegistryError, Session};
use crate::report::visible;

/// What one registry is asked.
const BUDGET: Budget = Budget { requests: 16, bytes: 16 << 20, time: Duration::from_secs(20) };
/// From so many seconds on, two clocks do not agree: requests take less, and one second is lost to rounding.
const APART: i64 = 30;
/// From so many seconds on, tokens are refused as expired or not yet valid by some service.
const FAR_APART: i64 = 300;

/// Looks at one registry; the repositories that it lists.
pub(super) async fn look(
    registry: &Registry,
    set: Option<&PolicySet>,
    recorded: &[Repository],
    found: &mut Findings,
) -> Vec<Repository> {
    let host = &registry.host;
    let mut registry = registry.clone();
    // Without its secret the registry can be reached all the same, and no more.
    let unread = match &registry.auth {
        RegistryAuth::Basic { password: secret, .. }
        | RegistryAuth::Token(secret)
        | RegistryAuth::Azure { client_secret: Some(secret), .. } => secret.expose().is_empty(),
        RegistryAuth::Anonymous | RegistryAuth::Azure { client_secret: None, .. } => false,
    };
    if unread {
        registry.auth = RegistryAuth::Anonymous;
    }
    let registry = &registry;
    let client = registry_settings(registry)
        .map_err(|error| format!("{error:#}"))
        .and_then(|settings| Client::new(settings, Arc::new(())).map_err(|error| error.to_string()));
    let client = match client {
        Ok(client) => client,
        Err(why) => {
            found.add("registry", State::Fault, format!("{host}: {why}"), "mend its settings");
            return Vec::new();
        }
    };
    let session = client.session(BUDGET);
    match session.greet().await {
        Ok(greeting) => {
            if let Some(time) = greeting.time {
                clock(host, time, found);
            }
            if unread {
                found.add(
                    "registry",
                    State::Warning,
                    format!(
                        "{host} answers; what the credential may do was not tried, since its secret cannot be read"
                    ),
                    "mend the secret, and ask the doctor again",
                );
                return Vec::new();
            }
            if let Access::Refused(error) = greeting.access {
                found.add(
                    "registry",
                    State::Fault,
                    format!("{host} answers, and refuses the credential{}", said(&error)),
                    "check `auth` of this registry: the name, and whether the password or token has expired or was replaced",
                );
                return Vec::new();
            }
        }
        Err(error) => {
            let at = match registry.endpoint.port_or_known_default() {
                Some(port) if matches!(error, RegistryError::Connect(_) | RegistryError::Timeout(_)) => {
                    format!(" (port {port})")
                }
                _ => String::new(),
            };
            found.add("registry", State::Fault, format!("{host}: {}{at}", plain(&error)), unreachable(&error));
            return Vec::new();
        }
    }
    rights(registry, &session, set, recorded, found).await
}

/// What is wrong, without what to do about it, which is told beside it.
fn plain(error: &RegistryError) -> String {
    match error {
        RegistryError::Tls(why) if speaks_http(why) => "the server answers plain HTTP, not TLS".to_owned(),
        RegistryError::Tls(why) => format!("the registry's TLS is refused: {why}"),
        RegistryError::PrivateAddress { host } => format!("`{host}` leads to a private or reserved address"),
        other => other.to_string(),
    }
}

/// The registry's own words, where it said any.
fn said(error: &RegistryError) -> String {
    match error {
        RegistryError::Unauthorized { said } | RegistryError::Forbidden { said } if said.is_empty() => String::new(),
        RegistryError::Unauthorized { said } | RegistryError::Forbidden { said } => format!(": it says {said}"),
        other => format!(": {}", plain(other)),
    }
}

/// Whether TLS failed since what came was none: rustls takes the first byte of an HTTP answer for a type of message.
pub(super) fn speaks_http(why: &str) -> bool {
    why.contains("InvalidContentType")
}

fn unreachable(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Tls(why) if speaks_http(why) => {
            "set the port where it speaks TLS; or `insecure: true` of this registry for plain http, which goes without credentials"
        }
        RegistryError::Tls(_) => "set `ca` of this registry to its authority's certificate",
        RegistryError::PrivateAddress { .. } => "set `allowPrivate: true` of this registry",
        RegistryError::Unexpected { .. } => {
            "there is a server, and no registry: check `host` and `endpoint`, and the path of a proxy before it"
        }
        RegistryError::Forbidden { .. } => "let this machine's address through the registry's firewall",
        _ => "check `host`, `endpoint`, the network and the registry itself",
    }
}

fn clock(host: &Host, theirs: Timestamp, found: &mut Findings) {
    let ahead = SystemClock.now().duration_since(theirs).as_secs();
    let state = match ahead.abs() {
        FAR_APART.. => State::Fault,
        APART.. => State::Warning,
        _ => return,
    };
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    found.add(
        "clock",
        state,
        format!("this machine is {} s {direction} {host}", ahead.abs()),
        "let both take their time from the network (NTP): tokens and certificates are valid by it, and histories are told by it",
    );
}

/// Tries what the daemon does: lists repositories, lists tags, asks for a manifest.
async fn rights(
    registry: &Registry,
    session: &Session,
    set: Option<&PolicySet>,
    recorded: &[Repository],
    found: &mut Findings,
) -> Vec<Repository> {
    let host = &registry.host;
    let (listed, refused) = match session.catalog(None).await {
        Ok(page) => (page.items.into_iter().map(|name| Repository::new(host.clone(), name)).collect::<Vec<_>>(), None),
        Err(
            error @ (RegistryError::Unauthorized { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::Unexpected { .. }),
        ) => (Vec::new(), Some(error)),
        Err(error) => {
            found.add("registry", State::Fault, format!("{host}: {}", plain(&error)), unreachable(&error));
            return Vec::new();
        }
    };
    let who = if matches!(registry.auth, RegistryAuth::Anonymous) { "anybody" } else { "the credential" };
    let tried = candidate(registry, set, &listed, recorded);
    let reads = match &tried {
        Some(repository) => read(session, repository, registry, found).await,
        None => None,
    };
    match (&refused, &tried, reads) {
        // What is wrong with reading has been told.
        (_, Some(_), None) => {}
        (None, Some(repository), Some(what)) => found.ok(
            "registry",
            format!("{host} answers; {who} lists repositories and reads {what}, tried with {}", repository.name),
        ),
        (None, None, _) => found.ok(
            "registry",
            format!("{host} answers and lists its repositories; there is none yet to try reading with"),
        ),
        (Some(error), Some(repository), Some(what)) => found.add(
            "registry",
            State::Warning,
            format!(
                "{host} answers; {who} reads {what}, tried with {}, and may not list repositories: {error}",
                repository.name
            ),
            "where it is meant to do no more than pull, that is as it should be: repositories become known by their events",
        ),
        (Some(error), None, _) => found.add(
            "registry",
            State::Warning,
            format!("{host} answers, and does not list its repositories: {error}"),
            "where the credential is meant to do no more than pull, that is as it should be; to have reading tried, write a repository's name under `reconcile.repositories` of this registry",
        ),
    }
    listed
}

/// A repository to try reading with: one that is governed where there is one, since that is what will be read.
fn candidate(
    registry: &Registry,
    set: Option<&PolicySet>,
    listed: &[Repository],
    recorded: &[Repository],
) -> Option<Repository> {
    let named = registry.reconcile.repositories.iter().filter_map(|name| {
        let name = name.parse().ok()?;
        Some(Repository::new(registry.host.clone(), name))
    });
    let here = recorded.iter().filter(|r| r.host == registry.host).cloned();
    let all: Vec<Repository> = listed.iter().cloned().chain(named).chain(here).collect();
    let governed = all.iter().find(|r| set.is_none_or(|set| !set.governing(r).is_empty()));
    governed.or(all.first()).cloned()
}

/// What could be read of a repository; `None` where a fault was told.
async fn read(
    session: &Session,
    repository: &Repository,
    registry: &Registry,
    found: &mut Findings,
) -> Option<&'static str> {
    let host = &registry.host;
    let advice = match registry.auth {
        RegistryAuth::Azure { .. } => {
            "give the identity the role AcrPull, or `content/read` and `metadata/read` by a scope map"
        }
        RegistryAuth::Anonymous => "set `auth` of this registry, or let anybody pull there",
        _ => "give the credential the rights to pull and to list tags of every repository that policies govern",
    };
    let mut fault = |what: &str, error: &RegistryError| {
        found.add("registry", State::Fault, format!("{host} answers, but {what} cannot be read: {error}"), advice);
    };
    let tags = match session.tags(&repository.name, None).await {
        Ok(Some(page)) => page.items,
        // Known once and gone: that it says so is the right to read.
        Ok(None) => return Some("tags"),
        Err(error) => {
            fault(&format!("the tags of {}", repository.name), &error);
            return None;
        }
    };
    let Some(tag) = tags.first() else { return Some("tags") };
    match session.head_tag(&repository.name, tag).await {
        Ok(_) => Some("tags and manifests"),
        Err(error) => {
            fault(&format!("the manifest of {}:{}", repository.name, visible(tag.as_str())), &error);
            None
        }
    }
}
