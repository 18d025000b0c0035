//! Which upload an image at a provider belongs to, as the image's properties tell.

use std::collections::BTreeMap;

use nodepool_drivers::api::StoredImage;

/// The property that names the build (spec/builder.md).
const BUILD: &str = "nodepool_build_id";
/// The property that names the upload (spec/builder.md).
const UPLOAD: &str = "nodepool_upload_id";
/// The property that names the provider. The original does not write it; but several providers may share one
/// store, and upload ids count for each by itself.
const PROVIDER: &str = "nodepool_provider_name";

/// An upload, as the properties of its image name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) build: &'a str,
    pub(super) upload: &'a str,
    pub(super) provider: &'a str,
}

impl<'a> Origin<'a> {
    /// What an image's properties say, if it was uploaded by one of us.
    pub(super) fn of(image: &'a StoredImage) -> Option<Self> {
        let property = |key| image.properties.get(key).map(String::as_str);
        Some(Self { build: property(BUILD)?, upload: property(UPLOAD)?, provider: property(PROVIDER)? })
    }

    /// Adds it to the properties of an image.
    pub(super) fn write_to(self, properties: &mut BTreeMap<String, String>) {
        for (key, value) in [(BUILD, self.build), (UPLOAD, self.upload), (PROVIDER, self.provider)] {
            properties.insert(key.to_owned(), value.to_owned());
        }
    }
}
