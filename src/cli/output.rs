//! The standard streams: what was asked for goes to standard output, everything else to standard error.

use std::io::{self, Write};

use slog::{Discard, Drain, Logger, o};

use super::failure::Failure;

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Failure::of_output(&error))
}

/// Writes a line to standard error.
pub(super) fn complain(line: &str) {
    // In one piece, so that it is not mixed with a line of the log. Nobody can be told that it failed.
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Tells of something that does not stop the command.
pub(super) fn warn(what: &str) {
    complain(&format!("nodepool: warning: {what}"));
}

/// The log on standard error; without `debug` nothing is logged, for what a user must know is told to them.
pub(super) fn logger(debug: bool) -> Logger {
    if !debug {
        return Logger::root(Discard, o!());
    }
    let stderr = slog_term::PlainSyncDecorator::new(io::stderr());
    Logger::root(slog_term::FullFormat::new(stderr).build().ignore_res(), o!())
}
