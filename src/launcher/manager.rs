//! The launcher thread: it keeps what is known of the fleet, has nodes kept in stock, and starts and stops the
//! providers. It makes no call that could block.

mod following;
mod keeping;
mod knowing;
mod stocking;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nodepool_drivers::api::ProviderConfig;
use nodepool_threads::{Finished, Pauses, Pool, activity, activity_within, trim_memory};
use slog::{Logger, error, info, o, warn};
use uuid::Uuid;

use super::cleaner::orphans;
use super::errand_queue::ErrandQueue;
use super::errands::{Errand, What};
use super::event::{Event, Inbox};
use super::facts::label_ready;
use super::metrics;
use super::min_ready;
use super::provider_worker::{ProviderWorker, entry_key};
use super::shared::{Shared, State};
use super::standing::Keeper;
use super::tools::Tools;
use super::world::{Kind, Node};
use crate::config::{Config, ConfigError, Loaded, Reload, WebApp, same_provider};
use crate::model::RequestState;
use crate::stats::Stats;
use crate::window::{Followed, Stopped};
use crate::zk::{
    Changes, Generation, Interrupter, Membership, Nodes, Requests, Session, TreeCache, decode_image,
    decode_node, decode_pool, decode_request,
};

/// How long the work on one event may take: it makes no call.
const DECIDING: Duration = Duration::from_secs(1);
/// How often what others have left is looked for without a reason.
const ROUND: Duration = Duration::from_secs(60);
/// How often locks of old requests are looked for: each has to be asked for its age.
const SWEEP_ROUND: Duration = Duration::from_secs(3600);
/// How long to wait after a label's requests for stock have failed.
const STOCK_PAUSES: Pauses = Pauses { first: Duration::from_secs(10), longest: Duration::from_secs(80) };
/// How long to wait before a provider is opened again that could not be, or whose thread has ended by itself.
const OPEN_PAUSE: Duration = Duration::from_secs(10);
/// How often the statistics of the fleet are sent.
const STATS_ROUND: Duration = Duration::from_secs(1);
/// How often the lengths of this launcher's own queues are.
const QUEUES_ROUND: Duration = Duration::from_secs(10);
/// How long nothing must have happened for the memory of a burst to be given back.
const QUIET: Duration = Duration::from_secs(2);
/// How long cancelled work may take to come back when the daemon stops: it has ten seconds in all.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long of that it may wait for a connection to ZooKeeper.
const LAST_WORDS: Duration = Duration::from_secs(6);

/// The copies of the tree.
pub(super) struct Trees {
    pub(super) nodes: TreeCache,
    pub(super) requests: TreeCache,
    pub(super) pools: TreeCache,
    pub(super) images: TreeCache,
}

impl Trees {
    fn of(&self, kind: Kind) -> &TreeCache {
        match kind {
            Kind::Nodes => &self.nodes,
            Kind::Requests => &self.requests,
            Kind::Pools => &self.pools,
            Kind::Images => &self.images,
        }
    }
}

/// The launcher.
pub(super) struct Launcher {
    pub(super) config: Arc<Config>,
    pub(super) hostname: String,
    pub(super) session: Session,
    /// Ends what jobs wait for in the session.
    pub(super) interrupter: Interrupter,
    pub(super) nodes: Nodes,
    pub(super) requests: Requests,
    pub(super) trees: Trees,
    pub(super) shared: Arc<Shared>,
    pub(super) membership: Arc<Membership>,
    pub(super) errands: Pool<Errand>,
    /// Told of what no copy of the tree shows: the thread of a provider has ended, other machines are away.
    pub(super) nudge: Sender<()>,
    pub(super) stats: Stats,
    pub(super) web_settings: Followed<WebApp>,
    pub(super) reload: Reload,
    pub(super) log: Logger,
    pub(super) own: Own,
}

/// What only the launcher thread knows.
#[derive(Default)]
pub(super) struct Own {
    workers: BTreeMap<String, ProviderWorker>,
    /// Those that are stopping.
    retiring: Vec<ProviderWorker>,
    /// By provider, and those that are stopping.
    keepers: BTreeMap<String, Arc<Keeper>>,
    leaving: Vec<(String, Arc<Keeper>)>,
    /// Providers that had machines.
    departed: BTreeSet<String>,
    /// The ids of pools, which stay as long as this process lives.
    ids: BTreeMap<(String, String), String>,
    /// Which copies of the tree are complete.
    complete: BTreeSet<Kind>,
    queue: ErrandQueue,
    /// Our own requests for stock, with their labels; and how many of each label are being made.
    made: BTreeMap<String, String>,
    making: BTreeMap<String, u64>,
    /// Those of our own requests that were not there when they were looked for last.
    unseen: BTreeSet<String>,
    stock_pauses: BTreeMap<String, Instant>,
    /// How many requests for stock of a label have failed since one had its node.
    stock_failures: BTreeMap<String, u32>,
    /// The labels for stock that no pool can launch yet.
    bare: BTreeSet<String>,
    /// When providers are opened that could not be, or whose threads have ended by themselves.
    reopen: BTreeMap<String, Instant>,
    generation: Option<Generation>,
    damaged: BTreeSet<(String, String)>,
    leads: bool,
    /// Not before the copies of the tree are complete: what they lack would count as gone.
    stats_due: Option<Instant>,
    /// When the lengths of this launcher's own queues are told.
    queues_due: Option<Instant>,
    /// When the memory that recent events have taken is given back.
    trim_due: Option<Instant>,
    next_round: Option<Instant>,
    next_sweep: Option<Instant>,
}

impl Launcher {
    /// Runs until it is stopped.
    pub(super) fn run(mut self, inbox: &mut Inbox) -> Stopped {
        {
            let _doing = activity_within(DECIDING, "beginning");
            self.follow_config();
        }
        loop {
            let event = inbox.next_event(self.deadline());
            let _doing = activity_within(DECIDING, "deciding");
            match event {
                Event::Stop => break,
                Event::Deadline => {}
                Event::Question(question) => {
                    // Nobody may be waiting any more.
                    let _ = question.try_send(Box::new(self.view()));
                    continue;
                }
                event => {
                    self.own.trim_due = Some(Instant::now() + QUIET);
                    self.handle_event(event);
                }
            }
            self.step();
        }
        self.stop(inbox)
    }

    /// What the workers of the open providers work with, by the providers' names.
    pub(super) fn open_providers(&self) -> impl Iterator<Item = &Tools> {
        self.own.workers.values().map(|worker| &*worker.tools)
    }

    /// Whether it reports the statistics of the fleet.
    pub(super) fn leads(&self) -> bool {
        self.own.leads
    }

    fn deadline(&self) -> Instant {
        let own = &self.own;
        let pauses = own.stock_pauses.values().chain(own.reopen.values()).copied();
        let again = own.queue.next_pause(Instant::now());
        let others = [own.next_round, own.stats_due, own.queues_due, own.trim_due, again];
        let first = pauses.chain(others.into_iter().flatten()).min();
        first.unwrap_or_else(|| Instant::now() + ROUND)
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Nodes(changes) => self.note_nodes(changes),
            Event::Requests(changes) => self.note_requests(changes),
            Event::Pools(changes) => self.note_pools(changes),
            Event::Images(changes) => self.note_images(changes),
            Event::Config(change) => self.take_config(change),
            Event::ErrandDone(done) => self.take_errand(*done),
            Event::ConfigUnwatched => error!(
                self.log,
                "the configuration is not watched any more, the last one stays in force; this is a bug"
            ),
            Event::Session => self.note_session(),
            Event::Leader(leads) => {
                self.own.leads = leads;
                let complete = self.shared.lock().complete;
                self.own.stats_due = (leads && complete).then(Instant::now);
            }
            Event::Nudge | Event::Question(_) | Event::Deadline | Event::Stop => {}
        }
    }

    fn step(&mut self) {
        let at = Instant::now();
        let before = self.own.reopen.len();
        self.own.reopen.retain(|_, due| *due > at);
        if self.own.reopen.len() < before {
            self.follow_config();
        }
        if self.own.trim_due.is_some_and(|due| due <= at) {
            self.own.trim_due = None;
            trim_memory();
        }
        self.own.stock_pauses.retain(|_, until| *until > at);
        self.retire_dead();
        self.bury();
        self.bury_keepers();
        let is_complete = self.shared.lock().complete;
        if is_complete {
            if self.own.next_round.is_none_or(|due| due <= at) {
                self.own.next_round = Some(at + ROUND);
                self.begin_round();
            }
            self.keep_stock();
            self.give_back_orphans();
            self.reset_abandoned();
            self.clear_departed();
        }
        self.send_errands();
        if self.own.leads && self.own.stats_due.is_some_and(|due| due <= at) {
            // The next ones are due when something has changed.
            self.own.stats_due = None;
            let metrics = metrics::fleet(&self.shared.lock());
            self.stats.send(metrics);
        }
        if self.stats.is_on() && self.own.queues_due.is_none_or(|due| due <= at) {
            self.own.queues_due = Some(at + QUEUES_ROUND);
            self.stats.send(metrics::queues(&self.hostname, &self.session, &self.trees));
        }
        for worker in self.own.workers.values() {
            worker.poke();
        }
    }

    fn stop(mut self, inbox: &Inbox) -> Stopped {
        let _doing = activity_within(STOP_LIMIT, "stopping");
        info!(self.log, "stopping");
        self.errands.stop_jobs();
        let workers = std::mem::take(&mut self.own.workers).into_values();
        let workers: Vec<_> = workers.chain(std::mem::take(&mut self.own.retiring)).collect();
        workers.iter().for_each(ProviderWorker::stop);
        let keepers = std::mem::take(&mut self.own.keepers).into_iter();
        let keepers: Vec<_> = keepers.chain(std::mem::take(&mut self.own.leaving)).collect();
        keepers.iter().for_each(|(_, keeper)| keeper.stop());
        let begin = Instant::now();
        let mut overdue = false;
        for worker in &workers {
            if !worker.wait_over(begin + LAST_WORDS) {
                self.interrupter.interrupt();
                overdue |= !worker.wait_over(begin + STOP_LIMIT);
            }
        }
        for (_, keeper) in &keepers {
            if !keeper.wait_over(begin + LAST_WORDS) {
                self.interrupter.interrupt();
                overdue |= !keeper.wait_over(begin + STOP_LIMIT);
            }
        }
        while inbox.next_finished(Instant::now()).is_some() {}
        if overdue {
            error!(self.log, "not all providers have stopped in time");
            std::mem::forget((workers, keepers, self.errands));
            return Stopped::Overdue;
        }
        let unclean = workers.into_iter().filter_map(|worker| (!worker.join()).then_some(())).count();
        info!(self.log, "stopped");
        if unclean == 0 { Stopped::Clean } else { Stopped::Overdue }
    }
}

/// Whether it is known of the provider that one of its pools has this label, but not what it boots from.
fn lacks_image(state: &State, tools: &Tools, label: &str) -> bool {
    let Some(facts) = state.facts(&tools.name).filter(|_| tools.keeper.is_none()) else { return false };
    let mut pools = tools.pools().into_iter().filter(|pool| pool.labels.contains_key(label));
    pools.any(|pool| label_ready(&state.world, &tools.name, pool, Some(&facts), label) == Some(false))
}

/// Whether a pool of the provider could launch a node of this label.
fn can_launch(state: &State, tools: &Tools, label: &str) -> bool {
    // Machines have their nodes anyway.
    let Some(facts) = state.facts(&tools.name).filter(|_| tools.keeper.is_none()) else { return false };
    let may = |limit: Option<i64>| limit.is_none_or(|limit| limit > 0);
    tools.pools().into_iter().any(|pool| {
        may(pool.limits.get("instances"))
            && label_ready(&state.world, &tools.name, pool, Some(&facts), label) == Some(true)
    })
}
