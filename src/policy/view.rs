//! What a tag leads to, as requirements see it: kind, images with their platforms, and what is wrong with them.

use std::cell::OnceCell;
use std::rc::Rc;

use super::judge::Gather;
use super::observation::{Cause, CauseKind, Fact, StoredManifest};
use super::reason::Reason;
use super::set::Lead;
use super::verdict::{Kind, Severity};
use crate::image::{Content, Descriptor, Digest, Index, Manifest, ManifestError, MediaType, Platform, Single};

/// Deepest nesting of indexes that is opened, the outermost included (threat model, section 5).
pub(super) const DEPTH_MAX: usize = 3;
/// Most entries looked at below one tag, nested ones included.
const LEAVES_MAX: usize = 1_000;

/// What a manifest leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Shape {
    #[default]
    Index,
    Image,
    /// Something that is no image, named for people: `a Helm chart`.
    Artifact {
        chart: bool,
        name: String,
    },
    /// Docker schema 1.
    Legacy,
    /// Bytes that are no usable manifest.
    Malformed(Reason, String),
    /// The registry says it is not there.
    Absent,
    /// It could not be determined.
    Undetermined(Cause),
}

/// One image below a tag; all of it is in the observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf<'a> {
    /// The image's manifest.
    pub digest: &'a Digest,
    /// The platform it counts for: what the image is, where that is known.
    pub platform: Option<&'a Platform>,
    /// Its config blob, where the manifest was read.
    pub config: Option<&'a Digest>,
    /// Whether it is there and was read; an image that is not there covers nothing.
    pub present: bool,
}

/// Something wrong below a tag, with the most that it can matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub reason: Reason,
    pub at_most: Severity,
    pub message: String,
    pub expected: Vec<String>,
    pub actual: Vec<String>,
}

/// Everything below a tag. The default, an index of nothing, stands where nothing is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View<'a> {
    pub shape: Shape,
    pub leaves: Vec<Leaf<'a>>,
    /// What is wrong; found out only down to the image configs, as nothing else asks for it.
    pub problems: Vec<Problem>,
    /// What could not be determined below the top.
    pub unknown: Vec<Cause>,
    /// Found out when asked first.
    platforms: OnceCell<Vec<&'a Platform>>,
}

impl<'a> View<'a> {
    /// The platforms covered, each once, in order.
    pub fn platforms(&self) -> &[&'a Platform] {
        self.platforms.get_or_init(|| {
            let mut platforms = Vec::with_capacity(self.leaves.len());
            for platform in self.leaves.iter().filter(|l| l.present).filter_map(|l| l.platform) {
                if !platforms.contains(&platform) {
                    platforms.push(platform);
                }
            }
            platforms
        })
    }

    /// What kind the report calls it.
    pub fn kind(&self) -> Option<Kind> {
        match &self.shape {
            Shape::Index => Some(Kind::Index),
            Shape::Image | Shape::Legacy => Some(Kind::Image),
            Shape::Artifact { .. } => Some(Kind::Artifact),
            Shape::Malformed(..) | Shape::Absent | Shape::Undetermined(_) => None,
        }
    }

    /// What it counts as in a class; `None` while that is not known.
    pub fn lead(&self) -> Option<Lead> {
        match &self.shape {
            Shape::Index | Shape::Image | Shape::Legacy | Shape::Malformed(..) => Some(Lead::Image),
            Shape::Artifact { chart: true, .. } => Some(Lead::Chart),
            Shape::Artifact { .. } => Some(Lead::Artifact),
            Shape::Absent | Shape::Undetermined(_) => None,
        }
    }
}

/// How an artifact is called, by its type or its config's (OCI image specification, artifacts guidance).
fn artifact_name(single: &Single) -> (bool, String) {
    let kind = single.artifact_type.as_deref().unwrap_or(single.config.media_type.as_str());
    let name = match kind {
        "application/vnd.cncf.helm.config.v1+json" => return (true, "a Helm chart".to_owned()),
        "application/vnd.cncf.notary.signature" => "a signature",
        k if k.contains("cosign") || k.contains("sigstore") => "a signature",
        k if k.contains("spdx") || k.contains("cyclonedx") || k.contains("sbom") => "an SBOM",
        k if k.contains("in-toto") => "an attestation",
        k if k.contains("wasm") => "a WebAssembly module",
        k => return (false, format!("an artifact of type {}", crate::document::quoted(k).trim_matches('`'))),
    };
    (false, name.to_owned())
}

/// Looks at what a digest leads to, down to the image configs if `deep`; once, however many tags lead there.
pub(super) fn view<'a>(gather: &mut Gather<'a>, digest: &'a Digest, deep: bool) -> Option<Rc<View<'a>>> {
    if let Some(seen) = gather.seen(digest, deep) {
        return Some(seen);
    }
    let mut view = View::default();
    look(gather, &mut view, digest, deep)?;
    let view = Rc::new(view);
    gather.keep(digest, deep, view.clone());
    Some(view)
}

/// Fills a view. `None` where a question was asked first.
fn look<'a>(gather: &mut Gather<'a>, view: &mut View<'a>, digest: &'a Digest, deep: bool) -> Option<()> {
    view.shape = match gather.manifest(digest)? {
        Fact::Known(manifest) => match &manifest.parsed {
            Ok(parsed) => return look_at(gather, view, digest, parsed, deep),
            Err(error) => shape_of_fault(error),
        },
        Fact::Absent => Shape::Absent,
        Fact::Undetermined(cause) => Shape::Undetermined(cause.clone()),
    };
    Some(())
}

fn look_at<'a>(
    gather: &mut Gather<'a>,
    view: &mut View<'a>,
    digest: &'a Digest,
    manifest: &'a Manifest,
    deep: bool,
) -> Option<()> {
    let mut asked = false;
    match &manifest.content {
        Content::Index(index) => {
            view.leaves.reserve(index.entries.len().min(LEAVES_MAX));
            let mut walk = Walk { gather, view, deep, asked: false };
            walk.index(index, 1, &mut vec![digest]);
            asked = walk.asked;
            if deep {
                duplicates(index, view);
            }
        }
        Content::Single(single) if !is_image(single) => {
            let (chart, name) = artifact_name(single);
            if single.config.media_type == MediaType::OciEmpty && single.artifact_type.is_none() {
                view.problem(
                    Reason::MalformedArtifact,
                    Severity::Warning,
                    "the artifact has an empty config and no `artifactType`".to_owned(),
                );
            }
            view.shape = Shape::Artifact { chart, name };
        }
        Content::Single(single) => {
            view.shape = Shape::Image;
            view.leaves.reserve_exact(1);
            if !deep {
                view.leaves.push(Leaf { digest, platform: None, config: Some(&single.config.digest), present: true });
                return Some(());
            }
            let mut walk = Walk { gather, view, deep, asked: false };
            walk.image(digest, single, None);
            asked = walk.asked;
            // Signatures of one common tool use the image config type with both fields empty.
            let nameless = view.problems.iter().any(|p| p.reason == Reason::ConfigWithoutPlatform);
            if nameless {
                view.problems.retain(|p| p.reason != Reason::ConfigWithoutPlatform);
                view.leaves.clear();
                view.shape = Shape::Artifact {
                    chart: false,
                    name: "something whose config names no platform, as signatures have it".to_owned(),
                };
            }
        }
        Content::Schema1 => view.shape = Shape::Legacy,
        Content::Unknown => {
            let name =
                format!("content of type {}", crate::document::quoted(manifest.media_type.as_str()).trim_matches('`'));
            view.shape = Shape::Artifact { chart: false, name };
        }
    }
    (!asked).then_some(())
}

fn shape_of_fault(error: &ManifestError) -> Shape {
    if error.is_limit() {
        return Shape::Undetermined(Cause { kind: CauseKind::Limit, text: error.to_string() });
    }
    let reason = match error {
        ManifestError::Ambiguous(_) => Reason::AmbiguousManifest,
        _ => Reason::MalformedManifest,
    };
    Shape::Malformed(reason, error.to_string())
}

/// Whether a manifest is known to be no image: what an index lists beside its images.
pub(super) fn is_no_image(manifest: &StoredManifest) -> bool {
    match manifest.parsed.as_ref().map(|m| &m.content) {
        Ok(Content::Single(single)) => !is_image(single),
        Ok(Content::Unknown) => true,
        _ => false,
    }
}

fn is_image(single: &Single) -> bool {
    single.artifact_type.is_none() && single.config.media_type.is_image_config()
}

/// Two entries with one platform: the runtime takes the first (OCI image specification, image-index.md:
/// "the first matching entry SHOULD be used").
fn duplicates(index: &Index, view: &mut View<'_>) {
    let mut seen: Vec<(&Platform, &Digest)> = Vec::with_capacity(index.entries.len());
    for entry in index.entries.iter().filter(|e| !e.is_attestation()) {
        let Some(platform) = entry.platform() else { continue };
        match seen.iter().find(|(known, _)| *known == platform) {
            Some((_, digest)) if **digest == entry.digest => {
                view.problem(
                    Reason::RepeatedEntry,
                    Severity::Info,
                    format!("{platform} is listed twice with the same image"),
                );
            }
            Some((_, digest)) => {
                let message = format!(
                    "{platform} is listed twice, as {} and {}; runtimes take the first",
                    digest.short(),
                    entry.digest.short()
                );
                view.problem(Reason::DuplicatePlatform, Severity::Critical, message);
            }
            None => seen.push((platform, &entry.digest)),
        }
    }
}

impl View<'_> {
    fn problem(&mut self, reason: Reason, at_most: Severity, message: String) {
        self.problems.push(Problem { reason, at_most, message, expected: Vec::new(), actual: Vec::new() });
    }
}

struct Walk<'w, 'a> {
    gather: &'w mut Gather<'a>,
    view: &'w mut View<'a>,
    deep: bool,
    /// Whether a question was asked: what was seen so far is then incomplete.
    asked: bool,
}

/// How an entry is called in messages: by its platform where it has one.
fn called(entry: &Descriptor) -> String {
    match entry.platform() {
        Some(platform) => format!("the entry for {platform}"),
        None => format!("the entry {}", entry.digest.short()),
    }
}

impl<'a> Walk<'_, 'a> {
    fn index(&mut self, index: &'a Index, depth: usize, above: &mut Vec<&'a Digest>) {
        for entry in &index.entries {
            if self.view.leaves.len() >= LEAVES_MAX {
                self.unknown(CauseKind::Limit, format!("more than {LEAVES_MAX} images below the tag"));
                return;
            }
            self.entry(index, entry, depth, above);
        }
    }

    fn entry(&mut self, index: &'a Index, entry: &'a Descriptor, depth: usize, above: &mut Vec<&'a Digest>) {
        if entry.is_attestation() {
            self.attestation(index, entry);
            return;
        }
        if entry.is_unselectable_placeholder() {
            self.view.problem(
                Reason::UnselectableEntry,
                Severity::Warning,
                format!(
                    "the entry {} is for unknown/unknown and is not marked as an attestation",
                    entry.digest.short()
                ),
            );
            return;
        }
        if !self.deep {
            self.leaf(entry, true);
            return;
        }
        self.statement(entry);
        if above.contains(&&entry.digest) {
            self.unknown(CauseKind::Limit, format!("the index {} contains itself", entry.digest.short()));
            return;
        }
        let Some(fact) = self.gather.manifest(&entry.digest) else {
            self.asked = true;
            return;
        };
        let manifest = match fact {
            Fact::Known(manifest) => manifest,
            Fact::Absent => {
                let message =
                    format!("{} is listed as {} and is not in the registry", called(entry), entry.digest.short());
                self.view.problem(Reason::BrokenIndex, Severity::Critical, message);
                self.leaf(entry, false);
                return;
            }
            Fact::Undetermined(cause) => {
                self.view.unknown.push(cause.clone());
                return;
            }
        };
        self.size(entry, manifest.size);
        self.listed(entry, manifest, depth, above);
    }

    /// An image as its entry states it.
    fn leaf(&mut self, entry: &'a Descriptor, present: bool) {
        self.view.leaves.push(Leaf { digest: &entry.digest, platform: entry.platform(), config: None, present });
    }

    fn listed(
        &mut self,
        entry: &'a Descriptor,
        manifest: &'a StoredManifest,
        depth: usize,
        above: &mut Vec<&'a Digest>,
    ) {
        let parsed = match &manifest.parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                match shape_of_fault(error) {
                    Shape::Undetermined(cause) => self.view.unknown.push(cause),
                    Shape::Malformed(reason, text) => {
                        self.view.problem(reason, Severity::Critical, format!("{}: {text}", called(entry)))
                    }
                    _ => {}
                }
                return;
            }
        };
        match &parsed.content {
            Content::Index(inner) => {
                self.view.problem(
                    Reason::NestedIndex,
                    Severity::Warning,
                    format!("{} is itself an index", called(entry)),
                );
                if depth >= DEPTH_MAX {
                    self.unknown(CauseKind::Limit, format!("indexes nest deeper than {DEPTH_MAX}"));
                    return;
                }
                let first = self.view.leaves.len();
                above.push(&entry.digest);
                self.index(inner, depth + 1, above);
                above.pop();
                let covers = |p: &Platform| {
                    self.view.leaves[first..].iter().any(|l| l.platform.is_some_and(|q| p.agrees_with(q)))
                };
                if let Some(platform) = entry.platform()
                    && !self.asked
                    && !covers(platform)
                {
                    self.view.problem(
                        Reason::LyingIndex,
                        Severity::Critical,
                        format!("the entry for {platform} is an index without that platform"),
                    );
                }
            }
            Content::Single(single) if is_image(single) => self.image(&entry.digest, single, Some(entry)),
            Content::Schema1 => {
                self.view.problem(
                    Reason::LegacyFormat,
                    Severity::Critical,
                    format!("{} has the format Docker schema 1", called(entry)),
                );
            }
            // What is no image covers no platform, and is no fault (OCI: unknown media types are no error).
            Content::Single(_) | Content::Unknown => {}
        }
    }

    fn image(&mut self, digest: &'a Digest, single: &'a Single, entry: Option<&'a Descriptor>) {
        let Some(fact) = self.gather.config(&single.config.digest) else {
            self.asked = true;
            return;
        };
        let name = || entry.map_or_else(|| "the image".to_owned(), called);
        let config = match fact {
            Fact::Known(config) => config,
            Fact::Absent => {
                self.view.problem(
                    Reason::MissingConfig,
                    Severity::Critical,
                    format!("the config of {} is not in the registry", name()),
                );
                return;
            }
            Fact::Undetermined(cause) => {
                self.view.unknown.push(cause.clone());
                return;
            }
        };
        self.size(&single.config, config.size);
        let stated = entry.and_then(Descriptor::platform);
        let own = match &config.parsed {
            Ok(parsed) => {
                parsed.platform().map(|own| (own, parsed.declared.variant.as_deref().is_none_or(str::is_empty)))
            }
            Err(fault) => {
                self.view.problem(
                    Reason::ConfigWithoutPlatform,
                    Severity::Critical,
                    format!("the config of {} cannot be read: {fault}", name()),
                );
                return;
            }
        };
        let platform = match (stated, own) {
            (None, Some((own, _))) => Some(own),
            (Some(stated), Some((own, without_variant))) => {
                // Old builders leave the variant out: such a config agrees with any.
                let same_but_variant =
                    without_variant && stated.os() == own.os() && stated.architecture() == own.architecture();
                if stated.agrees_with(own) || (same_but_variant && stated.os_version().is_none()) {
                    Some(stated)
                } else {
                    self.view.problems.push(Problem {
                        reason: Reason::LyingIndex,
                        at_most: Severity::Critical,
                        message: format!("the entry for {stated} leads to an image for {own}"),
                        expected: vec![stated.to_string()],
                        actual: vec![own.to_string()],
                    });
                    Some(own)
                }
            }
            (_, None) => {
                self.view.problem(
                    Reason::ConfigWithoutPlatform,
                    Severity::Critical,
                    format!("the config of {} names no operating system or architecture", name()),
                );
                None
            }
        };
        self.view.leaves.push(Leaf { digest, platform, config: Some(&single.config.digest), present: true });
    }

    /// What the entry itself states.
    fn statement(&mut self, entry: &Descriptor) {
        let Some(declared) = &entry.declared else { return };
        match entry.platform() {
            None => self.view.problem(
                Reason::InvalidDescriptor,
                Severity::Critical,
                format!(
                    "the entry {} states a platform without operating system or architecture",
                    entry.digest.short()
                ),
            ),
            Some(platform) if !platform.is_selectable() => {
                self.view.problem(
                    Reason::InvalidVariant,
                    Severity::Warning,
                    format!("no runtime looks for {platform}"),
                );
            }
            Some(platform) if !declared.is_canonical(platform) => {
                let written = crate::document::quoted(&format!("{}/{}", declared.os, declared.architecture));
                self.view.problem(
                    Reason::NonCanonicalPlatform,
                    Severity::Warning,
                    format!("{platform} is written as {written}"),
                );
            }
            Some(platform)
                if platform.os() == "windows" && platform.os_version().is_none_or(|v| v.split('.').count() != 4) =>
            {
                self.view.problem(
                    Reason::NonCanonicalPlatform,
                    Severity::Warning,
                    format!("the entry for {platform} does not say its whole Windows build in `os.version`"),
                );
            }
            Some(_) => {}
        }
    }

    fn attestation(&mut self, index: &Index, entry: &Descriptor) {
        let about = entry.reference_digest.as_deref();
        if about.is_some_and(|about| !index.entries.iter().any(|e| e.digest.as_str() == about)) {
            self.view.problem(
                Reason::DanglingAttestation,
                Severity::Warning,
                format!("the attestation {} is about no image of this index", entry.digest.short()),
            );
        }
    }

    fn size(&mut self, descriptor: &Descriptor, size: u64) {
        if descriptor.size != size {
            self.view.problems.push(Problem {
                reason: Reason::SizeMismatch,
                at_most: Severity::Critical,
                message: format!(
                    "{} has {size} bytes where its descriptor says {}",
                    descriptor.digest.short(),
                    descriptor.size
                ),
                expected: vec![descriptor.size.to_string()],
                actual: vec![size.to_string()],
            });
        }
    }

    fn unknown(&mut self, kind: CauseKind, text: String) {
        self.view.unknown.push(Cause { kind, text });
    }
}
