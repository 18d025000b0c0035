//! What logging does, resolved: the outputs and the rules of the loggers. The defaults are the original's.

use std::fmt;
use std::path::{Path, PathBuf};

use slog::FilterLevel;

use super::levels::{Levels, Rule};

/// The directory of the original's default log files.
pub const LOG_DIR: &str = "/var/log/nodepool";

/// Which outputs there are, and what goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub(super) outputs: Vec<Output>,
    pub(super) levels: Levels,
    /// What of a configuration file has no effect here. Logged once.
    pub(super) warnings: Vec<String>,
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
        if self.outputs.iter().any(|output| matches!(output.target, Target::Console(_))) {
            self.warnings.push("a daemon has no console: what is logged there is lost".to_owned());
        }
        self
    }

    /// All lines to all of the outputs, as far as these take them.
    fn all_to(outputs: Vec<Output>) -> Self {
        let mut levels = Levels::default();
        let all = (0..outputs.len()).collect();
        levels.set("", Rule { level: Some(FilterLevel::Trace), outputs: all, propagate: true });
        Self { outputs, levels, warnings: Vec::new() }
    }

    /// Makes the directory of the default files where there is none. One that an operator names must exist: it
    /// may be a disk of its own that is not mounted.
    pub(super) fn make_default_directory(&self) {
        let below =
            |output: &Output| matches!(&output.target, Target::File(path) if path.starts_with(LOG_DIR));
        if self.outputs.iter().any(below) {
            // Whoever opens the file says why it cannot be.
            let _ = std::fs::create_dir_all(LOG_DIR);
        }
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
