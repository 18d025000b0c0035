//! Cleaning up: one piece of garbage, looked at again under its lock and then removed. What only touches
//! ZooKeeper and the disk runs on the janitor; what asks a provider runs on a cleanup worker of its own, so
//! that no cloud can hold up the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{CallContext, Images as ProviderImages, Provider};
use nodepool_threads::{Job, StopToken};
use slog::{Logger, info};

use super::local_builds;
use super::plan::{Cleanup, Garbage};
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
    /// Where the files are.
    pub images_dir: PathBuf,
    /// The records.
    pub images: Images,
    /// Names the image and the build.
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
            Garbage::Build => format!("removing the build {image}-{build}"),
            Garbage::MarkUpload { provider, upload } => {
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
            Garbage::Build => self.remove_build(),
            Garbage::MarkUpload { provider, upload } => self.mark_upload(provider, upload),
            Garbage::Upload { provider, upload } => self.delete_upload(provider, upload, stop),
        }
    }

    fn remove_files(&self) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        info!(self.log, "removing the files of a build");
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

    fn remove_format(&self, format: &str) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        info!(self.log, "removing a format that every provider has"; "format" => format);
        local_builds::remove_format(&self.images_dir, image, build, format)
            .map(|()| Done::Removed)
            .map_err(|error| error.to_string())
    }

    /// The lock that proves that nobody works on the build in its present state.
    fn lock_build(&self, state: BuildState) -> Result<Option<Lock>, ZkError> {
        let Cleanup { image, build, .. } = &self.cleanup;
        match state {
            BuildState::Building => self.images.lock_builds(image),
            _ => self.images.lock_build(image, build),
        }
    }

    fn remove_build(&self) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        let Some((seen, _)) = self.images.read_build(image, build).map_err(zk)? else {
            return Ok(Done::LeftAlone);
        };
        let Some(lock) = self.lock_build(seen.state).map_err(zk)? else { return Ok(Done::LeftAlone) };
        let images = self.images.under(&lock);
        let Some((mut record, version)) = images.read_build(image, build).map_err(zk)? else {
            return Ok(Done::LeftAlone);
        };
        if record.state != seen.state {
            return Ok(Done::LeftAlone); // It has changed before the lock was ours: to be planned anew.
        }
        if record.state != BuildState::Deleting {
            record.set_state(BuildState::Deleting);
            images.write_build(image, build, &record, version).map_err(zk)?;
        }
        self.remove_files()?;
        if images.delete_build(image, build).map_err(zk)? {
            info!(self.log, "the build is removed"; "was" => %seen.state);
        }
        Ok(Done::Removed)
    }

    /// The upload's record under the lock that allows to change it, if it is still there and nobody works
    /// on it.
    fn lock_upload(&self, provider: &str, id: &str) -> Result<Option<(Lock, Upload)>, ZkError> {
        let Cleanup { image, build, .. } = &self.cleanup;
        let read = |images: &Images| images.read_upload(image, build, provider, id);
        let Some((seen, _)) = read(&self.images)? else { return Ok(None) };
        let lock = match seen.state {
            UploadState::Uploading => self.images.lock_uploads(image, build, provider)?,
            _ => self.images.lock_upload(image, build, provider, id)?,
        };
        let Some(lock) = lock else { return Ok(None) };
        let found = read(&self.images.under(&lock))?.filter(|(record, _)| record.state == seen.state);
        Ok(found.map(|(record, version)| (lock, Upload { id: id.to_owned(), record, version })))
    }

    fn mark_upload(&self, provider: &str, id: &str) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        let Some((lock, mut upload)) = self.lock_upload(provider, id).map_err(zk)? else {
            return Ok(Done::LeftAlone);
        };
        let was = upload.record.state;
        upload.record.set_state(UploadState::Deleting);
        self.images.under(&lock).write_upload(image, build, provider, &upload).map_err(zk)?;
        info!(self.log, "the upload is marked for deletion"; "provider" => provider, "upload" => id, "was" => %was);
        Ok(Done::Removed)
    }

    fn delete_upload(&self, provider: &str, id: &str, stop: &StopToken) -> CleanupOutcome {
        let Cleanup { image, build, .. } = &self.cleanup;
        let Some(store) = self.provider.as_ref().and_then(|provider| provider.images()) else {
            return Ok(Done::LeftAlone);
        };
        let Some((lock, upload)) = self.lock_upload(provider, id).map_err(zk)? else {
            return Ok(Done::LeftAlone);
        };
        if upload.record.state != UploadState::Deleting {
            return Ok(Done::LeftAlone);
        }
        let call = CallContext { stop: stop.deadline_in(DELETE_LIMIT), log: self.log.clone() };
        match &upload.record.external_id {
            Some(external_id) => store.delete(&call, external_id).map_err(|error| error.to_string())?,
            // The record was never finished, but the provider may have got the image all the same.
            None => self.delete_unrecorded(store, &call, id)?,
        }
        self.images.under(&lock).delete_upload(image, build, provider, id).map_err(zk)?;
        info!(self.log, "the upload is deleted"; "provider" => provider, "upload" => id);
        Ok(Done::Removed)
    }

    fn delete_unrecorded(
        &self,
        store: &dyn ProviderImages,
        call: &CallContext,
        id: &str,
    ) -> Result<(), String> {
        for image in store.list(call).map_err(|error| error.to_string())? {
            let has = |key: &str, value: &str| image.properties.get(key).is_some_and(|found| found == value);
            if has("nodepool_build_id", &self.cleanup.build) && has("nodepool_upload_id", id) {
                store.delete(call, &image.id).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}
