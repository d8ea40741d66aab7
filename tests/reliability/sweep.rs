//! What no event told is found, within one interval, and without a false alarm (G-11).

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use jiff::SignedDuration;
use tidewaiter::clock::{Clock, SetClock, SystemClock};
use tidewaiter::event::Action;
use tidewaiter::policy::violation::Edge;
use tidewaiter::store::Store;
use tidewaiter::store::embedded::EmbeddedStore;
use tokio_util::sync::CancellationToken;

use crate::house::{House, PATIENCE, POLICY, SMALL, client, event};
use crate::random::Random;
use crate::shelf::{DEVICES, Mode, Shelf, index, requests};
use crate::size;
use crate::support::program::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g11_what_no_event_told_is_found_in_one_sweep() {
    let mut random = Random::new("sweep");
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    let pushes = size(300, 5_000);
    let repositories = 10;
    let (mut dropped, mut moved) = (0, 0);
    for push in 0..pushes {
        let repository = format!("iot/r{}", push % repositories);
        let tag = format!("1.{}.0", push / repositories);
        let digest = shelf.put(&repository, &tag, &index(&DEVICES, &format!("{push}")));
        if random.below(10) == 0 {
            dropped += 1;
        } else {
            let told = event(&fake, &repository, Some(&tag), Some(&digest), &push.to_string(), house.now());
            house.tell(vec![told]).await;
        }
    }
    house.quiet().await;
    // The baseline of each repository is on record; now tags move, appear and go, and nobody says so.
    let reconcile = house.reconcile(&fake, Duration::from_secs(3600), true);
    reconcile.sweep(|_| {}).await.unwrap();
    eventually("the record is as the registry", PATIENCE, async || {
        Ok((house.tags().await == shelf.all()).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(house.violations().await, vec![], "nothing is wrong, so nothing is said");
    let all: Vec<_> = shelf.all().into_iter().collect();
    for (n, (repository, tag, _)) in all.iter().enumerate() {
        if n % 10 == 0 {
            shelf.put(repository, tag, &index(&DEVICES, &format!("moved {n}")));
            moved += 1;
        }
    }
    shelf.untag("iot/r1", "1.1.0");
    shelf.put("iot/r2", "9.0.0", &index(&DEVICES, "new"));
    let before = fake.seen().len();
    let sweep = reconcile.sweep(|_| {}).await.unwrap();
    let asked = fake.seen().len() - before;
    house.agrees(&shelf, moved).await;
    assert_eq!((sweep.drift, sweep.failed, sweep.repositories), (moved as u64 + 2, 0, repositories as u64));
    // One HEAD a tag, a list a repository, the catalog, a few below indexes; and the content of what changed.
    let most = all.len() + 2 + repositories * (2 + 16) + 1 + (moved + 2) * 10;
    assert!(asked <= most, "{asked} requests for {} tags", all.len());
    // Nothing new: nothing found.
    let again = reconcile.sweep(|_| {}).await.unwrap();
    assert_eq!(again.drift, 0);
    house.stop().await;
    println!(
        "sweep: {pushes} pushes, {dropped} never told, {moved} moved in silence; 0 lost, 0 unexpected, {asked} requests"
    );
}

/// A token for some repositories cannot list them; named in the configuration, they are swept all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_that_are_named_are_swept_where_none_are_listed() {
    let shelf = Shelf::default();
    shelf.set(Mode::Unlisted);
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    for repository in ["iot/named", "iot/other"] {
        shelf.put(repository, "1.0.0", &index(&DEVICES, repository));
    }
    let mut reconcile = house.reconcile(&fake, Duration::from_secs(3600), true);
    let (host, named) = (reconcile.host.clone(), ["iot/named".to_owned(), "iot/gone".to_owned()]);
    reconcile.plan = tidewaiter::pipeline::Plan::new(Duration::from_secs(3600), &host, &named).unwrap();
    let sweep = reconcile.sweep(|_| {}).await.unwrap();
    assert_eq!((sweep.repositories, sweep.failed), (2, 0), "one of them is not there any more");
    eventually("what is named is on record, and nothing else", PATIENCE, async || {
        let tags: Vec<String> = house.tags().await.into_iter().map(|(repository, ..)| repository).collect();
        Ok((tags == ["iot/named"]).then_some(()))
    })
    .await
    .unwrap();
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_child_is_noticed_by_its_event_and_by_a_sweep() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    let build = index(&DEVICES, "1");
    let child = |n: usize| build.children[n].manifest.digest();
    let mut digest = String::new();
    for repository in ["iot/told", "iot/silent"] {
        digest = shelf.put(repository, "1.0.0", &build);
        house.tell(vec![event(&fake, repository, Some("1.0.0"), Some(&digest), repository, house.now())]).await;
    }
    house.quiet().await;
    assert_eq!(house.violations().await, vec![]);
    let broken = |repository: &'static str| {
        let house = &house;
        async move |there: bool| {
            eventually("whether the index is broken", PATIENCE, async || {
                let open = house.violations().await;
                let found = open.iter().any(|row| {
                    row.repository.name.as_str() == repository && row.violation.key.rule.as_str() == "intact"
                });
                Ok((found == there).then_some(()))
            })
            .await
            .unwrap();
        }
    };

    let mut gone = event(&fake, "iot/told", None, Some(&child(1)), "gone", house.now());
    gone.event.action = Action::Delete;
    // Said, and not so: nothing changes.
    house.tell(vec![gone.clone()]).await;
    house.quiet().await;
    assert_eq!(house.violations().await, vec![]);
    shelf.delete("iot/told", &child(1));
    gone.key = "gone again".into();
    house.tell(vec![gone]).await;
    broken("iot/told")(true).await;
    // Pushed again: whole again.
    shelf.put("iot/told", "1.0.0", &build);
    house.tell(vec![event(&fake, "iot/told", None, Some(&child(1)), "back", house.now())]).await;
    broken("iot/told")(false).await;

    shelf.delete("iot/silent", &child(2));
    let sweep = house.reconcile(&fake, Duration::from_secs(3600), true).sweep(|_| {}).await.unwrap();
    assert_eq!(sweep.drift, 1);
    broken("iot/silent")(true).await;
    house.stop().await;
    assert!(!digest.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_baseline_leaves_what_is_on_record_as_it_is() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    // One that cannot be listed yet, and another that was seen before: as if a baseline had been cut short.
    let first = shelf.put("iot/a", "1.0.0", &index(&DEVICES, "1"));
    house.start();
    house.tell(vec![event(&fake, "iot/a", Some("1.0.0"), Some(&first), "1", house.now())]).await;
    house.quiet().await;
    house.stop().await;
    house.pipeline.baselined.lock().unwrap().clear();
    house.store.set(&format!("baseline {}/iot/a", fake.host()), "").await.unwrap();
    let second = shelf.put("iot/a", "1.0.0", &index(&DEVICES, "2"));
    house.start();
    house.tell(vec![event(&fake, "iot/a", Some("1.0.0"), Some(&second), "2", house.now())]).await;
    eventually("the move is seen", PATIENCE, async || Ok((house.violations().await.len() == 1).then_some(())))
        .await
        .unwrap();
    let before = requests(&fake, "tags/list");
    house.stop().await;
    assert!(before >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_was_cut_short_goes_on_where_it_was() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    for name in ["a", "b", "c", "d"] {
        shelf.put(&format!("iot/{name}"), "1.0.0", &index(&DEVICES, name));
    }
    let reconcile = house.reconcile(&fake, Duration::from_secs(3600), true);
    {
        // Dropped in the middle, as a shutdown does it.
        let reached = std::sync::Mutex::new(0);
        let sweep = reconcile.sweep(|progress| *reached.lock().unwrap() = progress.done);
        tokio::pin!(sweep);
        std::future::poll_fn(|context| match sweep.as_mut().poll(context) {
            Poll::Ready(_) => panic!("it was to be cut short"),
            Poll::Pending if *reached.lock().unwrap() >= 2 => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
    }
    let last = house.store.get(&format!("sweep {}", fake.host())).await.unwrap().unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    reconcile.sweep(|progress| order.lock().unwrap().push(progress.repository.name.to_string())).await.unwrap();
    let order = order.into_inner().unwrap();
    assert_eq!(order.len(), 4, "all of them, since there was a gap");
    // On a busy machine the cut may come after the last of them, and then there is nothing behind it.
    let behind = order[0] > last || last == "iot/d";
    assert!(behind && *order.last().unwrap() == last, "{last}: {order:?}");
    assert_eq!(house.store.get(&format!("sweep {}", fake.host())).await.unwrap().as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_hook_is_told_and_so_is_its_return() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let clock = SetClock::at(SystemClock.now());
    let store = EmbeddedStore::open_in_memory(SMALL).unwrap();
    let client = client(&fake, Duration::from_secs(5), 100_000);
    let mut house = House::with(store, [client], std::sync::Arc::new(clock.clone()), POLICY);
    house.start();
    let digest = shelf.put("iot/a", "1.0.0", &index(&DEVICES, "1"));
    house.tell(vec![event(&fake, "iot/a", Some("1.0.0"), Some(&digest), "1", house.now())]).await;
    house.quiet().await;
    let stop = CancellationToken::new();
    // The interval is short; the clock stands, so the hook is heard as of now.
    let reconcile = house.reconcile(&fake, Duration::from_secs(1), true);
    let sweeping = tokio::spawn(reconcile.run(stop.clone()));
    shelf.put("iot/a", "1.1.0", &index(&DEVICES, "2"));
    eventually("the drift is found", PATIENCE, async || Ok((house.tags().await.len() == 2).then_some(())))
        .await
        .unwrap();
    assert_eq!(house.troubles().await, vec![], "one missed event is no silence");
    clock.advance(SignedDuration::from_secs(60));
    shelf.put("iot/a", "1.2.0", &index(&DEVICES, "3"));
    eventually("the silence is told", PATIENCE, async || Ok((house.troubles().await.len() == 1).then_some(())))
        .await
        .unwrap();
    let digest = shelf.put("iot/a", "1.3.0", &index(&DEVICES, "4"));
    house.tell(vec![event(&fake, "iot/a", Some("1.3.0"), Some(&digest), "2", house.now())]).await;
    eventually("the return is told", PATIENCE, async || Ok((house.troubles().await.len() == 2).then_some(())))
        .await
        .unwrap();
    let edges: Vec<_> = house.troubles().await;
    assert_eq!(edges, [("hook-silent".to_owned(), Edge::Fired), ("hook-silent".to_owned(), Edge::Resolved)]);
    stop.cancel();
    sweeping.await.unwrap();
    house.stop().await;
    shelf.set(Mode::Well);
}
