//! The journal of an image that comes or goes: it says, to whoever finds it after a crash, what to remove.
//!
//! The journal is the image's record under a hidden name. Coming in: the journal is made and locked, the
//! image is written beside it under a hidden name, the journal gets the record, the image its final name, and
//! last the journal becomes the record, which makes the image complete. Going out: the record becomes the
//! journal again, which makes the image incomplete; then the image goes, and last the journal. So at each
//! moment an image is complete, or a journal leads to all of its files. No other file is ever removed.
//!
//! Several processes may have one store open. An upload holds a `flock` on its journal, so a journal whose
//! lock is free has no living writer. A deletion needs no lock: two that remove the same files do no harm.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nodepool_threads::crash_point;
use rustix::fs::{FlockOperation, flock};
use slog::{Logger, info, warn};
use uuid::Uuid;

use super::names::{self, Staged};
use super::record::Record;

/// More than one attempt is needed only when another process opens the store at the very moment.
const ATTEMPTS: usize = 100;

/// The locked journal of an upload. Dropped before [`Journal::commit`], it removes all files of the image.
pub(super) struct Journal<'a> {
    dir: &'a Path,
    pub(super) id: Uuid,
    file: File,
    log: &'a Logger,
    committed: bool,
}

impl<'a> Journal<'a> {
    /// Starts an upload into `dir`.
    pub(super) fn begin(dir: &'a Path, log: &'a Logger) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let id = Uuid::new_v4();
            let path = names::journal_path(dir, id);
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            // Between its creation and its lock the journal looks dead, and another process may remove it.
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path)? => return Ok(Self { dir, id, file, log, committed: false }),
                Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => {
                    remove(&path)?;
                    return Err(error.into());
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "other processes keep opening the store"))
    }

    /// Makes the hidden file that the image is written to. It is read-only for everybody else: an image that
    /// is booted from without a layer above it would no longer be what was built.
    pub(super) fn create_part(&self) -> io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o444);
        options.open(names::part_path(self.dir, self.id))
    }

    /// Gives the written and synced image its name and makes it complete.
    pub(super) fn commit(mut self, record: &Record) -> io::Result<()> {
        self.file.write_all(record.to_text()?.as_bytes())?;
        self.file.sync_all()?;
        // Each step is on the disk before the next one begins: a crash keeps their order.
        sync_dir(self.dir)?;
        fs::rename(names::part_path(self.dir, self.id), self.dir.join(&record.file))?;
        sync_dir(self.dir)?;
        crash_point("image-named");
        let journal = names::journal_path(self.dir, self.id);
        let complete = self.dir.join(names::record_file_name(&record.file));
        fs::rename(&journal, &complete)?;
        if let Err(error) = sync_dir(self.dir) {
            // Back to the journal, by which the drop removes everything.
            fs::rename(&complete, &journal)?;
            return Err(error);
        }
        self.committed = true;
        Ok(())
    }
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = clear(self.dir, self.id) {
            warn!(self.log, "cannot remove an unfinished image; the next opening of the store tries again";
                "store" => %self.dir.display(), "id" => %self.id, "error" => %error);
        }
    }
}

/// Makes the image that `record_file` stands beside incomplete. False when somebody else did.
pub(super) fn retract(dir: &Path, record_file: &str, id: Uuid) -> io::Result<bool> {
    match fs::rename(dir.join(record_file), names::journal_path(dir, id)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    sync_dir(dir)?;
    Ok(true)
}

/// Removes all files that the journal of `id` leads to, then the journal.
pub(super) fn clear(dir: &Path, id: Uuid) -> io::Result<()> {
    let path = names::journal_path(dir, id);
    let record = match File::open(&path) {
        Ok(file) => Record::read(&file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(record) = record.filter(|record| record.id == id.to_string()) {
        remove(&dir.join(&record.file))?;
    }
    remove(&names::part_path(dir, id))?;
    // The files are gone for good before the journal that leads to them is.
    sync_dir(dir)?;
    remove(&path)?;
    Ok(())
}

/// What was found of an image that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftover {
    /// Nothing.
    Nothing,
    /// Files of a dead process, which have been removed.
    Removed,
    /// A living upload.
    Live,
}

/// Removes what a dead process left of the image `id`.
pub(super) fn clear_if_dead(dir: &Path, id: Uuid) -> io::Result<Leftover> {
    let path = names::journal_path(dir, id);
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // An upload makes its journal first, so a part without one has no writer.
            let removed = remove(&names::part_path(dir, id))?;
            return Ok(if removed { Leftover::Removed } else { Leftover::Nothing });
        }
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Leftover::Live),
        Err(error) => return Err(error.into()),
    }
    // The upload may have ended between the opening and the lock: then this is the record of a whole image.
    if !is_at(&file, &path)? {
        return Ok(Leftover::Nothing);
    }
    clear(dir, id)?;
    Ok(Leftover::Removed)
}

/// Removes what dead processes left in the store. What cannot be removed is logged: it does no harm.
pub(super) fn sweep(dir: &Path, log: &Logger) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(Staged::Part(id) | Staged::Journal(id)) = name.to_str().and_then(names::staged) else {
            continue;
        };
        let store = dir.display();
        match clear_if_dead(dir, id) {
            Ok(Leftover::Removed) => {
                info!(log, "removed an unfinished image"; "store" => %store, "id" => %id);
            }
            Ok(Leftover::Nothing | Leftover::Live) => {}
            Err(error) => {
                warn!(log, "cannot remove an unfinished image";
                    "store" => %store, "id" => %id, "error" => %error);
            }
        }
    }
    Ok(())
}

/// Whether the open file is still the one that its path leads to.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file that may be gone already. True when it was there.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
