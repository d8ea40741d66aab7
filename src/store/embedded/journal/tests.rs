use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::event::{Action, Event, Stage};
use crate::image::Repository;
use crate::store::embedded::{EmbeddedStore, Options};
use crate::store::{EventEnd, Paging, Step, Store};

/// So small that the files take turns after a few appends.
const TINY: Sizes = Sizes { turn: 4 << 10, ahead: 1 << 10, most: u64::MAX };
const OPTIONS: Options =
    Options { backlog_events: 1_000_000, backlog_bytes: 2 << 30, reserve_bytes: 0, file_bytes_max: None };

fn open(path: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open_with(path, OPTIONS, TINY)
}

fn incoming(number: u32) -> Incoming {
    let repository: Repository = format!("contoso.azurecr.io/r{}", number % 3).parse().unwrap();
    Incoming {
        source: "acr".into(),
        event: Event {
            stage: Stage::Done,
            action: Action::Push,
            registry: None,
            repository: repository.name.clone(),
            tag: Some("1.0".parse().unwrap()),
            digest: None,
            id: Some(number.to_string()),
            at: None,
            actor: Some("x".repeat(number as usize % 700)),
        },
        repository,
        key: number.to_string(),
        received_at: Timestamp::from_second(1_800_000_000).unwrap(),
    }
}

fn letter(number: u32) -> DeadLetter {
    DeadLetter {
        id: 0,
        source: "acr".into(),
        received_at: Timestamp::from_second(1_800_000_000).unwrap(),
        fault: number.to_string(),
        headers: Vec::new(),
        body: vec![b'x'; number as usize % 3_000].into(),
    }
}

/// A store in a folder, and what it acknowledged.
struct Kept {
    folder: TempDir,
    store: Option<EmbeddedStore>,
    /// Every event in the order in which it was first acknowledged.
    events: Vec<u32>,
    letters: usize,
    judged: usize,
}

impl Kept {
    fn new() -> Kept {
        let folder = tempfile::tempdir().unwrap();
        let store = Some(open(&folder.path().join("s.db")).unwrap());
        Kept { folder, store, events: Vec::new(), letters: 0, judged: 0 }
    }

    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s.db")
    }

    async fn append(&mut self, numbers: &[u32], letters: usize) {
        let dead = (0..letters).map(|n| letter(n as u32)).collect();
        let appended = self.store().append(numbers.iter().copied().map(incoming).collect(), dead).await.unwrap();
        let before = self.events.len();
        for number in numbers {
            if !self.events.contains(number) {
                self.events.push(*number);
            }
        }
        assert_eq!(appended.recorded as usize, self.events.len() - before);
        assert_eq!((appended.recorded + appended.duplicate) as usize, numbers.len());
        self.letters += letters;
    }

    async fn judge(&mut self, repositories: usize, events: usize) {
        let now = Timestamp::from_second(1_900_000_000).unwrap();
        for claim in self.store().claim(now, repositories, events, Duration::from_secs(9)).await.unwrap() {
            let done = claim.events.iter().map(|event| (event.id, EventEnd::Judged)).collect();
            self.store().complete(&claim, Step { events: done, ..Step::default() }, false).await.unwrap();
            self.judged += claim.events.len();
        }
    }

    /// The process ends as by `kill -9`, in the middle of writing one more frame of which `torn` bytes are there.
    fn crash(&mut self, torn: &[u8]) {
        let after = tempfile::tempdir().unwrap();
        let position = *self.store().shared.front.position();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_str().unwrap().ends_with("-shm") {
                std::fs::copy(entry.path(), after.path().join(entry.file_name())).unwrap();
            }
        }
        let end = position.ends[position.current];
        let file = File::options().write(true).open(after.path().join(format!("s.db{}", FILES[position.current])));
        file.unwrap().write_all_at(torn, end).unwrap();
        drop(self.store.take());
        self.folder = after;
        self.store = Some(open(&self.path()).unwrap());
    }

    async fn check(&self) {
        let all = |limit| Paging { cursor: None, limit };
        let rows = self.store().events(None, None, None, all(1_000)).await.unwrap().items;
        let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for number in rows.iter().rev().map(|row| row.id.as_ref().unwrap().parse::<u32>().unwrap()) {
            found.entry(number % 3).or_default().push(number);
        }
        let mut wanted: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for number in &self.events {
            wanted.entry(number % 3).or_default().push(*number);
        }
        assert_eq!(found, wanted, "each repository's events, in order");
        assert_eq!(self.store().dead_letters(all(1_000)).await.unwrap().items.len(), self.letters);
        let stats = self.store().stats().await.unwrap();
        assert_eq!(
            (stats.queued as usize, stats.dead_letters as usize),
            (self.events.len() - self.judged, self.letters)
        );
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Append(Vec<u32>, usize),
    Judge(usize, usize),
    Crash(Vec<u8>),
    Close,
    Check,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => (proptest::collection::vec(0..300_u32, 0..6), 0..2_usize).prop_map(|(n, letters)| Deed::Append(n, letters)),
        4 => (1..4_usize, 1..6_usize).prop_map(|(repositories, events)| Deed::Judge(repositories, events)),
        2 => proptest::collection::vec(any::<u8>(), 0..2_000).prop_map(Deed::Crash),
        1 => Just(Deed::Close),
        1 => Just(Deed::Check),
    ]
}

proptest! {
    // Each case is many starts.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 10, ..ProptestConfig::default() })]
    #[test]
    fn t44_whatever_comes_in_between_what_was_acknowledged_is_there_once_and_in_order(
        deeds in proptest::collection::vec(deed(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut kept = Kept::new();
            for deed in deeds {
                match deed {
                    Deed::Append(numbers, letters) => kept.append(&numbers, letters).await,
                    Deed::Judge(repositories, events) => kept.judge(repositories, events).await,
                    Deed::Crash(torn) => kept.crash(&torn),
                    Deed::Close => {
                        drop(kept.store.take());
                        for name in FILES {
                            assert!(!file::beside(&kept.path(), name).exists(), "closed, the store is one file");
                        }
                        kept.store = Some(open(&kept.path()).unwrap());
                    }
                    Deed::Check => kept.check().await,
                }
            }
            kept.check().await;
            kept.crash(&[]);
            kept.check().await;
        });
    }
}

#[tokio::test]
async fn the_files_take_turns_and_stay_small() {
    let mut kept = Kept::new();
    let mut turns = 0;
    for number in 0..300 {
        let before = kept.store().shared.front.position().current;
        kept.append(&[number], 0).await;
        kept.judge(3, 100).await;
        turns += usize::from(kept.store().shared.front.position().current != before);
    }
    assert!(turns > 10, "{turns}");
    for name in FILES {
        let length = std::fs::metadata(file::beside(&kept.path(), name)).unwrap().len();
        assert!(length <= TINY.turn + 2 * TINY.ahead, "{length}");
    }
    // While nothing is filed, the one grows that is written.
    for number in 300..400 {
        kept.append(&[number], 0).await;
    }
    let length = |name| std::fs::metadata(file::beside(&kept.path(), name)).unwrap().len();
    assert!(length(FILES[0]).max(length(FILES[1])) > 10 * TINY.turn);
    kept.crash(b"TWJ1");
    kept.check().await;
    // And shrinks when it is begun anew.
    for number in 400..500 {
        kept.append(&[number], 0).await;
        kept.judge(3, 1_000).await;
    }
    let length = |name| std::fs::metadata(file::beside(&kept.path(), name)).unwrap().len();
    assert!(length(FILES[0]).max(length(FILES[1])) <= TINY.turn + 2 * TINY.ahead);
    kept.check().await;
}

#[tokio::test]
async fn a_file_begun_anew_before_the_other_is_filed_comes_after_it() {
    let mut kept = Kept::new();
    let mut number = 0;
    for burst in 1..30 {
        // All filed, so that both files are free; then so much that both are written before anything is filed.
        for _ in 0..burst {
            kept.append(&[number], 0).await;
            number += 1;
        }
        kept.judge(3, 1_000).await;
        kept.check().await;
    }
    kept.crash(&[]);
    kept.check().await;
}

#[tokio::test]
async fn t45_damage_amid_what_was_acknowledged_is_told_and_not_passed_over() {
    let mut kept = Kept::new();
    for number in 0..30 {
        kept.append(&[number], 0).await;
    }
    let path = file::beside(&kept.path(), FILES[0]);
    let bytes = std::fs::read(&path).unwrap();
    let info = EmbeddedStore::info(&kept.path()).unwrap();
    assert_eq!((info.events, info.waiting), (30, 30), "seen from beside");
    for at in [4, 20, 40, 600] {
        let mut hurt = bytes.clone();
        hurt[at] ^= 1;
        std::fs::write(&path, hurt).unwrap();
        let faults = EmbeddedStore::verify(&kept.path()).unwrap().faults;
        assert!(faults.iter().any(|fault| fault.contains("the journal")), "{faults:?}");
        let there = files_to_read(&kept.path()).unwrap();
        let head = Head::read(&Connection::open(kept.path()).unwrap()).unwrap();
        let found = look(&there, &head, |_| Ok(()));
        assert!(matches!(found, Err(StoreError::Damaged { what: "the journal", .. })), "byte {at}");
    }
    std::fs::write(&path, &bytes).unwrap();
    kept.check().await;
}

#[tokio::test]
async fn damage_in_what_is_filed_stops_no_start() {
    let mut kept = Kept::new();
    for number in 0..5 {
        kept.append(&[number], 0).await;
    }
    kept.judge(3, 9).await;
    for number in 5..8 {
        kept.append(&[number], 0).await;
    }
    let path = file::beside(&kept.path(), FILES[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    for at in [0, 600, 3 * 512 + 60] {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
    kept.crash(&[]);
    assert_eq!(EmbeddedStore::verify(&kept.path()).unwrap().faults, Vec::<String>::new());
    assert_eq!(kept.store().stats().await.unwrap().queued, 3);
    kept.check().await;
}

#[tokio::test]
async fn a_journal_of_a_later_moment_beside_an_older_copy_is_refused_with_the_reason() {
    let mut kept = Kept::new();
    kept.append(&[1, 2, 3], 0).await;
    let copy = kept.folder.path().join("copy.db");
    EmbeddedStore::backup(&kept.path(), &copy).unwrap();
    // Written over once and again, so that what followed the copy is gone.
    for number in 4..100 {
        kept.append(&[number], 0).await;
        kept.judge(3, 100).await;
    }
    kept.append(&[200], 0).await;
    let restored = tempfile::tempdir().unwrap();
    std::fs::copy(&copy, restored.path().join("s.db")).unwrap();
    let names = FILES.map(|name| format!("s.db{name}"));
    for name in &names {
        std::fs::copy(kept.folder.path().join(name), restored.path().join(name)).unwrap();
    }
    let refused = open(&restored.path().join("s.db")).err().unwrap().to_string();
    assert!(refused.contains("the journal") && refused.contains("another moment"), "{refused}");
    for name in &names {
        std::fs::remove_file(restored.path().join(name)).unwrap();
    }
    let store = open(&restored.path().join("s.db")).unwrap();
    let again = store.append(vec![incoming(3), incoming(4)], Vec::new()).await.unwrap();
    assert_eq!((again.recorded, again.duplicate), (1, 1), "the copy has what was acknowledged before it");
}

#[tokio::test]
async fn t48_by_whatever_link_it_is_opened_a_store_is_one() {
    let mut kept = Kept::new();
    kept.append(&[1, 2, 3], 0).await;
    let alias = kept.folder.path().join("alias.db");
    std::os::unix::fs::symlink(kept.path(), &alias).unwrap();
    assert!(matches!(open(&alias), Err(StoreError::InUse { .. })));
    assert_eq!(EmbeddedStore::info(&alias).unwrap().waiting, 3);
    EmbeddedStore::backup(&alias, &kept.folder.path().join("copy.db")).unwrap();
    assert_eq!(EmbeddedStore::info(&kept.folder.path().join("copy.db")).unwrap().waiting, 3);
    drop(kept.store.take());
    kept.store = Some(open(&alias).unwrap());
    kept.append(&[3, 4], 0).await;
    assert!(file::beside(&kept.path(), FILES[0]).exists() && !file::beside(&alias, FILES[0]).exists());
    kept.check().await;
}

#[tokio::test]
async fn t45_a_journal_that_is_not_the_store_s_is_refused_and_kept() {
    let mut kept = Kept::new();
    kept.append(&[1, 2, 3], 0).await;
    let held = std::fs::read(file::beside(&kept.path(), FILES[0])).unwrap();
    drop(kept.store.take());
    // Of the same store, from before it was closed: under the same numbers there are other events by then.
    let journal = file::beside(&kept.path(), FILES[0]);
    kept.store = Some(open(&kept.path()).unwrap());
    kept.append(&[4, 5], 0).await;
    drop(kept.store.take());
    std::fs::write(&journal, &held).unwrap();
    let other = tempfile::tempdir().unwrap();
    let elsewhere = other.path().join("s.db");
    // Of another store, and where the store itself is missing.
    std::fs::write(file::beside(&elsewhere, FILES[0]), &held).unwrap();
    for path in [kept.path(), elsewhere] {
        for _ in 0..2 {
            let refused = open(&path).err().unwrap().to_string();
            assert!(refused.contains("belongs to another store"), "{refused}");
        }
        assert_eq!(std::fs::read(file::beside(&path, FILES[0])).unwrap(), held, "nothing of it is lost");
    }
    std::fs::remove_file(&journal).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let refused = open(&kept.path()).err().unwrap().to_string();
    assert!(refused.contains("journal-a") && refused.contains("no file"), "{refused}");
}

#[tokio::test]
async fn what_is_not_filed_has_an_age() {
    let mut kept = Kept::new();
    assert_eq!(kept.store().stats().await.unwrap().oldest, None);
    kept.append(&[1, 2], 0).await;
    // Somebody holds the file: nothing can be filed.
    let holder = Connection::open(kept.path()).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stats = kept.store().stats().await.unwrap();
    assert_eq!((stats.queued, stats.oldest), (2, Some(Timestamp::from_second(1_800_000_000).unwrap())));
    holder.execute_batch("ROLLBACK").unwrap();
    kept.judge(3, 9).await;
    assert_eq!(kept.store().stats().await.unwrap().oldest, None);
}

#[test]
fn t45_no_bytes_of_a_sender_pass_for_a_frame() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    let mut forged = Vec::new();
    frame::begin(&mut forged);
    forged.extend([7; 100]);
    frame::finish(&mut forged, &[1; 16], 0, 1);
    std::fs::write(&path, &forged).unwrap();
    let file = File::open(&path).unwrap();
    assert!(frame::read(&file, &[1; 16], 0, forged.len() as u64).unwrap().is_some());
    assert!(frame::read(&file, &[2; 16], 0, forged.len() as u64).unwrap().is_none(), "of another store");
}

proptest! {
    #[test]
    fn t45_no_bytes_in_the_files_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000), magic in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let mut bytes = bytes;
        if magic && bytes.len() > 4 {
            bytes[..4].copy_from_slice(b"TWJ1");
        }
        std::fs::write(file::beside(&path, FILES[0]), &bytes).unwrap();
        let _ = look(&files_to_read(&path).unwrap(), &Head { filed: 0, salt: [0; 16] }, |_| Ok(()));
    }
}
