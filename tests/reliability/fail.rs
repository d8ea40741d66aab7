//! The process ends at each named point, at the first time and at later ones: the same promises (G-03). Only in the
//! build of `tests/reliability/failpoints`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::random::Random;
use crate::real::{Real, binary, recorded};
use crate::support::program::eventually;

const EVENTS: usize = 6;
const LONG: Duration = Duration::from_secs(30);

/// The names of all points, out of the source.
fn points() -> BTreeSet<String> {
    let (mut folders, mut names) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let points = text.split("failpoint!(\"").skip(1);
                names.extend(points.map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
    }
    let unique: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "each point has a name of its own");
    unique
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_ended_at_any_point_nothing_is_lost_and_nothing_decided_twice() {
    let mut random = Random::new("failpoints");
    let seeds: usize = std::env::var("TIDEWAITER_FAIL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (store, wrapper, switch) = (path("store"), path("tidewaiter-failing"), path("fail-at"));
    fs::create_dir(&store).unwrap();
    let script = format!(
        "#!/bin/sh\n[ -e {0} ] && TIDEWAITER_FAILPOINT=$(cat {0}) && export TIDEWAITER_FAILPOINT\nexec {1} \"$@\"\n",
        switch.display(),
        binary().display()
    );
    crate::support::stage::write(&wrapper, &script).unwrap();
    assert!(std::process::Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap().success());
    let mut real = Real::start(Some(&store), &wrapper).await;
    real.daemon.stop().await.unwrap();

    let points = points();
    let (mut ended, mut runs) = (BTreeMap::<&String, usize>::new(), 0);
    let (mut lost, mut unexpected, mut twice, mut decided_twice, mut again) = (0, 0, 0, 0, 0);
    for seed in 0..seeds {
        for point in &points {
            // Everything anew, but for the reserve.
            for entry in fs::read_dir(&store).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|e| e != "reserve") {
                    fs::remove_file(path).unwrap();
                }
            }
            real.taken.lock().unwrap().clear();
            let most = 1 << random.below(5);
            let time = if seed == 0 { 1 } else { 1 + random.below(most) };
            fs::write(&switch, format!("{point}:{time}")).unwrap();
            // It may end before it is ready, under load, or when it is to stop.
            if real.daemon.again().await.is_ok() {
                let sent = real.send(0, EVENTS, 200, Duration::from_millis(600)).done().await;
                let program = real.daemon.program();
                // A checkpoint comes every two seconds.
                let patience = Duration::from_millis(if point.starts_with("checkpoint") { 2_500 } else { 700 });
                if sent.acknowledged.len() == EVENTS && program.ended(patience).await.is_err() {
                    let _ = program.signal("TERM");
                }
            }
            let status = real.daemon.program().ended(Duration::from_secs(15)).await.unwrap();
            *ended.entry(point).or_default() += usize::from(!status.success());
            runs += 1;
            fs::remove_file(&switch).unwrap();
            real.daemon.again().await.unwrap();
            // What was not acknowledged is sent again, and what was is known by its id.
            let sent = real.send(0, EVENTS, 200, LONG).done().await;
            lost += EVENTS - sent.acknowledged.len();
            let told = eventually("each push is told", LONG, async || {
                let taken = real.taken.lock().unwrap();
                let images: BTreeSet<&String> = taken.iter().map(|d| &d.image).collect();
                Ok((images.len() == EVENTS).then_some(()))
            });
            lost += usize::from(told.await.is_err());
            if random.below(2) == 0 {
                real.daemon.program().kill().unwrap();
            } else {
                real.daemon.stop().await.unwrap();
            }
            let recorded = recorded(&real.store).await;
            lost += EVENTS - recorded.ids.len().min(EVENTS);
            unexpected += recorded.ids.keys().filter(|id| !sent.ids.contains(*id)).count();
            twice += recorded.ids.values().filter(|n| **n > 1).count();
            let taken = real.taken.lock().unwrap();
            let mut ids: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
            for delivery in taken.iter() {
                ids.entry(&delivery.about).or_default().insert(&delivery.id);
            }
            decided_twice += ids.values().filter(|ids| ids.len() > 1).count();
            again += taken.len() - ids.values().map(BTreeSet::len).sum::<usize>();
            assert_eq!((lost, unexpected, twice, decided_twice), (0, 0, 0, 0), "at {point}, time {time}");
        }
    }
    let never: Vec<_> = points.iter().filter(|point| ended.get(point).is_none_or(|n| *n == 0)).collect();
    println!(
        "failpoints: {} points, {runs} runs, ended at one in {}; lost {lost}, unexpected {unexpected}, recorded twice \
         {twice}, decided twice {decided_twice}, told again with the same id {again}; never ended at: {never:?}",
        points.len(),
        ended.values().sum::<usize>()
    );
    assert!(points.len() >= 40 && never.is_empty(), "{never:?}");
}
