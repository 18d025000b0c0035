//! What is to be done so that each machine has its nodes: a decision without threads, clocks or I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use nodepool_drivers::api::{Machine, MachineId};

use super::record;
use crate::model::NodeState;
use crate::zk::ListedNode;

/// What a look at a machine has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its first address.
    pub address: IpAddr,
    /// Its host keys.
    pub host_keys: Vec<String>,
}

/// What is known of a machine. One that nothing is known of has not been looked at under its present configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It is being looked at.
    Looking {
        /// How often in a row it did not answer before.
        failures: u32,
    },
    /// It answered.
    Alive {
        /// What it showed.
        seen: Seen,
        /// Until when that is enough to make nodes of it.
        fresh_until: Instant,
    },
    /// It did not answer, or not as it must.
    Dead {
        /// How often in a row.
        failures: u32,
        /// When to look again.
        again_at: Instant,
    },
}

impl Sight {
    /// Until when a machine that did not answer is let be.
    fn dead_until(&self) -> Option<Instant> {
        match self {
            Self::Dead { again_at, .. } => Some(*again_at),
            Self::Looking { .. } | Self::Alive { .. } => None,
        }
    }
}

/// The sights of the machines.
pub type Sights = BTreeMap<MachineId, Sight>;

/// Why a node is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its machine is not configured any more.
    NotConfigured,
    /// Its machine has more nodes than it may.
    TooMany,
    /// Its machine does not answer.
    Silent,
}

/// As the end of a sentence about a node.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConfigured => "its machine is not configured any more",
            Self::TooMany => "its machine has more nodes than it may",
            Self::Silent => "its machine cannot be used",
        })
    }
}

/// Something to do. None of it may be done to a node that has been locked or given away meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// A ready node is to be deleted.
    Deregister {
        /// The node's id.
        node: String,
        /// Why.
        why: Why,
    },
    /// A ready node's record is to say what configuration and machine say now.
    Update {
        /// The node's id.
        node: String,
        /// Its machine.
        machine: MachineId,
        /// Which of the machine's nodes it is.
        slot: u32,
        /// What the machine showed.
        seen: Seen,
    },
    /// A ready node is to be made.
    Register {
        /// Its machine.
        machine: MachineId,
        /// Which of the machine's nodes it is.
        slot: u32,
        /// What the machine showed.
        seen: Seen,
    },
    /// It is to be found out whether a machine answers.
    Look(MachineId),
}

/// What is to be done now, and when there will be more even if nothing changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do; no two of them are about the same node or place. Looks come last, in the order in which they are to
    /// be begun.
    pub orders: Vec<Order>,
    /// When to plan again at the latest.
    pub again_at: Option<Instant>,
}

/// The nodes of a machine by place; those that have none are in excess.
struct Places<'a> {
    taken: BTreeMap<MachineId, Vec<Option<&'a ListedNode>>>,
    excess: Vec<&'a ListedNode>,
}

/// Decides what to do for `machines`, whose provider has `nodes`, ordered by id.
pub fn plan(machines: &[Machine], nodes: &[ListedNode], sights: &Sights, now: Instant) -> Plan {
    let places = Places::of(machines, nodes);
    let mut plan = Plan::default();
    let known: BTreeSet<MachineId> = machines.iter().map(Machine::identity).collect();
    for node in places.excess {
        if is_free(node) {
            let configured = record::identity(&node.record).is_some_and(|id| known.contains(&id));
            let why = if configured { Why::TooMany } else { Why::NotConfigured };
            plan.orders.push(Order::Deregister { node: node.id.clone(), why });
        }
    }
    for machine in machines.iter().filter(|machine| machine.slots > 0) {
        let id = machine.identity();
        let Some(nodes) = places.taken.get(&id) else { continue };
        plan.for_machine(machine, id, nodes, sights, now);
    }
    // A machine that does not answer holds up a look at another one for its timeout. So those that did not come last,
    // and of these first who has been due for the longest time.
    plan.orders.sort_by_key(|order| match order {
        Order::Look(id) => (true, sights.get(id).and_then(Sight::dead_until)),
        _ => (false, None),
    });
    plan
}

impl Plan {
    fn for_machine(
        &mut self,
        machine: &Machine,
        id: MachineId,
        nodes: &[Option<&ListedNode>],
        sights: &Sights,
        now: Instant,
    ) {
        match sights.get(&id) {
            None => self.orders.push(Order::Look(id)),
            Some(Sight::Looking { .. }) => {}
            Some(Sight::Alive { seen, fresh_until }) => {
                let orders =
                    (0..).zip(nodes).filter_map(|(slot, node)| for_place(machine, slot, *node, seen));
                let orders: Vec<_> = orders.collect();
                if !orders.is_empty() && *fresh_until <= now {
                    self.orders.push(Order::Look(id));
                } else {
                    self.orders.extend(orders);
                }
            }
            Some(Sight::Dead { again_at, .. }) => {
                let free = nodes.iter().flatten().filter(|node| is_free(node));
                let why = Why::Silent;
                self.orders.extend(free.map(|node| Order::Deregister { node: node.id.clone(), why }));
                if *again_at <= now {
                    self.orders.push(Order::Look(id));
                } else {
                    self.again_at = self.again_at.into_iter().chain([*again_at]).min();
                }
            }
        }
    }
}

/// What is to be done at a place of a machine that answers.
fn for_place(machine: &Machine, slot: u32, node: Option<&ListedNode>, seen: &Seen) -> Option<Order> {
    let (machine_id, seen_now) = (machine.identity(), seen.clone());
    match node {
        None => Some(Order::Register { machine: machine_id, slot, seen: seen_now }),
        Some(node) if is_free(node) && record::differs(&node.record, machine, slot, seen) => {
            Some(Order::Update { node: node.id.clone(), machine: machine_id, slot, seen: seen_now })
        }
        Some(_) => None,
    }
}

fn is_free(node: &ListedNode) -> bool {
    !node.locked && node.record.is_free()
}

/// Whether a job may be on the machine because of this node, or may come. Nodes that are being deleted or were never
/// made are no reason to wait.
fn occupies(state: NodeState) -> bool {
    match state {
        NodeState::Ready | NodeState::InUse | NodeState::Used | NodeState::Hold | NodeState::Testing => true,
        NodeState::Init
        | NodeState::Building
        | NodeState::Deleting
        | NodeState::Failed
        | NodeState::Aborted
        | NodeState::Deleted => false,
    }
}

impl<'a> Places<'a> {
    fn of(machines: &[Machine], nodes: &'a [ListedNode]) -> Self {
        let empty = machines.iter().map(|machine| (machine.identity(), vec![None; machine.slots as usize]));
        let mut places = Self { taken: empty.collect(), excess: Vec::new() };
        let mut others = Vec::new();
        for node in nodes.iter().filter(|node| occupies(node.record.state)) {
            match (places.of_node(node), record::slot(&node.record)) {
                (Some(taken), Some(slot)) if taken.get(slot) == Some(&None) => taken[slot] = Some(node),
                _ => others.push(node),
            }
        }
        // Those without a place of their own, as older programs made them, take what is left, and those with a job
        // the place of one without: it must not get one, too.
        for node in others {
            let Places { taken, excess } = &mut places;
            let own = record::identity(&node.record).and_then(|id| taken.get_mut(&id));
            let place = own.and_then(|own| {
                let vacant = own.iter().position(Option::is_none);
                let free = || own.iter().position(|place| place.is_some_and(is_free));
                let at = vacant.or_else(|| if is_free(node) { None } else { free() })?;
                own.get_mut(at)
            });
            match place {
                Some(place) => excess.extend(place.replace(node)),
                None => excess.push(node),
            }
        }
        places
    }

    fn of_node(&mut self, node: &ListedNode) -> Option<&mut Vec<Option<&'a ListedNode>>> {
        self.taken.get_mut(&record::identity(&node.record)?)
    }
}

#[cfg(test)]
mod tests;
