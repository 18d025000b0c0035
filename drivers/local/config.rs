//! The section of a local provider: `path`, and what every provider of images has.

use std::path::PathBuf;

use crate::api::{ImageSettings, ProviderSettings, Table};

/// The resolved section.
#[derive(Debug)]
pub(super) struct LocalConfig {
    pub(super) settings: ProviderSettings,
    pub(super) images: ImageSettings,
    /// The store, absolute.
    pub(super) path: PathBuf,
}

impl LocalConfig {
    pub(super) fn read(section: &Table<'_>, driver: &str) -> Option<Self> {
        let settings = ProviderSettings::read(section, driver);
        let images = ImageSettings::read(section, "qcow2");
        if images.format == "json" {
            section.error("image-format", "'json' is taken: each image has a JSON file beside it");
        }
        // Every name made with the format is a file name.
        if images.name_format.contains('/') || images.name_format.starts_with(['-', '.']) {
            section
                .error("image-name-format", "must not contain '/' nor start with '-' or '.': it names files");
        }
        let path = path(section);
        Some(Self { settings: settings?, images, path: path? })
    }
}

fn path(section: &Table<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(section.required_string("path")?);
    if !path.is_absolute() {
        // A daemon's working directory is nothing to rely on.
        section.error("path", format!("expected an absolute path, found '{}'", path.display()));
        return None;
    }
    Some(path)
}
