//! What a pool makes of a node request: takes it, declines it, leaves it to another pool, or waits. A pure function of
//! what is known; whoever carries its verdict out looks again under the request's lock.

use std::collections::BTreeMap;
use std::fmt;

use nodepool_drivers::api::{PoolSettings, Resources};

use super::facts::{ProviderFacts, label_ready};
use super::ledger::Ledger;
use super::offer::Offer;
use super::world::World;
use crate::model::{NodeRequest, RequestState};

/// What a verdict depends on.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The fleet.
    pub world: &'a World,
    /// What has been decided and is not to be seen there yet.
    pub ledger: &'a Ledger,
    /// The provider's name.
    pub provider: &'a str,
    /// The pool.
    pub pool: &'a PoolSettings,
    /// The pool's id.
    pub id: &'a str,
    /// The pool's priority.
    pub priority: i64,
    /// What its machines have to give away; `None` where nodes are launched.
    pub offer: Option<&'a Offer<'a>>,
    /// What is known of the provider; `None` as long as it has not answered.
    pub facts: Option<&'a ProviderFacts>,
    /// The limits of each tenant.
    pub tenants: &'a BTreeMap<String, Resources>,
    /// How many nodes may be launched at the provider at once.
    pub concurrency: usize,
    /// How many are.
    pub launching: usize,
    /// Whether a request waits for room in the pool.
    pub paused: bool,
    /// Whether all pools of this launcher are registered: before that, those that have declined a request are not all
    /// that could.
    pub settled: bool,
}

/// What a pool makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It serves it.
    Take,
    /// It cannot, and says so.
    Decline(Vec<Reason>),
    /// Another pool shall serve it.
    Leave(Leave),
    /// It would, but not now.
    Wait(Wait),
    /// It has nothing to do with it.
    Nothing,
}

/// Why a pool declines a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The pool may have no nodes.
    Disabled,
    /// It lacks these labels.
    Labels(Vec<String>),
    /// The image of this label is not there.
    NoImage(String),
    /// An empty pool would not have enough of this.
    TooMuch(String),
    /// There is no room now, and nobody waits for the node.
    NoRoom,
    /// It has ready nodes only, and a new one is asked for.
    NothingNew,
    /// All machines together would not have enough nodes.
    TooFewMachines,
    /// A node was tried as often as it may be.
    NotLaunched,
}

/// Why a request is left to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It asks for another provider.
    Provider,
    /// There is a pool that goes first.
    Priority,
    /// There are pools that have the labels.
    Labels,
}

/// Why a pool does not take a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The launcher's pools are not registered, or the provider has not said yet how it stands, or not of the labels.
    NotReady,
    /// The provider does not answer any more, and there are not enough ready nodes.
    Silent,
    /// Its tenant has all that it may have.
    Tenant,
    /// Another request waits for room.
    Paused,
    /// There are not enough free nodes of its labels, or they are for one that came before.
    Machines,
    /// As many nodes are being launched as may be at once.
    Concurrency,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("the pool is disabled by max-servers"),
            Self::Labels(labels) => write!(f, "no nodes of these labels: {}", labels.join(", ")),
            Self::NoImage(label) => write!(f, "the image of the label {label} is not there"),
            Self::NoRoom => f.write_str("there is no room now for a node that is only for stock"),
            Self::NothingNew => f.write_str("it asks for new nodes, and there are machines only"),
            Self::TooFewMachines => f.write_str("all machines together have not so many nodes of its labels"),
            Self::NotLaunched => f.write_str("a node for it could not be launched"),
            Self::TooMuch(name) => write!(f, "it would need more {name} than there may be"),
        }
    }
}

/// The verdict on a request.
pub fn verdict(view: &View<'_>, request: &NodeRequest) -> Verdict {
    let record = &request.record;
    if record.state != RequestState::Requested {
        return Verdict::Nothing;
    }
    if record.declined_by.iter().any(|id| id == view.id) {
        // The last pool that had not declined it may have gone since.
        let by_all = view.world.pools().all(|pool| record.declined_by.contains(&pool.id));
        let registered = view.world.pools().any(|pool| pool.id == view.id);
        return if by_all && registered { Verdict::Decline(Vec::new()) } else { Verdict::Nothing };
    }
    if view.concurrency == 0 {
        return Verdict::Wait(Wait::Concurrency);
    }
    // What others can do is known once one sees oneself among them.
    if !view.world.pools().any(|pool| pool.id == view.id) {
        return Verdict::Wait(Wait::NotReady);
    }
    let candidates = || {
        view.world.pools().filter(|pool| {
            record.node_types.iter().all(|label| pool.supported_labels.contains(label))
                && !record.declined_by.contains(&pool.id)
        })
    };
    if let Some(wanted) = record.provider.as_deref().filter(|wanted| *wanted != view.provider) {
        if candidates().any(|pool| pool.provider_name == wanted) {
            return Verdict::Leave(Leave::Provider);
        }
    }
    if candidates().any(|pool| pool.priority < view.priority && !pool.paused) {
        return Verdict::Leave(Leave::Priority);
    }
    let has_all = record.node_types.iter().all(|label| view.pool.labels.contains_key(label));
    if !has_all && candidates().next().is_some() {
        return Verdict::Leave(Leave::Labels);
    }
    let reasons = objections(view, request);
    if !reasons.is_empty() {
        return if view.settled { Verdict::Decline(reasons) } else { Verdict::Wait(Wait::NotReady) };
    }
    let Some(facts) = view.facts else { return Verdict::Wait(Wait::NotReady) };
    let is_known = view.offer.is_some() || facts.knows(&view.pool.name, &record.node_types);
    if !is_known && !has_ready_nodes(view, request) {
        return Verdict::Wait(Wait::NotReady);
    }
    // Of machines too, as in the original: those in use do not count, but those that are asked for do.
    let tenant = record.tenant_name.as_deref();
    if let Some((tenant, limits)) = tenant.and_then(|tenant| Some((tenant, view.tenants.get(tenant)?))) {
        let used = view.ledger.used_by_tenant(view.world, tenant);
        if limits.exceeded_by(&used, &needs(view, facts, request)).is_some() {
            return Verdict::Wait(Wait::Tenant);
        }
    }
    if view.offer.is_some_and(|offer| offer.choose(&record.node_types).is_none()) {
        return Verdict::Wait(Wait::Machines);
    }
    if facts.silent && !has_ready_nodes(view, request) {
        return Verdict::Wait(Wait::Silent);
    }
    if view.paused {
        return Verdict::Wait(Wait::Paused);
    }
    if view.launching >= view.concurrency && !has_ready_nodes(view, request) {
        return Verdict::Wait(Wait::Concurrency);
    }
    Verdict::Take
}

/// Whether the pool has a ready node for each that is asked for.
fn has_ready_nodes(view: &View<'_>, request: &NodeRequest) -> bool {
    let record = &request.record;
    let free: Vec<_> = view.ledger.free(view.world, (view.provider, &view.pool.name)).collect();
    let counted = |label: &String| free.iter().filter(|(_, node)| node.labels.contains(label)).count();
    let wanted = |label: &String| record.node_types.iter().filter(|wanted| *wanted == label).count();
    record.reuse && record.node_types.iter().all(|label| counted(label) >= wanted(label))
}

/// What all nodes of the request need, as far as the pool has their labels.
fn needs(view: &View<'_>, facts: &ProviderFacts, request: &NodeRequest) -> Resources {
    let mut sum = Resources::default();
    for label in request.record.node_types.iter().filter(|label| view.pool.labels.contains_key(*label)) {
        sum.add(&facts.needs(&view.pool.name, label));
    }
    sum
}

/// Why the pool could not serve the request even if it were empty; as far as that can be told, if the provider has not
/// answered yet.
pub fn objections(view: &View<'_>, request: &NodeRequest) -> Vec<Reason> {
    if view.pool.limits.get(Resources::INSTANCES).is_some_and(|limit| limit <= 0) {
        return vec![Reason::Disabled];
    }
    let labels = &request.record.node_types;
    let missing: Vec<_> =
        labels.iter().filter(|label| !view.pool.labels.contains_key(*label)).cloned().collect();
    if !missing.is_empty() {
        return vec![Reason::Labels(missing)];
    }
    if let Some(offer) = view.offer {
        // Their number is limited by the machines that there are.
        return match request.record.reuse {
            false => vec![Reason::NothingNew],
            true if !offer.could(labels) => vec![Reason::TooFewMachines],
            true => Vec::new(),
        };
    }
    let boots = |label: &str| label_ready(view.world, view.provider, view.pool, view.facts, label);
    if let Some(label) = labels.iter().find(|label| boots(label) == Some(false)) {
        return vec![Reason::NoImage(label.clone())];
    }
    let Some(facts) = view.facts else { return Vec::new() };
    let (none, needs) = (Resources::default(), needs(view, facts, request));
    let beyond = |limits: &Resources| limits.exceeded_by(&none, &needs).map(str::to_owned);
    let of_provider = if view.pool.ignore_provider_quota { None } else { beyond(&facts.limits) };
    of_provider.or_else(|| beyond(&view.pool.limits)).map(Reason::TooMuch).into_iter().collect()
}

#[cfg(test)]
mod tests;
