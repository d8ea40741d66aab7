//! Values for tests.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidewaiter::event::{Action, Event, Stage};
use tidewaiter::history::{Known, Origin, Sighting};
use tidewaiter::image::{Digest, Repository, Tag};
use tidewaiter::policy::violation::{Change, Violation, ViolationKey};
use tidewaiter::policy::{LineId, LineKey, Outcome, Reason, Rule, Severity, State, Subject, Verdict};
use tidewaiter::store::{Claim, Incoming, Judged, NewAlert, Paging, Recheck, Step, Store, TagUpdate};

pub const LEASE: Duration = Duration::from_secs(30);

pub fn t(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub fn repo(name: &str) -> Repository {
    format!("contoso.azurecr.io/{name}").parse().unwrap()
}

pub fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

pub fn d(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

pub fn from(source: &str, repository: &str, key: &str, second: i64) -> Incoming {
    let repository = repo(repository);
    Incoming {
        source: source.into(),
        event: Event {
            stage: Stage::Done,
            action: Action::Push,
            registry: Some(repository.host.clone()),
            repository: repository.name.clone(),
            tag: Some(tag("1.0.0")),
            digest: Some(d(key)),
            id: Some(format!("id-{key}")),
            at: Some(t(second - 1)),
            actor: Some("carla".into()),
        },
        repository,
        key: key.into(),
        received_at: t(second),
    }
}

pub fn event(repository: &str, key: &str, second: i64) -> Incoming {
    from("acr", repository, key, second)
}

pub fn update(name: &str, content: Option<&str>, second: i64) -> TagUpdate {
    TagUpdate {
        tag: tag(name),
        sightings: vec![Sighting {
            digest: content.map(d),
            at: t(second),
            known: Known::Observed,
            looked: true,
            origin: Origin::Audit,
            actor: Some("carla".into()),
        }],
        current: content.map(d),
        locked: Some(false),
        lines: Vec::new(),
        judged_moves: 1,
    }
}

pub fn place(line: &str, group: &[u8], rank: &[u8]) -> LineKey {
    LineKey { line: LineId(line.into()), group: group.to_vec(), rank: rank.to_vec() }
}

pub fn recheck(name: Option<&str>, second: i64) -> Recheck {
    Recheck { tag: name.map(tag), due: t(second), origin: Origin::PolicyChange, attempts: 0 }
}

pub fn alert(sink: &str, key: &str) -> NewAlert {
    NewAlert { sink: sink.into(), key: key.into(), body: format!("{{\"key\": \"{key}\"}}") }
}

pub fn violation(policy: &str, name: &str, state: State) -> Change {
    let fired = state != State::Pending;
    let violation = Violation {
        key: ViolationKey {
            policy: policy.into(),
            tag: Some(tag(name)),
            class: "version".into(),
            rule: Rule::Platforms,
        },
        reason: Reason::TagMoved,
        severity: Severity::Critical,
        state,
        digest: Some(d(name)),
        message: "linux/arm/v7 is missing".into(),
        advice: "publish it".into(),
        expected: vec!["linux/arm/v7".into(), "\"quoted\"".into()],
        actual: vec![],
        since: t(1),
        fires_at: (!fired).then(|| t(9)),
        fired_at: fired.then(|| t(2)),
        resolved_at: (state == State::Resolved).then(|| t(3)),
        preview: false,
    };
    Change { violation, edges: Vec::new() }
}

pub fn judged(repository: &str, name: Option<&str>, policy: &str, report: &str) -> Judged {
    let verdict = Verdict {
        repository: repo(repository),
        subject: Subject { tag: name.map(tag), ..Subject::default() },
        policy: policy.into(),
        policy_hash: "sha256:0".into(),
        class: Some(Arc::from("version")),
        at_version: None,
        outcome: Outcome::Pass,
        origin: Origin::Event,
        judged_at: t(1),
        preview: false,
        findings: Vec::new(),
        not_evaluated: Vec::new(),
        evaluated: Vec::new(),
    };
    Judged { verdict, report: report.into() }
}

pub fn pages(limit: usize) -> Paging {
    Paging { cursor: None, limit }
}

/// Claims all that is ready now.
pub async fn claim(store: &impl Store, second: i64) -> Vec<Claim> {
    store.claim(t(second), 1_000, 1_000, LEASE).await.unwrap()
}

/// Writes a step in a repository, whatever else waits there.
pub async fn write(store: &impl Store, repository: &str, second: i64, step: Step) {
    store.recheck(&repo(repository), vec![recheck(None, second)]).await.unwrap();
    for claim in claim(store, second).await {
        let mut step = if claim.repository == repo(repository) { step.clone() } else { Step::default() };
        step.rechecked.push(None);
        store.complete(&claim, step, false).await.unwrap();
    }
}
