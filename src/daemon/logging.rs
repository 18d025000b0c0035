//! Where log lines go: to standard output in the foreground, to the original's default files as a daemon.
//! A line that cannot be written is lost, and nothing else: a full disk never stops work.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic;
use std::path::Path;

use nodepool_threads::Panicked;
use slog::{Drain, Duplicate, Level, LevelFilter, Logger, error, o};
use slog_term::{FullFormat, PlainSyncDecorator};

/// The directory of the original's default log files.
const LOG_DIR: &str = "/var/log/nodepool";

/// A logger for a program in the foreground.
pub(super) fn foreground(debug: bool) -> Logger {
    let level = if debug { Level::Debug } else { Level::Info };
    let drain = FullFormat::new(PlainSyncDecorator::new(io::stdout())).build();
    Logger::root(LevelFilter::new(drain.ignore_res(), level).ignore_res(), o!())
}

/// A logger for a daemon: `<name>.log` and, with everything, `<name>-debug.log`.
pub(super) fn daemon(name: &str) -> io::Result<Logger> {
    let open = |file: String| -> io::Result<File> {
        let path = Path::new(LOG_DIR).join(file);
        let opened = fs::create_dir_all(LOG_DIR)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&path));
        opened.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write the log {}: {error}", path.display()))
        })
    };
    let drain = |file: File| FullFormat::new(PlainSyncDecorator::new(file)).build();
    let normal = LevelFilter::new(drain(open(format!("{name}.log"))?).ignore_res(), Level::Info).ignore_res();
    let full =
        LevelFilter::new(drain(open(format!("{name}-debug.log"))?).ignore_res(), Level::Debug).ignore_res();
    Ok(Logger::root(Duplicate(normal, full).ignore_res(), o!()))
}

/// Sends panics to the log: a daemon has no standard error.
pub(super) fn log_panics(log: &Logger) {
    let log = log.clone();
    panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let message = Panicked::from_payload(info.payload()).0;
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        error!(log, "a thread panicked; this is a bug"; "thread" => thread, "message" => message, "at" => place);
    }));
}
