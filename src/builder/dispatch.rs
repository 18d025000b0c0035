//! From plans to jobs: which of the wanted work goes to a free worker now.

use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{Progress, Provider};
use nodepool_threads::StopSource;
use slog::o;

use super::build_worker::BuildJob;
use super::crew::{Running, at_provider};
use super::janitor::CleanupJob;
use super::manager::NodePoolBuilder;
use super::plan::{Cleanup, Garbage, Reason};
use super::upload_worker::UploadJob;
use crate::model::now;
use crate::zk::Generation;

impl NodePoolBuilder {
    /// Hands out what is planned, as far as there are workers. Nothing without a connection: every job
    /// begins with a lock.
    pub(super) fn hand_out(&mut self) {
        let status = self.session.status();
        if !status.is_connected() {
            return;
        }
        self.hand_out_builds(status.generation);
        self.hand_out_uploads(status.generation);
        self.hand_out_cleanups();
    }

    /// Builds that somebody waits for come first; then, as among these, the longest waiting before the
    /// others, so that an image that is always due holds up no other one.
    fn hand_out_builds(&mut self, generation: Generation) {
        if self.crew.free_builders() == 0 {
            return;
        }
        let mut wanted: Vec<(bool, f64, String)> = Vec::new();
        for (image, planned) in self.state.agenda.work() {
            if let Some(reason) = planned.plan.build.filter(|_| !self.is_building(image)) {
                wanted.push((reason != Reason::Requested, planned.waits_since, image.clone()));
            }
        }
        wanted.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (_, _, name) in wanted.into_iter().take(self.crew.free_builders()) {
            // Asked before each: what waits is asked for again at the next event, or round.
            if !self.state.free_space.has_room(&self.config, &self.images_dir, &self.log) {
                return;
            }
            let image = self.config.diskimages.get(&name).zip(self.state.agenda.of(&name));
            let Some((image, planned)) = image else { continue };
            let cancel = Arc::new(StopSource::new());
            let job = BuildJob {
                image: Arc::clone(image),
                build: None,
                attempt: planned.attempt.clone(),
                identity: Arc::clone(&self.identity),
                images_dir: self.images_dir.clone(),
                elements_dir: self.config.elements_dir.clone(),
                log_dir: self.config.build_log_dir.clone(),
                log_retention: self.config.build_log_retention,
                images: self.images.clone(),
                cancel: Arc::clone(&cancel),
                log: self.log.new(o!("image" => name.clone())),
                report: None,
            };
            let log = Some(job.output());
            if self.crew.builders.submit(job).is_ok() {
                self.crew.build_began(
                    &name,
                    Running { cancel, generation, since: now(), log, progress: Progress::default() },
                );
            }
        }
    }

    fn is_building(&self, image: &str) -> bool {
        self.crew.busy.get(image).is_some_and(|busy| busy.build)
    }

    fn hand_out_uploads(&mut self, generation: Generation) {
        if self.crew.free_uploaders() == 0 {
            return;
        }
        let mut wanted: Vec<(&str, &str, &str)> = Vec::new();
        for (image, planned) in
            self.state.agenda.work().filter(|(_, planned)| !planned.plan.uploads.is_empty())
        {
            let busy = self.crew.busy.get(image);
            let new =
                planned.plan.uploads.iter().filter(|at| !busy.is_some_and(|busy| busy.uploads.contains(*at)));
            let open = new.filter(|(_, provider)| self.state.providers.get(provider).is_some());
            wanted.extend(open.map(|(build, provider)| (image.as_str(), build.as_str(), provider.as_str())));
        }
        let providers = self.config.providers.values().filter(|provider| provider.images().is_some()).count();
        while let Some(next) = self.crew.next_upload(&wanted, providers) {
            wanted.retain(|other| *other != next);
            let Some(job) = self.upload_job(next) else { continue };
            let cancel = Arc::clone(&job.cancel);
            let progress = job.progress.clone();
            if self.crew.uploaders.submit(job).is_ok() {
                let (image, build, provider) = next;
                let at = (image.to_owned(), build.to_owned(), provider.to_owned());
                let running = Running { cancel, generation, since: now(), log: None, progress };
                self.crew.upload_began(at, running);
            }
        }
    }

    fn upload_job(&self, (image, build, provider): (&str, &str, &str)) -> Option<UploadJob> {
        Some(UploadJob {
            image: Arc::clone(self.config.diskimages.get(image)?),
            build: build.to_owned(),
            provider_name: provider.to_owned(),
            provider: Arc::clone(self.state.providers.get(provider)?),
            settings: self.config.providers.get(provider)?.images()?.clone(),
            identity: Arc::clone(&self.identity),
            images_dir: self.images_dir.clone(),
            images: self.images.clone(),
            cancel: Arc::new(StopSource::new()),
            log: self.log.new(
                o!("image" => image.to_owned(), "build" => build.to_owned(), "provider" => provider.to_owned()),
            ),
            progress: Progress::default(),
            took: Duration::ZERO,
        })
    }

    fn hand_out_cleanups(&mut self) {
        let mut room = self.crew.room_to_clean();
        let mut chosen: Vec<(Cleanup, Option<Arc<dyn Provider>>)> = Vec::new();
        for cleanup in self.state.agenda.work().flat_map(|(_, planned)| &planned.plan.cleanups) {
            if room.is_gone() {
                break;
            }
            let busy = self.crew.busy.get(&cleanup.image).is_some_and(|busy| busy.cleanups.contains(cleanup));
            if busy || !room.is_for(cleanup) {
                continue;
            }
            let provider = match at_provider(cleanup) {
                None => None,
                Some(name) => match self.state.providers.get(name) {
                    Some(provider) => Some(Arc::clone(provider)),
                    None => continue, // It cannot be opened at present.
                },
            };
            room.take(cleanup);
            chosen.push((cleanup.clone(), provider));
        }
        for (cleanup, provider) in chosen {
            let pool = if provider.is_some() { &self.crew.cleaners } else { &self.crew.janitor };
            let log = self.log.new(o!("image" => cleanup.image.clone(), "build" => cleanup.build.clone()));
            let log = match &cleanup.what {
                Garbage::Upload { provider, upload } | Garbage::MarkUpload { provider, upload, .. } => {
                    log.new(o!("provider" => provider.clone(), "upload" => upload.clone()))
                }
                Garbage::Files | Garbage::Format(_) | Garbage::Abandoned | Garbage::Build(_) => log,
            };
            let job = CleanupJob {
                cleanup: cleanup.clone(),
                provider,
                config: Arc::clone(&self.config),
                images_dir: self.images_dir.clone(),
                images: self.images.clone(),
                log,
            };
            if pool.submit(job).is_ok() {
                self.crew.cleanup_began(&cleanup);
            }
        }
    }
}
