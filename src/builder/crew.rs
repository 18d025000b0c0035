//! The workers and what each of them is doing: who is free, and who may go next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, never};
use nodepool_drivers::api::Progress;
use nodepool_threads::{Finished, Pool, StopSource};

use super::build_log::BuildLog;
use super::build_worker::BuildJob;
use super::janitor::CleanupJob;
use super::plan::{Busy, Cleanup, Garbage};
use super::upload_worker::UploadJob;
use crate::zk::Generation;

/// The clean-ups that ask a provider at the same time, one at each provider.
const CLEANERS: usize = 16;

/// A job that is with a worker.
pub(super) struct Running {
    /// Ends it.
    pub(super) cancel: Arc<StopSource>,
    /// The session that its lock belongs to.
    pub(super) generation: Generation,
    /// Since when, UNIX seconds.
    pub(super) since: f64,
    /// Where a build's output goes.
    pub(super) log: Option<BuildLog>,
    /// How far an upload is.
    pub(super) progress: Progress,
}

/// The worker pools.
pub(super) struct Crew {
    pub(super) builders: Pool<BuildJob>,
    pub(super) uploaders: Pool<UploadJob>,
    pub(super) janitor: Pool<CleanupJob>,
    pub(super) cleaners: Pool<CleanupJob>,
    /// What is being done for each image that anything is done for.
    pub(super) busy: BTreeMap<String, Busy>,
    /// By image.
    pub(super) builds: BTreeMap<String, Running>,
    /// By image, build and provider.
    pub(super) uploads: BTreeMap<(String, String, String), Running>,
}

/// Where the pools send finished jobs.
pub(super) struct Returns {
    pub(super) builds: Receiver<Finished<BuildJob>>,
    pub(super) uploads: Receiver<Finished<UploadJob>>,
    pub(super) janitor: Receiver<Finished<CleanupJob>>,
    pub(super) cleaners: Receiver<Finished<CleanupJob>>,
}

impl Crew {
    /// Starts the workers.
    pub(super) fn start(build_workers: usize, upload_workers: usize) -> io::Result<(Self, Returns)> {
        let (builders, builds) = Pool::start("build-worker", "build worker", build_workers)?;
        let (uploaders, uploads) = Pool::start("upload-worker", "upload worker", upload_workers)?;
        // A pool without workers has let go of its channel, which is no reason to take it for broken.
        let builds = if build_workers == 0 { never() } else { builds };
        let uploads = if upload_workers == 0 { never() } else { uploads };
        let (janitor, swept) = Pool::start("janitor", "janitor", 1)?;
        let (cleaners, cleaned) = Pool::start_elastic("cleanup-worker", "provider clean-up", CLEANERS)?;
        let crew = Self {
            builders,
            uploaders,
            janitor,
            cleaners,
            busy: BTreeMap::new(),
            builds: BTreeMap::new(),
            uploads: BTreeMap::new(),
        };
        Ok((crew, Returns { builds, uploads, janitor: swept, cleaners: cleaned }))
    }

    /// Whether nothing is with a worker.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.is_empty()
    }

    /// How many builds and uploads run.
    pub(super) fn running(&self) -> [usize; 2] {
        [self.builds.len(), self.uploads.len()]
    }

    /// How many of them could run at once.
    pub(super) fn workers(&self) -> [usize; 2] {
        [self.builders.size(), self.uploaders.size()]
    }

    /// How many builds could begin now.
    pub(super) fn free_builders(&self) -> usize {
        self.builders.size().saturating_sub(self.builds.len())
    }

    /// How many uploads could begin now.
    pub(super) fn free_uploaders(&self) -> usize {
        self.uploaders.size().saturating_sub(self.uploads.len())
    }

    /// Which of these uploads (image, build, provider) may go next, if any: the one whose provider has the
    /// fewest. The last free worker is never given to a provider that has one already while there are
    /// others, so that a slow provider cannot occupy all of them.
    pub(super) fn next_upload<'a>(
        &self,
        wanted: &[(&'a str, &'a str, &'a str)],
        providers: usize,
    ) -> Option<(&'a str, &'a str, &'a str)> {
        let free = self.free_uploaders();
        if free == 0 {
            return None;
        }
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, _, provider) in self.uploads.keys() {
            *running.entry(provider).or_default() += 1;
        }
        let at = |provider: &str| running.get(provider).copied().unwrap_or(0);
        let next = wanted.iter().min_by_key(|(_, _, provider)| at(provider))?;
        let reserved = free == 1 && providers > 1 && self.uploaders.size() > 1 && at(next.2) > 0;
        (!reserved).then_some(*next)
    }

    /// The workers that are free to clean up.
    pub(super) fn room_to_clean(&self) -> Room {
        let mut room =
            Room { janitors: self.janitor.size(), cleaners: self.cleaners.size(), taken: BTreeSet::new() };
        for cleanup in self.busy.values().flat_map(|busy| &busy.cleanups) {
            room.take(cleanup);
        }
        room
    }

    /// Notes that a build has begun.
    pub(super) fn build_began(&mut self, image: &str, running: Running) {
        self.busy.entry(image.to_owned()).or_default().build = true;
        self.builds.insert(image.to_owned(), running);
    }

    /// Notes that an upload has begun.
    pub(super) fn upload_began(
        &mut self,
        (image, build, provider): (String, String, String),
        running: Running,
    ) {
        self.busy.entry(image.clone()).or_default().uploads.insert((build.clone(), provider.clone()));
        self.uploads.insert((image, build, provider), running);
    }

    /// Notes that a clean-up has begun.
    pub(super) fn cleanup_began(&mut self, cleanup: &Cleanup) {
        self.busy.entry(cleanup.image.clone()).or_default().cleanups.insert(cleanup.clone());
    }

    /// Notes that a build has come back.
    pub(super) fn build_ended(&mut self, image: &str) {
        self.builds.remove(image);
        self.change_busy(image, |busy| busy.build = false);
    }

    /// Notes that an upload has come back.
    pub(super) fn upload_ended(&mut self, image: &str, build: &str, provider: &str) {
        let at = (build.to_owned(), provider.to_owned());
        self.uploads.remove(&(image.to_owned(), at.0.clone(), at.1.clone()));
        self.change_busy(image, |busy| _ = busy.uploads.remove(&at));
    }

    /// Notes that a clean-up has come back.
    pub(super) fn cleanup_ended(&mut self, cleanup: &Cleanup) {
        self.change_busy(&cleanup.image, |busy| _ = busy.cleanups.remove(cleanup));
    }

    fn change_busy(&mut self, image: &str, change: impl FnOnce(&mut Busy)) {
        if let Some(busy) = self.busy.get_mut(image) {
            change(busy);
            if !busy.build && busy.uploads.is_empty() && busy.cleanups.is_empty() {
                self.busy.remove(image);
            }
        }
    }

    /// Ends every job whose lock was lost with its session.
    pub(super) fn cancel_older_than(&self, generation: Generation) {
        let running = self.builds.values().chain(self.uploads.values());
        for job in running.filter(|job| job.generation < generation) {
            job.cancel.stop();
        }
    }

    /// Ends all jobs. They still come back.
    pub(super) fn stop_jobs(&self) {
        self.builders.stop_jobs();
        self.uploaders.stop_jobs();
        self.janitor.stop_jobs();
        self.cleaners.stop_jobs();
    }
}

/// How many clean-ups may begin.
pub(super) struct Room {
    /// Of those that ask no provider.
    janitors: usize,
    /// Of those that ask one.
    cleaners: usize,
    /// The providers that are being asked: one question at a time.
    taken: BTreeSet<String>,
}

impl Room {
    /// Whether none may begin.
    pub(super) fn is_gone(&self) -> bool {
        self.janitors == 0 && self.cleaners == 0
    }

    /// Whether this one may begin.
    pub(super) fn is_for(&self, cleanup: &Cleanup) -> bool {
        match at_provider(cleanup) {
            None => self.janitors > 0,
            Some(provider) => self.cleaners > 0 && !self.taken.contains(provider),
        }
    }

    /// Gives it a worker.
    pub(super) fn take(&mut self, cleanup: &Cleanup) {
        match at_provider(cleanup) {
            None => self.janitors = self.janitors.saturating_sub(1),
            Some(provider) => {
                self.cleaners = self.cleaners.saturating_sub(1);
                self.taken.insert(provider.to_owned());
            }
        }
    }
}

/// The provider that a clean-up has to ask.
pub(super) fn at_provider(cleanup: &Cleanup) -> Option<&str> {
    match &cleanup.what {
        Garbage::Upload { provider, .. } => Some(provider),
        Garbage::Files
        | Garbage::Format(_)
        | Garbage::Abandoned
        | Garbage::Build(_)
        | Garbage::MarkUpload { .. } => None,
    }
}
