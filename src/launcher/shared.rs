//! What the launcher's threads share: what is known and what is decided, under one lock that is held for moments only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crossbeam_channel::Sender;
use nodepool_drivers::api::{PoolSettings, Provider, ProviderConfig, Resources};
use nodepool_threads::{Mutex, MutexGuard};
use slog::Logger;

use super::assign::ProviderFacts;
use super::board::Board;
use super::key_scan::KeyScan;
use super::ledger::{Ledger, Limits, Shortage, Ticket, Wanted};
use super::offer::Offer;
use super::standing::Keeper;
use super::world::World;
use crate::config::LauncherConfig;
use crate::stats::Stats;
use crate::zk::{Nodes, Requests};

/// The launch workers of a provider that does not say how many nodes may be launched at once.
pub(super) const DEFAULT_CONCURRENCY: usize = 40;
/// More threads than this would only be in each other's way.
pub(super) const MOST_CONCURRENCY: usize = 250;

/// The shared state.
pub(super) struct Shared(Mutex<State>);

/// What is known and decided.
#[derive(Default)]
pub(super) struct State {
    pub(super) world: World,
    pub(super) ledger: Ledger,
    /// What goes on, for others to see.
    pub(super) board: Board,
    /// Of each provider that has answered.
    pub(super) facts: BTreeMap<String, Arc<ProviderFacts>>,
    pub(super) config: Arc<LauncherConfig>,
    /// The limits of each tenant.
    pub(super) tenants: BTreeMap<String, Resources>,
    /// The ids of this launcher's pools.
    pub(super) own_pools: BTreeSet<String>,
    /// Whether the copies of the tree are complete: before that, what they lack means nothing.
    pub(super) complete: bool,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self(Mutex::new("launcher world", State::default()))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    /// Takes over what the configuration says.
    pub(super) fn configure(&mut self, config: &LauncherConfig) {
        self.tenants = config
            .tenant_limits
            .iter()
            .map(|(tenant, limits)| {
                let named = limits.iter().map(|(key, limit)| (resource_of(key).to_owned(), *limit));
                (tenant.clone(), named.collect())
            })
            .collect();
        self.config = Arc::new(config.clone());
    }

    /// Whether all pools of this launcher can be seen in the fleet.
    pub(super) fn own_pools_are_there(&self) -> bool {
        self.own_pools.iter().all(|id| self.world.pools().any(|pool| pool.id == *id))
    }

    /// What is known of a provider.
    pub(super) fn facts(&self, provider: &str) -> Option<Arc<ProviderFacts>> {
        self.facts.get(provider).cloned()
    }

    /// Takes room for a node, or says what it is short of.
    pub(super) fn reserve(&mut self, what: &RoomFor<'_>) -> Result<Ticket, Shortage> {
        let Self { world, ledger, facts, .. } = self;
        what.ask(facts, |wanted, limits| ledger.reserve(world, wanted, limits))
    }
}

/// A node that there may be room for.
pub(super) struct RoomFor<'a> {
    pub(super) provider: &'a str,
    pub(super) pool: &'a PoolSettings,
    pub(super) label: &'a str,
    pub(super) tenant: Option<&'a str>,
}

impl RoomFor<'_> {
    fn ask<T>(
        &self,
        facts: &BTreeMap<String, Arc<ProviderFacts>>,
        ask: impl FnOnce(&Wanted<'_>, &Limits<'_>) -> T,
    ) -> T {
        let facts = facts.get(self.provider).cloned().unwrap_or_default();
        let needs = facts.needs(&self.pool.name, self.label);
        let wanted =
            Wanted { provider: self.provider, pool: &self.pool.name, tenant: self.tenant, needs: &needs };
        let limits = Limits {
            provider: (!self.pool.ignore_provider_quota).then_some(&facts.limits),
            pool: &self.pool.limits,
        };
        ask(&wanted, &limits)
    }
}

/// The resource that a tenant's limit is of.
fn resource_of(key: &str) -> &str {
    match key {
        "max-servers" => Resources::INSTANCES,
        "max-cores" => "cores",
        "max-ram" => "ram",
        "max-volumes" => "volumes",
        "max-volume-gb" => "volume-gb",
        other => other,
    }
}

/// What the workers of a provider need for their work, as long as its configuration does not change.
pub(super) struct Tools {
    /// The provider's name.
    pub(super) name: String,
    pub(super) config: Arc<dyn ProviderConfig>,
    pub(super) provider: Arc<dyn Provider>,
    /// Has the nodes of its machines, if it has any instead of launching nodes.
    pub(super) keeper: Option<Arc<Keeper>>,
    pub(super) nodes: Nodes,
    pub(super) requests: Requests,
    pub(super) shared: Arc<Shared>,
    /// The ids of its pools by their names.
    pub(super) ids: BTreeMap<String, String>,
    pub(super) keys: Arc<dyn KeyScan>,
    pub(super) stats: Stats,
    /// Has the threads of all providers look again.
    pub(super) nudge: Sender<()>,
    pub(super) log: Logger,
}

impl Tools {
    /// A pool's settings.
    pub(super) fn pool(&self, name: &str) -> Option<&PoolSettings> {
        self.config.nodes()?.pools.get(name)
    }

    /// The pools in the order in which they may choose.
    pub(super) fn pools(&self) -> Vec<&PoolSettings> {
        let mut pools: Vec<_> =
            self.config.nodes().into_iter().flat_map(|nodes| nodes.pools.values()).collect();
        pools.sort_by_key(|pool| self.priority(pool));
        pools
    }

    /// What the machines of a pool have to give away; `None` at a provider that launches nodes.
    pub(super) fn offer(&self, state: &State, pool: &str) -> Option<Offer<'_>> {
        let machines = self.provider.machines()?.machines();
        let away = self.keeper.as_ref().map(|keeper| keeper.away()).unwrap_or_default();
        Some(Offer::of(&state.world, &state.ledger, (&self.name, pool), machines, &away))
    }

    /// Nobody is there at the provider: no launch is begun until it answers.
    pub(super) fn note_outage(&self) {
        if let Some(facts) = self.shared.lock().facts.get_mut(&self.name) {
            Arc::make_mut(facts).silent = true;
        }
        // There is room for one; a second would say nothing new.
        let _ = self.nudge.try_send(());
    }

    /// A pool's id.
    pub(super) fn id(&self, pool: &str) -> &str {
        self.ids.get(pool).map_or("", String::as_str)
    }

    /// A pool's priority: its own, its provider's, or 100.
    pub(super) fn priority(&self, pool: &PoolSettings) -> i64 {
        pool.priority.or(self.config.settings().priority).unwrap_or(100)
    }

    /// How many nodes may be launched at once.
    pub(super) fn concurrency(&self) -> usize {
        let configured = self.config.settings().max_concurrency;
        configured.map_or(DEFAULT_CONCURRENCY, |number| {
            usize::try_from(number).map_or(MOST_CONCURRENCY, |number| number.min(MOST_CONCURRENCY))
        })
    }
}
