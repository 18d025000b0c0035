//! What the launcher's threads share: what is known and what is decided, under one lock that is held for moments only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use nodepool_drivers::api::{PoolSettings, Resources};
use nodepool_threads::{Mutex, MutexGuard};

use super::board::Board;
use super::facts::ProviderFacts;
use super::ledger::{LAG, Ledger, Limits, Shortage, Ticket, Wanted};
use super::world::World;
use crate::config::{DiskImage, LauncherConfig};
use crate::model::RequestState;

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
    /// The requests whose service has come to nothing, and since when: they may say that they are being served, while
    /// nobody does.
    pub(super) abandoned: BTreeMap<String, Instant>,
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
    /// The abandoned requests that still say that they are being served.
    pub(super) fn abandoned(&mut self) -> Vec<String> {
        let Self { world, abandoned, .. } = self;
        let is_pending = |id: &String| {
            world.requests().get(id).is_some_and(|request| request.record.state == RequestState::Pending)
        };
        abandoned.retain(|id, since| since.elapsed() < LAG || is_pending(id));
        abandoned.keys().filter(|id| is_pending(id)).cloned().collect()
    }

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::launcher::world::testing::request;

    #[test]
    fn what_is_abandoned_is_so_as_long_as_its_record_says_that_it_is_served() {
        let mut state = State::default();
        let id = "200-0000000001";
        let since = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        state.abandoned.insert(id.to_owned(), since(0));
        // The copy of the tree may be behind.
        assert_eq!(state.abandoned(), [""; 0]);
        state.world.set_request(id, Some(request(id, json!({"state": "pending"}))));
        assert_eq!(state.abandoned(), [id]);
        state.abandoned.insert(id.to_owned(), since(60));
        assert_eq!(state.abandoned(), [id]);
        state.world.set_request(id, Some(request(id, json!({"state": "requested"}))));
        assert_eq!(state.abandoned(), [""; 0]);
        assert!(state.abandoned.is_empty());
    }
}
