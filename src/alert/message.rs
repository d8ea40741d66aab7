//! The alert as a value: built from a violation's edge or about the daemon itself, kept in the outbox as
//! JSON, read by every sink. Pure: no clock, no I/O.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::text;
use super::topic::Topic;
use super::word::Word as _;
use crate::image::{Digest, Repository, Tag};
use crate::policy::violation::{Change, Edge, Violation};
use crate::policy::{Reason, Rule, Severity};
use crate::store::NewAlert;

/// Longest message or advice kept, in UTF-16 units: a section of Slack holds 3,000, a card of Teams 20 KB in all.
const SENTENCE_UNITS_MAX: usize = 2000;
/// Longest entry of expected and actual: a digest or platform is far shorter.
const VALUE_UNITS_MAX: usize = 256;
/// Most entries of expected and actual: no index of a policy asks for more platforms.
const VALUES_MAX: usize = 32;
/// Longest name of a policy or class, and of what a daemon alert is about.
const NAME_UNITS_MAX: usize = 255;

/// What an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Subject {
    /// A tag's violation of a policy.
    Image {
        /// The repository.
        #[serde(with = "super::word")]
        repository: Repository,
        /// The tag; `None` where a class has no tag at all.
        #[serde(with = "super::word")]
        tag: Option<Tag>,
        /// What the tag led to when it was judged.
        #[serde(with = "super::word")]
        digest: Option<Digest>,
        /// The policy.
        policy: String,
        /// The class.
        class: String,
        /// The requirement.
        #[serde(with = "super::word")]
        requirement: Rule,
    },
    /// tidewaiter itself.
    Daemon {
        /// What went wrong.
        #[serde(with = "super::word")]
        topic: Topic,
        /// With what: a source's, registry's, sink's or file's name.
        name: String,
    },
    /// Nothing: a message that proves the way to the sink.
    Test,
}

/// One edge to announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Idempotency key: the same for the same edge of the same violation, over all attempts and replicas. A
    /// UUID without meaning, made from the fingerprint, the edge and the time of firing.
    pub id: String,
    /// Deduplication key of what the alert is about: the same for both edges and for every firing of it.
    pub fingerprint: String,
    /// Entered firing, or resolved.
    #[serde(with = "super::word")]
    pub edge: Edge,
    /// What it is about.
    pub subject: Subject,
    /// How much it matters.
    #[serde(with = "super::word")]
    pub severity: Severity,
    /// The stable code of what is wrong.
    pub reason: String,
    /// One sentence for people: what is wrong.
    pub message: String,
    /// One sentence for people: what to do.
    pub advice: String,
    /// What was asked for.
    pub expected: Vec<String>,
    /// What is there.
    pub actual: Vec<String>,
    /// Since when it is unmet.
    pub since: Timestamp,
    /// When it entered firing.
    pub fired_at: Timestamp,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
}

impl Alert {
    /// The alert of one edge of a violation.
    pub fn of(repository: &Repository, violation: &Violation, edge: Edge) -> Alert {
        let fingerprint = fingerprint(repository, violation);
        let fired_at = violation.fired_at.unwrap_or(violation.since);
        Alert {
            id: id(&fingerprint, edge, fired_at),
            fingerprint,
            edge,
            subject: Subject::Image {
                repository: repository.clone(),
                tag: violation.key.tag.clone(),
                digest: violation.digest.clone(),
                policy: text::fit(&violation.key.policy, NAME_UNITS_MAX, text::plain),
                class: text::fit(&violation.key.class, NAME_UNITS_MAX, text::plain),
                requirement: violation.key.rule,
            },
            severity: violation.severity,
            reason: violation.reason.as_str().to_owned(),
            message: sentence(&violation.message),
            advice: sentence(&violation.advice),
            expected: values(&violation.expected),
            actual: values(&violation.actual),
            since: violation.since,
            fired_at,
            resolved_at: match edge {
                Edge::Fired => None,
                Edge::Resolved => violation.resolved_at,
            },
        }
    }

    /// An alert about tidewaiter itself; `name` says with what (a source, a sink, a file), and with `topic` makes
    /// its fingerprint. `fired_at` makes its idempotency key: give the time when the trouble began.
    pub fn about_self(topic: Topic, name: &str, message: &str, fired_at: Timestamp) -> Alert {
        let fingerprint = hash(&["daemon", topic.as_str(), name]);
        Alert {
            id: id(&fingerprint, Edge::Fired, fired_at),
            fingerprint,
            edge: Edge::Fired,
            subject: Subject::Daemon { topic, name: text::fit(name, NAME_UNITS_MAX, text::plain) },
            severity: topic.severity(),
            reason: topic.as_str().to_owned(),
            message: sentence(message),
            advice: topic.page().fix.to_owned(),
            expected: Vec::new(),
            actual: Vec::new(),
            since: fired_at,
            fired_at,
            resolved_at: None,
        }
    }

    /// A message that proves the way to a sink, and asks for nothing.
    pub fn test(now: Timestamp) -> Alert {
        let fingerprint = hash(&["test"]);
        Alert {
            id: id(&fingerprint, Edge::Fired, now),
            fingerprint,
            edge: Edge::Fired,
            subject: Subject::Test,
            severity: Severity::Info,
            reason: "test".to_owned(),
            message: "This is a test message from tidewaiter. If you can read it, alerts arrive here.".to_owned(),
            advice: "Nothing to do.".to_owned(),
            expected: Vec::new(),
            actual: Vec::new(),
            since: now,
            fired_at: now,
            resolved_at: None,
        }
    }

    /// The other edge of the same trouble.
    pub fn resolved(self, now: Timestamp) -> Alert {
        let id = id(&self.fingerprint, Edge::Resolved, self.fired_at);
        Alert { id, edge: Edge::Resolved, resolved_at: Some(now), ..self }
    }

    /// Says another sentence than before of what is wrong, or that it is over.
    pub fn say(&mut self, message: &str) {
        self.message = sentence(message);
    }

    /// When this edge happened.
    pub fn at(&self) -> Timestamp {
        match self.edge {
            Edge::Fired => self.fired_at,
            Edge::Resolved => self.resolved_at.unwrap_or(self.fired_at),
        }
    }

    /// What it is about, as people name it: `iot/sensor:1.2.3`, or the daemon's own trouble.
    pub fn name(&self) -> String {
        match &self.subject {
            Subject::Image { repository, tag: Some(tag), .. } => format!("{}:{tag}", repository.name),
            Subject::Image { repository, digest: Some(digest), tag: None, .. } => {
                format!("{}@{}:{}", repository.name, digest.algorithm().name(), digest.short())
            }
            Subject::Image { repository, .. } => repository.name.to_string(),
            Subject::Daemon { name, .. } => name.clone(),
            Subject::Test => "tidewaiter".to_owned(),
        }
    }

    /// The headline: `Tag moved: iot/sensor:1.2.3`, `Resolved: tag moved: iot/sensor:1.2.3`.
    pub fn title(&self) -> String {
        let what = self.reason.replace('-', " ");
        match self.edge {
            Edge::Fired => {
                let mut letters = what.chars();
                let first = letters.next().map(|c| c.to_ascii_uppercase());
                let what: String = first.into_iter().chain(letters).collect();
                format!("{what}: {}", self.name())
            }
            Edge::Resolved => format!("Resolved: {what}: {}", self.name()),
        }
    }

    /// The alert for the outbox of one sink.
    pub fn for_sink(&self, sink: &Arc<str>) -> NewAlert {
        NewAlert { sink: sink.clone(), key: self.id.clone(), body: self.to_json() }
    }

    fn to_json(&self) -> String {
        // Strings, numbers and lists of strings: nothing here that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads an alert back from the outbox.
    ///
    /// # Errors
    /// The fault, when the body is no alert of this program.
    pub fn from_json(body: &str) -> Result<Alert, serde_json::Error> {
        serde_json::from_str(body)
    }
}

/// A sink as those see it who build alerts for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkInfo {
    /// Its configured name.
    pub name: Arc<str>,
    /// The severities it takes.
    pub severities: Vec<Severity>,
}

impl SinkInfo {
    fn takes(&self, severity: Severity) -> bool {
        self.severities.contains(&severity)
    }
}

/// The messages for the outbox that one repository's violation changes ask for: one for each edge and each sink
/// that takes its severity, in the order of the changes. What is only previewed is never announced.
pub fn alerts_for(changes: &[Change], repository: &Repository, sinks: &[SinkInfo]) -> Vec<NewAlert> {
    let mut out = Vec::new();
    for change in changes.iter().filter(|c| !c.violation.preview) {
        for edge in &change.edges {
            let alert = Alert::of(repository, &change.violation, *edge);
            let takers = sinks.iter().filter(|sink| sink.takes(alert.severity));
            out.extend(takers.map(|sink| alert.for_sink(&sink.name)));
        }
    }
    out
}

/// The messages for the outbox about the daemon itself: to every sink that takes the severity, except the one in trouble.
pub fn alerts_about_self(alert: &Alert, sinks: &[SinkInfo], except: Option<&str>) -> Vec<NewAlert> {
    let other = |sink: &&SinkInfo| Some(&*sink.name) != except && sink.takes(alert.severity);
    sinks.iter().filter(other).map(|sink| alert.for_sink(&sink.name)).collect()
}

/// SHA-256 over (registry, repository, tag, policy, class, requirement): what identifies a violation everywhere.
/// It has no digest, reason, time or replica in it, so both edges and every repetition agree. The tag's absence
/// is told from every tag, since no tag is empty.
pub fn fingerprint(repository: &Repository, violation: &Violation) -> String {
    hash(&[
        "violation",
        repository.host.as_str(),
        repository.name.as_str(),
        violation.key.tag.as_ref().map_or("", Tag::as_str),
        &violation.key.policy,
        &violation.key.class,
        violation.key.rule.as_str(),
    ])
}

/// Each field with its length in front, so that no choice of separators in a name makes two lists collide (T-55).
fn hash(fields: &[&str]) -> String {
    hex::encode(digest(fields))
}

fn digest(fields: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for field in fields {
        hasher.update((field.len() as u64).to_be_bytes());
        hasher.update(field.as_bytes());
    }
    hasher.finalize().into()
}

/// A UUID (version 8, RFC 9562) from the hash: Standard Webhooks asks for ids without a full stop.
fn id(fingerprint: &str, edge: Edge, fired_at: Timestamp) -> String {
    let hash = digest(&[fingerprint, &edge.word(), &fired_at.as_microsecond().to_string()]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

fn sentence(text: &str) -> String {
    text::fit(text, SENTENCE_UNITS_MAX, text::plain)
}

fn values(list: &[String]) -> Vec<String> {
    let mut out: Vec<String> =
        list.iter().take(VALUES_MAX).map(|v| text::fit(v, VALUE_UNITS_MAX, text::plain)).collect();
    if list.len() > VALUES_MAX {
        out.push(format!("and {} more", list.len() - VALUES_MAX));
    }
    out
}

/// The code of the page on what an alert is about, where there is one.
pub(super) fn page_of(alert: &Alert) -> Option<&'static str> {
    let reason = Reason::from_code(&alert.reason).map(Reason::as_str);
    reason.or_else(|| Topic::from_code(&alert.reason).map(Topic::as_str))
}
