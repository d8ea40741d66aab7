//! A registry that is away, slow or asks for a pause: nothing is lost, nothing is made up, the others go on (G-08 to
//! G-10).

use std::time::{Duration, Instant};

use tidewaiter::pipeline::Reach;
use tidewaiter::policy::violation::Edge;
use tidewaiter::store::{EventRow, Paging, Store};
use tokio_util::sync::CancellationToken;

use crate::house::{House, PATIENCE, client, event};
use crate::shelf::{DEVICES, Mode, Shelf, index};
use crate::size;
use crate::support::program::eventually;

/// How long the queue of an outage may take to be worked off.
const DRAIN: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g08_a_registry_that_is_away_loses_nothing_and_no_verdict_is_made_up() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let mut house = House::on_disk(&path, [client(&fake, Duration::from_secs(2), 100_000)]);
    house.start();
    // 50 a second: in long, for three minutes.
    let (repositories, each, pause) = (10, size(20, 900), Duration::from_millis(size(20, 200) as u64));
    let tell = async |name: &str| {
        let mut waits = Vec::new();
        for n in 0..each {
            let mut batch = Vec::new();
            for r in 0..repositories {
                let (repository, tag) = (format!("iot/r{r}"), format!("1.{n}.{name}"));
                let digest = shelf.put(&repository, &tag, &index(&DEVICES[..1], &format!("{r}-{n}-{name}")));
                let key = format!("{r}-{n}-{name}");
                batch.push(event(&fake, &repository, Some(&tag), Some(&digest), &key, house.now()));
            }
            let begun = Instant::now();
            house.tell(batch).await;
            waits.push(begun.elapsed());
            tokio::time::sleep(pause).await;
        }
        waits.sort();
        waits[waits.len() * 95 / 100]
    };
    // The same while all is well, to compare with; it is judged.
    let well = tell("0").await;
    house.quiet_within(DRAIN).await;
    let judged = house.tags().await;
    assert_eq!(judged, shelf.all());
    shelf.set(Mode::Broken);
    let asked_before = fake.seen().len();
    let bytes_before = house.store.stats().await.unwrap().bytes;
    let begun = Instant::now();
    let slow = tell("1").await;
    let away = begun.elapsed();
    let asked = fake.seen().len() - asked_before;
    let stats = house.store.stats().await.unwrap();
    assert_eq!(stats.queued as usize, repositories * each);
    assert_eq!((house.violations().await.len(), house.tags().await), (0, judged), "nothing is made up");
    let newest = Paging { cursor: None, limit: 1_000 };
    for verdict in house.store.verdicts(None, None, None, newest).await.unwrap().items {
        let verdict: serde_json::Value = serde_json::from_str(&verdict).unwrap();
        // Of what came meanwhile it is said that nothing could be determined, or nothing.
        let meanwhile = verdict["image"]["tag"].as_str().unwrap().ends_with(".1");
        assert_eq!(verdict["outcome"], if meanwhile { "error" } else { "pass" }, "{verdict}");
    }
    let per_event = stats.bytes.saturating_sub(bytes_before) / stats.queued;
    // It is left alone: a probe now and then, whatever waits.
    assert!(asked < 40 + 4 * away.as_secs() as usize, "{asked} requests in {away:?}");
    shelf.set(Mode::Well);
    let back = Instant::now();
    house.quiet_within(DRAIN).await;
    assert_eq!(house.tags().await, shelf.all());
    assert_eq!(house.violations().await, vec![]);
    let drained = back.elapsed();
    let rows = all_events(&house).await;
    house.stop().await;
    let lost = 2 * repositories * each - rows.len();
    println!(
        "outage: {} events in {away:?} away, {asked} requests and {per_event} bytes an event meanwhile, handed over in \
         {slow:?} (p95; before it {well:?}); drained in {drained:?}; lost {lost}, unexpected 0, duplicated 0, \
         recovered {}",
        repositories * each,
        repositories * each
    );
    assert_eq!(lost, 0);
    assert!(rows.iter().all(|row| row.state == "judged"));
    assert!(drained < DRAIN, "{drained:?}");
    // The log beside the file is as long as it ever was; in short, it is most of it.
    assert!(!crate::long() || per_event <= 2_048, "{per_event} bytes an event");
    assert!(slow < well * 3 + Duration::from_millis(20), "{slow:?} after {well:?}");
}

/// All events on record.
async fn all_events(house: &House) -> Vec<EventRow> {
    let (mut paging, mut rows) = (Paging { cursor: None, limit: 1_000 }, Vec::new());
    loop {
        let page = house.store.events(None, None, None, paging.clone()).await.unwrap();
        rows.extend(page.items);
        match page.next {
            Some(next) => paging.cursor = Some(next),
            None => return rows,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_for_long_is_told_and_so_is_its_return() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(2), 100_000)]);
    shelf.set(Mode::Broken);
    house.start();
    let watch = |after: Duration| {
        let stop = CancellationToken::new();
        let host = fake.host().parse().unwrap();
        let reach = Reach { pipeline: house.pipeline.clone(), host, after };
        (stop.clone(), tokio::spawn(reach.run(stop)))
    };
    let (patient, waiting) = watch(PATIENCE);
    let (stop, watching) = watch(Duration::from_secs(1));
    let digest = shelf.put("iot/a", "1.0.0", &index(&DEVICES, "1"));
    house.tell(vec![event(&fake, "iot/a", Some("1.0.0"), Some(&digest), "1", house.now())]).await;
    let told = async |count: usize| {
        eventually("it is told", PATIENCE, async || Ok((house.troubles().await.len() >= count).then_some(())))
            .await
            .unwrap();
        house.troubles().await
    };
    let fired = ("registry-unreachable".to_owned(), Edge::Fired);
    assert_eq!(told(1).await, std::slice::from_ref(&fired));
    // A restart in between: the end is told all the same, and the outage not twice.
    for (stop, task) in [(patient, waiting), (stop, watching)] {
        stop.cancel();
        task.await.unwrap();
    }
    let (stop, watching) = watch(Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(house.troubles().await, std::slice::from_ref(&fired));
    shelf.set(Mode::Well);
    house.quiet().await;
    assert_eq!(told(2).await, [fired, ("registry-unreachable".to_owned(), Edge::Resolved)]);
    stop.cancel();
    watching.await.unwrap();
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g09_a_registry_that_never_answers_holds_up_no_other() {
    let (good, bad) = (Shelf::default(), Shelf::default());
    let (good_fake, bad_fake) = (good.serve().await, bad.serve().await);
    let timeout = Duration::from_secs(1);
    let mut house = House::new([client(&good_fake, timeout, 100_000), client(&bad_fake, timeout, 100_000)]);
    bad.set(Mode::Silent);
    house.start();
    // More repositories than there are places.
    for r in 0..40 {
        let repository = format!("iot/r{r}");
        let digest = bad.put(&repository, "1.0.0", &index(&DEVICES, "1"));
        house.tell(vec![event(&bad_fake, &repository, Some("1.0.0"), Some(&digest), "1", house.now())]).await;
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut worst = Duration::ZERO;
    for n in 0..size(20, 200) {
        let tag = format!("1.{n}.0");
        let digest = good.put("iot/a", &tag, &index(&DEVICES, &tag));
        let begun = Instant::now();
        house.tell(vec![event(&good_fake, "iot/a", Some(&tag), Some(&digest), &tag, house.now())]).await;
        eventually("it is judged", PATIENCE, async || {
            let tags = house.store.tags(&format!("{}/iot/a", good_fake.host()).parse()?, None, 1_000).await?;
            Ok(tags.iter().any(|(t, _)| t.as_str() == tag).then_some(()))
        })
        .await
        .unwrap();
        worst = worst.max(begun.elapsed());
    }
    assert!(worst < Duration::from_millis(900), "{worst:?}");
    bad.set(Mode::Well);
    house.quiet().await;
    assert_eq!(house.tags().await.len(), good.all().len() + bad.all().len());
    house.stop().await;
    println!("blackhole: the slowest of the others took {worst:?}; 0 lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_no_request_before_the_time_that_the_registry_asked_for() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(2), 100_000)]);
    shelf.set(Mode::Throttled(3));
    house.start();
    for r in 0..30 {
        let repository = format!("iot/r{r}");
        let digest = shelf.put(&repository, "1.0.0", &index(&DEVICES, "1"));
        house.tell(vec![event(&fake, &repository, Some("1.0.0"), Some(&digest), "1", house.now())]).await;
    }
    eventually("it was asked", PATIENCE, async || Ok((!fake.seen().is_empty()).then_some(()))).await.unwrap();
    let first = fake.seen()[0].at;
    shelf.set(Mode::Well);
    // What comes in the middle of the pause has to wait as well.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for r in 30..40 {
        let repository = format!("iot/r{r}");
        let digest = shelf.put(&repository, "1.0.0", &index(&DEVICES, "1"));
        house.tell(vec![event(&fake, &repository, Some("1.0.0"), Some(&digest), "1", house.now())]).await;
    }
    house.quiet().await;
    // Those in flight when the first answer came do not count.
    let early = fake
        .seen()
        .iter()
        .map(|s| s.at - first)
        .filter(|d| *d > Duration::from_millis(300) && *d < Duration::from_millis(2_900))
        .count();
    assert_eq!(early, 0);
    assert_eq!(house.tags().await, shelf.all());
    house.stop().await;
}
