//! How others look at a daemon's thread that decides, without holding it up: they ask it, and wait for a moment at
//! most; and they follow a section of its configuration. And how it has ended.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use nodepool_threads::{Mutex, Waker};

use crate::host_name::HostName;
use crate::model::now;
use crate::zk::Session;

/// How a daemon's thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All work has come back.
    Clean,
    /// Some worker did not let go in time.
    Overdue,
}

/// How long to wait for the thread.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks a thread that may hang.
pub struct Asker<T> {
    /// The thread's name.
    name: &'static str,
    ask: Sender<Sender<T>>,
    /// The answer that is owed, and since when.
    owed: Option<(Receiver<T>, Instant)>,
}

/// The thread of that name has not answered for so long.
#[derive(Debug)]
pub struct NoAnswer(&'static str, Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} thread has not answered for {:.0} s", self.0, self.1.as_secs_f64())
    }
}

impl<T> Clone for Asker<T> {
    /// One that has not asked yet.
    fn clone(&self) -> Self {
        Self::new(self.name, self.ask.clone())
    }
}

impl<T> Asker<T> {
    /// One that has not asked yet; `ask` leads to the thread of that name.
    pub fn new(name: &'static str, ask: Sender<Sender<T>>) -> Self {
        Self { name, ask, owed: None }
    }

    /// Asks, and waits for the answer for a moment. It is waited for once: while it is owed, nobody waits again.
    pub fn ask(&mut self) -> Result<T, NoAnswer> {
        if let Some((answered, asked)) = &self.owed {
            if matches!(answered.try_recv(), Err(TryRecvError::Empty)) {
                return Err(NoAnswer(self.name, asked.elapsed()));
            }
        }
        let asked = Instant::now();
        let (answer, answered) = bounded(1);
        let sent = self.ask.send_deadline(answer, asked + PATIENCE).is_ok();
        let view = if sent { answered.recv_deadline(asked + PATIENCE).ok() } else { None };
        self.owed = if view.is_some() { None } else { Some((answered, asked)) };
        view.ok_or(NoAnswer(self.name, asked.elapsed()))
    }
}

/// A section of the configuration, for a thread that waits in `poll` and follows it.
#[derive(Clone)]
pub struct Followed<T> {
    section: Arc<Mutex<T>>,
    waker: Waker,
}

impl<T: Clone> Followed<T> {
    /// The section as it is now.
    pub fn new(section: &T) -> io::Result<Self> {
        Ok(Self { section: Arc::new(Mutex::new("web settings", section.clone())), waker: Waker::new()? })
    }

    /// It is like this from now on.
    pub fn set(&self, section: &T) {
        *self.section.lock() = section.clone();
        self.waker.wake();
    }

    /// As it is.
    pub fn get(&self) -> T {
        self.section.lock().clone()
    }

    /// Woken when it has changed.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// A daemon as others see it: `View` is what its thread knows at one moment, `Section` says where its status pages are
/// to be served, and `Own` is what only this daemon has.
///
/// Nothing is prepared for anybody: a question that nobody asks costs nothing.
pub struct Window<View, Section, Own> {
    asker: Asker<Box<View>>,
    settings: Followed<Section>,
    /// The session, for its status.
    pub session: Session,
    /// The host's names.
    pub host: Arc<HostName>,
    /// When the daemon was started, UNIX seconds.
    pub started: f64,
    /// What only this daemon has.
    pub own: Own,
}

impl<View, Section: Clone, Own> Window<View, Section, Own> {
    /// One of a daemon that has just started.
    pub fn new(
        asker: Asker<Box<View>>,
        settings: &Followed<Section>,
        session: &Session,
        host: Arc<HostName>,
        own: Own,
    ) -> Self {
        Self { asker, settings: settings.clone(), session: session.clone(), host, started: now(), own }
    }

    /// How it stands. An answer is waited for once: while it is owed, nobody waits again.
    pub fn look(&mut self) -> Result<Box<View>, NoAnswer> {
        self.asker.ask()
    }

    /// Where the status pages are to be served, as the configuration in force has it.
    pub fn web_settings(&self) -> Section {
        self.settings.get()
    }

    /// Woken when [`Window::web_settings`] has changed.
    pub fn web_waker(&self) -> &Waker {
        self.settings.waker()
    }
}

// Not derived, which would want a view that can be cloned.
impl<View, Section: Clone, Own: Clone> Clone for Window<View, Section, Own> {
    fn clone(&self) -> Self {
        Self {
            asker: self.asker.clone(),
            settings: self.settings.clone(),
            session: self.session.clone(),
            host: Arc::clone(&self.host),
            started: self.started,
            own: self.own.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_answer_is_waited_for_once_and_asked_again_when_it_has_answered() {
        let (ask, questions) = bounded::<Sender<u32>>(1);
        let mut asker = Asker::new("deciding", ask);
        let first = asker.ask().unwrap_err();
        assert!(first.1 >= PATIENCE && first.to_string().starts_with("the deciding thread"), "{first}");
        // Another question would be another one to answer.
        let second = asker.ask().unwrap_err();
        assert!(second.1 >= first.1 && questions.len() == 1, "{second}");
        questions.recv().unwrap().send(1).unwrap();
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| questions.iter().for_each(|question| _ = question.send(2)));
            let mut asker = asker;
            // Only on a machine that stands still for a second there is another turn.
            loop {
                if let Ok(answer) = asker.ask() {
                    break answer;
                }
            }
        });
        assert_eq!(answer, 2);
    }
}
