//! All outputs of a program while it runs, and the way of a line to their queues.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use slog::{Drain, FilterLevel, Level, Never, OwnedKVList, Record};

use super::levels::Levels;
use super::line::Line;
use super::names::logger_of;
use super::queue::Queue;
use super::settings::Format;

/// The outputs, and the rules of what goes where.
pub(super) struct Outputs {
    pub(super) all: Vec<Channel>,
    pub(super) levels: Levels,
}

/// The near side of an output; its writer has the far one.
pub(super) struct Channel {
    /// What messages call it.
    pub(super) name: String,
    pub(super) level: FilterLevel,
    pub(super) format: Format,
    pub(super) queue: Queue,
}

// No code of others runs while a queue is locked, so that no panic can leave one half changed.
impl UnwindSafe for Outputs {}
impl RefUnwindSafe for Outputs {}

impl Outputs {
    /// The outputs that take lines of that logger and level.
    pub(super) fn wanting(&self, logger: &str, level: Level) -> impl Iterator<Item = &Channel> {
        let outputs = self.levels.outputs(logger, level);
        outputs.filter_map(|index| self.all.get(index)).filter(move |channel| channel.level.accepts(level))
    }

    /// Formats the lines for each output that wants them, and waits until one of these has written all. The error
    /// names them if none has within the limit: then the lines are withdrawn, for whoever asks has another place
    /// for them, and others need the room. An output that still has no room for them when another one has written
    /// them counts them as lost. That nobody wants them is no error.
    pub(super) fn write_lines(
        &self,
        level: Level,
        logger: &str,
        lines: &[String],
        limit: Duration,
    ) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + limit;
        let wanting: Vec<&Channel> = self.wanting(logger, level).collect();
        let (done, written) = bounded(wanting.len().max(1));
        let push = |channel: &&Channel| {
            let lines = lines.iter().map(|line| Line::plain(channel.format, level, logger, line)).collect();
            channel.queue.push_all(lines, done.clone())
        };
        let blocks: Vec<_> = wanting.iter().map(push).collect();
        drop(done);
        let is_written = wanting.is_empty() || written.recv_deadline(deadline).is_ok();
        for (channel, block) in wanting.iter().zip(blocks) {
            if is_written {
                channel.queue.settle(block);
            } else {
                channel.queue.withdraw(block);
            }
        }
        if is_written {
            return Ok(());
        }
        Err(wanting.into_iter().map(|channel| channel.name.clone()).collect())
    }

    /// Waits until everything that was logged before is written, or cannot be, but no longer than the limit.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (done, written) = bounded(self.all.len());
        self.all.iter().for_each(|channel| channel.queue.mark(done.clone()));
        drop(done);
        while written.recv_deadline(deadline).is_ok() {}
    }
}

impl Drain for Outputs {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let mut formatted: Vec<(Format, Line)> = Vec::new();
        for channel in self.wanting(&logger_of(record), record.level()) {
            let known = formatted.iter().find(|(format, _)| *format == channel.format);
            let line = match known {
                Some((_, line)) => line.clone(),
                None => {
                    let line = Line::new(channel.format, record, values);
                    formatted.push((channel.format, line.clone()));
                    line
                }
            };
            channel.queue.push(line);
        }
        Ok(())
    }
}
