//! Delivery from the outbox: one task per sink. At least once, in order per violation, backing off while the sink
//! does not take anything, for more than three days; what it refuses for good is counted, logged, and told to
//! another sink (T-58). More than people can read goes into summaries (T-55).

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alertmanager;
use super::http::{HttpTransport, Transport};
use super::message::{Alert, SinkInfo, Subject};
use super::outbox::Outbox;
use super::settings::{Links, Pace, SettingsError, SinkKind, SinkSettings};
use super::sink::{Sent, Sink};
use super::topic::Topic;
use super::trouble::{self, Trouble, Troubles};
use crate::backoff::Backoff;
use crate::policy::violation::Edge;
use crate::store::{OutboxItem, Paging, StoreError};

/// Waiting before the next attempt: 5 s to 1 h.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(5), most: Duration::from_secs(3600) };
/// Attempts before an alert is given up: with the least jitter the delays of the schedule add up to 75 hours.
const ATTEMPTS_MAX: u32 = 160;
/// Alerts read at once: also the most that one summary tells of.
const PAGE: usize = 1000;
/// How far ahead alerts are read that were put off: the longest delay and the longest `Retry-After`. They are
/// read with the others so that a later alert of the same violation does not overtake one that waits.
const HORIZON: SignedDuration = SignedDuration::from_hours(48);
/// Longest time without a look into the outbox, should a wake-up be missed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Shortest time between two looks that found nothing to do: the store wakes all sinks alike.
const REST: Duration = Duration::from_millis(200);
/// How long alerts that were read are taken as what is waiting: long enough that a backlog is not read anew for
/// each message, short enough that a storm is noticed while a page of single messages goes out.
const PAGE_FRESH: Duration = Duration::from_secs(5);
/// After the store did not answer.
const STORE_REST: Duration = Duration::from_secs(5);
/// The minute over which messages to people are counted, and the shortest time between two summaries.
const WINDOW: Duration = Duration::from_secs(60);
const SUMMARY_EVERY: Duration = Duration::from_secs(5);
/// A sink that refuses is told of at most this often.
const PARKED_EVERY: Duration = Duration::from_secs(3600);
/// A sink that took something after it had refused is well after this time: what is over at once is overlooked.
const PARKED_STAYS: SignedDuration = SignedDuration::from_mins(5);

/// Tells the time: the process's clock, or a test's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What became of alerts: `tidewaiter_alerts_total{result}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The sink took it.
    Delivered,
    /// An attempt failed and will be repeated.
    Retried,
    /// The sink refused it for good, or it was given up.
    Dropped,
}

impl Delivery {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Delivery::Delivered => "delivered",
            Delivery::Retried => "retried",
            Delivery::Dropped => "dropped",
        }
    }
}

/// Hears what became of alerts, for the metrics.
pub trait Observer: Send + Sync + 'static {
    /// `count` alerts of one sink came to this.
    fn alerts(&self, sink: &str, delivery: Delivery, count: u64);
}

/// Why a test message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestFailed {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The sink did not take it.
    #[error("the sink `{sink}` did not take the test message: {why}")]
    NotTaken {
        /// The sink.
        sink: Arc<str>,
        /// What it said.
        why: String,
    },
}

/// Sends one test message straight to a sink, under the same rules as every alert. That the sink took it does not
/// prove that a person sees it: a Teams workflow answers before it posts.
///
/// # Errors
/// [`TestFailed`].
pub async fn send_test(settings: &SinkSettings, links: &Links, now: Timestamp) -> Result<(), TestFailed> {
    let transport = HttpTransport::new(settings.ca_pem.as_deref())?;
    let sink = Sink::new(settings.clone(), links.clone(), transport)?;
    match sink.send(&[Alert::test(now)], now).await {
        Sent::Delivered => Ok(()),
        Sent::Retry { why, .. } | Sent::Refused { why } => {
            Err(TestFailed::NotTaken { sink: settings.name.clone(), why })
        }
    }
}

/// The running delivery to one sink.
#[derive(Debug)]
pub struct SinkTask {
    /// The sink's configured name.
    pub sink: Arc<str>,
    /// Ends when it is cancelled; before that only by a fault of the program.
    pub task: JoinHandle<()>,
}

/// Starts the delivery to every sink, each in a task of its own that ends after `cancel`, once the attempt under
/// way is over (15 s at most).
///
/// # Errors
/// [`SettingsError`]: then nothing was started.
pub fn start<O: Outbox>(
    outbox: &Arc<O>,
    sinks: Vec<SinkSettings>,
    links: &Links,
    clock: &Clock,
    observer: &Arc<dyn Observer>,
    cancel: &CancellationToken,
) -> Result<Vec<SinkTask>, SettingsError> {
    let all: Arc<[SinkInfo]> = sinks.iter().map(SinkSettings::info).collect();
    let mut couriers = Vec::new();
    for settings in sinks {
        let transport = HttpTransport::new(settings.ca_pem.as_deref())?;
        let sink = Sink::new(settings, links.clone(), transport)?;
        couriers.push(Courier::new(sink, outbox.clone(), all.clone(), clock.clone(), observer.clone()));
    }
    Ok(couriers
        .into_iter()
        .map(|courier| SinkTask { sink: courier.name(), task: tokio::spawn(courier.run(cancel.clone())) })
        .collect())
}

/// The delivery to one sink.
pub(super) struct Courier<O, T> {
    sink: Sink<T>,
    outbox: Arc<O>,
    all: Arc<[SinkInfo]>,
    clock: Clock,
    observer: Arc<dyn Observer>,
    pace: Pace,
    /// Failed attempts since the last one that the sink answered as it should.
    failures: u32,
    /// Whether it ever did since the start: without that, nothing can be said of a single alert.
    worked: bool,
    /// Nothing is sent before.
    paused_until: Instant,
    /// Violations whose next alert failed although the sink works: they wait, the others do not.
    held: HashMap<String, Instant>,
    /// What was read from the outbox and is not yet done, in order, and when it was read.
    page: Vec<Waiting>,
    page_read: Option<Instant>,
    /// After an array was refused, so many alerts go one by one, to find the one that is at fault.
    singly: usize,
    /// When messages to people were sent, within the window.
    sent: VecDeque<Instant>,
    last_summary: Option<Instant>,
    last_parked: Option<Instant>,
    /// Whether others may have been told that this sink refuses; after a restart nobody knows.
    parked: bool,
    next_refresh: Option<Instant>,
    /// Resolved alerts that Alertmanager is still told of, and until when.
    resolved: HashMap<String, (Alert, Timestamp)>,
}

/// An alert as it waits.
#[derive(Clone)]
struct Waiting {
    item: OutboxItem,
    alert: Alert,
}

/// What to do next.
enum Next {
    Send(Vec<Waiting>),
    /// Nothing before this has passed, whatever comes.
    Rest(Duration),
    /// Nothing is waiting.
    Idle,
}

impl<O: Outbox, T: Transport> Courier<O, T> {
    pub fn new(sink: Sink<T>, outbox: Arc<O>, all: Arc<[SinkInfo]>, clock: Clock, observer: Arc<dyn Observer>) -> Self {
        let refreshes = matches!(sink.settings.kind, SinkKind::Alertmanager { .. });
        let now = Instant::now();
        Courier {
            pace: sink.settings.pace(),
            sink,
            outbox,
            all,
            clock,
            observer,
            failures: 0,
            worked: false,
            paused_until: now,
            held: HashMap::new(),
            page: Vec::new(),
            page_read: None,
            singly: 0,
            sent: VecDeque::new(),
            last_summary: None,
            last_parked: None,
            parked: true,
            next_refresh: refreshes.then_some(now),
            resolved: HashMap::new(),
        }
    }

    pub fn name(&self) -> Arc<str> {
        self.sink.settings.name.clone()
    }

    pub async fn run(mut self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let rest = self.round().await;
            let wait = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => {
                        tokio::join!(tokio::time::sleep(REST), self.outbox.work((self.clock)(), LOOK_EVERY));
                    }
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = wait => {}
            }
        }
    }

    /// One look and at most one message. Says how long to rest; `None` means until something comes.
    async fn round(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if now < self.paused_until {
            return Some(self.paused_until - now);
        }
        if self.next_refresh.is_some_and(|at| at <= now) {
            self.next_refresh = Some(now + unsigned(alertmanager::REFRESH_EVERY));
            self.refresh().await;
            return Some(Duration::ZERO);
        }
        match self.next().await {
            Next::Send(batch) => {
                self.deliver(batch).await;
                Some(self.pace.gap)
            }
            Next::Rest(rest) => Some(rest),
            Next::Idle => None,
        }
    }

    /// Chooses what to send: the first alert of each violation that is not held, in order.
    async fn next(&mut self) -> Next {
        if let Err(fault) = self.read().await {
            tracing::warn!(sink = %self.sink.settings.name, %fault, "waiting alerts could not be read; trying again");
            return Next::Rest(STORE_REST);
        }
        let now = Instant::now();
        self.held.retain(|_, until| *until > now);
        let is_free = |w: &&Waiting| !self.held.contains_key(&w.alert.fingerprint);
        let free = self.page.iter().filter(is_free).count();
        if free == 0 {
            // With something held, a look now and then finds both its time and what comes for others.
            self.page_read = None;
            return if self.page.is_empty() { Next::Idle } else { Next::Rest(LOOK_EVERY) };
        }
        while self.sent.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.sent.pop_front();
        }
        let room = self.pace.each_per_minute.saturating_sub(self.sent.len());
        if self.pace.summarises && free > room {
            let since = self.last_summary.map_or(SUMMARY_EVERY, |at| now.duration_since(at));
            if since < SUMMARY_EVERY {
                return Next::Rest(SUMMARY_EVERY - since);
            }
            return Next::Send(self.page.iter().filter(is_free).cloned().collect());
        }
        if room == 0 {
            let oldest = self.sent.front().map_or(Duration::ZERO, |at| now.duration_since(*at));
            return Next::Rest(WINDOW.saturating_sub(oldest).max(REST));
        }
        let batch = if self.singly > 0 { 1 } else { self.pace.batch };
        let mut seen = HashSet::new();
        let firsts = self.page.iter().filter(is_free).filter(|w| seen.insert(w.alert.fingerprint.as_str()));
        if free > room {
            // More than can be sent in a minute: the worst first.
            let mut firsts: Vec<&Waiting> = firsts.collect();
            firsts.sort_by_key(|w| std::cmp::Reverse(w.alert.severity));
            return Next::Send(firsts.into_iter().take(batch).cloned().collect());
        }
        Next::Send(firsts.take(batch).cloned().collect())
    }

    /// Reads what is waiting, unless what was read last is still fresh and not done.
    async fn read(&mut self) -> Result<(), StoreError> {
        let fresh = self.page_read.is_some_and(|at| at.elapsed() < PAGE_FRESH);
        if fresh && !self.page.is_empty() {
            return Ok(());
        }
        let horizon = (self.clock)().checked_add(HORIZON).unwrap_or(Timestamp::MAX);
        let items = self.outbox.waiting(&self.sink.settings.name, horizon, PAGE).await?;
        self.page = self.readable(items).await;
        self.page_read = Some(Instant::now());
        Ok(())
    }

    /// Alerts that this program does not understand are taken out: they would be in the way for ever.
    async fn readable(&mut self, items: Vec<OutboxItem>) -> Vec<Waiting> {
        let mut waiting = Vec::with_capacity(items.len());
        for item in items {
            match Alert::from_json(&item.alert.body) {
                Ok(alert) => waiting.push(Waiting { item, alert }),
                Err(fault) => {
                    tracing::error!(sink = %item.alert.sink, alert = %item.alert.key, %fault, "an alert on record cannot be read and is dropped");
                    self.observer.alerts(&self.sink.settings.name, Delivery::Dropped, 1);
                    self.done(vec![item.id]).await;
                }
            }
        }
        waiting
    }

    async fn deliver(&mut self, batch: Vec<Waiting>) {
        let (items, alerts): (Vec<OutboxItem>, Vec<Alert>) = batch.into_iter().map(|w| (w.item, w.alert)).unzip();
        let (Some(head), Some(first)) = (items.first(), alerts.first()) else { return };
        let count = items.len() as u64;
        let ids: Vec<i64> = items.iter().map(|item| item.id).collect();
        let name = self.sink.settings.name.clone();
        failpoint!("delivery-before");
        let sent = self.sink.send(&alerts, (self.clock)()).await;
        failpoint!("delivery-sent");
        let now = Instant::now();
        self.sent_at(now, alerts.len());
        self.singly = self.singly.saturating_sub(1);
        match sent {
            Sent::Delivered => {
                tracing::info!(sink = %name, alert = %first.id, count, "delivered");
                self.works();
                self.observer.alerts(&name, Delivery::Delivered, count);
                self.remember(alerts);
                self.done(ids).await;
                self.unpark().await;
            }
            Sent::Refused { why } if alerts.len() > 1 && !self.pace.summarises => {
                tracing::warn!(sink = %name, count, %why, "refused together; sending them one by one");
                self.works();
                self.singly = alerts.len();
            }
            Sent::Refused { why } => {
                self.works();
                self.park(ids, &alerts, &why).await;
            }
            Sent::Retry { why, .. } if head.attempts + 1 >= ATTEMPTS_MAX => {
                self.fails(first, head, None, now);
                self.park(vec![head.id], &alerts[..1], &format!("given up after {ATTEMPTS_MAX} attempts: {why}")).await;
            }
            Sent::Retry { why, after } => {
                let pause = self.fails(first, head, after, now);
                tracing::warn!(sink = %name, alert = %first.id, count, %why, retry_in_s = pause.as_secs(), "not delivered");
                self.observer.alerts(&name, Delivery::Retried, count);
                let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
                let at = (self.clock)().checked_add(pause).unwrap_or(Timestamp::MAX);
                if let Err(fault) = self.outbox.retry(head.id, at).await {
                    tracing::warn!(sink = %name, %fault, "a failed attempt could not be recorded");
                }
            }
        }
    }

    fn sent_at(&mut self, now: Instant, alerts: usize) {
        if self.pace.each_per_minute == usize::MAX {
            return;
        }
        if alerts > 1 {
            self.last_summary = Some(now);
        } else {
            self.sent.push_back(now);
        }
    }

    fn works(&mut self) {
        self.failures = 0;
        self.worked = true;
        self.paused_until = Instant::now();
    }

    /// The sink pauses. If it had just worked, the fault may be this alert's, and its violation waits on its own;
    /// if it goes on failing, the fault is the sink's, and the order stays as it is.
    fn fails(&mut self, alert: &Alert, item: &OutboxItem, after: Option<Duration>, now: Instant) -> Duration {
        let alone = self.worked && self.failures == 0;
        self.failures += 1;
        let pause = BACKOFF.delay(self.failures, fraction()).max(after.unwrap_or_default());
        if alone {
            // Longer than the pause, so that the next attempt is another violation's and tells whose fault it is.
            let hold = BACKOFF.delay(item.attempts + 1, fraction()).max(pause * 2);
            self.held.insert(alert.fingerprint.clone(), now + hold);
        }
        self.paused_until = now + pause;
        // The number of attempts on record changes.
        self.page_read = None;
        pause
    }

    /// Refused for good: counted, logged, and told to another sink. The violation itself stays on record.
    async fn park(&mut self, ids: Vec<i64>, alerts: &[Alert], why: &str) {
        let name = self.sink.settings.name.clone();
        let Some(first) = alerts.first() else { return };
        let count = alerts.len() as u64;
        tracing::error!(sink = %name, alert = %first.id, about = %first.name(), count, %why, "refused for good, dropped");
        self.observer.alerts(&name, Delivery::Dropped, count);
        // An alert about a refusal that is itself refused is not worth another one.
        let worth_telling = alerts.iter().any(|a| matches!(a.subject, Subject::Image { .. }));
        let lately = self.last_parked.is_some_and(|at| at.elapsed() < PARKED_EVERY);
        if worth_telling && !lately {
            self.last_parked = Some(Instant::now());
            let message = format!("the sink `{name}` refused the alert \"{}\" for good: {why}", first.title());
            let alert = Alert::about_self(Topic::SinkParked, &name, &message, (self.clock)());
            self.parked = true;
            let trouble = Trouble { except: Some(name.to_string()), ..alert.into() };
            trouble::begins(&*self.outbox, &self.all, trouble).await;
        }
        self.done(ids).await;
    }

    /// It took something: what others were told of its refusal is over soon.
    async fn unpark(&mut self) {
        if !self.parked {
            return;
        }
        let until = (self.clock)().checked_add(PARKED_STAYS).unwrap_or(Timestamp::MAX);
        let noted = async {
            let mut troubles = Troubles::read(&*self.outbox, &self.all).await?;
            troubles.ends_at(Topic::SinkParked, &self.sink.settings.name, until);
            troubles.close().await
        };
        let noted: Result<(), StoreError> = noted.await;
        self.parked = noted.is_err();
    }

    /// What is not removed is sent again: better twice than never, and the key tells.
    async fn done(&mut self, ids: Vec<i64>) {
        self.page.retain(|w| !ids.contains(&w.item.id));
        if let Err(fault) = self.outbox.done(ids).await {
            tracing::warn!(sink = %self.sink.settings.name, %fault, "delivered alerts could not be removed and will be sent again");
        }
    }

    fn remember(&mut self, alerts: Vec<Alert>) {
        if self.next_refresh.is_none() {
            return;
        }
        let until = (self.clock)().checked_add(alertmanager::RESOLVED_FOR).unwrap_or(Timestamp::MAX);
        for alert in alerts {
            match alert.edge {
                Edge::Fired => self.resolved.remove(&alert.fingerprint),
                Edge::Resolved => self.resolved.insert(alert.fingerprint.clone(), (alert, until)),
            };
        }
    }

    /// Tells Alertmanager again of everything that is firing, from the record, and of what was resolved lately.
    /// It is in the same task as the delivery, so a refresh read before a resolution never arrives after it.
    async fn refresh(&mut self) {
        let now = (self.clock)();
        let mut paging = Paging { cursor: None, limit: PAGE };
        loop {
            let page = match self.outbox.firing(paging.clone()).await {
                Ok(page) => page,
                Err(fault) => {
                    tracing::warn!(sink = %self.sink.settings.name, %fault, "firing violations could not be read for the refresh");
                    return;
                }
            };
            let severities = &self.sink.settings.severities;
            let alerts: Vec<Alert> = page
                .items
                .iter()
                .filter(|row| !row.violation.preview && severities.contains(&row.violation.severity))
                .map(|row| Alert::of(&row.repository, &row.violation, Edge::Fired))
                .collect();
            for alert in &alerts {
                self.resolved.remove(&alert.fingerprint);
            }
            if !self.refresh_some(&alerts).await {
                return;
            }
            match page.next {
                Some(cursor) => paging.cursor = Some(cursor),
                None => break,
            }
        }
        if !self.refresh_troubles().await {
            return;
        }
        self.resolved.retain(|_, (_, until)| *until > now);
        let resolved: Vec<Alert> = self.resolved.values().map(|(alert, _)| alert.clone()).collect();
        self.refresh_some(&resolved).await;
    }

    /// The daemon's own troubles that are open, as [`refresh`](Self::refresh) tells violations.
    async fn refresh_troubles(&mut self) -> bool {
        let open = match trouble::open(&*self.outbox).await {
            Ok(open) => open,
            Err(fault) => {
                tracing::warn!(sink = %self.sink.settings.name, %fault, "the daemon's own troubles could not be read for the refresh");
                return false;
            }
        };
        let settings = &self.sink.settings;
        let here = |t: &Trouble| {
            settings.severities.contains(&t.alert.severity) && t.except.as_deref() != Some(&settings.name)
        };
        let alerts: Vec<Alert> = open.into_iter().filter(here).map(|trouble| trouble.alert).collect();
        for alert in &alerts {
            self.resolved.remove(&alert.fingerprint);
        }
        self.refresh_some(&alerts).await
    }

    /// Whether the sink works, so that going on makes sense.
    async fn refresh_some(&mut self, alerts: &[Alert]) -> bool {
        for chunk in alerts.chunks(self.pace.batch) {
            match self.sink.send(chunk, (self.clock)()).await {
                Sent::Delivered => self.works(),
                // The others in the array were taken; there is nothing to repeat before the next refresh.
                Sent::Refused { why } => {
                    tracing::error!(sink = %self.sink.settings.name, %why, "refused some of the alerts that are firing");
                }
                Sent::Retry { why, after } => {
                    tracing::warn!(sink = %self.sink.settings.name, %why, "firing alerts could not be told again");
                    if let Some(after) = after {
                        self.paused_until = Instant::now() + after;
                    }
                    return false;
                }
            }
        }
        true
    }
}

fn unsigned(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// A random number in 0..1, for jitter: the standard library seeds every `RandomState` differently.
fn fraction() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
