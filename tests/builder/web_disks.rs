//! The status pages while a disk hangs. A pipe that nobody writes to is such a disk: whoever opens it waits.

use std::fs::{self, OpenOptions};
use std::process::Command;

use super::*;
use crate::support::http::{Answer, get};
use crate::support::{Daemon, Signal};

/// A builder that builds `debian` until it is stopped, and the log of that build.
fn building(sandbox: &Sandbox<'_>) -> (Daemon, PathBuf) {
    let keys = "formats: [raw], env-vars: {FAKE_DIB_SLEEP: '300'}";
    sandbox.write_body(&body(&[image(sandbox, "debian", keys)], &[]));
    let builder = sandbox.builder(&[]);
    let id = wait_builds(&sandbox.zk(), "debian", "building", 1).remove(0);
    let log = sandbox.logs().join(format!("debian-{id}.log"));
    builder.wait_until("the build's log", SOON, || log.exists().then_some(()));
    (builder, log)
}

/// Puts a pipe where the log is.
fn hang(log: &PathBuf) {
    let pipe = log.with_extension("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(&pipe, log).unwrap();
}

#[track_caller]
fn page_without_log(builder: &Daemon) -> Answer {
    builder.wait_until("a page without the log", SOON, || {
        let page = get(builder.web(), "/");
        assert_eq!(page.status, 200, "{page:?}");
        page.body
            .contains("(it cannot be read: the disk of build-log-dir has not answered for ")
            .then_some(page)
    })
}

#[test]
fn a_disk_that_hangs_holds_up_no_page_and_is_shown_again_when_it_is_back() {
    let sandbox = Sandbox::new("web-disk-hangs");
    let (builder, log) = building(&sandbox);
    hang(&log);
    let page = page_without_log(&builder);
    assert!(page.body.contains("<b>building</b>") && page.body.contains("free for images"), "{page:?}");
    assert_eq!(get(builder.web(), "/ready").status, 200);
    assert!(get(builder.web(), "/metrics").body.contains("nodepool_images_dir_free_bytes"));
    let reading = format!("reading the end of {}", log.display());
    let threads = get(builder.web(), "/threads").body;
    assert!(threads.contains("web-logs-0") && threads.contains(&reading), "{threads}");
    // The watchdog tells of it.
    builder.wait_log("web-logs-0", SOON);
    let writer = OpenOptions::new().write(true).open(&log).unwrap();
    fs::remove_file(&log).unwrap();
    fs::write(&log, "there it is again\n").unwrap();
    drop(writer);
    builder.wait_until("the log on the page", SOON, || {
        get(builder.web(), "/").body.contains("there it is again").then_some(())
    });
}

/// A build that has failed, because one that runs has to write to its log before the stop.
#[test]
fn a_disk_that_hangs_does_not_hold_up_the_stop() {
    let sandbox = Sandbox::new("web-disk-stop");
    let keys = "formats: [raw], env-vars: {FAKE_DIB_FAIL: '7'}";
    sandbox.write_body(&body(&[image(&sandbox, "debian", keys)], &[]));
    let builder = sandbox.builder(&NO_JANITOR);
    builder.wait_until("a failed build on the page", SOON, || {
        get(builder.web(), "/").body.contains("fails with 7").then_some(())
    });
    // Or it would be tried again, with another log.
    sandbox.nodepool(&["image-pause", "debian"]).ok();
    builder.wait_until("the last build's end", SOON, || {
        in_state(builds(&sandbox.zk(), "debian"), "building").is_empty().then_some(())
    });
    for log in names(sandbox.logs()) {
        hang(&sandbox.logs().join(log));
    }
    page_without_log(&builder);
    builder.signal(Signal::TERM);
    // Not by the limit of the stop, which would be a failure.
    assert!(builder.wait_exit(SOON).success());
}
