//! What SIGUSR2 is for: the stacks of all threads, and the locks between them, in the log at debug level.
//!
//! A thread of its own makes the dumps, so that they work whatever else is stuck. If the log is stuck too, or
//! does not want debug lines, a dump goes to standard error or to a file beside the pid file. The same thread
//! logs what the watchdog says, with the stack of the thread that is stuck.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
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
pub(super) struct Asker(Sender<Ask>);

impl Asker {
    /// Has the stacks of all threads dumped. Whoever asks while a dump waits to be made is answered by that one.
    pub(super) fn ask(&self) {
        let _ = self.0.try_send(Ask::Dump);
    }
}

#[derive(Debug)]
enum Ask {
    Dump,
    Report(Report),
}

impl StackDumps {
    /// To be started before anything can be stuck.
    pub(super) fn start(logging: &Logging, fallback: Fallback) -> io::Result<(Self, Asker)> {
        let log = logging.log();
        let stacks = StackDumper::new()
            .inspect_err(|error| warn!(log, "SIGUSR2 will show no stacks"; "reason" => %error));
        let (stop, (ask, asked)) = (StopSource::new(), bounded(1));
        let (dumps, token) = (Dumps { logging: logging.clone(), fallback, stacks }, stop.token());
        let thread = spawn("stack-dump", "stack dump", move || dumps.run(&asked, &token))?;
        let report = ask.clone();
        let watchdog = Watchdog::start(move |said| {
            // Fails once nobody is there to log it.
            let _ = report.send(Ask::Report(said));
        });
        let watchdog =
            watchdog.inspect_err(|error| warn!(log, "stuck threads will not be noticed"; "reason" => %error));
        Ok((Self { _watchdog: watchdog.ok(), _stop: stop, _thread: thread }, Asker(ask)))
    }
}

/// What the thread has.
struct Dumps {
    logging: Logging,
    fallback: Fallback,
    stacks: io::Result<StackDumper>,
}

impl Dumps {
    fn run(mut self, asked: &Receiver<Ask>, stop: &StopToken) {
        let mut next = stop.recv(asked);
        loop {
            next = match next {
                Ok(ask) => {
                    self.answer(ask);
                    stop.recv_timeout(asked, QUIET)
                }
                Err(Waited::TimedOut) => {
                    if let Ok(stacks) = &mut self.stacks {
                        stacks.give_memory_back();
                    }
                    stop.recv(asked)
                }
                Err(Waited::Disconnected | Waited::Interrupted(_)) => return,
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Dump => {
                let _doing = activity("dumping stacks");
                let lines = self.dump();
                self.put_somewhere(lines);
            }
            Ask::Report(report @ Report::WentOn(_)) => warn!(self.logging.log(), "{report}"),
            Ask::Report(Report::Stuck(overdue)) => {
                let stack = match &mut self.stacks {
                    Ok(stacks) => stacks.thread(overdue.thread).map(|stack| format!("\n{stack}")),
                    Err(_) => None,
                };
                let report = Report::Stuck(overdue);
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
