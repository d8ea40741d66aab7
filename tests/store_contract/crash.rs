//! Killed at any moment, the store has every event that it acknowledged (T-44).
//!
//! The child is this very test program, run again with a store to write to; it says on its standard output
//! what was acknowledged. `TIDEWAITER_KILLS` makes the run longer.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidewaiter::store::embedded::EmbeddedStore;
use tidewaiter::store::{EventEnd, Step, Store, StoreError};

use crate::embedded::SMALL;
use crate::kit::*;

const CHILD: &str = "TIDEWAITER_TEST_STORE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = std::sync::Arc::new(EmbeddedStore::open(&PathBuf::from(path), SMALL).unwrap());
    let run = std::process::id();
    println!("\nready");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0.. {
                let key = format!("{run}-{writer}-{n}");
                store.append(vec![event(&format!("r{writer}"), &key, n)], vec![]).await.unwrap();
                // One write, so that lines do not mix.
                println!("ack {key}");
            }
        });
    }
    // Beside them a worker, so that steps are cut short as well. Each step writes a tag and its alert together.
    for n in 0.. {
        for claim in store.claim(t(n), 2, 3, LEASE).await.unwrap() {
            let last = claim.events.last().unwrap().incoming.key.clone();
            let step = Step {
                events: claim.events.iter().map(|e| (e.id, EventEnd::Judged)).collect(),
                tags: vec![update(&last, Some("x"), 1)],
                alerts: vec![alert("s", &format!("{}-{last}", claim.repository.name))],
                ..Step::default()
            };
            store.complete(&claim, step, false).await.unwrap();
        }
    }
}

#[tokio::test]
async fn t44_what_was_acknowledged_survives_kill_9() {
    let kills: u64 = std::env::var("TIDEWAITER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let seed: u64 = std::env::var("TIDEWAITER_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let mut acknowledged = HashSet::new();
    let mut random = seed;
    for _ in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while lines.next().unwrap().unwrap() != "ready" {}
        // The time of death is random; the child ends at whatever it does then.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_millis(20 + (random >> 33) % 400);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(life);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in lines.map_while(Result::ok) {
            if let Some(key) = line.strip_prefix("ack ") {
                acknowledged.insert(key.to_owned());
            }
        }
        killer.join().unwrap();
        let store = EmbeddedStore::open(&path, SMALL).unwrap();
        store.probe().await.unwrap();
    }
    assert!(acknowledged.len() > 20, "only {} events were acknowledged", acknowledged.len());

    assert_eq!(EmbeddedStore::verify(&path).unwrap().faults, Vec::<String>::new());
    let store = EmbeddedStore::open(&path, SMALL).unwrap();
    let mut paging = pages(1_000);
    let (mut found, mut waiting) = (HashSet::new(), 0);
    loop {
        let page = store.events(None, None, None, paging.clone()).await.unwrap();
        for event in page.items {
            waiting += u64::from(event.state == "queued");
            assert!(found.insert(event.id.unwrap().trim_start_matches("id-").to_owned()), "twice on record");
        }
        let Some(next) = page.next else { break };
        paging.cursor = Some(next);
    }
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{} lost of {}: {lost:?}", lost.len(), acknowledged.len());
    assert_eq!(store.stats().await.unwrap().queued, waiting);
    // A step is whole or not there: a tag for each alert.
    let alerts = store.outbox("s", t(0), 1_000_000).await.unwrap();
    let mut tags = 0;
    for repository in store.repositories(None, None, 100).await.unwrap() {
        tags += store.tags(&repository, None, 1_000_000).await.unwrap().len();
    }
    assert_eq!(alerts.len(), tags);
    println!("{} acknowledged, {} found, {kills} kills", acknowledged.len(), found.len());
}

/// Set for the child that writes into a limit on the size of files: a write that fails, and not for lack of space.
const LIMITED: &str = "TIDEWAITER_TEST_LIMITED_STORE";

#[tokio::test]
async fn child_that_writes_until_writing_fails() {
    let Ok(path) = std::env::var(LIMITED) else { return };
    let store = EmbeddedStore::open(&PathBuf::from(path), SMALL).unwrap();
    for n in 0.. {
        let key = n.to_string();
        match store.append(vec![event("a", &key, n)], vec![]).await {
            Ok(_) => println!("\nack {key}"),
            Err(StoreError::Broken(why)) => {
                assert_eq!(store.broken().await, why);
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    for n in 0..10 {
        let again = store.append(vec![event("a", &format!("again{n}"), n)], vec![]).await;
        assert!(matches!(again, Err(StoreError::Broken(_))));
    }
    println!("\nbroken");
}

#[tokio::test]
async fn g05_a_failed_write_ends_acknowledging_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_writes_until_writing_fails", "--nocapture", "--test-threads=1"])
        .env(LIMITED, &path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().any(|line| line == "broken"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged = said.lines().filter(|line| line.starts_with("ack ")).count();
    assert!(acknowledged > 10);
    // A start after it is clean, and has what was acknowledged; what was not may be there or not.
    let store = EmbeddedStore::open(&path, SMALL).unwrap();
    let queued = store.stats().await.unwrap().queued;
    assert!((acknowledged as u64..=acknowledged as u64 + 1).contains(&queued), "{acknowledged} of {queued}");
    store.append(vec![event("a", "after", 1)], vec![]).await.unwrap();
    drop(store);
    assert_eq!(EmbeddedStore::verify(&path).unwrap().faults, Vec::<String>::new());
}
