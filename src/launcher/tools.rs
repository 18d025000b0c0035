//! What the work for one provider is done with.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::Sender;
use nodepool_drivers::api::{PoolSettings, Provider, ProviderConfig};
use slog::Logger;

use super::offer::Offer;
use super::shared::{Shared, State};
use super::standing::Keeper;
use crate::stats::Stats;
use crate::zk::{Nodes, Requests};

/// How many nodes of a provider may be launched at once, at most: each has a worker, which waits nearly all the time, but
/// more of them would only be in each other's way.
pub(super) const MOST_CONCURRENCY: usize = 250;
/// The same where the configuration does not say. More would be a little faster and need more memory: what a burst leaves
/// behind in the allocator grows with the threads that were in it.
const DEFAULT_CONCURRENCY: usize = 64;

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
        let number = configured.and_then(|number| usize::try_from(number).ok());
        number.map_or(DEFAULT_CONCURRENCY, |number| number.min(MOST_CONCURRENCY))
    }
}

#[cfg(test)]
pub(super) mod testing {
    use nodepool_drivers::api::{Problems, ProviderConfig, Table, Value};

    use super::*;

    /// What a section says of a fake provider.
    pub(in crate::launcher) fn fake(section: serde_json::Value) -> Arc<dyn ProviderConfig> {
        let section: Value = serde_json::from_value(section).unwrap();
        let driver = nodepool_drivers::drivers().iter().find(|driver| driver.name() == "fake").unwrap();
        driver.configure(&Table::new(&section, "providers[0]", &Problems::new()).unwrap()).unwrap()
    }
}
