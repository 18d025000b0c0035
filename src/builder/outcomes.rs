//! What comes of jobs: the worker is free again, and what failed waits before it is tried again.

use nodepool_drivers::api::ErrorKind;
use nodepool_threads::Finished;
use slog::{Logger, debug, error, warn};

use super::build_worker::{BuildJob, BuildOutcome};
use super::crew::at_provider;
use super::failures::Attempt;
use super::janitor::{CleanupJob, Done};
use super::manager::NodePoolBuilder;
use super::upload_worker::{UploadJob, UploadOutcome};
use crate::model::now;

/// How long to wait at least, in seconds, when the provider says that the same call will fail again.
const UNLIKELY_TO_HELP: f64 = 60.0;

impl NodePoolBuilder {
    pub(super) fn take_build(&mut self, done: Finished<BuildJob>) {
        let name = done.job.image.name.clone();
        self.crew.build_ended(&name);
        self.state.dirty.insert(name);
        self.look_at_disk();
        let attempt = done.job.attempt.clone();
        let failed = match done.outcome {
            Ok(BuildOutcome::Ready) => {
                // Also of its uploads: another file may well be accepted.
                self.state.failures.forget_image(&done.job.image.name);
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
                error!(done.job.log, "a build worker panicked; this is a bug"; "panic" => panic.0);
                true
            }
        };
        self.note_failure(failed, attempt, &done.job.log);
    }

    pub(super) fn take_upload(&mut self, done: Finished<UploadJob>) {
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
            Ok(UploadOutcome::Failed(kind)) => {
                if matches!(kind, ErrorKind::Quota | ErrorKind::RateLimited | ErrorKind::Permanent) {
                    self.state.failures.hold_off(attempt.clone(), now() + UNLIKELY_TO_HELP);
                }
                true
            }
            Ok(UploadOutcome::Error(why)) => {
                error!(job.log, "the upload could not be carried out"; "reason" => why);
                true
            }
            Err(panic) => {
                error!(job.log, "an upload worker panicked; this is a bug"; "panic" => panic.0);
                true
            }
        };
        self.note_failure(failed, attempt, &job.log);
    }

    pub(super) fn take_cleanup(&mut self, done: Finished<CleanupJob>) {
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
                // Whatever has failed before: it is somebody else's now, or gone.
                self.state.failures.forget_failures(&attempt);
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
}
