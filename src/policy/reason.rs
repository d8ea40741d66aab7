//! The reason codes: what can be wrong, why it matters, what to do. One list, printed by
//! `tidewaiter policy explain REASON` and rendered into the documentation.

use std::fmt;

use super::observation::CauseKind;
use super::verdict::Rule;

/// The page of one reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The requirement under which it appears.
    pub rule: Rule,
    /// What is wrong, as a short sentence.
    pub wrong: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

macro_rules! reasons {
    ($($variant:ident = $code:literal, $rule:ident, $wrong:literal, $why:literal, $fix:literal;)*) => {
        /// A stable code for what is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $wrong] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),*];

            /// The stable kebab-case code.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $code),* }
            }

            /// Reads a code.
            pub fn from_code(code: &str) -> Option<Reason> {
                match code { $($code => Some(Reason::$variant),)* _ => None }
            }

            /// Its page.
            pub fn page(self) -> Page {
                match self {
                    $(Reason::$variant => Page { rule: Rule::$rule, wrong: $wrong, why: $why, fix: $fix }),*
                }
            }
        }
    };
}

reasons! {
    TagMoved = "tag-moved", Immutable, "The tag points to another digest than the one first recorded.",
        "Whoever froze on this tag gets other software without having asked for it.",
        "Publish the change under a new version and point this tag back to its first digest; if the move was intended, take it over with `tidewaiter accept`.";
    AttestationOnly = "attestation-only", Immutable, "The tag moved to an index that differs only in its attestations.",
        "The images that run are the same, but the digest is not: whoever pinned the index sees another object.",
        "Attach attestations before the tag is published, or as referrers; if this is normal for you, lower the severity of `immutable`.";
    IndexMetadataOnly = "index-metadata-only", Immutable, "The tag moved to an index of the same images, in another order or with other annotations.",
        "The digest differs, and the order of entries decides which one a runtime takes first.",
        "Publish indexes once and reproducibly; accept the new digest if the change was intended.";
    EnvelopeOnly = "envelope-only", Immutable, "The tag moved to the same content in another envelope: other media types or compression.",
        "The unpacked files are the same, but every digest that somebody pinned is gone.",
        "Copy images without converting their format; accept the new digest if the change was intended.";
    Wrapped = "wrapped", Immutable, "The tag moved from one image to an index that contains that very image.",
        "The digest differs, although the platform that was there before still gets the same image.",
        "Build the index before the version tag is published; `settle` forgives the steps of one push.";
    Restored = "restored", Immutable, "The tag had moved and points to its first digest again.",
        "Somebody may have pulled the other image in between.",
        "Nothing to mend. Find out what moved the tag: `tidewaiter history` shows when.";
    NotAnIndex = "not-an-index", Index, "The tag is one image, where an index is required.",
        "Devices of every other platform get an image that does not run there.",
        "Build an index of all platforms and push it under a new version.";
    LegacyFormat = "legacy-format", Intact, "The manifest has the format Docker schema 1.",
        "Current runtimes refuse to pull it.",
        "Build and push the image again with a current tool, under a new version.";
    MissingPlatform = "missing-platform", Platforms, "A required platform is not in the index.",
        "Devices of that platform find no image.",
        "Publish a new version with every required platform; a released version must not change.";
    NoRequiredPlatform = "no-required-platform", Platforms, "None of the platforms is there of which at least one is required.",
        "The image runs on no supported device.",
        "Publish a version for at least one of the platforms.";
    UnexpectedPlatform = "unexpected-platform", Platforms, "A platform is there that the policy does not allow.",
        "What is offered for a platform is taken as supported on it.",
        "Publish a version without it, or add it to the policy.";
    Recertify = "recertify", Platforms, "A released version meets the platform set of its day, but not the newest one.",
        "The newest set is what certification asks of the current version.",
        "Publish a new version that covers the newest set. The released one must not change.";
    PlatformRegression = "platform-regression", KeepsPlatforms, "A platform of the version before is missing.",
        "Devices of that platform stay behind on the old version.",
        "Publish a version with the platform, or record an exception if it was dropped on purpose.";
    BrokenIndex = "broken-index", Intact, "A manifest that the index lists is not in the registry.",
        "Pulling fails on that platform.",
        "Push the missing manifest again by its digest, and keep clean-up jobs from deleting untagged manifests.";
    MissingConfig = "missing-config", Intact, "The image's config is not in the registry.",
        "Pulling fails.",
        "Push the image again.";
    SizeMismatch = "size-mismatch", Intact, "Content has another size than its descriptor says.",
        "Clients that check the size refuse to pull.",
        "Build the index again from what is in the registry, under a new version.";
    LyingIndex = "lying-index", Intact, "An entry of the index is for another platform than its image.",
        "Devices that follow the entry get an image that does not run.",
        "Build the image for the platform that the entry names, and publish a new version.";
    DuplicatePlatform = "duplicate-platform", Intact, "Two entries of the index are for the same platform.",
        "Runtimes take the first; the other is never used.",
        "Keep one entry for each platform.";
    InvalidDescriptor = "invalid-descriptor", Intact, "An entry states a platform without operating system or architecture.",
        "No runtime can select it.",
        "Write both `os` and `architecture`, as the OCI image specification requires.";
    InvalidVariant = "invalid-variant", Intact, "An entry has an architecture or variant that no runtime looks for.",
        "No device ever selects it.",
        "Use Go's names: `arm` with `v7`, `arm64` without a variant.";
    NonCanonicalPlatform = "non-canonical-platform", Intact, "An entry writes its platform with an alias.",
        "Most runtimes understand it, some do not.",
        "Use Go's names, such as `amd64` and `arm64`.";
    UnselectableEntry = "unselectable-entry", Intact, "An entry for `unknown/unknown` is not marked as an attestation.",
        "No client can select it.",
        "Mark attestations as such, or remove the entry.";
    DanglingAttestation = "dangling-attestation", Intact, "An attestation is about no image of this index.",
        "Nobody can tell what it attests.",
        "Build image and attestation together.";
    ConfigWithoutPlatform = "config-without-platform", Intact, "The image's config names no operating system or architecture.",
        "It cannot be told where the image runs; the OCI image specification requires both.",
        "Build the image with a tool that writes them.";
    AmbiguousManifest = "ambiguous-manifest", Intact, "The manifest can be read as two kinds of document.",
        "Two clients can pull two different things by one digest.",
        "Build it again with a current tool. Treat it as an attack until proven otherwise.";
    MalformedManifest = "malformed-manifest", Intact, "The manifest is not what its media type says.",
        "Clients refuse to pull it.",
        "Build and push it again.";
    MalformedArtifact = "malformed-artifact", Intact, "An artifact with an empty config does not say what type it has.",
        "The OCI image specification requires `artifactType` then; tools cannot tell what it is.",
        "Push it with an `artifactType`.";
    NestedIndex = "nested-index", Intact, "An entry of the index is itself an index.",
        "Some runtimes do not look inside.",
        "List the images themselves, for instance by building without provenance.";
    RepeatedEntry = "repeated-entry", Intact, "The same image is listed twice for one platform.",
        "It does no harm and has no use.",
        "List it once.";
    Lagging = "lagging", Follows, "The tag does not point to the highest version.",
        "Whoever follows the tag stays on an old version.",
        "Point the tag to the highest version, or declare that version `withdrawn` in the policy.";
    RollingStale = "rolling-stale", Follows, "The rolling tag does not point to the highest version of its line.",
        "Whoever follows the line stays on an old version.",
        "Point the tag to the highest version of its line.";
    MovedBackwards = "moved-backwards", Follows, "The tag was moved to a lower version.",
        "Whoever follows the tag is taken back to an older release.",
        "Point the tag to the highest version again.";
    Unversioned = "unversioned", Follows, "The tag points to something that has no version tag.",
        "Nobody can freeze on what they run.",
        "Publish it under a version, or point the tag to one.";
    Orphan = "orphan", Follows, "There is no version for this tag to follow.",
        "Nobody can freeze on a version of this line.",
        "Publish a version of the line, or remove the tag.";
    MixedVersions = "mixed-versions", Follows, "The images under the tag come from different versions.",
        "Devices of different platforms run different software under one name.",
        "Point the tag to the index of one version.";
    SameImages = "same-images", Follows, "The tag is another index of the very same images as the version.",
        "What runs is the same; only the digest differs.",
        "Point the tag to the version's own digest if you want them identical.";
    Withdrawn = "withdrawn", Follows, "The tag points to a version that was withdrawn or deleted.",
        "Whoever follows the tag runs what was taken back.",
        "Point the tag to the highest remaining version.";
    NoParent = "no-parent", MemberOf, "There is no version whose index could list this image.",
        "The image is released for one platform only.",
        "Publish the version's index.";
    NotAMember = "not-a-member", MemberOf, "The version's index does not list this image.",
        "Who pulls the per-platform tag gets other software than who pulls the version.",
        "Build the index from the per-platform tags, under a new version.";
    MislabelledMember = "mislabelled-member", MemberOf, "The image is for another platform than its tag says.",
        "Who pulls it by its tag gets an image that does not run.",
        "Check which build pushes this tag; publish a new version.";
    UntaggedMember = "untagged-member", MembersTagged, "An image of the index has no tag of its own.",
        "Clean-up of untagged manifests deletes it, and publication copies only tagged images.",
        "Tag every image of the index.";
    WrongKind = "wrong-kind", Kind, "The tag leads to another kind of content than required.",
        "Who pulls it as an image gets a chart, a signature or the like.",
        "Push it under another tag or repository.";
    Vanished = "vanished", Present, "The tag was there and is gone.",
        "Whoever froze on it can no longer pull.",
        "Push the recorded digest under the tag again, or record an exception if it was withdrawn on purpose.";
    Unlocked = "unlocked", Locked, "The tag or its manifest is not write-protected at the registry.",
        "Nothing but discipline keeps it from being changed.",
        "Lock tag and manifest at the registry.";
    ConfigInvalid = "config-invalid", Config, "An image config does not meet the policy's schema.",
        "The policy's author asks for it: see the note of the requirement.",
        "Rebuild the image accordingly, under a new version.";
    ManifestInvalid = "manifest-invalid", Manifest, "The manifest does not meet the policy's schema.",
        "The policy's author asks for it: see the note of the requirement.",
        "Rebuild the manifest accordingly, under a new version.";
    ExpressionFalse = "expression-false", Expect, "An expression of the policy is not true.",
        "The policy's author asks for it: see its message.",
        "See its message.";
    UnknownForm = "unknown-form", Form, "The tag has none of the forms that the policy knows.",
        "Customers and tools cannot tell what it is: a release, a test, or a slip of the keyboard.",
        "Push the image under a tag of one of the forms and delete this one.";
    ExpectedMissing = "expected-missing", Expected, "The repository lacks a tag that it must have.",
        "Customers look for it and find nothing.",
        "Push it.";
    RegistryError = "registry-error", Intact, "The registry did not answer, or answered with an error.",
        "Nothing can be said of the image; it is not taken as a pass.",
        "Check the registry and the credential, which `tidewaiter doctor` does; a running daemon asks again by itself.";
    DigestMismatch = "digest-mismatch", Intact, "The registry served bytes that are not what their digest says.",
        "Either the storage is damaged or somebody interferes.",
        "Look into the registry's storage and the path to it. Nothing is judged from such bytes.";
    TooLarge = "too-large", Intact, "The content is over a limit of size, count, depth or time.",
        "Nothing can be said of the image; it is not taken as a pass.",
        "Find out why it is so large; the limits are in the configuration.";
    EvidenceGone = "evidence-gone", Intact, "The content was gone before it could be read.",
        "Nothing can be said of it any more.",
        "Nothing to mend; short-lived tags do this.";
    ExpressionFailed = "expression-failed", Expect, "An expression of the policy could not be evaluated.",
        "Nothing can be said; it is not taken as a pass.",
        "Mend the expression: `tidewaiter policy lint` and `policy test` help.";
}

impl Reason {
    /// Whether the reason says that something could not be determined.
    pub fn is_undetermined(self) -> bool {
        matches!(
            self,
            Reason::RegistryError
                | Reason::DigestMismatch
                | Reason::TooLarge
                | Reason::EvidenceGone
                | Reason::ExpressionFailed
        )
    }
}

impl From<CauseKind> for Reason {
    fn from(kind: CauseKind) -> Reason {
        match kind {
            CauseKind::Registry => Reason::RegistryError,
            CauseKind::DigestMismatch => Reason::DigestMismatch,
            CauseKind::Limit => Reason::TooLarge,
            CauseKind::EvidenceGone => Reason::EvidenceGone,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
