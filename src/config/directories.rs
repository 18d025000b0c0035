//! Which directories decide what a file is, and how changes of them are heard of (inotify).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use slog::{Logger, warn};

/// As many symbolic links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The directories that inotify watches.
pub(super) struct Directories {
    /// `None` if the system does not let us have it.
    inotify: Option<OwnedFd>,
    log: Logger,
    /// What could not be watched, so that it is told once.
    refused: BTreeSet<PathBuf>,
}

impl Directories {
    pub(super) fn new(log: Logger) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        if let Err(error) = &inotify {
            warn!(log, "changes of the configuration are noticed late"; "cause" => %io::Error::from(*error));
        }
        Self { inotify: inotify.ok(), log, refused: BTreeSet::new() }
    }

    /// Watches the directories that decide what the files are. They may be other ones every time.
    pub(super) fn watch<'f>(&mut self, files: impl Iterator<Item = &'f Path>) {
        let Some(inotify) = &self.inotify else { return };
        for (directory, flags) in files.flat_map(deciding) {
            match inotify::add_watch(inotify, &directory, flags) {
                // It may have gone just now, which is heard of.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => {
                    if self.refused.insert(directory.clone()) {
                        warn!(self.log, "changes of the configuration are noticed late";
                            "directory" => %directory.display(), "cause" => %io::Error::from(error));
                    }
                }
            }
        }
    }

    /// Readable when something was heard.
    pub(super) fn events(&self) -> impl Iterator<Item = &OwnedFd> {
        self.inotify.iter()
    }

    /// Forgets the events that have come: they have no more to say than that they came.
    pub(super) fn drain(&self) {
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [0u8; 4096];
        while rustix::io::read(inotify, &mut buffer).is_ok_and(|length| length > 0) {}
    }
}

/// What is heard of a directory. Not that a file was created: it is empty then, and closed later.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The directories on the way to a file in which something else would lead elsewhere: that of the file, those of
/// the symbolic links on the way, and the last that is there if the next is missing.
fn deciding(file: &Path) -> BTreeMap<PathBuf, WatchFlags> {
    let mut found = BTreeMap::new();
    let mut way: Vec<OsString> = names(file);
    let mut here = if file.is_absolute() { PathBuf::from("/") } else { PathBuf::from(".") };
    let mut links = 0;
    while let Some(name) = way.pop() {
        let next = here.join(&name);
        match fs::read_link(&next) {
            // The kernel will not follow it either.
            Ok(_) if links == MOST_LINKS => return found,
            Ok(target) => {
                links += 1;
                found.insert(here.clone(), CHANGES);
                way.extend(names(&target));
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
            }
            _ if way.is_empty() => {
                found.insert(here, CHANGES);
                return found;
            }
            _ if fs::symlink_metadata(&next).is_err() => {
                found.insert(here, CHANGES.union(WatchFlags::CREATE));
                return found;
            }
            _ => here = next,
        }
    }
    found
}

/// The names in a path, the last first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::testing::TempDir;

    #[test]
    fn what_decides_is_where_the_file_and_the_links_to_it_are() {
        let dir = TempDir::new();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        for name in ["a", "b", "b/c"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("b/c/file"), "").unwrap();
        symlink("../b/c/file", at("a/link")).unwrap();
        symlink(at("a"), at("b/absolute")).unwrap();
        symlink("loop", at("a/loop")).unwrap();
        let root = at("").components().collect::<PathBuf>();
        for (file, directories) in [
            ("b/c/file", vec![at("b/c")]),
            ("a/link", vec![at("a"), at("a/../b/c")]),
            ("b/absolute/link", vec![at("a"), at("a/../b/c"), at("b")]),
            ("b/none/file", vec![at("b")]),
            ("none", vec![root.clone()]),
            ("a/loop", vec![at("a")]),
            ("a/loop/file", vec![at("a")]),
        ] {
            assert_eq!(deciding(&at(file)).into_keys().collect::<Vec<_>>(), directories, "{file}");
        }
    }
}
