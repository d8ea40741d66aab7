//! When everything that a change of policies put up is judged: one line in the log, with how many tags and how long.
//!
//! Beside `tidewaiter_policy_rejudge_pending`, which shows the way there. Knows only what this process judged.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::store::Store;

/// How often the record is asked whether anything is left, while it is not known that nothing is.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// What was judged of the latest change of policies.
#[derive(Debug, Default)]
pub struct Rejudged {
    round: Mutex<Option<Round>>,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    since: Timestamp,
    latest: Timestamp,
    tags: u64,
    /// Whether everything is put up: before that, nothing left does not mean that all is done.
    whole: bool,
}

impl Rejudged {
    /// A change of policies is about to be put up; one that was under way goes on with it.
    pub(super) fn begin(&self, now: Timestamp) {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Round { since: now, latest: now, tags: 0, whole: false };
        *round = Some(Round { whole: false, ..round.unwrap_or(new) });
    }

    /// Everything is put up. Where nothing is on record there is nothing to tell of.
    pub(super) fn put_up(&self, repositories: usize) {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        *round = round.filter(|_| repositories > 0).map(|round| Round { whole: true, ..round });
    }

    /// So many tags were judged by the new policies and are on record.
    pub(super) fn judged(&self, tags: u64, now: Timestamp) {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(round) = round.as_mut().filter(|_| tags > 0) {
            round.tags += tags;
            round.latest = round.latest.max(now);
        }
    }

    /// Whether something may be under way that is put up as a whole.
    fn is_awaited(&self) -> bool {
        self.round.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|round| round.whole)
    }

    /// Ends the round, where nothing is left: how many tags, and how long it took. `None` where another began meanwhile.
    fn end(&self) -> Option<(u64, SignedDuration)> {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = round.take_if(|round| round.whole)?;
        Some((ended.tags, ended.latest.duration_since(ended.since)))
    }
}

impl<S: Store> Pipeline<S> {
    /// Says in the log when a change of policies has reached everything on record, until `stop`. What waits out its `for`
    /// or could not be determined is judged once more and is not done before that.
    pub async fn tell_rejudged(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            // A record that cannot be read does not say that nothing is left.
            if !self.rejudged.is_awaited() || !self.store.stats().await.is_ok_and(|stats| stats.rejudging == 0) {
                continue;
            }
            if let Some((tags, took)) = self.rejudged.end() {
                tracing::info!(
                    tags,
                    seconds = took.as_secs_f64(),
                    "everything on record is judged by the new policies"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_with_what_was_judged_and_only_when_all_of_it_was_put_up() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let rejudged = Rejudged::default();
        rejudged.judged(3, at(1));
        assert!(!rejudged.is_awaited() && rejudged.end().is_none(), "nothing changed");
        rejudged.begin(at(10));
        rejudged.judged(2, at(11));
        assert!(!rejudged.is_awaited() && rejudged.end().is_none(), "more is still put up");
        // A second change while the first is under way is told with it.
        rejudged.begin(at(12));
        rejudged.put_up(1);
        rejudged.judged(5, at(17));
        assert!(rejudged.is_awaited());
        assert_eq!(rejudged.end(), Some((7, SignedDuration::from_secs(7))));
        assert!(!rejudged.is_awaited() && rejudged.end().is_none());
        // A first start finds policies that nothing was judged by.
        rejudged.begin(at(20));
        rejudged.put_up(0);
        assert!(!rejudged.is_awaited() && rejudged.end().is_none());
    }
}
