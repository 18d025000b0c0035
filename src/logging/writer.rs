//! The thread that writes one output. What fails is tried again each second: the lines wait in the queue
//! meanwhile, and whatever other output there is hears of it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::{Account, activity, activity_within};
use slog::Level;

use super::line::Line;
use super::outputs::{Channel, Outputs};
use super::queue::Next;

/// The logger of what logging has to say of itself.
pub(super) const OWN_LOGGER: &str = "nodepool.logging";

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a line may take until it is worth a report in the other logs: a disk or a mount hangs.
const WRITING: Duration = Duration::from_secs(10);

/// The other outputs hear of an output's trouble this often at most.
const QUIET: Duration = Duration::from_secs(60);

/// What lines are written to.
pub(super) trait Sink: Send {
    /// Writes the line. After an error the same line comes again.
    fn write(&mut self, line: &Line) -> io::Result<()>;

    /// Opens it anew, after somebody has said that it is another one now.
    fn reopen(&mut self) -> io::Result<()>;
}

/// An error of an output, with what is probably the matter.
pub(super) fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{error}; does its directory exist?"),
        io::ErrorKind::PermissionDenied => {
            let uid = rustix::process::geteuid();
            let known = Account::of_process().ok().flatten();
            let user =
                known.map_or_else(|| uid.as_raw().to_string(), |user| user.name.to_string_lossy().into());
            format!("{error}, as the user {user}; let that user write it, and enter its directory")
        }
        _ => error.to_string(),
    }
}

/// Writes what comes out of a queue.
pub(super) struct Writer {
    outputs: Arc<Outputs>,
    index: usize,
    sink: Box<dyn Sink>,
    troubled: bool,
    /// When the others were told of trouble last, and whether they know of the present one.
    told: Option<Instant>,
    known: bool,
}

impl Writer {
    /// The writer of the output with that number.
    pub(super) fn new(outputs: &Arc<Outputs>, index: usize, sink: Box<dyn Sink>) -> Self {
        Self { outputs: Arc::clone(outputs), index, sink, troubled: false, told: None, known: false }
    }

    /// Writes until the queue has ended.
    pub(super) fn run(mut self) {
        let outputs = Arc::clone(&self.outputs);
        let channel = &outputs.all[self.index];
        loop {
            let next = channel.queue.next();
            let writing = activity_within(WRITING, "writing to the log");
            let attempt = match next {
                Next::End => return,
                Next::Reopen => self.sink.reopen(),
                Next::Line(line) => self.sink.write(&line).map(|()| channel.queue.written()),
                Next::Lost(count) => {
                    let what = format!("{count} lines were lost here: there was no room for them");
                    let line = Line::plain(channel.format, Level::Warning, OWN_LOGGER, &what);
                    self.sink.write(&line).map(|()| channel.queue.told(count))
                }
            };
            drop(writing);
            match attempt {
                Ok(()) => self.works(channel),
                Err(error) => {
                    self.begin_trouble(channel, &error);
                    let _doing = activity(format!("waiting for {}: {error}", channel.name));
                    if !channel.queue.failed(PAUSE) {
                        return;
                    }
                }
            }
        }
    }

    fn begin_trouble(&mut self, channel: &Channel, error: &io::Error) {
        if std::mem::replace(&mut self.troubled, true) || self.told.is_some_and(|last| last.elapsed() < QUIET)
        {
            return;
        }
        (self.told, self.known) = (Some(Instant::now()), true);
        self.tell_others(
            Level::Error,
            &format!("cannot write the log {}, lines wait: {}", channel.name, explained(error)),
        );
    }

    fn works(&mut self, channel: &Channel) {
        self.troubled = false;
        if std::mem::take(&mut self.known) {
            self.tell_others(Level::Info, &format!("the log {} is written again", channel.name));
        }
    }

    fn tell_others(&self, level: Level, what: &str) {
        for (index, other) in self.outputs.all.iter().enumerate() {
            if index != self.index && other.level.accepts(level) {
                other.queue.push(Line::plain(other.format, level, OWN_LOGGER, what));
            }
        }
    }
}
