//! What others may see of a running launcher; the status pages look through it.
//!
//! A [`Window`] asks the launcher thread, which answers within a moment because it makes no call that could block, and
//! reads copies of the trees. Nothing is prepared for anybody: a question that nobody asks costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::Sender;
use nodepool_drivers::api::{PoolSettings, Resources};

use super::board::Goings;
use super::facts::label_ready;
use super::manager::{Launcher, Trees};
use super::shared::State;
use super::standing::Away;
use super::tools::Tools;
use crate::config::{Config, Refused, WebApp};
use crate::zk::TreeReader;

/// Where an answer is wanted.
pub(super) type Question = Sender<Box<View>>;

/// The launcher as others see it.
pub type Window = crate::window::Window<View, WebApp, Copies>;

/// The copies of ZooKeeper's trees.
#[derive(Clone)]
pub struct Copies {
    /// The one of nodes.
    pub nodes: TreeReader,
    /// The one of requests.
    pub requests: TreeReader,
    /// The one of pools.
    pub pools: TreeReader,
    /// The one of images.
    pub images: TreeReader,
}

impl Copies {
    pub(super) fn of(trees: &Trees) -> Self {
        Self {
            nodes: trees.nodes.reader(),
            requests: trees.requests.reader(),
            pools: trees.pools.reader(),
            images: trees.images.reader(),
        }
    }
}

/// What the launcher knows at one moment, besides what is in the trees.
#[derive(Debug)]
pub struct View {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Whether the copies of ZooKeeper's trees are complete.
    pub tree_complete: bool,
    /// Whether the launcher and its pools are registered in the fleet.
    pub registered: bool,
    /// Whether it reports the statistics of the fleet.
    pub leads: bool,
    /// The providers that are open, by name.
    pub providers: Vec<ProviderView>,
    /// The tenants that have limits, by name.
    pub tenants: Vec<(String, Room)>,
    /// What goes on.
    pub goings: Goings,
    /// Whether the configuration files are refused as they are.
    pub refused: Option<Refused>,
}

/// What is used of what there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What nodes need, those that are to come as well.
    pub used: Resources,
    /// What they may need. What is absent has no limit.
    pub limits: Resources,
}

/// A provider.
#[derive(Debug)]
pub struct ProviderView {
    /// Its name.
    pub name: String,
    /// Whether it has said how it stands.
    pub answered: bool,
    /// How many nodes may be launched at once.
    pub concurrency: usize,
    /// Its room, as it says itself.
    pub room: Room,
    /// Its pools, in the order in which they may choose.
    pub pools: Vec<PoolView>,
    /// Those of its machines that cannot be used, by what they do instead.
    pub away: BTreeMap<&'static str, Vec<String>>,
}

/// A pool.
#[derive(Debug)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The labels that it has nodes of.
    pub labels: Vec<String>,
    /// Its room, as configured.
    pub room: Room,
    /// Whether a request waits for room in it.
    pub paused: bool,
    /// Those of its labels that cannot be launched: what they boot from is not at the provider.
    pub bare: Vec<String>,
}

impl Launcher {
    /// How it stands. The lock is held for as long as the sums take, which are kept by provider and pool.
    pub(super) fn view(&self) -> View {
        let state = self.shared.lock();
        let providers: Vec<_> = self.open_providers().map(|tools| provider(&state, tools)).collect();
        let tenant = |(name, limits): (&String, &Resources)| {
            let used = state.ledger.used_by_tenant(&state.world, name);
            (name.clone(), Room { used, limits: limits.clone() })
        };
        View {
            config: Arc::clone(&self.config),
            tree_complete: state.complete,
            registered: state.own_pools_are_there() && self.membership.is_registered(),
            leads: self.leads(),
            tenants: state.tenants.iter().map(tenant).collect(),
            goings: state.board.copy(),
            refused: self.reload.refused(),
            providers,
        }
    }
}

fn provider(state: &State, tools: &Tools) -> ProviderView {
    let facts = state.facts(&tools.name);
    let used = |pool: Option<&str>| state.ledger.used(&state.world, &tools.name, pool);
    let bare = |pool: &PoolSettings| {
        let (Some(facts), None) = (&facts, &tools.keeper) else { return Vec::new() };
        let is_bare =
            |label: &&String| label_ready(&state.world, &tools.name, pool, Some(facts), label) == Some(false);
        pool.labels.keys().filter(is_bare).cloned().collect()
    };
    let pool = |pool: &PoolSettings| {
        let id = tools.id(&pool.name).to_owned();
        PoolView {
            name: pool.name.clone(),
            labels: pool.labels.keys().cloned().collect(),
            room: Room { used: used(Some(&pool.name)), limits: pool.limits.clone() },
            bare: bare(pool),
            paused: state.world.pools().any(|there| there.id == id && there.paused),
            id,
        }
    };
    ProviderView {
        name: tools.name.clone(),
        answered: facts.is_some(),
        concurrency: tools.concurrency(),
        room: Room {
            used: used(None),
            limits: facts.as_ref().map(|facts| facts.limits.clone()).unwrap_or_default(),
        },
        pools: tools.pools().into_iter().map(pool).collect(),
        away: tools.keeper.as_ref().map(|keeper| by_reason(keeper.away())).unwrap_or_default(),
    }
}

fn by_reason(away: Away) -> BTreeMap<&'static str, Vec<String>> {
    let mut by_reason: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (machine, what) in away {
        by_reason.entry(what).or_default().push(machine.to_string());
    }
    by_reason
}
