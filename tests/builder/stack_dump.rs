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

/// Asserts that the build of debian has said something in the log, but nothing grave. Others may: on a busy machine
/// a connection to ZooKeeper is lost now and then.
#[track_caller]
fn assert_undisturbed(log: &str) {
    let own: Vec<_> = log.lines().filter(|line| line.contains("image: debian")).collect();
    assert!(own.iter().any(|line| line.contains(" INFO ")), "{log}");
    let grave = own.iter().find(|line| line.contains(" WARN ") || line.contains(" ERRO "));
    assert_eq!(grave, None, "{log}");
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

    // What is of interest comes first.
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no `{what}` in {text}"));
    assert!(
        at("-- busy: ") < at("\"build-worker-0\"") && at("\"build-worker-0\"") < at("-- idle: "),
        "{text}"
    );
    assert!(at("-- idle: ") < at("\"upload-worker-0\""), "{text}");
    let source = format!("nodepool-builder {}, process {}, 20", env!("CARGO_PKG_VERSION"), builder.pid());
    assert!(text.starts_with(&format!("{BEGINS}: {source}")), "{text}");
    std::fs::write(sandbox.path("go"), "").unwrap();
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    assert_undisturbed(&builder.log());
}

/// What is built for users is optimised, compressed, and was made somewhere else.
#[test]
#[ignore = "NODEPOOL_RELEASED_BUILDER has to name an optimised builder; scripts/test --release has one"]
fn a_release_shows_certain_stacks_with_lines_and_needs_little_memory_for_it() {
    let program = std::env::var("NODEPOOL_RELEASED_BUILDER").expect("it names an optimised builder");
    let sandbox = Sandbox::new("builder-dump-release");
    let dir = sandbox.dir().display().to_string();
    let keys = format!(
        "formats: [qcow2], env-vars: {{FAKE_DIB_STARTED: '{dir}/started', FAKE_DIB_WAIT_FOR: '{dir}/go'}}"
    );
    sandbox.write_body(&body(&[image(&sandbox, "debian", &keys)], &[]));
    let mut command = sandbox.command(&program);
    command.args(["-f", "-d", "-c"]).arg(sandbox.config_file());
    let builder = sandbox.spawn(&command);
    wait_builds(&sandbox.zk(), "debian", "building", 1);
    wait_pid(&sandbox, "started");
    let before = builder.memory("VmRSS:");
    let text = dump(&builder);
    let most = builder.memory("VmHWM:");
    println!("{text}\n{before} kB before the dump, {most} kB at most");

    // All of them wait in `park_timeout`, whose caller is hard to find.
    for (name, line) in [
        ("builder", "src/builder/manager.rs:"),
        ("build-worker-0", "src/builder/dib.rs:"),
        ("watchdog", "threads/watchdog.rs:"),
        ("membership", "src/zk/membership.rs:"),
        ("zk-tree", "src/zk/cache.rs:"),
    ] {
        let stack = thread(&text, name);
        assert!(stack.contains(&format!(" at {line}")), "no {line} in {stack}");
        assert!(!stack.contains("is a guess"), "{stack}");
    }
    // A path of the machine on which it was built tells nobody anything.
    let lines = text.lines().filter(|line| line.split(": ").nth(1).is_some_and(|rest| rest.contains(" at ")));
    let absolute: Vec<_> = lines.filter(|line| line.contains(" at /")).collect();
    assert!(absolute.is_empty(), "{absolute:?}");
    // A daemon that hangs may be short of it.
    assert!(most < before + (48 << 10), "{before} kB before the dump, {most} kB at most");
    std::fs::write(sandbox.path("go"), "").unwrap();
    wait_ready(&sandbox.zk(), "debian");
}

/// The current time as a dump's first line has it.
fn utc() -> String {
    let out = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// The times at which the dumps have begun that are whole.
fn dump_times(log: &str) -> Vec<&str> {
    let whole = log.split(BEGINS).skip(1).filter(|dump| dump.contains(ENDS));
    whole.map(|dump| &dump[dump.find(", 20").unwrap() + 2..][.."2026-11-22T16:41:31.123Z".len()]).collect()
}

#[test]
fn two_thousand_signals_in_a_row_disturb_no_build_and_take_no_more_memory_than_half_as_many() {
    const HALF: usize = 1000;
    let sandbox = Sandbox::new("builder-dump-burst");
    let dir = sandbox.dir().display().to_string();
    let keys = format!(
        "formats: [qcow2], env-vars: {{FAKE_DIB_STARTED: '{dir}/started', FAKE_DIB_WAIT_FOR: '{dir}/go'}}"
    );
    sandbox.write_body(&body(&[image(&sandbox, "debian", &keys)], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    wait_pid(&sandbox, "started");
    let [(dumps, peak), (all, last_peak)] = [(); 2].map(|()| {
        (1..HALF).for_each(|_| builder.signal(Signal::USR2));
        let last = utc();
        builder.signal(Signal::USR2);
        builder.wait_until("a whole dump that began after the last signal", SOON, || {
            dump_times(&builder.log()).iter().any(|time| *time >= last.as_str()).then_some(())
        });
        (dump_times(&builder.log()).len(), builder.memory("VmHWM:"))
    });
    std::fs::write(sandbox.path("go"), "").unwrap();
    wait_ready(&zk, "debian");
    println!("{dumps} dumps, {all} in the end; memory {peak} kB, {last_peak} kB in the end");
    assert!(all < HALF / 5, "a dump for each of the signals, or almost: {all}");
    // The texts of a dump for each of them would take fifty times as much.
    assert!(last_peak < peak + (16 << 10), "{last_peak} kB, and {peak} kB after the first half");
    assert_undisturbed(&builder.log());
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
