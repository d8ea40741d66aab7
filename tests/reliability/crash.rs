//! Killed again and again, cut off from its sink, stopped in order: everything acknowledged is judged, once (G-01,
//! G-14, G-31).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::real::{Real, binary, recorded};
use crate::size;
use crate::support::program::eventually;

const LONG: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g01_nothing_acknowledged_is_lost_by_kill_9_and_nothing_is_decided_twice() {
    let mut random = Random::new("kill -9");
    let mut real = Real::start(None, binary()).await;
    let (count, per_second) = (size(300, 10_000), size(75, 150));
    let every = size(700, 2_000) as u64;
    let sending = real.send(0, count, per_second, LONG);
    let mut kills = 0;
    while !sending.is_done() {
        tokio::time::sleep(Duration::from_millis(every / 2 + random.next() % every)).await;
        real.daemon.program().kill().unwrap();
        kills += 1;
        real.daemon.again().await.unwrap();
    }
    let sent = sending.done().await;
    assert_eq!(sent.acknowledged.len(), count, "the sender gave up");
    eventually("each push is told", LONG, async || Ok((real.told().0.len() >= count).then_some(()))).await.unwrap();
    real.daemon.stop().await.unwrap();
    let (told, deliveries) = real.told();
    let recorded = recorded(&real.store).await;
    let lost = sent.acknowledged.iter().filter(|id| !recorded.ids.contains_key(*id)).count();
    let unexpected = recorded.ids.keys().filter(|id| !sent.ids.contains(*id)).count();
    let twice = recorded.ids.values().filter(|n| **n > 1).count();
    let decided_twice = told.values().filter(|ids| ids.len() > 1).count();
    let distinct: usize = told.values().map(std::collections::BTreeSet::len).sum();
    println!(
        "kill -9: {count} acknowledged, {kills} kills; lost {lost}, unexpected {unexpected}, recorded twice {twice}, \
         decided twice {decided_twice}, recovered {}, delivered again with the same id {}; answers {:?}",
        sent.again,
        deliveries - distinct,
        sent.answers
    );
    assert!(kills >= 3 && sent.ids.len() * 5 >= count * 4, "too little happened");
    assert_eq!((lost, unexpected, twice, decided_twice), (0, 0, 0, 0));
    assert_eq!((distinct, recorded.states.get("judged").copied()), (count, Some(count)));
    assert_eq!(recorded.tags, real.shelf.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g31_a_stop_under_load_ends_in_time_and_loses_nothing() {
    let mut real = Real::start(None, binary()).await;
    let (count, stops) = (size(200, 4_000), size(2, 10));
    let sending = real.send(0, count, size(100, 200), LONG);
    let mut slowest = Duration::ZERO;
    for _ in 0..stops {
        tokio::time::sleep(Duration::from_millis(size(500, 1_500) as u64)).await;
        let begun = Instant::now();
        let status = real.daemon.stop().await.unwrap();
        slowest = slowest.max(begun.elapsed());
        assert!(status.success(), "{status}: {}", real.daemon.program().last_words());
        real.daemon.again().await.unwrap();
    }
    let sent = sending.done().await;
    assert_eq!(sent.acknowledged.len(), count, "the sender gave up");
    eventually("each push is told", LONG, async || Ok((real.told().0.len() >= count).then_some(()))).await.unwrap();
    real.daemon.stop().await.unwrap();
    let recorded = recorded(&real.store).await;
    let lost = sent.acknowledged.iter().filter(|id| !recorded.ids.contains_key(*id)).count();
    let (told, _) = real.told();
    let decided_twice = told.values().filter(|ids| ids.len() > 1).count();
    println!(
        "stops: {stops} under load, {count} acknowledged; lost {lost}, decided twice {decided_twice}, recovered {}; \
         slowest end {slowest:?}; answers {:?}",
        sent.again, sent.answers
    );
    // While it ends it refuses with a word, or takes no connection.
    assert!(sent.answers.keys().all(|status| [0, 202, 503].contains(status)), "{:?}", sent.answers);
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert_eq!((lost, decided_twice), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g14_a_sink_that_is_away_loses_nothing() {
    let mut real = Real::start(None, binary()).await;
    real.sink_away.store(true, Ordering::SeqCst);
    let count = size(60, 1_000);
    let sent = real.send(0, count, 100, LONG).done().await;
    assert_eq!(sent.acknowledged.len(), count);
    // A restart in between, so that what waits has to be on disk.
    let status = real.daemon.stop().await.unwrap();
    assert!(status.success(), "{status}");
    real.sink_away.store(false, Ordering::SeqCst);
    let before = real.sink.seen().len();
    real.daemon.again().await.unwrap();
    eventually("each push is told", LONG, async || {
        let told = real.sink.seen().len() - before;
        Ok((told >= count).then_some(()))
    })
    .await
    .unwrap();
    let (told, deliveries) = real.told();
    assert!(told.values().all(|ids| ids.len() == 1), "one id each, whatever happened");
    assert_eq!(told.len(), count);
    println!("sink away: {count} alerts, {deliveries} attempts, 0 lost, 0 with two ids");
}
