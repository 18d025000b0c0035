//! What comes of jobs: the worker is free again, and what failed waits before it is tried again.

use nodepool_drivers::api::ErrorKind;
use nodepool_threads::Finished;
use slog::{Logger, error, info, warn};

use super::build_log::BuildLog;
use super::build_worker::{BuildJob, BuildOutcome};
use super::failures::Attempt;
use super::janitor::{CleanupJob, Done};
use super::manager::NodePoolBuilder;
use super::plan::Garbage;
use super::upload_worker::{UploadJob, UploadOutcome};
use super::window::Reason;
use crate::model::now;

/// How long to wait at least, in seconds, when the provider says that the same call will fail again.
const UNLIKELY_TO_HELP: f64 = 60.0;
/// What is told of a panic; the log has its message.
const PANICKED: &str = "a worker panicked; this is a bug";

impl NodePoolBuilder {
    pub(super) fn take_build(&mut self, done: Finished<BuildJob>) {
        let name = done.job.image.name.clone();
        self.crew.build_ended(&name);
        self.state.dirty.insert(name.clone());
        self.note_files(&done);
        let attempt = done.job.attempt.clone();
        // A build that was cancelled says nothing about the image.
        let report =
            done.job.report.as_ref().filter(|_| !matches!(done.outcome, Ok(BuildOutcome::Cancelled)));
        if let Some(report) = report {
            self.metrics.built(&name, report);
        }
        let failed = match done.outcome {
            Ok(BuildOutcome::Ready) => {
                // Also of its uploads: another file may well be accepted.
                self.state.failures.forget_image(&name);
                None
            }
            Ok(BuildOutcome::NotNeeded) => {
                self.state.failures.put_off(attempt.clone(), now());
                None
            }
            Ok(BuildOutcome::Cancelled | BuildOutcome::SessionLost) => None,
            Ok(BuildOutcome::Failed) => Some("the build failed".to_owned()),
            Ok(BuildOutcome::TimedOut) => Some("the build took too long and was ended".to_owned()),
            Ok(BuildOutcome::Error(why)) => {
                error!(done.job.log, "the build could not be carried out"; "reason" => &why);
                Some(why)
            }
            Err(panic) => {
                error!(done.job.log, "a build worker panicked; this is a bug"; "panic" => panic.0);
                Some(PANICKED.to_owned())
            }
        };
        let output = done.job.build.clone().map(|id| (id, done.job.output()));
        self.note_failure(failed, attempt, output, &done.job.log);
    }

    /// Notes what a build has left on the disk, which is read only where that is not certain.
    fn note_files(&mut self, done: &Finished<BuildJob>) {
        match (&done.outcome, &done.job.build, &done.job.report) {
            (Ok(BuildOutcome::NotNeeded), ..) | (_, None, _) => {}
            (Ok(BuildOutcome::Ready), Some(id), Some(report)) => {
                let formats = report.sizes.iter().map(|(format, _)| format.clone());
                self.state.local.add(&done.job.image.name, id, formats);
            }
            _ => self.look_at_disk(),
        }
    }

    pub(super) fn take_upload(&mut self, done: Finished<UploadJob>) {
        let job = done.job;
        self.crew.upload_ended(&job.image.name, &job.build, &job.provider_name);
        self.state.dirty.insert(job.image.name.clone());
        let attempt = Attempt::Upload(job.image.name.clone(), job.provider_name.clone());
        let failed = match done.outcome {
            Ok(UploadOutcome::Ready) => {
                self.metrics.uploaded(&job.image.name, &job.provider_name, job.took);
                self.state.failures.succeeded(&attempt);
                None
            }
            Ok(UploadOutcome::NotNeeded) => {
                self.state.failures.put_off(attempt.clone(), now());
                None
            }
            Ok(UploadOutcome::Cancelled | UploadOutcome::SessionLost) => None,
            Ok(UploadOutcome::Failed(kind)) => {
                if matches!(kind, ErrorKind::Quota | ErrorKind::RateLimited | ErrorKind::Permanent) {
                    self.state.failures.hold_off(attempt.clone(), now() + UNLIKELY_TO_HELP);
                }
                Some(explain(kind).to_owned())
            }
            Ok(UploadOutcome::Error(why)) => {
                error!(job.log, "the upload could not be carried out"; "reason" => &why);
                Some(why)
            }
            Err(panic) => {
                error!(job.log, "an upload worker panicked; this is a bug"; "panic" => panic.0);
                Some(PANICKED.to_owned())
            }
        };
        self.note_failure(failed, attempt, None, &job.log);
    }

    pub(super) fn take_cleanup(&mut self, done: Finished<CleanupJob>) {
        let cleanup = done.job.cleanup;
        self.crew.cleanup_ended(&cleanup);
        self.state.dirty.insert(cleanup.image.clone());
        match (&cleanup.what, &done.outcome) {
            // These have nothing to do with the disk.
            (Garbage::Abandoned | Garbage::MarkUpload { .. } | Garbage::Upload { .. }, _) => {}
            (_, Ok(Ok(Done::LeftAlone))) => {}
            (Garbage::Files | Garbage::Build(_), Ok(Ok(Done::Removed))) => {
                self.state.local.forget(&cleanup.image, &cleanup.build);
            }
            (Garbage::Format(format), Ok(Ok(Done::Removed))) => {
                self.state.local.forget_format(&cleanup.image, &cleanup.build, format);
            }
            (Garbage::Files | Garbage::Build(_) | Garbage::Format(_), _) => self.look_at_disk(),
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

    /// Notes why an attempt has failed, if it has; `output` is the build's id and where its log is.
    fn note_failure(
        &mut self,
        failed: Option<String>,
        attempt: Attempt,
        output: Option<(String, BuildLog)>,
        log: &Logger,
    ) {
        let Some(why) = failed else { return };
        let pause = self.state.failures.failed(attempt.clone(), now());
        info!(log, "to be tried again"; "seconds" => format!("{pause:.1}"));
        self.state.failure_counts.count(&attempt);
        self.state.reasons.insert(attempt, Reason { when: now(), why, output });
    }
}

/// What is told of a failed upload besides the log. What a provider says may quote the credentials that it
/// was asked with.
fn explain(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "the upload failed: something that it needs does not exist",
        ErrorKind::Quota => "the upload failed: a quota is used up",
        ErrorKind::RateLimited => "the upload failed: the provider asks for fewer calls",
        ErrorKind::Timeout => "the upload took too long",
        ErrorKind::Permanent => "the upload was refused",
        _ => "the upload failed",
    }
}
