//! The commands that leave a mark in ZooKeeper for the builders: deletion and pause.

use nodepool_drivers::api::name_mistake;

use super::args::UploadId;
use super::connection::Connection;
use super::failure::Failure;
use super::output;
use crate::config::Config;
use crate::model::{BuildState, Upload, UploadState};
use crate::zk::{Images, ZkErrorKind, ZkResult};

/// What came of a conditional write.
enum Written {
    Done,
    /// Somebody else wrote in between: what was read is outdated.
    Outdated,
    Gone,
}

fn written(result: ZkResult<i32>) -> Result<Written, Failure> {
    match result {
        Ok(_) => Ok(Written::Done),
        Err(error) if error.is(ZkErrorKind::BadVersion) => Ok(Written::Outdated),
        Err(error) if error.is(ZkErrorKind::NoNode) => Ok(Written::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Marks the build `<image>-<build_id>` for deletion.
pub(super) fn delete_build(images: &Images, id: &str) -> Result<(), Failure> {
    let not_found = || Failure::because(format!("Build {id} not found"));
    let (image, build) = id.rsplit_once('-').ok_or_else(not_found)?;
    check_names(&[image, build]).ok_or_else(not_found)?;
    loop {
        let (mut record, version) = images.read_build(image, build)?.ok_or_else(not_found)?;
        match record.state {
            BuildState::Building => return Err(Failure::because("Cannot delete a build in progress")),
            BuildState::Deleting => return Ok(()),
            BuildState::Ready | BuildState::Failed => record.set_state(BuildState::Deleting),
        }
        match written(images.write_build(image, build, &record, version))? {
            Written::Done => return Ok(()),
            Written::Outdated => {}
            Written::Gone => return Err(not_found()),
        }
    }
}

/// Marks an upload for deletion.
pub(super) fn delete_upload(images: &Images, id: &UploadId) -> Result<(), Failure> {
    let not_found = || Failure::because("Image upload not found");
    let UploadId { provider, image, build_id, upload_id } = id;
    check_names(&[provider, image, build_id, upload_id]).ok_or_else(not_found)?;
    loop {
        let (mut record, version) =
            images.read_upload(image, build_id, provider, upload_id)?.ok_or_else(not_found)?;
        match record.state {
            UploadState::Uploading => {
                return Err(Failure::because("Cannot delete because image upload in progress"));
            }
            UploadState::Deleting => return Ok(()),
            UploadState::Ready | UploadState::Failed => record.set_state(UploadState::Deleting),
        }
        let upload = Upload { id: upload_id.clone(), record, version };
        match written(images.write_upload(image, build_id, provider, &upload))? {
            Written::Done => return Ok(()),
            Written::Outdated => {}
            Written::Gone => return Err(not_found()),
        }
    }
}

/// Whether the names can be those of znodes at all.
fn check_names(names: &[&str]) -> Option<()> {
    names.iter().all(|name| name_mistake(name).is_none()).then_some(())
}

/// Pauses an image or lets it go on. An image that is not configured yet may be paused beforehand.
pub(super) fn set_paused(
    config: &Config,
    connect: impl Fn() -> Result<Connection, Failure>,
    image: &str,
    paused: bool,
) -> Result<(), Failure> {
    if let Some(mistake) = name_mistake(image) {
        return Err(Failure::because(format!("the name '{}' {mistake}", image.escape_debug())));
    }
    connect()?.images.set_paused(image, paused)?;
    if paused && !config.diskimages.contains_key(image) {
        output::warn(&format!("the image '{image}' is not configured in {}", config.file.display()));
    }
    Ok(())
}
