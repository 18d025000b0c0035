//! Building images, uploading them, and cleaning up after them (spec/builder.md).
//!
//! [`NodepoolBuilderApp`] starts and stops it all. The builder thread in `manager` waits for an event, asks
//! `plan` what is to be done, and hands out jobs (`dispatch`) to the `crew`: builds (`build_worker`, which runs `dib`),
//! uploads (`upload_worker`) and clean-ups (`janitor`). A job takes its lock, looks again, does its work and
//! writes its record; then it comes back to the builder thread with its outcome (`outcomes`).

mod abandoned;
mod agenda;
mod app;
mod build_log;
mod build_worker;
mod crew;
mod dib;
mod dispatch;
mod edit;
mod event;
mod failures;
mod free_space;
mod hook_output;
mod identity;
mod janitor;
mod local_builds;
mod manager;
mod metrics;
mod origin;
mod outcomes;
pub mod plan;
mod providers;
mod upload_worker;
mod window;

pub use app::{NodepoolBuilderApp, Options};
pub use build_log::{BuildLog, path as build_log_path};
pub use failures::{Attempt, Failures};
pub use free_space::Space;
pub use identity::Identity;
pub use local_builds::{LocalBuilds, bytes_on_disk};
pub use origin::Origin;
pub use window::{
    FailureCounts, Reason, RunningBuild, RunningUpload, Setback, Sights, View, Window, Workers,
};
