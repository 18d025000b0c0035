//! Who this builder is to the fleet.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nodepool_threads::{Mark, StopSource, activity};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use uuid::Uuid;

use crate::host_name::HostName;

/// The builder's names.
#[derive(Debug)]
pub struct Identity {
    /// The uuid in `<images-dir>/builder_id.txt`: it stays when the host is renamed.
    pub builder_id: String,
    /// The host name.
    pub hostname: String,
    /// The host's names.
    pub host: Arc<HostName>,
    mark: Mark,
    /// Holds the lock that keeps other builders out of the images directory.
    _lock: File,
}

/// The variable by which the processes of this builder's builds and hooks are known.
const MARK: &str = "NODEPOOL_BUILDER";
/// How long another builder may take to be gone: one that was just killed still holds its lock for a moment.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(3);

impl Identity {
    /// Reads the builder's id, or makes one on the first start, and keeps every other builder out of the images
    /// directory for as long as the value lives. `notice` is called if that one must be waited for.
    pub fn load(images_dir: &Path, notice: impl FnOnce(&str)) -> io::Result<Self> {
        let lock = lock(images_dir, notice)?;
        let file = images_dir.join("builder_id.txt");
        let builder_id = match fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => create(&file)?,
            Err(error) if error.kind() == ErrorKind::NotFound => create(&file)?,
            Err(error) => return Err(error),
        };
        let host = Arc::new(HostName::look_up()?);
        let hostname = host.name().to_owned();
        let mark = Mark::new(MARK, &builder_id);
        Ok(Self { builder_id, hostname, host, mark, _lock: lock })
    }

    /// What all processes of this builder's builds and hooks are known by.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The fully qualified host name, or the host name where the system's resolver does not know more. The
    /// first call may have to wait for that.
    pub fn fqdn(&self) -> &str {
        self.host.full()
    }
}

/// Two builders with one id would take each other's running builds for what a dead one has left.
fn lock(images_dir: &Path, notice: impl FnOnce(&str)) -> io::Result<File> {
    let lock = File::open(images_dir)?;
    let source = StopSource::new();
    let patience = source.token().deadline_in(PREDECESSOR_LIMIT);
    let limit = PREDECESSOR_LIMIT.as_secs();
    let _doing = activity("locking the images-dir");
    let mut notice = Some(notice);
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if patience.wait(Duration::from_millis(20)).is_ok() => {
                if let Some(notice) = notice.take() {
                    let (shown, holder) = (images_dir.display(), holder(&lock));
                    notice(&format!(
                        "another builder{holder} has the images-dir {shown}: waiting up to {limit} s for its end"
                    ));
                }
            }
            Err(Errno::WOULDBLOCK) => {
                let why = format!(
                    "another builder is running on it{}, and has not ended within {limit} s: stop that one, or give \
                     each builder an images-dir of its own",
                    holder(&lock)
                );
                return Err(io::Error::new(ErrorKind::ResourceBusy, why));
            }
            // Some network file systems have no locks, or none on directories. There, only the operator can
            // see to it.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => return Ok(lock),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who has the file locked, as ` (process 4711)`; nothing if the kernel does not tell: a process of another
/// container, or of another host.
fn holder(file: &File) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = file.metadata().ok().and_then(|data| holder_in(&locks, data.dev(), data.ino()));
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// The process that holds a lock on the file, from `/proc/locks` (proc(5)).
fn holder_in(locks: &str, dev: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(dev), rustix::fs::minor(dev));
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, at, ..] = fields.as_slice() else { return None };
        pid.parse().ok().filter(|pid| *at == file && *pid > 0)
    })
}

fn create(file: &Path) -> io::Result<String> {
    let id = Uuid::new_v4().to_string();
    let new = file.with_extension("txt.new");
    let mut out = fs::File::create(&new)?;
    out.write_all(id.as_bytes())?;
    // The id must never change, not even by a crash right after the first start.
    out.sync_all()?;
    fs::rename(new, file)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once() {
        let dir = std::env::temp_dir().join(format!("identity-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let nothing_to_wait_for = |notice: &str| panic!("{notice}");
        let first = Identity::load(&dir, nothing_to_wait_for).unwrap();
        assert_eq!(Uuid::parse_str(&first.builder_id).unwrap().get_version_num(), 4);
        let mut said = Vec::new();
        let second = Identity::load(&dir, |notice| said.push(notice.to_owned())).unwrap_err().to_string();
        let own = format!("(process {})", std::process::id());
        assert!(second.contains("another builder is running") && second.contains(&own), "{second}");
        assert!(said.len() == 1 && said[0].contains("up to 3 s") && said[0].contains(&own), "{said:?}");
        let id = first.builder_id.clone();
        drop(first);
        let first = Identity::load(&dir, nothing_to_wait_for).unwrap();
        assert_eq!(first.builder_id, id);
        assert!(!first.fqdn().is_empty());
        drop(first);
        fs::write(dir.join("builder_id.txt"), "from-the-original\n").unwrap();
        assert_eq!(Identity::load(&dir, nothing_to_wait_for).unwrap().builder_id, "from-the-original");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_holder_of_a_lock_is_found_among_all_of_the_machine() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fd:01:43 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 fd:01:42 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 9 fd:01:42 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 10 fd:01:42 0 EOF\n";
        let dev = rustix::fs::makedev(0xfd, 1);
        assert_eq!([42, 43, 44].map(|inode| holder_in(locks, dev, inode)), [Some(9), Some(8), None]);
    }
}
