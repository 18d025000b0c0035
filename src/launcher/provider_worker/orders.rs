//! What the thread of a provider has done next.

use super::*;

impl Worker {
    /// Forgets what was noted about requests and nodes that can be told from the copy of the tree by now.
    pub(super) fn forget(&mut self) {
        let mut state = self.tools.shared.lock();
        let State { world, ledger, board, .. } = &mut *state;
        ledger.forget(world);
        let at = Instant::now();
        self.known.retain(|id, (version, until)| {
            let is_newer = |there: i32| version.is_none_or(|version| there >= version);
            let request = world.requests().get(id);
            *until > at && request.is_some_and(|there| version.is_none() || !is_newer(there.version))
        });
        self.put_off
            .retain(|id, (until, times)| world.nodes().contains_key(id) && (*until > at || *times > 0));
        board.keep_stuck(&self.tools.name, |id| world.nodes().contains_key(id));
    }

    /// Gives the requests that we have and that wait with us their next piece of work.
    pub(super) fn tend(&mut self) {
        let mut idle: Vec<_> = self
            .active
            .iter()
            .filter(|(_, active)| active.out == 0)
            .filter_map(|(id, active)| Some((active.handler.as_ref()?.request.rank(), id)))
            .collect();
        idle.sort();
        let idle: Vec<String> = idle.into_iter().map(|(_, id)| id.clone()).collect();
        for id in idle {
            let Some(active) = self.active.get_mut(&id) else { continue };
            let Some(handler) = &mut active.handler else { continue };
            let gone = !self.tools.shared.lock().world.requests().contains_key(&id);
            let next: fn(Box<Handler>) -> Task = if gone && active.waiting {
                Task::Withdraw
            } else if !active.waiting {
                Task::Conclude
            } else if active.not_before.is_none_or(|at| at <= Instant::now()) && handler.allot() {
                Task::Pursue
            } else if handler.wants_ready_ones() {
                Task::GiveBack
            } else if handler.is_for_stock() {
                Task::Leave
            } else {
                let pool = active.pool.clone();
                self.make_room(&pool);
                continue;
            };
            active.not_before = None;
            if let Some(handler) = active.handler.take() {
                let cancel = Arc::clone(&active.cancel);
                active.out += 1;
                let task = next(handler);
                let launches = task.may_launch();
                self.backlog.push_back(Work { request: id, task, cancel, launches });
            }
        }
    }

    /// Has the oldest ready node of a pool deleted that nobody needs.
    pub(super) fn make_room(&mut self, pool: &str) {
        let found = {
            let state = self.tools.shared.lock();
            oldest_unused(&state.world, (&self.tools.name, pool), now(), |id| state.ledger.is_claimed(id))
        };
        // Of ours the copy may not have that they are being deleted.
        let making =
            self.deleting.iter().any(|(node, other)| other == pool && !self.put_off.contains_key(node));
        if making {
            return;
        }
        if let Some(node) = found.filter(|node| !self.put_off.contains_key(node)) {
            self.order_deletion(node, pool.to_owned(), Why::MakeRoom);
        }
    }

    /// Hands the backlog to the workers, as far as they have room.
    pub(super) fn hand_out(&mut self) {
        let concurrency = self.tools.concurrency();
        let mut left = VecDeque::new();
        while let Some(work) = self.backlog.pop_front() {
            let full = self.running >= self.crew.size() || (work.launches && self.launching >= concurrency);
            if full {
                left.push_back(work);
                continue;
            }
            let launches = work.launches;
            match self.crew.submit(work) {
                Ok(()) => {
                    self.running += 1;
                    self.launching += usize::from(launches);
                }
                Err(work) => left.push_back(work),
            }
        }
        self.backlog = left;
    }

    /// Takes and declines requests.
    pub(super) fn take_requests(&mut self) {
        let full_look = Instant::now() >= self.next_full_look;
        if full_look {
            self.next_full_look = Instant::now() + FULL_LOOK;
        }
        if !self.backlog.is_empty() && self.running >= self.crew.size() {
            return;
        }
        let room = self.crew.size().saturating_sub(self.running + self.backlog.len());
        // Most of them can be taken, and for the others there is the full look.
        let look_at = if full_look { usize::MAX } else { 2 * room + 16 };
        let mut orders: Vec<(String, Task, String)> = Vec::new();
        let mut chosen = BTreeSet::new();
        let pools: Vec<_> =
            self.tools.pools().into_iter().map(|pool| (pool, self.is_paused(&pool.name))).collect();
        {
            let mut state = self.tools.shared.lock();
            let facts = state.facts(&self.tools.name);
            let is_new = |id: &String| !self.active.contains_key(id) && !self.known.contains_key(id);
            let ids = state.world.requested().map(|request| &request.id);
            let ids: Vec<String> = ids.filter(|id| is_new(id)).take(look_at).cloned().collect();
            self.looked_at_all = ids.len() < look_at;
            let mut launching = self.launching + self.backlog.iter().filter(|work| work.launches).count();
            'pools: for (pool, mut paused) in pools {
                let mut offer = self.tools.offer(&state, &pool.name);
                for id in &ids {
                    if orders.len() >= room {
                        break 'pools;
                    }
                    let Some(request) = state.world.requests().get(id).filter(|_| !chosen.contains(id))
                    else {
                        continue;
                    };
                    let view = View {
                        world: &state.world,
                        ledger: &state.ledger,
                        provider: &self.tools.name,
                        pool,
                        id: self.tools.id(&pool.name),
                        priority: self.tools.priority(pool),
                        offer: offer.as_ref(),
                        facts: facts.as_deref(),
                        tenants: &state.tenants,
                        concurrency: self.tools.concurrency(),
                        launching,
                        paused,
                    };
                    let (tools, name) = (Arc::clone(&self.tools), pool.name.clone());
                    let task = match verdict(&view, request) {
                        Verdict::Take => {
                            let request = request.clone();
                            let wanted = request.record.node_types.len();
                            let allotted = match &mut offer {
                                Some(offer) => {
                                    let slots: Vec<usize> = (0..wanted).collect();
                                    allot_offered(&mut state, &tools, offer, &request.record, &slots)
                                }
                                None => allot(&mut state, &tools, pool, &request.record, 0..wanted, None),
                            };
                            // Who comes next must not have the room that this one waits for.
                            paused |= allotted.len() < wanted;
                            launching += 1;
                            let promise = Promise::new(&mut state, &tools, pool, &request, &allotted);
                            Task::Take { tools, pool: name, allotted, promise }
                        }
                        Verdict::Wait(Wait::Machines) => {
                            if let Some(offer) = &mut offer {
                                let labels = &request.record.node_types;
                                offer.set_aside(labels, &state.world, &tools.name, &name);
                            }
                            continue;
                        }
                        Verdict::Decline(reasons) => Task::Decline { tools, pool: name, reasons },
                        Verdict::Wait(Wait::Paused | Wait::Concurrency) if !full_look => {
                            self.looked_at_all = false;
                            break;
                        }
                        Verdict::Wait(_) | Verdict::Leave(_) | Verdict::Nothing => continue,
                    };
                    chosen.insert(id.clone());
                    orders.push((id.clone(), task, pool.name.clone()));
                }
            }
        }
        for (request, task, pool) in orders {
            let cancel = Arc::new(StopSource::new());
            let active = Active {
                pool,
                handler: None,
                out: 1,
                waiting: false,
                not_before: None,
                generation: self.generation,
                cancel: Arc::clone(&cancel),
            };
            self.active.insert(request.clone(), active);
            let launches = task.may_launch();
            self.backlog.push_back(Work { request, task, cancel, launches });
        }
    }

    /// Whether a request waits for room in a pool.
    pub(super) fn is_paused(&self, pool: &str) -> bool {
        // One that machines have too few nodes for is given back at once.
        let may_wait = self.tools.provider.machines().is_none();
        may_wait && self.active.values().any(|active| active.waiting && active.pool == pool)
    }

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
                let at = Instant::now();
                if node.provider != self.tools.name
                    || (is_ours && busy)
                    // Or in a state that it has not any more.
                    || state.ledger.is_claimed(id)
                    || self.deleting.contains_key(id)
                    || self.put_off.get(id).is_some_and(|(until, _)| *until > at)
                {
                    return;
                }
                let gone = || {
                    let known = |launcher: &String| world.pools().any(|pool| pool.id == *launcher);
                    !is_ours && !node.launcher.as_ref().is_some_and(known)
                };
                if let Some(why) = garbage(node, &rules, gone) {
                    orders.push((id.to_owned(), node.pool.clone(), why));
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
        for (node, pool, why) in orders {
            if self.deleting.len() >= self.deleters.size() {
                break;
            }
            if !self.deleting.contains_key(&node) {
                self.order_deletion(node, pool, why);
            }
        }
    }

    pub(super) fn order_deletion(&mut self, node: String, pool: String, why: Why) {
        let deletion = Deletion { tools: Arc::clone(&self.tools), node: node.clone(), why };
        if self.deleters.submit(deletion).is_ok() {
            self.deleting.insert(node, pool);
        }
    }

    /// Says in the fleet which pools there are, and which are paused.
    pub(super) fn announce(&self) {
        for pool in self.tools.pools() {
            let entry = PoolDescription {
                id: self.tools.id(&pool.name).to_owned(),
                name: Some(pool.name.clone()),
                provider_name: self.tools.name.clone(),
                supported_labels: pool.labels.keys().cloned().collect(),
                priority: self.tools.priority(pool),
                paused: self.is_paused(&pool.name),
            };
            self.membership.set(
                &entry_key(&self.tools.name, &pool.name),
                Some(Description::pool(entry, &self.hostname)),
            );
        }
    }
}
