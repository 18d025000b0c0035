//! The pid file: one daemon per file. It is locked for as long as the daemon lives, so that a file that a
//! crash has left behind is recognised whatever number stands in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::own_file;

/// More than one attempt is needed only when another daemon ends at the very moment.
const ATTEMPTS: usize = 10;

/// The directory of the default pid file under both of its names. It is gone after each boot.
const OWN_DIRECTORY: [&str; 2] = ["/var/run/nodepool", "/run/nodepool"];

/// The directory of a pid file, and whether it is one that may be made. Any other must be there: it was named by an
/// operator, who may have mistyped it.
pub(super) fn directory(pid_file: &Path) -> Result<Option<&Path>, String> {
    let Some(dir) = pid_file.parent() else { return Ok(None) };
    let shown = dir.display();
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let own = OWN_DIRECTORY.iter().any(|own| dir == Path::new(own));
            let missing = || {
                format!("-p: there is no directory {shown} for the pid file; make it, or name another one")
            };
            own.then_some(Some(dir)).ok_or_else(missing)
        }
        Ok(_) => Err(format!("-p: {shown} is no directory")),
        Err(error) => Err(format!("-p: cannot look for the directory {shown}: {error}")),
    }
}

/// A locked pid file. Removed when dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Locks the file. Fails if a daemon that is alive has it.
    pub(super) fn lock(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        for _ in 0..ATTEMPTS {
            if let Some(locked) = Self::try_lock(path)? {
                return Ok(locked);
            }
        }
        Err(format!("the pid file {shown} is removed again and again"))
    }

    /// Fails as [`PidFile::lock`] does. `None` if the file has gone meanwhile.
    fn try_lock(path: &Path) -> Result<Option<Self>, String> {
        let shown = path.display();
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = own_file::open(path, &mut options)
            .map_err(|error| format!("cannot write the pid file {shown}: {error}"))?;
        let mut old = String::new();
        // What is no number is no daemon's.
        let _ = (&mut file).take(32).read_to_string(&mut old);
        let other = old.trim().parse::<u32>().ok();
        let running = |who: String| format!("it is already running{who} (pid file {shown})");
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(running(other.map(|pid| format!(" as process {pid}")).unwrap_or_default()));
        }
        // The original does not lock its pid file, as ours do.
        if let Some(pid) = other.filter(|pid| is_original(*pid)) {
            return Err(running(format!(" as process {pid}")));
        }
        // A daemon that ends may have removed the file between its opening and its lock: nobody else would
        // ever find that one.
        if !is_at(&file, path) {
            return Ok(None);
        }
        // Whoever tries to start a second one meanwhile must not take a number of earlier times for ours.
        file.set_len(0).map_err(|error| format!("cannot write the pid file {shown}: {error}"))?;
        Ok(Some(Self { path: path.to_owned(), file }))
    }

    /// Writes the process's own number, once the start has succeeded.
    pub(super) fn write(&mut self) -> Result<(), String> {
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())?;
            file.flush()
        };
        write(&mut self.file)
            .map_err(|error| format!("cannot write the pid file {}: {error}", self.path.display()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have removed it, and another daemon made its own.
        if is_at(&self.file, &self.path) {
            // In a directory of root's the user that we are cannot remove it. A file that keeps its number is
            // recognised as stale by its missing lock.
            let _ = fs::remove_file(&self.path).or_else(|_| self.file.set_len(0));
        }
    }
}

/// Whether the open file is the one that its path leads to.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    let own = id(file.metadata());
    own.is_some() && own == id(fs::metadata(path))
}

/// Whether the process is a daemon of the original, which is a Python script: a number that a crashed daemon has left
/// in its pid file may belong to any process by now, also to one that only reads a file with such a name.
fn is_original(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words =
        line.split(|letter| *letter == 0).map(|word| word.rsplit(|letter| *letter == b'/').next());
    let [interpreter, script] = [words.next(), words.next()].map(Option::flatten);
    interpreter.is_some_and(|name| name.starts_with(b"python"))
        && script.is_some_and(|name| matches!(name, b"nodepool-builder" | b"nodepool-launcher"))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_a_stale_file_is_replaced() {
        let path = std::env::temp_dir().join(format!("pid-file-{}.pid", std::process::id()));
        let mut first = PidFile::lock(&path).unwrap();
        first.write().unwrap();
        let refused = PidFile::lock(&path).unwrap_err();
        assert!(refused.contains("already running as process"), "{refused}");
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "1\n").unwrap();
        let mut next = PidFile::lock(&path).unwrap();
        next.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(next);
    }

    #[test]
    fn what_a_link_leads_to_is_left_alone_and_a_stranger_is_no_daemon() {
        let dir = std::env::temp_dir().join(format!("pid-file-link-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (victim, path) = (dir.join("victim"), dir.join("x.pid"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        PidFile::lock(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        assert!(PidFile::lock(&path).unwrap_err().contains("remove it"));
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        // Its init script, or whoever reads a file of that name, is not the daemon. The original is.
        let script = dir.join("nodepool-builder");
        fs::write(&script, "import time; time.sleep(600)").unwrap();
        for (program, arguments, refused) in
            [("sh", &["-c", "read line"][..], false), ("tail", &["-f"], false), ("python3", &[], true)]
        {
            let mut stranger = std::process::Command::new(program);
            // It must leave nothing behind that holds this program's output open.
            stranger.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut stranger = stranger.args(arguments).arg(&script).spawn().unwrap();
            // Python may be begun by a script, too, which then becomes it.
            let deadline = Instant::now() + Duration::from_secs(60);
            let locked = loop {
                fs::write(&path, format!("{}\n", stranger.id())).unwrap();
                let locked = PidFile::lock(&path);
                if locked.is_err() == refused || Instant::now() > deadline {
                    break locked;
                }
                thread::yield_now();
            };
            stranger.kill().unwrap();
            stranger.wait().unwrap();
            assert_eq!(locked.is_err(), refused, "{program}: {locked:?}");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn another_daemons_file_in_the_same_place_is_left_there() {
        let path = std::env::temp_dir().join(format!("pid-file-other-{}.pid", std::process::id()));
        let first = PidFile::lock(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = PidFile::lock(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_removed_before_its_lock_is_not_taken() {
        let path = std::env::temp_dir().join(format!("pid-file-gone-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        fs::write(&path, "").unwrap();
        assert!(!is_at(&file, &path), "another file of the same name");
        fs::remove_file(path).unwrap();
    }

    /// Found while reading: a daemon could lock the file that another one was just removing, and then ran
    /// with a pid file that nobody could see.
    #[test]
    fn daemons_that_come_and_go_never_run_without_a_pid_file() {
        let path = std::env::temp_dir().join(format!("pid-file-race-{}", std::process::id()));
        let come_and_go = |path: PathBuf| {
            for _ in 0..3000 {
                if let Ok(mut pid) = PidFile::lock(&path) {
                    pid.write().unwrap();
                    assert!(is_at(&pid.file, &path), "its pid file is another's, or gone");
                }
            }
        };
        let threads: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn({
                    let path = path.clone();
                    move || come_and_go(path)
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!path.exists());
    }
}
