//! The files of a configuration: their text, and how to tell that they have changed.
//!
//! A [`Snapshot`] is what the files held at one moment. It is taken before anything is parsed, so that a
//! file that changes meanwhile is seen to have changed afterwards.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::problem::{ConfigError, FileProblem};
use super::substitute::Env;

/// A configuration file has a few dozen kilobytes; more than this is some other file.
const MOST_BYTES: u64 = 4 << 20;

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFiles {
    main: PathBuf,
    secure: Option<PathBuf>,
    env: Env,
}

impl ConfigFiles {
    /// The main file, the secure file if there is one, and the environment for `%(NODEPOOL_NAME)`.
    ///
    /// Relative paths are made absolute now: a daemon changes its directory later.
    pub fn new(main: impl AsRef<Path>, secure: Option<&Path>, env: Env) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { main: absolute(main.as_ref()), secure: secure.map(absolute), env }
    }

    /// The main file.
    pub fn main(&self) -> &Path {
        &self.main
    }

    /// The secure file, if there is one.
    pub fn secure(&self) -> Option<&Path> {
        self.secure.as_deref()
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn stamps(&self) -> Stamps {
        Stamps { main: Stamp::of(&self.main), secure: self.secure().map(Stamp::of) }
    }

    /// Reads the files.
    pub(super) fn read(&self) -> Result<Snapshot, ConfigError> {
        let stamps = self.stamps();
        let main = read_text(&self.main);
        let secure = self.secure().map(read_text).transpose();
        match (main, secure) {
            (Ok(main), Ok(secure)) => Ok(Snapshot { stamps, texts: Texts { main, secure } }),
            (main, secure) => Err(ConfigError::new(main.err().into_iter().chain(secure.err()).collect())),
        }
    }
}

/// The text of a file that may well be wrong.
pub(crate) fn read_text(path: &Path) -> Result<String, FileProblem> {
    let problem = |message: String| FileProblem::error(path, "", message);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| problem(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(problem(format!("is larger than {} MiB: not a configuration file", MOST_BYTES >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        problem(format!("is not UTF-8 text, see line {line}"))
    })
}

/// What the files held at one moment. Opaque: it is there to be compared with the files later.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) stamps: Stamps,
    pub(super) texts: Texts,
}

/// Without the texts, which may hold secrets.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("stamps", &self.stamps).finish_non_exhaustive()
    }
}

/// The texts as the files have them, before variables are substituted.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) main: String,
    pub(super) secure: Option<String>,
}

/// The marks of both files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps {
    main: Stamp,
    secure: Option<Stamp>,
}

impl Stamps {
    /// Whether one of the files is not there, as for an instant while an editor replaces it.
    pub(super) fn is_missing(&self) -> bool {
        [Some(&self.main), self.secure.as_ref()].contains(&Some(&Stamp::Missing))
    }
}

/// What changes when a file changes, found without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    Missing,
    Unreachable(io::ErrorKind),
    /// The times in nanoseconds. The time of the last change of the inode tells what a copied
    /// modification time hides, and that permissions were mended.
    File {
        device: u64,
        inode: u64,
        size: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(meta) => Self::File {
                device: meta.dev(),
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            Err(error) => Self::Unreachable(error.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::testing::TempDir;

    fn problem(path: &Path) -> String {
        ConfigFiles::new(path, None, Env::default()).read().unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_reason() {
        let dir = TempDir::new();
        let path = dir.path().join("nodepool.yaml");
        let at = path.display();
        assert_eq!(problem(&path), format!("{at}: cannot be read: No such file or directory (os error 2)"));
        fs::create_dir(&path).unwrap();
        assert_eq!(problem(&path), format!("{at}: cannot be read: Is a directory (os error 21)"));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
        assert_eq!(problem(&path), format!("{at}: is not UTF-8 text, see line 2"));
        File::create(&path).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert_eq!(problem(&path), format!("{at}: is larger than 4 MiB: not a configuration file"));
    }

    #[test]
    fn both_files_are_reported() {
        let files = ConfigFiles::new("/nowhere/a", Some(Path::new("/nowhere/b")), Env::default());
        let files: Vec<_> =
            files.read().unwrap_err().into_problems().into_iter().map(|found| found.file).collect();
        assert_eq!(files, [Path::new("/nowhere/a"), Path::new("/nowhere/b")]);
    }

    #[test]
    fn relative_names_are_made_absolute() {
        let files = ConfigFiles::new("nodepool.yaml", None, Env::default());
        assert_eq!(files.main(), std::env::current_dir().unwrap().join("nodepool.yaml"));
    }

    #[test]
    fn a_snapshot_shows_no_text() {
        let dir = TempDir::new();
        let path = dir.write("nodepool.yaml", "password: hunter2");
        let snapshot = ConfigFiles::new(path, None, Env::default()).read().unwrap();
        assert!(!format!("{snapshot:?}").contains("hunter2"));
    }

    #[test]
    fn a_stamp_differs_after_a_replacement_of_the_same_size() {
        let dir = TempDir::new();
        let path = dir.write("a", "1");
        let before = Stamp::of(&path);
        assert_eq!(Stamp::of(&path), before);
        fs::rename(dir.write("b", "2"), &path).unwrap();
        assert_ne!(Stamp::of(&path), before);
    }
}
