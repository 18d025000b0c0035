//! Stop tokens: how a wait, a child process or a driver's call learns that it must end.
//!
//! A [`StopSource`] belongs to whoever may order the stop; it hands out [`StopToken`]s, which are
//! cheap to clone and go wherever something blocks. A token carries the stops of all that it was joined of
//! and the nearest deadline, so one value answers "may I go on, and until when?". Stopping is
//! permanent: a source cannot be started again.

use std::convert::Infallible;
use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};

use crate::locks::Mutex;

/// Why a wait ended before what it waited for had happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The source, or one of several, was stopped.
    Stopped,
    /// The token's deadline has passed.
    DeadlinePassed,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::DeadlinePassed => "the deadline has passed",
        })
    }
}

impl std::error::Error for Interrupted {}

/// The side that orders the stop. Dropping it stops its tokens too: nobody waits for an owner that is gone.
#[derive(Debug)]
pub struct StopSource {
    /// Dropped to stop: every receiver of the channel then reads as disconnected.
    running: Mutex<Option<Sender<Infallible>>>,
    stopped: Receiver<Infallible>,
}

impl Default for StopSource {
    fn default() -> Self {
        Self::new()
    }
}

impl StopSource {
    /// A source that is not stopped.
    pub fn new() -> Self {
        let (sender, stopped) = bounded(0);
        Self { running: Mutex::new("stop source", Some(sender)), stopped }
    }

    /// Stops every token of this source. Calling it again changes nothing.
    pub fn stop(&self) {
        self.running.lock().take();
    }

    /// A token of this source.
    pub fn token(&self) -> StopToken {
        StopToken { stops: vec![self.stopped.clone()], deadline: None }
    }

    /// Reads as disconnected once this is stopped: for who selects over several things at once.
    pub fn stopped(&self) -> &Receiver<Infallible> {
        &self.stopped
    }
}

/// What a blocking call takes to know when it must give up.
#[derive(Debug, Clone)]
pub struct StopToken {
    stops: Vec<Receiver<Infallible>>,
    deadline: Option<Instant>,
}

impl StopToken {
    /// The same token with a deadline `after` from now, unless it has an earlier one already.
    #[must_use]
    pub fn deadline_in(&self, after: Duration) -> Self {
        // A duration too large for the clock is no deadline at all.
        let new = Instant::now().checked_add(after);
        let deadline = match (self.deadline, new) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        Self { stops: self.stops.clone(), deadline }
    }

    /// The same token without its deadline: for what must be taken back when that has passed.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        Self { stops: self.stops.clone(), deadline: None }
    }

    /// A token that ends as soon as this one or `other` does.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let stops = [self.stops.as_slice(), other.stops.as_slice()].concat();
        let deadline = [self.deadline, other.deadline].into_iter().flatten().min();
        Self { stops, deadline }
    }

    /// When the token ends by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether a stop was ordered, whatever the deadline says.
    pub fn is_stopped(&self) -> bool {
        self.stops.iter().any(|stop| stop.try_recv() == Err(TryRecvError::Disconnected))
    }

    /// Ok while the holder may go on.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.is_stopped() {
            return Err(Interrupted::Stopped);
        }
        match self.deadline {
            Some(at) if at <= Instant::now() => Err(Interrupted::DeadlinePassed),
            _ => Ok(()),
        }
    }

    /// Waits for `duration`; ends early with the reason when the token does.
    pub fn wait(&self, duration: Duration) -> Result<(), Interrupted> {
        // Nothing is ever sent on this channel, so only its time limit or the token ends the wait.
        let (_keep, never) = bounded::<Infallible>(0);
        match self.recv_timeout(&never, duration) {
            Ok(_) | Err(Waited::Disconnected | Waited::TimedOut) => Ok(()),
            Err(Waited::Interrupted(why)) => Err(why),
        }
    }

    /// Receives from `receiver`, ending early when the token does.
    pub fn recv<T>(&self, receiver: &Receiver<T>) -> Result<T, Waited> {
        self.recv_until(receiver, None)
    }

    /// Receives from `receiver` for at most `timeout`, ending early when the token does.
    pub fn recv_timeout<T>(&self, receiver: &Receiver<T>, timeout: Duration) -> Result<T, Waited> {
        self.recv_until(receiver, Instant::now().checked_add(timeout))
    }

    fn recv_until<T>(&self, receiver: &Receiver<T>, limit: Option<Instant>) -> Result<T, Waited> {
        self.check().map_err(Waited::Interrupted)?;
        let mut select = Select::new_biased();
        for stop in &self.stops {
            select.recv(stop);
        }
        let wanted = select.recv(receiver);
        let until = match (self.deadline, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let ready = match until {
            Some(at) => select.select_deadline(at).ok(),
            None => Some(select.select()),
        };
        match ready {
            Some(operation) if operation.index() == wanted => {
                operation.recv(receiver).map_err(|_| Waited::Disconnected)
            }
            Some(operation) => {
                let stop = &self.stops[operation.index()];
                // The receive completes the selection; the channel has no values, only an end.
                let _ = operation.recv(stop);
                Err(Waited::Interrupted(Interrupted::Stopped))
            }
            None => match self.check() {
                Err(why) => Err(Waited::Interrupted(why)),
                Ok(()) => Err(Waited::TimedOut),
            },
        }
    }
}

/// Why a receive through a token gave no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Every sender is gone.
    Disconnected,
    /// The receive's own time limit came first.
    TimedOut,
    /// The token ended.
    Interrupted(Interrupted),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_a_wait_at_once() {
        let source = StopSource::new();
        let token = source.token();
        let waiter = std::thread::spawn(move || token.wait(Duration::from_secs(600)));
        assert!(source.stopped().try_recv().is_err_and(|error| error.is_empty()));
        source.stop();
        assert_eq!(waiter.join().unwrap(), Err(Interrupted::Stopped));
        assert!(source.stopped().try_recv().is_err_and(|error| error.is_disconnected()));
    }

    #[test]
    fn the_nearest_deadline_counts() {
        let source = StopSource::new();
        let token = source.token().deadline_in(Duration::ZERO).deadline_in(Duration::from_secs(600));
        assert_eq!(token.check(), Err(Interrupted::DeadlinePassed));
        assert_eq!(token.wait(Duration::from_secs(600)), Err(Interrupted::DeadlinePassed));
        assert!(source.token().deadline_in(Duration::MAX).deadline().is_none());
    }

    #[test]
    fn without_its_deadline_a_token_still_stops() {
        let source = StopSource::new();
        let late = source.token().deadline_in(Duration::ZERO);
        assert_eq!(late.check(), Err(Interrupted::DeadlinePassed));
        assert_eq!(late.without_deadline().check(), Ok(()));
        source.stop();
        assert_eq!(late.without_deadline().check(), Err(Interrupted::Stopped));
    }

    #[test]
    fn a_receive_tells_a_value_from_an_end_from_a_limit() {
        let source = StopSource::new();
        let (sender, receiver) = bounded(1);
        sender.send(5).unwrap();
        assert_eq!(source.token().recv(&receiver), Ok(5));
        assert_eq!(source.token().recv_timeout(&receiver, Duration::ZERO), Err(Waited::TimedOut));
        drop(sender);
        assert_eq!(source.token().recv(&receiver), Err(Waited::Disconnected));
        source.stop();
        assert_eq!(source.token().recv(&receiver), Err(Waited::Interrupted(Interrupted::Stopped)));
    }

    #[test]
    fn a_joined_token_ends_with_either() {
        let (one, two) = (StopSource::new(), StopSource::new());
        let both = one.token().or(&two.token());
        assert!(!both.is_stopped());
        two.stop();
        assert!(both.is_stopped() && !one.token().is_stopped());
    }

    #[test]
    fn a_dropped_source_has_stopped() {
        let source = StopSource::new();
        let token = source.token();
        drop(source);
        assert!(token.is_stopped());
    }
}
