//! Node requests in ZooKeeper (spec/zookeeper.md, Nodes and requests).

use super::at_once::at_once;
use super::error::{ZkErrorKind, ZkResult, optional};
use super::lock::{Lock, is_contender};
use super::session::Session;
use super::tree::Node;
use crate::model::{NodeRequest, RecordError, RequestRecord, decode, encode};

/// The parent of all node requests.
pub const REQUESTS: &str = "/nodepool/requests";
/// The parent of their locks.
const LOCKS: &str = "requests-lock";

/// The store of node requests, in a session.
#[derive(Clone)]
pub struct Requests {
    session: Session,
    holder: String,
}

impl Requests {
    /// The store in `session`; `holder` is left in the locks that are taken, for people to read.
    pub fn new(session: &Session, holder: &str) -> Self {
        Self { session: session.clone(), holder: holder.to_owned() }
    }

    /// The same store, which works only as long as `lock` is held.
    pub fn under(&self, lock: &Lock) -> Self {
        Self { session: lock.session().clone(), holder: self.holder.clone() }
    }

    /// Makes a request that goes with the session, and returns its id.
    pub fn create(&self, priority: &str, record: &RequestRecord) -> ZkResult<String> {
        let wanted = format!("{REQUESTS}/{priority}-");
        let data = encode(record);
        let made = match self.session.create_ephemeral(&wanted, &data) {
            Err(error) if error.is(ZkErrorKind::NoNode) => {
                self.session.ensure_path(REQUESTS)?;
                self.session.create_ephemeral(&wanted, &data)
            }
            other => other,
        }?;
        Ok(made.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// A request. `None` if there is none.
    pub fn read(&self, id: &str) -> ZkResult<Option<Result<NodeRequest, RecordError>>> {
        let Some((data, stat)) = optional(self.session.get(&path(id)))? else { return Ok(None) };
        let record = decode(&data);
        Ok(Some(record.map(|record| NodeRequest { id: id.to_owned(), record, version: stat.version })))
    }

    /// Changes a request's record, again if its requestor writes in between: whoever has the lock writes the state, and
    /// the requestor how urgent it is. False if the request is gone, or nothing that can be read.
    pub fn change(
        &self,
        request: &mut NodeRequest,
        mut change: impl FnMut(&mut RequestRecord),
    ) -> ZkResult<bool> {
        loop {
            let mut record = request.record.clone();
            change(&mut record);
            match self.session.set(&path(&request.id), &encode(&record), request.version) {
                Ok(version) => {
                    (request.record, request.version) = (record, version);
                    return Ok(true);
                }
                Err(error) if error.is(ZkErrorKind::NoNode) => return Ok(false),
                Err(error) if error.is(ZkErrorKind::BadVersion) => match self.read(&request.id)? {
                    Some(Ok(newer)) => *request = newer,
                    Some(Err(_)) | None => return Ok(false),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a request. One that is not there counts as removed.
    pub fn delete(&self, id: &str) -> ZkResult<()> {
        optional(self.session.delete(&path(id), None)).map(|_| ())
    }

    /// Takes the lock of a request if nobody has it.
    pub fn try_lock(&self, id: &str) -> ZkResult<Option<Lock>> {
        let base = format!("/nodepool/{LOCKS}");
        match Lock::try_acquire_new(&self.session, &base, id, &self.holder)? {
            Some(lock) => Ok(Some(lock)),
            // Held, or the very first lock of all.
            None if self.session.stat(&base)?.is_some() => Ok(None),
            None => Lock::try_acquire(&self.session, "", &format!("nodepool/{LOCKS}/{id}"), &self.holder),
        }
    }

    /// Whether somebody has the lock of a request, or wants it.
    pub fn is_locked(&self, id: &str) -> ZkResult<bool> {
        let contenders = optional(self.session.children(&lock_path(id)))?;
        Ok(contenders.unwrap_or_default().iter().any(|name| is_contender(name)))
    }

    /// The ids of the requests that have, or have had, a lock.
    pub fn lock_ids(&self) -> ZkResult<Vec<String>> {
        Ok(optional(self.session.children(&format!("/nodepool/{LOCKS}")))?.unwrap_or_default())
    }

    /// When the parent of a request's lock was made, UNIX seconds.
    pub fn lock_made(&self, id: &str) -> ZkResult<Option<f64>> {
        Ok(self.session.stat(&lock_path(id))?.map(|stat| stat.created()))
    }

    /// Removes what the lock of a request has left.
    pub fn delete_lock(&self, id: &str) -> ZkResult<()> {
        self.session.delete_tree(&lock_path(id))
    }

    /// All requests in the order in which they are served. Damaged records are told to `damaged`.
    pub fn read_all(&self, damaged: &mut dyn FnMut(&str, &RecordError)) -> ZkResult<Vec<NodeRequest>> {
        let ids = optional(self.session.children(REQUESTS))?.unwrap_or_default();
        let session = self.session.clone();
        let found = at_once(ids.clone(), move |id| optional(session.get(&path(id))))?;
        let mut requests = Vec::new();
        for (id, found) in ids.into_iter().zip(found) {
            let Some((data, stat)) = found else { continue };
            match decode(&data) {
                Ok(record) => requests.push(NodeRequest { id, record, version: stat.version }),
                Err(error) => damaged(&path(&id), &error),
            }
        }
        requests.sort_by(|a, b| a.rank().cmp(&b.rank()));
        Ok(requests)
    }
}

fn path(id: &str) -> String {
    format!("{REQUESTS}/{id}")
}

fn lock_path(id: &str) -> String {
    format!("/nodepool/{LOCKS}/{id}")
}

/// A request in a copy of the tree.
pub fn decode_request(id: &str, node: &Node) -> Result<NodeRequest, RecordError> {
    Ok(NodeRequest { id: id.to_owned(), record: decode(&node.data)?, version: node.version })
}
