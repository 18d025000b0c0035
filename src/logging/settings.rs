//! What logging does, resolved: the outputs and the rules of the loggers. The defaults are the original's.

use std::fmt;
use std::path::{Path, PathBuf};

use slog::FilterLevel;

use super::levels::{Levels, Rule};
use crate::config::FileProblem;

/// The directory of the original's default log files.
pub const LOG_DIR: &str = "/var/log/nodepool";

/// Which outputs there are, and what goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub(super) outputs: Vec<Output>,
    pub(super) levels: Levels,
    /// What of a configuration file is odd or has no effect. Logged once.
    pub(super) warnings: Vec<FileProblem>,
    /// Whether there is an output to a console that leads nowhere. Logged once.
    pub(super) loses_console: bool,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) target: Target,
    /// The least grave level that it takes.
    pub(super) level: FilterLevel,
    pub(super) format: Format,
}

/// What is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    File(PathBuf),
    Console(Stream),
    Syslog { socket: PathBuf, facility: u8 },
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Text,
    /// The same without the time, which syslog adds.
    Untimed,
    /// A JSON object.
    Json,
}

impl LogSettings {
    /// A program in the foreground.
    pub fn console(stream: Stream, debug: bool) -> Self {
        let level = if debug { FilterLevel::Debug } else { FilterLevel::Info };
        Self::all_to(vec![Output { target: Target::Console(stream), level, format: Format::Text }])
    }

    /// A daemon: `<name>.log`, and with everything `<name>-debug.log`.
    pub fn daemon(name: &str) -> Self {
        let file = |name: String, level| {
            let target = Target::File(Path::new(LOG_DIR).join(name));
            Output { target, level, format: Format::Text }
        };
        Self::all_to(vec![
            file(format!("{name}.log"), FilterLevel::Info),
            file(format!("{name}-debug.log"), FilterLevel::Debug),
        ])
    }

    /// The same for a program that has no terminal any more.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.loses_console = self.outputs.iter().any(|output| matches!(output.target, Target::Console(_)));
        self
    }

    /// All lines to all of the outputs, as far as these take them.
    fn all_to(outputs: Vec<Output>) -> Self {
        let mut levels = Levels::default();
        let all = (0..outputs.len()).collect();
        levels.set("", Rule { level: Some(FilterLevel::Trace), outputs: all, propagate: true });
        Self::new(outputs, levels)
    }

    /// Settings of which there is nothing to say.
    pub(super) fn new(outputs: Vec<Output>, levels: Levels) -> Self {
        Self { outputs, levels, warnings: Vec::new(), loses_console: false }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Console(Stream::Stdout) => f.write_str("standard output"),
            Self::Console(Stream::Stderr) => f.write_str("standard error"),
            Self::Syslog { socket, .. } => write!(f, "syslog at {}", socket.display()),
        }
    }
}
