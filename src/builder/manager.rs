//! The builder thread: it owns the truth and decides, workers do. It waits for an event, notes what has
//! changed, plans for the images that the change touches, and hands out what is planned to free workers. It
//! makes no call that could block: not to ZooKeeper, not to a cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::{Finished, StopSource, activity};
use slog::{Logger, debug, error, info, o, warn};

use super::build_worker::{BuildJob, BuildOutcome};
use super::crew::{Crew, Running, at_provider};
use super::event::{Event, Inbox};
use super::failures::{Attempt, Failures};
use super::janitor::{CleanupJob, Done};
use super::local_builds::LocalBuilds;
use super::plan::{Busy, Cleanup, Facts, Plan, Reason, plan};
use super::providers::OpenProviders;
use super::upload_worker::{UploadJob, UploadOutcome};
use super::{Identity, Options};
use crate::config::{Config, ConfigError, Loaded, same_provider};
use crate::model::{Image, now};
use crate::zk::{Changes, Generation, Images, Interrupter, Session, TreeCache, decode_image};

/// How long cancelled jobs may take to come back when the daemon stops: it has ten seconds in all.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long of that they may wait for a connection to ZooKeeper to write their last records.
const LAST_WORDS: Duration = Duration::from_secs(6);
/// How often the disk is looked at where no janitor says.
const DEFAULT_ROUND: Duration = Duration::from_secs(60);
/// The longest time that is waited for, in seconds.
const LONGEST_WAIT: f64 = 3600.0;

/// The builder.
pub(super) struct NodePoolBuilder {
    pub(super) options: Options,
    pub(super) config: Arc<Config>,
    pub(super) images_dir: PathBuf,
    pub(super) identity: Arc<Identity>,
    pub(super) session: Session,
    /// Ends what jobs wait for in the session.
    pub(super) interrupter: Interrupter,
    pub(super) images: Images,
    pub(super) tree: TreeCache,
    pub(super) crew: Crew,
    pub(super) log: Logger,
    pub(super) state: State,
}

/// What the builder knows and has not told anybody.
#[derive(Default)]
pub(super) struct State {
    providers: OpenProviders,
    local: LocalBuilds,
    failures: Failures,
    /// Whether the copy of the tree is complete: before that, what it lacks means nothing.
    tree_complete: bool,
    generation: Option<Generation>,
    /// Images that something has changed about since they were planned.
    dirty: BTreeSet<String>,
    /// What is to be done for each image that anything is to be done for.
    plans: BTreeMap<String, Planned>,
    /// Damaged records that have been logged, with their damage.
    damaged: BTreeSet<(String, String)>,
    /// Keys of the configuration that nobody knows and that have been logged.
    unknown_keys: BTreeSet<String>,
}

struct Planned {
    plan: Plan,
    requested: Option<f64>,
    /// Since when the image has been as it is: its request, or its newest ready build.
    waits_since: f64,
}

/// How the builder ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every job has come back.
    Clean,
    /// Some worker did not let go in time.
    Overdue,
}

impl NodePoolBuilder {
    /// Runs until it is stopped.
    pub(super) fn run(mut self, inbox: &Inbox) -> Stopped {
        self.look_at_disk();
        self.follow_config();
        let mut next_round = Instant::now() + self.round();
        loop {
            let event = inbox.next_event(self.deadline(next_round));
            let _doing = activity("deciding");
            match event {
                Event::Stop => break,
                event => self.handle_event(event),
            }
            // Not only after a deadline: other events may come so fast that none is ever waited for.
            self.note_time();
            if Instant::now() >= next_round {
                self.begin_round();
                next_round = Instant::now() + self.round();
            }
            self.plan_dirty();
            self.hand_out();
        }
        self.stop(inbox)
    }

    fn round(&self) -> Duration {
        self.options.cleanup_interval.unwrap_or(DEFAULT_ROUND)
    }

    /// When to wake up without an event: for the next round, or when a plan depends on the time.
    fn deadline(&self, next_round: Instant) -> Instant {
        let of_plans = self.state.plans.values().filter_map(|planned| planned.plan.look_again);
        let of_providers = OpenProviders::look_again(&self.config, &self.state.failures);
        let Some(time) = of_plans.chain(of_providers).min_by(f64::total_cmp) else { return next_round };
        // A little later than planned is better than a little too early, which would be in vain.
        // A record may name any time, even one that no clock can hold.
        let left =
            Duration::from_secs_f64((time - now()).clamp(0.0, LONGEST_WAIT)) + Duration::from_millis(2);
        next_round.min(Instant::now() + left)
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Tree(changes) => self.note_changes(changes),
            Event::Config(change) => self.take_config(change),
            Event::BuildDone(done) => self.take_build(*done),
            Event::UploadDone(done) => self.take_upload(*done),
            Event::CleanupDone(done) => self.take_cleanup(*done),
            Event::Session => self.note_session(),
            Event::Deadline | Event::Stop => {}
        }
    }

    fn note_changes(&mut self, changes: Changes) {
        match changes {
            Changes::All => {
                self.state.tree_complete = true;
                self.everything_is_dirty();
            }
            Changes::Below(images) => self.state.dirty.extend(images),
        }
    }

    fn note_session(&mut self) {
        let status = self.session.status();
        if self.state.generation.is_some_and(|known| known < status.generation) {
            warn!(self.log, "the ZooKeeper session was lost: running work is thrown away");
            self.crew.cancel_older_than(status.generation);
        }
        self.state.generation = Some(status.generation);
        // What could not be handed out without a connection may be possible now.
        self.everything_is_dirty();
    }

    fn note_time(&mut self) {
        let time = now();
        let due = self
            .state
            .plans
            .iter()
            .filter(|(_, planned)| planned.plan.look_again.is_some_and(|at| at <= time));
        let due: Vec<String> = due.map(|(image, _)| image.clone()).collect();
        self.state.dirty.extend(due);
        if OpenProviders::look_again(&self.config, &self.state.failures).is_some_and(|at| at <= time) {
            self.open_providers();
        }
    }

    fn begin_round(&mut self) {
        self.state.failures.forget_old(now());
        self.look_at_disk();
        self.everything_is_dirty();
    }

    fn everything_is_dirty(&mut self) {
        let known = self.tree.look(|root| root.children.keys().cloned().collect::<Vec<_>>());
        let dirty = &mut self.state.dirty;
        dirty.extend(known);
        dirty.extend(self.config.diskimages.keys().cloned());
        dirty.extend(self.state.local.images().cloned());
        dirty.extend(self.state.plans.keys().cloned());
    }

    fn look_at_disk(&mut self) {
        match LocalBuilds::scan(&self.images_dir) {
            Ok(local) => self.state.local = local,
            Err(error) => error!(self.log, "cannot read the images directory";
                "directory" => %self.images_dir.display(), "reason" => %error),
        }
    }

    fn take_config(&mut self, change: Result<Box<Loaded>, ConfigError>) {
        let loaded = match change {
            Ok(loaded) => *loaded,
            Err(error) => {
                for problem in error.problems() {
                    error!(self.log, "the new configuration is refused, the last good one stays"; "problem" => %problem);
                }
                return;
            }
        };
        self.warn_of_unknown_keys(&loaded);
        if loaded.config.images_dir.as_ref() != Some(&self.images_dir) {
            warn!(self.log, "a new images-dir takes effect with the next start");
        }
        if loaded.config.zookeeper != self.config.zookeeper {
            warn!(self.log, "new ZooKeeper servers take effect with the next start");
        }
        info!(self.log, "the configuration has changed");
        let old = std::mem::replace(&mut self.config, Arc::new(loaded.config));
        for (name, image) in &old.diskimages {
            if self.config.diskimages.get(name) != Some(image) {
                self.state.failures.forget_image(name);
            }
        }
        for (name, provider) in &old.providers {
            if !self.config.providers.get(name).is_some_and(|new| same_provider(&**new, &**provider)) {
                self.state.failures.forget_provider(name);
            }
        }
        self.follow_config();
    }

    pub(super) fn warn_of_unknown_keys(&mut self, loaded: &Loaded) {
        for warning in &loaded.warnings {
            if self.state.unknown_keys.insert(warning.to_string()) {
                warn!(self.log, "the configuration has a key that is not known"; "key" => %warning);
            }
        }
    }

    fn follow_config(&mut self) {
        self.open_providers();
        self.everything_is_dirty();
    }

    fn open_providers(&mut self) {
        let State { providers, failures, .. } = &mut self.state;
        providers.follow(&self.config, failures, now(), &self.log);
    }

    fn plan_dirty(&mut self) {
        if !self.state.tree_complete {
            return;
        }
        for name in std::mem::take(&mut self.state.dirty) {
            let image = self.read_image(&name);
            let idle = Busy::default();
            let facts = Facts {
                image: &image,
                config: &self.config,
                local: &self.state.local,
                builder_id: &self.identity.builder_id,
                busy: self.crew.busy.get(&name).unwrap_or(&idle),
                failures: &self.state.failures,
                janitor: self.options.cleanup_interval.is_some(),
                now: now(),
            };
            let plan = plan(&facts);
            if plan == Plan::default() {
                self.state.plans.remove(&name);
            } else {
                let newest = image.ready_builds().first().map(|build| build.record.state_time);
                let waits_since = image.request.or(newest).unwrap_or_default();
                self.state.plans.insert(name, Planned { plan, requested: image.request, waits_since });
            }
        }
    }

    fn read_image(&mut self, name: &str) -> Image {
        let mut found = Vec::new();
        let mut note = |path: &str, error: &_| found.push((path.to_owned(), format!("{error}")));
        let image = self.tree.look(|root| {
            let node = root.children.get(name);
            node.map(|node| decode_image(name, node, &mut note))
        });
        for damage in found {
            if self.state.damaged.insert(damage.clone()) {
                warn!(self.log, "a damaged record is left alone"; "path" => damage.0, "reason" => damage.1);
            }
        }
        image.unwrap_or_else(|| Image { name: name.to_owned(), ..Image::default() })
    }

    fn hand_out(&mut self) {
        let status = self.session.status();
        if !status.connected {
            return;
        }
        self.hand_out_builds(status.generation);
        self.hand_out_uploads(status.generation);
        self.hand_out_cleanups();
    }

    /// Builds that somebody waits for come first; then, as among these, the longest waiting before the
    /// others, so that an image that is always due holds up no other one.
    fn hand_out_builds(&mut self, generation: Generation) {
        let mut wanted: Vec<(bool, f64, String)> = Vec::new();
        for (image, planned) in &self.state.plans {
            if let Some(reason) = planned.plan.build.filter(|_| !self.is_building(image)) {
                wanted.push((reason != Reason::Requested, planned.waits_since, image.clone()));
            }
        }
        wanted.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (_, _, name) in wanted.into_iter().take(self.crew.free_builders()) {
            let Some(image) = self.config.diskimages.get(&name) else { continue };
            let request = self.state.plans.get(&name).and_then(|planned| planned.requested);
            let cancel = Arc::new(StopSource::new());
            let job = BuildJob {
                image: Arc::clone(image),
                attempt: Attempt::build(&name, request),
                identity: Arc::clone(&self.identity),
                images_dir: self.images_dir.clone(),
                elements_dir: self.config.elements_dir.clone(),
                log_dir: self.config.build_log_dir.clone(),
                log_retention: self.config.build_log_retention,
                images: self.images.clone(),
                cancel: Arc::clone(&cancel),
                log: self.log.new(o!("image" => name.clone())),
            };
            if self.crew.builders.submit(job).is_ok() {
                self.crew.build_began(&name, Running { cancel, generation });
            }
        }
    }

    fn is_building(&self, image: &str) -> bool {
        self.crew.busy.get(image).is_some_and(|busy| busy.build)
    }

    fn hand_out_uploads(&mut self, generation: Generation) {
        let mut wanted: Vec<(String, String, String)> = Vec::new();
        for (image, planned) in &self.state.plans {
            let busy = self.crew.busy.get(image);
            let new =
                planned.plan.uploads.iter().filter(|at| !busy.is_some_and(|busy| busy.uploads.contains(*at)));
            let open = new.filter(|(_, provider)| self.state.providers.get(provider).is_some());
            wanted.extend(open.map(|(build, provider)| (image.clone(), build.clone(), provider.clone())));
        }
        let providers = self.config.providers.values().filter(|provider| provider.images().is_some()).count();
        while let Some(next) = self.crew.next_upload(&wanted, providers).cloned() {
            wanted.retain(|other| *other != next);
            let Some(job) = self.upload_job(&next) else { continue };
            let cancel = Arc::clone(&job.cancel);
            if self.crew.uploaders.submit(job).is_ok() {
                self.crew.upload_began(next, Running { cancel, generation });
            }
        }
    }

    fn upload_job(&self, (image, build, provider): &(String, String, String)) -> Option<UploadJob> {
        Some(UploadJob {
            image: Arc::clone(self.config.diskimages.get(image)?),
            build: build.clone(),
            provider_name: provider.clone(),
            provider: Arc::clone(self.state.providers.get(provider)?),
            settings: self.config.providers.get(provider)?.images()?.clone(),
            images_dir: self.images_dir.clone(),
            images: self.images.clone(),
            cancel: Arc::new(StopSource::new()),
            log: self
                .log
                .new(o!("image" => image.clone(), "build" => build.clone(), "provider" => provider.clone())),
        })
    }

    fn hand_out_cleanups(&mut self) {
        let wanted: Vec<Cleanup> =
            self.state.plans.values().flat_map(|planned| planned.plan.cleanups.iter().cloned()).collect();
        for cleanup in wanted {
            let busy =
                self.crew.busy.get(&cleanup.image).is_some_and(|busy| busy.cleanups.contains(&cleanup));
            if busy || !self.crew.may_clean(&cleanup) {
                continue;
            }
            let provider = match at_provider(&cleanup) {
                None => None,
                Some(name) => match self.state.providers.get(name) {
                    Some(provider) => Some(Arc::clone(provider)),
                    None => continue, // It cannot be opened at present.
                },
            };
            let pool = if provider.is_some() { &self.crew.cleaners } else { &self.crew.janitor };
            let log = self.log.new(o!("image" => cleanup.image.clone(), "build" => cleanup.build.clone()));
            let job = CleanupJob {
                cleanup: cleanup.clone(),
                provider,
                images_dir: self.images_dir.clone(),
                images: self.images.clone(),
                log,
            };
            if pool.submit(job).is_ok() {
                self.crew.cleanup_began(&cleanup);
            }
        }
    }

    fn take_build(&mut self, done: Finished<BuildJob>) {
        let name = done.job.image.name.clone();
        self.crew.build_ended(&name);
        self.state.dirty.insert(name);
        self.look_at_disk();
        let attempt = done.job.attempt.clone();
        let failed = match done.outcome {
            Ok(BuildOutcome::Ready) => {
                self.state.failures.succeeded(&attempt);
                false
            }
            Ok(BuildOutcome::NotNeeded) => {
                self.state.failures.put_off(attempt.clone(), now());
                false
            }
            Ok(BuildOutcome::Cancelled | BuildOutcome::SessionLost) => false,
            Ok(BuildOutcome::Failed | BuildOutcome::TimedOut) => true,
            Ok(BuildOutcome::Error(why)) => {
                error!(done.job.log, "the build could not be carried out"; "reason" => why);
                true
            }
            Err(panic) => {
                error!(done.job.log, "a build worker panicked; this is a bug"; "message" => panic.0);
                true
            }
        };
        self.note_failure(failed, attempt, &done.job.log);
    }

    fn take_upload(&mut self, done: Finished<UploadJob>) {
        let job = done.job;
        self.crew.upload_ended(&job.image.name, &job.build, &job.provider_name);
        self.state.dirty.insert(job.image.name.clone());
        let attempt = Attempt::Upload(job.image.name.clone(), job.provider_name.clone());
        let failed = match done.outcome {
            Ok(UploadOutcome::Ready) => {
                self.state.failures.succeeded(&attempt);
                false
            }
            Ok(UploadOutcome::NotNeeded) => {
                self.state.failures.put_off(attempt.clone(), now());
                false
            }
            Ok(UploadOutcome::Cancelled | UploadOutcome::SessionLost) => false,
            Ok(UploadOutcome::Failed) => true,
            Ok(UploadOutcome::Error(why)) => {
                error!(job.log, "the upload could not be carried out"; "reason" => why);
                true
            }
            Err(panic) => {
                error!(job.log, "an upload worker panicked; this is a bug"; "message" => panic.0);
                true
            }
        };
        self.note_failure(failed, attempt, &job.log);
    }

    fn take_cleanup(&mut self, done: Finished<CleanupJob>) {
        let cleanup = done.job.cleanup;
        self.crew.cleanup_ended(&cleanup);
        self.state.dirty.insert(cleanup.image.clone());
        if at_provider(&cleanup).is_none() {
            self.look_at_disk();
        }
        let attempt = Attempt::Clean(cleanup);
        let why = match done.outcome {
            Ok(Ok(Done::Removed)) => {
                self.state.failures.succeeded(&attempt);
                self.state.failures.put_off(attempt, now());
                return;
            }
            Ok(Ok(Done::LeftAlone)) => {
                self.state.failures.put_off(attempt, now());
                return;
            }
            Ok(Err(why)) => why,
            Err(panic) => format!("a worker panicked, this is a bug: {}", panic.0),
        };
        warn!(done.job.log, "cleaning up failed, to be tried again"; "what" => ?attempt, "reason" => why);
        self.state.failures.failed(attempt, now());
    }

    fn note_failure(&mut self, failed: bool, attempt: Attempt, log: &Logger) {
        if failed {
            let pause = self.state.failures.failed(attempt, now());
            debug!(log, "to be tried again"; "in s" => format!("{pause:.1}"));
        }
    }

    fn stop(self, inbox: &Inbox) -> Stopped {
        let _doing = activity("stopping");
        let mut this = self;
        info!(this.log, "stopping");
        this.crew.stop_jobs();
        let begin = Instant::now();
        let mut limits = [begin + LAST_WORDS, begin + STOP_LIMIT].into_iter();
        let mut deadline = limits.next();
        while let Some(limit) = deadline.filter(|_| !this.crew.is_idle()) {
            match inbox.next_finished(limit) {
                Some(event) => this.handle_event(event),
                None if limits.len() > 0 => {
                    this.interrupter.interrupt();
                    deadline = limits.next();
                }
                None => {
                    for (image, busy) in &this.crew.busy {
                        error!(this.log, "a worker does not let go"; "image" => image, "work" => ?busy);
                    }
                    // Dropping the workers would wait for them, and the session's end must not.
                    std::mem::forget(this.crew);
                    return Stopped::Overdue;
                }
            }
        }
        info!(this.log, "stopped");
        Stopped::Clean
    }
}
