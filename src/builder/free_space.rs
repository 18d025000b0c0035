//! The guard of the images directory: no build begins that would fill the last of the disk.

use std::path::Path;

use slog::{Logger, error, info};

use crate::config::Config;

/// Whether the disk was too full when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct FreeSpace {
    short: bool,
}

impl FreeSpace {
    /// Whether there is as much space as `min-free-space` wants before a build begins. Tells the log of each change.
    pub(super) fn has_room(&mut self, config: &Config, images_dir: &Path, log: &Logger) -> bool {
        let least = config.min_free_space;
        // A disk that cannot be asked is not full; whatever is wrong with it the build will find.
        let found = if least == 0 { None } else { Space::of(images_dir) };
        let free = found.map_or(u64::MAX, |space| space.free);
        let short = free < least;
        if short != std::mem::replace(&mut self.short, short) {
            if short {
                error!(log, "no build begins: the disk of images-dir is too full; make room, or lower min-free-space";
                    "directory" => %images_dir.display(), "free" => mebibytes(free), "min-free-space" => mebibytes(least));
            } else {
                info!(log, "builds begin again: images-dir has room"; "directory" => %images_dir.display());
            }
        }
        !short
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// What an ordinary user may still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

impl Space {
    /// The file system of a directory; none if that cannot be read.
    pub fn of(dir: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_a_disk_is_known_and_that_of_no_directory_is_not() {
        let space = Space::of(Path::new("/")).unwrap();
        assert!(space.free <= space.total && space.total > 0, "{space:?}");
        assert!(Space::of(Path::new("/no/such/directory")).is_none());
    }
}
