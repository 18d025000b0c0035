//! Starting and stopping the builder.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use nodepool_threads::{Leftovers, StopSource, Thread, spawn};
use slog::{Logger, error, warn};

use super::Identity;
use super::crew::Crew;
use super::event::Inbox;
use super::manager::{NodePoolBuilder, State};
use super::metrics::Metrics;
use super::window::{Sights, Window};
use crate::config::{ConfigFiles, ConfigWatch, Loaded, Reload};
use crate::stats::Stats;
use crate::window::{Asker, Followed, Stopped};
use crate::zk::{Description, IMAGES, Images, Kind, Membership, Session, SessionThread, TreeCache};

/// What the command line says.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many builds may run at once.
    pub build_workers: usize,
    /// How many uploads may run at once.
    pub upload_workers: usize,
    /// How often the disk is looked at for garbage; `None` turns all cleaning off.
    pub cleanup_interval: Option<Duration>,
}

/// How long builds of an earlier run may take to clean up after themselves.
const LEFTOVER_GRACE: Duration = Duration::from_secs(5);

/// A running builder.
pub struct NodepoolBuilderApp {
    // Dropped in this order: the stop, which ends the builder thread with its workers; then what they need.
    stop: StopSource,
    builder: Thread<Stopped>,
    // Also kept for the builder thread, which would take its end for a stop.
    window: Window,
    _config: ConfigWatch,
    _membership: Membership,
    _session: SessionThread,
}

impl NodepoolBuilderApp {
    /// Starts the builder on a configuration that has been loaded from `files`. Does not wait for ZooKeeper.
    /// The error says what in the configuration, on the disk or in the system stands against it; `notice` is
    /// told if another builder's end must be waited for.
    pub fn start(
        files: &ConfigFiles,
        loaded: Loaded,
        options: Options,
        log: &Logger,
        notice: impl FnOnce(&str),
    ) -> Result<Self, String> {
        let config = &loaded.config;
        let zookeeper = config.require_zookeeper().map_err(|error| error.to_string())?;
        let images_dir = config.require_images_dir().map_err(|error| error.to_string())?.to_owned();
        if !images_dir.is_dir() {
            // Not made here: most likely it is a disk of its own that is not mounted.
            return Err(format!(
                "the images-dir {} does not exist: make it, or mount it",
                images_dir.display()
            ));
        }
        let identity = Identity::load(&images_dir, notice)
            .map_err(|error| format!("images-dir {}: {error}", images_dir.display()))?;
        let identity = Arc::new(identity);
        end_leftovers_of(&identity, log);
        let system = |error: io::Error| format!("cannot start: {error}");

        let (session, session_thread) = Session::start(zookeeper, log).map_err(system)?;
        let entry = Description::daemon(Kind::Builder, &identity.hostname);
        let entries = [(String::new(), entry)].into();
        let membership = Membership::start(&session, entries, log).map_err(system)?;
        let (tree, tree_changes) = TreeCache::start(&session, IMAGES, log).map_err(system)?;
        let (crew, returns) = Crew::start(options.build_workers, options.upload_workers).map_err(system)?;
        let (tell, config_changes) = bounded(1);
        let watch = ConfigWatch::start(files.clone(), loaded.snapshot.clone(), log, tell).map_err(system)?;
        let (for_jobs, interrupter) = session.interruptible();
        let stop = StopSource::new();
        let web_settings = Followed::new(&config.builder_webapp).map_err(system)?;
        let (ask, questions) = bounded(1);
        let sights = Sights {
            tree: tree.reader(),
            builder_id: identity.builder_id.clone(),
            images_dir: images_dir.clone(),
        };
        let asker = Asker::new("builder", ask);
        let window = Window::new(asker, &web_settings, &session, Arc::clone(&identity.host), sights);
        let mut inbox = Inbox {
            tree: tree_changes,
            config: config_changes,
            builds: returns.builds,
            uploads: returns.uploads,
            janitor: returns.janitor,
            cleaners: returns.cleaners,
            session: session.subscribe(),
            questions,
            stop: stop.stopped().clone(),
        };
        let host = Arc::clone(&identity);
        let stats = Stats::of_environment(move || host.fqdn().to_owned(), log)
            .map_err(|error| format!("metrics cannot be sent: {error}"))?;
        let builder = NodePoolBuilder {
            options,
            config: Arc::new(loaded.config.clone()),
            images_dir,
            images: Images::new(&for_jobs, &format!("{} {}", identity.hostname, std::process::id())),
            identity,
            session,
            interrupter,
            tree,
            crew,
            metrics: Metrics::new(stats),
            web_settings,
            reload: Reload::new(&loaded, log),
            log: log.clone(),
            state: State::default(),
        };
        let builder = spawn("builder", "builder", move || builder.run(&mut inbox)).map_err(system)?;
        Ok(Self { stop, builder, window, _config: watch, _membership: membership, _session: session_thread })
    }

    /// Reads as disconnected once the builder thread has ended, which only a bug makes it do by itself.
    pub fn ended(&self) -> &Receiver<Infallible> {
        self.builder.ended()
    }

    /// For whoever wants to see how it stands.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Stops the builder: running work is cancelled and cleaned up.
    pub fn stop(self) -> Stopped {
        self.stop.stop();
        // If it has panicked, its workers with whatever they held are gone with it.
        self.builder.join().unwrap_or(Stopped::Overdue)
    }
}

/// Ends the builds and hooks that an earlier run of this builder was killed over: their locks are gone with
/// it, and what they write belongs to nobody.
fn end_leftovers_of(identity: &Identity, log: &Logger) {
    let Leftovers { found, left } = identity.mark().end_leftovers(LEFTOVER_GRACE);
    if found > 0 {
        warn!(log, "ended builds or hooks that an earlier run had left"; "count" => found.saturating_sub(left));
    }
    if left > 0 {
        error!(log, "builds or hooks of an earlier run cannot be ended"; "count" => left);
    }
}
