//! The listings, as the original's web service gives them: tables, or JSON with the same keys. Its parameter
//! `fields` chooses the columns of a table.

use super::http::Request;
use crate::listing::{Keyed, build_rows, json, status_rows, table_of, upload_rows};
use crate::model::Image;
use crate::zk::{ListedUpload, TreeReader, decode_image};

/// The listings of images, which all daemons have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::web) enum ImageListing {
    /// `/image-list`.
    Uploads,
    /// `/dib-image-list`.
    Builds,
    /// `/image-status`.
    Requests,
}

impl ImageListing {
    /// The listing of these images; `now` in UNIX seconds.
    pub(in crate::web) fn show(self, images: &[Image], now: f64, request: &Request) -> String {
        match self {
            Self::Uploads => show(&upload_rows(uploads(images), now), now, request),
            Self::Builds => show(&build_rows(images, now), now, request),
            Self::Requests => show(&status_rows(images, now), now, request),
        }
    }
}

/// The images that ZooKeeper has, by name. The paths of records that cannot be read are added to `damaged`. The copy of
/// the tree is held for one image at a time, and only to copy it.
pub(in crate::web) fn read_images(tree: &TreeReader, damaged: &mut Vec<String>) -> Vec<Image> {
    let images = tree.names().into_iter().filter_map(|name| {
        let node = tree.copy(&name)?;
        Some(decode_image(&name, &node, &mut |path, _| damaged.push(path.to_owned())))
    });
    images.collect()
}

fn uploads(images: &[Image]) -> Vec<ListedUpload> {
    let builds = images.iter().flat_map(|image| image.builds.values().map(move |build| (image, build)));
    let uploads = builds.flat_map(|(image, build)| {
        build.uploads().map(move |(provider, upload)| ListedUpload {
            image: image.name.clone(),
            build: build.id.clone(),
            build_created: build.created,
            provider: provider.to_owned(),
            upload: upload.clone(),
        })
    });
    uploads.collect()
}

/// The rows in the form that is wanted.
pub(in crate::web) fn show<R: Keyed>(rows: &[R], now: f64, request: &Request) -> String {
    if request.wants_json {
        return json(rows);
    }
    let fields = request.parameter("fields");
    table_of(rows, now, |key| {
        fields.as_ref().is_none_or(|fields| fields.split(',').any(|field| field == key))
    })
}
