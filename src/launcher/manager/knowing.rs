//! How the launcher keeps its knowledge of the fleet: what has changed in the copies of the tree is decoded anew.

use super::*;

impl Launcher {
    /// The names that have changed. All of them, if the copy has just become complete.
    pub(super) fn names(&mut self, changes: Changes, kind: Kind) -> BTreeSet<String> {
        match changes {
            Changes::Below(names) => names,
            Changes::All => {
                self.own.complete.insert(kind);
                let mut names = self.shared.lock().world.names(kind);
                self.trees.of(kind).look(|root| names.extend(root.children.names().map(str::to_owned)));
                names
            }
        }
    }

    pub(super) fn update(&mut self, update: impl FnOnce(&mut State)) {
        let mut state = self.shared.lock();
        update(&mut state);
        state.complete = self.own.complete.len() == Kind::ALL.len();
        if self.own.leads && state.complete && self.own.stats_due.is_none() {
            self.own.stats_due = Some(Instant::now() + STATS_ROUND);
        }
    }

    pub(super) fn tell_damage(&mut self, path: &str, why: String) {
        if self.own.damaged.insert((path.to_owned(), why.clone())) {
            warn!(self.log, "a damaged record is left alone"; "path" => path, "reason" => why);
        }
    }

    pub(super) fn note_nodes(&mut self, changes: Changes) {
        let all = changes == Changes::All;
        let names = self.names(changes, Kind::Nodes);
        let keepers = &self.own.keepers;
        let (mut found, mut kept, mut damage) = (Vec::new(), BTreeMap::new(), Vec::new());
        // Only what is needed of a record outlives its turn: whole ones of thousands of nodes would be many megabytes.
        self.trees.nodes.look(|root| {
            for id in &names {
                let there = root.children.get(id);
                let node = match there.and_then(|node| Some((decode_node(id, node)?, node.version))) {
                    Some((Ok(listed), version)) => {
                        let node = Node::of(&listed, version);
                        if keepers.contains_key(&node.provider) {
                            kept.insert(id, listed);
                        }
                        Some(node)
                    }
                    Some((Err(error), _)) => {
                        damage.push((id.clone(), error.to_string()));
                        None
                    }
                    None => None,
                };
                found.push((node, there.is_some_and(|node| node.data.is_empty())));
            }
        });
        self.tell_keepers(all, names.iter().map(|id| (id, kept.get(id))));
        self.update(|state| {
            for (id, (node, empty)) in names.iter().zip(found) {
                state.world.set_node(id, node, empty);
            }
        });
        damage.into_iter().for_each(|(id, why)| self.tell_damage(&format!("{}/{id}", crate::zk::NODES), why));
    }

    pub(super) fn note_requests(&mut self, changes: Changes) {
        let names = self.names(changes, Kind::Requests);
        let found = self.trees.requests.look(|root| {
            let read = |id: &String| root.children.get(id).map(|node| decode_request(id, node));
            names.iter().map(read).collect::<Vec<_>>()
        });
        let mut damage = Vec::new();
        self.update(|state| {
            for (id, found) in names.iter().zip(found) {
                let request = match found {
                    Some(Err(error)) => {
                        damage.push((id.clone(), error.to_string()));
                        None
                    }
                    Some(Ok(request)) => Some(request),
                    None => None,
                };
                state.world.set_request(id, request);
            }
        });
        damage
            .into_iter()
            .for_each(|(id, why)| self.tell_damage(&format!("{}/{id}", crate::zk::REQUESTS), why));
        self.collect_stock();
    }

    pub(super) fn note_pools(&mut self, changes: Changes) {
        let names = self.names(changes, Kind::Pools);
        let found = self.trees.pools.look(|root| {
            let read = |name: &String| root.children.get(name).map(decode_pool);
            names.iter().map(read).collect::<Vec<_>>()
        });
        let mut lost_one = false;
        let mut damage = Vec::new();
        self.update(|state| {
            for (name, found) in names.iter().zip(found) {
                lost_one |= found.is_none();
                let pool = match found {
                    Some(Err(error)) => {
                        damage.push((name.clone(), error.to_string()));
                        None
                    }
                    Some(Ok(pool)) => Some(pool),
                    None => None,
                };
                state.world.set_pool(name, pool);
            }
        });
        damage
            .into_iter()
            .for_each(|(name, why)| self.tell_damage(&format!("{}/{name}", crate::zk::POOLS), why));
        if lost_one {
            self.look_for_lost_requests();
        }
    }

    pub(super) fn note_images(&mut self, changes: Changes) {
        let names = self.names(changes, Kind::Images);
        let mut damage = Vec::new();
        let mut note =
            |path: &str, error: &crate::model::RecordError| damage.push((path.to_owned(), error.to_string()));
        let found = self.trees.images.look(|root| {
            let mut images = Vec::new();
            for name in &names {
                images.push(root.children.get(name).map(|node| decode_image(name, node, &mut note)));
            }
            images
        });
        self.update(|state| {
            for (name, image) in names.iter().zip(found) {
                state.world.set_image(name, image.as_ref());
            }
        });
        damage.into_iter().for_each(|(path, why)| self.tell_damage(&path, why));
    }

    pub(super) fn note_session(&mut self) {
        let status = self.session.status();
        if self.own.generation.is_some_and(|known| known < status.generation) {
            warn!(self.log, "the ZooKeeper session was lost: running work is thrown away");
            // Our requests went with it.
            self.own.made.clear();
            self.own.next_round = None;
        }
        self.own.generation = Some(status.generation);
        if !status.is_connected() {
            // With the next connection all nodes are read anew.
            self.own.keepers.values().for_each(|keeper| keeper.lost_sight());
        }
    }
}
