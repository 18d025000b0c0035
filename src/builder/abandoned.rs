//! Builds whose record says `building` although nobody builds them.

use slog::{Logger, warn};

use crate::model::{BuildRecord, BuildState};
use crate::zk::{Images, ZkError};

/// Marks a build as failed that nobody works on, which the caller knows by the image's build lock.
pub(super) fn fail_abandoned(
    images: &Images,
    image: &str,
    build: &str,
    mut record: BuildRecord,
    version: i32,
    log: &Logger,
) -> Result<(), ZkError> {
    record.set_state(BuildState::Failed);
    images.write_build(image, build, &record, version)?;
    let builder = record.builder.unwrap_or_default();
    warn!(log, "a build has failed: its builder has died or lost its session"; "builder" => builder);
    Ok(())
}
