//! The delivery loop in virtual time, with a way out that fails as told.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::super::deliver::Courier;
use super::super::message::{Alert, SinkInfo};
use super::super::sink::Sink;
use super::*;

struct House {
    outbox: Arc<Memory>,
    counts: Arc<Counts>,
    cancel: CancellationToken,
    sinks: Vec<SinkInfo>,
}

impl House {
    fn with(sinks: &[(&str, &Way)]) -> House {
        let house = House {
            outbox: Arc::default(),
            counts: Arc::default(),
            cancel: CancellationToken::new(),
            sinks: sinks.iter().map(|(name, _)| settings(name, "https://example.com/x").info()).collect(),
        };
        for (name, way) in sinks {
            house.open(name, way);
        }
        house
    }

    fn open(&self, name: &str, way: &Way) {
        let sink = Sink::new(settings(name, "https://example.com/x"), links(), way.clone()).unwrap();
        let all = self.sinks.clone().into();
        let courier = Courier::new(sink, self.outbox.clone(), all, clock(), self.counts.clone());
        tokio::spawn(courier.run(self.cancel.clone()));
    }

    /// Puts the firing (and if asked the resolution) of `tags` into the outbox of all sinks.
    fn tell(&self, tags: impl Iterator<Item = String>, edges: &[Edge]) {
        for tag in tags {
            let v = resolved(violation(&tag), "2026-11-22T13:00:00Z");
            let alerts = super::super::alerts_for(&[change(v, edges)], &repository(), &self.sinks);
            self.outbox.push(alerts);
        }
    }

    async fn until(&self, within: Duration, what: impl Fn(&House) -> bool) -> Duration {
        let begin = Instant::now();
        while !what(self) {
            assert!(begin.elapsed() < within, "not within {within:?}");
            tokio::time::sleep((within / 5000).max(Duration::from_millis(100))).await;
        }
        begin.elapsed()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// What a webhook was sent: (subject, type).
fn events(way: &Way) -> Vec<(String, String)> {
    let sent = way.sent.lock().unwrap();
    let read = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    sent.iter().map(|(_, out)| read(&out.body)).map(|v| (text(&v["subject"]), text(&v["type"]))).collect()
}

fn numbers(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|n| format!("1.0.{n}"))
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn t58_a_sink_that_is_down_for_a_day_loses_nothing_and_delays_no_other() {
    let up = Arc::new(AtomicBool::new(false));
    let broken = Way::new({
        let up = up.clone();
        move |_| if up.load(SeqCst) { answer(200, "") } else { Err(SendError::Connect("refused".into())) }
    });
    let well = Way::open();
    let house = House::with(&[("webhook-broken", &broken), ("webhook-well", &well)]);
    for hour in 0..24 {
        house.tell((0..100).map(|n| format!("{hour}.0.{n}")), &[Edge::Fired, Edge::Resolved]);
        let took = house.until(MINUTE, |h| h.outbox.left("webhook-well") == 0).await;
        assert!(took < Duration::from_secs(5), "the other sink waited {took:?}");
        tokio::time::sleep(HOUR).await;
    }
    let attempts: Vec<Instant> = broken.sent.lock().unwrap().iter().map(|(at, _)| *at).collect();
    let gaps: Vec<Duration> = attempts.windows(2).map(|w| w[1] - w[0]).collect();
    assert!((30..60).contains(&attempts.len()), "{} attempts in a day", attempts.len());
    assert!(gaps[0] >= Duration::from_secs(5) && gaps[0] < Duration::from_secs(21), "{:?}", gaps[0]);
    assert!(gaps.iter().all(|g| *g <= HOUR + Duration::from_secs(5)));
    assert_eq!(house.counts.of("webhook-broken", Delivery::Retried), attempts.len() as u64);

    up.store(true, SeqCst);
    broken.sent.lock().unwrap().clear();
    house.until(2 * HOUR, |h| h.outbox.left("webhook-broken") == 0).await;
    let all = events(&broken);
    let expected: Vec<(String, String)> = (0..24)
        .flat_map(|hour| (0..100).map(move |n| format!("iot/sensor:{hour}.0.{n}")))
        .flat_map(|s| ["firing", "resolved"].map(|e| (s.clone(), format!("dev.tidewaiter.violation.{e}.v1"))))
        .collect();
    assert_eq!(all, expected, "all, once, in order");
    assert_eq!(house.counts.of("webhook-broken", Delivery::Delivered), 4800);
    assert_eq!(house.counts.of("webhook-broken", Delivery::Dropped), 0);
    let drain = broken.sent.lock().unwrap();
    assert!(drain.last().unwrap().0 - drain[0].0 < 10 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn g14_ten_thousand_are_drained_within_ten_minutes() {
    let way = Way::open();
    let house = House::with(&[("webhook", &way), ("alertmanager", &way), ("slack", &way), ("teams", &way)]);
    house.tell(numbers(10_000), &[Edge::Fired]);
    for sink in ["webhook", "alertmanager", "slack", "teams"] {
        house.until(10 * MINUTE, |h| h.outbox.left(sink) == 0).await;
        assert_eq!(house.counts.of(sink, Delivery::Delivered), 10_000);
    }
}

#[tokio::test(start_paused = true)]
async fn t55_a_storm_is_summarised_worst_first_and_nothing_is_dropped() {
    for kind in ["slack", "teams"] {
        let way = Way::open();
        let house = House::with(&[(kind, &way)]);
        // 10,000 in a minute, one of them critical, near the end.
        for n in 0..10_000 {
            let mut v = violation(&format!("1.0.{n}"));
            v.severity = if n == 9_000 { Severity::Critical } else { Severity::Warning };
            house.outbox.push(super::super::alerts_for(&[change(v, &[Edge::Fired])], &repository(), &house.sinks));
            if n % 167 == 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        house.until(5 * MINUTE, |h| h.outbox.left(kind) == 0).await;
        let sent = way.sent.lock().unwrap();
        for (at, _) in sent.iter() {
            let minute = sent.iter().filter(|(t, _)| *t >= *at && *t < *at + MINUTE).count();
            assert!(minute <= 60, "{minute} messages in a minute");
        }
        assert_eq!(house.counts.of(kind, Delivery::Delivered), 10_000);
        let named = |out: &Outgoing| String::from_utf8_lossy(&out.body).contains("iot/sensor:1.0.9000");
        assert!(sent.iter().any(|(_, out)| named(out)), "the critical one is named");
    }
}

#[tokio::test(start_paused = true)]
async fn t55_incidents_are_paced_the_worst_first() {
    let way = Way::new(|_| answer(202, "{}"));
    let house = House::with(&[("pagerduty", &way)]);
    for n in 0..200 {
        let mut v = violation(&format!("1.0.{n}"));
        v.severity = if n == 199 { Severity::Critical } else { Severity::Warning };
        house.outbox.push(super::super::alerts_for(&[change(v, &[Edge::Fired])], &repository(), &house.sinks));
    }
    house.until(10 * MINUTE, |h| h.outbox.left("pagerduty") == 0).await;
    let sent = way.sent.lock().unwrap();
    assert_eq!(sent.len(), 200);
    assert!(String::from_utf8_lossy(&sent[0].1.body).contains("1.0.199"));
    assert!(sent.iter().all(|(at, _)| sent.iter().filter(|(t, _)| *t >= *at && *t < *at + MINUTE).count() <= 60));
}

#[tokio::test(start_paused = true)]
async fn t58_one_poisoned_alert_holds_only_its_own_violation() {
    let way = Way::new(|out| {
        if String::from_utf8_lossy(&out.body).contains("1.0.3\"") { answer(500, "cannot") } else { answer(200, "") }
    });
    let house = House::with(&[("webhook", &way)]);
    house.tell(numbers(10), &[Edge::Fired, Edge::Resolved]);
    house.until(MINUTE, |h| h.outbox.left("webhook") == 2).await;
    assert!(!events(&way).contains(&("iot/sensor:1.0.3".into(), "dev.tidewaiter.violation.resolved.v1".into())));
    house.tell(["2.0.0".into()].into_iter(), &[Edge::Fired]);
    house.until(MINUTE, |h| h.outbox.left("webhook") == 2).await;
    // In the end it is given up, and the rest of its violation goes out.
    let took = house.until(200 * HOUR, |h| h.outbox.left("webhook") < 2).await;
    assert!(took > 72 * HOUR, "given up after {took:?}");
    assert_eq!(house.counts.of("webhook", Delivery::Dropped), 1);
}

#[tokio::test(start_paused = true)]
async fn t58_what_is_refused_is_parked_and_told_to_another_sink() {
    let refusing = Way::new(|_| answer(410, "gone"));
    let well = Way::open();
    let house = House::with(&[("webhook-gone", &refusing), ("webhook-well", &well)]);
    house.tell(numbers(5), &[Edge::Fired]);
    house.until(MINUTE, |h| h.outbox.left("webhook-gone") == 0 && h.outbox.left("webhook-well") == 0).await;
    assert_eq!(house.counts.of("webhook-gone", Delivery::Dropped), 5);
    let told = events(&well);
    let daemon: Vec<_> = told.iter().filter(|(_, kind)| kind.starts_with("dev.tidewaiter.daemon.")).collect();
    assert_eq!(daemon, [&("webhook-gone".to_owned(), "dev.tidewaiter.daemon.firing.v1".to_owned())], "once an hour");
    assert_eq!(refusing.sent.lock().unwrap().len(), 5, "never repeated");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_alerts_again_is_soon_told_to_be_well() {
    let gone = Arc::new(AtomicBool::new(true));
    let way = Way::new({
        let gone = gone.clone();
        move |_| if gone.load(SeqCst) { answer(410, "gone") } else { answer(200, "") }
    });
    let well = Way::open();
    let house = House::with(&[("webhook-gone", &way), ("webhook-well", &well)]);
    let open = || async { super::super::trouble::open(&*house.outbox).await.unwrap() };
    house.tell(numbers(1), &[Edge::Fired]);
    house.until(MINUTE, |h| h.outbox.left("webhook-gone") == 0).await;
    let until = |open: Vec<super::super::Trouble>| open.into_iter().map(|t| t.until).collect::<Vec<_>>();
    house.until(MINUTE, |h| !h.outbox.values.lock().unwrap().is_empty()).await;
    assert_eq!(until(open().await), [None], "nothing says that it is over");
    gone.store(false, SeqCst);
    house.tell(numbers(1), &[Edge::Resolved]);
    house.until(MINUTE, |h| h.outbox.left("webhook-gone") == 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(until(open().await)[..], [Some(_)]));
}

#[tokio::test(start_paused = true)]
async fn an_alertmanager_is_told_again_of_open_troubles() {
    let way = Way::open();
    let house = House::with(&[("alertmanager", &way)]);
    let alert =
        Alert::about_self(super::super::Topic::RegistryUnreachable, "r.example", "away", at("2026-11-22T12:00:00Z"));
    super::super::begins(&*house.outbox, &house.sinks, alert.into()).await;
    let count = || {
        way.sent.lock().unwrap().iter().filter(|(_, o)| String::from_utf8_lossy(&o.body).contains("r.example")).count()
    };
    house.until(30 * MINUTE, |_| count() > 20).await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_and_the_id_stays() {
    let full = Arc::new(AtomicBool::new(true));
    let way = Way::new({
        let full = full.clone();
        move |_| {
            if full.swap(false, SeqCst) {
                let busy = answer(429, "");
                return busy.map(|a| Answer { retry_after: Some(Duration::from_secs(900)), ..a });
            }
            answer(200, "")
        }
    });
    let house = House::with(&[("webhook", &way)]);
    house.tell(numbers(2), &[Edge::Fired]);
    house.until(HOUR, |h| h.outbox.left("webhook") == 0).await;
    let sent = way.sent.lock().unwrap();
    assert_eq!(sent.len(), 3);
    assert!(sent[1].0 - sent[0].0 >= Duration::from_secs(900));
    let header = |n: usize, name: &str| sent[n].1.headers.iter().find(|(h, _)| h == name).unwrap().1.clone();
    assert_eq!(sent[0].1.body, sent[1].1.body);
    assert_eq!(header(0, "webhook-id"), header(1, "webhook-id"));
    assert_ne!(header(0, "webhook-timestamp"), header(1, "webhook-timestamp"));
    assert_ne!(header(0, "webhook-id"), header(2, "webhook-id"));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_order_is_kept() {
    let down = Way::new(|_| Err(SendError::Timeout));
    let house = House::with(&[("webhook", &down)]);
    house.tell(numbers(1), &[Edge::Fired]);
    tokio::time::sleep(HOUR).await;
    house.cancel.cancel();
    tokio::time::sleep(HOUR).await;
    let up = Way::open();
    let again = House {
        outbox: house.outbox.clone(),
        cancel: CancellationToken::new(),
        counts: Arc::default(),
        sinks: house.sinks.clone(),
    };
    again.outbox.push(super::super::alerts_for(
        &[change(resolved(violation("1.0.0"), "2026-11-22T13:00:00Z"), &[Edge::Resolved])],
        &repository(),
        &again.sinks,
    ));
    again.open("webhook", &up);
    again.until(MINUTE, |h| h.outbox.left("webhook") == 0).await;
    let kinds: Vec<String> = events(&up).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["dev.tidewaiter.violation.firing.v1", "dev.tidewaiter.violation.resolved.v1"]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_cannot_be_read_is_no_stopper() {
    let way = Way::open();
    let house = House::with(&[("webhook", &way)]);
    house.outbox.push(vec![NewAlert { sink: "webhook".into(), key: "k".into(), body: "{".into() }]);
    house.tell(numbers(1), &[Edge::Fired]);
    house.until(MINUTE, |h| h.outbox.left("webhook") == 0).await;
    assert_eq!(
        (house.counts.of("webhook", Delivery::Dropped), house.counts.of("webhook", Delivery::Delivered)),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn one_bad_alert_in_an_array_does_not_take_the_others_along() {
    let way = Way::new(|out| {
        if String::from_utf8_lossy(&out.body).contains("\"1.0.7\"") { answer(400, "bad") } else { answer(200, "") }
    });
    let house = House::with(&[("alertmanager", &way)]);
    house.tell(numbers(20), &[Edge::Fired]);
    house.until(MINUTE, |h| h.outbox.left("alertmanager") == 0).await;
    assert_eq!(house.counts.of("alertmanager", Delivery::Delivered), 19);
    assert_eq!(house.counts.of("alertmanager", Delivery::Dropped), 1);
}

#[tokio::test(start_paused = true)]
async fn alertmanager_is_told_again_every_minute_and_of_the_end_for_five() {
    let way = Way::open();
    let house = House::with(&[("alertmanager", &way)]);
    *house.outbox.firing.lock().unwrap() = (0..2500)
        .map(|n| ViolationRow { repository: repository(), violation: violation(&format!("1.0.{n}")) })
        .collect();
    let alerts = |from: usize| -> Vec<Value> {
        let sent = way.sent.lock().unwrap();
        sent[from..].iter().flat_map(|(_, out)| serde_json::from_slice::<Vec<Value>>(&out.body).unwrap()).collect()
    };
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(alerts(0).len(), 3 * 2500, "at the start and every minute");

    house.outbox.firing.lock().unwrap().clear();
    house.tell(["9.9.9".into()].into_iter(), &[Edge::Resolved]);
    let from = way.sent.lock().unwrap().len();
    tokio::time::sleep(10 * MINUTE).await;
    let told = alerts(from);
    assert!((5..=6).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|a| a["labels"]["tag"] == "9.9.9"));
    // Firing again, it is told as resolved no more.
    house.tell(["9.9.9".into()].into_iter(), &[Edge::Resolved, Edge::Fired]);
    let from = way.sent.lock().unwrap().len();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(alerts(from).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn slack_must_say_ok() {
    let way = Way::new(|_| answer(200, "<html>sign in</html>"));
    let house = House::with(&[("slack", &way)]);
    house.tell(numbers(1), &[Edge::Fired]);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(house.outbox.left("slack"), 1);
    assert!(house.counts.of("slack", Delivery::Retried) > 1);
}

#[tokio::test]
async fn a_cluster_is_told_as_a_whole_and_one_member_is_enough() {
    let mut sink = settings("alertmanager", "http://a.example:9093/");
    sink.kind = SinkKind::Alertmanager {
        urls: ["http://a.example:9093/", "http://b.example:9093/prefix"].map(target).to_vec(),
        auth: None,
    };
    let way = Way::new(|out| match out.target.uri().unwrap().path() {
        "/api/v2/alerts" => Err(SendError::Timeout),
        "/prefix/api/v2/alerts" => answer(200, ""),
        other => panic!("{other}"),
    });
    let sink = Sink::new(sink, links(), way.clone()).unwrap();
    let alert = Alert::test(at("2026-11-22T12:00:00Z"));
    assert_eq!(sink.send(&[alert], at("2026-11-22T12:00:00Z")).await, super::super::sink::Sent::Delivered);
    assert_eq!(way.sent.lock().unwrap().len(), 2);
}
