//! What comes back to the thread of a provider: work, deletions, looks at the provider; and the end of a session.

use nodepool_drivers::api::ErrorKind;

use super::*;
use crate::launcher::launch::LaunchEnd;

impl Worker {
    pub(super) fn note_session(&mut self) {
        let generation = self.session.status().generation;
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        // All locks are gone, and with them the right to go on.
        self.backlog.retain(|work| {
            work.cancel.stop();
            if let Some(active) = self.active.get_mut(&work.request) {
                active.out -= 1;
            }
            false
        });
        for active in self.active.values_mut() {
            active.cancel.stop();
            active.handler = None;
        }
        self.active.retain(|_, active| active.out > 0);
    }

    pub(super) fn take_work(&mut self, Finished { job, outcome }: Finished<Work>) {
        self.running -= 1;
        if job.launches {
            self.launching -= 1;
        }
        let Work { request, task, .. } = job;
        let Some(active) = self.active.get_mut(&request) else { return };
        active.out -= 1;
        let is_old = active.generation != self.generation;
        match outcome {
            Ok(Outcome::Step(Step::Over(_))) if active.gives_way => {
                self.known.insert(request.clone(), (None, Instant::now() + WAY));
                self.active.remove(&request);
            }
            Ok(Outcome::Step(Step::Over(version))) => {
                let until = Instant::now() + if version.is_some() { REMEMBERED } else { OTHERS };
                self.known.insert(request.clone(), (version, until));
                self.active.remove(&request);
            }
            Ok(Outcome::Step(Step::More { .. })) if is_old => _ = self.active.remove(&request),
            Ok(Outcome::Step(Step::More { handler, launches, shortage })) => {
                if shortage.is_some() && !active.waiting {
                    info!(self.log, "the node request waits for room"; "request" => &request, "pool" => &active.pool);
                }
                active.waiting = shortage.is_some();
                let is_full = shortage == Some(Short::AtProvider);
                if is_full {
                    active.not_before = Some(Instant::now() + FULL_PAUSE);
                }
                active.handler = Some(handler);
                if self.stopping {
                    return;
                }
                self.begin_launches(&request, launches);
                if is_full {
                    self.look_soon();
                }
            }
            Ok(Outcome::Launched(end)) => {
                // Whatever its limits are: not at once again, though other nodes are still being launched.
                if matches!(end, LaunchEnd::NoRoom) {
                    active.not_before = Some(Instant::now() + FULL_PAUSE);
                }
                if let (Some(handler), Task::Launching(slot)) = (&mut active.handler, task) {
                    handler.put(slot, end);
                }
            }
            Ok(Outcome::Error(why)) => {
                tell_of(&why, &request, &self.log);
                self.fail(&request, &task);
            }
            Err(panicked) => {
                error!(self.log, "work for a node request has panicked; this is a bug"; "request" => &request, "panic" => panicked.0);
                self.fail(&request, &task);
            }
        }
        if self.active.get(&request).is_some_and(|active| active.out == 0 && active.handler.is_none()) {
            self.active.remove(&request);
        }
    }

    /// A piece of work has come to nothing.
    pub(super) fn fail(&mut self, request: &str, task: &Task) {
        let Some(active) = self.active.get_mut(request) else { return };
        match (task, &mut active.handler) {
            (Task::Launching(slot), Some(handler)) => handler.lost(*slot),
            // Its locks are gone with it: somebody begins anew once that shows, and its record says no more that it is served.
            _ => {
                self.known.insert(request.to_owned(), (None, Instant::now() + OTHERS));
                active.handler = None;
                self.tools.shared.lock().abandoned.insert(request.to_owned(), Instant::now());
                let _ = self.nudge.try_send(());
            }
        }
    }

    pub(super) fn take_deletion(&mut self, Finished { job, outcome }: Finished<Deletion>) {
        let Deletion { node, what, .. } = job;
        self.deleting.remove(&node);
        let again = self.put_off.remove(&node).map_or(0, |(_, times)| times);
        let stuck = !matches!(outcome, Ok(Deleted::Gone | Deleted::GoneUnnamed | Deleted::NotNow));
        self.tools.shared.lock().board.set_stuck(&node, &self.tools.name, stuck);
        let mut look_again = matches!(outcome, Ok(Deleted::GoneUnnamed));
        if let (What::Leaked(external_id), false) = (what, stuck) {
            look_again |= self.leaked.remove(&Leaked { external_id, node: node.clone() });
        }
        // There is more room than was said, or an instance that can be told to be nobody's only now.
        if look_again {
            self.look_soon();
        }
        match outcome {
            // The copy of the tree may be behind.
            Ok(Deleted::Gone | Deleted::GoneUnnamed | Deleted::NotNow) => {
                _ = self.put_off.insert(node, (Instant::now() + OTHERS, 0))
            }
            Ok(Deleted::Failed) => {
                self.put_off.insert(node, (Instant::now() + DELETE_PAUSES.after(again), again + 1));
            }
            Err(panicked) => {
                error!(self.log, "a deletion has panicked; this is a bug"; "node" => &node, "panic" => panicked.0);
                self.put_off.insert(node, (Instant::now() + DELETE_PAUSES.longest, again + 1));
            }
        }
    }

    /// Has what deletions have left removed.
    fn clean_up(&mut self) {
        if !self.cleaning && !self.stopping {
            self.cleaning = self.cleaner.submit(CleanUp { tools: Arc::clone(&self.tools) }).is_ok();
        }
    }

    pub(super) fn take_clean_up(&mut self, Finished { outcome, .. }: &Finished<CleanUp>) {
        self.cleaning = false;
        if let Err(panicked) = outcome {
            error!(self.log, "a clean-up at the provider has panicked; this is a bug"; "panic" => &panicked.0);
        }
    }

    pub(super) fn take_survey(&mut self, Finished { job, outcome }: Finished<Survey>) {
        self.surveying = false;
        if !Arc::ptr_eq(&job.tools, &self.tools) {
            // It has looked for what was configured before.
            self.next_survey = Instant::now();
            return;
        }
        let pause = match outcome {
            Ok(Ok(Found { facts, leaked })) => {
                if job.generation.is_some() {
                    self.leaked = leaked.into_iter().collect();
                    self.clean_up();
                }
                let mut state = self.tools.shared.lock();
                let known = state.facts(&self.tools.name);
                for remark in facts
                    .remarks
                    .iter()
                    .filter(|new| !known.as_ref().is_some_and(|known| known.remarks.contains(new)))
                {
                    let (pool, label) =
                        remark.of.as_ref().map_or(("any", "any"), |(pool, label)| (pool, label));
                    warn!(self.log, "{}", remark.what; "pool" => pool, "label" => label, "reason" => &remark.reason);
                }
                state.facts.insert(self.tools.name.clone(), Arc::new(facts));
                state.board.set_trouble(&self.tools.name, None, now());
                if self.mute.take().is_some() {
                    info!(self.log, "the provider says again how it stands");
                }
                self.failed_surveys = 0;
                // What others have left stays at the first look, and when the session's end has not been seen.
                let early = job.generation != Some(self.generation);
                if early { SURVEY_AGAIN } else { SURVEY_ROUND }
            }
            // Which has ended the look.
            Ok(Err(_)) if self.stopping => SURVEY_ROUND,
            Ok(Err(error)) => {
                let why = error.to_string();
                if error.kind() == ErrorKind::Unavailable {
                    self.tools.note_outage();
                }
                let mut state = self.tools.shared.lock();
                let what = Some("it does not say how it stands");
                state.board.set_trouble(&self.tools.name, what, now());
                // Once for each reason, and not at each look.
                if self.mute.as_ref() == Some(&why) {
                    debug!(self.log, "the provider still does not say how it stands"; "reason" => &why);
                } else {
                    warn!(self.log, "the provider does not say how it stands"; "reason" => &why);
                }
                self.mute = Some(why);
                let times = match error.kind() {
                    ErrorKind::Permanent => u32::MAX,
                    // No login was seen by anybody, and each look takes its time.
                    ErrorKind::Unavailable => 0,
                    _ => self.failed_surveys,
                };
                self.failed_surveys = self.failed_surveys.saturating_add(1);
                SURVEY_PAUSES.jittered(times)
            }
            Err(panicked) => {
                error!(self.log, "a look at the provider has panicked; this is a bug"; "panic" => panicked.0);
                self.failed_surveys = self.failed_surveys.saturating_add(1);
                SURVEY_PAUSES.longest
            }
        };
        self.next_survey = Instant::now() + pause;
        if self.tools.stats.is_on() {
            let state = self.tools.shared.lock();
            self.tools.stats.send(metrics::limits(&self.tools, &state));
        }
    }
}
