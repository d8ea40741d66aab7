//! The policies that the program brings: their texts are part of the program, so that it can judge with no
//! configuration at all.

/// Name and text of a file.
type File = (&'static str, &'static str);

const SPECIAL: [File; 4] = [
    ("iot-edge-module.yaml", include_str!("../../policies/iot-edge-module.yaml")),
    ("iot-edge-module-subset.yaml", include_str!("../../policies/iot-edge-module-subset.yaml")),
    ("official-image.yaml", include_str!("../../policies/official-image.yaml")),
    ("helm-charts.yaml", include_str!("../../policies/helm-charts.yaml")),
];
const COMMON: File = ("semver-release.yaml", include_str!("../../policies/semver-release.yaml"));
const OBSERVE: File = ("observe-everything.yaml", include_str!("../../policies/observe-everything.yaml"));

/// The shipped policies that are in force where none is configured. Between them they govern every repository
/// exactly once: the special ones by what their repositories are called, `semver-release` all others.
/// `observe-everything` is not among them, as it would tell every tag a second time.
pub fn shipped() -> &'static [File] {
    const { &[SPECIAL[0], SPECIAL[1], SPECIAL[2], SPECIAL[3], COMMON] }
}

/// Every shipped policy file, to begin one's own from.
pub fn templates() -> &'static [File] {
    const { &[SPECIAL[0], SPECIAL[1], SPECIAL[2], SPECIAL[3], COMMON, OBSERVE] }
}

#[cfg(test)]
mod tests {
    use super::super::{compile, documents};
    use super::*;
    use crate::document::Source;

    #[test]
    fn by_default_every_repository_has_exactly_one_policy() {
        let read: Vec<_> =
            shipped().iter().flat_map(|(name, text)| documents(&Source::new(*name, *text)).unwrap()).collect();
        let set = compile(&read, &|_: &Source, _: &str| Err(String::new())).unwrap();
        for (repository, policy) in [
            ("contoso.azurecr.io/iot/sensor", "iot-edge-module"),
            ("127.0.0.1:5000/team/iot/deep/sensor", "iot-edge-module"),
            ("contoso.azurecr.io/iot-subset/sensor", "iot-edge-module-subset"),
            ("contoso.azurecr.io/iot/charts/sensor", "helm-charts"),
            ("ghcr.io/example/charts/app", "helm-charts"),
            ("docker.io/library/redis", "official-image"),
            ("docker.io/grafana/grafana", "semver-release"),
            ("localhost:5000/app", "semver-release"),
            ("ghcr.io/example/patriot/app", "semver-release"),
        ] {
            let governing: Vec<_> =
                set.governing(&repository.parse().unwrap()).iter().map(|p| p.name.clone()).collect();
            assert_eq!(governing, [policy.into()], "{repository}");
        }
    }
}
