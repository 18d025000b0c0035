//! Starting and stopping the launcher.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, never};
use nodepool_threads::{Pool, StopSource, Thread, spawn};
use slog::Logger;

use super::event::Inbox;
use super::leader::Candidate;
use super::manager::{Launcher, Own, Trees};
use super::shared::Shared;
use super::window::{Copies, Window};
use crate::config::{ConfigFiles, ConfigWatch, Loaded, Reload};
use crate::host_name::HostName;
use crate::stats::Stats;
use crate::window::{Asker, Followed, Stopped};
use crate::zk::{
    Description, IMAGES, Kind, Membership, NODES, Nodes, POOLS, REQUESTS, Requests, Session, SessionThread,
    TreeCache,
};

/// How many errands are run at the same time.
const ERRAND_WORKERS: usize = 4;

/// A running launcher.
pub struct NodepoolLauncherApp {
    // Dropped in this order: the stop, which ends the launcher thread with all of its workers; then what they need.
    stop: StopSource,
    launcher: Thread<Stopped>,
    window: Window,
    _config: ConfigWatch,
    _session: SessionThread,
    // Waits for its lock until the session ends.
    _candidate: Option<Candidate>,
}

impl NodepoolLauncherApp {
    /// Starts the launcher on a configuration that has been loaded from `files`. Does not wait for ZooKeeper. The error
    /// says what in the configuration or in the system stands against it.
    pub fn start(files: &ConfigFiles, loaded: Loaded, log: &Logger) -> Result<Self, String> {
        let config = &loaded.config;
        let zookeeper = config.require_zookeeper().map_err(|error| error.to_string())?;
        let system = |error: io::Error| format!("cannot start: {error}");
        let host = HostName::look_up().map_err(system)?;
        let hostname = host.name().to_owned();
        let holder = format!("{hostname} {}", std::process::id());

        let (session, session_thread) = Session::start(zookeeper, log).map_err(system)?;
        let entry = Description::daemon(Kind::Launcher, &hostname);
        let membership =
            Arc::new(Membership::start(&session, [(String::new(), entry)].into(), log).map_err(system)?);
        let tree = |root| TreeCache::start(&session, root, log).map_err(system);
        let (nodes, node_changes) = tree(NODES)?;
        let (requests, request_changes) = tree(REQUESTS)?;
        let (pools, pool_changes) = tree(POOLS)?;
        let (images, image_changes) = tree(IMAGES)?;
        let (errands, done) = Pool::start("errand-worker", "errands", ERRAND_WORKERS).map_err(system)?;
        let (tell, config_changes) = bounded(1);
        let watch = ConfigWatch::start(files.clone(), loaded.snapshot.clone(), log, tell).map_err(system)?;
        let (for_jobs, interrupter) = session.interruptible();
        let own_name = hostname.clone();
        let stats = Stats::of_environment(move || own_name.clone(), log)
            .map_err(|error| format!("metrics cannot be sent: {error}"))?;
        let (candidate, leader) = match stats.is_on() {
            true => {
                let (candidate, told) = Candidate::start(&session, &holder, log).map_err(system)?;
                (Some(candidate), told)
            }
            false => (None, never()),
        };
        let stop = StopSource::new();
        let (nudge, nudged) = bounded(1);
        let trees = Trees { nodes, requests, pools, images };
        let web_settings = Followed::new(&config.launcher.webapp).map_err(system)?;
        let (ask, questions) = bounded(1);
        let asker = Asker::new("launcher", ask);
        let window = Window::new(asker, &web_settings, &session, Arc::new(host), Copies::of(&trees));
        let mut inbox = Inbox {
            nodes: node_changes,
            requests: request_changes,
            pools: pool_changes,
            images: image_changes,
            config: config_changes,
            errands: done,
            nudge: nudged,
            session: session.subscribe(),
            leader,
            questions,
            stop: stop.stopped().clone(),
        };
        let launcher = Launcher {
            config: Arc::new(loaded.config.clone()),
            hostname,
            session,
            interrupter,
            nodes: Nodes::new(&for_jobs, &holder),
            requests: Requests::new(&for_jobs, &holder),
            trees,
            shared: Arc::new(Shared::new()),
            membership,
            errands,
            nudge,
            stats,
            web_settings,
            reload: Reload::new(&loaded, log),
            log: log.clone(),
            own: Own::default(),
        };
        let launcher = spawn("launcher", "launcher", move || launcher.run(&mut inbox)).map_err(system)?;
        Ok(Self { stop, launcher, window, _config: watch, _session: session_thread, _candidate: candidate })
    }

    /// Reads as disconnected once the launcher thread has ended, which only a bug makes it do by itself.
    pub fn ended(&self) -> &Receiver<Infallible> {
        self.launcher.ended()
    }

    /// For whoever wants to see how it stands.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Stops the launcher: running work is cancelled and given back.
    pub fn stop(self) -> Stopped {
        self.stop.stop();
        // If it has panicked, its workers with whatever they held are gone with it.
        self.launcher.join().unwrap_or(Stopped::Overdue)
    }
}
