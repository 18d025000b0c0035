//! A log file that is still the right one after somebody has moved, removed or truncated it.
//!
//! Before each line the path is compared with the open file, so rotation needs no signal. A line goes to the end
//! of whatever is there (`O_APPEND`), so a truncated file has no hole. A line of which a full disk took a part
//! goes on where it was broken off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::console::wait;
use super::line::Line;
use super::writer::Sink;

/// What a new file may be read by: as Debian's own logs, not by everybody, because programs of the operator
/// (hooks) say there what they like. One that exists keeps its mode.
const MODE: u32 = 0o640;

/// An open log file.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    id: (u64, u64),
    /// As much of the current line is in the file.
    written: usize,
}

impl LogFile {
    /// Opens the file, and makes it where there is none.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let (file, id) = open(&path)?;
        Ok(Self { path, file, id, written: 0 })
    }

    fn is_elsewhere(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(found) => (found.dev(), found.ino()) != self.id,
            // If the path cannot be looked at, the open file is the best there is.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

fn open(path: &PathBuf) -> io::Result<(File, (u64, u64))> {
    // A pipe without a reader must be an error, and no terminal become the daemon's own.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = OpenOptions::new().create(true).append(true).mode(MODE).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    Ok((file, (found.dev(), found.ino())))
}

impl Sink for LogFile {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        if self.is_elsewhere() {
            self.reopen()?;
        }
        let bytes = line.text.as_bytes();
        while self.written < bytes.len() {
            match self.file.write(&bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Only a pipe says so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(self.file.as_fd())?,
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let (file, id) = open(&self.path)?;
        if id != self.id {
            // The other file gets the whole line.
            self.written = 0;
        }
        (self.file, self.id) = (file, id);
        Ok(())
    }
}
