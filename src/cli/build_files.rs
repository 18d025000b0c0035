//! The files of a build, as far as they are on this machine: the client may run beside the builder or not.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::builder::bytes_on_disk;

/// What the last lines of a log are looked for in.
const TAIL_BYTES: u64 = 64 << 10;

/// The space that the files of the build `name` take below `images_dir`; `None` if there are none.
pub(super) fn size(images_dir: &Path, name: &str) -> Option<u64> {
    let prefix = format!("{name}.");
    let own = fs::read_dir(images_dir).ok()?.flatten();
    let own = own.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let files = own.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file);
    files.map(|meta| bytes_on_disk(&meta)).reduce(|a, b| a + b)
}

/// The last `lines` lines of a file.
pub(super) fn tail(path: &Path, lines: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_tails_are_those_of_the_named_build() {
        let dir = std::env::temp_dir().join(format!("nodepool-files-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        assert_eq!(size(&dir, "debian-a"), None);
        fs::write(dir.join("debian-a.raw"), vec![1; 8192]).unwrap();
        fs::write(dir.join("debian-a.qcow2"), vec![1; 8192]).unwrap();
        fs::write(dir.join("debian-ab.raw"), vec![1; 1 << 20]).unwrap();
        fs::create_dir(dir.join("debian-a.d")).unwrap();
        let found = size(&dir, "debian-a").unwrap();
        assert!((16384..100_000).contains(&found), "{found}");
        let log = dir.join("log");
        fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2).unwrap(), "two\nthree");
        assert_eq!(tail(&log, 20).unwrap(), "one\ntwo\nthree");
        fs::write(&log, "0123456789\n".repeat(10_000)).unwrap();
        assert_eq!(tail(&log, 3).unwrap(), ["0123456789"; 3].join("\n"));
        assert!(tail(&dir.join("none"), 3).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
