//! A builder that is not root, whose builds become root by sudo. These tests need root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::*;
use crate::support::Signal;

const NOBODY: u32 = 65534;

/// A build was ended and counted as failed while root's part of it went on, without a word.
#[test]
fn what_root_runs_below_a_build_is_told_of_when_it_cannot_be_ended() {
    let sandbox = Sandbox::new("builder-another-user");
    for dir in [sandbox.dir(), &sandbox.images(), &sandbox.logs()] {
        chown(dir, Some(NOBODY), None).unwrap();
    }
    let started = sandbox.path("started");
    let keys = format!(
        "formats: [raw], env-vars: {{FAKE_DIB_STARTED: '{}', FAKE_DIB_SLEEP: '300'}}",
        started.display()
    );
    sandbox.write_body(&body(&[image(&sandbox, "debian", &keys)], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&["--user", "nobody"]);
    let build = wait_pid(&sandbox, "started");
    // As below sudo: another user's, in the build's group.
    let mut of_root = Command::new("sleep");
    of_root.arg("300").process_group(build as i32).stdin(Stdio::null()).stdout(Stdio::null());
    let mut of_root = of_root.spawn().unwrap();

    builder.signal(Signal::TERM);
    let exit = builder.wait_exit(SOON);
    let survived = of_root.try_wait().unwrap().is_none();
    of_root.kill().unwrap();
    of_root.wait().unwrap();
    assert!(survived && exit.code() == Some(0), "{exit}");
    let id = wait_builds(&zk, "debian", "failed", 1).remove(0);
    let told =
        format!("cannot end all that the process {build} has started, still running: {}", of_root.id());
    let log = std::fs::read_to_string(sandbox.logs().join(format!("debian-{id}.log"))).unwrap();
    let end = format!("Build cancelled\n{told}\nExit code: -15\n");
    assert!(log.ends_with(&end), "{log}");
    let log = builder.log();
    assert!(log.contains("a command of the build has left processes behind") && log.contains(&told), "{log}");
    assert!(!log.contains("panic"), "{log}");
}
