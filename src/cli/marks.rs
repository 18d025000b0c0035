//! The commands that leave a mark in ZooKeeper for the builders: deletion and pause.

use nodepool_drivers::api::name_mistake;

use super::args::UploadId;
use super::connection::Connection;
use super::failure::Failure;
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

/// The image and the build id of a build as `dib-image-list` names it, `<image>-<build_id>`.
pub(super) fn split_build(id: &str) -> Result<(&str, &str), Failure> {
    let names = id.rsplit_once('-').filter(|(image, build)| check_names(&[image, build]).is_some());
    names.ok_or_else(|| build_not_found(id))
}

/// There is no such build.
pub(super) fn build_not_found(id: &str) -> Failure {
    Failure::because(format!(
        "Build {id} not found: expected IMAGE-BUILD_ID, the ID that dib-image-list shows"
    ))
}

/// Marks the build `<image>-<build_id>` for deletion.
pub(super) fn delete_build(images: &Images, id: &str) -> Result<(), Failure> {
    let not_found = || build_not_found(id);
    let (image, build) = split_build(id)?;
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
    let not_found = || {
        let wanted =
            "expected the Build ID and the Upload ID that image-list shows, without the image's name";
        Failure::because(format!("Image upload not found: {wanted}"))
    };
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

/// Pauses an image or lets it go on. It must be configured here, or known to builders that have another file.
pub(super) fn set_paused(
    config: &Config,
    connect: impl Fn() -> Result<Connection, Failure>,
    image: &str,
    paused: bool,
) -> Result<(), Failure> {
    if let Some(mistake) = name_mistake(image) {
        return Err(Failure::because(format!("the name '{}' {mistake}", image.escape_debug())));
    }
    let connection = connect()?;
    let images = &connection.images;
    if !config.diskimages.contains_key(image) && !images.exists(image)? {
        let file = config.file.display();
        let why = format!("the image '{image}' is neither configured in {file} nor in ZooKeeper");
        return Err(Failure::because(why));
    }
    Ok(images.set_paused(image, paused)?)
}
