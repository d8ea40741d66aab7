//! A disk that is full, and one whose syncs fail (G-04, G-05).

use std::path::{Path, PathBuf};
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

/// Makes one write in ten to files of a folder find the disk full, while a file is there.
const SHIM_FULL: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
static int full(int fd) {
    const char *flag = getenv("TIDEWAITER_TEST_FULL"), *folder = getenv("TIDEWAITER_TEST_FOLDER");
    if (!flag || !folder || access(flag, F_OK)) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    static _Atomic unsigned long state = 88172645463325252UL;
    unsigned long next = atomic_fetch_add(&state, 0x9e3779b97f4a7c15UL);
    next ^= next >> 31; next *= 0xbf58476d1ce4e5b9UL; next ^= next >> 29;
    return !strncmp(path, folder, strlen(folder)) && next % 10 == 0;
}
#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *bytes, size_t length, offset_type offset) { \
        static ssize_t (*real)(int, const void *, size_t, offset_type); \
        if (!real) real = (ssize_t (*)(int, const void *, size_t, offset_type))dlsym(RTLD_NEXT, #name); \
        if (full(fd)) { errno = ENOSPC; return -1; } \
        return real(fd, bytes, length, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
ssize_t write(int fd, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (full(fd)) { errno = ENOSPC; return -1; }
    return real(fd, bytes, length);
}
"#;

/// The program with a library of C in front, as a program of its own; `None` without a C compiler.
fn with_shim(folder: &Path, shim: &str, settings: &[(&str, &Path)]) -> Option<PathBuf> {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, shim).unwrap();
    let built = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    if !built.is_ok_and(|status| status.success()) {
        return None;
    }
    let wrapper = folder.join("tidewaiter-with-shim");
    let settings: String = settings.iter().map(|(name, value)| format!("{name}={} ", value.display())).collect();
    let script = format!("#!/bin/sh\n{settings}LD_PRELOAD={} exec {} \"$@\"\n", library.display(), binary().display());
    std::fs::write(&wrapper, script).unwrap();
    Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap();
    Some(wrapper)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g04_a_disk_that_is_full_now_and_then_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (store, flag) = (folder.path().join("store"), folder.path().join("full"));
    std::fs::create_dir(&store).unwrap();
    let settings = [("TIDEWAITER_TEST_FULL", flag.as_path()), ("TIDEWAITER_TEST_FOLDER", store.as_path())];
    let Some(wrapper) = with_shim(folder.path(), SHIM_FULL, &settings) else {
        eprintln!("SKIPPED: g04 needs gcc for its shim");
        return;
    };
    let mut real = Real::start(Some(&store), &wrapper).await;
    let count = size(100, 1_000);
    std::fs::write(&flag, "").unwrap();
    let during = real.send(0, count, 100, Duration::from_secs(size(4, 20) as u64)).done().await;
    assert!(during.answers.contains_key(&503), "{:?}", during.answers);
    assert!(during.answers.keys().all(|status| [202, 503].contains(status)), "{:?}", during.answers);
    std::fs::remove_file(&flag).unwrap();
    let after = real.send(0, count, 200, Duration::from_secs(30)).done().await;
    assert_eq!(after.acknowledged.len(), count, "{:?}", after.answers);
    eventually("all are told", Duration::from_secs(60), async || Ok((real.told().0.len() >= count).then_some(())))
        .await
        .unwrap();
    assert!(real.daemon.stop().await.unwrap().success());
    let recorded = recorded(&real.store).await;
    let lost = during.acknowledged.union(&after.acknowledged).filter(|id| !recorded.ids.contains_key(*id)).count();
    let twice = recorded.ids.values().filter(|n| **n > 1).count();
    println!(
        "disk full for one write in ten: {} acknowledged meanwhile, answers {:?}; lost {lost}, recorded twice {twice}",
        during.acknowledged.len(),
        during.answers
    );
    assert_eq!((lost, twice), (0, 0));
    assert!(real.told().0.values().all(|ids| ids.len() == 1), "decided once");
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
    let flag = folder.path().join("fail");
    let Some(wrapper) = with_shim(folder.path(), SHIM, &[("TIDEWAITER_TEST_FAIL_SYNC", &flag)]) else {
        eprintln!("SKIPPED: g05 needs gcc for its shim");
        return;
    };
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
