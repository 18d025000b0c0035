//! Nodes in ZooKeeper: where they are, and how they are read, locked and written (spec/zookeeper.md, Nodes and
//! requests).

use std::time::Duration;

use super::at_once::at_once;
use super::error::{ZkErrorKind, ZkResult, optional};
use super::lock::{Lock, is_contender};
use super::session::Session;
use super::tree::Node;
use crate::model::{NodeRecord, NodeState, RecordError, decode, encode};

/// The parent of all nodes.
pub const NODES: &str = "/nodepool/nodes";

/// The store of nodes, in a session. Below a [`Lock`], use one made with [`Nodes::under`].
#[derive(Clone)]
pub struct Nodes {
    session: Session,
    holder: String,
}

/// A node as a listing shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedNode {
    /// Its id.
    pub id: String,
    /// Its record.
    pub record: NodeRecord,
    /// Whether somebody has its lock, or waits for it.
    pub locked: bool,
}

impl Nodes {
    /// The store in `session`; `holder` is left in the locks that are taken, for people to read.
    pub fn new(session: &Session, holder: &str) -> Self {
        Self { session: session.clone(), holder: holder.to_owned() }
    }

    /// The same store, which works only as long as `lock` is held.
    pub fn under(&self, lock: &Lock) -> Self {
        Self { session: lock.session().clone(), holder: self.holder.clone() }
    }

    /// A node's record with its version. `None` if there is none.
    pub fn read(&self, id: &str) -> ZkResult<Option<Result<(NodeRecord, i32), RecordError>>> {
        let Some((data, stat)) = optional(self.session.get(&path(id)))? else { return Ok(None) };
        Ok(record(&data).map(|record| Ok((record?, stat.version))))
    }

    /// A node as a listing shows it.
    pub fn read_listed(&self, id: &str) -> ZkResult<Option<Result<ListedNode, RecordError>>> {
        let Some(record) = self.read(id)? else { return Ok(None) };
        let locked = self.is_locked(id)?;
        Ok(Some(record.map(|(record, _)| ListedNode { id: id.to_owned(), record, locked })))
    }

    /// All nodes, ordered by their ids. Damaged records are told to `damaged`.
    pub fn read_all(&self, damaged: &mut dyn FnMut(&str, &RecordError)) -> ZkResult<Vec<ListedNode>> {
        let ids = self.ids()?;
        let this = self.clone();
        let found = at_once(ids.clone(), move |id| this.read_listed(id))?;
        Ok(keep_readable(ids, found, damaged))
    }

    /// The nodes of a provider with their ids, ordered by these. Damaged records are told to `damaged`.
    pub fn of_provider(
        &self,
        provider: &str,
        damaged: &mut dyn FnMut(&str, &RecordError),
    ) -> ZkResult<Vec<(String, NodeRecord)>> {
        let ids = self.ids()?;
        let this = self.clone();
        let found = at_once(ids.clone(), move |id| {
            Ok(this.read(id)?.map(|found| found.map(|(record, _)| (id.clone(), record))))
        })?;
        let mut nodes = keep_readable(ids, found, damaged);
        nodes.retain(|(_, record)| record.provider.as_deref() == Some(provider));
        Ok(nodes)
    }

    /// Makes a node's record and returns its id. After `Unavailable` there may be one whose id nobody knows: it stays
    /// as it was made, without a lock.
    pub fn create(&self, record: &NodeRecord) -> ZkResult<String> {
        let data = encode(record);
        match self.session.create_numbered(NODES, &data) {
            Err(error) if error.is(ZkErrorKind::NoNode) => {
                self.session.ensure_path(NODES)?;
                self.session.create_numbered(NODES, &data)
            }
            other => other,
        }
    }

    /// Takes the lock of a node that has just been made, or of any other if nobody has it.
    pub fn try_lock_new(&self, id: &str) -> ZkResult<Option<Lock>> {
        Lock::try_acquire_new(&self.session, &path(id), "lock", &self.holder)
    }

    /// Takes the lock of a node if nobody has it.
    pub fn try_lock(&self, id: &str) -> ZkResult<Option<Lock>> {
        Lock::try_acquire(&self.session, &path(id), "lock", &self.holder)
    }

    /// Removes a node's record together with the lock that is held.
    pub fn delete(id: &str, lock: Lock) -> ZkResult<()> {
        lock.delete_with(&path(id))
    }

    /// Replaces a node's record if it still has `version`, and returns its new version.
    pub fn write(&self, id: &str, record: &NodeRecord, version: i32) -> ZkResult<i32> {
        self.session.set(&path(id), &encode(record), version)
    }

    /// Takes the lock of a node; waits for it for up to `limit`. `None` if it was not to be had, or the node is
    /// gone.
    pub fn lock_within(&self, id: &str, limit: Duration) -> ZkResult<Option<Lock>> {
        Lock::acquire_within(&self.session, &path(id), "lock", &self.holder, limit)
    }

    /// Removes a node's record with its lock, whoever holds it. Whoever loses the lock by that sees in the
    /// record that the node is deleted.
    pub fn erase(&self, id: &str) -> ZkResult<()> {
        let path = path(id);
        while let Some((data, stat)) = optional(self.session.get(&path))? {
            let Ok(mut record) = decode::<NodeRecord>(&data) else { break };
            record.set_state(NodeState::Deleted);
            match self.session.set(&path, &encode(&record), stat.version) {
                Err(error) if error.is(ZkErrorKind::BadVersion) => {}
                other => {
                    optional(other)?;
                    break;
                }
            }
        }
        self.session.delete_tree(&path)
    }

    fn ids(&self) -> ZkResult<Vec<String>> {
        let mut ids = optional(self.session.children(NODES))?.unwrap_or_default();
        ids.sort();
        Ok(ids)
    }

    fn is_locked(&self, id: &str) -> ZkResult<bool> {
        let contenders = optional(self.session.children(&format!("{}/lock", path(id))))?;
        Ok(contenders.unwrap_or_default().iter().any(|name| is_contender(name)))
    }
}

/// A node in a copy of the tree. `None` if it is no record but what a lock has left of one.
pub fn decode_node(id: &str, node: &Node) -> Option<Result<ListedNode, RecordError>> {
    let record = record(&node.data)?;
    Some(record.map(|record| ListedNode { id: id.to_owned(), record, locked: node.is_locked("lock") }))
}

/// The record in a node's data. `None` for a znode without data, which is no record but what a lock has left of
/// one.
fn record(data: &[u8]) -> Option<Result<NodeRecord, RecordError>> {
    (!data.is_empty()).then(|| decode(data))
}

fn keep_readable<T>(
    ids: Vec<String>,
    found: Vec<Option<Result<T, RecordError>>>,
    damaged: &mut dyn FnMut(&str, &RecordError),
) -> Vec<T> {
    let readable = ids.into_iter().zip(found).filter_map(|(id, found)| match found? {
        Ok(node) => Some(node),
        Err(error) => {
            damaged(&path(&id), &error);
            None
        }
    });
    readable.collect()
}

fn path(id: &str) -> String {
    format!("{NODES}/{id}")
}
