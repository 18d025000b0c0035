//! One client of the `zookeeper` crate over one link: the only file that names the crate.
//!
//! The crate is used for its calls and its watch, and for nothing else: it never sees a lost connection
//! that it could try to mend (see [`super::relay`]). Its calls may panic, so each is caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crossbeam_channel::Sender;
use zookeeper::{
    Acl, AddWatchMode, CreateMode, Stat as CrateStat, WatchedEvent, WatchedEventType, ZkError as CrateError,
    ZooKeeper,
};

use super::error::{ZkError, ZkErrorKind, ZkResult};
use super::relay::{CallLimit, Identity, Link, NUMBER_ONLY};

/// The largest record that a server takes (`jute.maxbuffer`, 1 MB by default) with room for the request's
/// other parts. A larger write would cost the connection.
const MAX_DATA: usize = 1_000_000;

/// How a znode is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It stays until it is deleted.
    Persistent,
    /// It stays until it is deleted; its name is the ten digits that the server gives.
    Numbered,
    /// It goes with the session; ten digits are added to its name.
    EphemeralSequential,
}

/// What the server knows about a znode besides its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// How often its data were changed.
    pub version: i32,
    /// When it was made, in milliseconds of the server's clock since 1970.
    pub created_ms: i64,
    /// How many children it has.
    pub children: i32,
    /// How many children it has ever had: the number that the server gives the next sequential one.
    pub next_sequence: i32,
}

impl Stat {
    /// When it was made, UNIX seconds.
    pub fn created(&self) -> f64 {
        self.created_ms as f64 / 1000.0
    }
}

/// A change below a watched znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TreeEvent {
    /// The znode was made, or its data changed.
    Changed(String),
    /// The znode is gone.
    Deleted(String),
}

/// Why a call of the crate failed, as far as the session cares.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection broke: a read can be repeated, the outcome of a write is unknown.
    ConnectionLoss,
    /// The server's answer.
    Answer(ZkErrorKind, String),
}

impl Failure {
    pub(super) fn is_connection_loss(&self) -> bool {
        matches!(self, Self::ConnectionLoss)
    }

    /// Takes any answer of the server for an answer, and only a broken connection for a failure.
    pub(super) fn unless_lost<T: Default>(self) -> Result<T, Self> {
        if self.is_connection_loss() { Err(self) } else { Ok(T::default()) }
    }

    /// The error for a caller; `what` says which call of which path it was.
    pub(super) fn describe(self, what: &str) -> ZkError {
        match self {
            Self::ConnectionLoss => {
                ZkError::new(ZkErrorKind::Unavailable, format!("{what}: connection lost"))
            }
            Self::Answer(kind, why) => ZkError::new(kind, format!("{what}: {why}")),
        }
    }
}

/// A connected client. Closed when the last user drops it.
pub(super) struct Client {
    // Dropped in this order: the crate's client says goodbye to the link, then the link ends.
    crate_client: ZooKeeper,
    link: Link,
    root: String,
    /// The id of the session that it was started in.
    session: i64,
}

impl Client {
    /// A client over `link` that sees everything below `root`, which is empty or a path.
    pub(super) fn start(link: Link, root: &str, identity: &Identity) -> ZkResult<Self> {
        let address = link.address().to_string();
        let ignore_session_events = |_: WatchedEvent| {};
        let connected = caught(|| ZooKeeper::connect(&address, identity.timeout, ignore_session_events));
        let crate_client = connected.map_err(|failure| failure.describe("connecting to the relay"))?;
        let client = Self { crate_client, link, root: root.to_owned(), session: identity.id };
        // The link waits for this first request: with it, the crate takes itself for connected.
        let first = caught(|| client.crate_client.exists("/", false));
        first.map_err(|failure| failure.describe("the first request"))?;
        Ok(client)
    }

    /// Ends the session at the server, whoever still holds this client: all its calls fail from now on.
    pub(super) fn end_session(&self) {
        self.link.let_session_close();
        // Without a connection there is nothing to end.
        let _ = caught(|| self.crate_client.close());
    }

    /// Ends the connection at `deadline`, unless what is returned has been dropped before: no call that is
    /// made meanwhile takes longer.
    pub(super) fn limit_call(&self, deadline: Instant) -> CallLimit<'_> {
        self.link.limit_call(deadline)
    }

    /// The link under it.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    fn full(&self, path: &str) -> String {
        if path == "/" && !self.root.is_empty() { self.root.clone() } else { format!("{}{path}", self.root) }
    }

    fn relative(&self, path: &str) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    pub(super) fn get(&self, path: &str) -> Result<(Vec<u8>, Stat), Failure> {
        caught(|| self.crate_client.get_data(&self.full(path), false)).map(|(data, stat)| (data, stat.into()))
    }

    pub(super) fn stat(&self, path: &str) -> Result<Option<Stat>, Failure> {
        caught(|| self.crate_client.exists(&self.full(path), false)).map(|stat| stat.map(Stat::from))
    }

    pub(super) fn children(&self, path: &str) -> Result<Vec<String>, Failure> {
        caught(|| self.crate_client.get_children(&self.full(path), false))
    }

    pub(super) fn create(&self, path: &str, data: &[u8], mode: Mode) -> Result<String, Failure> {
        within_limit(data)?;
        let mut full = self.full(path);
        let mode = match mode {
            Mode::Persistent => CreateMode::Persistent,
            Mode::Numbered => {
                // The crate refuses a path that ends with the slash. The relay leaves nothing but that.
                full.extend(['/', NUMBER_ONLY]);
                CreateMode::PersistentSequential
            }
            Mode::EphemeralSequential => CreateMode::EphemeralSequential,
        };
        let acl = Acl::open_unsafe().clone();
        caught(|| self.crate_client.create(&full, data.to_vec(), acl, mode)).map(|path| self.relative(&path))
    }

    /// The znodes of this session that were made as sequential ones under `path`.
    pub(super) fn find_own(&self, path: &str) -> Result<Vec<String>, Failure> {
        let (parent, prefix) = path.rsplit_once('/').unwrap_or(("", path));
        let is_made = |name: &String| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.len() >= 10 && rest.parse::<i32>().is_ok())
        };
        let mut own = Vec::new();
        for name in self.children(parent)?.into_iter().filter(is_made) {
            let path = format!("{parent}/{name}");
            let stat = caught(|| self.crate_client.exists(&self.full(&path), false))?;
            if stat.is_some_and(|stat| stat.ephemeral_owner == self.session) {
                own.push(path);
            }
        }
        Ok(own)
    }

    /// Makes the configured root with its ancestors where they are missing. The server's own root always exists.
    pub(super) fn ensure_root(&self) -> Result<(), Failure> {
        if self.root.is_empty() {
            return Ok(());
        }
        let ends = self.root.match_indices('/').map(|(at, _)| at).skip(1).chain([self.root.len()]);
        for ancestor in ends.map(|end| &self.root[..end]) {
            let acl = Acl::open_unsafe().clone();
            match caught(|| self.crate_client.create(ancestor, Vec::new(), acl, CreateMode::Persistent)) {
                Ok(_) | Err(Failure::Answer(ZkErrorKind::NodeExists, _)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    pub(super) fn set(&self, path: &str, data: &[u8], version: Option<i32>) -> Result<Stat, Failure> {
        within_limit(data)?;
        caught(|| self.crate_client.set_data(&self.full(path), data.to_vec(), version)).map(Stat::from)
    }

    pub(super) fn delete(&self, path: &str, version: Option<i32>) -> Result<(), Failure> {
        caught(|| self.crate_client.delete(&self.full(path), version))
    }

    /// Watches `path` and everything below it for as long as this client is connected.
    pub(super) fn watch_tree(&self, path: &str, events: Sender<TreeEvent>) -> Result<(), Failure> {
        let root = self.root.clone();
        let watcher = move |event: WatchedEvent| {
            let Some(path) = event.path else { return };
            let path = path.strip_prefix(&root).unwrap_or(&path).to_owned();
            let event = match event.event_type {
                WatchedEventType::NodeDeleted => TreeEvent::Deleted(path),
                WatchedEventType::NodeCreated | WatchedEventType::NodeDataChanged => TreeEvent::Changed(path),
                _ => return,
            };
            // A full channel holds up only the crate's event thread, which does nothing else. A closed one
            // belongs to a reader that has moved on to the next client.
            let _ = events.send(event);
        };
        caught(|| self.crate_client.add_watch(&self.full(path), AddWatchMode::PersistentRecursive, watcher))
    }
}

impl From<CrateStat> for Stat {
    fn from(stat: CrateStat) -> Self {
        // The server shows twice the number of creations less that of children (DataNode.copyStat).
        let next_sequence = stat.cversion.wrapping_add(stat.num_children) / 2;
        Self { version: stat.version, created_ms: stat.ctime, children: stat.num_children, next_sequence }
    }
}

fn within_limit(data: &[u8]) -> Result<(), Failure> {
    if data.len() <= MAX_DATA {
        return Ok(());
    }
    let why = format!("{} bytes are more than a znode may have ({MAX_DATA})", data.len());
    Err(Failure::Answer(ZkErrorKind::Refused, why))
}

/// Makes a call of the crate and sorts its failures; a panic in it is a broken connection.
fn caught<T>(call: impl FnOnce() -> Result<T, CrateError>) -> Result<T, Failure> {
    let answer = catch_unwind(AssertUnwindSafe(call)).map_err(|_| Failure::ConnectionLoss)?;
    answer.map_err(|error| {
        let kind = match error {
            CrateError::NoNode => ZkErrorKind::NoNode,
            CrateError::NodeExists => ZkErrorKind::NodeExists,
            CrateError::NotEmpty => ZkErrorKind::NotEmpty,
            CrateError::BadVersion => ZkErrorKind::BadVersion,
            CrateError::SessionExpired | CrateError::SessionMoved | CrateError::ConnectionLoss => {
                return Failure::ConnectionLoss;
            }
            _ => ZkErrorKind::Refused,
        };
        Failure::Answer(kind, error.to_string())
    })
}

#[cfg(test)]
mod tests;
