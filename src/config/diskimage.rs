//! A disk image as it is to be built, with everything that its parents give it.
//!
//! The raw form of the file is in `raw_image`; how it becomes this one, in `inherit`. A [`DiskImage`] cannot
//! be wrong any more: its name is fit for files and znodes, its command has a first word, its environment can
//! be set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How many builds are kept where `keep-builds` does not say; what the original keeps.
pub const KEEP_BUILDS: usize = 2;

/// A disk image that can be built.
#[derive(Clone, PartialEq, Eq)]
pub struct DiskImage {
    /// The image's name.
    pub name: String,
    /// The elements that it is made of, those of its parents first.
    pub elements: Vec<String>,
    /// The release of the distribution; may be empty.
    pub release: String,
    /// Variables for the build's environment; their values are secret.
    pub env_vars: BTreeMap<String, String>,
    /// The formats to build: its own, and that of each provider that lists the image. Not built if empty.
    pub formats: BTreeSet<String>,
    /// How old the newest build may become before the next one.
    pub rebuild_age: Duration,
    /// How long a build may take.
    pub build_timeout: Duration,
    /// The program that builds it, and the first of its arguments. Never empty.
    pub dib_cmd: Vec<String>,
    /// Not built while set.
    pub pause: bool,
    /// The user that Zuul logs in as.
    pub username: String,
    /// The Python interpreter of the image, or `auto`.
    pub python_path: String,
    /// The shell of the image's user, where Zuul must know it.
    pub shell_type: Option<String>,
    /// Whether a file goes once all its providers have it.
    pub delete_after_upload: bool,
    /// The formats that are kept in spite of `delete_after_upload`.
    pub keep_formats: BTreeSet<String>,
    /// Properties that the image gets at every provider.
    pub metadata: BTreeMap<String, String>,
    /// How many `ready` builds are kept, and how many `ready` uploads at each provider; at least 1.
    pub keep_builds: usize,
    /// The program that must approve of a build's files, and the first of its arguments; empty for none.
    pub validate_hook: Vec<String>,
}

impl DiskImage {
    /// An image with the defaults of the original.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            elements: Vec::new(),
            release: String::new(),
            env_vars: BTreeMap::new(),
            formats: BTreeSet::new(),
            rebuild_age: Duration::from_secs(24 * 60 * 60),
            build_timeout: Duration::from_secs(8 * 60 * 60),
            dib_cmd: vec!["disk-image-create".to_owned()],
            pause: false,
            username: "zuul".to_owned(),
            python_path: "auto".to_owned(),
            shell_type: None,
            delete_after_upload: false,
            keep_formats: BTreeSet::new(),
            metadata: BTreeMap::new(),
            keep_builds: KEEP_BUILDS,
            validate_hook: Vec::new(),
        }
    }
}

/// Everything but the values of the environment variables.
impl fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            name,
            elements,
            release,
            env_vars,
            formats,
            rebuild_age,
            build_timeout,
            dib_cmd,
            pause,
            username,
            python_path,
            shell_type,
            delete_after_upload,
            keep_formats,
            metadata,
            keep_builds,
            validate_hook,
        } = self;
        f.debug_struct("DiskImage")
            .field("name", name)
            .field("elements", elements)
            .field("release", release)
            .field("env_vars", &env_vars.keys().collect::<Vec<_>>())
            .field("formats", formats)
            .field("rebuild_age", rebuild_age)
            .field("build_timeout", build_timeout)
            .field("dib_cmd", dib_cmd)
            .field("pause", pause)
            .field("username", username)
            .field("python_path", python_path)
            .field("shell_type", shell_type)
            .field("delete_after_upload", delete_after_upload)
            .field("keep_formats", keep_formats)
            .field("metadata", metadata)
            .field("keep_builds", keep_builds)
            .field("validate_hook", validate_hook)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_names_the_variables_and_hides_their_values() {
        let mut image = DiskImage::new("debian");
        image.env_vars.insert("DIB_PASSWORD".to_owned(), "hunter2".to_owned());
        let shown = format!("{image:?}");
        assert!(shown.contains("DIB_PASSWORD") && !shown.contains("hunter2"), "{shown}");
    }
}
