//! How the service of a request ends: fulfilled, declined, given back or withdrawn.

use super::*;

impl Handler {
    /// Gives the nodes to who has asked for them.
    pub(super) fn fulfil(mut self: Box<Self>) -> ZkResult<Step> {
        let mut ids = Vec::new();
        for slot in std::mem::take(&mut self.slots) {
            if let Slot::Here(node) = slot {
                self.expect(&node.id, node.version);
                // The lock of the node goes here: the requestor takes it next.
                ids.push(node.id);
            }
        }
        crash_point("nodes-unlocked");
        let fulfilled = self.requests.change(&mut self.request, |record| {
            record.nodes.clone_from(&ids);
            record.set_state(RequestState::Fulfilled);
        })?;
        crash_point("request-fulfilled");
        match fulfilled {
            true => info!(self.log, "the node request is fulfilled"; "nodes" => ids.join(", ")),
            // The cleaner finds nodes of a request that is no more.
            false => info!(self.log, "the node request was withdrawn"),
        }
        Ok(Step::Over(Some(self.request.version)))
    }

    /// Leaves the request to others.
    pub(in super::super) fn decline(mut self: Box<Self>, reasons: &[Reason]) -> ZkResult<Step> {
        self.release()?;
        let version =
            decline(&self.tools, &self.pool, &self.requests, &mut self.request, reasons, &self.log)?;
        Ok(Step::Over(version))
    }

    /// Makes the request as it was before we took it.
    pub(in super::super) fn give_back(mut self: Box<Self>) -> ZkResult<Step> {
        self.release()?;
        self.requests.change(&mut self.request, |record| {
            record.nodes.clear();
            record.set_state(RequestState::Requested);
        })?;
        info!(self.log, "the node request is given back");
        Ok(Step::Over(Some(self.request.version)))
    }

    /// The requestor does not want it any more.
    pub(in super::super) fn withdraw(mut self: Box<Self>) -> ZkResult<Step> {
        info!(self.log, "the node request was withdrawn");
        self.release()?;
        Ok(Step::Over(None))
    }

    /// Gives all its nodes back.
    fn release(&mut self) -> ZkResult<()> {
        for slot in std::mem::take(&mut self.slots) {
            if let Slot::Here(node) = slot {
                let (id, version) = node.deallocate()?;
                self.expect(&id, version);
                crash_point("node-given-back");
            }
        }
        Ok(())
    }

    /// The record of a node that we let go has this version: until the copy of the tree has it, the node is not what it
    /// seems there.
    fn expect(&mut self, id: &str, version: i32) {
        match self.claims.iter_mut().find(|claim| claim.node == id) {
            Some(claim) => claim.expected = Some(version),
            None => self.tools.shared.lock().ledger.expect(id, version),
        }
    }
}
