//! The handle of the thread that keeps the nodes of one provider's machines.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use nodepool_drivers::api::{Machine, MachineId};
use nodepool_threads::{Mutex, StopToken, Thread, spawn};
use slog::{Logger, o, warn};

use super::job::answers;
use super::record;
use super::working::Working;
use crate::launcher::ended::{Ended, Running};
use crate::launcher::key_scan::ScanError;
use crate::model::NodeRecord;
use crate::zk::{ListedNode, Nodes};

/// Keeps the nodes of one provider's machines, until it is dropped.
///
/// It knows the provider's nodes from [`Keeper::saw_all`] and [`Keeper::saw`] only, and does nothing before the former
/// was called. None of its methods waits for anything, but for [`Keeper::check`].
pub struct Keeper {
    news: Arc<Mutex<News>>,
    log: Logger,
    ended: Ended,
    // Dropped before the thread, which ends by that.
    wake: Sender<()>,
    _thread: Thread<()>,
}

/// Machines that cannot be used, with what they do instead, such as that one "does not answer".
pub type Away = BTreeMap<MachineId, &'static str>;

/// What the thread has to know, and what it has not heard yet.
pub(super) struct News {
    /// The provider's nodes; `None` until the copy of the tree is complete.
    pub(super) nodes: Option<BTreeMap<String, ListedNode>>,
    /// The machines that are configured.
    pub(super) machines: Arc<[Machine]>,
    /// Machines that did not answer when somebody else asked.
    pub(super) silent: BTreeSet<MachineId>,
    /// Machines that could not be used the last time.
    pub(super) away: Away,
    /// Whether it is to end.
    pub(super) stopping: bool,
}

impl Keeper {
    /// Starts the thread for `provider`, which has `machines` and keeps its nodes in `nodes`. Whoever reads from
    /// `nudge` learns that other machines are away than before, or that the thread has ended.
    ///
    /// # Errors
    /// When the system has no room for its threads.
    pub fn start(
        provider: &str,
        machines: &[Machine],
        nodes: &Nodes,
        nudge: &Sender<()>,
        log: &Logger,
    ) -> io::Result<Self> {
        let log = log.new(o!("provider" => provider.to_owned()));
        let (wake, woken) = bounded(1);
        let news = News {
            nodes: None,
            machines: machines.into(),
            silent: BTreeSet::new(),
            away: Away::new(),
            stopping: false,
        };
        let news = Arc::new(Mutex::new("news of machines", news));
        let (work, finished) = Working::new(provider, nodes, &news, nudge, &log)?;
        let (running, ended) = Running::new(nudge);
        let thread = spawn(format!("standing-{provider}"), "keeper of machines", move || {
            // Dropped in this order: the work, what has come back to it, and the sign that it runs.
            let _running = running;
            let finished = finished;
            work.run(&woken, &finished);
        })?;
        Ok(Self { news, log, ended, wake, _thread: thread })
    }

    /// The configuration has changed. Machines that are new or different are looked at again.
    pub fn configure(&self, machines: &[Machine]) {
        self.tell(|news| news.machines = machines.into());
    }

    /// All nodes of the provider, when the tree has been read anew.
    pub fn saw_all(&self, nodes: impl IntoIterator<Item = ListedNode>) {
        let nodes = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
        self.tell(|news| news.nodes = Some(nodes));
    }

    /// A node of the provider is new or has changed; or, `None`, a node of anybody's is gone.
    pub fn saw(&self, id: &str, node: Option<ListedNode>) {
        let is_news = match (&mut self.news.lock().nodes, node) {
            (None, _) => false,
            (Some(nodes), Some(node)) => nodes.insert(id.to_owned(), node.clone()) != Some(node),
            (Some(nodes), None) => nodes.remove(id).is_some(),
        };
        if is_news {
            self.wake();
        }
    }

    /// The connection is lost: what was seen may be out of date, and nothing is done until [`Keeper::saw_all`] is
    /// called.
    pub fn lost_sight(&self) {
        self.tell(|news| news.nodes = None);
    }

    /// Has it end: running jobs are told to, and nothing is begun any more.
    pub fn stop(&self) {
        self.tell(|news| news.stopping = true);
    }

    /// Whether it has ended, which only a bug makes it do by itself.
    pub fn is_over(&self) -> bool {
        self.ended.is_over()
    }

    /// Waits until it has ended, until `deadline` at most. True if it has.
    pub fn wait_over(&self, deadline: Instant) -> bool {
        self.ended.wait_over(deadline)
    }

    /// The machines that could not be used the last time: what they have is not to be waited for.
    pub fn away(&self) -> Away {
        self.news.lock().away.clone()
    }

    /// Whether a ready node may be given to a request: its machine is configured and answers, which is waited for as
    /// long as its timeout says. The ready nodes of one that does not answer are taken away.
    pub fn check(&self, record: &NodeRecord, stop: &StopToken) -> bool {
        let Some(id) = record::identity(record) else { return false };
        let machines = Arc::clone(&self.news.lock().machines);
        let Some(machine) = machines.iter().find(|machine| machine.identity() == id) else { return false };
        match answers(machine, stop) {
            Ok(()) => true,
            Err(ScanError::Stopped) => false,
            Err(error) => {
                warn!(self.log, "a machine was to be given to a request: {error}"; "machine" => %id);
                self.tell(|news| news.silent.extend([id]));
                false
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news.lock());
        self.wake();
    }

    fn wake(&self) {
        // There is room for one; a second would say nothing new.
        let _ = self.wake.try_send(());
    }
}
