//! The keepers of machines: one for each provider that has any, told of the nodes that it has.

use nodepool_drivers::api::Machine;

use super::*;
use crate::launcher::errands::is_forgotten;
use crate::launcher::standing::Keeper;
use crate::zk::{ListedNode, Node as TreeNode, PoolDescription};

impl Launcher {
    /// The keeper of a provider's machines, which it is told of.
    pub(super) fn keeper(&mut self, provider: &str, machines: &[Machine]) -> Result<Arc<Keeper>, String> {
        self.own.departed.remove(provider);
        // One that has ended is replaced: it stands there until then, so that its nodes are not taken for nobody's.
        if let Some(keeper) = self.own.keepers.get(provider).filter(|keeper| !keeper.is_over()) {
            keeper.configure(machines);
            return Ok(Arc::clone(keeper));
        }
        let keeper = Keeper::start(provider, machines, &self.nodes, &self.nudge, &self.log)
            .map_err(|error| format!("its threads cannot be started: {error}"))?;
        let keeper = Arc::new(keeper);
        if self.own.complete.contains(&Kind::Nodes) && self.session.status().is_connected() {
            let read = |root: &TreeNode| {
                let nodes = root.children.iter().filter_map(|(id, node)| decode_node(id, node)?.ok());
                nodes.filter(|node| is_of(node, provider)).collect::<Vec<_>>()
            };
            keeper.saw_all(self.trees.nodes.look(read));
        }
        self.own.keepers.insert(provider.to_owned(), Arc::clone(&keeper));
        Ok(keeper)
    }

    /// A provider has no machines any more, or is not configured: its free nodes are nobody's.
    pub(super) fn depart(&mut self, provider: &str) {
        if let Some(keeper) = self.own.keepers.remove(provider) {
            keeper.stop();
            self.own.leaving.push((provider.to_owned(), keeper));
            self.own.departed.insert(provider.to_owned());
        }
    }

    /// Tells the keepers of nodes that have changed: all that there are, or those that are named.
    pub(super) fn tell_keepers<'n>(
        &self,
        all: bool,
        nodes: impl Iterator<Item = (&'n String, Option<&'n ListedNode>)> + Clone,
    ) {
        for (provider, keeper) in &self.own.keepers {
            let own = |node: Option<&'n ListedNode>| node.filter(|node| is_of(node, provider)).cloned();
            if all {
                keeper.saw_all(nodes.clone().filter_map(|(_, node)| own(node)));
            } else {
                nodes.clone().for_each(|(id, node)| keeper.saw(id, own(node)));
            }
        }
    }

    /// Has the nodes deleted that machines have left which this launcher has no more: free ones, and those that have
    /// been used. Where another launcher has the provider, they are its own.
    pub(super) fn clear_departed(&mut self) {
        let Own { departed, workers, keepers, .. } = &self.own;
        // Also those that machines had left before this launcher was started.
        let without_machines = |provider: &str| {
            departed.contains(provider) || (workers.contains_key(provider) && !keepers.contains_key(provider))
        };
        let nodes: Vec<(String, String)> = {
            let state = self.shared.lock();
            // Our own pools of that name are of another driver by now.
            let is_ours = |pool: &PoolDescription| self.own.ids.values().any(|id| *id == pool.id);
            let elsewhere = |provider: &str| {
                state.world.pools().any(|pool| pool.provider_name == provider && !is_ours(pool))
            };
            let gone = |node: &Node| {
                !node.locked
                    && without_machines(&node.provider)
                    && is_forgotten(node.state, node.allocated_to.is_some())
                    && !elsewhere(&node.provider)
            };
            let found = state.world.standing().filter(|(_, node)| gone(node));
            found.map(|(id, node)| (id.to_owned(), node.provider.clone())).collect()
        };
        for (node, provider) in nodes {
            self.order(What::Forget { node, provider });
        }
    }

    /// Lets go of keepers that have ended.
    pub(super) fn bury_keepers(&mut self) {
        let before = self.own.leaving.len();
        self.own.leaving.retain(|(_, keeper)| !keeper.is_over());
        if self.own.leaving.len() < before {
            self.follow_config();
        }
    }
}

fn is_of(node: &ListedNode, provider: &str) -> bool {
    node.record.provider.as_deref() == Some(provider)
}
