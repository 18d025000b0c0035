//! What the launcher thread waits for.

use std::convert::Infallible;
use std::time::Instant;

use crossbeam_channel::{Receiver, never, select};
use nodepool_threads::Finished;

use super::errands::Errand;
use super::window::Question;
use crate::config::{ConfigError, Loaded};
use crate::zk::Changes;

/// Something has happened.
pub(super) enum Event {
    /// Nodes have changed in ZooKeeper.
    Nodes(Changes),
    /// Node requests have.
    Requests(Changes),
    /// Pools have.
    Pools(Changes),
    /// Images have.
    Images(Changes),
    /// The configuration has changed, or cannot be read any more.
    Config(Result<Box<Loaded>, ConfigError>),
    /// The configuration is not watched any more.
    ConfigUnwatched,
    /// An errand has come back.
    ErrandDone(Box<Finished<Errand>>),
    /// A thread of a provider has ended, or other machines are away than before.
    Nudge,
    /// The session's status has changed.
    Session,
    /// This launcher speaks for the fleet's statistics from now on, or does not any more.
    Leader(bool),
    /// Somebody wants to know how it stands.
    Question(Question),
    /// The deadline has come.
    Deadline,
    /// The daemon stops.
    Stop,
}

/// Where events come from.
pub(super) struct Inbox {
    pub(super) nodes: Receiver<Changes>,
    pub(super) requests: Receiver<Changes>,
    pub(super) pools: Receiver<Changes>,
    pub(super) images: Receiver<Changes>,
    pub(super) config: Receiver<Result<Loaded, ConfigError>>,
    pub(super) errands: Receiver<Finished<Errand>>,
    pub(super) nudge: Receiver<()>,
    pub(super) session: Receiver<()>,
    pub(super) leader: Receiver<bool>,
    pub(super) questions: Receiver<Question>,
    pub(super) stop: Receiver<Infallible>,
}

impl Inbox {
    /// The next event, at the latest that `deadline` has come. A source that is gone is as good as a stop: nothing can
    /// be done without it. Only the configuration that is in force stays good.
    pub(super) fn next_event(&mut self, deadline: Instant) -> Event {
        let event = select! {
            recv(self.stop) -> _ => None,
            recv(self.nodes) -> changes => changes.ok().map(Event::Nodes),
            recv(self.requests) -> changes => changes.ok().map(Event::Requests),
            recv(self.pools) -> changes => changes.ok().map(Event::Pools),
            recv(self.images) -> changes => changes.ok().map(Event::Images),
            recv(self.errands) -> done => done.ok().map(|done| Event::ErrandDone(Box::new(done))),
            recv(self.config) -> change => match change {
                Ok(change) => Some(Event::Config(change.map(Box::new))),
                Err(_) => {
                    self.config = never();
                    Some(Event::ConfigUnwatched)
                }
            },
            recv(self.nudge) -> nudge => nudge.ok().map(|()| Event::Nudge),
            recv(self.session) -> changed => changed.ok().map(|()| Event::Session),
            recv(self.questions) -> question => match question {
                Ok(question) => Some(Event::Question(question)),
                Err(_) => {
                    self.questions = never();
                    Some(Event::Deadline)
                }
            },
            recv(self.leader) -> is_leader => match is_leader {
                Ok(is_leader) => Some(Event::Leader(is_leader)),
                Err(_) => {
                    self.leader = never();
                    Some(Event::Leader(false))
                }
            },
            default(deadline.saturating_duration_since(Instant::now())) => Some(Event::Deadline),
        };
        event.unwrap_or(Event::Stop)
    }

    /// The next errand that comes back, for a launcher that is stopping. `None` at `deadline`.
    pub(super) fn next_finished(&self, deadline: Instant) -> Option<Event> {
        select! {
            recv(self.errands) -> done => done.ok().map(|done| Event::ErrandDone(Box::new(done))),
            default(deadline.saturating_duration_since(Instant::now())) => None,
        }
    }
}
