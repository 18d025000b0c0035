//! What the two forms of the original's logging configuration have in common: classes of handlers, loggers that
//! name handlers, and what of it has no meaning here.

use nodepool_drivers::api::Problems;
use slog::FilterLevel;

use super::checks::{Placed, repeated, warn_of_unknown};
use super::levels::{Levels, Rule};
use super::settings::{LogSettings, Target};
use crate::config::did_you_mean;

/// The classes of Python's handlers that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Stream,
    File,
    /// Rotates by itself, which is logrotate's task here.
    RotatingFile,
    Syslog,
    Null,
}

impl Class {
    /// The class of that name; the modules before it may be left out as far as Python lets them.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name.strip_prefix("logging.").unwrap_or(name) {
            "StreamHandler" => Ok(Self::Stream),
            "FileHandler" | "handlers.WatchedFileHandler" => Ok(Self::File),
            "handlers.RotatingFileHandler" | "handlers.TimedRotatingFileHandler" => Ok(Self::RotatingFile),
            "handlers.SysLogHandler" => Ok(Self::Syslog),
            "NullHandler" => Ok(Self::Null),
            _ => Err(format!(
                "the handler class '{name}' is not supported; supported are logging.StreamHandler, FileHandler and \
                 NullHandler, and of logging.handlers WatchedFileHandler, RotatingFileHandler, \
                 TimedRotatingFileHandler and SysLogHandler"
            )),
        }
    }
}

/// A handler of the file. Without an output it is a `NullHandler`, or wrong, which has been said.
pub(super) struct Handler {
    pub(super) name: String,
    pub(super) output: Option<Placed>,
}

/// A logger of the file; the root has the name `""`.
pub(super) struct PythonLogger {
    pub(super) name: String,
    /// Where it is named, and where its handlers are, for messages.
    pub(super) at: String,
    pub(super) handlers_at: String,
    /// `Some(None)` is `NOTSET`.
    pub(super) level: Option<Option<FilterLevel>>,
    pub(super) handlers: Vec<String>,
    pub(super) propagate: bool,
}

/// What can be read and has no meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignored {
    Formats,
    Filters,
    Rotation,
    Truncation,
}

impl Ignored {
    fn warning(self) -> &'static str {
        match self {
            Self::Formats => "the formats of the logging configuration are ignored",
            Self::Filters => "the filters of the logging configuration are ignored",
            Self::Rotation => "log files are not rotated by this program; let logrotate do it",
            Self::Truncation => "log files are always appended to; the mode of a file handler is ignored",
        }
    }
}

/// The first place of each thing that is ignored: one warning for each kind.
#[derive(Default)]
pub(super) struct IgnoredAt(Vec<(Ignored, String)>);

impl IgnoredAt {
    /// Notes that something has no meaning there.
    pub(super) fn note(&mut self, what: Ignored, at: impl Into<String>) {
        if self.0.iter().all(|(known, _)| *known != what) {
            self.0.push((what, at.into()));
        }
    }
}

/// Brings handlers and loggers together. `handlers` is `None` where it cannot be said which there are; that has
/// been complained of then.
pub(super) fn settle(
    handlers: Option<Vec<Handler>>,
    loggers: Vec<PythonLogger>,
    ignored: IgnoredAt,
    problems: &Problems,
) -> LogSettings {
    let mut levels = Levels::default();
    let readable = handlers.is_some();
    let (names, outputs): (Vec<String>, Vec<Option<Placed>>) =
        handlers.unwrap_or_default().into_iter().map(|handler| (handler.name, handler.output)).unzip();
    // The handlers without an output are left out of the count.
    let number = |at: usize| outputs[..at].iter().flatten().count();
    for (name, output) in names.iter().zip(&outputs) {
        if let Some((at, _)) =
            output.as_ref().filter(|_| !loggers.iter().any(|logger| logger.handlers.contains(name)))
        {
            problems.warning(at, format!("no logger has the handler '{name}', so nothing is written there"));
        }
    }
    if !problems.have_errors() && loggers.iter().all(|logger| logger.handlers.is_empty()) {
        problems.warning("", "no logger has a handler, so nothing is logged at all");
    }
    for logger in loggers {
        let mut numbers = Vec::new();
        for name in &logger.handlers {
            match names.iter().position(|known| known == name) {
                Some(at) => numbers.extend(outputs[at].as_ref().map(|_| number(at))),
                None if readable => {
                    let hint = did_you_mean(name, &names);
                    problems.error(&logger.handlers_at, format!("there is no handler '{name}'{hint}"));
                }
                None => {}
            }
        }
        warn_of_unknown(&logger.name, &logger.at, problems);
        // The root has nobody above it to ask: to it, NOTSET is everything, and no word at all the default.
        let level = match logger.level {
            Some(None) if logger.name.is_empty() => Some(FilterLevel::Trace),
            level => level.flatten(),
        };
        levels.set(&logger.name, Rule { level, outputs: numbers, propagate: logger.propagate });
    }
    ignored.0.into_iter().for_each(|(what, at)| problems.warning(at, what.warning()));
    let outputs: Vec<Placed> = outputs.into_iter().flatten().collect();
    // No error: in the original each logger may have its own handler for a file that they share.
    for (at, target, first) in repeated(&outputs).filter(|(_, target, _)| matches!(target, Target::File(_))) {
        problems.warning(
            at,
            format!("{first} writes to {target} already; a line that goes to both is there twice"),
        );
    }
    LogSettings::new(outputs.into_iter().map(|(_, output)| output).collect(), levels)
}
