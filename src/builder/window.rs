//! What others may see of a running builder; the status pages look through it.
//!
//! A [`Window`] asks the builder thread, which alone knows what runs and what has failed, and which answers
//! within a moment because it makes no call that could block. Nothing is prepared for anybody: a question
//! that nobody asks costs nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::build_log::BuildLog;
use super::failures::Attempt;
use super::manager::NodePoolBuilder;
use crate::config::{BuilderWebApp, Config, Refused};
use crate::zk::TreeReader;

/// Where an answer is wanted.
pub(super) type Question = Sender<Box<View>>;

/// The builder as others see it.
pub type Window = crate::window::Window<View, BuilderWebApp, Sights>;

/// What others can see of a builder without asking its thread.
#[derive(Clone)]
pub struct Sights {
    /// The copy of ZooKeeper's tree of images.
    pub tree: TreeReader,
    /// Who builds: its id in the records.
    pub builder_id: String,
    /// Where images are built.
    pub images_dir: PathBuf,
}

/// What the builder thread knows at one moment. Times are UNIX seconds.
#[derive(Debug)]
pub struct View {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Whether the copy of ZooKeeper's tree is complete.
    pub tree_complete: bool,
    /// What is being built.
    pub builds: Vec<RunningBuild>,
    /// What is being uploaded.
    pub uploads: Vec<RunningUpload>,
    /// How many clean-ups run.
    pub cleanups: usize,
    /// How many could run at once.
    pub workers: Workers,
    /// What has failed and not succeeded since.
    pub setbacks: Vec<Setback>,
    /// What has failed since the start.
    pub failed: FailureCounts,
    /// Whether the configuration files are refused as they are.
    pub refused: Option<Refused>,
}

/// A build that is with a worker.
#[derive(Debug)]
pub struct RunningBuild {
    /// The image; it is also in the log's.
    pub image: String,
    /// Since when.
    pub since: f64,
    /// Where its output goes.
    pub log: Option<BuildLog>,
}

/// An upload that is with a worker.
#[derive(Debug)]
pub struct RunningUpload {
    /// The image.
    pub image: String,
    /// The build's id.
    pub build: String,
    /// The provider's name.
    pub provider: String,
    /// Since when.
    pub since: f64,
    /// The bytes that are there, of how many, if the driver tells that.
    pub progress: Option<(u64, u64)>,
}

/// The sizes of the worker pools.
#[derive(Debug, Clone, Copy)]
pub struct Workers {
    /// For builds.
    pub builds: usize,
    /// For uploads.
    pub uploads: usize,
    /// For clean-ups of either kind.
    pub cleanups: usize,
}

/// Something that has failed and not succeeded since.
#[derive(Debug)]
pub struct Setback {
    /// What.
    pub attempt: Attempt,
    /// How often in a row.
    pub failures: u32,
    /// When it may be tried again.
    pub not_before: f64,
    /// How it has failed the last time, where that is told.
    pub reason: Option<Reason>,
}

impl Setback {
    /// All that [`Setback::kind`] answers.
    pub const KINDS: [&'static str; 4] = ["build", "upload", "cleanup", "provider"];

    /// What kind of thing it is.
    pub fn kind(&self) -> &'static str {
        match self.attempt {
            Attempt::Build(..) => "build",
            Attempt::Upload(..) => "upload",
            Attempt::Clean(_) => "cleanup",
            Attempt::Open(_) => "provider",
        }
    }
}

/// Why something has failed.
#[derive(Debug, Clone)]
pub struct Reason {
    /// When.
    pub when: f64,
    /// A sentence without secrets.
    pub why: String,
    /// The id of the build that has failed, and where its output is.
    pub output: Option<(String, BuildLog)>,
}

/// How many builds and uploads have failed since the start.
#[derive(Debug, Clone, Default)]
pub struct FailureCounts {
    /// By image.
    pub builds: BTreeMap<String, u64>,
    /// By image and provider.
    pub uploads: BTreeMap<(String, String), u64>,
}

impl FailureCounts {
    pub(super) fn count(&mut self, attempt: &Attempt) {
        match attempt {
            Attempt::Build(image, _) => *self.builds.entry(image.clone()).or_default() += 1,
            Attempt::Upload(image, provider) => {
                *self.uploads.entry((image.clone(), provider.clone())).or_default() += 1;
            }
            Attempt::Clean(_) | Attempt::Open(_) => {}
        }
    }
}

impl NodePoolBuilder {
    /// How it stands.
    pub(super) fn view(&self) -> View {
        let build = |(image, running): (&String, &super::crew::Running)| RunningBuild {
            image: image.clone(),
            since: running.since,
            log: running.log.clone(),
        };
        let upload = |(at, running): (&(String, String, String), &super::crew::Running)| {
            let (image, build, provider) = at.clone();
            RunningUpload { image, build, provider, since: running.since, progress: running.progress.bytes() }
        };
        let setback = |(attempt, failures, not_before): (&Attempt, u32, f64)| Setback {
            attempt: attempt.clone(),
            failures,
            not_before,
            reason: self.state.reasons.get(attempt).cloned(),
        };
        let [builds, uploads] = self.crew.workers();
        View {
            config: Arc::clone(&self.config),
            tree_complete: self.state.tree_complete,
            builds: self.crew.builds.iter().map(build).collect(),
            uploads: self.crew.uploads.iter().map(upload).collect(),
            cleanups: self.crew.busy.values().map(|busy| busy.cleanups.len()).sum(),
            workers: Workers {
                builds,
                uploads,
                cleanups: self.crew.janitor.size() + self.crew.cleaners.size(),
            },
            setbacks: self.state.failures.standing().map(setback).collect(),
            failed: self.state.failure_counts.clone(),
            refused: self.reload.refused(),
        }
    }
}
