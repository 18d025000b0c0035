//! The bytes of an image on their way: counted for those who watch, and digested where the build has left nothing to
//! compare with what arrives, for that costs more than all the rest of an upload.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use nodepool_threads::StopToken;
use nodepool_threads::{Activity, activity};
use ring::digest::{Context, Digest, SHA256, SHA512};

use crate::api::{Error, ErrorKind, ImageUpload, Progress};

/// How often the progress is told.
const TELL: Duration = Duration::from_millis(500);

/// An image file that is being sent.
pub(super) struct Stream {
    file: File,
    name: String,
    size: u64,
    sent: u64,
    progress: Progress,
    /// SHA-512, which Glance makes too, unless it is set up otherwise.
    digest: Option<Context>,
    doing: Activity,
    told: Instant,
}

/// How much of a file is read at once to digest it.
const CHUNK: usize = 1 << 20;

/// Opens an image file and finds out its size.
pub(super) fn open(path: &Path) -> Result<(File, u64), Error> {
    let failed = |cause: io::Error| {
        let kind = match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
                ErrorKind::Permanent
            }
            _ => ErrorKind::Transient,
        };
        Error::new(kind, format!("cannot read the image file {}", path.display())).caused_by(cause)
    };
    // Looked at first: to open a pipe would wait for its writer.
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        let message = format!("the image file {} is not a regular file", path.display());
        return Err(Error::new(ErrorKind::Permanent, message));
    }
    Ok((File::open(path).map_err(failed)?, found.len()))
}

impl Stream {
    /// A stream of the whole file. The current thread says that it uploads the image, and how far it is.
    pub(super) fn new(file: File, size: u64, image: &ImageUpload, digested: bool) -> Self {
        let doing = activity(describe(&image.name, 0, size));
        image.progress.begin(size);
        Self {
            file,
            name: image.name.clone(),
            size,
            sent: 0,
            progress: image.progress.clone(),
            digest: digested.then(|| Context::new(&SHA512)),
            doing,
            told: Instant::now(),
        }
    }

    /// The SHA-512 of what was sent, if it was to be digested.
    pub(super) fn finish(self) -> Option<String> {
        self.digest.map(|digest| hex(digest.finish()))
    }
}

/// The SHA-256 of a file.
pub(super) fn sha256(path: &Path, stop: &StopToken) -> Result<String, Error> {
    let (mut file, _) = open(path)?;
    let mut digest = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    loop {
        stop.check()?;
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hex(digest.finish())),
            Ok(amount) => digest.update(&chunk[..amount]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => {
                let message = format!("cannot read the image file {}", path.display());
                return Err(Error::new(ErrorKind::Transient, message).caused_by(cause));
            }
        }
    }
}

/// In lower case, as Glance has it.
fn hex(digest: Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.file.read(buffer)?;
        if let Some(digest) = &mut self.digest {
            digest.update(&buffer[..amount]);
        }
        self.sent += amount as u64;
        self.progress.add(amount as u64);
        if self.told.elapsed() >= TELL || self.sent == self.size {
            self.doing.becomes(describe(&self.name, self.sent, self.size));
            self.told = Instant::now();
        }
        Ok(amount)
    }
}

fn describe(name: &str, sent: u64, size: u64) -> String {
    format!("uploading {name}: {} of {} MiB", sent >> 20, size.div_ceil(1 << 20))
}
