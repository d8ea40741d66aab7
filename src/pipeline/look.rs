//! Where a tag points now: the registry asked as seldom as possible, and again where it lags its own events.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::event::{Action, Stage};
use crate::history::{Look, Report};
use crate::image::{Digest, RepositoryName, Tag};
use crate::policy::{Cause, CauseKind, TagRecord};
use crate::registry::{Fetched, RegistryError, Session};
use crate::store::Queued;

/// Pauses before a tag is asked for again that is not where its event says: Distribution sends the event
/// before it writes the tag, replicas catch up later.
const PAUSES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(300)];

/// What looking at a tag came to.
pub(super) struct Seen {
    /// What the registry shows.
    pub look: Look,
    /// What events said, in the order in which they came, without those that nothing bears out.
    pub reports: Vec<Report>,
    /// Manifests that came along.
    pub fetched: Vec<Fetched>,
    /// Whether a fresh event says what the registry does not show: it is looked at once more, later.
    pub unsettled: bool,
}

/// An event that waited longer than this before it was taken up is behind the registry, not before it.
const FRESH: SignedDuration = SignedDuration::from_secs(2);

/// What the events about one tag say.
pub(super) struct Told<'a> {
    pub events: Vec<&'a Queued>,
    /// What is on record of the tag.
    pub record: &'a TagRecord,
}

impl Told<'_> {
    /// The digest that the newest push says the tag has.
    fn expected(&self) -> Option<&Digest> {
        let event = &self.newest()?.incoming.event;
        event.digest.as_ref().filter(|_| event.action == Action::Push)
    }

    fn newest(&self) -> Option<&Queued> {
        self.events.iter().rev().copied().find(|q| q.incoming.event.stage == Stage::Done)
    }

    /// Whether the registry may be behind the event, which came just now. A digest that the tag had before says
    /// nothing against it: it may have been moved back.
    fn may_be_early(&self, now: Timestamp) -> bool {
        self.newest().is_some_and(|q| now.duration_since(q.incoming.received_at) < FRESH)
    }
}

/// Looks at a tag. `on_record` says whether a manifest is on record already.
pub(super) async fn look(
    session: &Session,
    name: &RepositoryName,
    tag: &Tag,
    told: &Told<'_>,
    on_record: impl Fn(&Digest) -> bool,
    now: impl Fn() -> Timestamp,
) -> Result<Seen, RegistryError> {
    let expected = told.expected();
    let current = told.record.current.as_ref();
    let mut fetched = Vec::new();
    // One request tells both where an unknown tag points and what is there; a known digest only needs a HEAD.
    let known = expected.or(current).is_some_and(&on_record);
    let mut shown = if known {
        session.head_tag(name, tag).await?
    } else {
        let found = session.fetch_tag(name, tag).await?;
        let digest = found.as_ref().map(|f| f.digest.clone());
        fetched.extend(found);
        digest
    };
    let mut unsettled = false;
    if let Some(expected) = expected.filter(|_| told.may_be_early(now())) {
        for pause in PAUSES {
            // A digest that the tag had before and an event that says another: it may be late.
            if shown.as_ref() == Some(expected) || shown.as_ref().is_some_and(|s| Some(s) != current) {
                break;
            }
            tokio::time::sleep(pause).await;
            shown = session.head_tag(name, tag).await?;
        }
        unsettled = shown.as_ref() != Some(expected);
    }
    let look = Look { digest: shown.clone(), at: now() };
    let mut reports = Vec::new();
    for queued in &told.events {
        let event = &queued.incoming.event;
        if event.stage == Stage::Intended {
            continue;
        }
        let digest = match event.action {
            Action::Push => match &event.digest {
                Some(digest) => Some(digest.clone()),
                // A push without a digest says no more than that something happened.
                None => continue,
            },
            Action::Delete => None,
            Action::Quarantine => continue,
        };
        // An event alone makes no history: what it names must be there (T-22).
        if let Some(digest) = digest.as_ref().filter(|d| Some(*d) != shown.as_ref() && !on_record(d))
            && !fetched.iter().any(|f| f.digest == *digest)
        {
            match session.fetch_manifest(name, digest).await {
                Ok(Some(found)) => fetched.push(found),
                Ok(None) => continue,
                Err(error) if error.is_transient() => return Err(error),
                // Unreadable for good is no evidence either, and must not keep the tag from being looked at.
                Err(error) => {
                    tracing::warn!(image.repository = %name, image.digest = %digest, %error, "what an event names cannot be read; the event is set aside");
                    continue;
                }
            }
        }
        let received = queued.incoming.received_at;
        let at = event.at.map_or(received, |at| at.min(received));
        reports.push(Report { digest, at, actor: event.actor.clone() });
    }
    Ok(Seen { look, reports, fetched, unsettled })
}

/// The obstacle as the judge tells it.
pub(super) fn cause(error: &RegistryError) -> Cause {
    let kind = match error {
        RegistryError::DigestMismatch { .. } => CauseKind::DigestMismatch,
        RegistryError::Budget(_) | RegistryError::TooLarge { .. } => CauseKind::Limit,
        _ => CauseKind::Registry,
    };
    Cause { kind, text: error.to_string() }
}
