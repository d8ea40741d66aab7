//! What a payload says of one event, unchecked, and the one place where it is checked.
//!
//! The rules that all formats share: an empty tag or digest means absent; a tag that is itself a digest is the
//! digest; a registry is the host, without scheme and path; nothing outside the grammar of names becomes an
//! event (T-17, T-18, T-21).

use jiff::Timestamp;

use super::text::{actor, id, quote};
use super::{Action, Event, Ignored, IgnoredReason, Parsed, Stage};
use crate::image::{Digest, Host, RepositoryName, Tag};

/// One event as its sender wrote it. Empty text means absent everywhere.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Claim<'a> {
    /// Host, perhaps with a port. Of a field that holds a whole address, its [`host_of`].
    pub registry: &'a str,
    pub repository: &'a str,
    pub tag: &'a str,
    pub digest: &'a str,
    pub id: &'a str,
    /// RFC 3339; a time that cannot be read is taken as absent, since nothing depends on it.
    pub at: &'a str,
    pub actor: &'a str,
}

impl Ignored {
    pub(super) fn new(reason: IgnoredReason, detail: &str) -> Ignored {
        Ignored { reason, detail: quote(detail) }
    }
}

impl Parsed {
    /// Files `claim` as an event, or as the fault it has.
    pub(super) fn claim(&mut self, action: Action, claim: Claim<'_>) {
        match claim.check(action) {
            Ok(event) => self.events.push(event),
            Err(fault) => self.ignored.push(fault),
        }
    }

    /// Files something that gives no event.
    pub(super) fn ignore(&mut self, reason: IgnoredReason, detail: &str) {
        self.ignored.push(Ignored::new(reason, detail));
    }

    /// The answer to a body that holds one thing, and that gives no event.
    pub(super) fn only_ignored(reason: IgnoredReason, detail: &str) -> Parsed {
        Parsed { ignored: vec![Ignored::new(reason, detail)], ..Parsed::default() }
    }
}

impl Claim<'_> {
    fn check(self, action: Action) -> Result<Event, Ignored> {
        let repository: RepositoryName =
            self.repository.parse().map_err(|_| Ignored::new(IgnoredReason::InvalidRepository, self.repository))?;
        let registry = match self.registry {
            "" => None,
            host => {
                let host: Host =
                    host.parse().map_err(|_| Ignored::new(IgnoredReason::InvalidRegistry, self.registry))?;
                Some(host)
            }
        };
        let digest = |text: &str| -> Result<Option<Digest>, Ignored> {
            match text {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| Ignored::new(IgnoredReason::InvalidDigest, text)),
            }
        };
        let mut tag: Option<Tag> = None;
        let mut named = digest(self.digest)?;
        // No tag has a colon, every digest has one.
        if self.tag.contains(':') {
            let by_tag = digest(self.tag)?;
            if named.is_some() && named != by_tag {
                return Err(Ignored::new(IgnoredReason::Contradictory, "tag and digest are two different digests"));
            }
            named = by_tag;
        } else if !self.tag.is_empty() {
            tag = Some(self.tag.parse().map_err(|_| Ignored::new(IgnoredReason::InvalidTag, self.tag))?);
        }
        if action != Action::Delete && tag.is_none() && named.is_none() {
            return Err(Ignored::new(IgnoredReason::Malformed, "neither a tag nor a digest"));
        }
        Ok(Event {
            action,
            stage: Stage::Done,
            registry,
            repository,
            tag,
            digest: named,
            id: id(self.id),
            at: self.at.parse::<Timestamp>().ok(),
            actor: actor(self.actor),
        })
    }
}

/// The host and port of an address: no scheme, no path. Whether it is a host is for its type to say.
pub(super) fn host_of(address: &str) -> &str {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(claim: Claim<'_>) -> Result<Event, IgnoredReason> {
        claim.check(Action::Push).map_err(|ignored| ignored.reason)
    }

    #[test]
    fn a_tag_that_is_a_digest_is_the_digest() {
        let claim = Claim { repository: "a", tag: DIGEST, ..Claim::default() };
        let event = check(claim).unwrap();
        assert_eq!((event.tag, event.digest.as_ref().map(Digest::as_str)), (None, Some(DIGEST)));
        assert!(check(Claim { digest: DIGEST, ..claim }).is_ok());
        let other = Digest::of(b"other");
        assert_eq!(check(Claim { digest: other.as_str(), ..claim }), Err(IgnoredReason::Contradictory));
        assert_eq!(check(Claim { tag: "sha256:..", ..claim }), Err(IgnoredReason::InvalidDigest));
        assert_eq!(check(Claim { tag: "", ..claim }), Err(IgnoredReason::Malformed));
    }

    #[test]
    fn t18_registries_are_hosts_without_scheme_and_path() {
        let registry = |text| {
            check(Claim { repository: "a", tag: "1", registry: host_of(text), ..Claim::default() })
                .map(|event| event.registry.map(|host| host.as_str().to_owned()))
        };
        assert_eq!(registry("https://Contoso.JFrog.io/artifactory"), Ok(Some("contoso.jfrog.io".into())));
        assert_eq!(registry("harbor.example:8443/a/b:1"), Ok(Some("harbor.example:8443".into())));
        assert_eq!(registry(""), Ok(None));
        for bad in [
            "contoso.azurecr.io@evil.example",
            "contoso.azurecr.io.",
            "contoso.azurecr.io#.evil.example",
            "contoso.azurecr.io?x",
            "contoso.azurecr.io\\.evil.example",
            "https://https://contoso.azurecr.io",
            "0x7f000001",
            "[::ffff:127.0.0.1",
            "contoso.аzurecr.io",
            " contoso.azurecr.io",
        ] {
            assert_eq!(registry(bad), Err(IgnoredReason::InvalidRegistry), "{bad}");
        }
    }
}
