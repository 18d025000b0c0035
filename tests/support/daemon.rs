//! A daemon under test: its process, its output, its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use parking_lot::Mutex;

use super::leash::{self, Leashed};
use super::{Signal, within};

/// A running daemon; killed by SIGKILL and reaped on drop, and when the test process ends.
///
/// Take it from a [`super::Sandbox`], and declare it after that, so that it ends before its directory goes.
pub struct Daemon {
    process: Mutex<Leashed>,
    pid: u32,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program with its output in `log`; whether it is ready is the caller's question.
    pub fn start(program: &Command, log: &Path) -> Daemon {
        let process = Leashed::start(program, log, None);
        Daemon { pid: process.pid(), process: Mutex::new(process), log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the daemon alone; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        self.process.lock().signal(signal);
    }

    /// Stops the daemon by SIGSTOP; returns once it stands still.
    pub fn freeze(&self) {
        self.process.lock().freeze();
    }

    /// Sends a signal to the daemon and to those of its children that are in its process group, as a service
    /// manager does that stops a whole unit.
    pub fn signal_group(&self, signal: Signal) {
        self.process.lock().signal_group(signal);
    }

    /// The exit status when the daemon has ended.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.process.lock().exited()
    }

    /// Whether it is stopped, as by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        leash::state(self.pid) == Some('T')
    }

    /// Waits for the daemon's end; panics with its log at the deadline.
    #[track_caller]
    pub fn wait_exit(&self, deadline: Duration) -> ExitStatus {
        match within(deadline, || self.exited()) {
            Some(status) => status,
            None => self.fail(&format!("the daemon still runs after {:.1} s", deadline.as_secs_f64())),
        }
    }

    /// Ends the daemon by SIGKILL, as a crash would.
    pub fn kill(&self) -> ExitStatus {
        self.process.lock().kill()
    }

    /// All output so far, standard output and error together.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Waits until the output holds `text`; panics with the log at the deadline.
    #[track_caller]
    pub fn wait_log(&self, text: &str, deadline: Duration) {
        self.wait_until(&format!("`{text}` in its log"), deadline, || {
            self.log().contains(text).then_some(())
        });
    }

    /// Waits for anything about a daemon that must go on running meanwhile; panics with its log when it ends, or
    /// at the deadline.
    #[track_caller]
    pub fn wait_until<T>(&self, what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
        let mut ended = None;
        let found = within(deadline, || {
            // In this order: what a daemon wrote just before its end counts.
            ended = self.exited();
            match probe() {
                Some(value) => Some(Some(value)),
                None => ended.map(|_| None),
            }
        });
        match (found, ended) {
            (Some(Some(value)), _) => value,
            (_, Some(status)) => self.fail(&format!("the daemon ended ({status}) before {what}")),
            _ => self.fail(&format!("waited {:.1} s in vain for {what}", deadline.as_secs_f64())),
        }
    }

    /// Where the daemon serves its status pages, as its log says last. Waits until it does.
    #[track_caller]
    pub fn web(&self) -> SocketAddr {
        self.wait_until("the address of the status pages", Duration::from_secs(30), || {
            let log = self.log();
            let line = log.lines().rev().find(|line| line.contains("serving the status pages, address: "))?;
            line.rsplit_once("address: ")?.1.trim().parse().ok()
        })
    }

    /// The process ids of the daemon's children, from `/proc`.
    pub fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// A line of its `status` in `/proc`, in kB.
    #[track_caller]
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("read its status");
        let value = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        value.trim_end_matches("kB").trim().parse().expect("a number of kB")
    }

    /// Has `VmHWM` say what the daemon takes at most from now on.
    #[track_caller]
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("reset its peak");
    }

    #[track_caller]
    fn fail(&self, reason: &str) -> ! {
        panic!("{reason}\n{}", leash::tail(&self.log, 60))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", leash::tail(&self.log, 60));
        }
    }
}
