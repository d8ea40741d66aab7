//! What makes a step fail: other tags are not delayed, and nothing waits for a lease to run out.

use std::time::Duration;

use tidewaiter::event::Action;
use tidewaiter::store::{Paging, Store, StoreError};

use crate::house::{House, PATIENCE, client, event};
use crate::shelf::{DEVICES, Mode, Shelf, index, single};
use crate::support::program::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_whose_record_is_damaged_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::on_disk(&path, [client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    let tell = async |house: &House, tag: &str, version: &str| {
        let digest = shelf.put("iot/a", tag, &index(&DEVICES, version));
        let key = format!("{tag} {version}");
        house.tell(vec![event(&fake, "iot/a", Some(tag), Some(&digest), &key, house.now())]).await;
    };
    for tag in ["1.0.0", "2.0.0", "3.0.0"] {
        tell(&house, tag, tag).await;
    }
    house.quiet().await;
    house.stop().await;
    drop(house);
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute("UPDATE tags SET sightings = x'ff' WHERE tag = '1.0.0'", []).unwrap();
    drop(conn);

    let mut house = House::on_disk(&path, [client(&fake, Duration::from_secs(5), 100_000)]);
    for tag in ["1.0.0", "2.0.0", "3.0.0"] {
        tell(&house, tag, &format!("{tag} moved")).await;
    }
    house.start();
    // Long before the lease would have run out.
    eventually("the others are judged", Duration::from_secs(20), async || {
        Ok((house.violations().await.len() == 2).then_some(()))
    })
    .await
    .unwrap();
    let events = house.store.events(None, None, None, Paging { cursor: None, limit: 10 }).await.unwrap().items;
    let waiting: Vec<_> =
        events.iter().filter(|e| e.state == "retrying").map(|e| e.tag.as_ref().unwrap().as_str()).collect();
    assert_eq!(waiting, ["1.0.0"]);
    let repository = format!("{}/iot/a", fake.host()).parse().unwrap();
    assert!(
        matches!(house.store.tags(&repository, None, 10).await, Err(StoreError::Damaged { .. })),
        "it is really damaged"
    );
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tags_at_once_have_each_a_budget_of_their_own() {
    // So many that the requests for as many tags as one step takes are more than one tag may need.
    const MANY: [&str; 5] = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "linux/ppc64le"];
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    // The baseline of the repository has a budget of its own, and takes in what is there; so it comes first.
    let digest = shelf.put("iot/a", "0.0.1", &index(&MANY, "0"));
    house.tell(vec![event(&fake, "iot/a", Some("0.0.1"), Some(&digest), "0", house.now())]).await;
    house.quiet().await;
    house.stop().await;
    let mut events = Vec::new();
    for n in 0..120 {
        let tag = format!("1.{n}.0");
        let digest = shelf.put("iot/a", &tag, &index(&MANY, &tag));
        events.push(event(&fake, "iot/a", Some(&tag), Some(&digest), &tag, house.now()));
    }
    house.tell(events).await;
    house.start();
    house.quiet().await;
    let events = house.store.events(None, None, None, Paging { cursor: None, limit: 1_000 }).await.unwrap().items;
    assert!(events.iter().all(|e| e.state == "judged" && e.fault.is_none()), "none was tried twice");
    let metrics = house.pipeline.metrics.encode().unwrap();
    let series = metrics.lines().filter(|line| line.starts_with("tidewaiter_verdicts_total{"));
    let undetermined: Vec<&str> = series.filter(|l| l.contains("outcome=\"error\"") && !l.ends_with(" 0")).collect();
    assert_eq!(undetermined, Vec::<&str>::new(), "nor was any verdict put off");
    assert_eq!(house.tags().await, shelf.all());
    assert_eq!(house.violations().await, vec![]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_bytes_that_are_not_what_their_digest_says_pass_no_policy() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    let digest = shelf.put("iot/a", "1.0.0", &index(&DEVICES, "1"));
    shelf.set(Mode::Lying);
    house.start();
    house.tell(vec![event(&fake, "iot/a", Some("1.0.0"), Some(&digest), "1", house.now())]).await;
    let verdict = eventually("a verdict", PATIENCE, async || {
        Ok(house.store.verdicts(None, None, None, Paging { cursor: None, limit: 10 }).await?.items.pop())
    })
    .await
    .unwrap();
    let verdict: serde_json::Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(verdict["outcome"], "error", "{verdict:#}");
    assert_eq!(house.tags().await.len(), 0, "and it is not on record as if it were there");
    shelf.set(Mode::Well);
    house.quiet().await;
    assert_eq!(house.tags().await, shelf.all());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_taken_away_takes_its_violations_with_it_even_beside_a_step() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    for n in 0..10 {
        let tag = format!("1.{n}.0");
        let digest = shelf.put("iot/a", &tag, &single(&tag));
        house.tell(vec![event(&fake, "iot/a", Some(&tag), Some(&digest), &tag, house.now())]).await;
        if n == 5 {
            let other = crate::house::POLICY.replace("name: iot", "name: other").replace("*/iot/**", "*/elsewhere/**");
            house.pipeline.policies.store(std::sync::Arc::new(crate::house::policies(&other)));
            assert!(house.pipeline.policies_changed().await);
        }
    }
    house.quiet().await;
    eventually("nothing is open", PATIENCE, async || Ok(house.violations().await.is_empty().then_some(())))
        .await
        .unwrap();
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_deleted_as_a_whole_is_looked_at_tag_by_tag() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let mut house = House::new([client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    for n in 0..40 {
        shelf.put("iot/a", &format!("1.{n}.0"), &index(&DEVICES, &n.to_string()));
    }
    // No tag in the event: the baseline takes all in.
    house.tell(vec![event(&fake, "iot/a", None, None, "hello", house.now())]).await;
    eventually("the baseline", PATIENCE, async || Ok((house.tags().await == shelf.all()).then_some(()))).await.unwrap();
    for n in 0..40 {
        shelf.untag("iot/a", &format!("1.{n}.0"));
    }
    let mut gone = event(&fake, "iot/a", None, None, "gone", house.now());
    gone.event.action = Action::Delete;
    house.tell(vec![gone]).await;
    eventually("all are gone", PATIENCE, async || Ok(house.tags().await.is_empty().then_some(()))).await.unwrap();
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_that_change_while_the_store_fails_are_put_to_the_record_later() {
    let shelf = Shelf::default();
    let fake = shelf.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let mut house = House::on_disk(&file, [client(&fake, Duration::from_secs(5), 100_000)]);
    house.start();
    let digest = shelf.put("iot/a", "1.0.0", &single("1.0.0"));
    house.tell(vec![event(&fake, "iot/a", Some("1.0.0"), Some(&digest), "a", house.now())]).await;
    house.quiet().await;
    let open = async || Ok((!house.violations().await.is_empty()).then_some(()));
    eventually("one image is no index", PATIENCE, open).await.unwrap();
    house.stop().await;
    assert!(house.pipeline.policies_changed().await);
    let store = house.store.clone();
    let pending = async || store.stats().await.unwrap().rejudging;
    let before = pending().await;

    let other = crate::house::POLICY.replace("name: iot", "name: other").replace("*/iot/**", "*/elsewhere/**");
    house.pipeline.policies.store(std::sync::Arc::new(crate::house::policies(&other)));
    // Somebody holds the file: nothing can be written.
    let holder = rusqlite::Connection::open(&file).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(!house.pipeline.policies_changed().await, "the store cannot be written");
    holder.execute_batch("ROLLBACK").unwrap();
    assert!(house.pipeline.policies_changed().await);
    assert_eq!(pending().await, before.max(1), "the repository waits to be judged again");
    house.start();
    eventually("nothing is open", PATIENCE, async || Ok(house.violations().await.is_empty().then_some(())))
        .await
        .unwrap();
    eventually("nothing waits", PATIENCE, async || Ok((pending().await == 0).then_some(()))).await.unwrap();
    house.stop().await;
}
