//! What the launcher does in ZooKeeper alone, on workers of its own: requests for its own stock of ready nodes, and
//! putting in order what others have left.

use std::sync::Arc;

use nodepool_threads::{Job, StopToken, crash_point};
use slog::{Logger, debug, info, warn};

use super::min_ready;
use super::shared::Shared;
use super::world::Node;
use crate::model::{NodeState, RequestRecord, RequestState, now};
use crate::zk::{Nodes, Requests, ZkResult};

/// How long the lock of a request that is gone is left where it is, seconds: somebody may be about to take it.
const LOCK_AGE: f64 = 8.0 * 3600.0;

/// An errand.
pub(super) struct Errand {
    pub(super) nodes: Nodes,
    pub(super) requests: Requests,
    pub(super) shared: Arc<Shared>,
    pub(super) what: What,
    pub(super) log: Logger,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Ask for a node of this label, for stock.
    Ask(String),
    /// Take what a request of our own has brought, and remove it.
    Collect(String),
    /// Give a node back whose request is no more.
    Deallocate(String),
    /// Make a request new again that was being served by somebody who is no more.
    Reset(String),
    /// Remove a node that nobody has, of a machine that is not configured any more.
    Forget { node: String, provider: String },
    /// Remove what a lock has left of a node.
    RemoveEmpty(String),
    /// Remove the locks of requests that are no more.
    SweepLocks,
}

impl What {
    /// Whether it is ordered at each step as long as it seems necessary.
    pub(super) fn is_repeated(&self) -> bool {
        matches!(self, Self::Collect(_) | Self::Deallocate(_) | Self::Forget { .. } | Self::Reset(_))
    }
}

impl Job for Errand {
    /// The id of a request that was made.
    type Outcome = ZkResult<Option<String>>;

    fn describe(&self) -> String {
        match &self.what {
            What::Ask(label) => format!("asking for a node of the label {label}"),
            What::Collect(id) => format!("collecting the nodes of the request {id}"),
            What::Deallocate(id) => format!("giving the node {id} back"),
            What::Reset(id) => format!("resetting the request {id}"),
            What::Forget { node, .. } => format!("removing the node {node} of a machine"),
            What::RemoveEmpty(id) => format!("removing the rest of the node {id}"),
            What::SweepLocks => "removing locks of old requests".to_owned(),
        }
    }

    fn run(&mut self, stop: &StopToken) -> Self::Outcome {
        if stop.is_stopped() {
            return Ok(None);
        }
        match &self.what {
            What::Ask(label) => return self.ask(label).map(Some),
            What::Collect(id) => self.collect(id),
            What::Deallocate(id) => self.deallocate(id),
            What::Reset(id) => self.reset(id),
            What::Forget { node, provider } => self.forget(node, provider),
            What::RemoveEmpty(id) => self.remove_empty(id),
            What::SweepLocks => self.sweep_locks(),
        }
        .map(|()| None)
    }
}

impl Errand {
    fn ask(&self, label: &str) -> ZkResult<String> {
        let mut record = RequestRecord::new(min_ready::REQUESTOR, label);
        record.reuse = false;
        let id = self.requests.create(min_ready::PRIORITY, &record)?;
        crash_point("min-ready-requested");
        info!(self.log, "asked for a node for stock"; "label" => label, "request" => &id);
        Ok(id)
    }

    fn collect(&self, id: &str) -> ZkResult<()> {
        let Some(Ok(request)) = self.requests.read(id)? else { return Ok(()) };
        for node in &request.record.nodes {
            self.release(node, |allocated_to| allocated_to == id)?;
        }
        crash_point("min-ready-collected");
        self.requests.delete(id)
    }

    /// Gives a node back whose request is no more.
    fn deallocate(&self, id: &str) -> ZkResult<()> {
        let mut failure = None;
        self.release(id, |request| match self.requests.read(request) {
            Ok(found) => found.is_none(),
            Err(error) => {
                failure = Some(error);
                false
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Makes a ready node nobody's, if it belongs to a request that `may` be forgotten.
    fn release(&self, id: &str, may: impl FnOnce(&str) -> bool) -> ZkResult<()> {
        let Some(lock) = self.nodes.try_lock(id)? else { return Ok(()) };
        let nodes = self.nodes.under(&lock);
        let Some(Ok((mut record, version))) = nodes.read(id)? else { return Ok(()) };
        let is_free = record.allocated_to.as_deref().is_some_and(may);
        if record.state == NodeState::Ready && is_free {
            record.allocated_to = None;
            nodes.write(id, &record, version)?;
            crash_point("node-deallocated");
            debug!(self.log, "a ready node is anybody's again"; "node" => id);
        }
        Ok(())
    }

    /// A request that says that it is being served, while nobody has its lock, was left by somebody who is no more.
    fn reset(&self, id: &str) -> ZkResult<()> {
        if self.requests.is_locked(id)? {
            return Ok(());
        }
        let Some(lock) = self.requests.try_lock(id)? else { return Ok(()) };
        let (requests, nodes) = (self.requests.under(&lock), self.nodes.under(&lock));
        let Some(Ok(mut request)) = requests.read(id)? else { return Ok(()) };
        if request.record.state != RequestState::Pending {
            return Ok(());
        }
        warn!(self.log, "resetting a node request that nobody serves any more"; "request" => id);
        let of_request = {
            let state = self.shared.lock();
            let nodes = state.world.nodes().iter();
            // All others are deleted anyway.
            let stays = |node: &Node| matches!(node.state, NodeState::Ready | NodeState::Init);
            let found = nodes.filter(|(_, node)| node.allocated_to.as_deref() == Some(id) && stays(node));
            found.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        for node in of_request {
            // If somebody has it, it is given back when the request is no more.
            let Some(node_lock) = nodes.try_lock(&node)? else { continue };
            let nodes = nodes.under(&node_lock);
            let Some(Ok((mut record, version))) = nodes.read(&node)? else { continue };
            if record.allocated_to.as_deref() != Some(id) {
                continue;
            }
            record.allocated_to = None;
            if record.state == NodeState::Init {
                record.set_state(NodeState::Deleting);
            }
            nodes.write(&node, &record, version)?;
            crash_point("node-reset");
        }
        crash_point("nodes-reset");
        requests.change(&mut request, |record| {
            record.nodes.clear();
            record.set_state(RequestState::Requested);
        })?;
        Ok(())
    }

    /// Removes a node of a machine, unless it has been given to somebody or is held.
    fn forget(&self, id: &str, provider: &str) -> ZkResult<()> {
        let Some(lock) = self.nodes.try_lock(id)? else { return Ok(()) };
        let Some(Ok((record, _))) = self.nodes.under(&lock).read(id)? else { return Ok(()) };
        let is_forgotten = is_forgotten(record.state, record.allocated_to.is_some());
        if is_forgotten && record.provider.as_deref() == Some(provider) {
            info!(self.log, "removing the node of a machine that is not configured any more";
                "node" => id, "provider" => provider, "state" => %record.state);
            crash_point("standing-forgotten");
            Nodes::delete(id, lock)?;
        }
        Ok(())
    }

    fn remove_empty(&self, id: &str) -> ZkResult<()> {
        let Some(lock) = self.nodes.try_lock(id)? else { return Ok(()) };
        crash_point("empty-node-locked");
        if self.nodes.under(&lock).read(id)?.is_none() {
            info!(self.log, "removing what a lock has left of a node"; "node" => id);
            Nodes::delete(id, lock)?;
        }
        Ok(())
    }

    fn sweep_locks(&self) -> ZkResult<()> {
        let mut ids = self.requests.lock_ids()?;
        {
            let state = self.shared.lock();
            ids.retain(|id| !state.world.requests().contains_key(id));
        }
        for id in ids {
            if self.requests.lock_made(&id)?.is_some_and(|made| now() - made > LOCK_AGE) {
                self.requests.delete_lock(&id)?;
            }
        }
        Ok(())
    }
}

/// Whether an unlocked node of a machine goes with its provider: not one that has been given to a request or is held.
pub(super) fn is_forgotten(state: NodeState, is_allocated: bool) -> bool {
    match state {
        NodeState::Ready => !is_allocated,
        state => !matches!(state, NodeState::Hold | NodeState::Testing),
    }
}
