//! SIGUSR2: what every thread of the builder does, whatever state the builder is in; and what the watchdog says
//! without any signal.

use std::collections::BTreeSet;

use super::*;
use crate::support::{Daemon, Signal};

const BEGINS: &str = "stack dump begins";
const ENDS: &str = "stack dump ends";

/// Asks for a dump and returns it, once it is whole.
#[track_caller]
fn dump(builder: &Daemon) -> String {
    let before = builder.log().matches(ENDS).count();
    builder.signal(Signal::USR2);
    builder.wait_until("a whole stack dump in its log", SOON, || {
        let log = builder.log();
        if log.matches(ENDS).count() == before {
            return None;
        }
        let begin = log.rfind(BEGINS)?;
        Some(log[begin..].to_owned())
    })
}

/// The part of a dump that is about the thread of that name.
#[track_caller]
fn thread(dump: &str, name: &str) -> String {
    let is_head = |line: &str| {
        line.split("thread ")
            .nth(1)
            .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    let wanted = format!(" \"{name}\"");
    let mut lines = dump.lines().skip_while(|line| !(is_head(line) && line.contains(&wanted)));
    let head = lines.next().unwrap_or_else(|| panic!("no thread {name} in {dump}"));
    let rest = lines.take_while(|line| !is_head(line));
    std::iter::once(head).chain(rest).collect::<Vec<_>>().join("\n")
}

fn thread_ids(pid: u32) -> BTreeSet<String> {
    names(PathBuf::from(format!("/proc/{pid}/task"))).into_iter().collect()
}

#[test]
fn a_dump_shows_every_thread_where_it_is_and_disturbs_no_build() {
    let sandbox = Sandbox::new("builder-dump");
    let dir = sandbox.dir().display().to_string();
    let keys = format!(
        "formats: [qcow2], env-vars: {{FAKE_DIB_STARTED: '{dir}/started', FAKE_DIB_WAIT_FOR: '{dir}/go'}}"
    );
    sandbox
        .write_body(&body(&[image(&sandbox, "debian", &keys)], &[local(&sandbox, "shelf", &["debian"], "")]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    wait_builds(&zk, "debian", "building", 1);
    wait_pid(&sandbox, "started");

    // A thread may end or begin while the dump is made; most of them stay.
    let before = thread_ids(builder.pid());
    let text = dump(&builder);
    let after = thread_ids(builder.pid());
    for id in before.intersection(&after) {
        assert!(text.contains(&format!("thread {id} ")), "no thread {id} in {text}");
    }
    // What runs the build says so, and is found where it waits for it.
    let worker = thread(&text, "build-worker-0");
    assert!(worker.contains("(build worker): waiting"), "{worker}");
    assert!(worker.contains("running the build command of debian for "), "{worker}");
    assert!(worker.contains("nodepool::builder::dib") && worker.contains("src/builder/dib.rs:"), "{worker}");
    assert!(thread(&text, "wait-build").contains("waitid"), "{text}");
    assert!(thread(&text, "builder").contains("src/builder/manager.rs:"), "{text}");
    assert!(thread(&text, "main").contains("src/daemon/builder.rs:"), "{text}");
    // Threads of others, which are in no register.
    assert!(thread(&text, "io").contains("zookeeper"), "{text}");
    assert!(text.contains("lock"), "{text}");

    for _ in 0..20 {
        builder.signal(Signal::USR2);
    }
    dump(&builder);
    std::fs::write(sandbox.path("go"), "").unwrap();
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    let log = builder.log();
    assert!(!log.contains("WARN") && !log.contains("ERRO"), "{log}");
}

#[test]
fn a_dump_shows_why_a_stop_takes_its_time() {
    let sandbox = Sandbox::new("builder-dump-stop");
    let keys = format!(
        "formats: [raw], env-vars: {{FAKE_DIB_IGNORE_TERM: '1', FAKE_DIB_CHILD: '{}', FAKE_DIB_SLEEP: '300'}}",
        sandbox.path("child").display()
    );
    sandbox.write_body(&body(&[image(&sandbox, "debian", &keys)], &[]));
    let builder = sandbox.builder(&[]);
    wait_pid(&sandbox, "child");
    builder.signal(Signal::TERM);
    builder.wait_log("stopping", SOON);
    let text = dump(&builder);
    assert!(thread(&text, "build-worker-0").contains("ChildGroup::terminate at "), "{text}");
    assert!(thread(&text, "builder").contains("stopping for "), "{text}");
    assert_eq!(builder.wait_exit(SOON).code(), Some(0));
}

#[test]
fn a_dump_that_the_log_does_not_take_goes_to_standard_error() {
    let sandbox = Sandbox::new("builder-dump-stuck");
    sandbox.write_body("");
    let logs = sandbox.path("own-logs");
    std::fs::create_dir(&logs).unwrap();
    // What the harness has of it is its standard error alone.
    for (config, why) in [
        ("outputs: [{file: DIR/own-logs/log, level: debug}]", "the log is stuck: "),
        ("outputs: [{file: DIR/own-logs/log, level: info}]", "no log takes debug lines"),
    ] {
        let builder = super::logging::builder(&sandbox, config);
        let stuck = why.contains("stuck");
        if stuck {
            std::fs::remove_dir_all(&logs).unwrap();
        }
        let text = dump(&builder);
        assert!(thread(&text, "main").contains("src/daemon/builder.rs:"), "{text}");
        if stuck {
            std::fs::create_dir(&logs).unwrap();
        }
        super::logging::wait_line(&logs.join("log"), why);
    }
}

/// A configuration on a file system that hangs, as it were.
#[test]
fn a_thread_that_is_stuck_is_logged_with_its_stack_without_any_signal() {
    let sandbox = Sandbox::new("builder-watchdog");
    sandbox.write_body("");
    let builder = sandbox.builder(&[]);
    let (config, fifo) = (sandbox.config_file(), sandbox.path("fifo"));
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::rename(&fifo, &config).unwrap();
    // Ten seconds of a limit, and as many more of patience.
    builder.wait_log("is stuck: loading the configuration for ", 2 * SOON);
    builder.wait_log("src/config/", SOON);
    let log = builder.log();
    assert_eq!(log.matches("is stuck").count(), 1, "{log}");
    // The reader has what it waits for, and goes on.
    std::fs::write(&config, &good).unwrap();
    builder.wait_log("went on after ", SOON);
    assert!(builder.exited().is_none());
}
