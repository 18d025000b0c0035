//! Cleaning up: one piece of garbage, looked at again under its lock and then removed. What only touches
//! ZooKeeper and the disk runs on the janitor; what asks a provider runs on a cleanup worker of its own, so
//! that no cloud can hold up the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{CallContext, Images as ProviderImages, Provider};
use nodepool_threads::{Job, StopToken, activity_within, crash_point};
use slog::{Logger, info};

use super::abandoned::fail_abandoned;
use super::local_builds;
use super::origin::Origin;
use super::plan::{Cleanup, Garbage};
use crate::config::Config;
use crate::model::{BuildState, Upload, UploadState};
use crate::zk::{Images, Lock, ZkError};

/// How long a provider may take to delete an image.
const DELETE_LIMIT: Duration = Duration::from_secs(600);

/// An ordered clean-up.
pub struct CleanupJob {
    /// What has to go.
    pub cleanup: Cleanup,
    /// The provider that has to be asked; set for [`Garbage::Upload`].
    pub provider: Option<Arc<dyn Provider>>,
    /// The configuration that it was ordered under.
    pub config: Arc<Config>,
    /// Where the files are.
    pub images_dir: PathBuf,
    /// The records.
    pub images: Images,
    /// Names the image and the build, and of an upload its provider and itself.
    pub log: Logger,
}

/// What a clean-up came to: whether there is nothing left to do, or why it must be tried again.
pub type CleanupOutcome = Result<Done, String>;

/// How a clean-up ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is gone.
    Removed,
    /// Somebody else is at it, or it is no garbage any more.
    LeftAlone,
}

impl Job for CleanupJob {
    type Outcome = CleanupOutcome;

    fn describe(&self) -> String {
        let Cleanup { image, build, what } = &self.cleanup;
        match what {
            Garbage::Files => format!("removing the files of {image}-{build}"),
            Garbage::Format(format) => format!("removing {image}-{build}.{format}"),
            Garbage::Abandoned => format!("ending the abandoned build {image}-{build}"),
            Garbage::Build(_) => format!("removing the build {image}-{build}"),
            Garbage::MarkUpload { provider, upload, .. } => {
                format!("marking upload {upload} of {image}-{build} to {provider}")
            }
            Garbage::Upload { provider, upload } => {
                format!("deleting upload {upload} of {image}-{build} at {provider}")
            }
        }
    }

    fn run(&mut self, stop: &StopToken) -> CleanupOutcome {
        if stop.is_stopped() {
            return Ok(Done::LeftAlone);
        }
        match self.clean(stop) {
            // The next start finds it again.
            Err(_) if stop.is_stopped() => Ok(Done::LeftAlone),
            outcome => outcome,
        }
    }
}

fn zk(error: ZkError) -> String {
    error.to_string()
}

impl CleanupJob {
    fn clean(&self, stop: &StopToken) -> CleanupOutcome {
        match &self.cleanup.what {
            Garbage::Files => self.remove_ownerless_files(),
            Garbage::Format(format) => self.remove_format(format),
            Garbage::Abandoned => self.end_abandoned(),
            Garbage::Build(was) => self.remove_build(*was),
            Garbage::MarkUpload { provider, upload, was } => self.mark_upload(provider, upload, *was),
            Garbage::Upload { provider, upload } => self.delete_upload(provider, upload, stop),
        }
    }

    fn remove_files(&self) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        info!(self.log, "removing the files of a build");
        let _doing = activity_within(local_builds::FILES_LIMIT, "removing files");
        local_builds::remove_build(&self.images_dir, image, build)
            .map(|()| Done::Removed)
            .map_err(|error| error.to_string())
    }

    /// Files whose build has no record, or is being deleted: asked of ZooKeeper itself, because what
    /// ordered this may have been a copy that was behind.
    fn remove_ownerless_files(&self) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        let wanted = match self.images.read_build(image, build).map_err(zk)? {
            Some((record, _)) => record.state != BuildState::Deleting,
            None => self.images.has_build(image, build).map_err(zk)?,
        };
        if wanted { Ok(Done::LeftAlone) } else { self.remove_files() }
    }

    /// A format that every provider had when this was ordered: asked of ZooKeeper itself, because what
    /// ordered it was a copy.
    fn remove_format(&self, format: &str) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        for (provider, config) in &self.config.providers {
            let needs = config
                .images()
                .is_some_and(|settings| settings.format == format && settings.diskimages.contains_key(image));
            if !needs {
                continue;
            }
            let uploads = self.images.read_uploads(image, build, provider).map_err(zk)?;
            if !uploads.iter().any(|upload| upload.record.state == UploadState::Ready) {
                return Ok(Done::LeftAlone);
            }
        }
        info!(self.log, "removing a format that every provider has"; "format" => format);
        let _doing = activity_within(local_builds::FILES_LIMIT, "removing files");
        local_builds::remove_format(&self.images_dir, image, build, format)
            .map(|()| Done::Removed)
            .map_err(|error| error.to_string())
    }

    /// Marks a build as failed whose builder has died, or has lost its session. What has failed is removed
    /// like any other failed build.
    fn end_abandoned(&self) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        // The lock that proves that nobody works on it.
        let Some(lock) = self.images.lock_builds(image).map_err(zk)? else { return Ok(Done::LeftAlone) };
        let images = self.images.under(&lock);
        let found = images.read_build(image, build).map_err(zk)?;
        let Some((record, version)) = found.filter(|(record, _)| record.state == BuildState::Building) else {
            return Ok(Done::LeftAlone);
        };
        fail_abandoned(&images, image, build, record, version, &self.log).map_err(zk)?;
        Ok(Done::Removed)
    }

    /// Removes the build if it is still in the state that made it garbage.
    fn remove_build(&self, was: BuildState) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        let lock = self.images.lock_build(image, build);
        let Some(lock) = lock.map_err(zk)? else { return Ok(Done::LeftAlone) };
        let images = self.images.under(&lock);
        let found = images.read_build(image, build).map_err(zk)?;
        let Some((mut record, version)) = found.filter(|(record, _)| record.state == was) else {
            return Ok(Done::LeftAlone);
        };
        if record.state != BuildState::Deleting {
            record.set_state(BuildState::Deleting);
            images.write_build(image, build, &record, version).map_err(zk)?;
            crash_point("build-marked");
        }
        self.remove_files()?;
        crash_point("build-files-removed");
        if images.delete_build(image, build).map_err(zk)? {
            crash_point("build-removed");
            info!(self.log, "the build is removed"; "was" => %was);
        }
        Ok(Done::Removed)
    }

    /// The upload's record under the lock that allows to change it, if it is still in the state that made
    /// it garbage and nobody works on it.
    fn lock_upload(
        &self,
        provider: &str,
        id: &str,
        was: UploadState,
    ) -> Result<Option<(Lock, Upload)>, ZkError> {
        let Cleanup { image, build, .. } = &self.cleanup;
        let lock = match was {
            UploadState::Uploading => self.images.lock_uploads(image, build, provider)?,
            _ => self.images.lock_upload(image, build, provider, id)?,
        };
        let Some(lock) = lock else { return Ok(None) };
        let found = self.images.under(&lock).read_upload(image, build, provider, id)?;
        let found = found.filter(|(record, _)| record.state == was);
        Ok(found.map(|(record, version)| (lock, Upload { id: id.to_owned(), record, version })))
    }

    fn mark_upload(&self, provider: &str, id: &str, was: UploadState) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        let Some((lock, mut upload)) = self.lock_upload(provider, id, was).map_err(zk)? else {
            return Ok(Done::LeftAlone);
        };
        upload.record.set_state(UploadState::Deleting);
        self.images.under(&lock).write_upload(image, build, provider, &upload).map_err(zk)?;
        crash_point("upload-marked");
        info!(self.log, "the upload is marked for deletion"; "was" => %was);
        Ok(Done::Removed)
    }

    fn delete_upload(&self, provider: &str, id: &str, stop: &StopToken) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        let Some(store) = self.provider.as_ref().and_then(|provider| provider.images()) else {
            return Ok(Done::LeftAlone);
        };
        let locked = self.lock_upload(provider, id, UploadState::Deleting).map_err(zk)?;
        let Some((lock, upload)) = locked else { return Ok(Done::LeftAlone) };
        let call = CallContext { stop: stop.deadline_in(DELETE_LIMIT), log: self.log.clone() };
        {
            let _doing = activity_within(DELETE_LIMIT, "deleting at the provider");
            match &upload.record.external_id {
                Some(external_id) => store.delete(&call, external_id).map_err(|error| error.to_string())?,
                None => self.delete_unrecorded(store, &call, provider, id)?,
            }
        }
        crash_point("image-deleted");
        self.images.under(&lock).delete_upload(image, build, provider, id).map_err(zk)?;
        crash_point("upload-removed");
        info!(self.log, "the upload is deleted");
        Ok(Done::Removed)
    }

    /// The record was never finished, but the provider may have got the image all the same: it is known by
    /// its properties.
    fn delete_unrecorded(
        &self,
        store: &dyn ProviderImages,
        call: &CallContext,
        provider: &str,
        id: &str,
    ) -> Result<(), String> {
        let wanted = Origin { build: &self.cleanup.build, upload: id, provider };
        for image in store.list(call).map_err(|error| error.to_string())? {
            if Origin::of(&image) == Some(wanted) {
                store.delete(call, &image.id).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}
