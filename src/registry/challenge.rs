//! What a 401 asks for, and whether it may ask that (T-25). Pure: from a header to a checked answer.
//!
//! Grammar: RFC 9110, 11.6.1; distribution specification, "Token Authentication".

use url::Url;

use super::error::{RegistryError, remote_text};
use super::settings::{Origin, Scheme, TokenService};
use crate::image::RepositoryName;

/// Longest `service` that is repeated to a token service, in bytes: real ones are host names.
const SERVICE_BYTES_MAX: usize = 255;
/// Most challenges or parameters of one header that are read; real ones have up to four.
const PARTS_MAX: usize = 16;

/// What a token is for. Only reading can be expressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// Reading one repository.
    Pull(RepositoryName),
    /// Reading what Azure keeps beside one repository's content: its locks.
    Metadata(RepositoryName),
    /// Listing repositories.
    Catalog,
    /// Nothing: only whether the credential is good.
    Login,
}

impl Scope {
    /// The text that is asked for; empty where no right is.
    pub(super) fn to_text(&self) -> String {
        match self {
            Scope::Pull(name) => format!("repository:{name}:pull"),
            Scope::Metadata(name) => format!("repository:{name}:metadata_read"),
            Scope::Catalog => "registry:catalog:*".to_owned(),
            Scope::Login => String::new(),
        }
    }

    /// The scope to ask for when the challenge names `asked`: it must be about the same thing, and for reading
    /// only. Azure asks for `metadata_read` where others ask for `pull`.
    fn accept(&self, asked: &str) -> Option<String> {
        match self {
            Scope::Catalog => (asked == self.to_text()).then(|| asked.to_owned()),
            // Whatever is suggested, no right is asked for.
            Scope::Login => Some(String::new()),
            Scope::Pull(name) | Scope::Metadata(name) => {
                let actions = asked.strip_prefix("repository:")?.strip_prefix(name.as_str())?.strip_prefix(':')?;
                let reading = actions.split(',').all(|a| matches!(a, "pull" | "metadata_read" | "metadataRead"));
                reading.then(|| asked.to_owned())
            }
        }
    }
}

/// Where to get a token: checked, so that a credential may be sent there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Realm {
    pub(super) url: Url,
    pub(super) service: Option<String>,
}

/// What to do about a 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Demand {
    /// Send user name and password with the request itself.
    Basic,
    /// Get a token for `scope` from `realm` and send that.
    Bearer { realm: Realm, scope: String },
}

/// Whom a challenge must match.
pub(super) struct Expectation<'a> {
    pub(super) origin: &'a Origin,
    pub(super) token_service: Option<&'a TokenService>,
    pub(super) scope: &'a Scope,
}

/// Reads the `WWW-Authenticate` headers of a 401; `Bearer` wins over `Basic`. `None` where neither is offered.
pub(super) fn demand<'h>(
    headers: impl Iterator<Item = &'h [u8]>,
    expected: &Expectation<'_>,
) -> Result<Option<Demand>, RegistryError> {
    let mut basic = false;
    for header in headers {
        for challenge in parse(header)? {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                return bearer(&challenge, expected).map(Some);
            }
            basic |= challenge.scheme.eq_ignore_ascii_case("basic");
        }
    }
    Ok(basic.then_some(Demand::Basic))
}

fn bearer(challenge: &Challenge, expected: &Expectation<'_>) -> Result<Demand, RegistryError> {
    let realm =
        challenge.param("realm").ok_or_else(|| RegistryError::Protocol("a challenge without a realm".into()))?;
    let refused = |why: &str| {
        RegistryError::Untrusted(format!(
            "the registry sends us for a token to `{}`: {why}",
            remote_text(realm.as_bytes())
        ))
    };
    let url = Url::parse(realm).map_err(|_| refused("not an address"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("an address with user information"));
    }
    if url.fragment().is_some() {
        return Err(refused("an address with a fragment"));
    }
    let service = challenge.param("service");
    match expected.token_service {
        Some(configured) => {
            if url != configured.realm {
                return Err(refused("not the configured token service"));
            }
            // A token for another service could be meant for another registry: it is not fetched for this one.
            if service.is_some_and(|service| service != configured.service) {
                return Err(refused("for another service than the configured one"));
            }
            let realm = Realm { url, service: Some(configured.service.clone()) };
            scoped(realm, challenge, expected)
        }
        None => {
            let origin = Origin::of_url(&url).ok_or_else(|| refused("not https"))?;
            if origin != *expected.origin {
                return Err(refused(
                    "not the registry's own scheme, host and port; set `realm` of this registry if it is right",
                ));
            }
            if origin.scheme() == Scheme::Http && !origin.is_loopback() {
                return Err(refused("not https"));
            }
            if service
                .is_some_and(|s| s.len() > SERVICE_BYTES_MAX || !s.bytes().all(|b| b.is_ascii_graphic() || b == b' '))
            {
                return Err(RegistryError::Protocol("a challenge with an unusable service".into()));
            }
            scoped(Realm { url, service: service.map(str::to_owned) }, challenge, expected)
        }
    }
}

fn scoped(realm: Realm, challenge: &Challenge, expected: &Expectation<'_>) -> Result<Demand, RegistryError> {
    let scope = match challenge.param("scope") {
        None | Some("") => expected.scope.to_text(),
        Some(asked) => expected.scope.accept(asked).ok_or_else(|| {
            let asked = remote_text(asked.as_bytes());
            let ours = expected.scope.to_text();
            RegistryError::Untrusted(format!("the registry wants a token for `{asked}` where `{ours}` is needed"))
        })?,
    };
    Ok(Demand::Bearer { realm, scope })
}

struct Challenge {
    scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Splits a header into challenges. A parameter that occurs twice has two meanings and is refused.
fn parse(header: &[u8]) -> Result<Vec<Challenge>, RegistryError> {
    let fault = || RegistryError::Protocol("a WWW-Authenticate header that cannot be read".into());
    let mut rest = std::str::from_utf8(header).map_err(|_| fault())?;
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Ok(challenges);
        }
        let (word, after) = token(rest).ok_or_else(fault)?;
        let Some(value) = after.trim_start().strip_prefix('=') else {
            if challenges.len() == PARTS_MAX {
                return Err(fault());
            }
            challenges.push(Challenge { scheme: word.to_owned(), params: Vec::new() });
            rest = after;
            continue;
        };
        let challenge = challenges.last_mut().ok_or_else(fault)?;
        let (value, after) = param_value(value.trim_start()).ok_or_else(fault)?;
        if challenge.param(word).is_some() || challenge.params.len() == PARTS_MAX {
            return Err(fault());
        }
        challenge.params.push((word.to_owned(), value));
        rest = after;
    }
}

/// A token of RFC 9110, 5.6.2, and what follows.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = text.bytes().position(|b| !is_token(b)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or quoted string, and what follows.
fn param_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(word, rest)| (word.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c if c.is_control() => return None,
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(origin: &str, service: Option<&TokenService>, header: &str) -> Result<Option<Demand>, RegistryError> {
        let origin: Origin = origin.parse().unwrap();
        let scope = Scope::Pull("iot/sensor".parse().unwrap());
        let expected = Expectation { origin: &origin, token_service: service, scope: &scope };
        demand([header.as_bytes()].into_iter(), &expected)
    }

    #[test]
    fn the_challenges_of_real_registries_are_understood() {
        let acr = r#"Bearer realm="https://contoso.azurecr.io/oauth2/token",service="contoso.azurecr.io",scope="repository:iot/sensor:pull""#;
        let Some(Demand::Bearer { realm, scope }) = ask("https://contoso.azurecr.io", None, acr).unwrap() else {
            panic!()
        };
        assert_eq!(realm.url.as_str(), "https://contoso.azurecr.io/oauth2/token");
        assert_eq!(
            (realm.service.as_deref(), scope.as_str()),
            (Some("contoso.azurecr.io"), "repository:iot/sensor:pull")
        );
        let metadata = acr.replace(":pull", ":metadata_read") + r#", error="insufficient_scope""#;
        assert!(ask("https://contoso.azurecr.io", None, &metadata).unwrap().is_some());
        assert_eq!(ask("https://r.io", None, r#"Basic realm="Registry Realm""#).unwrap(), Some(Demand::Basic));
        assert_eq!(ask("https://r.io", None, "Negotiate").unwrap(), None);
        let both = r#"Basic realm="x", Bearer realm="https://r.io/t""#;
        assert!(matches!(ask("https://r.io", None, both).unwrap(), Some(Demand::Bearer { .. })));
        let hub = super::super::Settings::new("docker.io".parse().unwrap());
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:iot/sensor:pull""#;
        assert!(ask("https://registry-1.docker.io", hub.token_service.as_ref(), header).unwrap().is_some());
        let other = header.replace("registry.docker.io", "another.io");
        assert!(ask("https://registry-1.docker.io", hub.token_service.as_ref(), &other).is_err());
    }

    #[test]
    fn t25_a_realm_elsewhere_is_refused() {
        for realm in [
            "https://evil.example/token",
            "https://r.io.evil.example/token",
            "https://r.io:8443/token",
            "http://r.io/token",
            "http://r.io:443/token",
            "https://user@r.io/token",
            "https://r.io@evil.example/token",
            "https://169.254.169.254/token",
            "//r.io/token",
            "/token",
            "file:///etc/passwd",
            "https://r.io/token#x",
            "",
        ] {
            let header = format!(r#"Bearer realm="{realm}",service="r.io""#);
            assert!(matches!(ask("https://r.io", None, &header), Err(RegistryError::Untrusted(_))), "{realm}");
        }
        assert!(ask("https://r.io", None, r#"Bearer realm="https://R.IO:443/token""#).is_ok());
        assert!(ask("http://127.0.0.1:5000", None, r#"Bearer realm="http://127.0.0.1:5000/token""#).is_ok());
        assert!(ask("http://r.io:5000", None, r#"Bearer realm="http://r.io:5000/token""#).is_err());
    }

    #[test]
    fn t27_a_scope_for_something_else_is_refused() {
        for scope in [
            "repository:iot/sensor:pull,push",
            "repository:iot/sensor:*",
            "repository:iot/sensor:",
            "repository:other:pull",
            "repository:iot/sensor2:pull",
            "repository:iot/sensor:pull repository:other:pull",
            "registry:catalog:*",
            "x",
        ] {
            let header = format!(r#"Bearer realm="https://r.io/token",scope="{scope}""#);
            assert!(matches!(ask("https://r.io", None, &header), Err(RegistryError::Untrusted(_))), "{scope}");
        }
    }

    #[test]
    fn t25_a_header_with_two_meanings_is_refused() {
        for header in [
            r#"Bearer realm="https://r.io/t",realm="https://evil.example/t""#,
            r#"Bearer realm="https://r.io/t",REALM="https://evil.example/t""#,
            r#"Bearer realm="https://r.io/t"#,
            r#"Bearer realm="#,
            "Bearer",
            r#"realm="https://r.io/t""#,
            "Bearer \u{1}",
        ] {
            assert!(ask("https://r.io", None, header).is_err(), "{header}");
        }
    }

    proptest! {
        #[test]
        fn t25_no_header_panics_or_names_another_origin(header in "\\PC{0,60}|(Bearer|Basic) (realm|scope|service)=\"[a-z:/.@]{0,30}\",?[a-z=\"]{0,20}") {
            if let Ok(Some(Demand::Bearer { realm, .. })) = ask("https://r.io", None, &header) {
                prop_assert_eq!(Origin::of_url(&realm.url), Some("https://r.io".parse().unwrap()));
            }
        }
    }
}
