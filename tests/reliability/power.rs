//! Power cuts: at any moment, also while the program recovers from one, everything acknowledged is there after the
//! next start (G-02).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::real::{Delivery, Real, Sent, binary, recorded};
use crate::size;
use crate::support::program::eventually;
use crate::tape::{Disk, Tape, recorder};

/// Events of one life that is cut again and again.
const EVENTS: usize = 240;
const START: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(30);

/// Counts over all cuts.
#[derive(Default)]
struct Counts {
    cuts: usize,
    double: usize,
    acknowledged: usize,
    lost: usize,
    unexpected: usize,
    twice: usize,
    decided_twice: usize,
    again: usize,
    slowest: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g02_a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let mut random = Random::new("power cuts");
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = recorder(folder.path()) else {
        eprintln!("SKIPPED: g02 needs gcc for what records the writes");
        return;
    };
    let (lives, singles, doubles) = if crate::long() { (10, 40, 10) } else { (1, 14, 4) };
    let mut counts = Counts::default();
    for _ in 0..lives {
        if counts.lost == 0 {
            life(&library, singles, doubles, &mut random, &mut counts).await;
        }
    }
    let Counts { cuts, double, acknowledged, lost, unexpected, twice, decided_twice, again, slowest } = counts;
    println!(
        "power cuts: {cuts}, {double} of them double, in {lives} lives; {acknowledged} acknowledged in all before them; \
         lost {lost}, unexpected {unexpected}, recorded twice {twice}, decided twice {decided_twice}, told again with \
         the same id {again}; slowest start {slowest:?}"
    );
    assert_eq!((lost, unexpected, twice, decided_twice), (0, 0, 0, 0));
    assert_eq!((cuts, double), (lives * (singles + doubles), lives * doubles));
    assert!(acknowledged > cuts * EVENTS / 10, "too little happened");
    assert!(slowest <= START, "{slowest:?}");
}

/// One life of the program, recorded from its first start to its end, and then cut at as many moments.
async fn life(library: &Path, singles: usize, doubles: usize, random: &mut Random, counts: &mut Counts) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = path("store");
    fs::create_dir(&store).unwrap();
    // The program, recorded while a file names the record.
    let (wrapper, switch) = (path("tidewaiter-recorded"), path("record-to"));
    let script = format!(
        "#!/bin/sh\nif [ -e {0} ]; then\n  TIDEWAITER_TEST_RECORD=$(cat {0}) TIDEWAITER_TEST_FOLDER={1} LD_PRELOAD={2}\n  \
         export TIDEWAITER_TEST_RECORD TIDEWAITER_TEST_FOLDER LD_PRELOAD\nfi\nexec {3} \"$@\"\n",
        switch.display(),
        store.display(),
        library.display(),
        binary().display()
    );
    crate::support::stage::write(&wrapper, &script).unwrap();
    let made = std::process::Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap();
    assert!(made.success());

    let first = path("first");
    fs::write(&switch, first.to_str().unwrap()).unwrap();
    let mut real = Real::start(Some(&store), &wrapper).await;
    real.clockwork.runs(Some(&first));
    let sent = real.send(0, EVENTS, size(60, 120), LONG).done().await;
    assert_eq!(sent.acknowledged.len(), EVENTS);
    // Through a checkpoint and an orderly end, so that cuts hit these as well.
    eventually("each push is told", LONG, async || Ok((told(&real) >= EVENTS).then_some(()))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(real.daemon.stop().await.unwrap().success());
    real.clockwork.runs(None);
    fs::remove_file(&switch).unwrap();
    let before: Vec<Delivery> = std::mem::take(&mut *real.taken.lock().unwrap());

    let tape = Tape::read(&first);
    assert!(tape.len() > 100, "only {} deeds were recorded", tape.len());
    let mut disk = Disk::new(&tape, BTreeMap::new());
    let mut moments: Vec<(usize, bool)> = (0..singles + doubles).map(|n| (tape.moment(random), n < doubles)).collect();
    moments.sort();
    for (moment, double) in moments {
        disk.play(moment);
        let end = tape.end(moment - 1);
        let files = disk.cut(random);
        place(&store, &files);
        let mut known: Vec<Delivery> = before.iter().filter(|d| d.at <= end).cloned().collect();
        if double {
            known.extend(recover_and_cut(&mut real, &path("second"), &switch, files, random).await);
        }
        counts.cuts += 1;
        counts.double += usize::from(double);
        check(&mut real, &sent, end, known, random, counts).await;
        if counts.lost > 0 {
            // One is too many, and each takes all the patience there is.
            println!("lost at deed {moment} of {}, double: {double}", tape.len());
            return;
        }
    }
}

/// Starts it on what is left, and cuts again at a random moment of that start; what it delivered until then.
async fn recover_and_cut(
    real: &mut Real,
    record: &Path,
    switch: &Path,
    files: BTreeMap<PathBuf, Vec<u8>>,
    random: &mut Random,
) -> Vec<Delivery> {
    let _ = fs::remove_file(record);
    fs::write(switch, record.to_str().unwrap()).unwrap();
    real.clockwork.runs(Some(record));
    real.daemon.again().await.unwrap();
    tokio::time::sleep(Duration::from_millis(random.next() % 200)).await;
    real.daemon.program().kill().unwrap();
    real.clockwork.runs(None);
    fs::remove_file(switch).unwrap();
    let taken = std::mem::take(&mut *real.taken.lock().unwrap());
    let tape = Tape::read(record);
    let mut disk = Disk::new(&tape, files);
    let moment = random.below(tape.len() + 1);
    disk.play(moment);
    place(&real.store.with_file_name(""), &disk.cut(random));
    let end = if moment == 0 { 0 } else { tape.end(moment - 1) };
    taken.into_iter().filter(|d| d.at <= end).collect()
}

/// Makes a folder hold these files, and the reserve, which was written long ago.
fn place(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "reserve") {
            fs::remove_file(path).unwrap();
        }
    }
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
    }
}

/// Starts it on what is left and looks for what was acknowledged by `end`.
async fn check(real: &mut Real, sent: &Sent, end: u64, known: Vec<Delivery>, random: &mut Random, counts: &mut Counts) {
    let acknowledged: BTreeSet<&String> = sent.at.iter().filter(|(_, at)| **at <= end).map(|(id, _)| id).collect();
    let begun = Instant::now();
    real.daemon.again().await.unwrap();
    counts.slowest = counts.slowest.max(begun.elapsed());
    let image = |id: &String| {
        let (repository, tag) = Real::image(id.strip_prefix("event-").unwrap().parse().unwrap());
        format!("{repository}:{tag}")
    };
    let wanted: BTreeSet<String> = acknowledged.iter().map(|id| image(id)).collect();
    let mut told_first: BTreeSet<String> = known.iter().map(|d| d.image.clone()).collect();
    told_first.retain(|image| wanted.contains(image));
    let told = eventually("what was acknowledged is told", LONG, async || {
        let taken = real.taken.lock().unwrap();
        let now: BTreeSet<&String> = taken.iter().map(|d| &d.image).collect();
        Ok(wanted.iter().all(|image| told_first.contains(image) || now.contains(image)).then_some(()))
    })
    .await;
    // Ended in order or not, what it leaves is whole.
    if random.below(2) == 0 {
        real.daemon.program().kill().unwrap();
    } else {
        real.daemon.stop().await.unwrap();
    }
    let recorded = recorded(&real.store).await;
    let after = std::mem::take(&mut *real.taken.lock().unwrap());
    let mut ids: HashMap<&String, BTreeSet<&String>> = HashMap::new();
    for delivery in known.iter().chain(&after) {
        ids.entry(&delivery.about).or_default().insert(&delivery.id);
    }
    let distinct: usize = ids.values().map(BTreeSet::len).sum();
    counts.acknowledged += acknowledged.len();
    counts.lost += acknowledged.iter().filter(|id| !recorded.ids.contains_key(**id)).count();
    counts.lost += usize::from(told.is_err());
    counts.unexpected += recorded.ids.keys().filter(|id| !sent.ids.contains(*id)).count();
    counts.twice += recorded.ids.values().filter(|n| **n > 1).count();
    counts.decided_twice += ids.values().filter(|ids| ids.len() > 1).count();
    counts.again += known.len() + after.len() - distinct;
}

/// How many images the sink was told of.
fn told(real: &Real) -> usize {
    let taken = real.taken.lock().unwrap();
    taken.iter().map(|d| &d.image).collect::<BTreeSet<_>>().len()
}
