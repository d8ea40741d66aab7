//! The only list of series: their names, kinds, help texts and labels, and the handles that count them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Mutex;

use arc_swap::ArcSwap;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::bounds::Names;
use super::labels::{ANSWERS, LEVELS, Limit, Listener, ORIGINS, OTHER, Success, level_word};
use crate::policy::{Rule, Severity, State};

/// A kind of violation, as its labels say it.
type Kind = (String, Rule, Severity, State);

/// The series.
pub struct Metrics {
    pub(super) registry: Registry,
    pub(super) catalogue: Vec<Series>,
    pub(super) names: ArcSwap<Names>,
    /// The series of [`Metrics::violations`] that are exported.
    pub(super) shown: Mutex<BTreeSet<Kind>>,
    pub(super) events: IntCounterVec,
    pub(super) queue_depth: IntGauge,
    pub(super) oldest_age: Gauge,
    pub(super) verdict_seconds: HistogramVec,
    pub(super) verdicts: IntCounterVec,
    pub(super) violations_fired: IntCounterVec,
    pub(super) violations: IntGaugeVec,
    pub(super) registry_requests: IntCounterVec,
    pub(super) registry_seconds: HistogramVec,
    pub(super) registry_throttled: IntCounterVec,
    pub(super) token_refreshes: IntCounterVec,
    pub(super) alerts: IntCounterVec,
    pub(super) alert_backlog: IntGaugeVec,
    pub(super) enforcements: IntCounterVec,
    pub(super) reconcile_success: GaugeVec,
    pub(super) reconcile_interval: GaugeVec,
    pub(super) reconcile_drift: IntCounterVec,
    pub(super) policies: IntGauge,
    pub(super) policy_reload_success: IntGauge,
    pub(super) policy_rejudge_pending: IntGauge,
    pub(super) policy_reload_at: Gauge,
    pub(super) certificate_expiry: GaugeVec,
    pub(super) certificate_reloads: IntCounterVec,
    pub(super) config_info: IntGaugeVec,
    pub(super) store_commit: Histogram,
    pub(super) store_bytes: IntGauge,
    pub(super) store_available: IntGauge,
    pub(super) dead_letters: IntGauge,
    pub(super) connections: IntGaugeVec,
    pub(super) panics: IntCounter,
    pub(super) level_counters: [IntCounter; 5],
    pub(super) limit_counters: Vec<IntCounter>,
    pub(super) http_counters: Vec<[IntCounter; ANSWERS.len() + 1]>,
    pub(super) http_histograms: Vec<Histogram>,
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
                "Events received, by what became of them at the listener: `rejected` was not let in, `denied` was asked about and refused by a policy.",
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
            config_info: gauges(
                "config_info",
                "A hash of the configuration and the policies in force; always 1.",
                &["hash"],
            )?,
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
}
