//! The pace at one registry, shared by all who ask it (T-34): a rate, a number in flight, a pause that the
//! registry asked for, and a slow return after an outage. Knows nothing of HTTP but how a request ended.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::RegistryError;

/// Failures in a row before the registry is left alone for a while: one may be this request's fault.
const FAILURES_TOLERATED: u32 = 3;
/// The first pause after that; it doubles with each further failure.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest of these pauses: an outage that ends is noticed within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause that a registry may ask for. Published ones are a minute; a mistaken or hostile
/// `Retry-After` must not blind us for days.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Whether a registry is worth asking now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers, as far as is known.
    Well,
    /// It asked for a pause, or failed so often that it is left alone, for this long.
    Paused(Duration),
    /// Its pause is over and nothing was answered since: one at a time may try.
    Unproven,
}

/// How a request ended, as far as the pace is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The registry works, whatever it said.
    Answered,
    /// It asked for a pause.
    Throttled(Duration),
    /// It did not answer, or answered that it is broken.
    Failed,
}

pub(super) struct Gate {
    limiter: DefaultDirectRateLimiter,
    in_flight_max: usize,
    state: Mutex<State>,
    freed: Notify,
    random: RandomState,
}

struct State {
    in_flight: usize,
    /// How many may be in flight now: 1 after an outage, doubled by each answer.
    limit: usize,
    failures: u32,
    not_before: Option<Instant>,
    /// The first and the latest failure since the last answer.
    unanswered: Option<(Instant, Instant)>,
    /// Whether it ever answered.
    answered: bool,
}

/// The right to have one request in flight.
pub(super) struct Permit<'g> {
    gate: &'g Gate,
}

impl Gate {
    /// A gate for `in_flight_max` requests at a time and `per_second` a second; zero counts as one.
    pub(super) fn new(in_flight_max: usize, per_second: u32) -> Gate {
        let in_flight_max = in_flight_max.max(1);
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        // A burst no larger than what may be in flight: the first second stays close to the rate.
        let burst = u32::try_from(in_flight_max).ok().and_then(NonZeroU32::new).unwrap_or(per_second).min(per_second);
        Gate {
            limiter: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)),
            in_flight_max,
            state: Mutex::new(State {
                in_flight: 0,
                limit: in_flight_max,
                failures: 0,
                not_before: None,
                unanswered: None,
                answered: false,
            }),
            freed: Notify::new(),
            random: RandomState::new(),
        }
    }

    /// Waits for a turn. `Throttled` at once if the registry's pause ends after `deadline`; `None` if the
    /// deadline comes first for want of a turn.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<Option<Permit<'_>>, RegistryError> {
        loop {
            if let Some(until) = self.pause() {
                if until >= deadline {
                    return Err(RegistryError::Throttled { retry_after: until - Instant::now() });
                }
                sleep_until(until).await;
                continue;
            }
            let Ok(permit) = timeout_at(deadline, self.acquire()).await else { return Ok(None) };
            // While we waited for the turn the registry may have asked for a pause.
            if self.pause().is_some() {
                continue;
            }
            let Err(early) = self.limiter.check() else { return Ok(Some(permit)) };
            drop(permit);
            let turn = Instant::now() + early.wait_time_from(self.limiter.clock().now());
            if turn >= deadline {
                return Ok(None);
            }
            sleep_until(turn).await;
        }
    }

    /// Whether the registry is worth asking now.
    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        let now = Instant::now();
        match state.not_before {
            _ if cfg!(sabotage = "no_pause") => Health::Well,
            Some(until) if until > now => Health::Paused(until - now),
            Some(_) if state.failures >= FAILURES_TOLERATED => Health::Unproven,
            _ => Health::Well,
        }
    }

    /// How long it has answered nothing: from the first to the latest of the requests that failed since its last
    /// answer, so that one failure alone is no outage however long ago it was.
    pub(super) fn unanswered(&self) -> Option<Duration> {
        self.lock().unanswered.map(|(first, latest)| latest - first)
    }

    /// Whether its latest word was an answer.
    pub(super) fn answers(&self) -> bool {
        let state = self.lock();
        state.answered && state.unanswered.is_none()
    }

    /// Takes note of how a request ended.
    pub(super) fn ended(&self, how: Ended) {
        let now = Instant::now();
        let mut state = self.lock();
        state.unanswered = match how {
            Ended::Answered | Ended::Throttled(_) => None,
            Ended::Failed => Some((state.unanswered.map_or(now, |(first, _)| first), now)),
        };
        state.answered |= state.unanswered.is_none();
        match how {
            Ended::Answered => {
                state.failures = 0;
                let grown = (state.limit * 2).min(self.in_flight_max);
                for _ in state.limit..grown {
                    self.freed.notify_one();
                }
                state.limit = grown;
            }
            Ended::Throttled(pause) => {
                state.limit = 1;
                state.pause_until(now + pause.min(RETRY_AFTER_MAX));
            }
            Ended::Failed => {
                state.limit = 1;
                state.failures = state.failures.saturating_add(1);
                if let Some(over) = state.failures.checked_sub(FAILURES_TOLERATED) {
                    let pause = PAUSE_FIRST.saturating_mul(1 << over.min(10)).min(PAUSE_MAX);
                    // Up to a fifth more, so that replicas do not come back in step.
                    let jitter = pause.mul_f64((self.random.hash_one(now) % 1_000) as f64 / 5_000.0);
                    state.pause_until(now + pause + jitter);
                }
            }
        }
    }

    fn pause(&self) -> Option<Instant> {
        let until = self.lock().not_before.filter(|until| *until > Instant::now());
        until.filter(|_| !cfg!(sabotage = "no_pause"))
    }

    async fn acquire(&self) -> Permit<'_> {
        loop {
            // Registered before looking, so that a turn freed in between is not missed.
            let freed = self.freed.notified();
            {
                let mut state = self.lock();
                if state.in_flight < state.limit {
                    state.in_flight += 1;
                    return Permit { gate: self };
                }
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain numbers, whole after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pause_until(&mut self, until: Instant) {
        self.not_before = Some(self.not_before.map_or(until, |already| already.max(until)));
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.gate.lock().in_flight -= 1;
        self.gate.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn t34_no_turn_before_the_pause_ends_and_then_one_at_a_time() {
        let gate = Arc::new(Gate::new(8, 1_000));
        gate.ended(Ended::Throttled(Duration::from_secs(7)));
        let start = Instant::now();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let (gate, now, most) = (gate.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let _permit = gate.enter(start + LONG).await.unwrap().unwrap();
                    assert!(start.elapsed() >= Duration::from_secs(7));
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 1, "nothing was answered, so the limit stays at one");
    }

    #[tokio::test(start_paused = true)]
    async fn t34_a_pause_beyond_the_deadline_is_told_at_once_and_is_bounded() {
        let gate = Gate::new(1, 1_000);
        gate.ended(Ended::Throttled(Duration::from_secs(1_000_000_000)));
        let start = Instant::now();
        let Err(RegistryError::Throttled { retry_after }) = gate.enter(start + LONG).await else { panic!() };
        assert_eq!((retry_after, start.elapsed()), (RETRY_AFTER_MAX, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn t34_recovery_doubles_with_each_answer() {
        let gate = Gate::new(8, 1_000);
        gate.ended(Ended::Failed);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(gate.lock().limit);
            gate.ended(Ended::Answered);
        }
        assert_eq!((seen, gate.lock().limit), (vec![1, 2, 4, 8], 8));
    }

    #[tokio::test(start_paused = true)]
    async fn t34_failures_in_a_row_open_the_breaker_for_a_bounded_time() {
        let gate = Gate::new(8, 1_000);
        for _ in 0..FAILURES_TOLERATED - 1 {
            gate.ended(Ended::Failed);
        }
        assert!(gate.pause().is_none());
        for _ in 0..100 {
            gate.ended(Ended::Failed);
        }
        let pause = gate.pause().unwrap() - Instant::now();
        assert!(pause >= PAUSE_MAX && pause <= PAUSE_MAX * 6 / 5, "{pause:?}");
        assert_eq!(gate.health(), Health::Paused(pause));
        tokio::time::advance(pause).await;
        assert_eq!(gate.health(), Health::Unproven);
        gate.ended(Ended::Answered);
        assert_eq!(gate.health(), Health::Well);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_lasts_from_the_first_failure_to_the_latest() {
        let gate = Gate::new(8, 1_000);
        assert!(!gate.answers(), "nothing is known yet");
        gate.ended(Ended::Failed);
        tokio::time::advance(LONG).await;
        assert_eq!(gate.unanswered(), Some(Duration::ZERO), "one failure is no outage");
        gate.ended(Ended::Failed);
        assert_eq!((gate.unanswered(), gate.answers()), (Some(LONG), false));
        // One that asks for a pause is there.
        gate.ended(Ended::Throttled(LONG));
        assert_eq!((gate.unanswered(), gate.answers()), (None, true));
    }

    #[tokio::test]
    async fn t34_the_rate_holds() {
        let gate = Gate::new(2, 20);
        let start = Instant::now();
        for _ in 0..12 {
            drop(gate.enter(start + LONG).await.unwrap().unwrap());
        }
        // Two at once, ten more at twenty a second.
        assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn t31_waiting_for_a_turn_ends_with_the_deadline() {
        let gate = Gate::new(1, 1_000);
        let deadline = Instant::now() + LONG;
        let held = gate.enter(deadline).await.unwrap().unwrap();
        assert!(gate.enter(deadline).await.unwrap().is_none());
        drop(held);
        assert!(gate.enter(deadline + LONG).await.unwrap().is_some());
    }
}
