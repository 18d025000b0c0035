//! What the thread of a provider has done next.

use nodepool_drivers::api::PoolSettings;

use super::*;
use crate::launcher::launch::Launch;
use crate::model::NodeRequest;

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
        let leaked: BTreeSet<_> = self.leaked.iter().map(|leaked| leaked.node.as_str()).collect();
        let is_there = |id: &str| world.nodes().contains_key(id) || leaked.contains(id);
        self.put_off.retain(|id, (until, times)| is_there(id) && (*until > at || *times > 0));
        board.keep_stuck(&self.tools.name, is_there);
    }

    /// Gives the requests that we have and that wait with us their next piece of work. Who has a part of its nodes comes
    /// first: two that have a part each would wait for each other.
    pub(super) fn tend(&mut self) {
        let mut open: Vec<_> = self
            .active
            .iter()
            .filter(|(_, active)| active.out == 0 || active.waiting)
            .filter_map(|(id, active)| {
                let handler = active.handler.as_ref()?;
                Some((!handler.has_nodes(), handler.request.rank(), id))
            })
            .collect();
        open.sort();
        let open: Vec<String> = open.into_iter().map(|(.., id)| id.clone()).collect();
        for id in open {
            if self.active.get(&id).is_some_and(|active| active.out > 0) {
                self.launch_more(&id);
            } else {
                self.tend_idle(id);
            }
        }
        self.break_stalemate();
    }

    fn tend_idle(&mut self, id: String) {
        let Some(active) = self.active.get_mut(&id) else { return };
        let (waiting, due) = (active.waiting, active.is_due());
        let Some(handler) = active.handler.take() else { return };
        let task = if waiting { self.task_for_waiting(handler, due) } else { Ok(Task::Conclude(handler)) };
        let Some(active) = self.active.get_mut(&id) else { return };
        match task {
            Ok(task) => {
                active.not_before = None;
                active.out += 1;
                self.backlog.push_back(Work::new(id, task, &active.cancel));
            }
            Err(handler) => {
                let wanted = handler.wanted();
                active.handler = Some(handler);
                self.make_room_for(wanted);
            }
        }
    }

    /// Has launched what there is room for by now, for a request of which other nodes are being launched.
    fn launch_more(&mut self, id: &str) {
        if !self.tools.shared.lock().world.requests().contains_key(id) {
            return;
        }
        let Some(active) = self.active.get_mut(id).filter(|active| active.is_due()) else { return };
        let Some(handler) = &mut active.handler else { return };
        if !handler.follow(&self.tools) {
            return;
        }
        let launches = handler.launch_more();
        let wanted = handler.wanted();
        active.waiting = wanted.is_some();
        self.begin_launches(id, launches);
        self.make_room_for(wanted);
    }

    fn make_room_for(&mut self, wanted: Option<(String, String)>) {
        if let Some((pool, label)) = wanted {
            self.make_room(&pool, &label);
        }
    }

    /// Adds launches for a request to the backlog.
    pub(super) fn begin_launches(&mut self, id: &str, launches: Vec<Launch>) {
        let Some(active) = self.active.get_mut(id) else { return };
        active.out += launches.len();
        let work = |launch| Work::new(id.to_owned(), Task::Launch(Box::new(launch)), &active.cancel);
        self.backlog.extend(launches.into_iter().map(work));
    }

    /// When nothing goes on because requests that wait for room hold a part of their nodes each, the last of them gives
    /// its own back: they would wait for each other for ever, as they do in the original.
    fn break_stalemate(&mut self) {
        let waits = |active: &Active| active.out == 0 && active.waiting;
        if !self.deleting.is_empty() || self.active.len() < 2 || !self.active.values().all(waits) {
            return;
        }
        let holding = self.active.iter().filter_map(|(id, active)| {
            let handler = active.handler.as_ref().filter(|handler| handler.has_nodes())?;
            Some((handler.request.rank(), id))
        });
        let mut holding: Vec<_> = holding.collect();
        holding.sort();
        let Some(id) = holding.last().filter(|_| holding.len() > 1).map(|(_, id)| (*id).clone()) else {
            return;
        };
        let are_refused = self.active.values().all(|active| active.not_before.is_some());
        if !are_refused && !self.have_all_nodes() {
            return;
        }
        let Some(active) = self.active.get_mut(&id) else { return };
        let Some(handler) = active.handler.take() else { return };
        info!(self.log, "the node request gives way to those before it"; "request" => &id);
        active.out += 1;
        active.gives_way = true;
        self.backlog.push_back(Work::new(id, Task::GiveBack(handler), &active.cancel));
    }

    /// Whether all nodes that there are at the provider are those of the requests that we have: no other one will leave room.
    fn have_all_nodes(&self) -> bool {
        let state = self.tools.shared.lock();
        let mut nodes = state.world.nodes().values().filter(|node| node.provider == self.tools.name);
        nodes.all(|node| node.allocated_to.as_ref().is_some_and(|id| self.active.contains_key(id)))
    }

    /// What is to be done for a request that waits for room with us, or its handler back if nothing is. As
    /// configuration and provider are now, it may find room, or be one that the pool would not take.
    fn task_for_waiting(&self, mut handler: Box<Handler>, due: bool) -> Result<Task, Box<Handler>> {
        if !self.tools.shared.lock().world.requests().contains_key(&handler.request.id) {
            return Ok(Task::Withdraw(handler));
        }
        if !handler.follow(&self.tools) {
            return Ok(Task::GiveBack(handler));
        }
        let reasons = self.objections_to(&handler);
        if !reasons.is_empty() {
            return Ok(Task::Leave(handler, reasons));
        }
        if due && handler.allot() {
            return Ok(Task::Pursue(handler));
        }
        // Or nobody is there who could launch a node, while others may serve it.
        if handler.wants_ready_ones() || self.is_silent() {
            return Ok(Task::GiveBack(handler));
        }
        if handler.is_for_stock() {
            return Ok(Task::Leave(handler, vec![Reason::NoRoom]));
        }
        Err(handler)
    }

    fn objections_to(&self, handler: &Handler) -> Vec<Reason> {
        let state = self.tools.shared.lock();
        let Some(pool) = self.tools.pool(&handler.pool) else { return Vec::new() };
        let (facts, offer) = (state.facts(&self.tools.name), self.tools.offer(&state, &pool.name));
        let view = view(&self.tools, &state, pool, offer.as_ref(), facts.as_deref());
        objections(&view, &handler.request)
    }

    /// Hands the backlog to the workers, as far as they have room.
    pub(super) fn hand_out(&mut self) {
        let concurrency = self.tools.concurrency();
        let mut left = VecDeque::new();
        while let Some(work) = self.backlog.pop_front() {
            let full = self.running >= self.most_work() || (work.launches && self.launching >= concurrency);
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
        if !self.backlog.is_empty() && self.running >= self.most_work() {
            return;
        }
        for (request, pool, task) in self.new_tasks(full_look) {
            self.begin(request, pool, task);
        }
    }

    /// What is to be done about requests that are new, with the pools that do it. No task may be dropped while the
    /// state is locked: what it was given would be given back to it.
    fn new_tasks(&mut self, full_look: bool) -> Vec<(String, String, Task)> {
        let room = self.most_work().saturating_sub(self.running + self.backlog.len());
        // Most of them can be taken, and for the others there is the full look.
        let look_at = if full_look { usize::MAX } else { 2 * room + 16 };
        let mut tasks: Vec<(String, String, Task)> = Vec::new();
        let mut chosen = BTreeSet::new();
        let tools = Arc::clone(&self.tools);
        let pools: Vec<_> =
            tools.pools().into_iter().map(|pool| (pool, self.is_paused(&pool.name))).collect();
        let mut launching = self.launching + self.backlog.iter().filter(|work| work.launches).count();
        let mut state = tools.shared.lock();
        let (facts, settled) = (state.facts(&tools.name), state.own_pools_are_there());
        let is_new = |id: &String| !self.active.contains_key(id) && !self.known.contains_key(id);
        let ids = state.world.requested().map(|request| &request.id);
        let ids: Vec<String> = ids.filter(|id| is_new(id)).take(look_at).cloned().collect();
        self.looked_at_all = ids.len() < look_at;
        for (pool, mut paused) in pools {
            let mut offer = tools.offer(&state, &pool.name);
            for id in &ids {
                if tasks.len() >= room {
                    return tasks;
                }
                if chosen.contains(id) {
                    continue;
                }
                let Some(request) = state.world.requests().get(id) else { continue };
                let idle = view(&tools, &state, pool, offer.as_ref(), facts.as_deref());
                let verdict = verdict(&View { launching, paused, settled, ..idle }, request);
                let task = match verdict {
                    Verdict::Take => {
                        let request = request.clone();
                        let (task, has_all) = take(&mut state, &tools, pool, &mut offer, &request);
                        // Who comes next must not have the room that this one waits for.
                        paused |= !has_all;
                        launching += usize::from(task.may_launch());
                        task
                    }
                    Verdict::Wait(Wait::Machines) => {
                        if let Some(offer) = &mut offer {
                            let labels = &request.record.node_types;
                            offer.set_aside(labels, &state.world, &tools.name, &pool.name);
                        }
                        continue;
                    }
                    Verdict::Decline(reasons) => {
                        Task::Decline { tools: Arc::clone(&tools), pool: pool.name.clone(), reasons }
                    }
                    Verdict::Wait(Wait::Paused | Wait::Concurrency) if !full_look => {
                        self.looked_at_all = false;
                        break;
                    }
                    Verdict::Wait(_) | Verdict::Leave(_) | Verdict::Nothing => continue,
                };
                chosen.insert(id.clone());
                tasks.push((id.clone(), pool.name.clone(), task));
            }
        }
        tasks
    }

    pub(super) fn begin(&mut self, request: String, pool: String, task: Task) {
        let cancel = Arc::new(StopSource::new());
        let active = Active {
            pool,
            handler: None,
            out: 1,
            waiting: false,
            not_before: None,
            gives_way: false,
            generation: self.generation,
            cancel: Arc::clone(&cancel),
        };
        self.active.insert(request.clone(), active);
        self.backlog.push_back(Work::new(request, task, &cancel));
    }

    /// How many pieces of work may be with the workers.
    fn most_work(&self) -> usize {
        self.tools.concurrency() + SPARE_WORKERS
    }

    /// Whether a request waits for room in a pool.
    pub(super) fn is_paused(&self, pool: &str) -> bool {
        // One that machines have too few nodes for is given back at once.
        let may_wait = self.tools.provider.machines().is_none();
        may_wait && self.active.values().any(|active| active.waiting && active.pool == pool)
    }

    /// Says in the fleet which pools there are, and which are paused.
    pub(super) fn announce(&self) {
        let silent = self.is_silent();
        for pool in self.tools.pools() {
            let entry = PoolDescription {
                id: self.tools.id(&pool.name).to_owned(),
                name: Some(pool.name.clone()),
                provider_name: self.tools.name.clone(),
                supported_labels: pool.labels.keys().cloned().collect(),
                priority: self.tools.priority(pool),
                // Then a pool that comes later may serve what this one would.
                paused: silent || self.is_paused(&pool.name),
            };
            self.membership.set(
                &entry_key(&self.tools.name, &pool.name),
                Some(Description::pool(entry, &self.hostname)),
            );
        }
    }
}

/// Takes a request with what there is for it. Whether that is all that it asks for.
fn take(
    state: &mut State,
    tools: &Arc<Tools>,
    pool: &PoolSettings,
    offer: &mut Option<Offer<'_>>,
    request: &NodeRequest,
) -> (Task, bool) {
    let wanted = request.record.node_types.len();
    let allotted = match offer {
        Some(offer) => {
            let slots: Vec<usize> = (0..wanted).collect();
            allot_offered(state, tools, offer, &request.record, &slots)
        }
        None => allot(state, tools, pool, &request.record, 0..wanted, None),
    };
    let has_all = allotted.len() == wanted;
    let promise = Promise::new(state, tools, pool, request, &allotted);
    (Task::Take { tools: Arc::clone(tools), pool: pool.name.clone(), allotted, promise }, has_all)
}

/// What a verdict depends on, for a pool that is idle.
fn view<'a>(
    tools: &'a Tools,
    state: &'a State,
    pool: &'a PoolSettings,
    offer: Option<&'a Offer<'a>>,
    facts: Option<&'a ProviderFacts>,
) -> View<'a> {
    View {
        world: &state.world,
        ledger: &state.ledger,
        provider: &tools.name,
        pool,
        id: tools.id(&pool.name),
        priority: tools.priority(pool),
        offer,
        facts,
        tenants: &state.tenants,
        concurrency: tools.concurrency(),
        launching: 0,
        paused: false,
        settled: true,
    }
}
