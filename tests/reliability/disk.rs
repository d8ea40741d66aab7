//! A disk that is full, and one whose syncs fail (G-04, G-05).

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::real::{Real, binary, recorded};
use crate::size;
use crate::support::program::eventually;

/// A small file system in memory, gone with the value. `None` where nobody may mount one.
struct Small {
    folder: tempfile::TempDir,
}

impl Small {
    fn mount(mebibytes: usize) -> Option<Small> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Small { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // What is busy now goes with the last process that uses it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g04_a_full_disk_is_answered_503_at_once_and_nothing_acknowledged_is_lost() {
    // The reserve takes 64 of them, and what is recorded in long takes more.
    let Some(small) = Small::mount(size(80, 128)) else {
        eprintln!("SKIPPED: g04 needs a small file system, and this user may not mount one; run it as root");
        return;
    };
    let mut real = Real::start(Some(small.path()), binary()).await;
    let before = real.send(0, 40, 100, Duration::from_secs(20)).done().await;
    assert_eq!(before.acknowledged.len(), 40);
    eventually("they are judged", Duration::from_secs(30), async || Ok((real.told().0.len() >= 40).then_some(())))
        .await
        .unwrap();
    let ballast = small.path().join("ballast");
    // Filled again and again, since the store gives its reserve up when it finds the disk full.
    let fill = || {
        Command::new("dd")
            .args(["if=/dev/zero", "bs=64k", "conv=notrunc", "oflag=append"])
            .arg(format!("of={}", ballast.display()))
            .output()
    };
    let _ = fill();
    let first = 40;
    let count = size(40, 400);
    let mut refused = None;
    let full = real.send(first, count, 50, Duration::from_secs(3));
    let begun = Instant::now();
    while !full.is_done() {
        if refused.is_none() {
            let answer = answer(&real).await;
            refused = (answer.0 == 503).then_some(answer);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let full = full.done().await;
    let (_, retry_after) = refused.expect("a full disk is told");
    assert!(retry_after.is_some(), "when to come again");
    assert!(full.slowest < Duration::from_secs(1), "{:?}", full.slowest);
    assert!(full.answers.keys().all(|status| [202, 503].contains(status)), "{:?}", full.answers);
    std::fs::remove_file(&ballast).unwrap();
    let space = Instant::now();
    let after = real.send(first, count, 100, Duration::from_secs(20)).done().await;
    assert_eq!(after.acknowledged.len(), count, "{:?}", after.answers);
    assert!(space.elapsed() < Duration::from_secs(10), "{:?}", space.elapsed());
    eventually("all are told", Duration::from_secs(60), async || {
        Ok((real.told().0.len() >= first + count).then_some(()))
    })
    .await
    .unwrap();
    real.daemon.stop().await.unwrap();
    let recorded = recorded(&real.store).await;
    let acknowledged = before.acknowledged.union(&full.acknowledged).chain(&after.acknowledged);
    let lost = acknowledged.filter(|id| !recorded.ids.contains_key(*id)).count();
    println!(
        "disk full: for {:?}, answers {:?}, slowest {:?}; lost {lost}, well again after {:?}",
        space - begun,
        full.answers,
        full.slowest,
        space.elapsed()
    );
    assert_eq!(lost, 0);
    assert!(real.told().0.values().all(|ids| ids.len() == 1));
}

/// Status and `Retry-After` of one more event.
async fn answer(real: &Real) -> (u16, Option<String>) {
    let (_, event) = real.push(39);
    let event = event.replace("event-39", &format!("probe-{:?}", Instant::now()).replace(['{', '}', ' ', ':'], ""));
    let headers = [("authorization", "Bearer reliability"), ("content-type", "application/json")];
    match real.http.send(hyper::Method::POST, &real.events, &headers, event).await {
        Ok(answer) => {
            let after = answer.headers.get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
            (answer.status.as_u16(), after)
        }
        Err(_) => (0, None),
    }
}

/// Makes fdatasync and fsync fail while a file is there.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int failing(void) { const char *flag = getenv("TIDEWAITER_TEST_FAIL_SYNC"); return flag && access(flag, F_OK) == 0; }
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (failing()) { errno = EIO; return -1; }
    return real(fd);
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (failing()) { errno = EIO; return -1; }
    return real(fd);
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g05_after_a_failed_sync_nothing_is_acknowledged_and_the_process_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (source, shim, flag) =
        (folder.path().join("shim.c"), folder.path().join("shim.so"), folder.path().join("fail"));
    std::fs::write(&source, SHIM).unwrap();
    let built = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: g05 needs gcc for its shim");
        return;
    }
    // The program with the shim in front, as a program of its own.
    let wrapper = folder.path().join("tidewaiter-with-shim");
    let script = format!(
        "#!/bin/sh\nTIDEWAITER_TEST_FAIL_SYNC={} LD_PRELOAD={} exec {} \"$@\"\n",
        flag.display(),
        shim.display(),
        binary().display()
    );
    std::fs::write(&wrapper, script).unwrap();
    Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap();

    let mut real = Real::start(None, &wrapper).await;
    let before = real.send(0, 50, 100, Duration::from_secs(20)).done().await;
    assert_eq!(before.acknowledged.len(), 50);
    let sending = real.send(50, 100, 200, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::write(&flag, "").unwrap();
    let failed = Instant::now();
    let status = real.daemon.program().ended(Duration::from_secs(10)).await.unwrap();
    let ended = failed.elapsed();
    assert!(!status.success(), "{status}");
    assert!(ended < Duration::from_secs(2), "{ended:?}");
    let during = sending.done().await;
    std::fs::remove_file(&flag).unwrap();
    real.daemon.again().await.unwrap();
    let known: Vec<String> = before.acknowledged.union(&during.acknowledged).cloned().collect();
    eventually("what was acknowledged is told", Duration::from_secs(60), async || {
        Ok((real.told().0.len() >= known.len()).then_some(()))
    })
    .await
    .unwrap();
    real.daemon.stop().await.unwrap();
    let recorded = recorded(&real.store).await;
    let lost = known.iter().filter(|id| !recorded.ids.contains_key(*id)).count();
    println!("failing sync: {} acknowledged before it, ended {status} after {ended:?}; lost {lost}", known.len());
    assert_eq!(lost, 0);
}
