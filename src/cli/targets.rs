//! What was typed as an image: a reference at a registry, or a local image layout; or a registry to go through.

use crate::image::{Host, Reference, ReferenceError, Repository};
use crate::registry::LayoutReference;
use crate::report::visible;

use super::fail::Failure;

/// An image to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// At a registry.
    Image(Reference),
    /// In a directory or archive.
    Layout(LayoutReference),
}

/// What to go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Area {
    /// Every repository of a registry.
    Registry(Host),
    /// One repository.
    Repository(Repository),
}

impl Target {
    /// Reads `HOST/REPO:TAG`, `HOST/REPO@DIGEST`, `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`.
    ///
    /// # Errors
    /// With what to type instead, as far as that can be told.
    pub fn parse(text: &str) -> Result<Target, Failure> {
        if let Some(layout) = LayoutReference::parse(text) {
            return Ok(Target::Layout(layout));
        }
        let shown = visible(text);
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = visible(rest.trim_end_matches('/'));
            return Err(Failure::say(format!(
                "`{shown}` begins with `{}://`, which no image reference does",
                visible(scheme)
            ))
            .help(format!("write `{rest}`")));
        }
        if let Some((transport @ ("docker-archive" | "docker-daemon" | "dir" | "containers-storage"), _)) =
            text.split_once(':')
        {
            return Err(Failure::say(format!(
                "`{transport}:` is not read; local images come as `oci:DIR` or `oci-archive:FILE`"
            ))
            .help(format!("convert it first, as in `skopeo copy {shown} oci:image:1.0.1`")));
        }
        // `bitnami/redis:7` reads as a host called `bitnami`; nobody has one of that name.
        if text.contains('/') && !host_like(text) && format!("docker.io/{text}").parse::<Reference>().is_ok() {
            return Err(Failure::say(format!("`{shown}` names no registry")).help(format!(
                "a reference begins with its registry; if Docker Hub is meant, write `docker.io/{shown}`"
            )));
        }
        reference(text).map(Target::Image)
    }
}

/// Reads a reference with a tag or digest.
pub(super) fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|error: ReferenceError| {
        let help = match &error {
            ReferenceError::NoTag(_) => Some(format!("to judge every tag: `tidewaiter audit {}`", visible(text))),
            _ if !text.contains('/') || !host_like(text) => {
                let path = if text.contains('/') { text.to_owned() } else { format!("library/{text}") };
                format!("docker.io/{path}").parse::<Reference>().is_ok().then(|| {
                    format!("a reference begins with its registry; if Docker Hub is meant, write `docker.io/{path}`")
                })
            }
            _ => None,
        };
        let failure = Failure::say(error.to_string());
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    })
}

/// Whether what stands before the first slash looks like a host rather than a user's name.
fn host_like(text: &str) -> bool {
    text.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost")
}

impl Area {
    /// Reads `HOST` or `HOST/REPO`.
    ///
    /// # Errors
    /// With what to type instead.
    pub fn parse(text: &str) -> Result<Area, Failure> {
        if let Some((_, rest)) = text.split_once("://") {
            let rest = visible(rest.trim_end_matches('/'));
            return Err(Failure::say(format!("`{}` is an address; an audit names a registry", visible(text)))
                .help(format!("write `{rest}`")));
        }
        if !text.contains('/') {
            return text.parse().map(Area::Registry).map_err(|error: ReferenceError| Failure::say(error.to_string()));
        }
        text.parse().map(Area::Repository).map_err(|error: ReferenceError| {
            let failure = Failure::say(error.to_string());
            match text.parse::<Reference>() {
                Ok(reference) => failure.help(format!(
                    "an audit judges every tag: write `{}`, or `tidewaiter check {reference}` for this one",
                    reference.repository
                )),
                Err(_) => failure,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_said() {
        for (typed, help) in [
            ("https://contoso.azurecr.io/iot/sensor:1.0.1", "write `contoso.azurecr.io/iot/sensor:1.0.1`"),
            ("docker-archive:a.tar", "skopeo copy docker-archive:a.tar oci:image:1.0.1"),
            ("alpine:3", "write `docker.io/library/alpine:3`"),
            ("bitnami/redis:7", "write `docker.io/bitnami/redis:7`"),
            ("contoso.azurecr.io/iot/sensor", "tidewaiter audit contoso.azurecr.io/iot/sensor"),
        ] {
            match Target::parse(typed).unwrap_err() {
                Failure::Say { code: 2, help: Some(said), .. } => assert!(said.contains(help), "{typed}: {said}"),
                other => panic!("{typed}: {other:?}"),
            }
        }
        assert!(matches!(Target::parse("oci:dir:1.0"), Ok(Target::Layout(_))));
        assert!(matches!(Target::parse("localhost:5000/a:1"), Ok(Target::Image(_))));
        assert!(matches!(Area::parse("localhost:5000"), Ok(Area::Registry(_))));
        assert!(matches!(Area::parse("localhost:5000/a"), Ok(Area::Repository(_))));
        assert!(Area::parse("localhost:5000/a:1").is_err());
    }
}
