//! What can be wrong with tidewaiter itself so that people must hear of it, with a page on each: what is wrong, why it
//! matters, what to do. Alerts, `tidewaiter policy explain TOPIC` and the documentation say the same.

use super::word::Word;
use crate::policy::Severity;

/// The page on one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicPage {
    /// What is wrong, as a short sentence.
    pub wrong: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// When people are told that it is over.
    pub over: &'static str,
}

macro_rules! topics {
    ($($variant:ident = $code:literal, $severity:ident, $wrong:literal, $why:literal, $fix:literal, $over:literal;)*) => {
        /// What can be wrong with tidewaiter itself so that people must hear of it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Topic {
            $(#[doc = $wrong] $variant,)*
        }

        impl Topic {
            /// Every topic, in the order of the documentation.
            pub const ALL: &'static [Topic] = &[$(Topic::$variant),*];

            /// The stable code, used where a violation has its reason.
            pub fn as_str(self) -> &'static str {
                match self { $(Topic::$variant => $code),* }
            }

            /// Reads the stable code.
            pub fn from_code(code: &str) -> Option<Topic> {
                match code { $($code => Some(Topic::$variant),)* _ => None }
            }

            /// How much it matters.
            pub fn severity(self) -> Severity {
                match self { $(Topic::$variant => Severity::$severity),* }
            }

            /// Its page.
            pub fn page(self) -> TopicPage {
                match self {
                    $(Topic::$variant => TopicPage { wrong: $wrong, why: $why, fix: $fix, over: $over }),*
                }
            }
        }
    };
}

topics! {
    PolicyReloadFailed = "policy-reload-failed", Critical, "The policies on disk are not valid, and those before stay in force.",
        "What was changed has no effect, and after a restart the daemon would not start.",
        "`tidewaiter policy lint` names the fault; the policies loaded before stay in force.",
        "When the policies on disk are valid.";
    RegistryUnreachable = "registry-unreachable", Warning, "A registry has answered nothing for `limits.undeterminedAfter`.",
        "Its events wait, and nothing of it is judged: a violation there is not noticed.",
        "`tidewaiter doctor` checks the registry and the credential.",
        "When the registry answers.";
    UndeterminedForLong = "undetermined-for-long", Warning, "A tag could not be determined in ten attempts, some fifteen minutes; or an event was given up that makes the program fail.",
        "It is neither a pass nor a violation: whether the tag is as it should be is not known.",
        "`tidewaiter doctor` checks the registry and the credential.",
        "When the tag is determined, or half an hour after it was last tried; of an event that was given up, after a day.";
    HookSilent = "hook-silent", Warning, "A registry's hook has told nothing for longer than a sweep takes to come round, and the sweep found changes.",
        "Changes are only found by sweeps, which is late, and what came and went between two sweeps is not seen at all.",
        "Check the webhook's registration at the registry: changes are only found by sweeps until it works.",
        "When an event of the registry comes.";
    DeadLetter = "dead-letter", Warning, "An authentic event could not be read, and is kept as a dead letter.",
        "Its sender was told that it arrived, as several would repeat it for ever. What it told is only found by the next sweep.",
        "See `tidewaiter dead-letters`; after an upgrade, `--retry` reads it again.",
        "When no dead letter is kept any more, or the source has sent nothing unreadable for a day; letters still kept stay listed.";
    SinkParked = "sink-parked", Critical, "A sink refused an alert for good, or took none for three days, and the alert was dropped.",
        "Whoever watches that sink was not told. This alert goes to the other sinks.",
        "`tidewaiter doctor` checks the sink; `tidewaiter violations` lists what is firing.",
        "Five minutes after the sink took something again.";
}

impl Word for Topic {
    fn word(&self) -> String {
        self.as_str().to_owned()
    }
    fn read(word: &str) -> Option<Topic> {
        Topic::from_code(word)
    }
}

/// The pages of all topics, as a section of the documentation on reason codes.
pub fn topics_markdown() -> String {
    let mut text = String::from(
        "\n## The daemon itself\n\nSinks are told of two kinds of alerts. A *violation* (`TidewaiterViolation` in Alertmanager) is about a tag and a requirement of a \
         policy, with one of the reasons above. A *trouble* (`TidewaiterTrouble`) is about tidewaiter itself: its `topic` is one of the codes below, and `name` says with \
         what, such as a source, a registry or a sink. Each is told once when it begins and once when it is over, also across a restart; at most 200 are open at once, more are only logged. \
         `TidewaiterTest` is what `tidewaiter doctor --send-test` sends.\n",
    );
    for topic in Topic::ALL {
        let page = topic.page();
        text += &format!(
            "\n### `{}`\n\n{}\n\n**Why it matters.** {}\n\n**What to do.** {}\n\n**When it is over.** {}\n",
            topic.as_str(),
            page.wrong,
            page.why,
            page.fix,
            page.over
        );
    }
    text
}
