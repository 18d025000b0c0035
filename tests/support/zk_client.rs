//! Raw access to ZooKeeper for tests, independent of the code under test.
//!
//! It uses the `zookeeper` crate directly, on the plain port, with paths relative to a chroot. The crate does not
//! notice a silent server and does not come back from a lost session, so:
//! - take a client from the sandbox where it is needed and let it go soon; what it created as ephemeral goes then;
//! - let it go *before* the server is stopped or killed: every call, and the drop too, waits for ever for a server
//!   that is stopped by SIGSTOP, and its reconnect loop burns a core while the server is away.

use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use zookeeper::{Acl, CreateMode, WatchedEvent, ZkError, ZooKeeper as Crate};

use super::{ZooKeeper, eventually, within};

/// Long, so that a test machine under load does not lose a test's own ephemeral znodes.
const SESSION: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A session of the test's own.
pub struct ZkClient {
    client: Mutex<Crate>,
    chroot: String,
}

/// A znode as it was read.
#[derive(Clone, Debug)]
pub struct Znode {
    pub data: Vec<u8>,
    pub version: i32,
    /// The session that owns an ephemeral znode; 0 for a persistent one.
    pub ephemeral_owner: i64,
    pub num_children: i32,
}

impl Znode {
    /// The data as JSON; `None` when it is not.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.data).ok()
    }
}

impl ZkClient {
    /// Opens a session. `chroot` is empty or `/name`; it is created if it does not exist.
    pub fn connect(server: &ZooKeeper, chroot: &str) -> ZkClient {
        let address = SocketAddr::new(server.address(), server.plain_port()).to_string();
        let client = eventually(CONNECT_LIMIT, "a ZooKeeper session for the test", || {
            let client = Crate::connect(&address, SESSION, |_: WatchedEvent| {}).ok()?;
            // The crate says Ok even when nobody listens.
            client.exists("/", false).is_ok().then_some(client)
        });
        let client = ZkClient { client: Mutex::new(client), chroot: chroot.to_owned() };
        if !chroot.is_empty() {
            client.make_full(chroot);
        }
        client
    }

    /// Reads a znode; `None` when it does not exist.
    pub fn get(&self, path: &str) -> Option<Znode> {
        let (data, stat) = absent(path, self.client.lock().get_data(&self.full(path), false))?;
        Some(Znode {
            data,
            version: stat.version,
            ephemeral_owner: stat.ephemeral_owner,
            num_children: stat.num_children,
        })
    }

    /// Reads a record; `None` when it does not exist; panics when it is not JSON.
    pub fn get_json(&self, path: &str) -> Option<Value> {
        let znode = self.get(path)?;
        let json = znode.json();
        Some(json.unwrap_or_else(|| panic!("{path} is not JSON: {:?}", String::from_utf8_lossy(&znode.data))))
    }

    pub fn exists(&self, path: &str) -> bool {
        absent(path, self.client.lock().exists(&self.full(path), false)).flatten().is_some()
    }

    /// The names of the children, sorted; empty when the znode does not exist.
    pub fn children(&self, path: &str) -> Vec<String> {
        let mut names =
            absent(path, self.client.lock().get_children(&self.full(path), false)).unwrap_or_default();
        names.sort();
        names
    }

    /// Creates a persistent znode and its parents; panics when it exists.
    pub fn create(&self, path: &str, data: impl AsRef<[u8]>) {
        self.create_as(path, data.as_ref(), CreateMode::Persistent);
    }

    /// Creates a persistent sequential znode (and its parents); answers the path with its number.
    pub fn create_sequential(&self, path: &str, data: impl AsRef<[u8]>) -> String {
        self.create_as(path, data.as_ref(), CreateMode::PersistentSequential)
    }

    /// Creates an ephemeral znode, which goes with this client.
    pub fn create_ephemeral(&self, path: &str, data: impl AsRef<[u8]>) {
        self.create_as(path, data.as_ref(), CreateMode::Ephemeral);
    }

    /// Creates an ephemeral sequential znode, as a lock's contender is; answers the path with its number.
    pub fn create_ephemeral_sequential(&self, path: &str, data: impl AsRef<[u8]>) -> String {
        self.create_as(path, data.as_ref(), CreateMode::EphemeralSequential)
    }

    /// Takes a free lock as kazoo does, and holds it as long as this client lives; answers the contender's path.
    pub fn hold_lock(&self, path: &str) -> String {
        let prefix = format!("{:032x}__lock__", fastrand::u128(..));
        let contender = self.create_ephemeral_sequential(&format!("{path}/{prefix}"), "test");
        let sequence = |name: &str| name.rsplit_once("__lock__").map(|(_, sequence)| sequence.to_owned());
        let first = self.children(path).iter().filter_map(|name| sequence(name)).min();
        assert_eq!(first, sequence(&contender), "{path} is held by another");
        contender
    }

    /// Overwrites whatever version there is; creates the znode and its parents when it does not exist.
    pub fn set(&self, path: &str, data: impl AsRef<[u8]>) {
        let written = self.client.lock().set_data(&self.full(path), data.as_ref().to_vec(), None);
        if absent(path, written).is_none() {
            self.create(path, data);
        }
    }

    pub fn set_json(&self, path: &str, value: &Value) {
        self.set(path, value.to_string());
    }

    /// Deletes a znode and all below it; content when it does not exist.
    pub fn delete(&self, path: &str) {
        // A child that is created meanwhile makes it begin again.
        let deleted = || match self.client.lock().delete(&self.full(path), None) {
            Err(ZkError::NotEmpty) => None,
            result => absent(path, result).or(Some(())),
        };
        eventually(CONNECT_LIMIT, &format!("{path} to be deleted"), || {
            for child in self.children(path) {
                self.delete(&format!("{}/{child}", path.trim_end_matches('/')));
            }
            deleted()
        });
    }

    /// Waits until a record (`None` while it does not exist) pleases `wanted`, and answers it.
    #[track_caller]
    pub fn wait_for(
        &self,
        path: &str,
        deadline: Duration,
        wanted: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut last = None;
        let found = within(deadline, || {
            last = self.get(path).and_then(|znode| znode.json());
            wanted(last.as_ref()).then(|| last.clone())
        });
        let Some(found) = found else {
            panic!("waited {:.1} s in vain for {path}; it is {last:?}", deadline.as_secs_f64())
        };
        found
    }

    /// Waits until the children (sorted; none while the znode does not exist) please `wanted`, and answers them.
    #[track_caller]
    pub fn wait_children(
        &self,
        path: &str,
        deadline: Duration,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let mut last = Vec::new();
        let found = within(deadline, || {
            last = self.children(path);
            wanted(&last).then(|| last.clone())
        });
        let Some(found) = found else {
            panic!("waited {:.1} s in vain for children of {path}; they are {last:?}", deadline.as_secs_f64())
        };
        found
    }

    /// Every path below `path` with its data, sorted: for messages, and for "nothing has changed".
    pub fn dump(&self, path: &str) -> Vec<(String, String)> {
        let mut all = Vec::new();
        if let Some(znode) = self.get(path) {
            all.push((path.to_owned(), String::from_utf8_lossy(&znode.data).into_owned()));
        }
        for child in self.children(path) {
            all.extend(self.dump(&format!("{}/{child}", path.trim_end_matches('/'))));
        }
        all
    }

    fn full(&self, path: &str) -> String {
        assert!(path.starts_with('/'), "`{path}` is not an absolute path");
        match (self.chroot.as_str(), path) {
            ("", path) => path.to_owned(),
            (chroot, "/") => chroot.to_owned(),
            (chroot, path) => format!("{chroot}{path}"),
        }
    }

    fn create_as(&self, path: &str, data: &[u8], mode: CreateMode) -> String {
        let full = self.full(path);
        if let Some((parent, _)) = full.rsplit_once('/') {
            self.make_full(parent);
        }
        let created = self.client.lock().create(&full, data.to_vec(), Acl::open_unsafe().clone(), mode);
        let created = created.unwrap_or_else(|error| panic!("cannot create {path}: {error:?}"));
        created.strip_prefix(&self.chroot).unwrap_or(&created).to_owned()
    }

    /// Creates a persistent znode and its parents, outside the chroot too, unless they exist.
    fn make_full(&self, full: &str) {
        let ends = full.match_indices('/').map(|(end, _)| end).skip(1).chain([full.len()]);
        for end in ends.filter(|&end| end > 0) {
            let acl = Acl::open_unsafe().clone();
            match self.client.lock().create(&full[..end], Vec::new(), acl, CreateMode::Persistent) {
                Ok(_) | Err(ZkError::NodeExists) => {}
                Err(error) => panic!("cannot create {}: {error:?}", &full[..end]),
            }
        }
    }
}

/// Absence as a value; any other error ends the test.
fn absent<T>(path: &str, result: Result<T, ZkError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(ZkError::NoNode) => None,
        Err(error) => panic!("ZooKeeper refuses {path}: {error:?}"),
    }
}
