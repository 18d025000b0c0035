//! The thread of a provider: it owns the handlers of the requests that its pools serve, decides what is done next at
//! the provider, and hands it to the provider's workers. It makes no call that could block.

mod deletions;
mod inbox;
mod orders;
mod returns;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use nodepool_threads::{Finished, Pauses, Pool, StopSource, Thread, activity_within, spawn};
use slog::{Logger, debug, error, info, warn};

use inbox::{Event, Inbox};

use super::allot::{Promise, allot, allot_offered};
use super::assign::{Reason, Verdict, View, Wait, objections, verdict};
use super::cleaner::{Rules, Why, garbage, oldest_unused};
use super::ended::{Ended, Running};
use super::facts::ProviderFacts;
use super::handler::{Handler, Short, Step, tell_of};
use super::jobs::{Deleted, Deletion, Outcome, Task, What, Work};
use super::metrics;
use super::offer::Offer;
use super::shared::{RoomFor, State};
use super::survey::{CleanUp, Found, Leaked, Survey};
use super::tools::{MOST_CONCURRENCY, Tools};
use super::world::Node;
use crate::model::{NodeState, now};
use crate::zk::{Description, Generation, Membership, PoolDescription, Session};

/// How long the work on one event may take: it makes no call.
const DECIDING: Duration = Duration::from_secs(1);
/// Workers besides those that launch, so that what is quickly done need not wait for them.
const SPARE_WORKERS: usize = 4;
/// How many nodes are deleted at the same time.
const DELETERS: usize = 64;
/// How often the provider is looked at.
const SURVEY_ROUND: Duration = Duration::from_secs(60);
/// How soon it is looked at again when it may stand otherwise by now.
const SURVEY_AGAIN: Duration = Duration::from_secs(2);
/// The pauses after looks that have failed. Each may be a login, and a cloud may lock who fails at too many.
const SURVEY_PAUSES: Pauses = Pauses { first: SURVEY_AGAIN, longest: SURVEY_ROUND };
/// How often nodes are looked through for those that have become too old.
const AGE_ROUND: Duration = Duration::from_secs(1);
/// How often all requests are looked through while none can be taken: some may have to be declined.
const FULL_LOOK: Duration = Duration::from_millis(200);
/// How long a request is left alone that somebody else was quicker at.
const OTHERS: Duration = Duration::from_secs(1);
/// How long a request's record is remembered, for the copy of the tree to have it.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long to wait after the provider had no room although its limits have.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// The pauses after a node could not be deleted.
const DELETE_PAUSES: Pauses = Pauses { first: Duration::from_secs(5), longest: Duration::from_secs(60) };
/// How long a request that gives way to others is left alone.
const WAY: Duration = Duration::from_secs(5);
/// How long cancelled work may take to come back when the daemon stops.
const STOP_LIMIT: Duration = Duration::from_secs(7);

/// A provider at work. Dropping it stops it.
pub(super) struct ProviderWorker {
    stop: StopSource,
    poke: Sender<()>,
    configure: Sender<Arc<Tools>>,
    pub(super) tools: Arc<Tools>,
    ended: Ended,
    thread: Option<Thread<bool>>,
}

impl ProviderWorker {
    pub(super) fn start(
        tools: Arc<Tools>,
        hostname: &str,
        session: &Session,
        membership: &Arc<Membership>,
        nudge: &Sender<()>,
    ) -> io::Result<Self> {
        let stop = StopSource::new();
        let (poke, poked) = bounded(1);
        let (configure, configured) = bounded(1);
        let from_owner = (poked, configured, stop.stopped().clone());
        let (worker, inbox) = Worker::new(&tools, hostname, session, membership, nudge, from_owner)?;
        let (running, ended) = Running::new(nudge);
        let run = move || {
            // Dropped in this order: the worker, what has come back to it, and the sign that it runs.
            let _running = running;
            let inbox = inbox;
            worker.run(&inbox)
        };
        let thread = spawn(format!("provider-{}", tools.name), "provider", run)?;
        Ok(Self { stop, poke, configure, tools, ended, thread: Some(thread) })
    }

    /// Something has changed in the fleet.
    pub(super) fn poke(&self) {
        // A message that waits already tells of this change too.
        let _ = self.poke.try_send(());
    }

    /// Works with another configuration of the provider from now on. False if it has not taken up the last one yet.
    pub(super) fn configure(&mut self, tools: Arc<Tools>) -> bool {
        let taken = self.configure.try_send(Arc::clone(&tools)).is_ok();
        if taken {
            self.tools = tools;
        }
        taken
    }

    /// Tells it to stop: nothing new, everything is cancelled and given back.
    pub(super) fn stop(&self) {
        self.stop.stop();
    }

    /// Whether it has stopped.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_over()
    }

    /// Waits until it has stopped, until `deadline` at most.
    pub(super) fn wait_over(&self, deadline: Instant) -> bool {
        self.ended.wait_over(deadline)
    }

    /// Waits for the end. False if not all of its work has come back.
    pub(super) fn join(mut self) -> bool {
        self.stop.stop();
        self.thread.take().is_none_or(|thread| thread.join().unwrap_or(false))
    }
}

impl Drop for ProviderWorker {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// A request that we have taken, or are about to.
struct Active {
    pool: String,
    /// With us, and not with a worker.
    handler: Option<Box<Handler>>,
    /// Pieces of work that are with the workers or in the backlog.
    out: usize,
    /// There is no room for the next node.
    waiting: bool,
    /// Not tried again before.
    not_before: Option<Instant>,
    /// It is given back for those before it.
    gives_way: bool,
    generation: Generation,
    cancel: Arc<StopSource>,
}

impl Active {
    fn is_due(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }
}

struct Worker {
    tools: Arc<Tools>,
    hostname: String,
    session: Session,
    membership: Arc<Membership>,
    crew: Pool<Work>,
    deleters: Pool<Deletion>,
    surveyor: Pool<Survey>,
    cleaner: Pool<CleanUp>,
    active: BTreeMap<String, Active>,
    /// The versions of requests that are no longer ours, until the copy of the tree has newer ones, and until when.
    known: BTreeMap<String, (Option<i32>, Instant)>,
    /// Work that the workers have no room for.
    backlog: VecDeque<Work>,
    running: usize,
    launching: usize,
    /// With the pools of those that have a record.
    deleting: BTreeMap<String, Option<String>>,
    put_off: BTreeMap<String, (Instant, u32)>,
    /// Instances without nodes, as the last look has found them, that are still to be deleted.
    leaked: BTreeSet<Leaked>,
    surveying: bool,
    /// Ends the look that goes on.
    cancel_survey: Arc<StopSource>,
    cleaning: bool,
    /// Why the provider has not said the last time how it stands, if it has not.
    mute: Option<String>,
    /// How many looks in a row have failed.
    failed_surveys: u32,
    next_survey: Instant,
    next_ages: Instant,
    next_full_look: Instant,
    /// Whether no request was left out the last time.
    looked_at_all: bool,
    generation: Generation,
    stopping: bool,
    /// Told of what other providers wait for.
    nudge: Sender<()>,
    log: Logger,
}

impl Worker {
    /// Starts its workers. `others` is what it hears from the launcher thread.
    fn new(
        tools: &Arc<Tools>,
        hostname: &str,
        session: &Session,
        membership: &Arc<Membership>,
        nudge: &Sender<()>,
        others: (Receiver<()>, Receiver<Arc<Tools>>, Receiver<Infallible>),
    ) -> io::Result<(Self, Inbox)> {
        let name = &tools.name;
        // How many work is the configuration's, which may change.
        let size = MOST_CONCURRENCY + SPARE_WORKERS;
        let (crew, works) = Pool::start_elastic(&format!("{name}-worker"), "launch worker", size)?;
        let (deleters, deleted) = Pool::start_elastic(&format!("{name}-delete"), "node deleter", DELETERS)?;
        let (surveyor, surveyed) = Pool::start(&format!("{name}-survey"), "provider survey", 1)?;
        let (cleaner, cleaned) = Pool::start_elastic(&format!("{name}-clean-up"), "provider clean-up", 1)?;
        let (poked, configured, stop) = others;
        let session_changes = session.subscribe();
        let inbox =
            Inbox { poked, configured, works, deleted, surveyed, cleaned, session: session_changes, stop };
        let worker = Self {
            log: tools.log.clone(),
            tools: Arc::clone(tools),
            hostname: hostname.to_owned(),
            session: session.clone(),
            membership: Arc::clone(membership),
            crew,
            deleters,
            surveyor,
            cleaner,
            active: BTreeMap::new(),
            known: BTreeMap::new(),
            backlog: VecDeque::new(),
            running: 0,
            launching: 0,
            deleting: BTreeMap::new(),
            put_off: BTreeMap::new(),
            leaked: BTreeSet::new(),
            surveying: false,
            cancel_survey: Arc::new(StopSource::new()),
            cleaning: false,
            mute: None,
            failed_surveys: 0,
            next_survey: Instant::now(),
            next_ages: Instant::now(),
            next_full_look: Instant::now(),
            looked_at_all: true,
            generation: session.status().generation,
            stopping: false,
            nudge: nudge.clone(),
        };
        Ok((worker, inbox))
    }

    fn run(mut self, inbox: &Inbox) -> bool {
        loop {
            let event = inbox.next_event(self.deadline());
            let _doing = activity_within(DECIDING, "deciding");
            match event {
                Event::Stop => break,
                event => self.handle_event(event),
            }
            self.step();
        }
        self.stop(inbox)
    }

    fn deadline(&self) -> Instant {
        let waits = self.active.values().filter(|one| one.out == 0).filter_map(|one| one.not_before);
        let put_off = self.put_off.values().map(|(until, _)| *until);
        let known = self.known.values().filter(|(version, _)| version.is_none()).map(|(_, until)| *until);
        let expiry = self.tools.shared.lock().ledger.next_expiry();
        let now = Instant::now();
        let to_come = first_to_come(waits.chain(put_off).chain(known).chain(expiry), now);
        let full_look = !self.looked_at_all
            || self.active.values().any(|one| one.waiting)
            || (self.launching > 0 && self.launching >= self.tools.concurrency());
        let complete = self.tools.shared.lock().complete;
        // Each step moves these on.
        let rounds = [
            (!self.surveying).then_some(self.next_survey),
            (complete && full_look).then_some(self.next_full_look),
            (complete && self.has_ages()).then_some(self.next_ages),
        ];
        rounds.into_iter().flatten().chain(to_come).fold(now + SURVEY_ROUND, Instant::min)
    }

    /// Whether nobody was there at the provider the last time, or it has never said how it stands, though asked.
    fn is_silent(&self) -> bool {
        let state = self.tools.shared.lock();
        state.facts.get(&self.tools.name).map_or(self.mute.is_some(), |facts| facts.silent)
    }

    /// Whether nodes may become too old.
    fn has_ages(&self) -> bool {
        let state = self.tools.shared.lock();
        let config = &state.config;
        config.max_hold_age.is_some()
            || config.labels.values().any(|label| label.max_ready_age.is_some())
            || state.world.has_expirations()
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Work(done) => {
                self.take_work(*done);
                // What a tenant had here may be had elsewhere, and ZooKeeper does not tell of promises.
                if !self.tools.shared.lock().tenants.is_empty() {
                    let _ = self.nudge.try_send(());
                }
            }
            Event::Deleted(done) => self.take_deletion(*done),
            Event::Surveyed(done) => self.take_survey(*done),
            Event::CleanedUp(done) => self.take_clean_up(&done),
            Event::Configured(tools) => {
                info!(self.log, "the provider's configuration has changed");
                let old = std::mem::replace(&mut self.tools, tools);
                // Here, where they are also announced: somebody else's removal could come before an announcement.
                for pool in old.pools().iter().filter(|pool| self.tools.pool(&pool.name).is_none()) {
                    self.membership.set(&entry_key(&old.name, &pool.name), None);
                }
                self.keep_facts(&old);
                self.cancel_survey.stop();
                self.failed_surveys = 0;
                self.next_survey = Instant::now();
            }
            Event::Session => self.note_session(),
            Event::World | Event::Deadline | Event::Stop => {}
        }
    }

    /// Keeps of what is known of the provider what still counts in spite of the new configuration.
    fn keep_facts(&self, old: &Tools) {
        let (old, new) = (old.config.settings(), self.tools.config.settings());
        let mut state = self.tools.shared.lock();
        match state.facts(&self.tools.name).and_then(|facts| facts.after(old, new)) {
            Some(facts) => _ = state.facts.insert(self.tools.name.clone(), facts),
            None => _ = state.facts.remove(&self.tools.name),
        }
    }

    /// Has the provider looked at soon. After a look that has failed its pause is kept.
    fn look_soon(&mut self) {
        if self.failed_surveys == 0 {
            self.next_survey = self.next_survey.min(Instant::now() + SURVEY_AGAIN);
        }
    }

    /// Does what can be done now.
    fn step(&mut self) {
        let complete = self.tools.shared.lock().complete;
        if complete {
            self.forget();
            self.tend();
            self.hand_out();
            self.take_requests();
            self.hand_out();
            self.order_deletions();
        }
        if self.is_silent() {
            self.look_soon();
        }
        if Instant::now() >= self.next_survey && !self.surveying {
            let is_known = self.tools.shared.lock().facts.contains_key(&self.tools.name);
            let generation = (complete && is_known).then_some(self.generation);
            self.cancel_survey = Arc::new(StopSource::new());
            let cancel = Arc::clone(&self.cancel_survey);
            self.surveying =
                self.surveyor.submit(Survey { tools: Arc::clone(&self.tools), generation, cancel }).is_ok();
            self.next_survey = Instant::now() + SURVEY_ROUND;
        }
        self.announce();
    }
}

/// The key of a pool's entry among the components.
pub(super) fn entry_key(provider: &str, pool: &str) -> String {
    format!("{provider}/{pool}")
}

/// The first moment that is still to come. What was waited for until one that has passed and could not be used is
/// looked at in the usual rounds: it is no reason to come back at once.
fn first_to_come(moments: impl Iterator<Item = Instant>, now: Instant) -> Option<Instant> {
    moments.filter(|moment| *moment > now).min()
}
