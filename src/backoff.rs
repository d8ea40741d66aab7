//! How long to wait before the next attempt: a pure function of the attempt's number and a random fraction.
//! It knows no clock and makes no random numbers.

use std::time::Duration;

/// An exponential schedule with jitter between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest delay, before the second attempt.
    pub first: Duration,
    /// The longest delay.
    pub most: Duration,
}

impl Backoff {
    /// The delay after `failures` attempts have failed (1 after the first). It doubles each time; `fraction`,
    /// random in 0..1, spreads it over the upper half, so that those who failed together do not come back together.
    pub fn delay(self, failures: u32, fraction: f64) -> Duration {
        // 2^32 times the shortest delay is beyond every useful bound; more would overflow.
        let doubled = self.first.saturating_mul(1_u32.checked_shl(failures.max(1)).unwrap_or(u32::MAX));
        let ceiling = doubled.min(self.most);
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        (ceiling / 2).mul_f64(1.0 + fraction).max(self.first).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALERTS: Backoff = Backoff { first: Duration::from_secs(5), most: Duration::from_secs(3600) };

    #[test]
    fn doubles_from_the_first_to_the_most() {
        let seconds: Vec<u64> = (1..=12).map(|n| ALERTS.delay(n, 0.0).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]);
        assert_eq!(ALERTS.delay(1, 1.0).as_secs(), 10);
        assert_eq!(ALERTS.delay(u32::MAX, 1.0).as_secs(), 3600);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(failures in 0_u32.., fraction in proptest::num::f64::ANY) {
            let delay = ALERTS.delay(failures, fraction);
            prop_assert!(delay >= ALERTS.first && delay <= ALERTS.most);
        }
    }
}
