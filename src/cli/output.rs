//! The standard streams: what was asked for goes to standard output, everything else to standard error.

use std::io::{self, Write};
use std::path::Path;

use slog::{Discard, Logger, o};

use super::failure::Failure;
use crate::logging::{LogSettings, Logging, Stream, Writers};

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes to standard output what need not be text.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
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

/// The log on standard error with `debug`, or else where the logging configuration says. With neither nothing is
/// logged, for what a user must know is told to them. The writers are to be kept until all is said.
pub(super) fn logger(debug: bool, config: Option<&Path>) -> Result<(Logger, Option<Writers>), Failure> {
    let settings = match config {
        _ if debug => LogSettings::console(Stream::Stderr, true),
        Some(file) => LogSettings::read(file)?,
        None => return Ok((Logger::root(Discard, o!()), None)),
    };
    let (logging, writers) = Logging::start(settings, "nodepool").map_err(Failure::because)?;
    Ok((logging.log().clone(), Some(writers)))
}
