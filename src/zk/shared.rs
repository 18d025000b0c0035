//! What the session's handles and its supervisor share: the current connection, or why there is none.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use nodepool_threads::{Condvar, Mutex};
use slog::Logger;

use super::client::{Client, Failure};
use super::status::{Connection, Generation, Status};

/// What the handles and the supervisor share.
pub(super) struct Shared {
    pub(super) log: Logger,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    /// How many calls have not come to their end.
    pub(super) calls: AtomicUsize,
}

pub(super) struct State {
    pub(super) status: Status,
    pub(super) client: Option<Arc<Client>>,
    /// The session timeout: as configured, until a server has granted another one.
    pub(super) timeout: Duration,
    /// Why there is no connection.
    pub(super) trouble: String,
    /// What must be deleted on the next connection before anybody else gets it. Only filled while there is
    /// none, so that nothing is forgotten until the one after.
    pub(super) orphans: Vec<Orphan>,
    pub(super) subscribers: Vec<Sender<()>>,
    /// The program ends: nobody waits for a connection any more.
    pub(super) ending: bool,
}

/// Ephemeral znodes of the session that are no longer wanted.
#[derive(Debug, Clone)]
pub(super) enum Orphan {
    /// The one at this path.
    At(String),
    /// One that may have been made under this path with ten digits added.
    Sequential(String),
}

impl Orphan {
    /// Its path, or what it begins with.
    pub(super) fn path(&self) -> &str {
        match self {
            Self::At(path) | Self::Sequential(path) => path,
        }
    }

    /// Deletes it. Fails only with the connection: what the server refuses is refused the next time too.
    pub(super) fn delete(&self, client: &Client) -> Result<(), Failure> {
        let paths = match self {
            Self::At(path) => vec![path.clone()],
            Self::Sequential(prefix) => client.find_own(prefix).or_else(Failure::unless_lost)?,
        };
        paths.iter().try_for_each(|path| client.delete(path, None).or_else(Failure::unless_lost))
    }
}

impl Shared {
    pub(super) fn new(timeout: Duration, log: &Logger) -> Self {
        let state = State {
            status: Status { state: Connection::Lost, generation: Generation(0), connection: 0 },
            client: None,
            timeout,
            trouble: "not connected yet".to_owned(),
            orphans: Vec::new(),
            subscribers: Vec::new(),
            ending: false,
        };
        let state = Mutex::new("zk session state", state);
        Self { log: log.clone(), state, changed: Condvar::new(), calls: AtomicUsize::new(0) }
    }

    /// The session timeout.
    pub(super) fn timeout(&self) -> Duration {
        self.state.lock().timeout
    }

    /// Takes a client whose connection has broken out of use, before the session's thread has noticed.
    pub(super) fn forget(&self, broken: &Arc<Client>) {
        broken.link().cut();
        let mut state = self.state.lock();
        if state.client.as_ref().is_some_and(|current| Arc::ptr_eq(current, broken)) {
            state.client = None;
            state.status.state = Connection::Suspended;
        }
    }

    /// Changes the state and tells everybody.
    pub(super) fn publish(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.announce(&mut state);
    }

    /// Tells everybody that the state has changed.
    pub(super) fn announce(&self, state: &mut State) {
        // A subscriber that has not taken its last message yet will see this change with it.
        let gone =
            |subscriber: &Sender<()>| matches!(subscriber.try_send(()), Err(TrySendError::Disconnected(())));
        state.subscribers.retain(|subscriber| !gone(subscriber));
        self.changed.notify_all();
    }
}
