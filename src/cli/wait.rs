//! `image-build --wait`: listens to ZooKeeper and shows how far the build has come.
//!
//! The copy of the image's tree is complete before the request is made, so that no build is missed or
//! mistaken. From then on only events wake this loop up; on a terminal also a clock that redraws one line.

use std::collections::BTreeSet;
use std::io::Stdout;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, never, select};
use slog::Logger;

use super::connection::Connection;
use super::failure::Failure;
use super::follow::{Asked, Follower, Progress, Verdict};
use super::screen::Screen;
use super::{build_files, output, progress};
use crate::config::Config;
use crate::model::{Age, Image, now};
use crate::zk::{Changes, Component, IMAGES, Session, TreeCache, decode_image};

/// A builder answers a request in milliseconds; after this long it is asked whether there is one.
const NO_ANSWER: Duration = Duration::from_secs(2);
/// How often the line on the terminal is redrawn when nothing happens.
const REDRAW: Duration = Duration::from_secs(1);
const LOG_LINES: usize = 20;

/// Asks for a build and waits until `providers` have it.
pub(super) fn build(
    config: &Config,
    image: &str,
    providers: &BTreeSet<String>,
    connection: &Connection,
    log: &Logger,
) -> Result<(), Failure> {
    let session = &connection.session;
    let connections = session.subscribe();
    let root = format!("{IMAGES}/{image}");
    let (cache, changes) = TreeCache::start(session, &root, log)
        .map_err(|error| Failure::because(format!("cannot start a thread: {error}")))?;
    if changes.recv_timeout(config.zookeeper.timeout).is_err() {
        return Err(Failure::because(format!("ZooKeeper: {root} could not be read in time")));
    }
    let before = look(&cache, image);
    connection.images.request_build(image)?;
    let made = connection.images.request_made(image)?;
    let mut waiter = Waiter {
        config,
        image,
        session,
        asked: now(),
        follower: Follower::new(Asked::new(&before, made, providers.clone())),
        progress: None,
        connected: true,
        no_answer: Some(Instant::now() + NO_ANSWER),
        screen: Screen::of_stdout(),
    };
    let done = waiter.run(&cache, &changes, &connections);
    // Whoever closed standard output did not wait for the end: this is not the success of the build.
    done.map_err(|failure| if failure == Failure::OutputClosed { Failure::Told } else { failure })
}

fn look(cache: &TreeCache, image: &str) -> Image {
    cache.look(|node| decode_image(image, node, &mut |_, _| {}))
}

enum Event {
    /// Something below the image has changed.
    Image,
    /// The connection may have broken, or come back.
    Session,
    /// No builder has answered for a while.
    NoAnswer,
    /// Time to redraw the line.
    Redraw,
}

struct Waiter<'a> {
    config: &'a Config,
    image: &'a str,
    session: &'a Session,
    asked: f64,
    follower: Follower,
    progress: Option<Progress>,
    connected: bool,
    no_answer: Option<Instant>,
    screen: Screen<Stdout>,
}

impl Waiter<'_> {
    fn run(
        &mut self,
        cache: &TreeCache,
        changes: &Receiver<Changes>,
        connections: &Receiver<()>,
    ) -> Result<(), Failure> {
        self.screen.line(&format!("{}: build requested", self.image))?;
        loop {
            match self.show(&look(cache, self.image))? {
                Verdict::GoOn => {}
                Verdict::Done => return self.screen.line(&self.done()),
                Verdict::Failed => return Err(self.explain()),
            }
            match self.next_event(changes, connections)? {
                Event::Image | Event::Redraw => {}
                Event::Session => self.note_connection()?,
                Event::NoAnswer => self.look_for_builders()?,
            }
        }
    }

    fn next_event(&self, changes: &Receiver<Changes>, connections: &Receiver<()>) -> Result<Event, Failure> {
        let no_answer = self.no_answer.map_or_else(never, at);
        let redraw = if self.screen.redraws() { at(Instant::now() + REDRAW) } else { never() };
        select! {
            recv(changes) -> change => match change {
                Ok(_) => Ok(Event::Image),
                Err(_) => Err(Failure::because("the copy of ZooKeeper's tree has ended")),
            },
            recv(connections) -> _ => Ok(Event::Session),
            recv(no_answer) -> _ => Ok(Event::NoAnswer),
            recv(redraw) -> _ => Ok(Event::Redraw),
        }
    }

    /// Tells what has changed.
    fn show(&mut self, image: &Image) -> Result<Verdict, Failure> {
        let progress = self.follower.look(image);
        for line in progress::news(self.image, self.progress.as_ref(), &progress) {
            self.screen.line(&line)?;
        }
        if !matches!(progress, Progress::Waiting { paused: false, .. }) {
            self.no_answer = None;
        }
        if self.screen.redraws() {
            let size = self.size(&progress);
            let line = progress::status_line(self.image, &progress, self.asked, size, now());
            self.screen.redraw(&line)?;
        }
        let verdict = progress.verdict();
        self.progress = Some(progress);
        Ok(verdict)
    }

    fn done(&self) -> String {
        format!("{}: done {} after the request", self.image, Age::between(self.asked, now()))
    }

    fn size(&self, progress: &Progress) -> Option<u64> {
        let (Progress::Building(build) | Progress::Uploading(build, _)) = progress else { return None };
        build_files::size(self.config.images_dir.as_deref()?, &progress::name(self.image, build))
    }

    fn warn(&mut self, what: &str) -> Result<(), Failure> {
        self.screen.clear()?;
        output::warn(what);
        Ok(())
    }

    fn note_connection(&mut self) -> Result<(), Failure> {
        let connected = self.session.status().is_connected();
        let was_connected = std::mem::replace(&mut self.connected, connected);
        match (was_connected, connected) {
            (true, false) => self.warn("the connection to ZooKeeper is lost; waiting for it to come back"),
            (false, true) => self.warn("connected to ZooKeeper again"),
            _ => Ok(()),
        }
    }

    fn look_for_builders(&mut self) -> Result<(), Failure> {
        self.no_answer = None;
        // Without a connection there is another message already.
        if self.connected && matches!(Component::builders(self.session), Ok(0)) {
            self.warn("no builder is running; the request stays until one is started")?;
        }
        Ok(())
    }

    /// Why it has ended unhappily; for a build, with the end of its log.
    fn explain(&mut self) -> Failure {
        if let Err(failure) = self.screen.clear() {
            return failure;
        }
        let Some(progress) = &self.progress else { return Failure::Told };
        let why = progress::failure(self.image, progress);
        let Progress::BuildFailed(build) = progress else { return Failure::because(why) };
        let path = self.config.build_log_dir.join(format!("{}.log", progress::name(self.image, build)));
        match build_files::tail(&path, LOG_LINES) {
            Ok(tail) => {
                output::complain(&format!("the end of {}:\n{tail}", path.display()));
                Failure::because(why)
            }
            // The usual reason is that the builder is another machine.
            Err(_) => Failure::because(format!("{why}; its log {} is not on this machine", path.display())),
        }
    }
}
