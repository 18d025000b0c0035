//! Opening a file of the daemon's own in a directory that others may write to as well: where the pid file is, for
//! instance, which root may open although the directory is the daemon's user's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens the file itself, and not what a link in its place leads to. Whatever else stands there, such as a pipe, or
/// somebody's file under a second name, is an error. `options` must not truncate: that comes after this.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = options.custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() > 1 {
        return Err(io::Error::other("something else is in its place; remove it"));
    }
    Ok(file)
}
