//! The end of a stop that takes too long.

use std::process;
use std::time::Duration;

use nodepool_threads::{Interrupted, StopSource, Thread, kill_child_groups, spawn};
use slog::error;

use crate::logging::Logging;

/// Ends the process, with all it has started, unless it is dropped before the limit.
pub(super) struct StopLimit {
    // Dropped in this order: the thread is told to end, and then waited for.
    _stop: StopSource,
    _thread: Option<Thread<()>>,
}

impl StopLimit {
    /// Within ten seconds of the request a daemon has ended, whatever its threads are waiting for. The log
    /// may take the last half of a second.
    pub(super) const LIMIT: Duration = Duration::from_millis(9300);

    /// The limit counts from now.
    pub(super) fn start(logging: &Logging) -> Self {
        let stop = StopSource::new();
        let (token, logging) = (stop.token(), logging.clone());
        // Without a thread the stop has no limit, which is no reason not to stop.
        let thread = spawn("stop-limit", "stop limit", move || {
            if token.wait(Self::LIMIT) != Err(Interrupted::Stopped) {
                error!(logging.log(), "the stop takes too long: leaving at once");
                kill_child_groups();
                logging.last_words();
                process::exit(1);
            }
        });
        Self { _stop: stop, _thread: thread.ok() }
    }
}
