//! What an operator, or a disk, may do to the builder's log: work goes on, and no line is lost that need not be.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use super::logging::{builder, log_config, objects, read, wait_line};
use super::*;
use crate::support::{Daemon, Signal, within};

fn one_image(sandbox: &Sandbox<'_>) {
    sandbox.write_body(&body(&[image(sandbox, "debian", "formats: [qcow2]")], &[]));
}

/// Asks for builds until so many are ready, or were.
fn build_until(zk: &ZkClient, count: usize) -> Vec<String> {
    if count > 1 {
        request(zk, "debian");
    }
    wait_builds(zk, "debian", "ready", count)
}

/// The lines of all files together name each of the builds' steps once.
#[track_caller]
fn assert_told_once(files: &[PathBuf], builds: &[String]) {
    let lines: Vec<Value> = files.iter().flat_map(|file| objects(file)).collect();
    for build in builds {
        for message in ["building", "the build is ready"] {
            let told =
                lines.iter().filter(|line| line["message"] == message && line["build"] == build.as_str());
            assert_eq!(told.count(), 1, "{message} {build} in {files:?}");
        }
    }
}

#[test]
fn rotation_by_renaming_loses_no_line_of_a_build_with_and_without_sighup() {
    let sandbox = Sandbox::new("builder-log-renamed");
    one_image(&sandbox);
    let zk = sandbox.zk();
    let log = sandbox.path("log");
    let builder = builder(&sandbox, "outputs: [{file: DIR/log, format: json}]");
    let old = |number: usize| sandbox.path(&format!("log.{number}"));
    // Only two ready builds are kept: older ones have been seen, and go.
    let mut all = build_until(&zk, 1);
    for number in 0..6 {
        fs::rename(&log, old(number)).unwrap();
        if number % 2 == 0 {
            builder.signal(Signal::HUP);
            // At once, before there is anything to log.
            eventually(SOON, "the new log", || log.exists().then_some(()));
        }
        request(&zk, "debian");
        let new = eventually(SOON, "the next build", || {
            let ready = in_state(builds(&zk, "debian"), "ready").into_iter().map(|(id, _)| id);
            ready.into_iter().find(|id| !all.contains(id))
        });
        all.push(new);
    }
    builder.signal(Signal::TERM);
    builder.wait_exit(SOON);
    let files: Vec<_> = (0..6).map(old).chain([log]).collect();
    assert!(files.iter().all(|file| !read(file).is_empty()), "each was written");
    assert_told_once(&files, &all);
}

#[test]
fn a_truncated_log_goes_on_at_its_end() {
    let sandbox = Sandbox::new("builder-log-truncated");
    one_image(&sandbox);
    let zk = sandbox.zk();
    let (log, config) = (sandbox.path("log"), sandbox.path("rotate.conf"));
    let builder = builder(&sandbox, "outputs: [{file: DIR/log, format: json}]");
    let mut all = build_until(&zk, 1);
    wait_line(&log, "the build is ready");
    fs::write(&config, format!("{} {{\n rotate 9\n copytruncate\n}}\n", log.display())).unwrap();
    // What is written between its copy and its truncation logrotate itself would lose.
    builder.freeze();
    let mut logrotate = Command::new("/usr/sbin/logrotate");
    logrotate.arg("--force").arg("--state").arg(sandbox.path("state")).arg(&config);
    let done = logrotate.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(read(&log), "");
    builder.signal(Signal::CONT);
    all = [all, build_until(&zk, 2)].concat();
    all.sort();
    all.dedup();
    builder.signal(Signal::TERM);
    builder.wait_exit(SOON);
    assert!(read(&log).starts_with('{'), "no hole at its begin");
    assert_told_once(&[sandbox.path("log.1"), log], &all);
}

/// A builder in a mount namespace of its own, with a small disk for its log.
fn on_a_small_disk(sandbox: &Sandbox<'_>, config: &str) -> Daemon {
    fs::create_dir(sandbox.path("disk")).unwrap();
    let inner = sandbox.builder_command(&["-l", &log_config(sandbox, config)]);
    let mut command = sandbox.command("unshare");
    let mount = format!("mount -t tmpfs -o size=64k tmpfs {} && exec \"$@\"", sandbox.path("disk").display());
    command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(inner.get_program()).args(inner.get_args());
    sandbox.spawn(&command)
}

#[test]
fn a_full_disk_stops_no_build_and_its_lines_are_written_once_there_is_room() {
    let sandbox = Sandbox::new("builder-log-full");
    one_image(&sandbox);
    let zk = sandbox.zk();
    let builder = on_a_small_disk(
        &sandbox,
        "outputs: [{file: DIR/disk/log, format: json, level: debug}, {file: DIR/other.log, level: info}]",
    );
    let mut all = build_until(&zk, 1);
    // The disk as the builder sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{}", builder.pid(), sandbox.path("disk").display()));
    let (log, other) = (disk.join("log"), sandbox.path("other.log"));
    wait_line(&log, "the build is ready");
    let filler = disk.join("filler");
    assert!(fs::write(&filler, vec![0; 128 << 10]).is_err(), "the disk is full now");
    // What is left of the log's last page takes a few lines yet.
    eventually(SOON, "the log to be stuck", || {
        builder.signal(Signal::HUP);
        read(&other).contains("No space left on device").then_some(())
    });
    let new = build_until(&zk, 2).into_iter().find(|build| !all.contains(build)).unwrap();
    wait_line(&other, &format!("the build is ready, build: {new}"));
    assert!(!read(&log).contains(&new), "stuck still");
    all.push(new);

    fs::remove_file(&filler).unwrap();
    wait_line(&other, "is written again");
    for build in &all {
        wait_line(&log, build);
    }
    let (log, other) = (sandbox_copy(&sandbox, &log), read(&other));
    assert_told_once(&[log], &all);
    assert_eq!(other.matches("cannot write the log").count(), 1, "told once: {other}");
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(SOON).code(), Some(0));
}

/// The log as it is when its last line is complete.
fn sandbox_copy(sandbox: &Sandbox<'_>, log: &Path) -> PathBuf {
    let copy = sandbox.path("copy");
    let text = eventually(SOON, "complete lines", || Some(read(log)).filter(|text| text.ends_with('\n')));
    fs::write(&copy, text).unwrap();
    copy
}

/// A builder whose standard output is a pipe, and the pipe's other end.
fn into_a_pipe(sandbox: &Sandbox<'_>) -> (Daemon, File) {
    let pipe = sandbox.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let inner = sandbox.builder_command(&[]);
    let mut command = sandbox.command("sh");
    command.args(["-c", "exec \"$@\" >\"$0\""]).arg(&pipe).arg(inner.get_program()).args(inner.get_args());
    let builder = sandbox.spawn(&command);
    let read_end = File::open(pipe).unwrap();
    rustix::pipe::fcntl_setpipe_size(&read_end, 4096).unwrap();
    (builder, read_end)
}

#[test]
fn a_pipe_that_nobody_reads_stops_no_build_and_loses_no_line() {
    let sandbox = Sandbox::new("builder-log-unread");
    one_image(&sandbox);
    let zk = sandbox.zk();
    let (builder, mut pipe) = into_a_pipe(&sandbox);
    let mut all = build_until(&zk, 1);
    // Each signal is a line more. The pipe is full when one is not.
    let in_pipe = || rustix::io::ioctl_fionread(&pipe).unwrap();
    eventually(SOON, "the pipe to be full", || {
        let before = in_pipe();
        builder.signal(Signal::HUP);
        within(Duration::from_millis(500), || (in_pipe() > before).then_some(())).is_none().then_some(())
    });
    let stuck = in_pipe();
    all = [all, build_until(&zk, 2)].concat();
    assert_eq!(in_pipe(), stuck);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    });
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(SOON).code(), Some(0));
    let text = reader.join().unwrap();
    for build in &all {
        assert!(text.contains(&format!("the build is ready, build: {build}")), "{text}");
    }
    assert!(text.lines().last().unwrap().contains("closing the ZooKeeper session"), "the last line: {text}");
}

#[test]
fn a_builder_ends_in_time_although_nobody_reads_its_last_lines() {
    let sandbox = Sandbox::new("builder-log-unread-end");
    one_image(&sandbox);
    let zk = sandbox.zk();
    let (builder, _pipe) = into_a_pipe(&sandbox);
    build_until(&zk, 1);
    for _ in 0..50 {
        builder.signal(Signal::USR2);
    }
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(SOON).code(), Some(0));
}

#[test]
fn a_closed_pipe_stops_no_build() {
    let sandbox = Sandbox::new("builder-log-closed");
    one_image(&sandbox);
    let zk = sandbox.zk();
    let (builder, pipe) = into_a_pipe(&sandbox);
    build_until(&zk, 1);
    drop(pipe);
    build_until(&zk, 2);
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(SOON).code(), Some(0));
}

#[test]
fn syslog_gets_a_datagram_for_each_line_and_may_be_restarted() {
    let sandbox = Sandbox::new("builder-log-syslog");
    one_image(&sandbox);
    let zk = sandbox.zk();
    let path = sandbox.path("syslog");
    let socket = |path: &Path| {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    };
    let wait = |syslog: &UnixDatagram, text: &str| {
        let mut buffer = [0; 9000];
        loop {
            let size =
                syslog.recv(&mut buffer).unwrap_or_else(|error| panic!("waited for `{text}`: {error}"));
            let message = String::from_utf8_lossy(&buffer[..size]).into_owned();
            if message.contains(text) {
                return message;
            }
        }
    };
    let syslog = socket(&path);
    let builder = builder(
        &sandbox,
        "outputs: [{syslog: DIR/syslog, facility: local2}, {file: DIR/log}]\nlevels: {root: debug}",
    );
    let ready = wait(&syslog, "the build is ready");
    let expected = format!(
        " nodepool-builder[{}]: INFO nodepool.builder.build_worker: the build is ready, build: ",
        builder.pid()
    );
    // local2 is 18, info 6.
    assert!(ready.starts_with("<150>") && ready.contains(&expected) && !ready.ends_with('\n'), "{ready}");

    drop(syslog);
    all_lines_reach(&sandbox, &zk);
    wait_line(&sandbox.path("log"), "cannot write the log syslog at ");
    let syslog = socket(&path);
    // The build that nobody could be told of has waited for somebody.
    wait(&syslog, "the build is ready");
    builder.signal(Signal::USR2);
    assert!(wait(&syslog, "nodepool.stack_dump: ").starts_with("<151>"), "debug is 7");
}

fn all_lines_reach(sandbox: &Sandbox<'_>, zk: &ZkClient) {
    for build in build_until(zk, 2) {
        wait_line(&sandbox.path("log"), &format!("the build is ready, build: {build}"));
    }
}
