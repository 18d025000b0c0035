//! A part of the tree, kept as a copy by a recursive persistent watch: reading it costs no packet, and an
//! idle fleet sends none.
//!
//! One thread sets the watch, reads the tree, and then reads again each znode that an event names. A new
//! connection has no watch, so it begins from the start there. A full re-read once in a while is a net under
//! it that should never catch anything.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use nodepool_threads::{StopSource, StopToken, Thread, activity, spawn};
use parking_lot::RwLock;
use slog::{Logger, debug, warn};

use super::client::TreeEvent;
use super::error::{ZkErrorKind, ZkResult};
use super::lock;
use super::session::Session;
use super::tree::Node;

/// How often everything is read again without a reason.
const FULL_READ: Duration = Duration::from_secs(15 * 60);
/// Events that may wait while others are worked through. More of them hold up only the crate's event thread.
const EVENTS: usize = 1024;

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
    tree: Arc<RwLock<Node>>,
    stop: StopSource,
    _thread: Thread<()>,
}

impl TreeCache {
    /// Begins to copy what is below `root`. Each change is in the copy before it is announced on the
    /// returned channel; the first announcement says that the copy is complete.
    pub fn start(session: &Session, root: &str, log: &Logger) -> io::Result<(Self, Receiver<Changes>)> {
        let tree = Arc::new(RwLock::new(Node::default()));
        let stop = StopSource::new();
        let (tell, changes) = bounded(64);
        let keeper = Keeper {
            session: session.clone(),
            connections: session.subscribe(),
            root: root.to_owned(),
            tree: Arc::clone(&tree),
            tell,
            log: log.clone(),
        };
        let token = stop.token();
        let thread = spawn("zk-tree", "ZooKeeper tree cache", move || keeper.run(&token))?;
        Ok((Self { tree, stop, _thread: thread }, changes))
    }

    /// Looks at the copy. Nothing that takes long may be done meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(&self.tree.read())
    }
}

impl Drop for TreeCache {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

struct Keeper {
    session: Session,
    connections: Receiver<()>,
    root: String,
    tree: Arc<RwLock<Node>>,
    tell: Sender<Changes>,
    log: Logger,
}

impl Keeper {
    fn run(self, stop: &StopToken) {
        while !stop.is_stopped() {
            if let Err(error) = self.follow_connection(stop) {
                debug!(self.log, "the copy of the tree begins anew"; "root" => &self.root, "reason" => %error);
                // Comes at once when there is a connection; a server that refuses is asked again later.
                let pause = if error.is(ZkErrorKind::Unavailable) { 20 } else { 1000 };
                let _ = stop.wait(Duration::from_millis(pause));
            }
        }
    }

    /// Keeps the copy for as long as one connection lasts.
    fn follow_connection(&self, stop: &StopToken) -> ZkResult<()> {
        self.session.ensure_path(&self.root)?;
        let (sender, events) = bounded(EVENTS);
        let watched = self.session.watch_tree(&self.root, &sender)?;
        self.read_everything()?;
        let mut next_full_read = Instant::now() + FULL_READ;
        loop {
            let Some(event) = self.next_event(&events, next_full_read, stop) else { return Ok(()) };
            match event {
                Event::Tree(first) => self.apply(first, &events)?,
                Event::Session if self.session.status().connection != watched.connection => return Ok(()),
                Event::Session => {}
                Event::FullRead => {
                    self.read_everything()?;
                    next_full_read = Instant::now() + FULL_READ;
                }
            }
        }
    }

    fn next_event(
        &self,
        events: &Receiver<TreeEvent>,
        full_read: Instant,
        stop: &StopToken,
    ) -> Option<Event> {
        // The stop of this cache is the only one in its token.
        let stopped = stop.stops().first()?;
        select! {
            recv(stopped) -> _ => None,
            recv(events) -> event => event.ok().map(Event::Tree),
            recv(self.connections) -> changed => changed.ok().map(|()| Event::Session),
            default(full_read.saturating_duration_since(Instant::now())) => Some(Event::FullRead),
        }
    }

    fn read_everything(&self) -> ZkResult<()> {
        let _doing = activity("reading the tree");
        let fresh = Node::read(&self.session, &self.root)?.unwrap_or_default();
        *self.tree.write() = fresh;
        self.announce(Changes::All);
        Ok(())
    }

    /// Reads what the waiting events name, each znode once, and announces it together.
    fn apply(&self, first: TreeEvent, events: &Receiver<TreeEvent>) -> ZkResult<()> {
        let _doing = activity("applying changes");
        let mut changed = BTreeSet::new();
        let mut read = BTreeSet::new();
        for event in std::iter::once(first).chain(events.try_iter().take(EVENTS)) {
            let path = match &event {
                TreeEvent::Changed(path) | TreeEvent::Deleted(path) => path,
            };
            let Some(below) = path.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            changed.extend(below.split('/').next().map(str::to_owned));
            match event {
                TreeEvent::Deleted(_) => {
                    self.tree.write().remove(below);
                    read.remove(below);
                }
                TreeEvent::Changed(_) if read.insert(below.to_owned()) => self.refresh(below)?,
                // What was read after the first of several events is what the last of them wrote, or newer.
                TreeEvent::Changed(_) => self.refresh(below)?,
            }
        }
        self.announce(Changes::Below(changed));
        Ok(())
    }

    fn refresh(&self, below: &str) -> ZkResult<()> {
        if below.rsplit('/').next().is_some_and(lock::is_contender) {
            self.tree.write().at_or_insert(below);
            return Ok(());
        }
        match self.session.get(&format!("{}/{below}", self.root)) {
            Ok((data, stat)) => {
                let mut tree = self.tree.write();
                let node = tree.at_or_insert(below);
                (node.data, node.version, node.created) = (data, stat.version, stat.created());
            }
            Err(error) if error.is(ZkErrorKind::NoNode) => self.tree.write().remove(below),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn announce(&self, changes: Changes) {
        if self.tell.send(changes).is_err() {
            warn!(self.log, "nobody listens to the copy of the tree"; "root" => &self.root);
        }
    }
}

enum Event {
    Tree(TreeEvent),
    Session,
    FullRead,
}
