//! The end of a thread that works for the launcher thread, which hears of it however it comes about.

use std::convert::Infallible;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

/// Held by the thread for as long as it runs; dropped last, also when it panics.
pub(super) struct Running {
    running: Option<Sender<Infallible>>,
    nudge: Sender<()>,
}

/// Whether the thread has ended, for its owner.
pub(super) struct Ended(Receiver<Infallible>);

impl Running {
    /// Whoever reads from `nudge` learns that some thread has ended, and finds out which by the other part.
    pub(super) fn new(nudge: &Sender<()>) -> (Self, Ended) {
        let (running, ended) = bounded(0);
        (Self { running: Some(running), nudge: nudge.clone() }, Ended(ended))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Before the nudge: whoever follows it must find the thread ended.
        drop(self.running.take());
        // One message tells of all that have ended.
        let _ = self.nudge.try_send(());
    }
}

impl Ended {
    /// Whether it has.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Waits until it has, until `deadline` at most. True if it has.
    pub(super) fn wait_over(&self, deadline: Instant) -> bool {
        matches!(self.0.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected))
    }
}
