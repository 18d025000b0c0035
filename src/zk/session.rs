//! The ZooKeeper session, supervised: one thread keeps it alive over any number of connections, and says
//! when it is lost.
//!
//! A connection that breaks is replaced by a new one that goes on with the same session, so that the locks
//! of a build that has run for an hour survive a restarted server. Only the servers' word ends a session;
//! then a new *generation* begins. A [`Session`] handle can be pinned to a generation: its calls fail with
//! [`SessionLost`](ZkErrorKind::SessionLost) in any other, and since a call is made on a connection of its
//! own generation, a write can never outlive the lock that it was made under.
//!
//! No call blocks longer than the session timeout waits for a connection plus the relay's patience with a
//! silent server.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nodepool_threads::{StopSource, StopToken, Thread, activity, spawn};
use parking_lot::{Condvar, Mutex};
use slog::{Logger, debug, info, warn};

use super::client::{Client, Failure, Mode, Stat, TreeEvent};
use super::error::{ZkError, ZkErrorKind, ZkResult};
use super::relay::{Dialled, Identity, Link, Upstream, dial};
use crate::config::ZooKeeperConfig;

/// Which session of this process: a lock of another generation than the current one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// What the session is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether calls can be made now.
    pub connected: bool,
    /// The current session. Changes only when one was lost.
    pub generation: Generation,
    /// The number of the connection. Watches go with it, and what was read before may be outdated.
    pub connection: u64,
}

/// A handle of the session, cheap to clone.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    pinned: Option<Generation>,
}

/// The owner of the session's thread. Dropping it closes the session, and with it all ephemeral znodes.
pub struct SessionThread {
    stop: StopSource,
    shared: Arc<Shared>,
    _thread: Thread<()>,
}

struct Shared {
    timeout: Duration,
    log: Logger,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    status: Status,
    client: Option<Arc<Client>>,
    /// Why there is no connection.
    trouble: String,
    subscribers: Vec<Sender<()>>,
    /// Ephemeral znodes of the session that could not be deleted when they were no longer wanted.
    orphans: Vec<(Generation, String)>,
    /// The program ends: nobody waits for a connection any more.
    ending: bool,
}

impl Session {
    /// Begins a session with the configured servers. Returns at once: the connection comes when it can.
    pub fn start(config: &ZooKeeperConfig, log: &Logger) -> io::Result<(Self, SessionThread)> {
        let status = Status { connected: false, generation: Generation(0), connection: 0 };
        let shared = Arc::new(Shared {
            timeout: config.timeout,
            log: log.clone(),
            state: Mutex::new(State {
                status,
                client: None,
                trouble: "not connected yet".to_owned(),
                subscribers: Vec::new(),
                orphans: Vec::new(),
                ending: false,
            }),
            changed: Condvar::new(),
        });
        let stop = StopSource::new();
        let supervisor = Supervisor { config: config.clone(), shared: Arc::clone(&shared), identity: None };
        let token = stop.token();
        let thread = spawn("zk-session", "ZooKeeper session", move || supervisor.run(&token))?;
        let owner = SessionThread { stop, shared: Arc::clone(&shared), _thread: thread };
        Ok((Self { shared, pinned: None }, owner))
    }

    /// A handle whose calls fail in any other generation.
    #[must_use]
    pub fn pinned(&self, generation: Generation) -> Self {
        Self { shared: Arc::clone(&self.shared), pinned: Some(generation) }
    }

    /// What the session is now.
    pub fn status(&self) -> Status {
        self.shared.state.lock().status
    }

    /// A channel that gets a message whenever the status may have changed.
    pub fn subscribe(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        self.shared.state.lock().subscribers.push(sender);
        receiver
    }

    /// Waits for a connection for at most `limit`.
    pub fn wait_connected(&self, limit: Duration) -> ZkResult<Status> {
        self.shared.client_and_status(self.pinned, Instant::now() + limit).map(|(_, status)| status)
    }

    /// The data of a znode.
    pub fn get(&self, path: &str) -> ZkResult<(Vec<u8>, Stat)> {
        self.read("get", path, |client| client.get(path))
    }

    /// A znode's description, if it exists.
    pub fn stat(&self, path: &str) -> ZkResult<Option<Stat>> {
        self.read("stat", path, |client| client.stat(path))
    }

    /// The names of a znode's children, in no order.
    pub fn children(&self, path: &str) -> ZkResult<Vec<String>> {
        self.read("list", path, |client| client.children(path))
    }

    /// Makes a znode under a name of its own. Its parent must exist.
    pub fn create(&self, path: &str, data: &[u8]) -> ZkResult<()> {
        let mut in_doubt = false;
        self.repeat("create", path, |client| match client.create(path, data, Mode::Persistent) {
            // The first attempt may have succeeded without its answer arriving.
            Err(Failure::Answer(ZkErrorKind::NodeExists, _)) if in_doubt && is_ours(client, path, data) => Ok(()),
            Err(Failure::ConnectionLoss) => {
                in_doubt = true;
                Err(Failure::ConnectionLoss)
            }
            other => other.map(|_| ()),
        })
    }

    /// Makes a znode whose name the server completes, and returns its path. `Unavailable` leaves open
    /// whether it was made.
    pub fn create_sequential(&self, path: &str, data: &[u8], mode: Mode) -> ZkResult<String> {
        let client = self.shared.client(self.pinned, self.deadline())?;
        client.create(path, data, mode).map_err(|failure| failure.describe(&format!("create {path}")))
    }

    /// Makes a znode and its missing ancestors, all without data, where they do not exist yet.
    pub fn ensure_path(&self, path: &str) -> ZkResult<()> {
        match self.create(path, b"") {
            Err(error) if error.is(ZkErrorKind::NodeExists) => Ok(()),
            Err(error) if error.is(ZkErrorKind::NoNode) => {
                match path.rsplit_once('/') {
                    Some((parent, _)) if !parent.is_empty() => self.ensure_path(parent)?,
                    // Even the first level has no parent: the configured root does not exist yet.
                    _ => self.repeat("create the chroot above", path, Client::ensure_root)?,
                }
                self.ensure_path(path)
            }
            other => other,
        }
    }

    /// Replaces a znode's data if it still has `version`, and returns its new version.
    pub fn set(&self, path: &str, data: &[u8], version: i32) -> ZkResult<i32> {
        let mut in_doubt = false;
        self.repeat("set", path, |client| match client.set(path, data, Some(version)) {
            Ok(stat) => Ok(stat.version),
            Err(Failure::Answer(ZkErrorKind::BadVersion, _)) if in_doubt && is_ours(client, path, data) => {
                Ok(version.wrapping_add(1))
            }
            Err(Failure::ConnectionLoss) => {
                in_doubt = true;
                Err(Failure::ConnectionLoss)
            }
            Err(other) => Err(other),
        })
    }

    /// Deletes a znode, if it still has `version` where one is given.
    pub fn delete(&self, path: &str, version: Option<i32>) -> ZkResult<()> {
        let mut in_doubt = false;
        self.repeat("delete", path, |client| match client.delete(path, version) {
            Err(Failure::Answer(ZkErrorKind::NoNode, _)) if in_doubt => Ok(()),
            Err(Failure::ConnectionLoss) => {
                in_doubt = true;
                Err(Failure::ConnectionLoss)
            }
            other => other,
        })
    }

    /// Deletes a znode with everything below it. One that is not there counts as deleted.
    pub fn delete_tree(&self, path: &str) -> ZkResult<()> {
        let children = match self.children(path) {
            Err(error) if error.is(ZkErrorKind::NoNode) => return Ok(()),
            other => other?,
        };
        for child in children {
            self.delete_tree(&format!("{path}/{child}"))?;
        }
        match self.delete(path, None) {
            Err(error) if error.is(ZkErrorKind::NoNode) => Ok(()),
            // Somebody made a child in between.
            Err(error) if error.is(ZkErrorKind::NotEmpty) => self.delete_tree(path),
            other => other,
        }
    }

    /// Deletes an ephemeral znode of the pinned generation: now if there is a connection, else with the
    /// next one, unless the session is lost and the znode gone with it.
    pub(super) fn delete_ephemeral(&self, path: &str) {
        let attempt = self.shared.client(self.pinned, Instant::now());
        let deleted = attempt.map(|client| client.delete(path, None));
        if let (Ok(Err(Failure::ConnectionLoss)) | Err(_), Some(generation)) = (deleted, self.pinned) {
            self.shared.state.lock().orphans.push((generation, path.to_owned()));
        }
    }

    /// Watches everything below `path` on the current connection, whose status is returned.
    pub(super) fn watch_tree(&self, path: &str, events: &Sender<TreeEvent>) -> ZkResult<Status> {
        let (client, status) = self.shared.client_and_status(self.pinned, self.deadline())?;
        let watched = client.watch_tree(path, events.clone());
        watched.map(|()| status).map_err(|failure| failure.describe(&format!("watch {path}")))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared.timeout
    }

    fn read<T>(
        &self,
        verb: &str,
        path: &str,
        call: impl Fn(&Client) -> Result<T, Failure>,
    ) -> ZkResult<T> {
        self.repeat(verb, path, call)
    }

    /// Makes a call, again on the next connection when one breaks in the middle of it.
    fn repeat<T>(
        &self,
        verb: &str,
        path: &str,
        mut call: impl FnMut(&Client) -> Result<T, Failure>,
    ) -> ZkResult<T> {
        let deadline = self.deadline();
        loop {
            let client = self.shared.client(self.pinned, deadline)?;
            match call(&client) {
                Ok(value) => return Ok(value),
                Err(Failure::ConnectionLoss) if Instant::now() < deadline => self.shared.forget(&client),
                Err(failure) => return Err(failure.describe(&format!("{verb} {path}"))),
            }
        }
    }
}

/// Whether the znode has the data that an attempt with unknown outcome would have written.
fn is_ours(client: &Client, path: &str, data: &[u8]) -> bool {
    matches!(client.get(path), Ok((found, _)) if found == data)
}

impl Shared {
    fn client(&self, pinned: Option<Generation>, deadline: Instant) -> ZkResult<Arc<Client>> {
        self.client_and_status(pinned, deadline).map(|(client, _)| client)
    }

    /// The current connection's client, waiting for one until `deadline`, with the status that belongs to it.
    fn client_and_status(
        &self,
        pinned: Option<Generation>,
        deadline: Instant,
    ) -> ZkResult<(Arc<Client>, Status)> {
        let mut state = self.state.lock();
        loop {
            if pinned.is_some_and(|generation| generation != state.status.generation) {
                let why = "the session that this belongs to is lost".to_owned();
                return Err(ZkError::new(ZkErrorKind::SessionLost, why));
            }
            if let Some(client) = &state.client {
                return Ok((Arc::clone(client), state.status));
            }
            if state.ending || self.changed.wait_until(&mut state, deadline).timed_out() {
                let why = format!("no connection ({})", state.trouble);
                return Err(ZkError::new(ZkErrorKind::Unavailable, why));
            }
        }
    }

    /// Takes a client whose connection has broken out of use, before the session's thread has noticed.
    fn forget(&self, broken: &Arc<Client>) {
        broken.link().cut();
        let mut state = self.state.lock();
        if state.client.as_ref().is_some_and(|current| Arc::ptr_eq(current, broken)) {
            state.client = None;
            state.status.connected = false;
        }
    }

    fn publish(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        // A subscriber that has not taken its last message yet will see this change with it.
        state.subscribers.retain(|subscriber| !matches!(subscriber.try_send(()), Err(TrySendError::Disconnected(()))));
        self.changed.notify_all();
    }
}

impl Drop for SessionThread {
    fn drop(&mut self) {
        self.shared.publish(|state| state.ending = true);
        self.stop.stop();
    }
}

struct Supervisor {
    config: ZooKeeperConfig,
    shared: Arc<Shared>,
    identity: Option<Identity>,
}

/// The longest pause between two rounds over all servers.
const MAX_PAUSE: Duration = Duration::from_secs(2);

impl Supervisor {
    fn run(mut self, stop: &StopToken) {
        let mut failures = 0u32;
        let mut disconnected = Instant::now();
        while !stop.is_stopped() {
            let mut servers = self.config.servers.clone();
            fastrand::shuffle(&mut servers);
            let dialled =
                dial(&servers, self.config.tls.as_ref(), self.identity.as_ref(), self.shared.timeout, stop);
            match dialled {
                Ok(Dialled::Connected(upstream)) => {
                    failures = 0;
                    self.stay_connected(upstream, stop);
                    disconnected = Instant::now();
                }
                Ok(Dialled::Expired) => {
                    warn!(self.shared.log, "the ZooKeeper session has expired: all locks are lost");
                    self.identity = None;
                    self.shared.publish(|state| state.status.generation.0 += 1);
                }
                Err(why) => {
                    failures += 1;
                    self.note_trouble(&why, failures, disconnected.elapsed());
                    if stop.wait(pause(failures)).is_err() {
                        break;
                    }
                }
            }
        }
    }

    fn note_trouble(&mut self, why: &str, failures: u32, down_for: Duration) {
        let known = self.shared.state.lock().trouble == why;
        if known && failures % 30 != 0 {
            debug!(self.shared.log, "still no connection to ZooKeeper"; "reason" => why);
        } else {
            warn!(self.shared.log, "cannot connect to ZooKeeper, trying again"; "reason" => why);
        }
        self.shared.publish(|state| state.trouble = why.to_owned());
        // An ensemble that was set up anew is behind everything that this client has seen, and would be
        // refused for ever. After this long, no view of the data is older than what it replaces.
        if let Some(identity) = self.identity.as_mut().filter(|_| down_for > 3 * self.shared.timeout) {
            identity.forget_transactions();
        }
    }

    /// Serves one connection from its handshake to its end.
    fn stay_connected(&mut self, upstream: Upstream, stop: &StopToken) {
        let log = &self.shared.log;
        let (server, identity) = (upstream.server.clone(), upstream.identity.clone());
        let (tell, down) = bounded(1);
        let started = Link::start(upstream, tell).map_err(|error| error.to_string());
        let started = started.and_then(|link| {
            Client::start(link, &self.config.chroot, identity.timeout).map_err(|error| error.to_string())
        });
        let client = match started {
            Ok(client) => Arc::new(client),
            Err(why) => {
                warn!(log, "cannot use the connection to ZooKeeper"; "server" => server, "reason" => why);
                let _ = stop.wait(pause(1));
                return;
            }
        };
        let new_session = self.identity.as_ref().is_none_or(|known| known.id != identity.id);
        self.identity = Some(identity.clone());
        self.delete_orphans(&client, new_session);
        info!(log, "connected to ZooKeeper"; "server" => &server,
            "session" => format!("{:#x}", identity.id), "timeout" => format!("{:?}", identity.timeout),
            "new session" => new_session);
        self.shared.publish(|state| {
            if new_session {
                state.status.generation.0 += 1;
            }
            state.status.connected = true;
            state.status.connection += 1;
            state.client = Some(Arc::clone(&client));
        });
        let ended = {
            let _doing = activity(format!("connected to {server}"));
            stop.recv(&down)
        };
        let why = ended.unwrap_or_else(|_| "stopping".to_owned());
        if stop.is_stopped() {
            client.link().let_session_close();
        } else {
            warn!(log, "the connection to ZooKeeper is lost"; "reason" => &why);
        }
        self.identity = Some(client.link().identity());
        self.shared.publish(|state| {
            state.status.connected = false;
            state.client = None;
            state.trouble = why;
        });
        // Callers may hold the client for the rest of their calls; whoever drops it last closes it.
        drop(client);
    }

    /// Deletes what could not be deleted on earlier connections of the same session.
    fn delete_orphans(&self, client: &Client, new_session: bool) {
        let orphans = std::mem::take(&mut self.shared.state.lock().orphans);
        let current = self.shared.state.lock().status.generation;
        for (generation, path) in orphans {
            if new_session || generation != current {
                continue; // Gone with their session.
            }
            if let Err(Failure::ConnectionLoss) = client.delete(&path, None) {
                self.shared.state.lock().orphans.push((generation, path));
            }
        }
    }
}

/// The pause after a round over all servers has failed: longer each time, and random, so that the clients
/// of a restarted ensemble do not come all at once.
fn pause(failures: u32) -> Duration {
    let limit = Duration::from_millis(100).saturating_mul(1 << failures.min(5)).min(MAX_PAUSE);
    limit.mul_f64(0.5 + fastrand::f64() / 2.0)
}
