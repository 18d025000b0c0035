//! Ready nodes in stock, and what others have left.

use super::*;

impl Launcher {
    pub(super) fn order(&mut self, what: What) {
        self.own.queue.order(what, Instant::now());
    }

    pub(super) fn send_errands(&mut self) {
        while let Some(what) = self.own.queue.next() {
            let errand = Errand {
                nodes: self.nodes.clone(),
                requests: self.requests.clone(),
                shared: Arc::clone(&self.shared),
                what,
                log: self.log.clone(),
            };
            if let Err(errand) = self.errands.submit(errand) {
                self.own.queue.put_back(errand.what);
                return;
            }
        }
    }

    pub(super) fn take_errand(&mut self, Finished { job, outcome }: Finished<Errand>) {
        let what = job.what;
        self.own.queue.done(&what, Instant::now());
        if let What::Ask(label) = &what {
            if let Some(making) = self.own.making.get_mut(label) {
                *making = making.saturating_sub(1);
            }
        }
        match (outcome, what) {
            (Ok(Ok(Some(id))), What::Ask(label)) => {
                self.own.made.insert(id, label);
                // It may be over already.
                self.collect_stock();
            }
            (Ok(Ok(_)), What::Collect(id)) => _ = self.own.made.remove(&id),
            (Ok(Ok(_)), _) => {}
            (Ok(Err(why)), what) => {
                warn!(self.log, "an errand has failed"; "errand" => ?what, "reason" => %why);
                if let What::Ask(label) = what {
                    self.own.pause_stock(&label);
                }
            }
            (Err(panicked), what) => {
                error!(self.log, "an errand has panicked; this is a bug"; "errand" => ?what, "panic" => panicked.0);
            }
        }
    }

    /// Asks for nodes for stock.
    pub(super) fn keep_stock(&mut self) {
        if self.config.launcher.labels.values().all(|label| label.min_ready == 0) {
            return;
        }
        let mut bare = BTreeSet::new();
        let missing = {
            let state = self.shared.lock();
            let any = |label: &str, is: fn(&State, &Tools, &str) -> bool| {
                self.open_providers().any(|tools| is(&state, tools, label))
            };
            let can_launch = |label: &str| {
                let can = any(label, can_launch);
                if !can && any(label, lacks_image) {
                    bare.insert(label.to_owned());
                }
                can && !self.own.stock_pauses.contains_key(label)
            };
            min_ready::missing(&state.world, &self.config.launcher.labels, &self.own.made, can_launch)
        };
        for label in bare.difference(&self.own.bare) {
            info!(self.log, "no ready nodes of a label: what they boot from is at none of its providers yet"; "label" => label);
        }
        self.own.bare = bare;
        for (label, count) in missing {
            let making = self.own.making.entry(label.clone()).or_default();
            let more = count.saturating_sub(*making);
            *making += more;
            for _ in 0..more {
                self.own.queue.order_another(What::Ask(label.clone()));
            }
        }
    }

    /// Takes what our own requests have brought.
    pub(super) fn collect_stock(&mut self) {
        let mut over = Vec::new();
        {
            let state = self.shared.lock();
            for (id, label) in &self.own.made {
                match state.world.requests().get(id).map(|request| request.record.state) {
                    Some(end @ (RequestState::Fulfilled | RequestState::Failed)) => {
                        over.push((id.clone(), label.clone(), end));
                    }
                    Some(RequestState::Requested | RequestState::Pending) | None => {}
                }
            }
        }
        for (id, label, end) in over {
            match end {
                RequestState::Failed => self.own.pause_stock(&label),
                _ => _ = self.own.stock_failures.remove(&label),
            }
            self.order(What::Collect(id));
        }
    }

    pub(super) fn give_back_orphans(&mut self) {
        let nodes: Vec<String> = orphans(&self.shared.lock().world).map(str::to_owned).collect();
        nodes.into_iter().for_each(|id| self.order(What::Deallocate(id)));
    }

    pub(super) fn begin_round(&mut self) {
        let empty: Vec<String> = self.shared.lock().world.empty().iter().cloned().collect();
        empty.into_iter().for_each(|id| self.order(What::RemoveEmpty(id)));
        let at = Instant::now();
        if self.own.next_sweep.is_none_or(|due| due <= at) {
            self.own.next_sweep = Some(at + SWEEP_ROUND);
            self.order(What::SweepLocks);
        }
        self.look_for_lost_requests();
        // Our requests that somebody has removed are not waited for. One that was just made may not be in the copy yet.
        let state = self.shared.lock();
        let unseen = |id: &String| !state.world.requests().contains_key(id);
        let before = std::mem::take(&mut self.own.unseen);
        self.own.made.retain(|id, _| !(unseen(id) && before.contains(id)));
        self.own.unseen = self.own.made.keys().filter(|id| unseen(id)).cloned().collect();
    }

    /// Has the requests reset that we have begun to serve, and could not go on with. As long as the lock is still there,
    /// the errand comes to nothing, and is ordered again.
    pub(super) fn reset_abandoned(&mut self) {
        let abandoned = self.shared.lock().abandoned();
        abandoned.into_iter().for_each(|id| self.order(What::Reset(id)));
    }

    pub(super) fn look_for_lost_requests(&mut self) {
        let pending: Vec<String> = {
            let state = self.shared.lock();
            if !state.complete {
                return;
            }
            let pending = |state: RequestState| state == RequestState::Pending;
            let found = state.world.requests().values().filter(|request| pending(request.record.state));
            found.map(|request| request.id.clone()).collect()
        };
        pending.into_iter().for_each(|id| self.order(What::Reset(id)));
    }
}

impl Own {
    /// A request for stock of this label has come to nothing. Several that fail together are one failure.
    fn pause_stock(&mut self, label: &str) {
        if self.stock_pauses.contains_key(label) {
            return;
        }
        let failures = self.stock_failures.entry(label.to_owned()).or_default();
        let pause = STOCK_PAUSES.after(*failures);
        *failures += 1;
        self.stock_pauses.insert(label.to_owned(), Instant::now() + pause);
    }
}
