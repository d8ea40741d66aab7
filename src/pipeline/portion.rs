//! What of a claim is taken in one step: so much that a storm is few steps, so little that a step ends long before
//! its lease. Tags that failed before are taken one at a time, so that one that fails for ever delays no other.
//! Touches nothing: a function of the claim.

use std::collections::BTreeSet;

use crate::event::Action;
use crate::history::Origin;
use crate::image::{Digest, Tag};
use crate::store::{Claim, Queued, Recheck};

/// Tags, and manifests named by digest alone, that one step looks at; and as many again that it only judges.
const SUBJECTS_MAX: usize = 16;
/// Every so many steps, what failed before goes before what is new, so that it is never starved.
const OLD_FIRST_EVERY: u64 = 4;

/// What an event or a recheck is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Tag(Tag),
    Manifest(Digest),
    Whole,
}

fn about(queued: &Queued) -> About {
    let event = &queued.incoming.event;
    match (&event.tag, &event.digest) {
        (Some(tag), _) => About::Tag(tag.clone()),
        (None, Some(digest)) => About::Manifest(digest.clone()),
        (None, None) => About::Whole,
    }
}

fn about_recheck(recheck: &Recheck) -> About {
    recheck.tag.clone().map_or(About::Whole, About::Tag)
}

/// Work of one claim in the order in which it is taken.
struct Subject {
    about: About,
    failed: bool,
    judged_only: bool,
}

/// The part of a claim that one step takes. Its fence is the claim's, so completing it gives the whole claim back, and
/// what was not taken is claimed again at once.
pub(super) fn portion(claim: &Claim) -> Claim {
    let mut subjects: Vec<Subject> = Vec::new();
    let mut add = |about: About, failed: bool, judged_only: bool| {
        match subjects.iter_mut().find(|s| s.about == about) {
            Some(known) => {
                known.failed |= failed;
                known.judged_only &= judged_only;
            }
            None => subjects.push(Subject { about, failed, judged_only }),
        };
    };
    for queued in &claim.events {
        add(about(queued), queued.attempts > 0, false);
    }
    for recheck in &claim.rechecks {
        let judged_only = recheck.origin == Origin::PolicyChange;
        add(about_recheck(recheck), recheck.attempts > 0, judged_only);
    }
    // A claim and its end each count the fence up by one.
    let old_first = (claim.fence / 2).is_multiple_of(OLD_FIRST_EVERY);
    let old = subjects.iter().find(|s| s.failed).map(|s| &s.about);
    let fresh = |judged_only: bool| {
        subjects.iter().filter(move |s| !s.failed && s.judged_only == judged_only).take(SUBJECTS_MAX).map(|s| &s.about)
    };
    let new: BTreeSet<&About> = fresh(false).chain(fresh(true)).collect();
    let taken: BTreeSet<&About> = match old {
        Some(old) if old_first || new.is_empty() => BTreeSet::from([old]),
        _ => new,
    };
    Claim {
        repository: claim.repository.clone(),
        fence: claim.fence,
        events: claim.events.iter().filter(|q| taken.contains(&about(q))).cloned().collect(),
        rechecks: claim.rechecks.iter().filter(|r| taken.contains(&about_recheck(r))).cloned().collect(),
    }
}

/// How many resolutions the portion may need: the budget is that of one for each.
pub(super) fn resolutions(portion: &Claim) -> u32 {
    let subjects: BTreeSet<About> =
        portion.events.iter().map(about).chain(portion.rechecks.iter().map(about_recheck)).collect();
    u32::try_from(subjects.len()).unwrap_or(u32::MAX).max(1)
}

/// The manifests that events say were deleted.
pub(super) fn deleted(portion: &Claim) -> BTreeSet<Digest> {
    let events = portion.events.iter().map(|q| &q.incoming.event);
    events.filter(|e| e.action == Action::Delete).filter_map(|e| e.digest.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Stage};
    use crate::store::Incoming;
    use jiff::Timestamp;

    fn queued(id: i64, tag: &str, attempts: u32) -> Queued {
        let repository: crate::image::Repository = "r.example/a".parse().unwrap();
        let event = Event {
            stage: Stage::Done,
            action: Action::Push,
            registry: None,
            repository: repository.name.clone(),
            tag: Some(tag.parse().unwrap()),
            digest: None,
            id: None,
            at: None,
            actor: None,
        };
        let received_at = Timestamp::UNIX_EPOCH;
        let incoming = Incoming { source: "s".into(), repository, event, key: id.to_string(), received_at };
        Queued { id, incoming, attempts }
    }

    fn claim(fence: u64, events: Vec<Queued>) -> Claim {
        Claim { repository: "r.example/a".parse().unwrap(), fence, events, rechecks: Vec::new() }
    }

    fn ids(claim: &Claim) -> Vec<i64> {
        portion(claim).events.iter().map(|q| q.id).collect()
    }

    #[test]
    fn a_tag_that_failed_takes_no_other_with_it_and_is_not_starved() {
        let events = || vec![queued(1, "bad", 3), queued(2, "a", 0), queued(3, "bad", 0), queued(4, "b", 0)];
        assert_eq!(ids(&claim(2, events())), [2, 4], "what is new goes first");
        assert_eq!(ids(&claim(8, events())), [1, 3], "and in its turn the one that failed, with all about it");
        assert_eq!(ids(&claim(2, vec![queued(1, "bad", 3), queued(2, "worse", 1)])), [1]);
    }

    #[test]
    fn a_storm_on_one_tag_is_one_step_and_many_tags_are_several() {
        let storm: Vec<_> = (0..200).map(|n| queued(n, "a", 0)).collect();
        assert_eq!(ids(&claim(2, storm)).len(), 200);
        let many: Vec<_> = (0..200).map(|n| queued(n, &format!("t{n}"), 0)).collect();
        assert_eq!(ids(&claim(2, many.clone())), (0..SUBJECTS_MAX as i64).collect::<Vec<_>>());
        assert_eq!(resolutions(&portion(&claim(2, many))), SUBJECTS_MAX as u32);
    }
}
