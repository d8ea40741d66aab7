//! Alerts: messages for violation edges, their delivery from the durable outbox, and the sinks.
//!
//! The pure half (`message`, `text`, `summary`, one encoder per sink) turns a violation into bytes. The other
//! half sends them: one task per sink, so that a slow or dead one delays no other; at least once, in order per
//! violation, with an idempotency key. Sink addresses come from the configuration alone; nothing here asks a
//! registry, judges, or decides what is worth an alert.

mod alertmanager;
mod deliver;
mod http;
mod message;
mod outbox;
mod pagerduty;
mod settings;
mod sink;
mod slack;
mod summary;
mod teams;
mod text;
mod topic;
mod trouble;
mod webhook;
mod word;

#[cfg(test)]
mod tests;

pub use deliver::{Clock, Delivery, Observer, SinkTask, TestFailed, send_test, start};
pub use message::{Alert, SinkInfo, Subject, alerts_about_self, alerts_for, fingerprint};
pub use outbox::Outbox;
pub use settings::{Auth, Links, SettingsError, SigningKey, SinkKind, SinkSettings, Target};
pub use topic::{Topic, TopicPage, topics_markdown};
pub use trouble::{Trouble, Troubles, begins, ends, since};

/// What a message for people shows beside its sentences, in order; nothing empty.
fn facts(alert: &Alert) -> Vec<(&'static str, String)> {
    let mut facts = match &alert.subject {
        Subject::Image { repository, tag, digest, policy, class, requirement } => vec![
            ("Registry", repository.host.to_string()),
            ("Repository", repository.name.to_string()),
            ("Tag", tag.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("Digest", digest.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("Policy", format!("{policy} / {class} / {requirement}")),
        ],
        Subject::Daemon { topic, name } => vec![("Topic", topic.as_str().to_owned()), ("Name", name.clone())],
        Subject::Test => Vec::new(),
    };
    facts.push(("Expected", alert.expected.join(", ")));
    facts.push(("Actual", alert.actual.join(", ")));
    facts.retain(|(_, value)| !value.is_empty());
    facts
}
