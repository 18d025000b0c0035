//! Logging of a whole program: its start, its handle, its end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, panic};

use nodepool_threads::{Panicked, Thread, spawn};
use slog::{Level, Logger, error, o, warn};

use super::console::Console;
use super::log_file::LogFile;
use super::outputs::{Channel, Outputs};
use super::settings::{Format, LogSettings, Target};
use super::syslog::Syslog;
use super::writer::{Sink, Writer, explained};
use crate::config::FileProblem;

/// How long the end of the program waits for lines that are not written yet.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The handle of a program's logging, for all of its threads.
#[derive(Clone)]
pub struct Logging {
    log: Logger,
    outputs: Arc<Outputs>,
}

/// The threads that write. When it is dropped, what was logged before is written as far as half a second allows,
/// so it should be the last thing to go.
#[must_use]
pub struct Writers {
    outputs: Arc<Outputs>,
    threads: Vec<Thread<()>>,
}

/// No output that wanted some lines has written them in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    outputs: Vec<String>,
}

impl Logging {
    /// Opens all outputs and starts their threads. The error says what cannot be opened. `program` is what syslog
    /// shows.
    ///
    /// A process that becomes a daemon must do so before.
    pub fn start(settings: LogSettings, program: &str) -> Result<(Self, Writers), String> {
        let (mut all, mut sinks) = (Vec::new(), Vec::new());
        for output in settings.outputs {
            let name = output.target.to_string();
            let (sink, format): (Box<dyn Sink>, _) = match output.target {
                Target::File(path) => (Box::new(open(path)?), output.format),
                Target::Console(stream) => (Box::new(Console::new(stream)), output.format),
                Target::Syslog { socket, facility } => {
                    let format = if output.format == Format::Text { Format::Untimed } else { output.format };
                    (Box::new(Syslog::new(socket, facility, program, format)), format)
                }
            };
            all.push(Channel { name, level: output.level, format, queue: Default::default() });
            sinks.push(sink);
        }
        let outputs = Arc::new(Outputs { all, levels: settings.levels });
        let mut writers = Writers { outputs: Arc::clone(&outputs), threads: Vec::new() };
        for (index, sink) in sinks.into_iter().enumerate() {
            let writer = Writer::new(&outputs, index, sink);
            let name = format!("log-{}", short(&outputs.all[index].name));
            let thread = spawn(name, "log writer", move || writer.run());
            let thread = thread.map_err(|error| format!("cannot start a thread for the log: {error}"))?;
            writers.threads.push(thread);
        }
        let logging = Self { log: Logger::root(Arc::clone(&outputs), o!()), outputs };
        for FileProblem { file, at, problem } in settings.warnings {
            let at = at.map(|at| format!(":{at}")).unwrap_or_default();
            warn!(logging.log, # "nodepool.logging", "{}", problem.message;
                "at" => problem.path, "file" => format!("{}{at}", file.display()));
        }
        if settings.loses_console {
            warn!(logging.log, # "nodepool.logging", "a daemon has no console: what is logged there is lost");
        }
        Ok((logging, writers))
    }

    /// The root of all loggers. It names no image, no build, nothing.
    pub fn log(&self) -> &Logger {
        &self.log
    }

    /// Opens all outputs anew, before the next line of each.
    pub fn reopen(&self) {
        self.outputs.all.iter().for_each(|channel| channel.queue.reopen());
    }

    /// Waits until everything that was logged before is written, but no longer than the limit. An output that
    /// fails is not waited for.
    pub fn flush(&self, limit: Duration) {
        self.outputs.flush(limit);
    }

    /// The flush before an end without any clean-up.
    pub fn last_words(&self) {
        self.flush(LAST_LINES);
    }

    /// Whether any output takes lines of that level and logger.
    pub fn wants(&self, level: Level, logger: &str) -> bool {
        self.outputs.wanting(logger, level).next().is_some()
    }

    /// Logs many lines at once, and makes sure of them: waits until one of the outputs that the logger's lines go to
    /// has written them, but no longer than `patience`, and does not wait for room in the queues before. If nobody
    /// wants them there is nothing to wait for.
    ///
    /// Lines of which this says that they are stuck are withdrawn: what is not begun by then is never written.
    pub fn write_lines(
        &self,
        level: Level,
        logger: &str,
        lines: &[String],
        patience: Duration,
    ) -> Result<(), Stuck> {
        let written = self.outputs.write_lines(level, logger, lines, patience);
        written.map_err(|outputs| Stuck { outputs })
    }

    /// Sends panics to the log: a daemon has no standard error.
    pub fn log_panics(&self) {
        let this = self.clone();
        panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let panic = Panicked::from_payload(info.payload()).0;
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            error!(this.log, # "nodepool.panic", "a thread panicked; this is a bug";
                "thread" => thread, "panic" => panic, "at" => place);
            // Whatever comes of the panic, it may be the end of the process.
            this.last_words();
        }));
    }
}

fn open(path: std::path::PathBuf) -> Result<LogFile, String> {
    let shown = path.display().to_string();
    LogFile::open(path).map_err(|error| format!("cannot write the log {shown}: {}", explained(&error)))
}

/// What a thread is named after: the last part of a path, the last word of other names.
fn short(name: &str) -> &str {
    let last = Path::new(name).file_name().and_then(|last| last.to_str()).unwrap_or(name);
    last.rsplit(' ').next().unwrap_or(last)
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.outputs.all.iter().for_each(|channel| channel.queue.end());
        let deadline = std::time::Instant::now() + LAST_LINES;
        for thread in self.threads.drain(..) {
            if !thread.ended_by(deadline) {
                // It sits in a write that does not end. The process ends all the same, and must not wait.
                thread.detach();
            }
        }
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.outputs.all.iter().map(|channel| &channel.name)).finish()
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the log is stuck: {}", self.outputs.join(", "))
    }
}

impl std::error::Error for Stuck {}
