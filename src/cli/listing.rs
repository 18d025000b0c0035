//! `dib-image-list`, `image-list` and `image-status`: what ZooKeeper has, as tables and as JSON.

use super::args::Format;
use super::failure::Failure;
use super::output;
use crate::listing::{Row, build_rows, json, status_rows, table, upload_rows};
use crate::model::{RecordError, now};
use crate::zk::Images;

/// Shows the builds of all images.
pub(super) fn dib_image_list(images: &Images, format: Format) -> Result<(), Failure> {
    let found = images.read_all_builds()?;
    for image in &found {
        for build in &image.damaged {
            warn_left_out(&format!("of the build {}-{build}", image.name), "it is no valid record");
        }
    }
    show(&build_rows(&found, now()), format)
}

/// Shows the uploads of all builds.
pub(super) fn image_list(images: &Images, format: Format) -> Result<(), Failure> {
    let uploads = images.read_all_uploads(&mut left_out)?;
    show(&upload_rows(uploads, now()), format)
}

/// Shows what was ordered by hand for each image.
pub(super) fn image_status(images: &Images, format: Format) -> Result<(), Failure> {
    show(&status_rows(&images.read_all_requests()?, now()), format)
}

/// Tells of a damaged record that is not in a list.
pub(super) fn left_out(path: &str, error: &RecordError) {
    warn_left_out(&format!("at {path}"), &error.to_string());
}

/// Tells of a record that is not in a list.
pub(super) fn warn_left_out(which: &str, why: &str) {
    output::warn(&format!("the record {which} is left out: {why}"));
}

/// Shows a list.
pub(super) fn show<R: Row>(rows: &[R], format: Format) -> Result<(), Failure> {
    output::print(&match format {
        Format::Table => table(rows, now()),
        Format::Json => json(rows),
    })
}
