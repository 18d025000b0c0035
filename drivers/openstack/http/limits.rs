//! What limits the request that the current thread makes.
//!
//! The transports below ureq outlive a request, because connections are kept; and ureq has no way to hand
//! them anything. But a request is made, and its answer read, on one thread: so the limits are that thread's
//! while it does that.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::time::Duration;

use nodepool_threads::{Interrupted, StopToken};

/// The limits of a request.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Ends it, by a stop or a deadline.
    pub(super) stop: StopToken,
    /// How long nothing may move.
    pub(super) idle: Duration,
    /// How long it may take to find and reach the server.
    pub(super) connect: Duration,
}

/// What a transport could read of the server's answer when it could not send all of a request.
const MOST_EARLY: usize = 64 << 10;

struct Current {
    limits: Limits,
    early: Vec<u8>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The limits are in force until this is dropped.
#[must_use = "the limits end when this is dropped"]
pub(super) struct InForce(());

/// Puts limits in force for the current thread.
pub(super) fn put_in_force(limits: Limits) -> InForce {
    CURRENT.set(Some(Current { limits, early: Vec::new() }));
    InForce(())
}

impl Drop for InForce {
    fn drop(&mut self) {
        CURRENT.take();
    }
}

/// The limits in force.
pub(super) fn current() -> io::Result<Limits> {
    let limits = CURRENT.with_borrow(|current| current.as_ref().map(|current| current.limits.clone()));
    limits.ok_or_else(|| io::Error::other("a request without limits"))
}

/// Has the rest of the request, which is lost already, take no longer than it must.
pub(super) fn hurry(idle: Duration) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.limits.idle = current.limits.idle.min(idle);
        }
    });
}

/// Lets the server be silent for so long: it has heard all, and has something to do.
pub(super) fn be_patient(idle: Duration) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.limits.idle = current.limits.idle.max(idle);
        }
    });
}

/// Keeps what a server has said before it had heard all.
pub(super) fn keep_early_answer(bytes: &[u8]) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            let room = MOST_EARLY.saturating_sub(current.early.len());
            current.early.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    });
}

/// Takes it.
pub(super) fn take_early_answer() -> Vec<u8> {
    CURRENT
        .with_borrow_mut(|current| current.as_mut().map(|current| std::mem::take(&mut current.early)))
        .unwrap_or_default()
}

/// Why one of ours ended a request; travels within an [`io::Error`].
#[derive(Debug)]
pub(super) enum Ended {
    /// The token did.
    Interrupted(Interrupted),
    /// Nothing has moved for so long.
    Idle(Duration),
    /// The server was not reached, so it has heard nothing.
    Unreached(String),
    /// What was to be sent could not be read.
    Source(io::Error),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(why) => write!(f, "{why}"),
            Self::Idle(limit) => write!(f, "nothing was heard for {} s", limit.as_secs()),
            Self::Unreached(why) => f.write_str(why),
            Self::Source(why) => write!(f, "cannot read what is to be sent: {why}"),
        }
    }
}

impl std::error::Error for Ended {}

impl From<Ended> for io::Error {
    fn from(why: Ended) -> Self {
        Self::other(why)
    }
}

impl From<Interrupted> for Ended {
    fn from(why: Interrupted) -> Self {
        Self::Interrupted(why)
    }
}
