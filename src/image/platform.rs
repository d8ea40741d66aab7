//! Platforms: normalised as container runtimes do, then compared strictly.
//!
//! Rules: containerd's platform normalisation, and for Windows the matcher that looks at the build (the
//! third part of `os.version`). `arm64/v8` is `arm64`, `arm` is `arm/v7`, `amd64/v1` is `amd64`; nothing
//! else is taken for something it is not.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use super::digest::bounded;

/// What an index entry or an image config says of its platform, before normalisation.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
pub struct DeclaredPlatform {
    /// `os`, as written.
    #[serde(default)]
    pub os: String,
    /// `architecture`, as written.
    #[serde(default)]
    pub architecture: String,
    /// `variant`, as written.
    #[serde(default)]
    pub variant: Option<String>,
    /// `os.version`, as written.
    #[serde(default, rename = "os.version")]
    pub os_version: Option<String>,
}

/// A normalised platform: `os/arch[/variant]`, with the `os.version` where one was declared. A copy shares its
/// texts: judging hands platforms on a lot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    os: Box<str>,
    architecture: Box<str>,
    variant: Option<Box<str>>,
    os_version: Option<Box<str>>,
}

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a platform: write os/arch, os/arch/variant or os/arch:os.version, as in `linux/arm/v7` or `windows/amd64:10.0.17763`"
)]
pub struct PlatformError(String);

impl Platform {
    /// Normalises what was declared. `None` where `os` or `architecture` is empty or `unknown`.
    pub fn normalise(declared: &DeclaredPlatform) -> Option<Platform> {
        let os = match declared.os.to_ascii_lowercase().as_str() {
            "" | "unknown" => return None,
            "macos" => "darwin".into(),
            other => other.into(),
        };
        let arch = declared.architecture.to_ascii_lowercase();
        let variant = declared.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match (arch.as_str(), variant.as_str()) {
            ("" | "unknown", _) => return None,
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", if v == "v1" { "" } else { v }),
            ("aarch64" | "arm64", v) => ("arm64", if matches!(v, "8" | "v8") { "" } else { v }),
            ("i386" | "386", v) => ("386", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7" | "v7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (a, v) => (a, v),
        };
        Some(Platform(Arc::new(Parts {
            os,
            architecture: architecture.into(),
            variant: (!variant.is_empty()).then(|| variant.into()),
            os_version: declared.os_version.as_deref().filter(|v| !v.is_empty()).map(Into::into),
        })))
    }

    /// The operating system, as in `linux`.
    pub fn os(&self) -> &str {
        &self.0.os
    }

    /// The architecture, as in `arm`.
    pub fn architecture(&self) -> &str {
        &self.0.architecture
    }

    /// The variant, as in `v7`.
    pub fn variant(&self) -> Option<&str> {
        self.0.variant.as_deref()
    }

    /// The whole `os.version`, as in `10.0.17763.1098`.
    pub fn os_version(&self) -> Option<&str> {
        self.0.os_version.as_deref()
    }

    /// Same operating system, architecture and variant; the version is not looked at.
    pub fn same_kind(&self, other: &Platform) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        (&a.os, &a.architecture, &a.variant) == (&b.os, &b.architecture, &b.variant)
    }

    /// Whether an entry for `self` and an image that says it is for `image` agree: the same kind, and the
    /// same first three parts of `os.version` where both have one (the fourth is the monthly patch level).
    pub fn agrees_with(&self, image: &Platform) -> bool {
        self.same_kind(image)
            && match (self.os_version(), image.os_version()) {
                (Some(a), Some(b)) => a.splitn(4, '.').take(3).eq(b.splitn(4, '.').take(3)),
                _ => true,
            }
    }

    /// Whether `offered` is what this names, whose `os.version`, if any, is a prefix: what a tag's suffix says.
    pub fn agrees_with_prefix(&self, offered: &Platform) -> bool {
        self.same_kind(offered)
            && match (self.os_version(), offered.os_version()) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(wanted), Some(has)) => {
                    has.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                }
            }
    }

    /// Whether a runtime can look for this platform at all: the architecture is one that Go knows and the
    /// variant fits it. `arm/armv7` or `arm64/v7` match nothing.
    pub fn is_selectable(&self) -> bool {
        match (self.architecture(), self.variant()) {
            ("arm", v) => matches!(v, Some("v5" | "v6" | "v7" | "v8")),
            ("arm64", v) => {
                v.is_none() || v.is_some_and(|v| v == "v9" || (v.starts_with("v8.") || v.starts_with("v9.")))
            }
            ("amd64", v) => matches!(v, None | Some("v2" | "v3" | "v4")),
            (
                "386" | "loong64" | "mips" | "mips64" | "mips64le" | "mipsle" | "ppc64" | "ppc64le" | "riscv64"
                | "s390x" | "wasm",
                _,
            ) => true,
            _ => false,
        }
    }
}

/// Operating systems with the architectures that Go builds for (`go tool dist list`, Go 1.26), and `wasi/wasm`, which
/// container tools use. What else calls itself a platform is likely a slip.
const BUILT_FOR: &[(&str, &[&str])] = &[
    ("aix", &["ppc64"]),
    ("android", &["386", "amd64", "arm", "arm64"]),
    ("darwin", &["amd64", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm", "arm64", "riscv64"]),
    ("illumos", &["amd64"]),
    ("ios", &["amd64", "arm64"]),
    ("js", &["wasm"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
            "riscv64", "s390x",
        ],
    ),
    ("netbsd", &["386", "amd64", "arm", "arm64"]),
    ("openbsd", &["386", "amd64", "arm", "arm64", "ppc64", "riscv64"]),
    ("plan9", &["386", "amd64", "arm"]),
    ("solaris", &["amd64"]),
    ("wasi", &["wasm"]),
    ("wasip1", &["wasm"]),
    ("windows", &["386", "amd64", "arm", "arm64"]),
];

impl Platform {
    /// Whether there are programs for this operating system and architecture, as far as Go knows.
    pub fn is_built_for(&self) -> bool {
        BUILT_FOR.iter().any(|(os, all)| *os == self.os() && all.contains(&self.architecture()))
    }

    /// The platform of those there are that is written most like this one, if any is like it: one slip of the
    /// keyboard away, in the operating system or in the architecture.
    pub fn nearest_built_for(&self) -> Option<String> {
        let written = format!("{}/{}", self.os(), self.architecture());
        let all = BUILT_FOR.iter().flat_map(|(os, all)| all.iter().map(move |arch| format!("{os}/{arch}")));
        let (distance, near) = all
            .map(|known| (strsim::damerau_levenshtein(&written, &known), known))
            // Linux first: it is what is nearly always meant.
            .min_by_key(|(distance, known)| (*distance, !known.starts_with("linux/")))?;
        let variant = self.variant().map(|variant| format!("/{variant}")).unwrap_or_default();
        (1..=2).contains(&distance).then(|| format!("{near}{variant}"))
    }
}

impl DeclaredPlatform {
    /// Whether this, which normalises to `platform`, is written the way Go names platforms, so that every client
    /// finds it without aliases.
    pub fn is_canonical(&self, platform: &Platform) -> bool {
        platform.os() == self.os && platform.architecture() == self.architecture
    }
}

/// A platform that a policy asks for: `os/arch[/variant][:os.version prefix]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    platform: Platform,
}

impl Requirement {
    /// Whether `offered` is the platform asked for. The version, where one is asked for, must begin with
    /// the parts given, by whole dotted parts: `10.0.17763` does not match `10.0.177631`.
    pub fn is_met_by(&self, offered: &Platform) -> bool {
        self.platform.agrees_with_prefix(offered)
    }

    /// The platform asked for; its version is a prefix.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }
}

impl FromStr for Requirement {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Requirement, PlatformError> {
        text.parse().map(|platform| Requirement { platform })
    }
}

impl From<Platform> for Requirement {
    fn from(platform: Platform) -> Requirement {
        Requirement { platform }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.platform.fmt(f)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Parses `os/arch[/variant][:os.version]` and normalises.
    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let fault = || PlatformError(bounded(text));
        let (kind, os_version) = match text.split_once(':') {
            Some((kind, version)) => (kind, Some(version)),
            None => (text, None),
        };
        let parts: Vec<&str> = kind.split('/').collect();
        let word =
            |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        let version_good = os_version
            .is_none_or(|v| v.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())));
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) || !version_good {
            return Err(fault());
        }
        Platform::normalise(&DeclaredPlatform {
            os: parts[0].to_owned(),
            architecture: parts[1].to_owned(),
            variant: parts.get(2).map(|v| (*v).to_owned()),
            os_version: os_version.map(str::to_owned),
        })
        .ok_or_else(fault)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os(), self.architecture())?;
        if let Some(variant) = self.variant() {
            write!(f, "/{variant}")?;
        }
        if let Some(version) = self.os_version() {
            write!(f, ":{version}")?;
        }
        Ok(())
    }
}

/// What publishers write for a platform at the end of a tag.
const SUFFIXES: &[(&str, &[&str])] = &[
    ("linux/amd64", &["amd64", "x64", "x86_64", "linux-amd64", "linux-x64", "linux-x86_64"]),
    (
        "linux/arm64",
        &["arm64", "arm64v8", "aarch64", "linux-arm64", "linux-arm64v8", "linux-aarch64", "linux-arm64-v8"],
    ),
    (
        "linux/arm/v7",
        &[
            "arm32v7",
            "arm32",
            "armv7",
            "armhf",
            "arm",
            "linux-arm32v7",
            "linux-arm32",
            "linux-arm-v7",
            "linux-armv7",
            "linux-armhf",
            "linux-arm",
        ],
    ),
    ("linux/arm/v6", &["arm32v6", "armv6", "armel", "linux-arm32v6", "linux-arm-v6", "linux-armv6"]),
    ("linux/386", &["386", "i386", "linux-386", "linux-i386"]),
    ("linux/ppc64le", &["ppc64le", "linux-ppc64le"]),
    ("linux/s390x", &["s390x", "linux-s390x"]),
    ("linux/riscv64", &["riscv64", "linux-riscv64"]),
    ("windows/amd64", &["windows-amd64", "windows-x64", "win-amd64", "win-x64", "nanoserver-amd64"]),
    ("windows/arm/v7", &["windows-arm32v7", "windows-arm32"]),
];

/// Releases of Windows, as they stand beside `windows-amd64` in a tag, and the builds that they are.
const WINDOWS: &[(&str, &str)] = &[
    ("1809", "10.0.17763"),
    ("ltsc2019", "10.0.17763"),
    ("1903", "10.0.18362"),
    ("1909", "10.0.18363"),
    ("ltsc2022", "10.0.20348"),
    ("ltsc2025", "10.0.26100"),
];

/// The platform that a tag's suffix stands for, as publishers write it (`linux-arm32v7`, `amd64`,
/// `windows-amd64-1809`). Case-sensitive, like tags. `None` where the text is no such suffix.
pub fn suffix(text: &str) -> Option<Platform> {
    // Made once: tags are read far more often than there are platforms.
    static MADE: LazyLock<HashMap<String, Platform>> = LazyLock::new(|| {
        let plain =
            SUFFIXES.iter().flat_map(|(platform, names)| names.iter().map(|n| (n.to_string(), platform.to_string())));
        let builds = WINDOWS.iter().flat_map(|(release, build)| {
            let names =
                ["windows-amd64-", "nanoserver-amd64-", "win-amd64-"].map(|before| format!("{before}{release}"));
            let names = names.into_iter().chain([format!("windows-{release}-amd64")]);
            names.map(move |name| (name, format!("windows/amd64:{build}")))
        });
        plain.chain(builds).filter_map(|(name, platform)| Some((name, platform.parse().ok()?))).collect()
    });
    MADE.get(text).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn declared(os: &str, arch: &str, variant: &str) -> Option<String> {
        let variant = (!variant.is_empty()).then(|| variant.to_owned());
        Platform::normalise(&DeclaredPlatform { os: os.into(), architecture: arch.into(), variant, os_version: None })
            .map(|p| p.to_string())
    }

    #[test]
    fn normalises_as_runtimes_do() {
        for (os, arch, variant, expected) in [
            ("linux", "arm64", "v8", "linux/arm64"),
            ("linux", "arm64", "8", "linux/arm64"),
            ("linux", "arm", "", "linux/arm/v7"),
            ("linux", "arm", "7", "linux/arm/v7"),
            ("linux", "arm", "6", "linux/arm/v6"),
            ("Linux", "AARCH64", "", "linux/arm64"),
            ("linux", "x86_64", "", "linux/amd64"),
            ("linux", "amd64", "v1", "linux/amd64"),
            ("linux", "amd64", "v3", "linux/amd64/v3"),
            ("linux", "armhf", "", "linux/arm/v7"),
            ("linux", "armel", "", "linux/arm/v6"),
            ("linux", "i386", "", "linux/386"),
            ("macos", "arm64", "", "darwin/arm64"),
            ("linux", "arm", "armv7", "linux/arm/armv7"),
            ("linux", "arm64", "v7", "linux/arm64/v7"),
        ] {
            assert_eq!(declared(os, arch, variant).as_deref(), Some(expected));
        }
        assert_eq!(declared("unknown", "unknown", ""), None);
        assert_eq!(declared("", "amd64", ""), None);
    }

    #[test]
    fn required_platforms_are_met_strictly() {
        for (wanted, offered, met) in [
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm64", "linux/arm/v7", false),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/arm64", "linux/arm64/v9", false),
            ("windows/amd64:10.0.17763", "windows/amd64:10.0.17763.1098", true),
            ("windows/amd64:10.0.17763", "windows/amd64:10.0.17764.1", false),
            ("windows/amd64:10.0.17763", "windows/amd64:10.0.177631", false),
            ("windows/amd64:10.0.17763", "windows/amd64", false),
            ("windows/amd64", "windows/amd64:10.0.17763.1", true),
        ] {
            let requirement: Requirement = wanted.parse().unwrap();
            assert_eq!(requirement.is_met_by(&offered.parse().unwrap()), met, "{wanted} by {offered}");
        }
    }

    #[test]
    fn impossible_variants_are_not_selectable() {
        for (text, good) in [
            ("linux/arm64/v7", false),
            ("linux/arm/armv7", false),
            ("linux/arm64/armv8", false),
            ("linux/arm64", true),
            ("linux/arm/v6", true),
            ("linux/amd64/v3", true),
            ("linux/foo", false),
            ("linux/riscv64", true),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().is_selectable(), good, "{text}");
        }
    }

    #[test]
    fn what_nobody_builds_for_is_told_with_what_was_meant() {
        for (text, built_for, near) in [
            ("linux/amd64", true, None),
            ("windows/amd64:10.0.17763", true, None),
            ("linux/amd46", false, Some("linux/amd64")),
            ("linus/arm/v7", false, Some("linux/arm/v7")),
            ("lunix/arm64", false, Some("linux/arm64")),
            ("linux/armv7", false, Some("linux/arm")),
            ("darwin/s390x", false, None),
            ("windows/arn64", false, Some("windows/arm64")),
            ("nowhere/none", false, None),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.is_built_for(), built_for, "{text}");
            assert_eq!(platform.nearest_built_for().filter(|_| !built_for).as_deref(), near, "{text}");
        }
    }

    #[test]
    fn suffixes_that_publishers_use() {
        for (text, expected) in [
            ("linux-arm32v7", "linux/arm/v7"),
            ("amd64", "linux/amd64"),
            ("arm64v8", "linux/arm64"),
            ("linux-x64", "linux/amd64"),
            ("nanoserver-amd64-1809", "windows/amd64:10.0.17763"),
            ("windows-1809-amd64", "windows/amd64:10.0.17763"),
            ("windows-amd64-ltsc2022", "windows/amd64:10.0.20348"),
        ] {
            assert_eq!(suffix(text).unwrap().to_string(), expected);
        }
        for none in ["rc.1", "alpine", "AMD64", "", "windows"] {
            assert_eq!(suffix(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn a_platform_prints_as_it_parses(text in "[a-z]{1,8}/[a-z0-9]{1,8}(/v[0-9])?(:[0-9]{1,3}(\\.[0-9]{1,5}){0,3})?") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
            }
        }
    }
}
