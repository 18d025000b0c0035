//! A thread that loads the configuration anew when its files, or those that its drivers look into, have changed.
//!
//! It waits in `poll` for inotify events of the directories that the files are in, and of those on the way there that
//! may lead elsewhere: a file that is replaced by a rename is another file, its directory stays. Events only say that
//! it is time to look; whether a file has changed is told by its stamp, and when to load it by [`Settle`]. Writes are
//! heard of when the writer closes the file, so that half a file is not read.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use nodepool_threads::{StopSource, StopToken, Thread, Waker, activity_within, poll_until, spawn};
use rustix::event::{PollFd, PollFlags};
use slog::Logger;

use super::Loaded;
use super::directories::Directories;
use super::files::{ConfigFiles, Others, Snapshot, Stamp, Texts};
use super::problem::ConfigError;
use super::settle::{Settle, Step};

/// How long it may take to load the files and to hand over what is in them, unless their disk hangs.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

/// The running watch. Dropping it ends its thread.
#[derive(Debug)]
pub struct ConfigWatch {
    stop: StopSource,
    waker: Waker,
    // Joined after `drop` has told it to end.
    _thread: Thread<()>,
}

impl ConfigWatch {
    /// Watches `files` from the state on that `snapshot` has, the one that came with the configuration in use.
    /// Whatever they hold next is sent to `changes`: the new configuration, or what is wrong with it. Each
    /// content is sent once; while the receiver does not take it, newer ones wait. When the receiver is gone,
    /// the thread ends.
    ///
    /// Fails if the process has no room for another descriptor or thread. Without inotify, the files are
    /// looked at from time to time.
    pub fn start(
        files: ConfigFiles,
        snapshot: Snapshot,
        log: &Logger,
        changes: Sender<Result<Loaded, ConfigError>>,
    ) -> io::Result<Self> {
        let (stop, waker) = (StopSource::new(), Waker::new()?);
        let watcher = Watcher::new(files, snapshot, log.clone(), changes, waker.clone(), &stop);
        let thread = spawn("config-watch", "configuration", move || watcher.run())?;
        Ok(Self { stop, waker, _thread: thread })
    }
}

impl Drop for ConfigWatch {
    fn drop(&mut self) {
        self.stop.stop();
        self.waker.wake();
    }
}

/// What a configuration was made of. The files of drivers are not kept, for there are secrets in them.
type Content = (Texts, BTreeMap<PathBuf, Stamp>);

fn content(snapshot: &Snapshot) -> Content {
    (snapshot.texts.clone(), snapshot.stamps.of_others().clone())
}

/// What the thread owns.
struct Watcher {
    files: ConfigFiles,
    settle: Settle,
    /// Files that drivers have looked into.
    others: Others,
    /// What was sent last.
    content: Result<Content, ConfigError>,
    directories: Directories,
    changes: Sender<Result<Loaded, ConfigError>>,
    waker: Waker,
    stop: StopToken,
    stopped: Receiver<Infallible>,
}

impl Watcher {
    fn new(
        files: ConfigFiles,
        snapshot: Snapshot,
        log: Logger,
        changes: Sender<Result<Loaded, ConfigError>>,
        waker: Waker,
        stop: &StopSource,
    ) -> Self {
        let content = Ok(content(&snapshot));
        let others = snapshot.stamps.of_others().keys().cloned().collect();
        let settle = Settle::new(snapshot.stamps);
        let directories = Directories::new(log);
        let (stop, stopped) = (stop.token(), stop.stopped().clone());
        Self { files, settle, others, content, directories, changes, waker, stop, stopped }
    }

    fn run(mut self) {
        let mut wanted = true;
        while wanted && !self.stop.is_stopped() {
            match self.look() {
                Step::Load => wanted = self.load(),
                Step::Wait(time) => self.wait(time),
            }
        }
    }

    fn look(&mut self) -> Step {
        let _activity = activity_within(LOAD_LIMIT, "looking at the configuration's files");
        // Before the files are looked at: what happens after that look is heard of.
        let own = [Some(self.files.main()), self.files.secure()].into_iter().flatten();
        self.directories.watch(own.chain(self.others.iter().map(PathBuf::as_path)));
        self.settle.step(Instant::now(), self.files.stamps(&self.others))
    }

    /// Loads the files and sends the result if they hold something new. Returns whether to go on.
    fn load(&mut self) -> bool {
        let _activity = activity_within(LOAD_LIMIT, "loading the configuration");
        let before = self.files.stamps(&self.others);
        let loaded = self.files.load_beside(&self.others);
        if loaded.is_err() && self.files.stamps(&self.others) != before {
            // Changed again just now; that will be looked at on its own.
            return true;
        }
        let content = match &loaded {
            Ok(loaded) => {
                self.others.clone_from(&loaded.others);
                Ok(content(&loaded.snapshot))
            }
            Err(error) => {
                // Those of the configuration that is still in force count as well.
                self.others.extend(error.others().iter().cloned());
                Err(error.clone())
            }
        };
        if content == self.content {
            return true;
        }
        self.content = content;
        self.send(loaded)
    }

    /// Sends, unless the watch is stopped first. Returns whether it was sent.
    fn send(&self, loaded: Result<Loaded, ConfigError>) -> bool {
        select! {
            send(self.changes, loaded) -> sent => sent.is_ok(),
            recv(self.stopped) -> _ => false,
        }
    }

    /// Waits until something is heard of the files, the watch is stopped, or `time` has passed.
    fn wait(&self, time: Duration) {
        let mut sources = vec![PollFd::new(&self.waker, PollFlags::IN)];
        sources.extend(self.directories.events().map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll_until(&mut sources, Instant::now().checked_add(time)) {
            Ok(_) => self.directories.drain(),
            // Out of memory, perhaps; not to be tried again at once.
            Err(_) => drop(self.stop.wait(time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use crossbeam_channel::bounded;
    use slog::{Discard, o};

    use super::*;
    use crate::config::Env;
    use crate::config::testing::TempDir;

    type Change = Result<Loaded, ConfigError>;

    fn files(dir: &TempDir) -> ConfigFiles {
        ConfigFiles::new(dir.path().join("n.yaml"), None, Env::default())
    }

    fn log() -> Logger {
        Logger::root(Discard, o!())
    }

    fn start(files: ConfigFiles) -> (ConfigWatch, Receiver<Change>) {
        let (changes, receiver) = bounded(1);
        let snapshot = files.load().unwrap().snapshot;
        (ConfigWatch::start(files, snapshot, &log(), changes).unwrap(), receiver)
    }

    fn next(changes: &Receiver<Change>) -> Change {
        changes.recv_timeout(Duration::from_secs(20)).expect("no change was noticed")
    }

    fn next_elements_dir(changes: &Receiver<Change>) -> String {
        next(changes).unwrap().config.elements_dir.unwrap()
    }

    #[test]
    fn every_way_to_edit_a_file_is_one_reload() {
        let dir = TempDir::new();
        let path = dir.write("n.yaml", "elements-dir: start");
        let (_watch, changes) = start(files(&dir));
        // In place; and each further message is the next edit's, so none came twice.
        dir.write("n.yaml", "elements-dir: written");
        assert_eq!(next_elements_dir(&changes), "written");
        fs::rename(dir.write("n.yaml.new", "elements-dir: renamed"), &path).unwrap();
        assert_eq!(next_elements_dir(&changes), "renamed");
        fs::remove_file(&path).unwrap();
        dir.write("n.yaml", "elements-dir: removed-before");
        assert_eq!(next_elements_dir(&changes), "removed-before");
        dir.write("n.yaml", "elements-dir: [broken");
        let error = next(&changes).unwrap_err().to_string();
        assert!(error.contains("n.yaml:1:22: not valid YAML: "), "{error}");
        dir.write("n.yaml", "elements-dir: mended");
        assert_eq!(next_elements_dir(&changes), "mended");
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn the_secure_file_is_watched_too() {
        let dir = TempDir::new();
        let secure = dir.path().join("other/secure.yaml");
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(&secure, "").unwrap();
        dir.write("n.yaml", "diskimages: [{name: a}]");
        let (_watch, changes) =
            start(ConfigFiles::new(dir.path().join("n.yaml"), Some(&secure), Env::default()));
        fs::write(&secure, "diskimages: [{name: a, env-vars: {A: b}}]").unwrap();
        assert_eq!(next(&changes).unwrap().config.diskimages["a"].env_vars["A"], "b");
    }

    #[test]
    fn a_file_behind_symbolic_links_is_watched() {
        // As Kubernetes mounts a config map: the link in the middle is what is replaced.
        let dir = TempDir::new();
        for (name, text) in [("v1", "elements-dir: one"), ("v2", "elements-dir: two")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            dir.write(&format!("{name}/n.yaml"), text);
        }
        symlink("v1", dir.path().join("data")).unwrap();
        symlink("data/n.yaml", dir.path().join("n.yaml")).unwrap();
        let (_watch, changes) = start(files(&dir));
        symlink("v2", dir.path().join("data.new")).unwrap();
        fs::rename(dir.path().join("data.new"), dir.path().join("data")).unwrap();
        assert_eq!(next_elements_dir(&changes), "two");
        dir.write("v2/n.yaml", "elements-dir: three");
        assert_eq!(next_elements_dir(&changes), "three");
    }

    #[test]
    fn a_directory_that_is_a_link_or_comes_anew_is_watched() {
        // As a release is switched, or a directory is synchronised by putting another one in its place.
        let dir = TempDir::new();
        for (name, text) in [("v1", "elements-dir: one"), ("v2", "elements-dir: two")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            dir.write(&format!("{name}/n.yaml"), text);
        }
        let at = |name: &str| dir.path().join(name);
        symlink("v1", at("current")).unwrap();
        symlink("current", at("etc")).unwrap();
        let (_watch, changes) = start(ConfigFiles::new(at("etc/n.yaml"), None, Env::default()));
        symlink("v2", at("new")).unwrap();
        fs::rename(at("new"), at("current")).unwrap();
        assert_eq!(next_elements_dir(&changes), "two");
        dir.write("v2/n.yaml", "elements-dir: three");
        assert_eq!(next_elements_dir(&changes), "three");
        fs::remove_file(at("etc")).unwrap();
        assert!(next(&changes).unwrap_err().to_string().contains("cannot be read"));
        fs::create_dir(at("etc")).unwrap();
        dir.write("etc/n.yaml", "elements-dir: four");
        assert_eq!(next_elements_dir(&changes), "four");
    }

    #[test]
    fn a_file_that_stays_away_is_an_error_and_its_return_is_no_news_but_a_new_content_is() {
        let dir = TempDir::new();
        let path = dir.write("n.yaml", "elements-dir: start");
        let (_watch, changes) = start(files(&dir));
        fs::remove_file(&path).unwrap();
        assert!(next(&changes).unwrap_err().to_string().contains("No such file or directory"));
        dir.write("n.yaml", "elements-dir: back");
        assert_eq!(next_elements_dir(&changes), "back");
    }

    #[test]
    fn a_change_before_the_start_is_noticed() {
        let dir = TempDir::new();
        dir.write("n.yaml", "elements-dir: start");
        let files = files(&dir);
        let snapshot = files.load().unwrap().snapshot;
        dir.write("n.yaml", "elements-dir: changed");
        let (changes, receiver) = bounded(1);
        let _watch = ConfigWatch::start(files, snapshot, &log(), changes).unwrap();
        assert_eq!(next_elements_dir(&receiver), "changed");
    }

    #[test]
    fn the_same_content_is_not_sent_again() {
        let dir = TempDir::new();
        dir.write("n.yaml", "elements-dir: start");
        let files = files(&dir);
        let (changes, receiver) = bounded(9);
        let snapshot = files.load().unwrap().snapshot;
        let stop = StopSource::new();
        let mut watcher = Watcher::new(files, snapshot, log(), changes, Waker::new().unwrap(), &stop);
        let mut sent_after = |text| {
            dir.write("n.yaml", text);
            assert!(watcher.load());
            receiver.try_iter().count()
        };
        assert_eq!(sent_after("elements-dir: start"), 0);
        assert_eq!(sent_after("elements-dir: [broken"), 1);
        assert_eq!(sent_after("elements-dir: [broken"), 0);
        assert_eq!(sent_after("elements-dir: start"), 1);
        drop(receiver);
        dir.write("n.yaml", "elements-dir: nobody listens");
        assert!(!watcher.load());
    }

    #[test]
    fn it_ends_at_once_even_while_nobody_takes_its_message() {
        let dir = TempDir::new();
        dir.write("n.yaml", "elements-dir: start");
        let (changes, receiver) = bounded(0);
        let files = files(&dir);
        let snapshot = files.load().unwrap().snapshot;
        let watch = ConfigWatch::start(files, snapshot, &log(), changes).unwrap();
        let begin = Instant::now();
        drop(watch);
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert!(receiver.recv().is_err());

        let (changes, receiver) = bounded(0);
        let files = self::files(&dir);
        let snapshot = files.load().unwrap().snapshot;
        dir.write("n.yaml", "elements-dir: changed");
        let watch = ConfigWatch::start(files, snapshot, &log(), changes).unwrap();
        let begin = Instant::now();
        let loads = |thread: &nodepool_threads::ThreadInfo| {
            thread.activities.iter().any(|activity| activity.what == "loading the configuration")
        };
        while !nodepool_threads::threads().iter().any(loads) {
            assert!(begin.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        drop(watch);
        assert!(begin.elapsed() < Duration::from_secs(20));
        assert!(receiver.recv().is_err());
    }
}
