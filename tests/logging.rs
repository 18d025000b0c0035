//! Logging by itself: rotation under load, outputs that take nothing, many lines at once.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nodepool::logging::{LogSettings, Logging, Writers};
use rustix::fs::OFlags;
use slog::{Level, info};

use crate::support::{eventually, scratch_dir};

const SOON: Duration = Duration::from_secs(40);

/// Removed on drop, unless the test panicked.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(scratch_dir(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Starts logging as `yaml` says, with DIR replaced.
    fn start(&self, yaml: &str) -> (Logging, Writers) {
        let config = self.path("logging.yaml");
        fs::write(&config, yaml.replace("DIR", &self.0.display().to_string())).unwrap();
        Logging::start(LogSettings::read(&config).unwrap(), "test").unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

const THREADS: usize = 4;
const LINES_PER_ROTATION: u64 = 80;

/// Several threads log while `rotate` is called with 0, 1, 2 … up to `rotations`; then everything is written.
fn rotate_under_load(scratch: &Scratch, rotations: u64, rotate: impl Fn(u64)) {
    let (logging, writers) = scratch.start("outputs: [{file: DIR/log}]");
    let rotated = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, rotated) = (logging.log().clone(), &rotated);
            scope.spawn(move || {
                for round in 0..rotations {
                    eventually(SOON, "the rotation", || {
                        (rotated.load(Ordering::SeqCst) >= round).then_some(())
                    });
                    for line in 0..LINES_PER_ROTATION {
                        info!(log, "line"; "thread" => thread, "number" => round * LINES_PER_ROTATION + line);
                    }
                }
            });
        }
        for number in 0..rotations {
            rotate(number);
            rotated.fetch_add(1, Ordering::SeqCst);
        }
    });
    drop(writers);
}

/// All of the files together have every line of every thread once, in order.
#[track_caller]
fn assert_complete(files: &[PathBuf], rotations: u64) {
    let mut next = [0; THREADS];
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(text.is_empty() || text.ends_with('\n'), "a torn line at the end of {}", file.display());
        for line in text.lines() {
            let field = |key: &str| -> u64 {
                let value = line
                    .split(", ")
                    .find_map(|part| part.strip_prefix(key))
                    .unwrap_or_else(|| panic!("{line}"));
                value.parse().unwrap()
            };
            let thread = field("thread: ") as usize;
            assert_eq!(field("number: "), next[thread], "{}: {line}", file.display());
            next[thread] += 1;
        }
    }
    assert_eq!(next, [rotations * LINES_PER_ROTATION; THREADS]);
}

#[test]
fn files_that_are_moved_away_under_load_lose_no_line() {
    let scratch = Scratch::new("log-moved");
    let log = scratch.path("log");
    let old = |number: u64| scratch.path(&format!("log.{number}"));
    rotate_under_load(&scratch, 60, |number| {
        // As logrotate does with `create`, and as it does with `nocreate`.
        eventually(SOON, "the log", || log.exists().then_some(()));
        fs::rename(&log, old(number)).unwrap();
        if number % 2 == 0 {
            File::options().create(true).append(true).open(&log).unwrap();
        }
    });
    let files: Vec<_> = (0..60).map(old).chain([log.clone()]).collect();
    assert_complete(&files, 60);
    let used = files.iter().filter(|file| fs::metadata(file).unwrap().len() > 0).count();
    assert!(used > 2, "the lines are in {used} files");
}

#[test]
fn logrotate_loses_no_line_and_needs_no_signal() {
    let scratch = Scratch::new("log-logrotate");
    let (log, config, state) = (scratch.path("log"), scratch.path("rotate.conf"), scratch.path("state"));
    let text = format!("{} {{\n    rotate 1000\n    create\n    missingok\n}}\n", log.display());
    fs::write(&config, text).unwrap();
    rotate_under_load(&scratch, 20, |_| {
        let mut logrotate = Command::new("/usr/sbin/logrotate");
        logrotate.arg("--force").arg("--state").arg(&state).arg(&config);
        let done = logrotate.output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    });
    let mut files: Vec<_> = (1..=20).rev().map(|number| scratch.path(&format!("log.{number}"))).collect();
    files.push(log);
    files.retain(|file| file.exists());
    assert_complete(&files, 20);
    let used = files.iter().filter(|file| fs::metadata(file).unwrap().len() > 0).count();
    assert!(used > 2, "the lines are in {used} files");
}

#[test]
fn a_directory_may_vanish_and_come_back() {
    let scratch = Scratch::new("log-directory");
    fs::create_dir(scratch.path("dir")).unwrap();
    let (logging, _writers) = scratch.start("outputs: [{file: DIR/dir/log}, {file: DIR/other}]");
    info!(logging.log(), "before");
    logging.flush(SOON);
    fs::rename(scratch.path("dir"), scratch.path("gone")).unwrap();
    info!(logging.log(), "meanwhile");
    info!(logging.log(), "still meanwhile");
    let other = || fs::read_to_string(scratch.path("other")).unwrap();
    let trouble = format!("cannot write the log {}", scratch.path("dir/log").display());
    eventually(SOON, "the trouble to be told", || other().contains(&trouble).then_some(()));
    fs::create_dir(scratch.path("dir")).unwrap();
    eventually(SOON, "the waiting lines", || {
        let text = fs::read_to_string(scratch.path("dir/log")).ok()?;
        (text.contains(": meanwhile\n") && text.contains(": still meanwhile\n")).then_some(())
    });
    eventually(SOON, "the end of the trouble", || other().contains("is written again").then_some(()));
    assert_eq!(other().matches(&trouble).count(), 1, "{}", other());
    let before = fs::read_to_string(scratch.path("gone/log")).unwrap();
    assert!(before.contains("before\n") && !before.contains("meanwhile"), "{before}");
}

#[test]
fn the_end_waits_for_the_last_lines() {
    let scratch = Scratch::new("log-end");
    let (_logging, writers) = start_with_backlog(&scratch);
    drop(writers);
    let text = fs::read_to_string(scratch.path("dir/log")).unwrap();
    assert_eq!(text.lines().count(), BACKLOG);
    assert!(text.ends_with(&format!("line, number: {}\n", BACKLOG - 1)));
}

/// More than is written at once, and far less than takes half a second.
const BACKLOG: usize = 1000;

/// Logs to a file whose directory is missing for as long as it takes to log the backlog. In a second the writer
/// would look for it again.
fn start_with_backlog(scratch: &Scratch) -> (Logging, Writers) {
    let dir = scratch.path("dir");
    fs::create_dir(&dir).unwrap();
    let started = scratch.start("outputs: [{file: DIR/dir/log}]");
    fs::remove_dir_all(&dir).unwrap();
    (0..BACKLOG).for_each(|number| info!(started.0.log(), "line"; "number" => number));
    fs::create_dir(&dir).unwrap();
    started
}

/// The line is in the file before the panicking thread goes on to its end, which may be that of the process.
#[test]
fn a_panic_is_in_the_log_before_anything_comes_of_it() {
    let scratch = Scratch::new("log-panic");
    let (logging, _writers) = start_with_backlog(&scratch);
    logging.log_panics();
    let panicked = std::thread::spawn(|| panic!("on purpose, for the log"));
    assert!(panicked.join().is_err());
    let text = fs::read_to_string(scratch.path("dir/log"));
    // The hook is the whole process's, and there are other tests.
    let _ = std::panic::take_hook();
    let text = text.unwrap();
    assert_eq!(text.matches(": line, number: ").count(), BACKLOG);
    assert!(text.contains(" ERRO nodepool.panic: a thread panicked"), "{text}");
    assert!(text.contains("on purpose, for the log") && text.contains("tests/logging.rs"), "{text}");
}

/// A pipe that somebody has open and nobody reads.
fn stuck_pipe(path: &Path) -> File {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
    let flags = OFlags::NONBLOCK.bits() as i32;
    let pipe = File::options().read(true).custom_flags(flags).open(path).unwrap();
    rustix::pipe::fcntl_setpipe_size(&pipe, 1 << 16).unwrap();
    pipe
}

#[test]
fn an_output_that_takes_nothing_costs_its_own_lines_only_and_says_how_many() {
    const LINES: usize = 60_000;
    let scratch = Scratch::new("log-stuck");
    let pipe = stuck_pipe(&scratch.path("pipe"));
    let (logging, writers) = scratch.start("outputs: [{file: DIR/pipe}, {file: DIR/log}]");
    for number in 0..LINES {
        info!(logging.log(), "line"; "number" => number);
        if number % 10_000 == 9_999 {
            // The good output is to show all; the other one is not waited for.
            logging.flush(SOON);
        }
    }
    let log = fs::read_to_string(scratch.path("log")).unwrap();
    assert_eq!(log.matches(": line, number: ").count(), LINES);
    assert_eq!(log.matches("cannot write the log").count(), 1, "told once");

    // Now somebody reads: the oldest lines are all there, then it is said how many are not.
    let flags = rustix::fs::fcntl_getfl(&pipe).unwrap();
    rustix::fs::fcntl_setfl(&pipe, flags - OFlags::NONBLOCK).unwrap();
    let (mut numbers, mut lost) = (0, None);
    for line in BufReader::new(pipe).lines() {
        let line = line.unwrap();
        if let Some((_, number)) = line.split_once("line, number: ") {
            assert_eq!(number, numbers.to_string(), "{line}");
            numbers += 1;
            if numbers == LINES {
                break;
            }
        } else if let Some((count, _)) = line.split_once(" lines were lost here") {
            lost = count.rsplit(' ').next().unwrap().parse().ok();
            break;
        }
    }
    assert!(numbers > 10_000, "{numbers} lines were kept");
    assert_eq!(lost, Some(LINES - numbers));
    drop(writers);
}

#[test]
fn many_lines_at_once_are_written_or_said_to_be_stuck() {
    let scratch = Scratch::new("log-many");
    let pipe = stuck_pipe(&scratch.path("pipe"));
    let lines: Vec<_> = (0..8000).map(|number| format!("{number:05} {}", "x".repeat(75))).collect();
    let (logging, _writers) =
        scratch.start("outputs: [{file: DIR/pipe}, {file: DIR/log, level: info}]\nlevels: {root: debug}");
    // The good output is enough.
    logging.write_lines(Level::Info, "nodepool.stack_dump", &lines, SOON).unwrap();
    let text = fs::read_to_string(scratch.path("log")).unwrap();
    let own: Vec<_> = text.lines().filter_map(|line| line.split_once("INFO nodepool.stack_dump: ")).collect();
    assert!(own.iter().map(|(_, line)| (*line).to_owned()).eq(lines.iter().cloned()), "{} lines", own.len());
    // Only the stuck one takes this level.
    let stuck = logging.write_lines(Level::Debug, "nodepool.stack_dump", &lines, Duration::from_millis(100));
    let expected = format!("the log is stuck: {}", scratch.path("pipe").display());
    assert_eq!(stuck.unwrap_err().to_string(), expected);
    // Nobody wants it.
    logging.write_lines(Level::Trace, "nodepool.stack_dump", &lines, Duration::ZERO).unwrap();
    drop(pipe);
}

/// Whoever is told that the log is stuck writes elsewhere. Once it comes free nobody wants those lines any more,
/// and they must not have taken the room of others.
#[test]
fn lines_that_were_told_to_be_stuck_are_withdrawn_and_take_no_room() {
    const ORDINARY: usize = 2000;
    let scratch = Scratch::new("log-withdrawn");
    let pipe = stuck_pipe(&scratch.path("pipe"));
    let (logging, writers) = scratch.start("outputs: [{file: DIR/pipe}]");
    for attempt in 0..10 {
        // All of them together are more than the queue takes.
        let lines: Vec<_> =
            (0..8000).map(|number| format!("{attempt} {number} {}", "x".repeat(75))).collect();
        // The first ends when the pipe is full, however long that takes; the others find it so.
        let patience = if attempt == 0 { SOON } else { Duration::from_millis(50) };
        assert!(logging.write_lines(Level::Info, "nodepool.block", &lines, patience).is_err());
    }
    (0..ORDINARY).for_each(|number| info!(logging.log(), "ordinary"; "number" => number));

    let flags = rustix::fs::fcntl_getfl(&pipe).unwrap();
    rustix::fs::fcntl_setfl(&pipe, flags - OFlags::NONBLOCK).unwrap();
    let mut lines = BufReader::new(pipe).lines().map(|line| line.unwrap());
    let (mut begun, mut ordinary) = (0, 0);
    while ordinary < ORDINARY {
        let line = lines.next().unwrap();
        match line.split_once("nodepool.block: ") {
            // What was in the pipe, or on its way there.
            Some((_, text)) => {
                assert!(text.starts_with(&format!("0 {begun} ")) && ordinary == 0, "{line}");
                begun += 1;
            }
            None => {
                assert!(line.ends_with(&format!("ordinary, number: {ordinary}")), "{line}");
                ordinary += 1;
            }
        }
    }
    assert!((1..4000).contains(&begun), "{begun}");
    drop(writers);
}

/// An output that was full when another one took a block says how many lines of it are missing, and where.
#[test]
fn a_block_that_finds_no_room_in_one_of_two_outputs_is_counted_there() {
    const BLOCK: usize = 1000;
    let scratch = Scratch::new("log-block-lost");
    let pipe = stuck_pipe(&scratch.path("pipe"));
    let (logging, writers) = scratch.start("outputs: [{file: DIR/pipe}, {file: DIR/log}]");
    let long = "x".repeat(100 << 10);
    (0..50).for_each(|number| info!(logging.log(), "long {long}"; "number" => number));
    let block: Vec<_> = (0..BLOCK).map(|number| format!("block {number}")).collect();
    logging.write_lines(Level::Info, "nodepool.block", &block, SOON).unwrap();
    let log = fs::read_to_string(scratch.path("log")).unwrap();
    assert_eq!((log.matches(": long ").count(), log.matches(": block ").count()), (50, BLOCK));

    let flags = rustix::fs::fcntl_getfl(&pipe).unwrap();
    rustix::fs::fcntl_setfl(&pipe, flags - OFlags::NONBLOCK).unwrap();
    let (mut long, mut lost) = (0, 0);
    for line in BufReader::new(pipe).lines().map(|line| line.unwrap()) {
        assert!(!line.contains("nodepool.block"), "{line}");
        long += usize::from(line.contains(": long "));
        if let Some((count, _)) = line.split_once(" lines were lost here") {
            lost = count.rsplit(' ').next().unwrap().parse().unwrap();
            break;
        }
    }
    assert_eq!(long + lost, 50 + BLOCK, "{long} lines were kept");
    drop(writers);
}

#[test]
fn what_reaches_syslog_as_json_is_json_however_long_it_was() {
    let scratch = Scratch::new("log-syslog-json");
    let socket = UnixDatagram::bind(scratch.path("socket")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let (logging, _writers) = scratch.start("outputs: [{syslog: DIR/socket, format: json}]");
    let text = "a line\n\u{1b}[2J \"ä\"\n".repeat(2000);
    info!(logging.log(), "short");
    info!(logging.log(), "{text}"; "build" => 5);
    info!(logging.log(), "the output"; "output" => &text);
    info!(logging.log(), "the next line");
    let mut buffer = [0; 9000];
    let mut next = || {
        let size = socket.recv(&mut buffer).unwrap();
        assert!(size <= 8192, "{size}");
        let (_, said) = std::str::from_utf8(&buffer[..size]).unwrap().split_once("]: ").unwrap();
        serde_json::from_str::<serde_json::Value>(said).unwrap_or_else(|error| panic!("{error}: {said}"))
    };
    let short = next();
    assert!(short["message"] == "short" && short.get("truncated").is_none(), "{short}");
    let long = next();
    assert!(long["truncated"] == true && long["build"] == 5 && long["level"] == "info", "{long}");
    let message = long["message"].as_str().unwrap();
    assert!(text.starts_with(message) && message.len() > 3000, "{message}");
    let output = next();
    assert!(output["truncated"] == true && output["message"] == "the output", "{output}");
    assert!(text.starts_with(output["output"].as_str().unwrap()), "{output}");
    assert_eq!(next()["message"], "the next line");
}

/// As a thread of a stack dump is, which syslog alone may get.
#[test]
fn a_text_too_long_for_a_datagram_reaches_syslog_in_several_and_none_is_lost_or_doubled() {
    let scratch = Scratch::new("log-syslog");
    let socket = UnixDatagram::bind(scratch.path("socket")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let (logging, _writers) =
        scratch.start("outputs: [{syslog: DIR/socket, facility: local0}, {file: DIR/log}]");
    let text: Vec<_> = (0..8000).map(|number| format!("{number} {}", "x".repeat(90))).collect();
    info!(logging.log(), "{}", text.join("\n"));
    info!(logging.log(), "the next line");
    // More than the socket holds: it is tried again in the middle of the text.
    let log = || fs::read_to_string(scratch.path("log")).unwrap();
    eventually(SOON, "the socket to be full", || log().contains("cannot write the log syslog").then_some(()));
    let (mut found, mut datagrams, mut buffer) = (Vec::new(), 0, [0; 9000]);
    loop {
        let size = socket.recv(&mut buffer).unwrap();
        assert!(size <= 8192, "{size}");
        let datagram = std::str::from_utf8(&buffer[..size]).unwrap();
        let (head, said) = datagram.split_once("]: ").unwrap();
        assert!(head.starts_with("<134>") && head.contains(" test["), "{datagram}");
        if said.ends_with("the next line") {
            break;
        }
        datagrams += 1;
        found.extend(said.lines().map(str::to_owned));
    }
    found[0] = found[0].split(": ").nth(1).unwrap().to_owned();
    assert!(found.iter().map(|line| line.trim_start()).eq(text.iter()), "{} lines", found.len());
    assert!(datagrams > 90, "{datagrams} for 780 kB");
}
