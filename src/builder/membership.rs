//! The builder's entry among the components of the fleet, made again for each new session.

use std::io;
use std::time::Duration;

use nodepool_threads::{StopSource, StopToken, Thread, Waited, spawn};
use slog::{Logger, info, warn};

use crate::zk::{Component, Generation, Interrupter, Session, ZkErrorKind};

/// The thread that keeps the entry. The entry goes with the session.
pub(super) struct Membership {
    // Dropped in this order: the thread is told to end, its calls are ended, and then it is waited for.
    _stop: StopSource,
    _interrupter: Interrupter,
    _thread: Thread<()>,
}

impl Membership {
    /// Registers the builder as soon as there is a session, and in each further one.
    pub(super) fn start(session: &Session, hostname: &str, log: &Logger) -> io::Result<Self> {
        let stop = StopSource::new();
        let (session, interrupter) = session.interruptible();
        let (hostname, log, token) = (hostname.to_owned(), log.clone(), stop.token());
        let thread =
            spawn("membership", "component registration", move || keep(&session, &hostname, &log, &token))?;
        Ok(Self { _stop: stop, _interrupter: interrupter, _thread: thread })
    }
}

fn keep(session: &Session, hostname: &str, log: &Logger, stop: &StopToken) {
    let changes = session.subscribe();
    let mut registered: Option<Generation> = None;
    loop {
        let status = session.status();
        let mut patience = Duration::from_secs(3600);
        if status.is_connected() && registered != Some(status.generation) {
            // Pinned, so that an entry is never made in a later session than the one it is noted for.
            match Component::register(&session.pinned(status.generation), hostname) {
                Ok(component) => {
                    info!(log, "registered"; "component" => component.path());
                    registered = Some(status.generation);
                }
                Err(error) if error.is(ZkErrorKind::SessionLost) => continue,
                Err(error) => {
                    warn!(log, "cannot register the component, trying again"; "reason" => %error);
                    patience = Duration::from_secs(1);
                }
            }
        }
        match stop.recv_timeout(&changes, patience) {
            Ok(()) | Err(Waited::TimedOut) => {}
            Err(Waited::Disconnected | Waited::Interrupted(_)) => return,
        }
    }
}
