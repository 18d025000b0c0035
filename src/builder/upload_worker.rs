//! An upload of a build to a provider, from the lock to the finished record. Runs on an upload worker.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_drivers::api::{
    CallContext, Error, ErrorKind, ImageSettings, ImageUpload, Images as ProviderImages, Progress, Provider,
    StoredImage,
};
use nodepool_threads::{ChildGroup, Job, StopSource, StopToken, activity_within, crash_point};
use slog::{Logger, error, info, warn};

use super::hook_output::HookOutput;
use super::origin::Origin;
use super::{Identity, local_builds};
use crate::config::DiskImage;
use crate::model::{BuildRecord, BuildState, Upload, UploadRecord, UploadState, now};
use crate::zk::{Images, ZkError, ZkErrorKind};

/// How long a deletion may take that cleans up after a failed or cancelled upload.
const UNDO_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to look for what earlier attempts have left.
const STRAYS_LIMIT: Duration = Duration::from_secs(60);
/// How long a hook may take: it is a program of the operator, but must not hold a worker for ever.
const HOOK_LIMIT: Duration = Duration::from_secs(3600);
/// How long a hook that is told to end may take to clean up after itself.
const HOOK_GRACE: Duration = Duration::from_secs(2);

/// An ordered upload.
pub struct UploadJob {
    /// The image.
    pub image: Arc<DiskImage>,
    /// The build.
    pub build: String,
    /// The provider's name.
    pub provider_name: String,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// How the provider wants its images.
    pub settings: ImageSettings,
    /// Who uploads.
    pub identity: Arc<Identity>,
    /// Where the files are.
    pub images_dir: PathBuf,
    /// The records.
    pub images: Images,
    /// Ends this job alone.
    pub cancel: Arc<StopSource>,
    /// Names the image, the build and the provider.
    pub log: Logger,
    /// How far it is.
    pub progress: Progress,
    /// How long it took, once it has come back.
    pub took: Duration,
}

/// What an upload came to.
#[derive(Debug)]
pub enum UploadOutcome {
    /// Somebody else is uploading it, or it is not wanted any more.
    NotNeeded,
    /// The provider has the image.
    Ready,
    /// The provider, or the hook, refused it.
    Failed(ErrorKind),
    /// The daemon is stopping, or the job was cancelled.
    Cancelled,
    /// The lock was lost with its session; nothing was recorded.
    SessionLost,
    /// ZooKeeper did not do its part.
    Error(String),
}

impl Job for UploadJob {
    type Outcome = UploadOutcome;

    fn describe(&self) -> String {
        format!("uploading {}-{} to {}", self.image.name, self.build, self.provider_name)
    }

    fn run(&mut self, stop: &StopToken) -> UploadOutcome {
        let stop = stop.or(&self.cancel.token());
        let begin = Instant::now();
        let outcome = self.upload(&stop);
        self.took = begin.elapsed();
        outcome.unwrap_or_else(|error| match error.kind() {
            ZkErrorKind::SessionLost => UploadOutcome::SessionLost,
            _ => UploadOutcome::Error(error.to_string()),
        })
    }
}

impl UploadJob {
    fn upload(&self, stop: &StopToken) -> Result<UploadOutcome, ZkError> {
        let (image, build, provider) = (&self.image.name, &self.build, &self.provider_name);
        let Some(store) = self.provider.images() else { return Ok(UploadOutcome::NotNeeded) };
        if stop.is_stopped() {
            return Ok(UploadOutcome::Cancelled);
        }
        let Some(lock) = self.images.lock_uploads(image, build, provider)? else {
            return Ok(UploadOutcome::NotNeeded);
        };
        crash_point("upload-locked");
        let images = self.images.under(&lock);
        let Some(of_build) = self.still_needed(&images)? else { return Ok(UploadOutcome::NotNeeded) };

        let mut record = UploadRecord::new(UploadState::Uploading);
        record.username.clone_from(&of_build.username);
        record.python_path.clone_from(&of_build.python_path);
        record.shell_type.clone_from(&of_build.shell_type);
        let id = images.create_upload(image, build, provider, &record)?;
        crash_point("upload-recorded");
        let log = self.log.new(slog::o!("upload" => id.clone()));
        let name = self.settings.external_name(image, &id, now() as u64);
        info!(log, "uploading"; "name" => &name);

        self.remove_strays(store, &images, &id, stop, &log)?;
        let stored = self.store(store, &id, &name, stop, &log);
        match &stored {
            Ok(external_id) => {
                record.set_state(UploadState::Ready);
                record.external_id = Some(external_id.clone());
                record.external_name = Some(name);
                record.format = Some(self.settings.format.clone());
            }
            Err(_) => record.set_state(UploadState::Failed),
        }
        // Nobody but the holder of the lock writes a record that is `uploading`: its version is the first.
        let upload = Upload { id, record, version: 0 };
        // Patiently: an image of many gigabytes may have been brought there.
        if let Err(error) = images.patient().write_upload(image, build, provider, &upload) {
            match (&stored, error.kind()) {
                // It may have been written, and then the image is wanted. If not, the janitor finds both.
                (_, ZkErrorKind::Unavailable) => {
                    warn!(log, "the upload may not have been recorded; then it is made again"; "reason" => %error);
                }
                (Ok(external_id), _) => {
                    warn!(log, "the upload is thrown away: it cannot be recorded"; "reason" => %error);
                    self.undo(store, external_id, &log);
                }
                (Err(_), _) => {}
            }
            return Err(error);
        }
        crash_point("upload-recorded-ready");
        Ok(match stored {
            Ok(external_id) => {
                info!(log, "the upload is ready"; "id" => external_id);
                UploadOutcome::Ready
            }
            Err(error) if error.kind() == ErrorKind::Cancelled && stop.is_stopped() => {
                info!(log, "the upload was cancelled");
                UploadOutcome::Cancelled
            }
            Err(error) => {
                error!(log, "the upload failed"; "reason" => %error);
                UploadOutcome::Failed(error.kind())
            }
        })
    }

    /// The build's record, if it is ready and the provider has not got it meanwhile.
    fn still_needed(&self, images: &Images) -> Result<Option<BuildRecord>, ZkError> {
        let (image, build, provider) = (&self.image.name, &self.build, &self.provider_name);
        let uploads = images.read_uploads(image, build, provider)?;
        if uploads.iter().any(|upload| upload.record.state == UploadState::Ready) {
            return Ok(None);
        }
        let record = images.read_build(image, build)?.map(|(record, _)| record);
        Ok(record.filter(|record| record.state == BuildState::Ready))
    }

    /// Removes what earlier attempts have left at the provider without a record: a builder was killed, and the
    /// original has removed the record of its unfinished upload without asking the provider. The upload lock
    /// proves that nobody is uploading the same.
    fn remove_strays(
        &self,
        store: &dyn ProviderImages,
        images: &Images,
        id: &str,
        stop: &StopToken,
        log: &Logger,
    ) -> Result<(), ZkError> {
        // The lock's parent is the first child of theirs, and the first upload has the number after it.
        if id.parse() == Ok(1) {
            return Ok(());
        }
        let recorded = images.read_uploads(&self.image.name, &self.build, &self.provider_name)?;
        let call = CallContext { stop: stop.deadline_in(STRAYS_LIMIT), log: log.clone() };
        let _doing = activity_within(STRAYS_LIMIT, "looking for images without a record");
        let is_stray = |image: &StoredImage| {
            Origin::of(image).is_some_and(|origin| {
                origin.build == self.build
                    && origin.provider == self.provider_name
                    && !recorded.iter().any(|upload| upload.id == origin.upload)
            })
        };
        let removed = store.list(&call).and_then(|found| {
            for stray in found.into_iter().filter(is_stray) {
                info!(log, "removing an image without a record"; "id" => &stray.id, "name" => &stray.name);
                store.delete(&call, &stray.id)?;
            }
            Ok(())
        });
        if let Err(error) = removed {
            // No reason to leave the provider without an image. The next attempt looks again.
            warn!(log, "cannot look for images without a record"; "reason" => %error);
        }
        Ok(())
    }

    /// Brings the image to the provider, hook and all. After an error nothing of it is left there, as far
    /// as that can be had.
    fn store(
        &self,
        store: &dyn ProviderImages,
        upload_id: &str,
        name: &str,
        stop: &StopToken,
        log: &Logger,
    ) -> Result<String, Error> {
        let file =
            local_builds::image_file(&self.images_dir, &self.image.name, &self.build, &self.settings.format);
        let checksum = |kind| {
            let _doing = activity_within(local_builds::FILES_LIMIT, "reading a checksum");
            local_builds::checksum(&file, kind).map_err(|error| {
                let what = format!("cannot read the {kind} file of {}", file.display());
                Error::new(ErrorKind::Transient, what).caused_by(error)
            })
        };
        let mut properties = self.image.metadata.clone();
        if let Some(own) = self.settings.diskimages.get(&self.image.name) {
            properties.extend(own.meta.clone());
        }
        let origin = Origin { build: &self.build, upload: upload_id, provider: &self.provider_name };
        origin.write_to(&mut properties);
        let image = ImageUpload {
            name: name.to_owned(),
            file: file.clone(),
            format: self.settings.format.clone(),
            md5: checksum("md5")?,
            sha256: checksum("sha256")?,
            properties,
            progress: self.progress.clone(),
        };
        let call = CallContext { stop: stop.deadline_in(self.settings.upload_timeout), log: log.clone() };
        let external_id = {
            // A provider cleans up after an upload that took too long.
            let limit = self.settings.upload_timeout.saturating_add(UNDO_LIMIT);
            let _doing = activity_within(limit, format!("storing {name}"));
            store.upload(&call, &image)?
        };
        crash_point("image-stored");
        if let Some(hook) = &self.settings.post_upload_hook {
            if let Err(why) = self.run_hook(hook, &external_id, &file, stop, log) {
                self.undo(store, &external_id, log);
                return Err(why);
            }
        }
        Ok(external_id)
    }

    fn run_hook(
        &self,
        hook: &Path,
        external_id: &str,
        file: &Path,
        stop: &StopToken,
        log: &Logger,
    ) -> Result<(), Error> {
        let _doing = activity_within(HOOK_LIMIT + HOOK_GRACE, format!("running the hook {}", hook.display()));
        let failed = |why: String| {
            Error::new(ErrorKind::Transient, format!("the post-upload-hook {} {why}", hook.display()))
        };
        let (output, to) =
            HookOutput::listen().map_err(|error| failed(format!("has no listener: {error}")))?;
        let started = to.try_clone().and_then(|errors| {
            let mut command = Command::new(hook);
            command.arg(&self.provider_name).arg(external_id).arg(file);
            command.stdin(Stdio::null()).stdout(to).stderr(errors);
            self.identity.mark().put_on(&mut command);
            ChildGroup::spawn(&mut command, "hook")
        });
        let mut child = started.map_err(|error| failed(format!("cannot be run: {error}")))?;
        crash_point("hook-started");
        let ended = child.wait(&stop.deadline_in(HOOK_LIMIT)).inspect_err(|_| {
            // Only that it ends matters now.
            let _ = child.terminate(HOOK_GRACE);
        });
        if let Some(what) = child.survivors() {
            warn!(log, "the post-upload-hook has left processes behind"; "reason" => what);
        }
        let status = ended?.map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        let said = output.end();
        if !status.success() {
            return Err(failed(format!("failed ({status}): {said}")));
        }
        info!(log, "the post-upload-hook has run"; "output" => said);
        Ok(())
    }

    /// Deletes an image that must not stay. Its own deadline and no stop: a daemon that stops must not
    /// leave it behind.
    fn undo(&self, store: &dyn ProviderImages, external_id: &str, log: &Logger) {
        let source = StopSource::new();
        let call = CallContext { stop: source.token().deadline_in(UNDO_LIMIT), log: log.clone() };
        let _doing = activity_within(UNDO_LIMIT, "deleting an unwanted image");
        if let Err(error) = store.delete(&call, external_id) {
            warn!(log, "an unwanted image stays at the provider"; "id" => external_id, "reason" => %error);
        }
    }
}
