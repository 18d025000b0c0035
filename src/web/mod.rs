//! The daemons' status pages: what there is, what runs and what has failed, for people, for scripts that
//! know the original's pages, and for monitoring.
//!
//! `core` serves them on one thread and knows no daemon. `builder` and `launcher` are a site each, made of what their
//! daemon's thread says when it is asked, and of copies of its copies of ZooKeeper's tree. Nobody asks, nothing is
//! done.

mod builder;
mod core;
mod launcher;

use std::io;
use std::net::TcpListener;

use nodepool_threads::{StopSource, Thread, Waker, spawn};
use slog::Logger;

use self::core::http::Server;
pub use self::core::http::{Request, Status};
use self::core::pages::{Daemon, Pages};

/// The running server of the status pages. Dropping it ends it at once, whatever its clients do.
pub struct StatusPages {
    stop: StopSource,
    waker: Waker,
    // Joined after `drop` has told it to end.
    _thread: Thread<()>,
}

impl StatusPages {
    /// Begins to serve a builder's pages where the configuration says, and follows it. An address that cannot be had is
    /// logged and tried again: the pages are no reason for anything else to fail. `early` is a listener that was opened
    /// while the process had the right to.
    pub fn of_builder(
        window: &crate::builder::Window,
        early: Option<TcpListener>,
        log: &Logger,
    ) -> io::Result<Self> {
        Self::start(builder::Builder::new(window.clone())?, window.web_waker(), early, log)
    }

    /// The same for a launcher.
    pub fn of_launcher(
        window: &crate::launcher::Window,
        early: Option<TcpListener>,
        log: &Logger,
    ) -> io::Result<Self> {
        Self::start(launcher::Launcher::new(window.clone()), window.web_waker(), early, log)
    }

    fn start<D: Daemon + Send + 'static>(
        daemon: D,
        waker: &Waker,
        early: Option<TcpListener>,
        log: &Logger,
    ) -> io::Result<Self>
    where
        D::Listing: Send,
    {
        let stop = StopSource::new();
        let (token, waker) = (stop.token(), waker.clone());
        let server = Server::new(Pages::new(daemon, log), waker.clone(), log).with_listener(early);
        let thread = spawn("web", "status pages", move || server.run(&token))?;
        Ok(Self { stop, waker, _thread: thread })
    }

    /// Ends it without waiting until it has ended.
    pub fn close(&self) {
        self.stop.stop();
        self.waker.wake();
    }
}

impl Drop for StatusPages {
    fn drop(&mut self) {
        self.close();
    }
}
