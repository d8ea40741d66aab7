//! Every series that the daemon exports: the only list of them.
//!
//! Label values are enums, or names out of the configuration that were announced with [`Metrics::announce`];
//! any other name is counted as `other`, so nothing that comes from outside can make a series (T-59). Never a
//! repository, tag, digest, address or error text. Every combination that the configuration makes possible is
//! exported as 0 from the start, so that rates see the first increment; where the configuration is so large that
//! this would swell the scrape, policies and registries are there from their first use.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::event::Action;
use crate::history::Origin;
use crate::policy::{Outcome, Rule, Severity, State};

/// The label value of names that were not announced.
const OTHER: &str = "other";
/// Up to so many policies, every series that one can have is exported as 0 from the start; with more, a series is
/// there from its first use on. 500 policies with all their zeros would be a megabyte at every scrape.
const POLICIES_IN_FULL: usize = 100;
/// The same for registries. With more of them, times of requests are not told apart by registry either: a histogram
/// is sixteen lines for each operation and status.
const REGISTRIES_IN_FULL: usize = 10;
/// The media type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

macro_rules! labels {
    ($($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$vdoc])* $variant),* }

        impl $type {
            /// Every value.
            pub const ALL: &'static [$type] = &[$($type::$variant),*];

            /// The label value.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),* }
            }

            /// The value of this word, for rooms that have words of their own.
            pub fn from_word(word: &str) -> Option<$type> {
                match word { $($word => Some($type::$variant),)* _ => None }
            }
        }
    )*};
}
labels! {
    /// What became of an event at the listener.
    EventResult {
        /// New, now on disk.
        Recorded = "recorded",
        /// On disk already.
        Duplicate = "duplicate",
        /// Authentic and of no interest.
        Ignored = "ignored",
        /// Authentic and unreadable, or about what is not configured: kept.
        Dead = "dead",
        /// Refused: not authentic, too large, or not to be recorded now.
        Rejected = "rejected",
    }
    /// What a registry is asked for; the words are those of the `registry` room.
    Operation {
        /// What a tag points to.
        HeadManifest = "head-manifest",
        /// A manifest or index.
        GetManifest = "get-manifest",
        /// Whether a blob is there.
        HeadBlob = "head-blob",
        /// A config or other blob.
        GetBlob = "get-blob",
        /// A page of tags.
        ListTags = "list-tags",
        /// A page of repositories.
        Catalog = "catalog",
        /// A sign-in.
        Token = "token",
    }
    /// How a registry answered; the words are those of the `registry` room.
    RequestStatus {
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirect = "3xx",
        /// 429.
        Throttled = "429",
        /// 400 to 499 otherwise.
        Client = "4xx",
        /// 500 to 599, and what is no status.
        Server = "5xx",
        /// No answer, or none that could be used.
        None = "none",
    }
    /// Whether something worked.
    Success {
        /// It did.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
    }
    /// What became of an attempt to deliver an alert.
    AlertResult {
        /// Accepted by the sink.
        Delivered = "delivered",
        /// Not accepted; tried again later.
        Retried = "retried",
        /// Given up.
        Dropped = "dropped",
    }
    /// What is done in a registry, or refused on its behalf.
    Enforcement {
        /// A push refused before it happened.
        Refuse = "refuse",
        /// A tag locked.
        Lock = "lock",
        /// A moved tag put back.
        Restore = "restore",
    }
    /// What became of it.
    EnforcementResult {
        /// Done.
        Done = "done",
        /// Not needed, or held back.
        Skipped = "skipped",
        /// Failed.
        Failed = "failed",
    }
    /// One of the daemon's own ports.
    Listener {
        /// Where senders deliver events.
        Events = "events",
        /// Health, metrics and the API.
        Admin = "admin",
    }
    /// A limit against hostile or broken clients.
    Limit {
        /// Connections in all.
        Connections = "connections",
        /// Connections of one address.
        ConnectionsPerAddress = "connections-per-address",
        /// Connections that have not finished a request.
        ConnectionsFresh = "connections-fresh",
        /// TLS handshakes at once.
        Handshakes = "handshakes",
        /// Time for a TLS handshake.
        HandshakeTime = "handshake-time",
        /// Time for a request's head.
        HeadTime = "head-time",
        /// Time for a request's body.
        BodyTime = "body-time",
        /// Time for writing an answer.
        WriteTime = "write-time",
        /// Time for answering.
        AnswerTime = "answer-time",
        /// Bytes or fields of a request's head.
        Head = "head",
        /// A head or body whose framing is ambiguous or wrong.
        Framing = "framing",
        /// Bytes of a body.
        Body = "body",
        /// Bytes of all bodies being read.
        Buffered = "buffered",
        /// Events being recorded.
        InFlight = "in-flight",
    }
}

/// A log level, as the label says it.
const LEVELS: [tracing::Level; 5] =
    [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::INFO, tracing::Level::DEBUG, tracing::Level::TRACE];
/// What [`Action`] can be.
const ACTIONS: [Action; 3] = [Action::Push, Action::Delete, Action::Quarantine];
/// The action of what gave no event.
const NO_ACTION: &str = "none";
/// What [`Origin`] can be.
const ORIGINS: [Origin; 4] = [Origin::Event, Origin::Audit, Origin::Check, Origin::PolicyChange];
/// The statuses that the listeners answer with; any other is counted as `other`.
const ANSWERS: [u16; 18] = [200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 422, 500, 503];

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
    fn few_policies(&self) -> bool {
        self.policies.len() <= POLICIES_IN_FULL
    }

    fn few_registries(&self) -> bool {
        self.registries.len() <= REGISTRIES_IN_FULL
    }
}

/// A kind of violation, as its labels say it.
type Kind = (String, Rule, Severity, State);

/// The counters of one source, resolved once, so that counting an event is one atomic addition.
#[derive(Debug, Clone)]
pub struct EventCounters {
    by_action: [[IntCounter; 5]; 3],
    no_action: [IntCounter; 5],
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

/// The series.
pub struct Metrics {
    registry: Registry,
    catalogue: Vec<Series>,
    names: ArcSwap<Names>,
    /// The series of [`Metrics::violations`] that are exported.
    shown: Mutex<BTreeSet<Kind>>,
    events: IntCounterVec,
    queue_depth: IntGauge,
    oldest_age: Gauge,
    verdict_seconds: HistogramVec,
    verdicts: IntCounterVec,
    violations_fired: IntCounterVec,
    violations: IntGaugeVec,
    registry_requests: IntCounterVec,
    registry_seconds: HistogramVec,
    registry_throttled: IntCounterVec,
    token_refreshes: IntCounterVec,
    alerts: IntCounterVec,
    alert_backlog: IntGaugeVec,
    enforcements: IntCounterVec,
    reconcile_success: GaugeVec,
    reconcile_interval: GaugeVec,
    reconcile_drift: IntCounterVec,
    policies: IntGauge,
    policy_reload_success: IntGauge,
    policy_rejudge_pending: IntGauge,
    policy_reload_at: Gauge,
    certificate_expiry: GaugeVec,
    certificate_reloads: IntCounterVec,
    config_info: IntGaugeVec,
    store_commit: Histogram,
    store_bytes: IntGauge,
    store_available: IntGauge,
    dead_letters: IntGauge,
    connections: IntGaugeVec,
    panics: IntCounter,
    level_counters: [IntCounter; 5],
    limit_counters: Vec<IntCounter>,
    http_counters: Vec<[IntCounter; ANSWERS.len() + 1]>,
    http_histograms: Vec<Histogram>,
}

/// What is known of one series, for its documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says, one sentence.
    pub help: String,
    /// The names of its labels.
    pub labels: Vec<String>,
}

/// What was registered so far.
#[derive(Default)]
struct Kept {
    registry: Registry,
    catalogue: RefCell<Vec<Series>>,
}

impl Kept {
    /// Registers what was made.
    fn keep<C: Collector + Clone + 'static>(
        &self,
        kind: &'static str,
        made: prometheus::Result<C>,
    ) -> prometheus::Result<C> {
        let made = made?;
        self.registry.register(Box::new(made.clone()))?;
        let series = made.desc().into_iter().map(|desc| Series {
            name: desc.fq_name.clone(),
            kind,
            help: desc.help.clone(),
            labels: desc.variable_labels.clone(),
        });
        self.catalogue.borrow_mut().extend(series);
        Ok(made)
    }
}

/// Bounds of histograms that span a database commit to a slow registry: 1 ms to 30 s.
fn seconds() -> Vec<f64> {
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0].to_vec()
}

impl Metrics {
    /// All series, with nothing announced yet.
    ///
    /// # Errors
    /// Two series of one name: a fault of this file.
    pub fn new() -> prometheus::Result<Metrics> {
        let r = &Kept::default();
        r.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            r.keep("counter", IntCounterVec::new(Opts::new(format!("tidewaiter_{name}"), help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            r.keep("gauge", IntGaugeVec::new(Opts::new(format!("tidewaiter_{name}"), help), labels))
        };
        let float_gauges = |name: &str, help: &str, labels: &[&str]| {
            r.keep("gauge", GaugeVec::new(Opts::new(format!("tidewaiter_{name}"), help), labels))
        };
        let gauge = |name: &str, help: &str| r.keep("gauge", IntGauge::new(format!("tidewaiter_{name}"), help));
        let float_gauge = |name: &str, help: &str| r.keep("gauge", Gauge::new(format!("tidewaiter_{name}"), help));
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let opts = HistogramOpts::new(format!("tidewaiter_{name}"), help).buckets(seconds());
            r.keep("histogram", HistogramVec::new(opts, labels))
        };
        let log_messages = counters("log_messages_total", "Messages logged.", &["level"])?;
        let limits =
            counters("limit_reached_total", "Times that a limit of a listener cut something off.", &["limit"])?;
        let http_requests =
            counters("http_requests_total", "Requests answered by the daemon's own ports.", &["listener", "code"])?;
        let http_seconds = histograms(
            "http_request_seconds",
            "Time from a request's head to its answer, at the daemon's own ports.",
            &["listener"],
        )?;
        let build = gauges("build_info", "The running program; always 1.", &["version", "revision"])?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("TIDEWAITER_REVISION").unwrap_or("unknown")])
            .set(1);
        let http_counters = Listener::ALL
            .iter()
            .map(|listener| {
                std::array::from_fn(|n| {
                    let code = ANSWERS.get(n).map_or(OTHER.to_owned(), u16::to_string);
                    http_requests.with_label_values(&[listener.as_str(), &code])
                })
            })
            .collect();
        let metrics = Metrics {
            names: ArcSwap::default(),
            shown: Mutex::default(),
            events: counters(
                "events_total",
                "Events received, by what became of them at the listener.",
                &["source", "action", "result"],
            )?,
            queue_depth: gauge("event_queue_depth", "Recorded events that wait to be judged.")?,
            oldest_age: float_gauge(
                "event_oldest_age_seconds",
                "Age of the oldest event that waits to be judged; 0 when none waits.",
            )?,
            verdict_seconds: histograms(
                "event_verdict_seconds",
                "Time from an event's receipt to its recorded verdict.",
                &["origin"],
            )?,
            verdicts: counters("verdicts_total", "Verdicts recorded.", &["policy", "outcome", "origin"])?,
            violations_fired: counters(
                "violations_total",
                "Violations that entered the state firing.",
                &["policy", "requirement", "severity"],
            )?,
            violations: gauges(
                "violations",
                "Open violations; the same figure on every replica.",
                &["policy", "requirement", "severity", "state"],
            )?,
            registry_requests: counters(
                "registry_requests_total",
                "Requests sent to registries, by class of answer.",
                &["registry", "operation", "status"],
            )?,
            registry_seconds: histograms(
                "registry_request_seconds",
                "Time until a registry's answer was read.",
                &["registry", "operation", "status"],
            )?,
            registry_throttled: counters(
                "registry_throttled_total",
                "Times that requests to a registry were held back, because it said so or by the configured rate.",
                &["registry"],
            )?,
            token_refreshes: counters(
                "registry_token_refreshes_total",
                "Access tokens asked of registries and their sign-in services.",
                &["registry", "result"],
            )?,
            alerts: counters("alerts_total", "Attempts to deliver an alert.", &["sink", "result"])?,
            alert_backlog: gauges(
                "alert_backlog",
                "Alerts that wait to be delivered; the same figure on every replica.",
                &["sink"],
            )?,
            enforcements: counters(
                "enforcements_total",
                "Actions taken in registries, or pushes refused on their behalf.",
                &["registry", "action", "result"],
            )?,
            reconcile_success: float_gauges(
                "reconcile_last_success_timestamp_seconds",
                "When a sweep of the registry last completed; 0 when none has.",
                &["registry"],
            )?,
            reconcile_interval: float_gauges(
                "reconcile_interval_seconds",
                "How often the registry is swept, as configured; 0 when it is not.",
                &["registry"],
            )?,
            reconcile_drift: counters(
                "reconcile_drift_total",
                "Changes found by a sweep that no event had told of.",
                &["registry"],
            )?,
            policies: gauge("policies", "Policies in force.")?,
            policy_rejudge_pending: gauge(
                "policy_rejudge_pending",
                "Tags that wait to be judged by policies that changed, or because their repository was met for the first time; the same figure on every replica.",
            )?,
            policy_reload_success: gauge(
                "policy_reload_success",
                "Whether the last reading of the policies succeeded; while 0, the ones before stay in force.",
            )?,
            policy_reload_at: float_gauge(
                "policy_reload_timestamp_seconds",
                "When the policies were last read successfully.",
            )?,
            certificate_expiry: float_gauges(
                "tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use expires.",
                &["listener"],
            )?,
            certificate_reloads: counters(
                "tls_certificate_reloads_total",
                "Readings of changed certificate files; after a failed one the certificate before stays in use.",
                &["listener", "result"],
            )?,
            config_info: gauges("config_info", "The configuration in force; always 1.", &["hash"])?,
            store_commit: r.keep(
                "histogram",
                Histogram::with_opts(
                    HistogramOpts::new("tidewaiter_store_commit_seconds", "Time of one durable commit of the store.")
                        .buckets(seconds()),
                ),
            )?,
            store_bytes: gauge("store_bytes", "Bytes that the store takes on disk.")?,
            store_available: gauge("store_available_bytes", "Bytes that the store's disk has left for it.")?,
            dead_letters: gauge("dead_letters", "Dead letters kept; see `tidewaiter dead-letters`.")?,
            connections: gauges("connections", "Open connections to the daemon's own ports.", &["listener"])?,
            panics: r.keep(
                "counter",
                IntCounter::new("tidewaiter_panics_total", "Requests and tasks that ended in a fault of the program."),
            )?,
            level_counters: LEVELS.map(|l| log_messages.with_label_values(&[level_word(&l)])),
            limit_counters: Limit::ALL.iter().map(|limit| limits.with_label_values(&[limit.as_str()])).collect(),
            http_counters,
            http_histograms: Listener::ALL.iter().map(|l| http_seconds.with_label_values(&[l.as_str()])).collect(),
            registry: r.registry.clone(),
            catalogue: r.catalogue.take(),
        };
        for origin in ORIGINS {
            metrics.verdict_seconds.with_label_values(&[origin.as_str()]);
        }
        for listener in Listener::ALL {
            metrics.connections.with_label_values(&[listener.as_str()]);
            for result in Success::ALL {
                metrics.certificate_reloads.with_label_values(&[listener.as_str(), result.as_str()]);
            }
        }
        Ok(metrics)
    }

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

    /// So many tags wait to be judged again from the record.
    pub fn rejudging(&self, pending: u64) {
        self.policy_rejudge_pending.set(clamped(pending));
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

    /// A listener's certificate was read; `Some` until when it is valid, `None` when the one before stays.
    pub fn certificate_read(&self, listener: Listener, expires: Option<i64>) {
        let result = if expires.is_some() { Success::Ok } else { Success::Failed };
        self.certificate_reloads.with_label_values(&[listener.as_str(), result.as_str()]).inc();
        if let Some(expires) = expires {
            self.certificate_expiry.with_label_values(&[listener.as_str()]).set(expires as f64);
        }
    }

    /// The configuration in force has this hash.
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

/// `name` where it was announced, else the one label for all others.
fn known<'a>(name: &'a str, names: &BTreeSet<String>) -> &'a str {
    if names.contains(name) { name } else { OTHER }
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn level_word(level: &tracing::Level) -> &'static str {
    match *level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        Names {
            sources: set(&["contoso-acr"]),
            registries: set(&["contoso.azurecr.io"]),
            sinks: set(&["oncall"]),
            policies: set(&["iot", "gone"]),
            requirements: [
                ("iot".to_owned(), Rule::Platforms, Severity::Critical),
                ("gone".to_owned(), Rule::Immutable, Severity::Critical),
            ]
            .into(),
        }
    }

    fn series(metrics: &Metrics) -> usize {
        metrics.encode().unwrap().lines().filter(|l| !l.starts_with('#')).count()
    }

    #[test]
    fn combinations_of_the_configuration_are_there_before_the_first_event() {
        let metrics = Metrics::new().unwrap();
        metrics.announce(names());
        let text = metrics.encode().unwrap();
        for line in [
            r#"tidewaiter_events_total{action="push",result="recorded",source="contoso-acr"} 0"#,
            r#"tidewaiter_events_total{action="none",result="rejected",source="contoso-acr"} 0"#,
            r#"tidewaiter_verdicts_total{origin="event",outcome="violation",policy="iot"} 0"#,
            r#"tidewaiter_violations_total{policy="iot",requirement="platforms",severity="critical"} 0"#,
            r#"tidewaiter_violations{policy="iot",requirement="platforms",severity="critical",state="firing"} 0"#,
            r#"tidewaiter_alerts_total{result="dropped",sink="oncall"} 0"#,
            r#"tidewaiter_http_requests_total{code="503",listener="events"} 0"#,
            r#"tidewaiter_limit_reached_total{limit="framing"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "missing: {line}\n{text}");
        }
    }

    #[test]
    fn series_of_policies_that_are_gone_are_removed() {
        let metrics = Metrics::new().unwrap();
        metrics.announce(names());
        metrics.violation_fired("gone", Rule::Immutable, Severity::Critical);
        let mut later = names();
        later.policies.remove("gone");
        later.requirements.retain(|(policy, ..)| policy != "gone");
        metrics.announce(later);
        let text = metrics.encode().unwrap();
        assert!(!text.contains(r#"policy="gone""#) && text.contains(r#"policy="iot""#), "{text}");
    }

    #[test]
    fn violations_that_are_no_longer_counted_fall_to_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.announce(names());
        let line = |n| format!(r#"{{policy="iot",requirement="platforms",severity="critical",state="firing"}} {n}"#);
        metrics.violations([("iot", Rule::Platforms, Severity::Critical, State::Firing, 3)]);
        assert!(metrics.encode().unwrap().contains(&line(3)));
        metrics.violations([]);
        assert!(metrics.encode().unwrap().contains(&line(0)));
    }

    #[test]
    fn a_large_configuration_shows_what_there_is_and_not_what_there_could_be() {
        let metrics = Metrics::new().unwrap();
        let many = |word: &str, n: usize| (0..n).map(|n| format!("{word}-{n}")).collect::<BTreeSet<_>>();
        let (policies, registries) = (many("policy", POLICIES_IN_FULL + 1), many("registry", REGISTRIES_IN_FULL + 1));
        let requirements = policies.iter().map(|p| (p.clone(), Rule::Index, Severity::Info)).collect();
        metrics.announce(Names { policies, registries, requirements, ..Names::default() });
        metrics.violations([("policy-1", Rule::Index, Severity::Info, State::Firing, 1)]);
        metrics.registry_request("registry-1", Operation::Token, RequestStatus::Success, Duration::ZERO);
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"tidewaiter_violations{policy="policy-1""#) && !text.contains(r#"policy="policy-2""#));
        assert!(text.contains(r#"requests_total{operation="token",registry="registry-1",status="2xx"} 1"#), "{text}");
        assert!(text.contains(r#"seconds_count{operation="token",registry="other",status="2xx"} 1"#), "{text}");
        metrics.violations([]);
        assert!(!metrics.encode().unwrap().contains("tidewaiter_violations{"));
    }

    #[test]
    fn a_busy_large_configuration_is_scraped_in_a_quarter_of_a_megabyte() {
        let metrics = Metrics::new().unwrap();
        let many = |word: &str, n: usize| (0..n).map(|n| format!("{word}-{n}")).collect::<BTreeSet<_>>();
        let (policies, registries) = (many("policy", 500), many("registry.example", 50));
        metrics.announce(Names { policies: policies.clone(), registries: registries.clone(), ..Names::default() });
        for policy in &policies {
            for outcome in [Outcome::Pass, Outcome::Violation] {
                metrics.verdict(policy, outcome, Origin::Event);
            }
            metrics.violation_fired(policy, Rule::Platforms, Severity::Critical);
        }
        metrics
            .violations(policies.iter().map(|p| (p.as_str(), Rule::Platforms, Severity::Critical, State::Firing, 1)));
        for registry in &registries {
            use Operation::{GetManifest, HeadManifest, ListTags, Token};
            for operation in [HeadManifest, GetManifest, ListTags, Token] {
                metrics.registry_request(registry, operation, RequestStatus::Success, Duration::ZERO);
            }
        }
        let text = metrics.encode().unwrap();
        assert!(text.len() <= 256 * 1024, "{} bytes", text.len());
    }

    #[test]
    fn t59_hostile_names_make_no_series() {
        let metrics = Metrics::new().unwrap();
        metrics.announce(names());
        let use_all = |name: &str| {
            metrics.event_counters(name).add(Some(Action::Push), EventResult::Recorded, 1);
            metrics.verdict(name, Outcome::Pass, Origin::Event);
            metrics.violation_fired(name, Rule::Index, Severity::Info);
            metrics.violations([(name, Rule::Index, Severity::Info, State::Firing, 1)]);
            metrics.registry_request(name, Operation::GetManifest, RequestStatus::Success, Duration::ZERO);
            metrics.registry_throttled(name);
            metrics.token_refreshed(name, Success::Ok);
            metrics.alerts(name, AlertResult::Delivered, 1);
            metrics.alert_backlog([(name, 1)]);
            metrics.enforcement(name, Enforcement::Lock, EnforcementResult::Done);
            metrics.reconciles_every(name, Duration::from_secs(1));
            metrics.reconciled(name, jiff::Timestamp::UNIX_EPOCH, 1);
            metrics.config(name);
        };
        use_all("first");
        let before = series(&metrics);
        for n in 0..100_000u32 {
            use_all(&format!("a\"}} {n}\n"));
            metrics.answered(Listener::Events, n as u16, Duration::ZERO);
        }
        assert_eq!(series(&metrics), before);
        assert!(before < 2_000, "{before}");
    }

    #[test]
    fn t60_label_values_are_escaped() {
        let metrics = Metrics::new().unwrap();
        let evil = "a\\\"}\nevil_total 1";
        metrics.announce(Names { sinks: [evil.to_owned()].into(), ..Names::default() });
        let text = metrics.encode().unwrap();
        assert!(!text.lines().any(|l| l.starts_with("evil_total")));
        assert!(text.contains(r#"sink="a\\\"}\nevil_total 1""#), "{text}");
    }

    #[test]
    fn every_series_has_a_help_text_and_promtool_finds_nothing_to_say() {
        use std::io::Write;
        let metrics = Metrics::new().unwrap();
        metrics.announce(names());
        metrics.certificate_read(Listener::Events, Some(1));
        metrics.config("abc");
        metrics.registry_request(
            "contoso.azurecr.io",
            Operation::ListTags,
            RequestStatus::Server,
            Duration::from_millis(3),
        );
        let text = metrics.encode().unwrap();
        for line in text.lines().filter(|l| l.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(
                text.lines().any(|l| l.starts_with(&format!("# HELP {name} ")) && l.len() > name.len() + 9),
                "{name}"
            );
        }
        let Ok(mut promtool) = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
        else {
            eprintln!("promtool is not installed; the text format was not checked by it");
            return;
        };
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let out = promtool.wait_with_output().unwrap();
        assert!(
            out.status.success(),
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
