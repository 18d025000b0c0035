//! Which nodes the thread of a provider has deleted next.

use super::*;

impl Worker {
    /// Has nodes deleted that nobody has or that are too old, as far as there are workers for it.
    pub(super) fn order_deletions(&mut self) {
        let ages = self.has_ages() && Instant::now() >= self.next_ages;
        let mut orders = Vec::new();
        {
            let state = self.tools.shared.lock();
            let (world, config) = (&state.world, Arc::clone(&state.config));
            let rules = Rules { config: &config, now: now() };
            let mut look = |id: &str, node: &Node| {
                let is_ours =
                    node.launcher.as_ref().is_some_and(|id| self.tools.ids.values().any(|own| own == id));
                // The copy of the tree may show it without the lock that it has got meanwhile. What is over is not
                // waited for: its request may wait for the room that it takes.
                let over = matches!(node.state, NodeState::Aborted | NodeState::Failed);
                let busy = !over && node.allocated_to.as_ref().is_some_and(|id| self.active.contains_key(id));
                let (until, failures) =
                    self.put_off.get(id).map_or((None, 0), |(until, times)| (Some(*until), *times));
                let at = Instant::now();
                if node.provider != self.tools.name
                    || (is_ours && busy)
                    // Or in a state that it has not any more.
                    || state.ledger.is_claimed(id)
                    || self.deleting.contains_key(id)
                    || until.is_some_and(|until| until > at)
                {
                    return;
                }
                let gone = || {
                    let known = |launcher: &String| world.pools().any(|pool| pool.id == *launcher);
                    !is_ours && !node.launcher.as_ref().is_some_and(known)
                };
                if let Some(why) = garbage(node, &rules, gone) {
                    orders.push((failures, id.to_owned(), node.pool.clone(), why));
                }
            };
            for (id, node) in world.suspects() {
                look(id, node);
            }
            if ages {
                for (id, node) in world.nodes().iter().filter(|(_, node)| !node.locked) {
                    look(id, node);
                }
                self.next_ages = Instant::now() + AGE_ROUND;
            }
        }
        // What has failed before must hold up nothing that has not: each time it may take as long as a deletion can.
        orders.sort_by_key(|(failures, ..)| *failures);
        let has_failed = |node: &String| self.put_off.get(node).is_some_and(|(_, times)| *times > 0);
        let mut again = self.deleting.keys().filter(|node| has_failed(node)).count();
        for (failures, node, pool, why) in orders {
            if self.deleting.len() >= self.deleters.size() {
                break;
            }
            if self.deleting.contains_key(&node) || (failures > 0 && again >= self.deleters.size() / 2) {
                continue;
            }
            again += usize::from(failures > 0);
            self.order_deletion(node, Some(pool), What::Node(why));
        }
        self.order_leaked();
    }

    /// Has instances deleted that are no node's. Half of the workers are left to nodes.
    fn order_leaked(&mut self) {
        let now = Instant::now();
        let under_way = self.deleting.values().filter(|pool| pool.is_none()).count();
        let size = self.deleters.size();
        let room = (size / 2).saturating_sub(under_way).min(size.saturating_sub(self.deleting.len()));
        let is_due = |leaked: &&Leaked| {
            let put_off = self.put_off.get(&leaked.node).is_some_and(|(until, _)| *until > now);
            !put_off && !self.deleting.contains_key(&leaked.node)
        };
        let due: Vec<_> = self.leaked.iter().filter(is_due).take(room).cloned().collect();
        for Leaked { external_id, node } in due {
            // Of two that were made for one node the other one comes next.
            if !self.deleting.contains_key(&node) {
                self.order_deletion(node, None, What::Leaked(external_id));
            }
        }
    }

    fn order_deletion(&mut self, node: String, pool: Option<String>, what: What) {
        let deletion = Deletion { tools: Arc::clone(&self.tools), node: node.clone(), what };
        if self.deleters.submit(deletion).is_ok() {
            self.deleting.insert(node, pool);
        }
    }

    /// Has the oldest ready node deleted that nobody needs, for a node of this label that there is no room for: one of its
    /// pool, or of any pool if it is the provider that has no room. The original leaves those of other pools.
    pub(super) fn make_room(&mut self, pool: &str, label: &str) {
        // Nobody is there who could delete a node, or launch another one.
        if self.is_silent() {
            return;
        }
        let tools = Arc::clone(&self.tools);
        let Some(settings) = tools.pool(pool) else { return };
        let (among, found) = {
            let state = tools.shared.lock();
            let oldest = |among: &[&str]| {
                oldest_unused(&state.world, (&tools.name, among), now(), |id| state.ledger.is_claimed(id))
            };
            let room = RoomFor { provider: &tools.name, pool: settings, label, tenant: None };
            match oldest(&[pool]) {
                None if state.has_room_in_pool(&room) => {
                    let all: Vec<&str> = tools.pools().into_iter().map(|pool| pool.name.as_str()).collect();
                    let found = oldest(&all);
                    (all, found)
                }
                found => (vec![pool], found),
            }
        };
        // Of ours the copy may not have that they are being deleted.
        let making = self.deleting.iter().any(|(node, of)| {
            of.as_deref().is_some_and(|of| among.contains(&of)) && !self.put_off.contains_key(node)
        });
        if making {
            return;
        }
        if let Some(node) = found.filter(|node| !self.put_off.contains_key(node)) {
            self.order_deletion(node, Some(pool.to_owned()), What::Node(Why::MakeRoom));
        }
    }
}
