//! The ZooKeeper session as its users see it: calls that outlive a connection, and a status.
//!
//! A connection that breaks is replaced by the [supervisor](super::supervisor) with one that goes on with the
//! same session. When the session itself is lost, a new *generation* begins. A [`Session`] handle can be
//! pinned to a generation: its calls fail with [`SessionLost`](ZkErrorKind::SessionLost) in any other, and
//! since a call is made on a connection of its own generation, a write can never outlive the lock that it was
//! made under.
//!
//! A call waits for a connection for at most the session timeout, and is over [`GRACE`] later at the latest,
//! whatever the server does. Only a [patient](Session::patient) handle waits longer for a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use nodepool_threads::{Activity, StopSource, Thread, activity_within, spawn};
use slog::Logger;

use super::client::{Client, Failure, TreeEvent};
use super::error::{ZkError, ZkErrorKind, ZkResult};
use super::shared::{Orphan, Shared};
use super::status::{Generation, Status};
use super::supervisor::Supervisor;
use crate::config::ZooKeeperConfig;

/// How long a call that has found a connection at its last moment may take on it.
const GRACE: Duration = Duration::from_millis(800);
/// As good as no deadline, for what waits until something else ends it.
const FAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// A handle of the session, cheap to clone.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    pinned: Option<Generation>,
    patience: Patience,
    /// Whoever may end the waits of this handle has done so.
    interrupted: Vec<Arc<AtomicBool>>,
}

/// How long the calls of a handle wait for a connection.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// Each for the session timeout.
    EachCall,
    /// All together until then: they are steps of one thing.
    Until(Instant),
    /// As long as the session may live.
    Session,
}

/// Ends the waits of the handles that came with it: their calls fail at once where there is no connection.
pub struct Interrupter {
    shared: Arc<Shared>,
    interrupted: Arc<AtomicBool>,
}

/// The owner of the session's thread. Dropping it closes the session, and with it all ephemeral znodes.
pub struct SessionThread {
    stop: StopSource,
    shared: Arc<Shared>,
    _thread: Thread<()>,
}

impl Session {
    /// Begins a session with the configured servers. Returns at once: the connection comes when it can.
    pub fn start(config: &ZooKeeperConfig, log: &Logger) -> io::Result<(Self, SessionThread)> {
        let shared = Arc::new(Shared::new(config.timeout, log));
        let stop = StopSource::new();
        let supervisor = Supervisor::new(config, &shared);
        let token = stop.token();
        let thread = spawn("zk-session", "ZooKeeper session", move || supervisor.run(&token))?;
        let owner = SessionThread { stop, shared: Arc::clone(&shared), _thread: thread };
        Ok((Self { shared, pinned: None, patience: Patience::EachCall, interrupted: Vec::new() }, owner))
    }

    /// A handle whose calls fail in any other generation.
    #[must_use]
    pub fn pinned(&self, generation: Generation) -> Self {
        Self { pinned: Some(generation), ..self.clone() }
    }

    /// A handle for the generation that this one is pinned to, or else for the current one.
    #[must_use]
    pub(super) fn pin(&self) -> Self {
        self.pinned(self.pinned.unwrap_or_else(|| self.status().generation))
    }

    /// A handle whose calls wait for a connection for as long as the session may live: to record what took
    /// long to make, and would have to be thrown away otherwise. They end with the session, and when they are
    /// [interrupted](Session::interruptible).
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { patience: Patience::Session, ..self.clone() }
    }

    /// A handle for several calls that must be over, all together, when one would have to be.
    #[must_use]
    pub(super) fn as_one_call(&self) -> Self {
        let patience = match self.patience {
            Patience::EachCall => Patience::Until(self.deadline()),
            longer => longer,
        };
        Self { patience, ..self.clone() }
    }

    /// A handle whose waits for a connection end when the other value says so, or is dropped.
    pub fn interruptible(&self) -> (Self, Interrupter) {
        let interrupted = Arc::new(AtomicBool::new(false));
        let mut handle = self.clone();
        handle.interrupted.push(Arc::clone(&interrupted));
        (handle, Interrupter { shared: Arc::clone(&self.shared), interrupted })
    }

    /// What the session is now.
    pub fn status(&self) -> Status {
        self.shared.state.lock().status
    }

    /// Whether the session that this handle is pinned to is lost, and with it all locks that were taken in it.
    pub fn is_lost(&self) -> bool {
        self.pinned.is_some_and(|generation| generation != self.status().generation)
    }

    /// A channel that gets a message whenever the status may have changed.
    pub fn subscribe(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        self.shared.state.lock().subscribers.push(sender);
        receiver
    }

    /// Waits for a connection for at most `limit`.
    pub fn wait_connected(&self, limit: Duration) -> ZkResult<Status> {
        self.client(Instant::now() + limit).map(|(_, status)| status)
    }

    /// Has an orphan deleted: now if there is a connection, else at the beginning of the next one, unless the session is
    /// lost and the orphan gone with it.
    pub(super) fn abandon(&self, orphan: &Orphan) {
        loop {
            let client = {
                let mut state = self.shared.state.lock();
                if self.pinned.is_some_and(|generation| generation != state.status.generation) {
                    return;
                }
                let Some(client) = &state.client else {
                    state.orphans.push(orphan.clone());
                    return;
                };
                Arc::clone(client)
            };
            let deadline = self.deadline().max(Instant::now());
            let _doing = self.calling("abandon", orphan.path(), deadline);
            let _limit = client.limit_call(deadline + GRACE);
            match orphan.delete(&client) {
                Ok(()) => return,
                // Now there is no connection, or a newer one.
                Err(_) => self.shared.forget(&client),
            }
        }
    }

    /// Watches everything below `path` on the current connection, whose status is returned.
    pub(super) fn watch_tree(&self, path: &str, events: &Sender<TreeEvent>) -> ZkResult<Status> {
        let deadline = self.deadline();
        let _doing = self.calling("watch", path, deadline);
        let (client, status) = self.client(deadline)?;
        let _limit = client.limit_call(deadline + GRACE);
        let watched = client.watch_tree(path, events.clone());
        watched.map(|()| status).map_err(|failure| {
            if failure.is_connection_loss() {
                self.shared.forget(&client);
            }
            failure.describe(&format!("watch {path}"))
        })
    }

    /// The current connection's client, waiting for one until `deadline`, with the status that belongs to it.
    fn client(&self, deadline: Instant) -> ZkResult<(Arc<Client>, Status)> {
        let mut state = self.shared.state.lock();
        loop {
            if self.pinned.is_some_and(|generation| generation != state.status.generation) {
                let why = "the session that this belongs to is lost".to_owned();
                return Err(ZkError::new(ZkErrorKind::SessionLost, why));
            }
            let in_time = Instant::now() < deadline;
            if let Some(client) = state.client.as_ref() {
                if in_time {
                    return Ok((Arc::clone(client), state.status));
                }
                let why = "not done within the session timeout".to_owned();
                return Err(ZkError::new(ZkErrorKind::Unavailable, why));
            }
            let interrupted = self.interrupted.iter().any(|flag| flag.load(Ordering::SeqCst));
            if state.ending || interrupted || self.shared.changed.wait_until(&mut state, deadline) {
                let why = format!("no connection ({})", state.trouble);
                return Err(ZkError::new(ZkErrorKind::Unavailable, why));
            }
        }
    }

    /// Replaces the connection, if it is still the one with this number: something is wrong with it that it
    /// does not tell of itself.
    pub(super) fn distrust(&self, connection: u64) {
        let client = {
            let state = self.shared.state.lock();
            state.client.as_ref().filter(|_| state.status.connection == connection).map(Arc::clone)
        };
        if let Some(client) = client {
            self.shared.forget(&client);
        }
    }

    #[cfg(test)]
    pub(super) fn with_client<T>(&self, use_it: impl FnOnce(&Client) -> T) -> T {
        let (client, _) = self.client(self.deadline()).unwrap();
        use_it(&client)
    }

    /// How many calls wait for a connection or for their answer.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// What a thread is doing while it waits for a connection and for the answer.
    fn calling(&self, verb: &str, path: &str, deadline: Instant) -> Calling<'_> {
        let limit = deadline.saturating_duration_since(Instant::now()) + GRACE;
        let doing = activity_within(limit, format!("ZooKeeper: {verb} {path}"));
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        Calling { calls: &self.shared.calls, _doing: doing }
    }

    fn deadline(&self) -> Instant {
        match self.patience {
            Patience::EachCall => Instant::now() + self.shared.timeout(),
            Patience::Until(deadline) => deadline,
            Patience::Session => Instant::now() + FAR,
        }
    }

    /// Makes a call, again on the next connection when one breaks in the middle of it.
    pub(super) fn repeat<T>(
        &self,
        verb: &str,
        path: &str,
        mut call: impl FnMut(&Client) -> Result<T, Failure>,
    ) -> ZkResult<T> {
        self.repeat_in_session(verb, path, |client, _| call(client))
    }

    /// [`Session::repeat`] for calls whose meaning depends on the session that they are made in.
    pub(super) fn repeat_in_session<T>(
        &self,
        verb: &str,
        path: &str,
        mut call: impl FnMut(&Client, Generation) -> Result<T, Failure>,
    ) -> ZkResult<T> {
        let deadline = self.deadline();
        let _doing = self.calling(verb, path, deadline);
        loop {
            let (client, status) = self.client(deadline)?;
            // On one connection no call is more patient than any other.
            let _limit = client.limit_call(deadline.min(Instant::now() + self.shared.timeout()) + GRACE);
            match call(&client, status.generation) {
                Ok(value) => return Ok(value),
                Err(Failure::ConnectionLoss) => {
                    self.shared.forget(&client);
                    if Instant::now() >= deadline {
                        return Err(Failure::ConnectionLoss.describe(&format!("{verb} {path}")));
                    }
                }
                Err(failure) => return Err(failure.describe(&format!("{verb} {path}"))),
            }
        }
    }
}

/// A call that has not come to its end.
struct Calling<'a> {
    calls: &'a AtomicUsize,
    _doing: Activity,
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Interrupter {
    /// Ends the waits, now and for good.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        // Who has not seen the flag yet waits already once the lock is free.
        drop(self.shared.state.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for Interrupter {
    fn drop(&mut self) {
        self.interrupt();
    }
}

impl Drop for SessionThread {
    fn drop(&mut self) {
        self.shared.publish(|state| state.ending = true);
        self.stop.stop();
    }
}
