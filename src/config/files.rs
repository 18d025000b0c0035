//! The files of a configuration: their text, and how to tell that they have changed.
//!
//! A [`Snapshot`] is what the files held at one moment. It is taken before anything is parsed, so that a
//! file that changes meanwhile is seen to have changed afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::likely;
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

    /// The marks of the files, and of `others` that drivers look into.
    pub(super) fn stamps(&self, others: &Others) -> Stamps {
        let others = others.iter().map(|path| (path.clone(), Stamp::of(path))).collect();
        Stamps { main: Stamp::of(&self.main), secure: self.secure().map(Stamp::of), others }
    }

    /// Reads the files; drivers will look into `others`.
    pub(super) fn read(&self, others: &Others) -> Result<Snapshot, ConfigError> {
        let stamps = self.stamps(others);
        let main = read_text(&self.main).map_err(|mut problem| {
            if matches!(self.main.try_exists(), Ok(false)) {
                problem.problem.message.push_str("; -c FILE names another one");
            }
            problem
        });
        let mut exposed = None;
        let secure = self.secure().map(|path| {
            let file = open(path)?;
            exposed = likely::exposed(path, &file);
            text_of(path, file)
        });
        match (main, secure.transpose()) {
            (Ok(main), Ok(secure)) => Ok(Snapshot { stamps, texts: Texts { main, secure }, exposed }),
            (main, secure) => Err(ConfigError::new(main.err().into_iter().chain(secure.err()).collect())),
        }
    }
}

/// The text of a file that may well be wrong.
pub(crate) fn read_text(path: &Path) -> Result<String, FileProblem> {
    open(path).and_then(|file| text_of(path, file))
}

fn open(path: &Path) -> Result<File, FileProblem> {
    File::open(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> FileProblem {
    FileProblem::of_file(path, format!("cannot be read: {error}"))
}

fn text_of(path: &Path, file: File) -> Result<String, FileProblem> {
    let problem = |message: String| FileProblem::of_file(path, message);
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
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
    /// That everybody can read the secure file.
    pub(super) exposed: Option<FileProblem>,
}

/// Without the texts, which may hold secrets.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("stamps", &self.stamps).finish_non_exhaustive()
    }
}

/// Files besides those of the configuration itself that its drivers look into, whether they are there or not.
pub(super) type Others = BTreeSet<PathBuf>;

/// The texts as the files have them, before variables are substituted.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) main: String,
    pub(super) secure: Option<String>,
}

/// The marks of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps {
    main: Stamp,
    secure: Option<Stamp>,
    others: BTreeMap<PathBuf, Stamp>,
}

impl Stamps {
    /// What tells that the drivers' files have changed.
    pub(super) fn of_others(&self) -> &BTreeMap<PathBuf, Stamp> {
        &self.others
    }

    /// Whether one of the configuration's own files is not there, as for an instant while an editor replaces it.
    pub(super) fn is_missing(&self) -> bool {
        [Some(&self.main), self.secure.as_ref()].contains(&Some(&Stamp::Missing))
    }
}

/// What changes when a file changes, found without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stamp {
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
        ConfigFiles::new(path, None, Env::default()).read(&Others::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_reason() {
        let dir = TempDir::new();
        let path = dir.path().join("nodepool.yaml");
        let at = path.display();
        assert_eq!(
            problem(&path),
            format!(
                "{at}: cannot be read: No such file or directory (os error 2); -c FILE names another one"
            )
        );
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
        let files: Vec<_> = files
            .read(&Others::new())
            .unwrap_err()
            .into_problems()
            .into_iter()
            .map(|found| found.file)
            .collect();
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
        let snapshot = ConfigFiles::new(path, None, Env::default()).read(&Others::new()).unwrap();
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
