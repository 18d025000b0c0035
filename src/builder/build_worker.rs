//! A build, from the lock to the finished record. Runs on a build worker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::{Interrupted, Job, StopSource, StopToken, activity_within, crash_point};
use slog::{Logger, error, info, warn};

use super::abandoned::fail_abandoned;
use super::build_log::{self, BuildLog};
use super::dib::{Ended, Invocation};
use super::plan::{Reason, build_reason};
use super::{Attempt, Identity, local_builds};
use crate::config::DiskImage;
use crate::model::{BuildRecord, BuildState, Image, now};
use crate::zk::{Images, ZkError, ZkErrorKind};

/// An ordered build.
pub struct BuildJob {
    /// What is built.
    pub image: Arc<DiskImage>,
    /// The build's id, once it has one.
    pub build: Option<String>,
    /// What has failed if it fails.
    pub attempt: Attempt,
    /// Who builds.
    pub identity: Arc<Identity>,
    /// Where builds go.
    pub images_dir: PathBuf,
    /// Where elements are.
    pub elements_dir: Option<String>,
    /// Where logs go.
    pub log_dir: PathBuf,
    /// How many logs stay.
    pub log_retention: i64,
    /// The records.
    pub images: Images,
    /// Ends this job alone.
    pub cancel: Arc<StopSource>,
    /// Names the image.
    pub log: Logger,
    /// What the build command has to show for itself, once it has run.
    pub report: Option<BuildReport>,
}

/// What is measured of a build.
#[derive(Debug)]
pub struct BuildReport {
    /// The exit code of the build command, or of the `validate-hook` that has failed.
    pub code: i32,
    /// How long the command took.
    pub duration: Duration,
    /// When it ended, in UNIX seconds.
    pub ended: f64,
    /// The bytes that each format takes on the disk; none if the build failed.
    pub sizes: Vec<(String, u64)>,
}

/// What a build came to.
#[derive(Debug)]
pub enum BuildOutcome {
    /// Somebody else is building the image, or has just done so.
    NotNeeded,
    /// The build is ready.
    Ready,
    /// The command failed, or left out a format.
    Failed,
    /// The command took longer than `build-timeout`.
    TimedOut,
    /// The daemon is stopping, or the job was cancelled.
    Cancelled,
    /// The lock was lost with its session; nothing was recorded.
    SessionLost,
    /// ZooKeeper or the disk did not do their part.
    Error(String),
}

impl Job for BuildJob {
    type Outcome = BuildOutcome;

    fn describe(&self) -> String {
        format!("building {}", self.image.name)
    }

    fn run(&mut self, stop: &StopToken) -> BuildOutcome {
        let stop = stop.or(&self.cancel.token());
        self.build(&stop).unwrap_or_else(|error| match error.kind() {
            ZkErrorKind::SessionLost => BuildOutcome::SessionLost,
            _ => BuildOutcome::Error(error.to_string()),
        })
    }
}

impl BuildJob {
    /// Where the output of the build goes.
    pub fn output(&self) -> BuildLog {
        BuildLog { image: Arc::clone(&self.image), dir: self.log_dir.clone() }
    }

    fn build(&mut self, stop: &StopToken) -> Result<BuildOutcome, ZkError> {
        let name = &self.image.name;
        if stop.is_stopped() {
            return Ok(BuildOutcome::Cancelled);
        }
        let builder = self.identity.fqdn().to_owned();
        let Some(lock) = self.images.lock_builds(name)? else { return Ok(BuildOutcome::NotNeeded) };
        crash_point("build-locked");
        let images = self.images.under(&lock);
        let found = images.read_builds(name)?;
        self.settle_abandoned(&images, &found)?;
        // Another builder may have finished a build between the order and the lock.
        let Some(reason) = build_reason(&found, &self.image, now()) else {
            return Ok(BuildOutcome::NotNeeded);
        };
        let mut record = BuildRecord::new(BuildState::Building);
        record.builder = Some(builder);
        record.builder_id = Some(self.identity.builder_id.clone());
        record.formats.clone_from(&self.image.formats);
        let id = images.create_build(name, &record)?;
        crash_point("build-recorded");
        // Kept in the job: its outcome is logged where it comes back to.
        self.log = self.log.new(slog::o!("build" => id.clone()));
        self.build = Some(id.clone());
        let (log, name) = (self.log.clone(), &self.image.name);
        info!(log, "building"; "reason" => reason.as_str());

        let (outcome, report) = self.run_command(&id, stop, &log);
        self.report = Some(report);
        crash_point("build-written");
        let ready = matches!(outcome, BuildOutcome::Ready);
        if !ready {
            self.remove_files(&id, &log);
        }
        record.username = Some(self.image.username.clone());
        record.python_path = Some(self.image.python_path.clone());
        record.shell_type.clone_from(&self.image.shell_type);
        record.set_state(if ready { BuildState::Ready } else { BuildState::Failed });
        // Nobody but the holder of the lock writes a record that is `building`: its version is the first.
        // Patiently, because the work of an hour may hang on it.
        if let Err(error) = images.patient().write_build(name, &id, &record, 0) {
            if error.is(ZkErrorKind::Unavailable) {
                // It may have been written, and then the files are wanted. If not, the janitor finds both.
                warn!(log, "the build may not have been recorded; then it is made again"; "reason" => %error);
            } else if ready {
                warn!(log, "the build is thrown away: it cannot be recorded"; "reason" => %error);
                self.remove_files(&id, &log);
            } else {
                warn!(log, "it cannot be recorded that the build has failed"; "reason" => %error);
            }
            return Err(error);
        }
        crash_point("build-recorded-ready");
        if ready {
            self.finish_request(reason, &images, &log);
            crash_point("request-removed");
            info!(log, "the build is ready");
        }
        Ok(outcome)
    }

    /// Whoever holds the build lock knows that no other build of the image is running, whatever the records
    /// say.
    fn settle_abandoned(&self, images: &Images, found: &Image) -> Result<(), ZkError> {
        let abandoned = found.builds.values().filter(|build| build.record.state == BuildState::Building);
        for build in abandoned {
            let record = build.record.clone();
            let log = self.log.new(slog::o!("build" => build.id.clone()));
            match fail_abandoned(images, &found.name, &build.id, record, build.version, &log) {
                // Somebody has changed or removed it meanwhile: it is his.
                Err(error) if matches!(error.kind(), ZkErrorKind::BadVersion | ZkErrorKind::NoNode) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn run_command(&self, id: &str, stop: &StopToken, log: &Logger) -> (BuildOutcome, BuildReport) {
        let name = &self.image.name;
        self.remove_old_logs(log);
        let invocation = Invocation {
            image: &self.image,
            base: local_builds::base_path(&self.images_dir, name, id),
            elements_dir: self.elements_dir.as_deref(),
            log: build_log::path(&self.log_dir, name, id),
            mark: self.identity.mark(),
            daemon_log: log,
        };
        let shown = invocation.log.display().to_string();
        let begin = Instant::now();
        let (ended, code) = {
            let _doing = activity_within(invocation.limit(), format!("running the build command of {name}"));
            invocation.run(stop)
        };
        let complete = matches!(ended, Ended::Complete);
        let sizes = if complete { self.sizes(id) } else { Vec::new() };
        let report = BuildReport { code, duration: begin.elapsed(), ended: now(), sizes };
        let outcome = match ended {
            Ended::Complete => BuildOutcome::Ready,
            Ended::Incomplete(format) => {
                error!(log, "the build command left no file"; "format" => format, "log" => shown);
                BuildOutcome::Failed
            }
            Ended::Failed(status) => {
                error!(log, "the build command failed"; "status" => %status, "log" => shown);
                BuildOutcome::Failed
            }
            Ended::Refused(status) => {
                error!(log, "the validate-hook does not approve of the build"; "status" => %status, "log" => shown);
                BuildOutcome::Failed
            }
            Ended::NotStarted(why) => {
                error!(log, "a command of the build could not be run"; "reason" => why, "log" => shown);
                BuildOutcome::Failed
            }
            Ended::Interrupted(Interrupted::DeadlinePassed) => {
                let limit = self.image.build_timeout.as_secs();
                error!(log, "the build took too long and was ended"; "build-timeout" => limit, "log" => shown);
                BuildOutcome::TimedOut
            }
            Ended::Interrupted(Interrupted::Stopped) => {
                info!(log, "the build was cancelled");
                BuildOutcome::Cancelled
            }
        };
        (outcome, report)
    }

    /// The bytes that each format takes on the disk.
    fn sizes(&self, id: &str) -> Vec<(String, u64)> {
        let size = |format: &String| {
            let file = local_builds::image_file(&self.images_dir, &self.image.name, id, format);
            Some((format.clone(), local_builds::bytes_on_disk(&file.metadata().ok()?)))
        };
        self.image.formats.iter().filter_map(size).collect()
    }

    fn remove_old_logs(&self, log: &Logger) {
        let _doing = activity_within(local_builds::FILES_LIMIT, "removing old build logs");
        if let Err(error) = build_log::prune(&self.log_dir, &self.image.name, self.log_retention) {
            warn!(log, "cannot remove old build logs"; "directory" => %self.log_dir.display(), "reason" => %error);
        }
    }

    fn remove_files(&self, id: &str, log: &Logger) {
        let _doing = activity_within(local_builds::FILES_LIMIT, "removing files");
        if let Err(error) = local_builds::remove_build(&self.images_dir, &self.image.name, id) {
            // The janitor finds them again once the record is gone.
            warn!(log, "cannot remove the files of the build"; "reason" => %error);
        }
    }

    /// A request by hand is done when a build that it started is ready.
    fn finish_request(&self, reason: Reason, images: &Images, log: &Logger) {
        if reason != Reason::Requested {
            return;
        }
        if let Err(error) = images.remove_request(&self.image.name) {
            warn!(log, "cannot remove the build request"; "reason" => %error);
        }
    }
}
