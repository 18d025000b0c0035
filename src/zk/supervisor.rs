//! The thread that keeps the session alive over any number of connections, and says when it is lost.
//!
//! A connection that breaks is replaced by a new one that goes on with the same session, so that the locks
//! of a build that has run for an hour survive a restarted server. Only the servers' word ends a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use nodepool_threads::{Pauses, StopToken, activity, activity_within};
use slog::{debug, info, warn};

use super::client::Client;
use super::relay::{Dialled, Dialler, Identity, Link, Upstream};
use super::shared::Shared;
use super::status::Connection;
use crate::config::ZooKeeperConfig;

/// The pauses after rounds over all servers that have failed, with jitter, so that the clients of a restarted ensemble
/// do not come all at once.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(50), longest: Duration::from_secs(1) };
/// A connection that ends earlier than this counts as a failed attempt.
const SHORT: Duration = Duration::from_secs(1);

pub(super) struct Supervisor {
    dialler: Dialler,
    chroot: String,
    shared: Arc<Shared>,
    /// The session to go on with.
    identity: Option<Identity>,
}

impl Supervisor {
    pub(super) fn new(config: &ZooKeeperConfig, shared: &Arc<Shared>) -> Self {
        let (dialler, chroot) = (Dialler::new(config), config.chroot.clone());
        Self { dialler, chroot, shared: Arc::clone(shared), identity: None }
    }

    pub(super) fn run(mut self, stop: &StopToken) {
        let mut failures = 0u32;
        let mut disconnected = Instant::now();
        while !stop.is_stopped() {
            let begin = Instant::now();
            match self.dialler.dial(self.identity.as_ref(), stop) {
                Ok(Dialled::Connected(upstream)) => {
                    let connected = Instant::now();
                    let used = self.stay_connected(upstream, stop);
                    failures = if connected.elapsed() < SHORT { failures + 1 } else { 0 };
                    match used {
                        Ok(()) => disconnected = Instant::now(),
                        Err(why) => self.note_trouble(&why, failures, disconnected.elapsed()),
                    }
                }
                Ok(Dialled::Expired) => {
                    warn!(self.shared.log, "the ZooKeeper session has expired: all locks are lost");
                    self.identity = None;
                    self.shared.publish(|state| {
                        state.status.generation.0 += 1;
                        state.status.state = Connection::Lost;
                        state.orphans.clear();
                    });
                    continue;
                }
                Err(why) => {
                    failures += 1;
                    self.note_trouble(&why, failures, disconnected.elapsed());
                }
            }
            // A round that has waited for a silent server was pause enough.
            let pause = PAUSES.jittered(failures).saturating_sub(begin.elapsed());
            if failures > 0 && stop.wait(pause).is_err() {
                return;
            }
        }
    }

    fn note_trouble(&mut self, why: &str, failures: u32, down_for: Duration) {
        let known = self.shared.state.lock().trouble == why;
        if known && failures % 30 != 0 {
            debug!(self.shared.log, "still no connection to ZooKeeper"; "reason" => why);
        } else {
            warn!(self.shared.log, "cannot connect to ZooKeeper, trying again"; "reason" => why);
        }
        self.shared.publish(|state| state.trouble = why.to_owned());
        // An ensemble that was set up anew is behind everything that this client has seen, and would refuse
        // it for ever. After this long, no view of the data is older than what it replaces.
        if let Some(identity) = self.identity.as_mut().filter(|known| down_for > 3 * known.timeout) {
            identity.forget_transactions();
        }
    }

    /// Serves one connection from its handshake to its end. The error is why it was of no use.
    fn stay_connected(&mut self, upstream: Upstream, stop: &StopToken) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let (server, identity) = (upstream.server.clone(), upstream.identity.clone());
        let goes_on = self.identity.as_ref().is_some_and(|known| known.id == identity.id);
        // From here on the servers know the session, whatever comes of the connection.
        let replaced = self.identity.replace(identity.clone()).is_some() && !goes_on;
        let (tell, down) = bounded(1);
        let starting = activity_within(shared.timeout(), format!("starting the client of {server}"));
        let started = Link::start(upstream, tell).map_err(|error| error.to_string());
        let started = started
            .and_then(|link| Client::start(link, &self.chroot, &identity).map_err(|error| error.to_string()));
        let client = match started {
            Ok(client) => Arc::new(client),
            Err(why) => {
                self.dialler.doubt(&server);
                return Err(format!("{server}: {why}"));
            }
        };
        drop(starting);
        if self.publish(&client, replaced) {
            info!(shared.log, "connected to ZooKeeper"; "server" => &server,
                "session" => format!("{:#x}", identity.id), "timeout" => format!("{:?}", identity.timeout),
                "new session" => !goes_on);
            let ended = {
                let _doing = activity(format!("connected to {server}"));
                stop.recv(&down)
            };
            let why = ended.unwrap_or_else(|_| "the client has ended".to_owned());
            shared.publish(|state| {
                state.status.state = Connection::Suspended;
                state.client = None;
                state.trouble.clone_from(&why);
            });
            if stop.is_stopped() {
                info!(shared.log, "closing the ZooKeeper session"; "server" => &server);
                let _doing = activity_within(shared.timeout(), "closing the session");
                client.end_session();
            } else {
                warn!(shared.log, "the connection to ZooKeeper is lost"; "reason" => why);
            }
        }
        self.dialler.doubt(&server);
        self.identity = Some(client.link().identity());
        // Callers may hold the client for the rest of their calls; whoever drops it last closes it.
        Ok(())
    }

    /// Gives the client to everybody once the orphans of earlier connections are deleted. False when the
    /// connection has ended before.
    fn publish(&self, client: &Arc<Client>, replaced: bool) -> bool {
        loop {
            let orphans = {
                let mut state = self.shared.state.lock();
                if replaced {
                    state.orphans.clear(); // Gone with their session.
                }
                if state.orphans.is_empty() {
                    state.status.generation.0 += u64::from(replaced);
                    state.status.state = Connection::Connected;
                    state.status.connection += 1;
                    state.timeout = client.link().identity().timeout;
                    state.client = Some(Arc::clone(client));
                    self.shared.announce(&mut state);
                    return true;
                }
                std::mem::take(&mut state.orphans)
            };
            let limit = self.shared.timeout();
            let _limit = client.limit_call(Instant::now() + limit);
            let _doing = activity_within(limit, "deleting what lost connections have left");
            let deleted = orphans.iter().position(|orphan| orphan.delete(client).is_err());
            if let Some(kept) = deleted {
                self.shared.state.lock().orphans.extend_from_slice(&orphans[kept..]);
                return false;
            }
        }
    }
}
