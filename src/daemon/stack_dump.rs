//! What SIGUSR2 is for: the stacks of all threads, and the locks between them, in the log at debug level.
//!
//! A thread of its own makes the dumps, so that they work whatever else is stuck. If the log is stuck too, or
//! does not want debug lines, a dump goes to standard error or to a file beside the pid file. The same thread
//! logs what the watchdog says, with the stack of the thread that is stuck.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nodepool_threads::{
    Report, StackDumper, StopSource, StopToken, Thread, Waited, Watchdog, activity, spawn,
};
use rustix::fs::OFlags;
use slog::{Level, error, info, warn};

use crate::logging::{Logging, write_to_stderr};

/// The logger of the dumps, as in the original.
const LOGGER: &str = "nodepool.stack_dump";

/// How long the log may take for a dump until it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait for another request before the memory that dumps take is given back.
const QUIET: Duration = Duration::from_secs(5);

/// Where a dump goes that the log does not take.
#[derive(Debug)]
pub(super) struct Fallback {
    /// Tried first if the daemon is in the foreground.
    pub(super) stderr: bool,
    /// Written anew by each dump.
    pub(super) file: PathBuf,
}

impl Fallback {
    /// The file beside the pid file.
    pub(super) fn beside(pid_file: &Path, foreground: bool) -> Self {
        Self { stderr: foreground, file: pid_file.with_extension("stacks") }
    }
}

/// The running dumper and the watchdog. Dropping it ends both, and waits for a dump that is being made.
#[derive(Debug)]
pub(super) struct StackDumps {
    // Dropped in this order: the watchdog may be waiting for the thread to take a report.
    _watchdog: Option<Watchdog>,
    _stop: StopSource,
    _thread: Thread<()>,
}

/// Asks for a dump without waiting for anything.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    wanted: Arc<AtomicBool>,
    wake: Sender<Wake>,
}

impl Asker {
    /// Has the stacks of all threads dumped. Whoever asks while a dump waits to be made is answered by that one.
    pub(super) fn ask(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        // If there is no room, what is there wakes the thread.
        let _ = self.wake.try_send(Wake::Asked);
    }
}

/// Why the thread is to wake up. Whatever the reason, it then sees whether a dump is wanted.
#[derive(Debug)]
enum Wake {
    Asked,
    Report(Report),
}

impl StackDumps {
    /// To be started before anything can be stuck.
    pub(super) fn start(logging: &Logging, fallback: Fallback) -> io::Result<(Self, Asker)> {
        let log = logging.log();
        let stacks = StackDumper::new()
            .inspect_err(|error| warn!(log, "SIGUSR2 will show no stacks"; "reason" => %error));
        let (stop, (wake, woken)) = (StopSource::new(), bounded(1));
        let (asker, report) = (Asker { wanted: Arc::default(), wake: wake.clone() }, wake);
        let wanted = Arc::clone(&asker.wanted);
        let (dumps, token) = (Dumps { logging: logging.clone(), fallback, stacks, wanted }, stop.token());
        let thread = spawn("stack-dump", "stack dump", move || dumps.run(&woken, &token))?;
        let watchdog = Watchdog::start(move |said| {
            // Fails once nobody is there to log it.
            let _ = report.send(Wake::Report(said));
        });
        let watchdog =
            watchdog.inspect_err(|error| warn!(log, "stuck threads will not be noticed"; "reason" => %error));
        Ok((Self { _watchdog: watchdog.ok(), _stop: stop, _thread: thread }, asker))
    }
}

/// What the thread has.
struct Dumps {
    logging: Logging,
    fallback: Fallback,
    stacks: io::Result<StackDumper>,
    wanted: Arc<AtomicBool>,
}

impl Dumps {
    fn run(mut self, woken: &Receiver<Wake>, stop: &StopToken) {
        let mut next = stop.recv(woken);
        loop {
            next = match next {
                Ok(wake) => {
                    if self.wanted.swap(false, Ordering::SeqCst) {
                        let _doing = activity("dumping stacks");
                        let lines = self.dump();
                        self.put_somewhere(lines);
                    }
                    if let Wake::Report(report) = wake {
                        self.pass_on(report);
                    }
                    stop.recv_timeout(woken, QUIET)
                }
                Err(Waited::TimedOut) => {
                    if let Ok(stacks) = &mut self.stacks {
                        stacks.give_memory_back();
                    }
                    stop.recv(woken)
                }
                Err(Waited::Disconnected | Waited::Interrupted(_)) => return,
            }
        }
    }

    /// Logs what the watchdog says.
    fn pass_on(&mut self, report: Report) {
        match &report {
            Report::WentOn(_) => warn!(self.logging.log(), "{report}"),
            Report::Stuck(overdue) => {
                let stack = match &mut self.stacks {
                    Ok(stacks) => stacks.thread(overdue.thread).map(|stack| format!("\n{stack}")),
                    Err(_) => None,
                };
                error!(self.logging.log(), "{report}{}", stack.unwrap_or_default());
            }
        }
    }

    fn dump(&mut self) -> Vec<String> {
        match &mut self.stacks {
            Ok(stacks) => stacks.report(),
            Err(error) => {
                let why = format!("the stacks cannot be read: {error}");
                ["stack dump begins", &why, "stack dump ends"].map(str::to_owned).into()
            }
        }
    }

    fn put_somewhere(&self, lines: Vec<String>) {
        let mut text = lines.join("\n");
        text.push('\n');
        let why = if self.logging.wants(Level::Debug, LOGGER) {
            match self.logging.write_lines(Level::Debug, LOGGER, lines.into_iter(), PATIENCE) {
                Ok(()) => return,
                Err(stuck) => stuck.to_string(),
            }
        } else {
            format!("no log takes debug lines of {LOGGER}")
        };
        let log = self.logging.log();
        if self.fallback.stderr && write_to_stderr(&text).is_ok() {
            info!(log, "the stack dump went to standard error"; "reason" => why);
            return;
        }
        let file = self.fallback.file.display();
        match write_file(&self.fallback.file, &text) {
            Ok(()) => {
                info!(log, "the stack dump went to a file of its own"; "file" => %file, "reason" => why)
            }
            Err(error) => {
                error!(log, "the stack dump could be written nowhere"; "file" => %file, "error" => %error, "reason" => why);
            }
        }
    }
}

/// Nobody else's business, and never through a link that somebody has put there.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let options =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).custom_flags(flags).to_owned();
    options.open(path)?.write_all(text.as_bytes())
}
