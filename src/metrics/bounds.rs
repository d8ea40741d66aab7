//! What keeps the number of series bounded: only announced names become label values (T-59), what the configuration
//! makes possible is exported as 0, and the series of what is gone are removed.

use std::collections::BTreeSet;

use super::labels::{ACTIONS, AlertResult, Enforcement, EnforcementResult, EventResult, NO_ACTION, ORIGINS, OTHER};
use super::labels::{Operation, RequestStatus, Success};
use super::list::Metrics;
use crate::policy::{Outcome, Rule, Severity, State};

/// Up to so many policies, every series that one can have is exported as 0 from the start; with more, a series is
/// there from its first use on. 500 policies with all their zeros would be a megabyte at every scrape.
pub(super) const POLICIES_IN_FULL: usize = 100;
/// The same for registries. With more of them, times of requests are not told apart by registry either: a histogram
/// is sixteen lines for each operation and status.
pub(super) const REGISTRIES_IN_FULL: usize = 10;

/// The names in the configuration that label values may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Sources of events.
    pub sources: BTreeSet<String>,
    /// Registries.
    pub registries: BTreeSet<String>,
    /// Sinks of alerts.
    pub sinks: BTreeSet<String>,
    /// Policies, each with what it may find.
    pub policies: BTreeSet<String>,
    /// The requirements that policies have, with the severities they may be found at.
    pub requirements: BTreeSet<(String, Rule, Severity)>,
}

impl Names {
    pub(super) fn few_policies(&self) -> bool {
        self.policies.len() <= POLICIES_IN_FULL
    }

    pub(super) fn few_registries(&self) -> bool {
        self.registries.len() <= REGISTRIES_IN_FULL
    }
}

impl Metrics {
    /// Makes the names of a configuration label values, at the start and after each reload: what they make
    /// possible is exported as 0, and the series of policies and sinks that are gone are removed.
    pub fn announce(&self, names: Names) {
        for source in &names.sources {
            self.event_counters_of(source);
        }
        let (few_registries, few_policies) = (names.few_registries(), names.few_policies());
        for registry in &names.registries {
            if few_registries {
                self.announce_requests(registry);
            }
            self.registry_throttled.with_label_values(&[registry]);
            self.reconcile_drift.with_label_values(&[registry]);
            self.reconcile_success.with_label_values(&[registry]);
            self.reconcile_interval.with_label_values(&[registry]);
            for result in Success::ALL {
                self.token_refreshes.with_label_values(&[registry.as_str(), result.as_str()]);
            }
        }
        for sink in &names.sinks {
            self.alert_backlog.with_label_values(&[sink]);
            for result in AlertResult::ALL {
                self.alerts.with_label_values(&[sink.as_str(), result.as_str()]);
            }
        }
        for policy in names.policies.iter().filter(|_| few_policies) {
            for outcome in Outcome::ALL {
                for origin in ORIGINS {
                    self.verdicts.with_label_values(&[policy.as_str(), outcome.as_str(), origin.as_str()]);
                }
            }
        }
        for (policy, rule, severity) in names.requirements.iter().filter(|_| few_policies) {
            let labels = [policy.as_str(), rule.as_str(), severity.as_str()];
            self.violations_fired.with_label_values(&labels);
            for state in [State::Pending, State::Firing] {
                self.violations.with_label_values(&[labels[0], labels[1], labels[2], state.as_str()]);
            }
        }
        let before = self.names.swap(names.into());
        self.forget_gone(&before);
    }

    fn announce_requests(&self, registry: &str) {
        for operation in Operation::ALL {
            for status in RequestStatus::ALL {
                self.registry_requests.with_label_values(&[registry, operation.as_str(), status.as_str()]);
            }
        }
        for action in Enforcement::ALL {
            for result in EnforcementResult::ALL {
                self.enforcements.with_label_values(&[registry, action.as_str(), result.as_str()]);
            }
        }
    }

    /// Removes the series of names that were announced before and no longer are. A series that was never made
    /// is no fault.
    fn forget_gone(&self, before: &Names) {
        let now = self.names.load();
        for policy in before.policies.difference(&now.policies) {
            for outcome in Outcome::ALL {
                for origin in ORIGINS {
                    let _ = self.verdicts.remove_label_values(&[policy.as_str(), outcome.as_str(), origin.as_str()]);
                }
            }
            for rule in Rule::ALL {
                for severity in Severity::ALL {
                    let labels = [policy.as_str(), rule.as_str(), severity.as_str()];
                    let _ = self.violations_fired.remove_label_values(&labels);
                    for state in State::ALL {
                        let labels = [labels[0], labels[1], labels[2], state.as_str()];
                        let _ = self.violations.remove_label_values(&labels);
                    }
                }
            }
        }
        for sink in before.sinks.difference(&now.sinks) {
            let _ = self.alert_backlog.remove_label_values(&[sink]);
            for result in AlertResult::ALL {
                let _ = self.alerts.remove_label_values(&[sink.as_str(), result.as_str()]);
            }
        }
        for source in before.sources.difference(&now.sources) {
            for result in EventResult::ALL {
                for action in ACTIONS.iter().map(|a| a.as_str()).chain([NO_ACTION]) {
                    let _ = self.events.remove_label_values(&[source.as_str(), action, result.as_str()]);
                }
            }
        }
    }
}

/// `name` where it was announced, else the one label for all others.
pub(super) fn known<'a>(name: &'a str, names: &BTreeSet<String>) -> &'a str {
    if names.contains(name) { name } else { OTHER }
}
