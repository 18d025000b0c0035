//! The service of one node request, from its lock to its end. Runs on the launch workers of its provider; between two
//! pieces of work its handler waits with the provider's thread.

mod declining;
mod ending;

use std::sync::Arc;

use nodepool_drivers::api::{self, NodeRequestHandler};
use nodepool_threads::{StopToken, crash_point};
use slog::{Logger, debug, info, o, warn};

use super::allot::{Allotment, Allotments, Claim, Promise, Reserved, allot, allot_offered, has_room};
use super::assign::Reason;
use super::board::ServingNote;
use super::launch::{HeldNode, Launch, LaunchEnd, is_lost};
use super::min_ready;
use super::tools::Tools;
use crate::model::{NodeRequest, NodeState, RequestState};
use crate::zk::{Lock, Nodes, Requests, ZkError, ZkResult};

use declining::{decline, lock};
pub(super) use declining::{decline_untaken, tell_of};

/// A request that we have taken.
pub(super) struct Handler {
    tools: Arc<Tools>,
    pub(super) request: NodeRequest,
    pub(super) pool: String,
    /// At a provider that launches nodes.
    driver: Option<Arc<dyn NodeRequestHandler>>,
    requests: Requests,
    nodes: Nodes,
    slots: Vec<Slot>,
    /// Where all its nodes shall run.
    zone: Option<String>,
    /// What it has been given for the nodes that are missing.
    allotted: Allotments,
    /// The ready nodes that it has taken: nobody else shall try them as long as it is served.
    claims: Vec<Claim>,
    promise: Promise,
    log: Logger,
    _note: ServingNote,
    /// Dropped last: then it is anybody's.
    _lock: Lock,
}

/// One of the nodes that are asked for.
enum Slot {
    /// Nothing is done for it.
    Empty,
    /// It is being launched.
    Launching,
    /// Here it is.
    Here(Box<HeldNode>),
    /// It cannot be had, for this reason if it is one that a request can be told.
    Failed(Option<Reason>),
}

/// What a piece of work for a request has come to.
pub(super) enum Step {
    /// The request is no longer ours. Its record as we know it has this version.
    Over(Option<i32>),
    /// There is more to do for it.
    More {
        handler: Box<Handler>,
        /// These nodes are to be launched.
        launches: Vec<Launch>,
        /// For the others there is no room now.
        shortage: Option<Short>,
    },
}

/// Why there is no room for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// As far as one can tell.
    OfRoom,
    /// The provider has said so, whatever its limits are.
    AtProvider,
}

impl Handler {
    /// Takes a request for a pool, and does what can be done at once.
    pub(super) fn take(
        tools: &Arc<Tools>,
        pool: &str,
        id: &str,
        (allotted, promise): (Allotments, Promise),
        stop: &StopToken,
    ) -> ZkResult<Step> {
        let Some((lock, requests, mut request)) = lock(tools, id, stop)? else {
            return Ok(Step::Over(None));
        };
        if request.record.declined_by.iter().any(|by| by == tools.id(pool)) {
            return Ok(Step::Over(None));
        }
        let log = tools.log.new(o!("request" => id.to_owned(), "pool" => pool.to_owned()));
        info!(log, "taking the node request"; "labels" => request.record.node_types.join(", "),
            "requestor" => &request.record.requestor);
        if !requests.change(&mut request, |record| record.set_state(RequestState::Pending))? {
            return Ok(Step::Over(None));
        }
        crash_point("request-pending");
        let slots = request.record.node_types.iter().map(|_| Slot::Empty).collect();
        let driver = driver(tools, &request);
        let handler = Box::new(Self {
            tools: Arc::clone(tools),
            pool: pool.to_owned(),
            driver,
            nodes: tools.nodes.under(&lock),
            requests,
            request,
            slots,
            zone: None,
            allotted,
            claims: Vec::new(),
            promise,
            log,
            _note: ServingNote::put(&tools.shared, id, &tools.name, pool),
            _lock: lock,
        });
        handler.pursue(stop)
    }

    /// Whether it has any of its nodes, or one is being launched.
    pub(super) fn has_nodes(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Here(_) | Slot::Launching))
    }

    /// The pool and the label of the first node that nothing is done for.
    pub(super) fn wanted(&self) -> Option<(String, String)> {
        let slot = *self.open().first()?;
        Some((self.pool.clone(), self.request.record.node_types.get(slot)?.clone()))
    }

    /// Gets the nodes that are still missing, as far as something was given for them.
    pub(super) fn pursue(mut self: Box<Self>, stop: &StopToken) -> ZkResult<Step> {
        let (mut rooms, mut short) = (Vec::new(), false);
        // The ready ones first: where they are, the new ones shall be.
        for slot in self.open() {
            if stop.is_stopped() {
                return self.give_back();
            }
            match self.allotted.remove(&slot) {
                // If somebody else was quicker, something else is given for it.
                Some(Allotment::Node(claim)) => short |= !self.take_ready(slot, claim, stop)?,
                Some(Allotment::Room(reserved)) => rooms.push((slot, reserved)),
                None => short = true,
            }
        }
        let mut launches = self.launch_in(rooms);
        match launches.len() {
            0 if !short => self.conclude(stop),
            1 if !short => {
                // No detour where there is nothing to do at the same time.
                if let Some(launch) = launches.pop() {
                    let slot = launch.slot;
                    let end = launch.run(stop)?;
                    self.put(slot, end);
                }
                self.conclude(stop)
            }
            _ => {
                let shortage = short.then_some(Short::OfRoom);
                Ok(Step::More { handler: self, launches, shortage })
            }
        }
    }

    /// The launches that there is room for by now, while others of it go on. Makes no call: of the ready nodes that it is
    /// given, if any, it takes none before the launches are over.
    pub(super) fn launch_more(&mut self) -> Vec<Launch> {
        // Then it is declined.
        if self.slots.iter().any(|slot| matches!(slot, Slot::Failed(_))) {
            return Vec::new();
        }
        self.allot();
        let mut rooms = Vec::new();
        for (slot, allotment) in std::mem::take(&mut self.allotted) {
            match allotment {
                Allotment::Room(reserved) => rooms.push((slot, reserved)),
                node @ Allotment::Node(_) => _ = self.allotted.insert(slot, node),
            }
        }
        self.launch_in(rooms)
    }

    /// The launches of nodes that there is room for.
    fn launch_in(&mut self, rooms: Vec<(usize, Reserved)>) -> Vec<Launch> {
        let mut launches = Vec::new();
        for (slot, reserved) in rooms {
            match self.launch(slot, reserved) {
                Some(launch) => {
                    self.set(slot, Slot::Launching);
                    launches.push(launch);
                }
                None => self.set(slot, Slot::Failed(None)),
            }
        }
        launches
    }

    fn set(&mut self, slot: usize, what: Slot) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = what;
        }
    }

    /// A launch has come to this.
    pub(super) fn put(&mut self, slot: usize, end: LaunchEnd) {
        self.set(
            slot,
            match end {
                LaunchEnd::Ready(node) => Slot::Here(node),
                LaunchEnd::Failed(reason) => Slot::Failed(reason),
                LaunchEnd::NoRoom | LaunchEnd::Cancelled => Slot::Empty,
            },
        );
    }

    /// A launch has come to nothing.
    pub(super) fn lost(&mut self, slot: usize) {
        self.set(slot, Slot::Failed(None));
    }

    /// The nodes that nothing is done for.
    fn open(&self) -> Vec<usize> {
        let is_empty = |slot: &usize| matches!(self.slots.get(*slot), Some(Slot::Empty));
        (0..self.slots.len()).filter(is_empty).collect()
    }

    /// Gives it what there is for the nodes that are missing. False if there is nothing.
    pub(super) fn allot(&mut self) -> bool {
        let tools = Arc::clone(&self.tools);
        let Some(pool) = tools.pool(&self.pool) else { return true };
        let mut open = self.open();
        open.retain(|slot| !self.allotted.contains_key(slot));
        let record = &self.request.record;
        let given = {
            let mut state = tools.shared.lock();
            let given = match tools.offer(&state, &pool.name) {
                Some(mut offer) => allot_offered(&mut state, &tools, &mut offer, record, &open),
                None => allot(&mut state, &tools, pool, record, open.iter().copied(), self.zone.as_deref()),
            };
            open.retain(|slot| !given.contains_key(slot));
            self.promise.renew(&mut state, &tools, pool, &self.request, open.into_iter());
            given
        };
        self.allotted.extend(given);
        !self.allotted.is_empty()
    }

    /// Whether it was given room for a new node.
    pub(super) fn has_room(&self) -> bool {
        has_room(&self.allotted)
    }

    /// Goes on with what the provider is configured to be now. False if its pool is no more.
    pub(super) fn follow(&mut self, tools: &Arc<Tools>) -> bool {
        if !Arc::ptr_eq(&self.tools, tools) {
            self.tools = Arc::clone(tools);
            self.driver = driver(tools, &self.request);
        }
        self.tools.pool(&self.pool).is_some()
    }

    /// Whether nothing is launched for it, as long as it may wait: then it waits as one that nobody has taken.
    pub(super) fn wants_ready_ones(&self) -> bool {
        self.driver.is_none()
    }

    /// Whether it is only for stock: nobody waits for its nodes.
    pub(super) fn is_for_stock(&self) -> bool {
        self.request.record.requestor.as_deref() == Some(min_ready::REQUESTOR)
    }

    /// Takes a ready node of the pool, if it is still to be had.
    fn take_ready(&mut self, slot: usize, mut claim: Claim, stop: &StopToken) -> ZkResult<bool> {
        let id = claim.node.clone();
        // If it is not, the copy of the tree may show why in a moment. Until then nobody shall try it again.
        claim.expected = Some(i32::MAX);
        if let Some(keeper) = &self.tools.keeper {
            let Some(Ok((record, version))) = self.nodes.read(&id)? else { return Ok(false) };
            // As long as the machine may take to answer.
            if !keeper.check(&record, stop) {
                // It is taken away: until then nobody else shall wait for the machine.
                claim.expected = Some(version.wrapping_add(1));
                return Ok(false);
            }
            crash_point("machine-checked");
        }
        let Some(lock) = self.nodes.try_lock(&id)? else { return Ok(false) };
        let nodes = self.nodes.under(&lock);
        let Some(Ok((mut record, version))) = nodes.read(&id)? else { return Ok(false) };
        let free = record.state == NodeState::Ready && record.allocated_to.is_none();
        // The nodes of machines follow the configuration.
        let label = self.request.record.node_types.get(slot);
        let in_pool = record.pool.as_ref() == Some(&self.pool);
        if !free || !in_pool || !label.is_some_and(|label| record.labels.contains(label)) {
            return Ok(false);
        }
        record.allocated_to = Some(self.request.id.clone());
        record.tenant_name.clone_from(&self.request.record.tenant_name);
        record.set("requestor", self.request.record.requestor.clone());
        if let Some(az) = record.az.as_str() {
            self.zone = Some(az.to_owned());
        }
        let mut node = HeldNode { id, record, version, nodes, lock };
        node.write()?;
        claim.expected = Some(node.version);
        self.claims.push(claim);
        crash_point("node-allocated");
        debug!(self.log, "taking a ready node"; "node" => &node.id);
        self.set(slot, Slot::Here(Box::new(node)));
        Ok(true)
    }

    /// The launch of a node that there is room for. `None` if the configuration has changed meanwhile.
    fn launch(&mut self, slot: usize, reserved: Reserved) -> Option<Launch> {
        let label = self.request.record.node_types.get(slot)?.clone();
        let pool = self.tools.pool(&self.pool)?;
        let driver = Arc::clone(self.driver.as_ref()?);
        if self.zone.is_none() {
            let facts = self.tools.shared.lock().facts(&self.tools.name).unwrap_or_default();
            let zones = if pool.zones.is_empty() { &facts.zones } else { &pool.zones };
            self.zone = fastrand::choice(zones.iter()).cloned();
        }
        let record = &self.request.record;
        Some(Launch {
            reserved,
            tools: Arc::clone(&self.tools),
            nodes: self.nodes.clone(),
            driver,
            slot,
            pool: self.pool.clone(),
            label,
            zone: self.zone.clone(),
            request: self.request.id.clone(),
            requestor: record.requestor.clone(),
            tenant: record.tenant_name.clone(),
            log: self.log.clone(),
        })
    }

    /// All launches are over: fulfils the request, or declines it, or waits for room once more.
    pub(super) fn conclude(self: Box<Self>, stop: &StopToken) -> ZkResult<Step> {
        if self.slots.iter().any(|slot| matches!(slot, Slot::Failed(_))) {
            let reason = |slot: &Slot| if let Slot::Failed(reason) = slot { reason.clone() } else { None };
            let mut reasons: Vec<_> = self.slots.iter().filter_map(reason).collect();
            if reasons.is_empty() {
                reasons.push(Reason::NotLaunched);
            }
            return self.decline(&reasons);
        }
        if self.slots.iter().all(|slot| matches!(slot, Slot::Here(_))) {
            return self.fulfil();
        }
        if stop.is_stopped() {
            return self.give_back();
        }
        // The provider itself has found no room: not at once again.
        let shortage = Some(Short::AtProvider);
        Ok(Step::More { handler: self, launches: Vec::new(), shortage })
    }
}

/// What launches the nodes of a request, at a provider that launches any.
fn driver(tools: &Tools, request: &NodeRequest) -> Option<Arc<dyn NodeRequestHandler>> {
    let asked = api::NodeRequest {
        id: request.id.clone(),
        labels: request.record.node_types.clone(),
        attributes: request.record.safe_attributes(),
    };
    tools.provider.nodes().map(|cloud| Arc::from(cloud.handler(asked)))
}
