//! What SIGUSR2 is for: the stacks of all threads, and the locks between them, in the log at debug level.
//!
//! A thread of its own makes the dumps, so that they work whatever else is stuck. A daemon writes each of them to a
//! file beside its pid file as well; in the foreground it goes to standard error if the log is stuck too, or does not
//! want debug lines. The same thread logs what the watchdog says, with the stacks of the threads that are stuck.
//!
//! The file is evidence: what was dumped of a hang is read after the restart that ended it. So it stays when
//! the daemon ends, says itself whose it is and of when, and goes with the next dump, or with its directory.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{Local, SecondsFormat};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use nodepool_threads::{
    Report, StackDumper, StopSource, StopToken, Thread, Waited, Watchdog, activity_within, spawn,
};
use slog::{Level, Logger, error, info, warn};

use super::own_file;
use crate::logging::{Logging, write_to_stderr};

/// The logger of the dumps, as in the original.
const LOGGER: &str = "nodepool.stack_dump";

/// The thread that makes them.
const THREAD: &str = "stack-dump";

/// How long the log may take for a dump until it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a dump may take: some seconds for the threads, as many for the log, and the rest for a slow disk.
const DUMP_LIMIT: Duration = Duration::from_secs(15);

/// How long to wait for another request before the memory that dumps take is given back.
const QUIET: Duration = Duration::from_secs(5);

/// Where a dump goes besides the log. The file is written anew by each dump that goes there, and never removed.
#[derive(Debug)]
pub(super) enum Besides {
    /// Of a daemon it always goes to the file, so that whoever asks for one finds it as text in a known place.
    Daemon(PathBuf),
    /// In the foreground it goes to standard error if the log does not take it, and if that does not either, to the
    /// file.
    Foreground(PathBuf),
}

/// The file for dumps, beside the pid file.
pub(super) fn dump_file(pid_file: &Path) -> PathBuf {
    pid_file.with_extension("stacks")
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
    pub(super) fn start(
        name: &'static str,
        logging: &Logging,
        besides: Besides,
    ) -> io::Result<(Self, Asker)> {
        let log = logging.log();
        let stacks = StackDumper::new()
            .inspect_err(|error| warn!(log, "SIGUSR2 will show no stacks"; "reason" => %error));
        let (stop, (wake, woken)) = (StopSource::new(), bounded(1));
        let (asker, report) = (Asker { wanted: Arc::default(), wake: wake.clone() }, wake);
        let wanted = Arc::clone(&asker.wanted);
        let (dumps, token) =
            (Dumps { name, logging: logging.clone(), besides, stacks, wanted }, stop.token());
        let thread = spawn(THREAD, "stack dump", move || dumps.run(&woken, &token))?;
        let without_stacks = logging.clone();
        let watchdog = Watchdog::start(move |said| {
            // The thread itself may be stuck, as on the disk of the file.
            if said.is_about(THREAD) {
                log_report(&without_stacks, &said, "");
            } else if let Err(SendTimeoutError::Timeout(Wake::Report(said))) =
                report.send_timeout(Wake::Report(said), PATIENCE)
            {
                log_report(&without_stacks, &said, "");
            }
        });
        let watchdog =
            watchdog.inspect_err(|error| warn!(log, "stuck threads will not be noticed"; "reason" => %error));
        Ok((Self { _watchdog: watchdog.ok(), _stop: stop, _thread: thread }, asker))
    }
}

/// What the thread has.
struct Dumps {
    /// The program's.
    name: &'static str,
    logging: Logging,
    besides: Besides,
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
                        let _doing = activity_within(DUMP_LIMIT, "dumping stacks");
                        let lines = self.dump();
                        self.put_somewhere(&lines);
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
        let mut text = String::new();
        if let Ok(stacks) = &mut self.stacks {
            for stack in report.stuck().into_iter().filter_map(|thread| stacks.thread(thread)) {
                text += &format!("\n{stack}");
            }
        }
        log_report(&self.logging, &report, &text);
    }

    fn dump(&mut self) -> Vec<String> {
        let (pid, now) = (std::process::id(), Local::now().to_rfc3339_opts(SecondsFormat::Millis, true));
        let source = format!("{} {}, process {pid}, {now}", self.name, env!("CARGO_PKG_VERSION"));
        match &mut self.stacks {
            Ok(stacks) => stacks.report(&source),
            Err(error) => vec![
                format!("stack dump begins: {source}"),
                format!("the stacks cannot be read: {error}"),
                "stack dump ends".to_owned(),
            ],
        }
    }

    fn put_somewhere(&self, lines: &[String]) {
        let log = self.logging.log();
        match &self.besides {
            Besides::Daemon(file) => {
                // First, because whoever has asked for it may be waiting.
                let written = write_file(file, lines);
                let logged = self.put_into_log(lines);
                let file = file.display();
                match (written, logged) {
                    (Ok(()), Ok(())) => {}
                    (Ok(()), Err(why)) => {
                        info!(log, "the stack dump is in a file of its own only"; "file" => %file, "reason" => why);
                    }
                    (Err(error), Ok(())) => {
                        warn!(log, "the stack dump is in the log only"; "file" => %file, "error" => %error);
                    }
                    (Err(error), Err(why)) => nowhere(log, &file, &error, &why),
                }
            }
            Besides::Foreground(file) => {
                let Err(why) = self.put_into_log(lines) else { return };
                if write_to_stderr(&(lines.join("\n") + "\n")).is_ok() {
                    info!(log, "the stack dump went to standard error"; "reason" => why);
                } else if let Err(error) = write_file(file, lines) {
                    nowhere(log, &file.display(), &error, &why);
                } else {
                    let file = file.display();
                    info!(log, "the stack dump is in a file of its own only"; "file" => %file, "reason" => why);
                }
            }
        }
    }

    fn put_into_log(&self, lines: &[String]) -> Result<(), String> {
        if !self.logging.wants(Level::Debug, LOGGER) {
            return Err(format!("no log takes debug lines of {LOGGER}"));
        }
        let written = self.logging.write_lines(Level::Debug, LOGGER, lines, PATIENCE);
        written.map_err(|stuck| stuck.to_string())
    }
}

fn nowhere(log: &Logger, file: &path::Display<'_>, error: &io::Error, why: &str) {
    error!(log, "the stack dump could be written nowhere"; "file" => %file, "error" => %error, "reason" => why);
}

fn log_report(logging: &Logging, report: &Report, stacks: &str) {
    match report {
        Report::WentOn(_) => warn!(logging.log(), "{report}"),
        Report::Stuck(_) | Report::Deadlock(_) => error!(logging.log(), "{report}{stacks}"),
    }
}

/// Nobody else's business.
fn write_file(path: &Path, lines: &[String]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = own_file::open(path, options.create(true).truncate(false).write(true).mode(0o600))?;
    file.set_len(0)?;
    let mut file = BufWriter::new(file);
    lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Barrier;
    use std::thread;
    use std::time::Instant;

    use nodepool_threads::Mutex;

    use super::*;
    use crate::logging::LogSettings;

    #[inline(never)]
    fn takes_one_and_then_the_other(one: &Mutex<()>, other: &Mutex<()>, both: &Barrier) {
        let _one = one.lock();
        both.wait();
        let _other = other.lock();
    }

    #[test]
    fn a_deadlock_is_an_error_in_the_log_with_the_stacks_of_its_threads_without_any_signal() {
        static ONE: Mutex<()> = Mutex::new("one", ());
        static OTHER: Mutex<()> = Mutex::new("other", ());
        static BOTH: Barrier = Barrier::new(2);
        let dir = std::env::temp_dir().join(format!("stack-dump-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (settings, log) = (dir.join("logging.yaml"), dir.join("log"));
        fs::write(&settings, format!("outputs: [{{file: '{}', level: debug}}]", log.display())).unwrap();
        let (logging, writers) = Logging::start(LogSettings::read(&settings).unwrap(), "test").unwrap();
        let (dumps, _asker) =
            StackDumps::start("test", &logging, Besides::Foreground(dir.join("stacks"))).unwrap();
        // Nothing ever ends them.
        std::mem::forget([
            spawn("one-first", "tester", || takes_one_and_then_the_other(&ONE, &OTHER, &BOTH)).unwrap(),
            spawn("other-first", "tester", || takes_one_and_then_the_other(&OTHER, &ONE, &BOTH)).unwrap(),
        ]);
        let deadline = Instant::now() + Duration::from_secs(60);
        let text = loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            // It is written in one piece, but maybe not all at once.
            if text.matches("::takes_one_and_then_the_other at src/daemon/stack_dump.rs:").count() == 2 {
                break text;
            }
            assert!(Instant::now() < deadline, "{text}");
            thread::park_timeout(Duration::from_millis(20));
        };
        let head = text.lines().find(|line| line.contains("DEADLOCK: ")).unwrap();
        for part in ["ERRO", "one-first", "other-first", "\"one\"", "\"other\""] {
            assert!(head.contains(part), "{text}");
        }
        drop((dumps, logging, writers));
        fs::remove_dir_all(dir).unwrap();
    }
}
