//! The thread itself: has the plan carried out by workers, and remembers what they have seen and done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, never, select};
use nodepool_drivers::api::{Machine, MachineId};
use nodepool_threads::{Finished, Mutex, Panicked, Pauses, Pool, activity_within};
use slog::{Logger, debug, error, info, warn};

use super::job::{Outcome, SILENT, StandingJob, Unusable, Work};
use super::keeper::{Away, News};
use super::plan::{Order, Seen, Sight, Sights, plan};
use crate::model::NodeRecord;
use crate::zk::{ListedNode, Nodes};

/// The workers of a provider. A machine that does not answer holds one for its timeout.
const WORKERS: usize = 16;
/// How many of them may look at machines at the same time: the others are for records.
const LOOKERS: usize = 14;
/// How long the thread may take to decide: it makes no call.
const PLANNING: Duration = Duration::from_secs(1);
/// For how long a look at a machine is enough to make nodes of it: all of them are made after one.
const FRESH: Duration = Duration::from_secs(10);
/// The pauses after looks in vain. A machine may be rebooted by its job.
const PAUSES: Pauses = Pauses { first: Duration::from_secs(5), longest: Duration::from_secs(120) };
/// How long the copy of the tree may take to have what a job has written, in the worst case.
const LAG: Duration = Duration::from_secs(5);
/// The pause before the same is tried again that somebody else was in the way of, or ZooKeeper.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

pub(super) struct Working {
    provider: String,
    nodes: Nodes,
    jobs: Pool<StandingJob>,
    news: Arc<Mutex<News>>,
    nudge: Sender<()>,
    log: Logger,
    machines: Arc<[Machine]>,
    sights: Sights,
    /// Why those that are away could not be used the last time.
    reasons: BTreeMap<MachineId, Unusable>,
    written: BTreeMap<String, Written>,
    busy: BTreeSet<Subject>,
    /// What is not to be tried before a time.
    later: BTreeMap<Subject, Instant>,
}

/// What a job is about: there is one for each at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Machine(MachineId),
    Place(MachineId, u32),
    Node(String),
}

/// A record that the copy of the tree may not have yet.
struct Written {
    /// What the copy had before, if anything. Once it has something else, it is newer.
    before: Option<NodeRecord>,
    after: NodeRecord,
    until: Instant,
}

impl Working {
    pub(super) fn new(
        provider: &str,
        nodes: &Nodes,
        news: &Arc<Mutex<News>>,
        nudge: &Sender<()>,
        log: &Logger,
    ) -> io::Result<(Self, Receiver<Finished<StandingJob>>)> {
        let (jobs, finished) =
            Pool::start_elastic(&format!("standing-{provider}"), "worker for machines", WORKERS)?;
        let working = Self {
            provider: provider.to_owned(),
            nodes: nodes.clone(),
            jobs,
            news: Arc::clone(news),
            nudge: nudge.clone(),
            log: log.clone(),
            machines: Arc::new([]),
            sights: Sights::new(),
            reasons: BTreeMap::new(),
            written: BTreeMap::new(),
            busy: BTreeSet::new(),
            later: BTreeMap::new(),
        };
        Ok((working, finished))
    }

    /// Goes on until it is stopped, or nobody can wake it any more.
    pub(super) fn run(mut self, woken: &Receiver<()>, finished: &Receiver<Finished<StandingJob>>) {
        while !self.news.lock().stopping {
            let again_at = {
                let _doing = activity_within(PLANNING, "planning");
                self.go_on(Instant::now())
            };
            let timer = again_at.map_or_else(never, at);
            select! {
                recv(woken) -> wake => if wake.is_err() { return },
                recv(finished) -> done => match done {
                    Ok(done) => self.done(done, Instant::now()),
                    Err(_) => return,
                },
                recv(timer) -> _ => {}
            }
        }
    }

    /// Hands out what is to be done now; returns when there is more to do even if nothing happens.
    fn go_on(&mut self, now: Instant) -> Option<Instant> {
        let nodes = self.hear(now)?;
        self.later.retain(|_, until| *until > now);
        let plan = plan(&self.machines, &nodes, &self.sights, now);
        let mut again_at = plan.again_at;
        for order in plan.orders {
            let Some((subject, work)) = self.work(order) else { continue };
            if self.busy.contains(&subject) {
                continue;
            }
            if let Some(until) = self.later.get(&subject) {
                again_at = again_at.into_iter().chain([*until]).min();
                continue;
            }
            // Whoever finishes makes room, and what is left is planned again then.
            let looks = self.busy.iter().filter(|subject| matches!(subject, Subject::Machine(_))).count();
            let is_look = matches!(work, Work::Look(_));
            if self.busy.len() >= WORKERS || is_look && looks >= LOOKERS {
                continue;
            }
            let job = StandingJob { provider: self.provider.clone(), nodes: self.nodes.clone(), work };
            if self.jobs.submit(job).is_ok() {
                if let Subject::Machine(id) = &subject {
                    let failures = self.failures(id);
                    self.sights.insert(id.clone(), Sight::Looking { failures });
                }
                self.busy.insert(subject);
            }
        }
        self.tell_away();
        // What the copy of the tree never had, and then does not tell of, is missing once it is no longer remembered.
        again_at.into_iter().chain(self.written.values().map(|written| written.until)).min()
    }

    /// Tells which machines are away, if these are others than before.
    fn tell_away(&self) {
        let ids = self.sights.keys().filter(|id| self.failures(id) > 0);
        let away: Away =
            ids.map(|id| (id.clone(), self.reasons.get(id).map_or(SILENT, |why| why.what))).collect();
        if std::mem::replace(&mut self.news.lock().away, away.clone()) != away {
            // There is room for one; a second would say nothing new.
            let _ = self.nudge.try_send(());
        }
    }

    /// Takes the news in. The nodes as they are, or will be once the copy of the tree has everything; `None` before it
    /// is complete.
    fn hear(&mut self, now: Instant) -> Option<Vec<ListedNode>> {
        let (mut nodes, machines, silent) = {
            let mut news = self.news.lock();
            (news.nodes.clone()?, Arc::clone(&news.machines), std::mem::take(&mut news.silent))
        };
        if !Arc::ptr_eq(&machines, &self.machines) {
            let same: BTreeSet<MachineId> = machines
                .iter()
                .filter(|machine| self.machines.contains(machine))
                .map(Machine::identity)
                .collect();
            self.sights.retain(|id, _| same.contains(id));
            self.reasons.retain(|id, _| same.contains(id));
            self.machines = machines;
        }
        for id in silent {
            if !matches!(self.sights.get(&id), Some(Sight::Looking { .. })) {
                self.dead(id, 0, now);
            }
        }
        self.written.retain(|id, written| {
            let copy = nodes.get(id).map(|node| &node.record);
            written.until > now && copy == written.before.as_ref()
        });
        for (id, written) in &self.written {
            let node = ListedNode { id: id.clone(), record: written.after.clone(), locked: false };
            nodes.insert(id.clone(), node);
        }
        Some(nodes.into_values().collect())
    }

    /// The job of an order. `None` if its machine is not configured.
    fn work(&self, order: Order) -> Option<(Subject, Work)> {
        let machine =
            |id: &MachineId| self.machines.iter().find(|machine| machine.identity() == *id).cloned();
        Some(match order {
            Order::Look(id) => {
                let machine = machine(&id)?;
                (Subject::Machine(id), Work::Look(machine))
            }
            Order::Register { machine: id, slot, seen } => {
                let machine = machine(&id)?;
                (Subject::Place(id, slot), Work::Register { machine, slot, seen })
            }
            Order::Update { node, machine: id, slot, seen } => {
                let machine = machine(&id)?;
                (Subject::Node(node.clone()), Work::Update { node, machine, slot, seen })
            }
            Order::Deregister { node, why } => (Subject::Node(node.clone()), Work::Deregister { node, why }),
        })
    }

    fn done(&mut self, done: Finished<StandingJob>, now: Instant) {
        let work = done.job.work;
        let subject = match &work {
            Work::Look(machine) => Subject::Machine(machine.identity()),
            Work::Register { machine, slot, .. } => Subject::Place(machine.identity(), *slot),
            Work::Update { node, .. } | Work::Deregister { node, .. } => Subject::Node(node.clone()),
        };
        self.busy.remove(&subject);
        match (work, done.outcome) {
            (Work::Look(machine), outcome) => self.looked(&machine, outcome, now),
            (work, Ok(Outcome::Written { node, before, after })) => {
                self.report(&work, &node, before.as_deref() == Some(&*after));
                let (before, after) = (before.map(|before| *before), *after);
                self.written.insert(node, Written { before, after, until: now + LAG });
            }
            (_, Ok(Outcome::Failed(why))) => {
                warn!(self.log, "a node of a machine cannot be written: {why}"; "what" => ?subject);
                self.later.insert(subject, now + AFTER_FAILURE);
            }
            (_, Ok(Outcome::Overtaken | Outcome::Looked(_))) => {
                self.later.insert(subject, now + AFTER_FAILURE);
            }
            (_, Ok(Outcome::Stopped)) => {}
            (_, Err(Panicked(message))) => {
                error!(self.log, "a job for a machine has panicked: {message}"; "what" => ?subject);
                self.later.insert(subject, now + PAUSES.longest);
            }
        }
    }

    fn report(&self, work: &Work, node: &str, nothing_new: bool) {
        match work {
            _ if nothing_new => debug!(self.log, "a node says what it should already"; "node" => node),
            Work::Register { machine, slot, .. } => {
                info!(self.log, "registered a node"; "node" => node, "machine" => %machine.identity(), "slot" => slot);
            }
            Work::Update { machine, .. } => {
                info!(self.log, "updated a node"; "node" => node, "machine" => %machine.identity());
            }
            Work::Deregister { why, .. } => {
                info!(self.log, "took a node away"; "node" => node, "because" => %why);
            }
            Work::Look(_) => {}
        }
    }

    fn looked(&mut self, machine: &Machine, outcome: Result<Outcome, Panicked>, now: Instant) {
        let id = machine.identity();
        if !self.machines.contains(machine) {
            // It was seen as it was configured before.
            self.sights.remove(&id);
            return;
        }
        let failures = self.failures(&id);
        let looked = match outcome {
            Ok(Outcome::Looked(looked)) => looked,
            Ok(_) => {
                self.sights.remove(&id);
                return;
            }
            Err(Panicked(message)) => {
                let why = format!("looking at it has panicked: {message}");
                Err(Unusable { what: "cannot be looked at", why })
            }
        };
        match looked {
            Ok(seen) => self.alive(id, seen, failures, now),
            Err(unusable) => {
                let why = &unusable.why;
                // Once for each reason, and not at each look.
                if self.reasons.get(&id) != Some(&unusable) {
                    warn!(self.log, "a machine cannot be used: {why}"; "machine" => %id);
                } else {
                    debug!(self.log, "a machine still cannot be used: {why}"; "machine" => %id, "failures" => failures + 1);
                }
                self.reasons.insert(id.clone(), unusable);
                self.dead(id, failures, now);
            }
        }
    }

    fn alive(&mut self, id: MachineId, seen: Seen, failures: u32, now: Instant) {
        if failures > 0 {
            info!(self.log, "a machine can be used again"; "machine" => %id);
        }
        self.reasons.remove(&id);
        self.sights.insert(id, Sight::Alive { seen, fresh_until: now + FRESH });
    }

    fn dead(&mut self, id: MachineId, failures: u32, now: Instant) {
        // Machines that went together do not have to be looked at together for ever.
        let again_at = now + PAUSES.jittered(failures);
        self.sights.insert(id, Sight::Dead { failures: failures + 1, again_at });
    }

    /// How often in a row a machine did not answer.
    fn failures(&self, id: &MachineId) -> u32 {
        match self.sights.get(id) {
            Some(Sight::Looking { failures } | Sight::Dead { failures, .. }) => *failures,
            Some(Sight::Alive { .. }) | None => 0,
        }
    }
}
