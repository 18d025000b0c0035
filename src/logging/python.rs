//! What the two forms of the original's logging configuration have in common: classes of handlers, loggers that
//! name handlers, and what of it has no meaning here.

use std::path::PathBuf;

use nodepool_drivers::api::Problems;
use slog::FilterLevel;

use super::levels::{Levels, Rule};
use super::names::is_known;
use super::settings::{LogSettings, Output};

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
    pub(super) output: Option<Output>,
}

/// A logger of the file; the root has the name `""`.
pub(super) struct PythonLogger {
    pub(super) name: String,
    /// Where its handlers are named, for messages.
    pub(super) at: String,
    /// `Some(None)` is `NOTSET`.
    pub(super) level: Option<Option<FilterLevel>>,
    pub(super) handlers: Vec<String>,
    pub(super) propagate: bool,
}

/// What was read and is of no use here: one warning for each kind.
#[derive(Default)]
pub(super) struct Ignored {
    pub(super) formats: bool,
    pub(super) rotation: bool,
    pub(super) truncation: bool,
}

/// Brings handlers and loggers together.
pub(super) fn settle(
    handlers: Vec<Handler>,
    loggers: Vec<PythonLogger>,
    ignored: &Ignored,
    problems: &Problems,
) -> LogSettings {
    let mut levels = Levels::default();
    let mut unknown = Vec::new();
    let (names, outputs): (Vec<String>, Vec<Option<Output>>) =
        handlers.into_iter().map(|handler| (handler.name, handler.output)).unzip();
    // The handlers without an output are left out of the count.
    let number = |at: usize| outputs[..at].iter().flatten().count();
    for logger in loggers {
        let mut numbers = Vec::new();
        for name in &logger.handlers {
            match names.iter().position(|known| known == name) {
                Some(at) => numbers.extend(outputs[at].as_ref().map(|_| number(at))),
                None => problems.error(&logger.at, format!("there is no handler '{name}'")),
            }
        }
        if !is_known(&logger.name) {
            unknown.push(logger.name.clone());
        }
        // The root has nobody above it to ask: to it, NOTSET is everything, and no word at all the default.
        let level = match logger.level {
            Some(None) if logger.name.is_empty() => Some(FilterLevel::Trace),
            level => level.flatten(),
        };
        levels.set(&logger.name, Rule { level, outputs: numbers, propagate: logger.propagate });
    }
    let mut warnings = Vec::new();
    if ignored.formats {
        warnings.push("the formats of the logging configuration are ignored".to_owned());
    }
    if ignored.rotation {
        warnings.push("log files are not rotated by this program; let logrotate do it".to_owned());
    }
    if ignored.truncation {
        warnings.push("log files are always appended to; the mode of a file handler is ignored".to_owned());
    }
    warnings.extend(unknown_names(unknown));
    LogSettings { outputs: outputs.into_iter().flatten().collect(), levels, warnings }
}

/// The warning that nothing here logs under these names.
pub(super) fn unknown_names(names: Vec<String>) -> Option<String> {
    (!names.is_empty()).then(|| format!("no logger here has any of these names: {}", names.join(", ")))
}

/// The path as it is meant now: a daemon changes its directory later.
pub(super) fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}
