//! The embedded store: the contract in a file and in memory, and what only a file can go through.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tidewaiter::policy::{Question, State};
use tidewaiter::store::embedded::{EmbeddedStore, Options};
use tidewaiter::store::{Content, ContentKind, Retention, Step, Store, StoreError, ViolationFilter};

use crate::kit::*;

/// No reserve: it would be written anew for each of many small stores.
pub const SMALL: Options =
    Options { backlog_events: 1_000_000, backlog_bytes: 2 << 30, reserve_bytes: 0, file_bytes_max: None };

macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod file {
            $(#[tokio::test]
            async fn $promise() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::EmbeddedStore::open(&dir.path().join("s.db"), super::SMALL).unwrap();
                crate::contract::$promise(store).await;
            })*
        }
        mod memory {
            $(#[tokio::test]
            async fn $promise() {
                let store = super::EmbeddedStore::open_in_memory(super::SMALL).unwrap();
                crate::contract::$promise(store).await;
            })*
        }
    };
}
contract! {
    an_event_comes_back_as_it_was_handed_over,
    t15_a_redelivery_is_a_duplicate_for_ever,
    events_of_a_repository_come_in_order_and_to_one_worker,
    t66_a_clock_that_steps_back_hides_no_event,
    t14_sources_take_turns,
    g19_a_lost_claim_writes_nothing,
    an_event_is_retried_at_its_time,
    the_earlier_recheck_wins_and_none_is_lost,
    who_waits_for_work_is_woken,
    a_step_is_written_whole,
    a_violation_is_entered_once_and_kept,
    listings_page_newest_first,
    the_outbox_is_in_order_and_retries,
    t15_dead_letters_are_kept_as_they_came,
    an_accepted_digest_stays_with_its_tag,
    repositories_and_tags_come_in_name_order,
    named_values_are_kept,
    more_evidence_of_a_tag_changes_nothing_else,
    pruning_takes_what_is_old_and_leads_nowhere,
    pruning_keeps_so_many_of_the_newest,
    pruning_keeps_verdicts_and_violations_by_time_and_number,
    pruning_keeps_so_many_bytes_of_manifests,
    a_recheck_keeps_why_and_how_often,
    what_is_put_off_comes_back_in_its_time,
    what_is_gone_is_no_answer_until_it_is_fetched_again,
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, SMALL).unwrap()
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = open(&path);
    let step = Step {
        tags: vec![update("1", Some("x"), 1)],
        changes: vec![violation("p", "1", State::Firing)],
        alerts: vec![alert("s", "k")],
        ..Step::default()
    };
    write(&store, "a", 1, step).await;
    store.append(vec![event("a", "1", 1), event("b", "2", 2)], vec![]).await.unwrap();
    let held = claim(&store, 3).await;
    assert_eq!(held.len(), 2);
    let before = store.stats().await.unwrap();
    drop(store);
    assert!(!path.with_file_name("s.db-wal").exists(), "closed, the file is whole without its log");

    let store = open(&path);
    let after = store.stats().await.unwrap();
    assert_eq!(
        (after.queued, after.oldest, &after.violations, &after.outbox),
        (2, Some(t(1)), &before.violations, &before.outbox)
    );
    // What the ended process held is free at once, and its claims are worth nothing.
    assert_eq!(claim(&store, 3).await.len(), 2);
    assert!(matches!(store.complete(&held[0], Step::default(), false).await, Err(StoreError::Fenced(_))));
    assert_eq!(store.tags(&repo("a"), None, 9).await.unwrap().len(), 1);
    assert_eq!(store.violations(ViolationFilter::default(), pages(9)).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn t14_a_full_backlog_refuses_and_drops_nothing() {
    let limits = [Options { backlog_events: 3, ..SMALL }, Options { backlog_bytes: 900, ..SMALL }];
    for options in limits {
        let store = EmbeddedStore::open_in_memory(options).unwrap();
        store.append((0..3).map(|n| event("a", &n.to_string(), n)).collect(), vec![]).await.unwrap();
        let begun = Instant::now();
        let full = store.append(vec![event("a", "4", 4), event("a", "5", 5)], vec![]).await;
        assert_eq!(full, Err(StoreError::BacklogFull { events: 3 }));
        assert!(begun.elapsed() < Duration::from_millis(500));
        // A redelivery of what is on record is no news.
        assert_eq!(store.append(vec![event("a", "1", 4)], vec![]).await.unwrap().duplicate, 1);
        assert_eq!(store.events(None, None, None, pages(9)).await.unwrap().items.len(), 3);
        let claimed = claim(&store, 9).await.remove(0);
        let judged = (claimed.events[0].id, tidewaiter::store::EventEnd::Judged);
        store.complete(&claimed, Step { events: vec![judged], ..Step::default() }, false).await.unwrap();
        store.append(vec![event("a", "4", 4)], vec![]).await.unwrap();
    }
}

#[test]
fn t53_only_the_owner_reads_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/for/it/s.db");
    let store = open(&path);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.probe()).unwrap();
    EmbeddedStore::backup(&path, &dir.path().join("copy.db")).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for name in ["s.db", "s.db-wal", "s.db-shm", "s.db.lock", "../../../copy.db"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
}

#[test]
fn t48_a_second_process_is_refused_and_a_stale_lock_is_not_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    std::fs::write(dir.path().join("s.db.lock"), "1234567\nleft behind, and longer than a number").unwrap();
    let store = open(&path);
    let begun = Instant::now();
    let second = EmbeddedStore::open(&path, SMALL).err().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(second, StoreError::InUse { path: path.display().to_string(), pid: Some(std::process::id()) });
    drop(store);
    open(&path);
}

#[test]
fn t67_a_newer_format_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    drop(open(&path));
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&path).unwrap();
    for refused in [EmbeddedStore::open(&path, SMALL).err(), EmbeddedStore::info(&path).err()] {
        let Some(StoreError::Newer { found: 99, .. }) = refused else { panic!("{refused:?}") };
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(a)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(EmbeddedStore::open(&path, SMALL), Err(StoreError::Damaged { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(matches!(
        EmbeddedStore::open(dir.path(), SMALL),
        Err(StoreError::Unusable { .. } | StoreError::Unavailable(_))
    ));
    assert!(matches!(EmbeddedStore::info(&dir.path().join("none.db")), Err(StoreError::Unusable { .. })));
}

async fn filled(path: &Path) {
    let store = open(path);
    let bytes = br#"{"schemaVersion":2,"manifests":[]}"#;
    let content = Content {
        digest: tidewaiter::image::Digest::of(bytes),
        kind: ContentKind::Manifest,
        media_type: String::new(),
        bytes: bytes[..].into(),
        children: vec![d("child")],
    };
    let mut seen = update("1", Some("x"), 1);
    seen.lines = vec![place("l", b"g", b"r")];
    let step = Step {
        contents: vec![content],
        tags: vec![seen],
        verdicts: vec![judged("a", Some("1"), "p", "{}")],
        changes: vec![violation("p", "1", State::Firing)],
        alerts: vec![alert("s", "k")],
        ..Step::default()
    };
    write(&store, "a", 1, step).await;
    store.append(vec![event("a", "1", 1)], vec![]).await.unwrap();
}

/// Reads all there is; whatever is wrong must come back as an error.
async fn read_all(path: &Path) -> Result<(), StoreError> {
    let store = EmbeddedStore::open(path, SMALL)?;
    let a = repo("a");
    store.stats().await?;
    store.tags(&a, None, 100).await?;
    store.violations(ViolationFilter::default(), pages(100)).await?;
    store.verdicts(None, None, None, pages(100)).await?;
    store.events(None, None, None, pages(100)).await?;
    let manifest = tidewaiter::image::Digest::of(br#"{"schemaVersion":2,"manifests":[]}"#);
    store.answer(&a, vec![Question::Manifest(manifest), Question::Parents(d("child"))]).await?;
    for claim in store.claim(t(100), 10, 10, LEASE).await? {
        store.complete(&claim, Step { tags: vec![update("2", Some("y"), 2)], ..Step::default() }, false).await?;
    }
    store.append(vec![event("c", "9", 1)], vec![]).await?;
    Ok(())
}

#[tokio::test]
async fn t45_a_damaged_file_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.db");
    filled(&whole).await;
    let bytes = std::fs::read(&whole).unwrap();
    let path = dir.path().join("hurt.db");
    // Every byte in a long run, a spread of them otherwise; never the same ones twice in a page.
    let step = std::env::var("TIDEWAITER_LONG").map_or(997, |_| 7);
    let mut refused = 0;
    let hurts: [fn(&mut Vec<u8>, usize); 4] = [
        |bytes, at| bytes[at] ^= 0xff,
        |bytes, at| bytes.truncate(at),
        |bytes, at| {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
        },
        |bytes, at| bytes.insert(at, bytes[at]),
    ];
    for (n, at) in (0..bytes.len()).step_by(step).enumerate() {
        let mut hurt = bytes.clone();
        hurts[n % hurts.len()](&mut hurt, at);
        for name in ["hurt.db", "hurt.db-wal", "hurt.db-shm"] {
            let _ = std::fs::remove_file(dir.path().join(name));
        }
        std::fs::write(&path, hurt).unwrap();
        let _ = EmbeddedStore::verify(&path);
        refused += usize::from(read_all(&path).await.is_err());
    }
    assert!(refused > 10, "{refused}");
    for garbage in [
        &b"not a database, but long enough to be taken for one: it has more than a hundred bytes, and then some more"[..],
        b"x",
    ] {
        std::fs::write(&path, garbage).unwrap();
        assert!(matches!(EmbeddedStore::open(&path, SMALL), Err(StoreError::Damaged { .. })));
    }
}

#[tokio::test]
async fn t45_bytes_that_do_not_hash_to_their_digest_are_never_judged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    filled(&path).await;
    assert_eq!(EmbeddedStore::verify(&path).unwrap().faults, Vec::<String>::new());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(15).position(|w| w == b"{\"schemaVersion").unwrap();
    bytes[at + 17] = b'3';
    std::fs::write(&path, bytes).unwrap();
    // It is no answer, so the registry is asked; what comes from there mends the record.
    let store = open(&path);
    let manifest = br#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = tidewaiter::image::Digest::of(manifest);
    assert_eq!(store.answer(&repo("a"), vec![Question::Manifest(digest.clone())]).await.unwrap(), []);
    drop(store);
    let verification = EmbeddedStore::verify(&path).unwrap();
    assert_eq!((verification.faults.len(), verification.contents, verification.tags > 0), (1, 1, true));
    let store = open(&path);
    let content = Content {
        digest: digest.clone(),
        kind: ContentKind::Manifest,
        media_type: String::new(),
        bytes: manifest.as_slice().into(),
        children: Vec::new(),
    };
    write(&store, "a", 50, Step { contents: vec![content], ..Step::default() }).await;
    assert_eq!(store.answer(&repo("a"), vec![Question::Manifest(digest.clone())]).await.unwrap().len(), 1);
    drop(store);
    assert_eq!(EmbeddedStore::verify(&path).unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn g34_a_copy_of_a_store_at_work_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = std::sync::Arc::new(open(&path));
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..400 {
                store.append(vec![event("a", &n.to_string(), n)], vec![]).await.unwrap();
            }
        }
    });
    let copies: Vec<_> = (0..5).map(|n| dir.path().join(format!("copy{n}.db"))).collect();
    for copy in &copies {
        let (path, copy) = (path.clone(), copy.clone());
        tokio::task::spawn_blocking(move || EmbeddedStore::backup(&path, &copy)).await.unwrap().unwrap();
    }
    writing.await.unwrap();
    assert!(matches!(EmbeddedStore::backup(&path, &copies[0]), Err(StoreError::Unusable { .. })));
    assert_eq!(EmbeddedStore::info(&path).unwrap().events, 400);
    let mut before = 0;
    for copy in &copies {
        assert_eq!(EmbeddedStore::verify(copy).unwrap().faults, Vec::<String>::new());
        let copied = open(copy);
        let events = copied.events(None, None, None, pages(1_000)).await.unwrap().items;
        // A prefix: what is there is all that came before.
        assert!(events.len() >= before && events.iter().map(|e| e.number).eq((1..=events.len() as i64).rev()));
        before = events.len();
    }
}

#[tokio::test]
async fn what_is_pruned_is_given_back_to_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = open(&path);
    for n in 0..40 {
        store.append((0..100).map(|m| event("a", &format!("{n}-{m}"), 1)).collect(), vec![]).await.unwrap();
    }
    let claimed = store.claim(t(40), 1, 10_000, LEASE).await.unwrap().remove(0);
    let events = claimed.events.iter().map(|e| (e.id, tidewaiter::store::EventEnd::Judged)).collect();
    store.complete(&claimed, Step { events, ..Step::default() }, false).await.unwrap();
    drop(store);
    let full = std::fs::metadata(&path).unwrap().len();
    let store = open(&path);
    let pruned = store.prune(Retention { events_max: 0, ..Retention::default() }, t(40)).await.unwrap();
    assert_eq!(pruned.events, 4_000);
    drop(store);
    let empty = std::fs::metadata(&path).unwrap().len();
    assert!(empty < full / 3, "{empty} of {full}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_does_not_stop_intake() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(&dir.path().join("s.db")));
    for n in 0..40 {
        store.append((0..500).map(|m| event("a", &format!("{n}-{m}"), 1)).collect(), vec![]).await.unwrap();
    }
    let claimed = store.claim(t(40), 1, 20_000, LEASE).await.unwrap().remove(0);
    let events = claimed.events.iter().map(|e| (e.id, tidewaiter::store::EventEnd::Judged)).collect();
    store.complete(&claimed, Step { events, ..Step::default() }, false).await.unwrap();
    let pruning = {
        let store = store.clone();
        tokio::spawn(async move { store.prune(Retention { events_max: 0, ..Retention::default() }, t(40)).await })
    };
    let (mut appended, mut slowest) = (0, std::time::Duration::ZERO);
    while !pruning.is_finished() {
        let begun = std::time::Instant::now();
        store.append(vec![event("b", &format!("new-{appended}"), 1)], vec![]).await.unwrap();
        slowest = slowest.max(begun.elapsed());
        appended += 1;
    }
    assert_eq!(pruning.await.unwrap().unwrap().events, 20_000);
    // In its turn among the pieces, long before all of it is over.
    assert!(appended >= 10, "{appended} appended while 20,000 were removed");
    assert!(slowest < std::time::Duration::from_secs(1), "{slowest:?}");
    assert_eq!(store.stats().await.unwrap().queued, appended);
}

#[tokio::test]
async fn t46_a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    drop(open(&path));
    let store = EmbeddedStore::open(&path, Options { file_bytes_max: Some(600 << 10), ..SMALL }).unwrap();
    let mut recorded = 0;
    let full = loop {
        let events = (0..20).map(|n| event("a", &format!("{recorded}-{n}"), 1)).collect();
        match store.append(events, vec![]).await {
            Ok(appended) => recorded += u64::from(appended.recorded),
            Err(fault) => break fault,
        }
        assert!(recorded < 100_000, "never full");
    };
    assert_eq!(full, StoreError::DiskFull);
    assert!(full.is_transient());
    // Nothing that was acknowledged is lost, nothing that was refused is there.
    assert_eq!(EmbeddedStore::info(&path).unwrap().events, recorded);
    assert_eq!(store.stats().await.unwrap().queued, recorded);
    drop(store);
    let store = open(&path);
    store.append(vec![event("a", "after", 1)], vec![]).await.unwrap();
    assert_eq!(EmbeddedStore::verify(&path).unwrap().faults, Vec::<String>::new());
}

/// A small file system of its own; `None` where mounting is not allowed.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(mebibytes: u32) -> Option<Mounted> {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|s| s.success()).then(|| Mounted(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn t46_on_a_full_disk_the_reserve_serves_what_is_on_record() {
    let Some(disk) = Mounted::new(8) else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let path = disk.0.path().join("s.db");
    let options = Options { reserve_bytes: 2 << 20, ..SMALL };
    let store = EmbeddedStore::open(&path, options).unwrap();
    store.outbox_add((0..50).map(|n| alert("s", &n.to_string())).collect()).await.unwrap();
    let mut recorded = 0;
    let full = loop {
        let events = (0..50).map(|n| event("a", &format!("{recorded}-{n}"), 1)).collect();
        match store.append(events, vec![]).await {
            Ok(appended) => recorded += u64::from(appended.recorded),
            Err(fault) => break fault,
        }
    };
    assert_eq!(full, StoreError::DiskFull);
    assert!(recorded > 100);
    // Refused quickly, again and again, while alerts are delivered and events judged.
    for n in 0..20 {
        let begun = Instant::now();
        assert_eq!(store.append(vec![event("b", &n.to_string(), 1)], vec![]).await, Err(StoreError::DiskFull));
        assert!(begun.elapsed() < Duration::from_secs(1));
        let due = store.outbox("s", t(9), 1).await.unwrap();
        store.outbox_done(vec![due[0].id]).await.unwrap();
        let claims = store.claim(t(9), 1, 5, Duration::ZERO).await.unwrap();
        let events = claims[0].events.iter().map(|e| (e.id, tidewaiter::store::EventEnd::Judged)).collect();
        store.complete(&claims[0], Step { events, ..Step::default() }, false).await.unwrap();
    }
    assert_eq!(store.probe().await, Err(StoreError::DiskFull));
    assert_eq!(store.stats().await.unwrap().queued, recorded - 100);
    // Space returns; intake goes on without a restart, within seconds.
    let status =
        std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(disk.0.path()).status().unwrap();
    assert!(status.success());
    let begun = Instant::now();
    while store.append(vec![event("b", "after", 1)], vec![]).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(store);
    assert_eq!(EmbeddedStore::verify(&path).unwrap().faults, Vec::<String>::new());
}
