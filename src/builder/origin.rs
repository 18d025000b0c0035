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
pub struct Origin<'a> {
    /// The build's id.
    pub build: &'a str,
    /// The upload's id.
    pub upload: &'a str,
    /// The provider's name.
    pub provider: &'a str,
}

impl<'a> Origin<'a> {
    /// What an image's properties say, if it was uploaded by one of us.
    pub(super) fn of(image: &'a StoredImage) -> Option<Self> {
        let origin = image.properties.get(PROVIDER).and_then(|provider| Self::of_any(image, provider));
        origin.filter(|_| image.properties.contains_key(UPLOAD))
    }

    /// What the properties of an image at `provider` say, if it was uploaded by one of us or by the original.
    /// An upload that they do not name is empty.
    pub fn of_any(image: &'a StoredImage, provider: &'a str) -> Option<Self> {
        let property = |key| image.properties.get(key).map(String::as_str);
        let (upload, provider) =
            (property(UPLOAD).unwrap_or_default(), property(PROVIDER).unwrap_or(provider));
        Some(Self { build: property(BUILD)?, upload, provider })
    }

    /// Adds it to the properties of an image.
    pub(super) fn write_to(self, properties: &mut BTreeMap<String, String>) {
        for (key, value) in [(BUILD, self.build), (UPLOAD, self.upload), (PROVIDER, self.provider)] {
            properties.insert(key.to_owned(), value.to_owned());
        }
    }
}
