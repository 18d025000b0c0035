//! The end of the thread of a provider.

use super::*;

impl Worker {
    pub(super) fn stop(mut self, inbox: &Inbox) -> bool {
        let _doing = activity_within(STOP_LIMIT, "stopping");
        self.stopping = true;
        for pool in self.tools.pools() {
            self.membership.set(&entry_key(&self.tools.name, &pool.name), None);
        }
        self.crew.stop_jobs();
        self.deleters.stop_jobs();
        self.surveyor.stop_jobs();
        self.cleaner.stop_jobs();
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            // What was not begun is not begun any more.
            for work in std::mem::take(&mut self.backlog) {
                match work.task {
                    Task::Pursue(handler) | Task::Conclude(handler) | Task::Leave(handler, _) => {
                        if let Some(active) = self.active.get_mut(&work.request) {
                            (active.handler, active.out) = (Some(handler), 0);
                        }
                    }
                    Task::GiveBack(_) | Task::Withdraw(_) => self.backlog.push_back(work),
                    _ => {
                        if let Some(active) = self.active.get_mut(&work.request) {
                            active.out -= 1;
                        }
                    }
                }
            }
            for (id, active) in self.active.iter_mut().filter(|(_, active)| active.out == 0) {
                if let Some(handler) = active.handler.take() {
                    active.out = 1;
                    let cancel = Arc::clone(&active.cancel);
                    let task = Task::GiveBack(handler);
                    self.backlog.push_back(Work { request: id.clone(), task, cancel, launches: false });
                }
            }
            self.active.retain(|_, active| active.out > 0);
            self.hand_out();
            let looking = self.surveying || self.cleaning;
            if self.active.is_empty() && self.running == 0 && self.deleting.is_empty() && !looking {
                return true;
            }
            match inbox.next_finished(deadline) {
                Some(event) => self.handle_event(event),
                None => {
                    error!(self.log, "workers of the provider do not let go"; "requests" => self.active.len(), "deletions" => self.deleting.len());
                    // Dropping the workers would wait for them, and the session's end must not.
                    std::mem::forget((self.crew, self.deleters, self.surveyor, self.cleaner));
                    return false;
                }
            }
        }
    }
}
