//! Copies an image: as a clone that shares its blocks where the file system can, else block by block with
//! holes for zeros. Either way every byte goes through SHA-256, and the stop token is asked between chunks.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use nodepool_threads::{Interrupted, StopToken};
use ring::digest::{Context, SHA256};

use crate::api::Progress;

/// How much is read at once: enough for full speed, little enough to stop at once.
const CHUNK: usize = 1 << 20;
/// The grain of holes.
const BLOCK: usize = 64 << 10;
static ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Data is written back after so many bytes, so that neither one of the waits nor the last one is long.
const WRITE_BACK: u64 = 64 << 20;

/// What was copied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) size: u64,
    /// In lower-case hex.
    pub(super) sha256: String,
}

/// Why a copy was not made.
#[derive(Debug)]
pub(super) enum Failed {
    Interrupted(Interrupted),
    Read(io::Error),
    Write(io::Error),
}

impl From<Interrupted> for Failed {
    fn from(why: Interrupted) -> Self {
        Self::Interrupted(why)
    }
}

/// Copies the whole of `source` into the empty file `target`.
pub(super) fn copy(
    source: &File,
    target: &File,
    stop: &StopToken,
    progress: &Progress,
) -> Result<Copied, Failed> {
    stop.check()?;
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        // What counts is what has been stored.
        return pass(target, stop, progress, |_, _| Ok(()));
    }
    stream(source, target, stop, progress)
}

fn stream(source: &File, target: &File, stop: &StopToken, progress: &Progress) -> Result<Copied, Failed> {
    let mut unwritten = 0;
    let copied = pass(source, stop, progress, |chunk, at| {
        for (index, block) in chunk.chunks(BLOCK).enumerate() {
            if block == &ZEROS[..block.len()] {
                continue;
            }
            target.write_all_at(block, at + (index * BLOCK) as u64)?;
            unwritten += block.len() as u64;
        }
        if unwritten >= WRITE_BACK {
            target.sync_data()?;
            unwritten = 0;
        }
        Ok(())
    })?;
    // The end may be a hole.
    target.set_len(copied.size).map_err(Failed::Write)?;
    Ok(copied)
}

/// Reads a file to its end, and shows each chunk and its offset to `each`.
fn pass(
    mut file: &File,
    stop: &StopToken,
    progress: &Progress,
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> Result<Copied, Failed> {
    let mut digest = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    progress.begin(file.metadata().map_err(Failed::Read)?.len());
    loop {
        stop.check()?;
        let length = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failed::Read(error)),
        };
        digest.update(&chunk[..length]);
        each(&chunk[..length], size).map_err(Failed::Write)?;
        size += length as u64;
        progress.add(length as u64);
    }
    let digest = digest.finish();
    let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Copied { size, sha256 })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use nodepool_threads::StopSource;

    use super::*;
    use crate::testing::Scratch;

    fn files(scratch: &Scratch) -> (File, File) {
        let open = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            options.open(scratch.path().join(name)).unwrap()
        };
        (open("source"), open("target"))
    }

    #[test]
    fn the_digest_is_the_files() {
        let scratch = Scratch::new();
        let (source, target) = files(&scratch);
        source.write_all_at(b"abc", 0).unwrap();
        let stop = StopSource::new();
        let copied = copy(&source, &target, &stop.token(), &Progress::default()).unwrap();
        // The example of FIPS 180-2.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(copied, Copied { size: 3, sha256: expected.to_owned() });
    }

    #[test]
    fn streaming_keeps_every_byte_and_leaves_holes() {
        let scratch = Scratch::new();
        let (source, target) = files(&scratch);
        let size = (8 << 20) + 12_345;
        source.set_len(size).unwrap();
        // One piece across a chunk's end, one at no block's start, and a hole at the end.
        source.write_all_at(&[7; 100_000], CHUNK as u64 - 50_000).unwrap();
        source.write_all_at(b"in the middle", (5 << 20) + 999).unwrap();
        let stop = StopSource::new();
        let copied = stream(&source, &target, &stop.token(), &Progress::default()).unwrap();
        assert_eq!(copied.size, size);
        let read = |file: &File| {
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(read(&source) == read(&target));
        let metadata = target.metadata().unwrap();
        assert_eq!(metadata.len(), size);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    }

    #[test]
    fn a_full_disk_is_a_failed_write() {
        let scratch = Scratch::new();
        let (source, _) = files(&scratch);
        source.write_all_at(b"data", 0).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let stop = StopSource::new();
        match stream(&source, &full, &stop.token(), &Progress::default()) {
            Err(Failed::Write(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
            other => panic!("{other:?}"),
        }
    }
}
