//! Starts: with much on record and much that waits (G-32), and from a copy that was made under load (G-34).

use std::time::{Duration, Instant};

use tidewaiter::store::embedded::EmbeddedStore;
use tidewaiter::store::{Paging, Store};

use crate::house::{House, PATIENCE, SMALL, client, event};
use crate::real::{Real, binary};
use crate::shelf::{DEVICES, Shelf, bare, index};
use crate::size;
use crate::support::program::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g32_much_on_record_and_much_that_waits_delay_no_start() {
    let mut real = Real::start(None, binary()).await;
    real.daemon.stop().await.unwrap();
    let (tags, waiting, repositories) = (size(20_000, 1_000_000), size(2_000, 100_000), size(20, 1_000));
    {
        let store = EmbeddedStore::open(&real.store, SMALL).unwrap();
        let now = jiff::Timestamp::now();
        for first in (0..waiting).step_by(1_000) {
            let number = |n: usize| {
                let (repository, tag) = (format!("iot/w{}", n % repositories), format!("1.{}.0", n / repositories));
                let digest = real.shelf.put(&repository, &tag, &bare(&n.to_string()));
                event(&real.registry, &repository, Some(&tag), Some(&digest), &n.to_string(), now)
            };
            store.append((first..(first + 1_000).min(waiting)).map(number).collect(), vec![]).await.unwrap();
        }
    }
    // History by the million goes in beside the program: through it, it would take as long as it took its owners.
    let conn = rusqlite::Connection::open(&real.store).unwrap();
    let (digest, sightings) = one_history().await;
    conn.execute_batch("PRAGMA synchronous = off; PRAGMA journal_mode = wal").unwrap();
    conn.execute(
        "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?1)
         INSERT INTO tags(repo, tag, digest, sightings)
         SELECT 1 + n % (SELECT count(*) FROM repositories), 'h' || n, ?2, ?3 FROM n",
        rusqlite::params![tags as i64, digest, sightings],
    )
    .unwrap();
    drop(conn);

    let begun = Instant::now();
    real.daemon.again().await.unwrap();
    let ready = begun.elapsed();
    eventually("the first decision", PATIENCE, async || {
        Ok((!real.daemon.list("verdicts", &[("limit", "1")]).await?.is_empty()).then_some(()))
    })
    .await
    .unwrap();
    let first = begun.elapsed();
    println!(
        "start: {tags} tags on record and {waiting} events waiting; ready after {ready:?}, first decision {first:?}"
    );
    assert!(ready < Duration::from_secs(3), "{ready:?}");
    assert!(first < Duration::from_secs(5), "{first:?}");
    real.daemon.program().kill().unwrap();
}

/// The digest and the evidence of a tag, as the store writes them.
async fn one_history() -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::on_disk(&path, [client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    let digest = shelf.put("iot/a", "1.0.0", &index(&DEVICES, "1"));
    house.tell(vec![event(&fake, "iot/a", Some("1.0.0"), Some(&digest), "1", house.now())]).await;
    house.quiet().await;
    house.stop().await;
    drop(house);
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.query_row("SELECT digest, sightings FROM tags", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g34_from_a_copy_made_under_load_a_sweep_closes_the_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("s.db"), folder.path().join("copy.db"));
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::on_disk(&path, [client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    let count = size(200, 4_000);
    let push = async |house: &House, n: usize, version: &str| {
        let (repository, tag) = (format!("iot/r{}", n % 10), format!("1.{}.0", n / 10));
        let digest = shelf.put(&repository, &tag, &index(&DEVICES, &format!("{n} {version}")));
        let key = format!("{n} {version}");
        house.tell(vec![event(&fake, &repository, Some(&tag), Some(&digest), &key, house.now())]).await;
    };
    let mut copying = None;
    for n in 0..count {
        push(&house, n, "first").await;
        if n == count / 2 {
            let (path, copy) = (path.clone(), copy.clone());
            copying = Some(tokio::task::spawn_blocking(move || EmbeddedStore::backup(&path, &copy)));
        }
    }
    copying.unwrap().await.unwrap().unwrap();
    house.quiet().await;
    // After the copy, versions move: the worst that it could not know.
    let moved = count / 20;
    for n in 0..moved {
        push(&house, n, "moved").await;
    }
    house.quiet().await;
    assert_eq!(house.violations().await.len(), moved);
    let before = all(&house).await;
    house.stop().await;
    drop(house);

    assert_eq!(EmbeddedStore::verify(&copy).unwrap().faults, Vec::<String>::new());
    let mut house = House::on_disk(&copy, [client(&fake, Duration::from_secs(5), 100_000)]);
    let restored = all(&house).await;
    let missing = before.len() - restored.len();
    assert!(missing >= moved && before.starts_with(&restored), "what was copied is all that came before a moment");
    house.start();
    house.quiet().await;
    let sweep = house.reconcile(&fake, Duration::from_secs(3_600), true).sweep(|_| {}).await.unwrap();
    house.agrees(&shelf, moved).await;
    house.stop().await;
    println!(
        "copy: {} events, {} in the copy, {missing} after it; the sweep found {} changes; lost 0, unexpected 0",
        before.len(),
        restored.len(),
        sweep.drift + sweep.first
    );
}

/// Ids of all events in order.
async fn all(house: &House) -> Vec<String> {
    let (mut paging, mut ids) = (Paging { cursor: None, limit: 1_000 }, Vec::new());
    loop {
        let page = house.store.events(None, None, None, paging.clone()).await.unwrap();
        ids.extend(page.items.into_iter().map(|row| row.id.unwrap()));
        match page.next {
            Some(next) => paging.cursor = Some(next),
            None => break,
        }
    }
    ids.reverse();
    ids
}
