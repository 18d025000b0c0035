//! From plans to jobs: which of the wanted work goes to a free worker now.

use std::sync::Arc;

use nodepool_threads::StopSource;
use slog::o;

use super::build_worker::BuildJob;
use super::crew::{Running, at_provider};
use super::janitor::CleanupJob;
use super::manager::NodePoolBuilder;
use super::plan::{Cleanup, Garbage, Reason};
use super::upload_worker::UploadJob;
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
        let mut wanted: Vec<(bool, f64, String)> = Vec::new();
        for (image, planned) in &self.state.plans {
            if let Some(reason) = planned.plan.build.filter(|_| !self.is_building(image)) {
                wanted.push((reason != Reason::Requested, planned.waits_since, image.clone()));
            }
        }
        wanted.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (_, _, name) in wanted.into_iter().take(self.crew.free_builders()) {
            let image = self.config.diskimages.get(&name).zip(self.state.plans.get(&name));
            let Some((image, planned)) = image else { continue };
            let cancel = Arc::new(StopSource::new());
            let job = BuildJob {
                image: Arc::clone(image),
                attempt: planned.attempt.clone(),
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
            identity: Arc::clone(&self.identity),
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
