//! What judging yields: verdicts with findings, and what could not be evaluated.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::reason::Reason;
use crate::history::Origin;
use crate::image::{Digest, Platform, Repository, Tag};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know; never fails a build by default.
    Info,
    /// Should be mended.
    Warning,
    /// Breaks somebody who relies on the image.
    Critical,
}

/// The requirements of the policy language. `Form` and `Expected` are those that a class has by being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the requirement of that name in the policy language")]
pub enum Rule {
    Kind,
    Index,
    Platforms,
    KeepsPlatforms,
    Intact,
    Immutable,
    Present,
    Follows,
    MemberOf,
    MembersTagged,
    Locked,
    Config,
    Manifest,
    Expect,
    Form,
    Expected,
}

/// Where a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Unmet for less time than the requirement allows.
    Pending,
    /// Unmet for longer than it allows.
    Firing,
    /// Met again, or no longer asked for.
    Resolved,
}

/// The verdict's one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything required holds.
    Pass,
    /// No class asks anything of this tag.
    Ignored,
    /// Unmet, within the time allowed.
    Pending,
    /// Something could not be determined: never a pass.
    Error,
    /// Something required does not hold.
    Violation,
}

/// What a tag leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An OCI image index or Docker manifest list.
    Index,
    /// One image.
    Image,
    /// A chart, signature, SBOM or anything else.
    Artifact,
}

macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal),* $(,)? })*) => {$(
        impl $type {
            /// Every value, in order.
            pub const ALL: &'static [$type] = &[$($type::$variant),*];

            /// The stable word, as in reports, metrics and policies.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),* }
            }

            /// Reads the stable word.
            pub fn from_word(word: &str) -> Option<$type> {
                match word { $($word => Some($type::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
words! {
    Severity { Info = "info", Warning = "warning", Critical = "critical" }
    Rule {
        Kind = "kind", Index = "index", Platforms = "platforms", KeepsPlatforms = "keepsPlatforms",
        Intact = "intact", Immutable = "immutable", Present = "present", Follows = "follows",
        MemberOf = "memberOf", MembersTagged = "membersTagged", Locked = "locked", Config = "config",
        Manifest = "manifest", Expect = "expect", Form = "form", Expected = "expected",
    }
    State { Pending = "pending", Firing = "firing", Resolved = "resolved" }
    Outcome { Pass = "pass", Ignored = "ignored", Pending = "pending", Error = "error", Violation = "violation" }
    Kind { Index = "index", Image = "image", Artifact = "artifact" }
}

/// One thing that does not hold, or that could not be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The requirement.
    pub rule: Rule,
    /// What is wrong, as a stable code.
    pub reason: Reason,
    /// How much it matters.
    pub severity: Severity,
    /// Where it stands. `judge` says `Firing` for what is unmet, `Resolved` for a move that was undone before
    /// it was judged; [`super::violation`] turns `Firing` into `Pending` while the requirement waits.
    pub state: State,
    /// One sentence for people: what is wrong, with values.
    pub message: String,
    /// One sentence for people: what to do. Never contradicts another requirement.
    pub advice: String,
    /// What was asked for.
    pub expected: Vec<String>,
    /// What is there.
    pub actual: Vec<String>,
    /// How long it may be unmet before it fires.
    pub wait: jiff::SignedDuration,
    /// Since when it is unmet, as far as known.
    pub since: Timestamp,
    /// The policy's own note on the requirement.
    pub note: Option<Arc<str>>,
    /// Where in the policy's file the requirement stands.
    pub source: Option<Arc<PolicyLocation>>,
}

/// A place in a policy file, for reports that annotate files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyLocation {
    /// The file as it was named.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Finding {
    /// Whether this says that something could not be determined, rather than that it does not hold.
    pub fn is_error(&self) -> bool {
        self.reason.is_undetermined()
    }
}

/// A requirement that was not evaluated, and why: neither a pass nor a finding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NotEvaluated {
    /// The requirement.
    pub rule: Rule,
    /// Why, for people.
    pub why: String,
}

/// What a tag is judged as: the image in the report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The tag; `None` for an image judged by digest, or a class that lacks any tag.
    pub tag: Option<Tag>,
    /// What the tag leads to now.
    pub digest: Option<Digest>,
    /// What kind of thing that is, where it was looked at.
    pub kind: Option<Kind>,
    /// The platforms it covers.
    pub platforms: Vec<Platform>,
}

/// One policy's judgement of one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The repository.
    pub repository: Repository,
    /// The tag and what it leads to.
    pub subject: Subject,
    /// The policy's name.
    pub policy: Arc<str>,
    /// The hash of the policy and the platform sets it uses.
    pub policy_hash: Arc<str>,
    /// The class whose form the tag has.
    pub class: Option<Arc<str>>,
    /// The version that a following tag is at, as in `latest, at 1.0.1`.
    pub at_version: Option<Tag>,
    /// The one word.
    pub outcome: Outcome,
    /// What made us look.
    pub origin: Origin,
    /// When it was judged.
    pub judged_at: Timestamp,
    /// Whether the policy's mode is `preview`: recorded and counted, never alerted.
    pub preview: bool,
    /// What does not hold, and what could not be determined; infos too.
    pub findings: Vec<Finding>,
    /// What was not evaluated.
    pub not_evaluated: Vec<NotEvaluated>,
    /// Every requirement that was evaluated, met or not, in the policy's order.
    pub evaluated: Vec<Rule>,
}

impl Verdict {
    /// The outcome that the findings make: a violation outweighs an error, an error a pending finding.
    /// Findings of severity info are notes; they leave a pass a pass.
    pub fn outcome_of(findings: &[Finding], ignored: bool) -> Outcome {
        let worst = findings
            .iter()
            .filter(|f| f.severity > Severity::Info || f.is_error())
            .filter(|f| f.state != State::Resolved)
            .filter(|f| !(f.is_error() && cfg!(sabotage = "fail_open")))
            .map(|f| match (f.is_error(), f.state) {
                (true, _) => Outcome::Error,
                (false, State::Pending) => Outcome::Pending,
                (false, _) => Outcome::Violation,
            })
            .max();
        worst.unwrap_or(if ignored { Outcome::Ignored } else { Outcome::Pass })
    }
}
