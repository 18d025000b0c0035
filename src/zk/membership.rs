//! The entries of this daemon among the components of the fleet: made again for each new session, and written anew
//! when what they say has changed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use nodepool_threads::{Mutex, StopSource, Thread, spawn};
use slog::{Logger, info, warn};

use super::component::{Component, Description};
use super::error::{ZkErrorKind, ZkResult, optional};
use super::session::{Interrupter, Session};
use super::status::Generation;

/// How long to wait before a server that refuses is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// As good as for ever.
const IDLE: Duration = Duration::from_secs(3600);

/// The thread that keeps the entries. They go with the session.
pub struct Membership {
    // Dropped in this order: the thread is told to end, its calls are ended, and then it is waited for.
    _stop: StopSource,
    _interrupter: Interrupter,
    wanted: Arc<Mutex<BTreeMap<String, Description>>>,
    changed: Sender<()>,
    registered: Arc<AtomicBool>,
    _thread: Thread<()>,
}

impl Membership {
    /// Keeps these entries as soon as there is a session, and in each further one. Their keys mean nothing to others.
    pub fn start(
        session: &Session,
        entries: BTreeMap<String, Description>,
        log: &Logger,
    ) -> io::Result<Self> {
        let stop = StopSource::new();
        let (session, interrupter) = session.interruptible();
        let wanted = Arc::new(Mutex::new("membership", entries));
        let (changed, changes) = bounded(1);
        let registered = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            connections: session.subscribe(),
            session,
            wanted: Arc::clone(&wanted),
            changes,
            registered: Arc::clone(&registered),
            entries: BTreeMap::new(),
            generation: None,
            log: log.clone(),
        };
        let stopped = stop.stopped().clone();
        let thread = spawn("membership", "component registration", move || keeper.run(&stopped))?;
        Ok(Self { _stop: stop, _interrupter: interrupter, wanted, changed, registered, _thread: thread })
    }

    /// Whether the entries were made in the session that there was last.
    pub fn is_registered(&self) -> bool {
        self.registered.load(Ordering::SeqCst)
    }

    /// The keys of the entries that are wanted now.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<String> {
        self.wanted.lock().keys().cloned().collect()
    }

    /// Keeps another entry under this key from now on, or none.
    pub fn set(&self, key: &str, entry: Option<Description>) {
        let mut wanted = self.wanted.lock();
        if wanted.get(key) == entry.as_ref() {
            return;
        }
        match entry {
            Some(entry) => _ = wanted.insert(key.to_owned(), entry),
            None => _ = wanted.remove(key),
        }
        // A message that waits already tells of this change too.
        let _ = self.changed.try_send(());
    }
}

/// An entry that was made.
struct Entry {
    component: Component,
    /// What it says; `None` after a change whose outcome is unknown.
    says: Option<Description>,
}

struct Keeper {
    session: Session,
    connections: Receiver<()>,
    wanted: Arc<Mutex<BTreeMap<String, Description>>>,
    changes: Receiver<()>,
    registered: Arc<AtomicBool>,
    entries: BTreeMap<String, Entry>,
    /// The session that the entries are made in.
    generation: Option<Generation>,
    log: Logger,
}

impl Keeper {
    fn run(mut self, stopped: &Receiver<Infallible>) {
        loop {
            let status = self.session.status();
            let mut patience = IDLE;
            if status.is_connected() {
                if self.generation != Some(status.generation) {
                    self.registered.store(false, Ordering::SeqCst);
                    self.entries.clear();
                    self.generation = Some(status.generation);
                }
                // Pinned, so that an entry is never made in a later session than the one it is noted for.
                match self.follow(&self.session.pinned(status.generation)) {
                    Ok(()) => self.registered.store(true, Ordering::SeqCst),
                    Err(error) if error.is(ZkErrorKind::SessionLost) => continue,
                    Err(error) => {
                        warn!(self.log, "cannot register the component, trying again"; "reason" => %error);
                        patience = RETRY;
                    }
                }
            }
            select! {
                recv(stopped) -> _ => return,
                recv(self.connections) -> changed => if changed.is_err() { return },
                recv(self.changes) -> changed => if changed.is_err() { return },
                default(patience) => {}
            }
        }
    }

    /// Makes the entries what is wanted.
    fn follow(&mut self, session: &Session) -> ZkResult<()> {
        let wanted = self.wanted.lock().clone();
        let gone: Vec<_> = self.entries.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            // Forgotten only once it is gone, so that it is tried again.
            if let Some(Entry { component, .. }) = self.entries.get(&key) {
                component.unregister(session)?;
                info!(self.log, "unregistered"; "component" => component.path());
                self.entries.remove(&key);
            }
        }
        for (key, description) in wanted {
            if let Some(Entry { component, says }) = self.entries.get_mut(&key) {
                if says.as_ref() == Some(&description) {
                    continue;
                }
                *says = None;
                // Where somebody has deleted it, it is made anew.
                if optional(component.change(session, &description))?.is_some() {
                    *says = Some(description);
                    continue;
                }
            }
            let component = Component::register(session, &description)?;
            info!(self.log, "registered"; "component" => component.path());
            self.entries.insert(key, Entry { component, says: Some(description) });
        }
        Ok(())
    }
}
