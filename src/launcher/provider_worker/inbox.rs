//! What the thread of a provider waits for.

use super::*;

/// Something has happened.
pub(super) enum Event {
    /// Something has changed in the fleet.
    World,
    /// The provider's section has changed.
    Configured(Arc<Tools>),
    /// Work for a request has come back.
    Work(Box<Finished<Work>>),
    /// A deletion has come back.
    Deleted(Box<Finished<Deletion>>),
    /// A look at the provider has come back.
    Surveyed(Box<Finished<Survey>>),
    /// A clean-up has come back.
    CleanedUp(Box<Finished<CleanUp>>),
    /// The session's status has changed.
    Session,
    /// The deadline has come.
    Deadline,
    /// The daemon stops.
    Stop,
}

/// Where events come from.
pub(super) struct Inbox {
    pub(super) poked: Receiver<()>,
    pub(super) configured: Receiver<Arc<Tools>>,
    pub(super) works: Receiver<Finished<Work>>,
    pub(super) deleted: Receiver<Finished<Deletion>>,
    pub(super) surveyed: Receiver<Finished<Survey>>,
    pub(super) cleaned: Receiver<Finished<CleanUp>>,
    pub(super) session: Receiver<()>,
    pub(super) stop: Receiver<Infallible>,
}

impl Inbox {
    /// The next event, at the latest that `deadline` has come. A source that is gone is as good as a stop.
    pub(super) fn next_event(&self, deadline: Instant) -> Event {
        let event = select! {
            recv(self.stop) -> _ => None,
            recv(self.works) -> done => done.ok().map(|done| Event::Work(Box::new(done))),
            recv(self.deleted) -> done => done.ok().map(|done| Event::Deleted(Box::new(done))),
            recv(self.surveyed) -> done => done.ok().map(|done| Event::Surveyed(Box::new(done))),
            recv(self.cleaned) -> done => done.ok().map(|done| Event::CleanedUp(Box::new(done))),
            recv(self.poked) -> poked => poked.ok().map(|()| Event::World),
            recv(self.configured) -> tools => tools.ok().map(Event::Configured),
            recv(self.session) -> changed => changed.ok().map(|()| Event::Session),
            default(deadline.saturating_duration_since(Instant::now())) => Some(Event::Deadline),
        };
        event.unwrap_or(Event::Stop)
    }

    /// The next work that comes back, for a worker that is stopping. `None` at `deadline`.
    pub(super) fn next_finished(&self, deadline: Instant) -> Option<Event> {
        select! {
            recv(self.works) -> done => done.ok().map(|done| Event::Work(Box::new(done))),
            recv(self.deleted) -> done => done.ok().map(|done| Event::Deleted(Box::new(done))),
            recv(self.surveyed) -> done => done.ok().map(|done| Event::Surveyed(Box::new(done))),
            recv(self.cleaned) -> done => done.ok().map(|done| Event::CleanedUp(Box::new(done))),
            default(deadline.saturating_duration_since(Instant::now())) => None,
        }
    }
}
