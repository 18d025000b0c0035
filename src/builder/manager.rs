//! The builder thread: it owns the truth and decides, workers do. It waits for an event, notes what has
//! changed, plans for the images that the change touches, and hands out what is planned to free workers. It
//! makes no call that could block: not to ZooKeeper, not to a cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::{activity, activity_within, trim_memory};
use slog::{Logger, error, info, warn};

use super::agenda::{Agenda, Planned};
use super::crew::Crew;
use super::edit;
use super::event::{Event, Inbox};
use super::failures::{Attempt, Failures};
use super::free_space::FreeSpace;
use super::local_builds::LocalBuilds;
use super::metrics::Metrics;
use super::plan::{Busy, Facts, plan};
use super::providers::OpenProviders;
use super::window::{FailureCounts, Reason};
use super::{Identity, Options};
use crate::config::{BuilderWebApp, Config, ConfigError, Loaded, Reload};
use crate::model::{Image, now};
use crate::window::{Followed, Stopped};
use crate::zk::{Changes, Generation, Images, Interrupter, Session, TreeCache, decode_image};

/// How long the work on one event may take: it makes no call.
const DECIDING: Duration = Duration::from_secs(1);
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
    pub(super) metrics: Metrics,
    /// What the status pages follow.
    pub(super) web_settings: Followed<BuilderWebApp>,
    pub(super) reload: Reload,
    pub(super) log: Logger,
    pub(super) state: State,
}

/// What the builder knows and has not told anybody.
#[derive(Default)]
pub(super) struct State {
    pub(super) providers: OpenProviders,
    pub(super) local: LocalBuilds,
    pub(super) failures: Failures,
    pub(super) free_space: FreeSpace,
    /// Whether the copy of the tree is complete: before that, what it lacks means nothing.
    pub(super) tree_complete: bool,
    pub(super) generation: Option<Generation>,
    /// Images that something has changed about since they were planned.
    pub(super) dirty: BTreeSet<String>,
    /// What is to be done.
    pub(super) agenda: Agenda,
    /// Damaged records that have been logged, with their damage.
    pub(super) damaged: BTreeSet<(String, String)>,
    /// How the last attempts have failed that stand as failed.
    pub(super) reasons: BTreeMap<Attempt, Reason>,
    pub(super) failure_counts: FailureCounts,
}

impl NodePoolBuilder {
    /// Runs until it is stopped.
    pub(super) fn run(mut self, inbox: &mut Inbox) -> Stopped {
        {
            let _doing = activity_within(DECIDING, "beginning");
            self.look_at_disk();
            self.open_providers();
            self.everything_is_dirty();
        }
        let mut next_round = Instant::now() + self.round();
        loop {
            let event = inbox.next_event(self.deadline(next_round));
            let _doing = activity_within(DECIDING, "deciding");
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
            self.metrics.totals(self.crew.running(), self.crew.workers());
            self.metrics.send();
        }
        self.stop(inbox)
    }

    fn round(&self) -> Duration {
        self.options.cleanup_interval.unwrap_or(DEFAULT_ROUND)
    }

    /// When to wake up without an event: for the next round, or when a plan depends on the time.
    fn deadline(&self, next_round: Instant) -> Instant {
        let of_plans = self.state.agenda.next_moment();
        let of_providers = OpenProviders::look_again(&self.config, &self.state.failures);
        let times = of_plans.into_iter().chain(of_providers);
        let Some(time) = times.min_by(f64::total_cmp) else { return next_round };
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
            Event::ConfigUnwatched => error!(
                self.log,
                "the configuration is not watched any more, the last one stays in force; this is a bug"
            ),
            Event::Session => self.note_session(),
            // Nobody may be waiting any more, and there is room for one answer.
            Event::Question(answer) => _ = answer.try_send(Box::new(self.view())),
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
        let due = self.state.agenda.take_due(time);
        self.state.dirty.extend(due);
        if OpenProviders::look_again(&self.config, &self.state.failures).is_some_and(|at| at <= time) {
            self.open_providers();
        }
    }

    fn begin_round(&mut self) {
        let State { failures, reasons, .. } = &mut self.state;
        failures.forget_old(now());
        reasons.retain(|attempt, _| failures.stands(attempt));
        trim_memory();
        self.look_at_disk();
    }

    fn everything_is_dirty(&mut self) {
        let known = self.tree.look(|root| root.children.names().map(str::to_owned).collect::<Vec<_>>());
        let dirty = &mut self.state.dirty;
        dirty.extend(known);
        dirty.extend(self.config.diskimages.keys().cloned());
        dirty.extend(self.state.local.images().cloned());
        dirty.extend(self.state.agenda.images().cloned());
    }

    /// Reads the whole images directory. What our own jobs do to it need not be looked for.
    pub(super) fn look_at_disk(&mut self) {
        let _doing = activity("reading the images-dir");
        match LocalBuilds::scan(&self.images_dir) {
            Ok(local) => {
                self.state.dirty.extend(self.state.local.differing(&local).cloned());
                self.state.local = local;
            }
            Err(error) => error!(self.log, "cannot read the images directory";
                "directory" => %self.images_dir.display(), "reason" => %error),
        }
    }

    fn take_config(&mut self, change: Result<Box<Loaded>, ConfigError>) {
        let Some(config) = self.reload.take(change, &self.config) else { return };
        if config.images_dir.as_ref() != Some(&self.images_dir) {
            warn!(self.log, "a new images-dir takes effect with the next start");
        }
        self.web_settings.set(&config.builder_webapp);
        let old = std::mem::replace(&mut self.config, Arc::new(config));
        let touched = edit::touched(&old, &self.config, &mut self.state.failures);
        self.open_providers();
        match touched {
            Some(images) => self.state.dirty.extend(images),
            None => self.everything_is_dirty(),
        }
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
            let busy = self.crew.busy.get(&name).unwrap_or(&idle);
            self.metrics.image(&image, &self.config, busy);
            let facts = Facts {
                image: &image,
                config: &self.config,
                local: &self.state.local,
                builder_id: &self.identity.builder_id,
                busy,
                failures: &self.state.failures,
                janitor: self.options.cleanup_interval.is_some(),
                now: now(),
            };
            let plan = plan(&facts);
            let newest = image.ready_builds().first().map(|build| build.record.state_time);
            let waits_since = image.request.or(newest).unwrap_or_default();
            let attempt = Attempt::build(&name, image.request, image.request_renewed);
            self.state.agenda.set(name, Planned { plan, attempt, waits_since });
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

    fn stop(self, inbox: &Inbox) -> Stopped {
        let _doing = activity_within(STOP_LIMIT, "stopping");
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
