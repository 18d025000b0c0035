//! What a request is given before the work for it begins: ready nodes that nobody else in this process tries to take,
//! and room for new ones. Given by the provider's thread, in the order of the requests: the workers take it up in any
//! order.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodepool_drivers::api::{PoolSettings, Resources};

use super::ledger::Ticket;
use super::offer::Offer;
use super::shared::{RoomFor, Shared, State};
use super::tools::Tools;
use crate::model::{NodeRequest, RequestRecord};

/// What there is for one of the nodes that are asked for.
pub(super) enum Allotment {
    /// This ready node, if it is still to be had.
    Node(Claim),
    /// Room for a new one.
    Room(Reserved),
}

/// Room that is taken for a launch, until it is over.
pub(super) struct Reserved {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Reserved {
    /// The node has a record.
    pub(super) fn recorded(&self, node: &str) {
        self.shared.lock().ledger.recorded(self.ticket, node);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.lock().ledger.ended(self.ticket);
    }
}

/// A ready node that is claimed.
pub(super) struct Claim {
    shared: Arc<Shared>,
    pub(super) node: String,
    /// The version from which on its record is what has come of the claim, if anything has.
    pub(super) expected: Option<i32>,
}

impl Claim {
    fn of(tools: &Tools, node: String) -> Allotment {
        Allotment::Node(Self { shared: Arc::clone(&tools.shared), node, expected: None })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.lock().ledger.unclaim(&self.node, self.expected);
    }
}

/// What a tenant was promised for a request, as long as it is served.
pub(super) struct Promise {
    shared: Arc<Shared>,
    request: String,
}

impl Promise {
    /// Promises a request all nodes that it was not given. The lock of the state must not be held when this is dropped.
    pub(super) fn new(
        state: &mut State,
        tools: &Tools,
        pool: &PoolSettings,
        request: &NodeRequest,
        given: &Allotments,
    ) -> Self {
        let open = (0..request.record.node_types.len()).filter(|slot| !given.contains_key(slot));
        let promise = Self { shared: Arc::clone(&tools.shared), request: request.id.clone() };
        promise.renew(state, tools, pool, request, open);
        promise
    }

    /// Promises the request its nodes `open`, and no others.
    pub(super) fn renew(
        &self,
        state: &mut State,
        tools: &Tools,
        pool: &PoolSettings,
        request: &NodeRequest,
        open: impl Iterator<Item = usize>,
    ) {
        // Machines do not count once they are given, so nobody could have to wait for what was promised of them.
        let Some(tenant) = request.record.tenant_name.as_ref().filter(|_| tools.keeper.is_none()) else {
            return;
        };
        let facts = state.facts(&tools.name).unwrap_or_default();
        let mut needs = Resources::default();
        for label in open.filter_map(|slot| request.record.node_types.get(slot)) {
            needs.add(&facts.needs(&pool.name, label));
        }
        state.ledger.promise(&self.request, tenant, needs);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.shared.lock().ledger.break_promise(&self.request);
    }
}

/// By the number of the node in the request.
pub(super) type Allotments = BTreeMap<usize, Allotment>;

/// Whether there is room for a new node among them.
pub(super) fn has_room(given: &Allotments) -> bool {
    given.values().any(|one| matches!(one, Allotment::Room(_)))
}

/// Gives what there is for the nodes `open` of a request, in their order, as far as there is any. The values must not
/// be dropped while the state is locked.
pub(super) fn allot(
    state: &mut State,
    tools: &Tools,
    pool: &PoolSettings,
    record: &RequestRecord,
    open: impl Iterator<Item = usize>,
    zone: Option<&str>,
) -> Allotments {
    let mut given = Allotments::new();
    let mut zone = zone.map(str::to_owned);
    for slot in open {
        let Some(label) = record.node_types.get(slot) else { break };
        let tenant = record.tenant_name.as_deref();
        let claimed = if record.reuse { claim(state, tools, pool, label, tenant, &mut zone) } else { None };
        let allotment = match claimed {
            Some(node) => Claim::of(tools, node),
            // Nobody is there who could launch it.
            None if state.facts(&tools.name).is_some_and(|facts| facts.silent) => break,
            None => {
                let Ok(ticket) = state.reserve(&RoomFor { provider: &tools.name, pool, label, tenant })
                else {
                    break;
                };
                Allotment::Room(Reserved { shared: Arc::clone(&tools.shared), ticket })
            }
        };
        given.insert(slot, allotment);
    }
    given
}

/// Gives ready nodes of machines for the nodes `open` of a request: for all of them or for none.
pub(super) fn allot_offered(
    state: &mut State,
    tools: &Tools,
    offer: &mut Offer<'_>,
    record: &RequestRecord,
    open: &[usize],
) -> Allotments {
    let labels: Vec<String> = open.iter().filter_map(|slot| record.node_types.get(*slot)).cloned().collect();
    let Some(nodes) = offer.choose(&labels) else { return Allotments::new() };
    offer.give(&nodes);
    for node in &nodes {
        // For no tenant: machines that it has do not count for its limits.
        state.ledger.claim(node, None);
    }
    open.iter().zip(nodes).map(|(slot, node)| (*slot, Claim::of(tools, node))).collect()
}

/// Claims the first ready node that would do. All nodes of a request are in one zone, which the first one chooses.
fn claim(
    state: &mut State,
    tools: &Tools,
    pool: &PoolSettings,
    label: &str,
    tenant: Option<&str>,
    zone: &mut Option<String>,
) -> Option<String> {
    let (id, node) = state.ledger.free(&state.world, (&tools.name, &pool.name)).find(|(_, node)| {
        node.labels.iter().any(|own| own == label)
            && (zone.is_none() || node.az.is_none() || node.az == *zone)
    })?;
    if zone.is_none() {
        zone.clone_from(&node.az);
    }
    let id = id.to_owned();
    state.ledger.claim(&id, tenant);
    Some(id)
}
