//! What the launcher's threads share: what is known and what is decided, under one lock that is held for moments only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nodepool_drivers::api::{PoolSettings, Resources};
use nodepool_threads::{Mutex, MutexGuard};

use super::board::Board;
use super::facts::ProviderFacts;
use super::ledger::{Ledger, Limits, Shortage, Ticket, Wanted};
use super::world::World;
use crate::config::{DiskImage, LauncherConfig};

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
    /// The disk images, which say how their nodes are logged into.
    pub(super) diskimages: BTreeMap<String, Arc<DiskImage>>,
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
    pub(super) fn configure(
        &mut self,
        config: &LauncherConfig,
        diskimages: &BTreeMap<String, Arc<DiskImage>>,
    ) {
        self.diskimages.clone_from(diskimages);
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

    /// Whether a pool has room for a node, whatever its provider has.
    pub(super) fn has_room_in_pool(&self, what: &RoomFor<'_>) -> bool {
        what.ask(&self.facts, |wanted, limits| {
            self.ledger.room(&self.world, wanted, &Limits { provider: None, ..*limits })
        })
        .is_ok()
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
