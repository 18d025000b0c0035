//! What a call is given besides its arguments.

use std::time::Duration;

use nodepool_threads::{StopSource, StopToken};
use slog::Logger;

use super::error::{Error, ErrorKind};

/// How long may be taken for what must not be left undone.
pub const UNDO_LIMIT: Duration = Duration::from_secs(300);
/// The same once the daemon stops, which has ten seconds in all.
const LAST_UNDO_LIMIT: Duration = Duration::from_secs(5);

/// What every call into a provider carries.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// Ends the call, with [`ErrorKind::Cancelled`] when it is stopped and [`ErrorKind::Timeout`] when its
    /// deadline passes.
    pub stop: StopToken,
    /// Where to log; it names the provider already.
    pub log: Logger,
}

impl CallContext {
    /// Does what must not be left undone, such as the deletion of what a failed call has begun: within [`UNDO_LIMIT`],
    /// whatever the call's deadline is; and where a stop ends that or has come before, once more within
    /// `LAST_UNDO_LIMIT`. `act` is told whether it is that last time.
    pub fn insist<T>(&self, mut act: impl FnMut(&CallContext, bool) -> Result<T, Error>) -> Result<T, Error> {
        let mut done = Err(Error::new(ErrorKind::Cancelled, "cancelled"));
        if !self.stop.is_stopped() {
            let stop = self.stop.without_deadline().deadline_in(UNDO_LIMIT);
            done = act(&CallContext { stop, log: self.log.clone() }, false);
        }
        if done.is_ok() || !self.stop.is_stopped() {
            return done;
        }
        let source = StopSource::new();
        let stop = source.token().deadline_in(LAST_UNDO_LIMIT);
        act(&CallContext { stop, log: self.log.clone() }, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_done_is_done_once_more_when_a_stop_ends_it() {
        let source = StopSource::new();
        let stop = source.token().deadline_in(Duration::ZERO);
        let call = CallContext { stop, log: Logger::root(slog::Discard, slog::o!()) };
        let mut times = Vec::new();
        // A deadline that has passed is no reason to leave it.
        let done = call.insist(|own, last| {
            times.push(last);
            own.stop.check().map_err(Error::from)
        });
        assert!(done.is_ok());
        let done = call.insist(|own, last| {
            times.push(last);
            source.stop();
            own.stop.check().map_err(Error::from)
        });
        assert!(done.is_ok());
        let done = call.insist(|own, last| {
            times.push(last);
            own.stop.check().map_err(Error::from)
        });
        assert!(done.is_ok());
        assert_eq!(times, [false, false, true, true]);
    }
}
