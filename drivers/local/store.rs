//! The store: uploads into it, deletions from it, and its list.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nodepool_threads::crash_point;
use rustix::fs::{Access, access};
use slog::{Logger, debug};
use uuid::Uuid;

use super::copy::{self, Copied, Failed};
use super::journal::{self, Journal, Leftover};
use super::names;
use super::record::Record;
use crate::api::{CallContext, Error, ErrorKind, ImageUpload, StoredImage};

/// An open store. It keeps nothing in memory: other processes change the directory too.
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the store in `dir`, which is made if it is missing, and removes what dead processes left there.
    pub(super) fn open(dir: &Path, log: &Logger) -> Result<Self, Error> {
        let store = dir.display();
        let failed = |cause: io::Error| {
            let advice = "make it a directory that the daemon may write to, or change the provider's 'path'";
            Error::new(kind_of(&cause), format!("cannot use the image store {store}; {advice}"))
                .caused_by(cause)
        };
        fs::create_dir_all(dir).map_err(failed)?;
        access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| failed(error.into()))?;
        journal::sweep(dir, log).map_err(failed)?;
        Ok(Self::at(dir))
    }

    /// The store in `dir`, as it is.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Copies an image into the store and returns its id.
    pub(super) fn upload(&self, call: &CallContext, image: &ImageUpload) -> Result<String, Error> {
        let writing = |cause| self.failed(&format!("store the image '{}'", image.name), cause);
        let source = open_source(&image.file)?;
        // Whether the name will do is known before anything is written: all ids are of one length.
        image_file_name(image, Uuid::nil())?;
        let journal = Journal::begin(&self.dir, &call.log).map_err(writing)?;
        let part = journal.create_part().map_err(writing)?;
        let copied =
            copy::copy(&source, &part, &call.stop, &image.progress).map_err(|failed| match failed {
                Failed::Interrupted(why) => Error::from(why),
                Failed::Read(cause) => cannot_read(&image.file, cause),
                Failed::Write(cause) => writing(cause),
            })?;
        verify(image, &copied)?;
        part.sync_all().map_err(writing)?;
        let record = Record {
            id: journal.id.to_string(),
            name: image.name.clone(),
            file: image_file_name(image, journal.id)?,
            format: image.format.clone(),
            size: copied.size,
            sha256: copied.sha256,
            md5: image.md5.clone(),
            properties: image.properties.clone(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        crash_point("image-copied");
        call.stop.check()?;
        journal.commit(&record).map_err(writing)?;
        Ok(record.id)
    }

    /// Deletes an image; one that is not there counts as deleted.
    pub(super) fn delete(&self, external_id: &str) -> Result<(), Error> {
        let Ok(id) = Uuid::parse_str(external_id) else {
            return Ok(());
        };
        let failed = |cause| self.failed(&format!("delete the image {id}"), cause);
        for name in self.file_names().map_err(failed)? {
            let Some(record_file) = name.to_str().filter(|name| is_record_of(name, id)) else {
                continue;
            };
            if journal::retract(&self.dir, record_file, id).map_err(failed)? {
                crash_point("image-retracted");
                return journal::clear(&self.dir, id).map_err(failed);
            }
        }
        // An earlier deletion may have failed half-way, here or in another process.
        match journal::clear_if_dead(&self.dir, id).map_err(failed)? {
            Leftover::Nothing | Leftover::Removed => Ok(()),
            Leftover::Live => {
                Err(Error::new(ErrorKind::Transient, format!("the image {id} is still being uploaded")))
            }
        }
    }

    /// All complete images, ordered by name.
    pub(super) fn list(&self, call: &CallContext) -> Result<Vec<StoredImage>, Error> {
        let failed = |cause| self.failed("list the images", cause);
        let mut images = Vec::new();
        for name in self.file_names().map_err(failed)? {
            call.stop.check()?;
            let Some(name) = name.to_str() else { continue };
            let Some((image_file, _)) = names::recorded_image(name) else { continue };
            match self.complete(name, image_file).map_err(failed)? {
                Some(image) => images.push(image),
                None => debug!(call.log, "not the record of an image"; "file" => name),
            }
        }
        images.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(images)
    }

    /// The image of a record file, unless it is being deleted or the file is no record.
    fn complete(&self, record_file: &str, image_file: &str) -> io::Result<Option<StoredImage>> {
        let record = match File::open(self.dir.join(record_file)) {
            Ok(file) => Record::read(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // The file's name has the id in it.
        let record = record.filter(|record| record.file == image_file);
        // Somebody may have removed the image by hand.
        let record = record.filter(|record| self.dir.join(&record.file).is_file());
        Ok(record.map(|record| StoredImage {
            id: record.id,
            name: record.name,
            properties: record.properties,
        }))
    }

    fn file_names(&self) -> io::Result<Vec<OsString>> {
        fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn failed(&self, action: &str, cause: io::Error) -> Error {
        let (kind, store) = (kind_of(&cause), self.dir.display());
        let advice = match cause.kind() {
            io::ErrorKind::StorageFull => "; free space in its file system",
            io::ErrorKind::QuotaExceeded => "; free space or raise the quota",
            io::ErrorKind::PermissionDenied => "; let the daemon's user write there",
            _ => "",
        };
        Error::new(kind, format!("cannot {action} in {store}{advice}")).caused_by(cause)
    }
}

fn is_record_of(file_name: &str, id: Uuid) -> bool {
    names::recorded_image(file_name).is_some_and(|(_, found)| found == id)
}

fn image_file_name(image: &ImageUpload, id: Uuid) -> Result<String, Error> {
    names::image_file_name(&image.name, id, &image.format).map_err(|mistake| {
        let name = image.name.escape_debug();
        let message =
            format!("cannot store the image '{name}': {mistake}; see the provider's image-name-format");
        Error::new(ErrorKind::Permanent, message)
    })
}

fn open_source(path: &Path) -> Result<File, Error> {
    // Looked at first: to open a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(|cause| cannot_read(path, cause))?;
    if !metadata.is_file() {
        let message = format!("the image file {} is not a regular file", path.display());
        return Err(Error::new(ErrorKind::Permanent, message));
    }
    File::open(path).map_err(|cause| cannot_read(path, cause))
}

fn cannot_read(path: &Path, cause: io::Error) -> Error {
    Error::new(kind_of(&cause), format!("cannot read the image file {}", path.display())).caused_by(cause)
}

fn verify(image: &ImageUpload, copied: &Copied) -> Result<(), Error> {
    match &image.sha256 {
        Some(expected) if !expected.eq_ignore_ascii_case(&copied.sha256) => Err(Error::new(
            ErrorKind::Permanent,
            format!(
                "the image file {} is damaged: its SHA-256 is {}, it was built with {expected}; build it again",
                image.file.display(),
                copied.sha256,
            ),
        )),
        _ => Ok(()),
    }
}

/// What a caller should do about a failed file operation.
fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => ErrorKind::Quota,
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::InvalidInput => ErrorKind::Permanent,
        // A full disk among them: somebody may free space.
        _ => ErrorKind::Transient,
    }
}
