//! What the builder thread waits for.

use std::convert::Infallible;
use std::time::Instant;

use crossbeam_channel::{Receiver, never, select};
use nodepool_threads::Finished;

use super::build_worker::BuildJob;
use super::janitor::CleanupJob;
use super::upload_worker::UploadJob;
use super::window::Question;
use crate::config::{ConfigError, Loaded};
use crate::zk::Changes;

/// Something has happened.
pub(super) enum Event {
    /// A watch fired: images have changed in ZooKeeper.
    Tree(Changes),
    /// The configuration has changed, or cannot be read any more.
    Config(Result<Box<Loaded>, ConfigError>),
    /// A build has come back.
    BuildDone(Box<Finished<BuildJob>>),
    /// An upload has come back.
    UploadDone(Box<Finished<UploadJob>>),
    /// A clean-up has come back.
    CleanupDone(Box<Finished<CleanupJob>>),
    /// The configuration is not watched any more.
    ConfigUnwatched,
    /// The session's status has changed.
    Session,
    /// Somebody wants to know how it stands.
    Question(Question),
    /// The deadline has come.
    Deadline,
    /// The daemon stops.
    Stop,
}

/// Where events come from.
pub(super) struct Inbox {
    pub(super) tree: Receiver<Changes>,
    pub(super) config: Receiver<Result<Loaded, ConfigError>>,
    pub(super) builds: Receiver<Finished<BuildJob>>,
    pub(super) uploads: Receiver<Finished<UploadJob>>,
    pub(super) janitor: Receiver<Finished<CleanupJob>>,
    pub(super) cleaners: Receiver<Finished<CleanupJob>>,
    pub(super) session: Receiver<()>,
    pub(super) questions: Receiver<Question>,
    pub(super) stop: Receiver<Infallible>,
}

impl Inbox {
    /// The next event, at the latest that `deadline` has come. A source that is gone is as good as a stop:
    /// nothing can be built without it. Only the configuration that is in force stays good.
    pub(super) fn next_event(&mut self, deadline: Instant) -> Event {
        let event = select! {
            recv(self.stop) -> _ => None,
            recv(self.builds) -> done => done.ok().map(|done| Event::BuildDone(Box::new(done))),
            recv(self.uploads) -> done => done.ok().map(|done| Event::UploadDone(Box::new(done))),
            recv(self.janitor) -> done => done.ok().map(|done| Event::CleanupDone(Box::new(done))),
            recv(self.cleaners) -> done => done.ok().map(|done| Event::CleanupDone(Box::new(done))),
            recv(self.tree) -> changes => changes.ok().map(Event::Tree),
            recv(self.config) -> change => match change {
                Ok(change) => Some(Event::Config(change.map(Box::new))),
                Err(_) => {
                    self.config = never();
                    Some(Event::ConfigUnwatched)
                }
            },
            recv(self.session) -> changed => changed.ok().map(|()| Event::Session),
            recv(self.questions) -> question => question.ok().map(Event::Question),
            default(deadline.saturating_duration_since(Instant::now())) => Some(Event::Deadline),
        };
        event.unwrap_or(Event::Stop)
    }

    /// The next job that comes back, for a builder that is stopping. `None` at `deadline`.
    pub(super) fn next_finished(&self, deadline: Instant) -> Option<Event> {
        select! {
            recv(self.builds) -> done => done.ok().map(|done| Event::BuildDone(Box::new(done))),
            recv(self.uploads) -> done => done.ok().map(|done| Event::UploadDone(Box::new(done))),
            recv(self.janitor) -> done => done.ok().map(|done| Event::CleanupDone(Box::new(done))),
            recv(self.cleaners) -> done => done.ok().map(|done| Event::CleanupDone(Box::new(done))),
            default(deadline.saturating_duration_since(Instant::now())) => None,
        }
    }
}
