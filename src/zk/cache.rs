//! A part of the tree, kept as a copy by a recursive persistent watch: reading it costs no packet, and an
//! idle fleet sends none.
//!
//! One thread sets the watch, reads the tree, and then reads again each znode that an event names. A new
//! connection has no watch, so it begins from the start there. A full re-read once in a while is a net under
//! it that should never catch anything.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use nodepool_threads::{Mutex, StopSource, StopToken, Thread, activity, spawn};
use slog::{Logger, debug, warn};

use super::children::Children;
use super::client::TreeEvent;
use super::error::{ZkErrorKind, ZkResult, optional};
use super::lock;
use super::session::{Interrupter, Session};
use super::tree::Node;

/// How often everything is read again without a reason.
const FULL_READ: Duration = Duration::from_secs(60 * 60);
/// Events that may wait while others are worked through. More of them hold up only the crate's event thread.
const EVENTS: usize = 1024;

/// How long to wait before a server that refuses is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// The pause after the server has refused something.
const RETRY_REFUSED: Duration = Duration::from_secs(60);

/// What has changed since the last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Possibly everything: the tree has been read anew.
    All,
    /// Something at or below these children of the root.
    Below(BTreeSet<String>),
}

/// The copy. Dropping it ends its thread.
pub struct TreeCache {
    tree: Arc<Mutex<Node>>,
    queues: Arc<Queues>,
    /// For its length only: what the reader has not taken.
    untaken: Receiver<Changes>,
    stop: StopSource,
    interrupter: Interrupter,
    _thread: Thread<()>,
}

impl TreeCache {
    /// Begins to copy what is below `root`. Each change is in the copy before it is announced on the
    /// returned channel; the first announcement says that the copy is complete. A reader that falls behind
    /// holds nothing up: what it has missed is announced together.
    pub fn start(session: &Session, root: &str, log: &Logger) -> io::Result<(Self, Receiver<Changes>)> {
        let tree = Arc::new(Mutex::new("zk tree", Node::default()));
        let queues = Arc::new(Queues::default());
        let stop = StopSource::new();
        let (tell, changes) = bounded(1);
        let (session, interrupter) = session.interruptible();
        let keeper = Keeper {
            stopped: stop.stopped().clone(),
            connections: session.subscribe(),
            session,
            root: root.to_owned(),
            tree: Arc::clone(&tree),
            queues: Arc::clone(&queues),
            tell,
            pending: None,
            log: log.clone(),
        };
        let token = stop.token();
        let thread = spawn("zk-tree", "ZooKeeper tree cache", move || keeper.run(&token))?;
        let untaken = changes.clone();
        Ok((Self { tree, queues, untaken, stop, interrupter, _thread: thread }, changes))
    }

    /// Looks at the copy. Nothing that takes long may be done meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(&self.tree.lock())
    }

    /// How many events of the watch were not worked through when the thread looked last, and how many changed names the
    /// reader has not taken.
    pub fn queued(&self) -> (usize, usize) {
        let Queues { events, pending, told } = &*self.queues;
        let told = if self.untaken.is_empty() { 0 } else { told.load(Ordering::SeqCst) };
        (events.load(Ordering::SeqCst), pending.load(Ordering::SeqCst) + told)
    }

    /// For those who look at the copy without owning it.
    pub fn reader(&self) -> TreeReader {
        TreeReader(Arc::clone(&self.tree))
    }
}

/// What waits.
#[derive(Default)]
struct Queues {
    events: AtomicUsize,
    /// Changed names that the reader was not told yet.
    pending: AtomicUsize,
    /// Those of the last message to it.
    told: AtomicUsize,
}

/// Looks at the copy of a [`TreeCache`]; once that is gone, at what it had last.
#[derive(Clone)]
pub struct TreeReader(Arc<Mutex<Node>>);

impl TreeReader {
    /// The names below the root.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().children.names().map(str::to_owned).collect()
    }

    /// A copy of what is at one of these names: the tree is held only for as long as that takes.
    pub fn copy(&self, name: &str) -> Option<Node> {
        self.0.lock().children.get(name).cloned()
    }
}

impl Drop for TreeCache {
    fn drop(&mut self) {
        self.stop.stop();
        self.interrupter.interrupt();
    }
}

struct Keeper {
    session: Session,
    stopped: Receiver<Infallible>,
    connections: Receiver<()>,
    root: String,
    tree: Arc<Mutex<Node>>,
    queues: Arc<Queues>,
    tell: Sender<Changes>,
    /// What the reader was not told yet.
    pending: Option<Changes>,
    log: Logger,
}

/// What happens to the copy.
enum Event {
    Tree(TreeEvent),
    Session,
    FullRead,
    /// Nothing will come from the watch any more.
    WatchEnded,
    /// The cache is over.
    End,
}

impl Keeper {
    fn run(mut self, stop: &StopToken) {
        while !stop.is_stopped() {
            if let Err(error) = self.follow_connection() {
                // A lost connection tells of itself. What the server refuses will be refused again, and every
                // attempt on the same connection leaves a watch behind.
                let refused = error.is(ZkErrorKind::Refused);
                if refused {
                    warn!(self.log, "the tree cannot be copied; ZooKeeper 3.6 or later is needed, and the right to read";
                        "root" => &self.root, "reason" => %error);
                } else {
                    debug!(self.log, "the copy of the tree begins anew"; "root" => &self.root, "reason" => %error);
                }
                // Ends early when the session changes.
                let _ = stop.recv_timeout(&self.connections, if refused { RETRY_REFUSED } else { RETRY });
            }
        }
    }

    /// Keeps the copy for as long as one connection lasts.
    fn follow_connection(&mut self) -> ZkResult<()> {
        self.session.ensure_path(&self.root)?;
        let (sender, events) = bounded(EVENTS);
        let watched = self.session.watch_tree(&self.root, &sender)?;
        // Kept only by the watch: when its client ends, the channel does.
        drop(sender);
        self.read_everything()?;
        let mut next_full_read = Instant::now() + FULL_READ;
        loop {
            match self.next_event(&events, next_full_read) {
                Event::Tree(first) => {
                    self.queues.events.store(events.len() + 1, Ordering::SeqCst);
                    self.apply(std::iter::once(first).chain(events.try_iter().take(EVENTS)))?;
                    self.queues.events.store(events.len(), Ordering::SeqCst);
                }
                Event::Session if self.session.status().connection != watched.connection => return Ok(()),
                Event::Session => {}
                Event::FullRead => {
                    self.read_everything()?;
                    next_full_read = Instant::now() + FULL_READ;
                }
                Event::WatchEnded => {
                    // Of itself a watch only ends with its connection. If that still stands, the crate's
                    // thread for events has died, and no other watch on this connection would be served.
                    self.session.distrust(watched.connection);
                    return Ok(());
                }
                Event::End => return Ok(()),
            }
        }
    }

    /// Waits for the next event; meanwhile the reader may take what is pending.
    fn next_event(&mut self, events: &Receiver<TreeEvent>, full_read: Instant) -> Event {
        let (nobody, _nothing_to_tell) = bounded(0);
        loop {
            let waiting = match &self.pending {
                None => 0,
                Some(Changes::All) => 1,
                Some(Changes::Below(names)) => names.len(),
            };
            self.queues.pending.store(waiting, Ordering::SeqCst);
            let reader = if self.pending.is_some() { &self.tell } else { &nobody };
            select! {
                recv(self.stopped) -> _ => return Event::End,
                recv(events) -> event => return event.map_or(Event::WatchEnded, Event::Tree),
                recv(self.connections) -> changed => return changed.map_or(Event::End, |()| Event::Session),
                send(reader, self.pending.take().unwrap_or(Changes::All)) -> _ => {
                    self.queues.told.store(waiting, Ordering::SeqCst);
                }
                default(full_read.saturating_duration_since(Instant::now())) => return Event::FullRead,
            }
        }
    }

    fn read_everything(&mut self) -> ZkResult<()> {
        let _doing = activity("reading the tree");
        let fresh = Node::read_wide(&self.session, &self.root)?.unwrap_or_default();
        *self.tree.lock() = fresh;
        self.announce(Changes::All);
        Ok(())
    }

    /// Reads each znode that the events name once, after the last of them, and announces it together.
    fn apply(&mut self, events: impl Iterator<Item = TreeEvent>) -> ZkResult<()> {
        let _doing = activity("applying changes");
        // Parents come before their children.
        let mut touched = BTreeMap::new();
        for event in events {
            let (path, exists) = match &event {
                TreeEvent::Changed(path) => (path, true),
                TreeEvent::Deleted(path) => (path, false),
            };
            if let Some(below) = path.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/')) {
                touched.insert(below.to_owned(), exists);
            }
        }
        let children =
            touched.keys().filter_map(|below| below.split('/').next()).map(str::to_owned).collect();
        for (below, exists) in touched {
            self.refresh(&below, exists)?;
        }
        self.announce(Changes::Below(children));
        Ok(())
    }

    /// Brings one node up to date; `exists` is what the last event said.
    fn refresh(&self, below: &str, exists: bool) -> ZkResult<()> {
        // A contender's name is used once only and its data are not wanted, so the event says everything.
        let is_contender = below.rsplit('/').next().is_some_and(lock::is_contender);
        let found = match is_contender {
            true => exists.then(Node::default),
            false => optional(self.session.get(&format!("{}/{below}", self.root)))?.map(|(data, stat)| {
                Node { data, version: stat.version, created: stat.created(), children: Children::default() }
            }),
        };
        match found {
            Some(node) => self.tree.lock().put(below, node),
            None => self.tree.lock().remove(below),
        }
        Ok(())
    }

    fn announce(&mut self, news: Changes) {
        self.pending = Some(match (self.pending.take(), news) {
            (None, news) => news,
            (Some(Changes::Below(mut known)), Changes::Below(mut new)) => {
                known.append(&mut new);
                Changes::Below(known)
            }
            (Some(_), _) => Changes::All,
        });
    }
}
