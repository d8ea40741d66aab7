//! Every series that the daemon exports: the only list of them.
//!
//! Label values are enums, or names out of the configuration that were announced with [`Metrics::announce`];
//! any other name is counted as `other`, so nothing that comes from outside can make a series (T-59). Never a
//! repository, tag, digest, address or error text. Every combination that the configuration makes possible is
//! exported as 0 from the start, so that rates see the first increment; where the configuration is so large that
//! this would swell the scrape, policies and registries are there from their first use.

mod bounds;
mod labels;
mod list;
#[cfg(test)]
mod tests;

use std::sync::PoisonError;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge, TextEncoder};

pub use bounds::Names;
pub use labels::{
    AlertResult, Enforcement, EnforcementResult, EventResult, Limit, Listener, Operation, RequestStatus, Success,
};
pub use list::{Metrics, Series};

use crate::event::Action;
use crate::history::Origin;
use crate::policy::{Outcome, Rule, Severity, State};
use bounds::known;
use labels::{ACTIONS, ANSWERS, LEVELS, NO_ACTION, OTHER};

/// The media type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters of one source, resolved once, so that counting an event is one atomic addition.
#[derive(Debug, Clone)]
pub struct EventCounters {
    by_action: [[IntCounter; EventResult::ALL.len()]; 3],
    no_action: [IntCounter; EventResult::ALL.len()],
}

impl EventCounters {
    /// Counts `n` events.
    pub fn add(&self, action: Option<Action>, result: EventResult, n: u64) {
        let row = match action {
            Some(Action::Push) => &self.by_action[0],
            Some(Action::Delete) => &self.by_action[1],
            Some(Action::Quarantine) => &self.by_action[2],
            None => &self.no_action,
        };
        row[result as usize].inc_by(n);
    }
}

impl Metrics {
    /// The counters of one source, to be kept by whoever counts its events.
    pub fn event_counters(&self, source: &str) -> EventCounters {
        self.event_counters_of(known(source, &self.names.load().sources))
    }

    fn event_counters_of(&self, source: &str) -> EventCounters {
        let row = |action: &str| {
            std::array::from_fn(|n| self.events.with_label_values(&[source, action, EventResult::ALL[n].as_str()]))
        };
        EventCounters { by_action: ACTIONS.map(|a| row(a.as_str())), no_action: row(NO_ACTION) }
    }

    /// Says how many events wait, and how old the oldest of them is.
    pub fn queue(&self, depth: u64, oldest: Duration) {
        self.queue_depth.set(clamped(depth));
        self.oldest_age.set(oldest.as_secs_f64());
    }

    /// An event's verdicts were recorded, `elapsed` after it was received.
    pub fn judged(&self, origin: Origin, elapsed: Duration) {
        self.verdict_seconds.with_label_values(&[origin.as_str()]).observe(elapsed.as_secs_f64());
    }

    /// A verdict was recorded.
    pub fn verdict(&self, policy: &str, outcome: Outcome, origin: Origin) {
        let names = self.names.load();
        let policy = known(policy, &names.policies);
        self.verdicts.with_label_values(&[policy, outcome.as_str(), origin.as_str()]).inc();
    }

    /// A violation entered firing.
    pub fn violation_fired(&self, policy: &str, rule: Rule, severity: Severity) {
        let names = self.names.load();
        let policy = known(policy, &names.policies);
        self.violations_fired.with_label_values(&[policy, rule.as_str(), severity.as_str()]).inc();
    }

    /// Says how many violations are open, kind by kind; kinds that are not named have none.
    pub fn violations<'a>(&self, counts: impl IntoIterator<Item = (&'a str, Rule, Severity, State, u64)>) {
        let names = self.names.load();
        let mut totals: std::collections::BTreeMap<(&str, Rule, Severity, State), u64> = Default::default();
        for (policy, rule, severity) in names.requirements.iter().filter(|_| names.few_policies()) {
            for state in [State::Pending, State::Firing] {
                totals.insert((policy.as_str(), *rule, *severity, state), 0);
            }
        }
        for (policy, rule, severity, state, count) in counts {
            *totals.entry((known(policy, &names.policies), rule, severity, state)).or_default() += count;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (policy, rule, severity, state) in shown.iter() {
            if !totals.contains_key(&(policy.as_str(), *rule, *severity, *state)) {
                let labels = [policy.as_str(), rule.as_str(), severity.as_str(), state.as_str()];
                // It may have gone with its policy.
                let _ = self.violations.remove_label_values(&labels);
            }
        }
        shown.clear();
        for ((policy, rule, severity, state), count) in totals {
            let labels = [policy, rule.as_str(), severity.as_str(), state.as_str()];
            self.violations.with_label_values(&labels).set(clamped(count));
            shown.insert((policy.to_owned(), rule, severity, state));
        }
    }

    /// A registry answered, or did not, after `elapsed`.
    pub fn registry_request(&self, registry: &str, operation: Operation, status: RequestStatus, elapsed: Duration) {
        let names = self.names.load();
        let labels = [known(registry, &names.registries), operation.as_str(), status.as_str()];
        self.registry_requests.with_label_values(&labels).inc();
        let registry = if names.few_registries() { labels[0] } else { OTHER };
        self.registry_seconds.with_label_values(&[registry, labels[1], labels[2]]).observe(elapsed.as_secs_f64());
    }

    /// A request to a registry was held back.
    pub fn registry_throttled(&self, registry: &str) {
        let names = self.names.load();
        self.registry_throttled.with_label_values(&[known(registry, &names.registries)]).inc();
    }

    /// An access token was asked for.
    pub fn token_refreshed(&self, registry: &str, result: Success) {
        let names = self.names.load();
        self.token_refreshes.with_label_values(&[known(registry, &names.registries), result.as_str()]).inc();
    }

    /// `count` alerts to one sink came to this.
    pub fn alerts(&self, sink: &str, result: AlertResult, count: u64) {
        let names = self.names.load();
        self.alerts.with_label_values(&[known(sink, &names.sinks), result.as_str()]).inc_by(count);
    }

    /// Says how many alerts wait, sink by sink; sinks that are not named have none.
    pub fn alert_backlog<'a>(&self, counts: impl IntoIterator<Item = (&'a str, u64)>) {
        let names = self.names.load();
        let mut totals: std::collections::BTreeMap<&str, u64> = names.sinks.iter().map(|s| (s.as_str(), 0)).collect();
        for (sink, count) in counts {
            *totals.entry(known(sink, &names.sinks)).or_default() += count;
        }
        for (sink, count) in totals {
            self.alert_backlog.with_label_values(&[sink]).set(clamped(count));
        }
    }

    /// An action was taken, held back, or failed.
    pub fn enforcement(&self, registry: &str, action: Enforcement, result: EnforcementResult) {
        let names = self.names.load();
        let labels = [known(registry, &names.registries), action.as_str(), result.as_str()];
        self.enforcements.with_label_values(&labels).inc();
    }

    /// A sweep of a registry completed at `at` and found `drift` changes that no event had told of.
    pub fn reconciled(&self, registry: &str, at: jiff::Timestamp, drift: u64) {
        let names = self.names.load();
        let registry = known(registry, &names.registries);
        self.reconcile_success.with_label_values(&[registry]).set(at.as_second() as f64);
        self.reconcile_drift.with_label_values(&[registry]).inc_by(drift);
    }

    /// Says how often a registry is swept.
    pub fn reconciles_every(&self, registry: &str, every: Duration) {
        let names = self.names.load();
        self.reconcile_interval.with_label_values(&[known(registry, &names.registries)]).set(every.as_secs_f64());
    }

    /// The policies were read: `Some` how many are in force, `None` when the ones before stay.
    pub fn policies_read(&self, policies: Option<usize>, at: jiff::Timestamp) {
        self.policy_reload_success.set(i64::from(policies.is_some()));
        if let Some(count) = policies {
            self.policies.set(clamped(count as u64));
            self.policy_reload_at.set(at.as_second() as f64);
        }
    }

    /// So many tags wait to be judged again from the record.
    pub fn rejudging(&self, pending: u64) {
        self.policy_rejudge_pending.set(clamped(pending));
    }

    /// A listener's certificate was read; `Some` until when it is valid, `None` when the one before stays.
    pub fn certificate_read(&self, listener: Listener, expires: Option<i64>) {
        let result = if expires.is_some() { Success::Ok } else { Success::Failed };
        self.certificate_reloads.with_label_values(&[listener.as_str(), result.as_str()]).inc();
        if let Some(expires) = expires {
            self.certificate_expiry.with_label_values(&[listener.as_str()]).set(expires as f64);
        }
    }

    /// The configuration and the policies in force have this hash.
    pub fn config(&self, hash: &str) {
        self.config_info.reset();
        self.config_info.with_label_values(&[hash]).set(1);
    }

    /// A durable commit took `elapsed`.
    pub fn committed(&self, elapsed: Duration) {
        self.store_commit.observe(elapsed.as_secs_f64());
    }

    /// Says what the store holds.
    pub fn store(&self, bytes: u64, available: Option<u64>, dead_letters: u64) {
        self.store_bytes.set(clamped(bytes));
        if let Some(available) = available {
            self.store_available.set(clamped(available));
        }
        self.dead_letters.set(clamped(dead_letters));
    }

    /// A message was logged.
    pub fn logged(&self, level: &tracing::Level) {
        if let Some(n) = LEVELS.iter().position(|l| l == level) {
            self.level_counters[n].inc();
        }
    }

    /// One of the daemon's own ports answered.
    pub fn answered(&self, listener: Listener, status: u16, elapsed: Duration) {
        let n = ANSWERS.iter().position(|answer| *answer == status).unwrap_or(ANSWERS.len());
        self.http_counters[listener as usize][n].inc();
        self.http_histograms[listener as usize].observe(elapsed.as_secs_f64());
    }

    /// The gauge of one listener's open connections.
    pub fn connections(&self, listener: Listener) -> IntGauge {
        self.connections.with_label_values(&[listener.as_str()])
    }

    /// A limit cut something off.
    pub fn limited(&self, limit: Limit) {
        self.limit_counters[limit as usize].inc();
    }

    /// A request or task ended in a fault of the program.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Every series that there can be, beside those of the process (`process_…`).
    pub fn catalogue(&self) -> &[Series] {
        &self.catalogue
    }

    /// Everything in the text format 0.0.4.
    pub fn encode(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
