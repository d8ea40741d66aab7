//! The time, as the only room that may read it.
//!
//! Durations come from the runtime's monotonic clock; what is stored comes from here (T-66).

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands where it was set, for tests. Copies show the same time.
#[derive(Debug, Clone)]
pub struct SetClock(Arc<Mutex<Timestamp>>);

impl SetClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> SetClock {
        SetClock(Arc::new(Mutex::new(now)))
    }

    /// Sets the time, backwards too.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = now;
    }

    /// Moves the time on; at the calendar's end it stays there.
    pub fn advance(&self, by: SignedDuration) {
        let later = self.now().checked_add(by).unwrap_or(Timestamp::MAX);
        self.set(later);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        C::now(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t66_a_set_clock_moves_both_ways_and_ends() {
        let clock = SetClock::at(Timestamp::UNIX_EPOCH);
        let copy = clock.clone();
        clock.advance(SignedDuration::from_hours(1));
        assert_eq!(copy.now().as_second(), 3600);
        clock.set(Timestamp::UNIX_EPOCH);
        assert_eq!(copy.now(), Timestamp::UNIX_EPOCH);
        clock.advance(SignedDuration::MAX);
        assert_eq!(copy.now(), Timestamp::MAX);
    }
}
