//! Who this builder is to the fleet.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use nodepool_threads::{Mark, StopSource, spawn};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use uuid::Uuid;

/// The builder's names.
#[derive(Debug)]
pub struct Identity {
    /// The uuid in `<images-dir>/builder_id.txt`: it stays when the host is renamed.
    pub builder_id: String,
    /// The host name.
    pub hostname: String,
    mark: Mark,
    fqdn: OnceLock<String>,
    /// Holds the lock that keeps other builders out of the images directory.
    _lock: File,
    /// Where the resolver's answer arrives.
    resolved: Receiver<Option<String>>,
}

/// The variable by which the processes of this builder's builds and hooks are known.
const MARK: &str = "NODEPOOL_BUILDER";
/// How long another builder may take to be gone: one that was just killed still holds its lock for a moment.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(3);

/// How long to wait for the system's resolver.
const RESOLVER_LIMIT: Duration = Duration::from_secs(2);

impl Identity {
    /// Reads the builder's id, or makes one on the first start, and keeps every other builder out of the images
    /// directory for as long as the value lives.
    pub fn load(images_dir: &Path) -> io::Result<Self> {
        let lock = lock(images_dir)?;
        let file = images_dir.join("builder_id.txt");
        let builder_id = match fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => create(&file)?,
            Err(error) if error.kind() == ErrorKind::NotFound => create(&file)?,
            Err(error) => return Err(error),
        };
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (tell, resolved) = bounded(1);
        let name = hostname.clone();
        let resolver = spawn("host-name", "name resolver", move || {
            // Nobody may be waiting any more.
            let _ = tell.send(qualify(&name));
        })?;
        // The system's resolver knows no deadline. It holds nothing, so nobody waits for its end.
        std::mem::forget(resolver);
        let mark = Mark::new(MARK, &builder_id);
        Ok(Self { builder_id, hostname, mark, fqdn: OnceLock::new(), _lock: lock, resolved })
    }

    /// What all processes of this builder's builds and hooks are known by.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The fully qualified host name, or the host name where the system's resolver does not know more. The
    /// first call may have to wait for that.
    pub fn fqdn(&self) -> &str {
        self.fqdn.get_or_init(|| {
            let answer = self.resolved.recv_timeout(RESOLVER_LIMIT).ok().flatten();
            answer.unwrap_or_else(|| self.hostname.clone())
        })
    }
}

/// Two builders with one id would take each other's running builds for what a dead one has left.
fn lock(images_dir: &Path) -> io::Result<File> {
    let lock = File::open(images_dir)?;
    let source = StopSource::new();
    let patience = source.token().deadline_in(PREDECESSOR_LIMIT);
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if patience.wait(Duration::from_millis(20)).is_ok() => {}
            Err(Errno::WOULDBLOCK) => {
                let why = "another builder is running on it; each needs an images-dir of its own";
                return Err(io::Error::new(ErrorKind::ResourceBusy, why));
            }
            // Some network file systems have no locks, or none on directories. There, only the operator can
            // see to it.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => return Ok(lock),
            Err(error) => return Err(error.into()),
        }
    }
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

/// The canonical name of the host's own address.
fn qualify(hostname: &str) -> Option<String> {
    if hostname.contains('.') {
        return Some(hostname.to_owned());
    }
    let address = (hostname, 0).to_socket_addrs().ok()?.next()?.ip();
    // An address that only this machine has says nothing about its name.
    dns_lookup::lookup_addr(&address)
        .ok()
        .filter(|name| name.contains('.') && name != "localhost.localdomain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once() {
        let dir = std::env::temp_dir().join(format!("identity-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let first = Identity::load(&dir).unwrap();
        assert_eq!(Uuid::parse_str(&first.builder_id).unwrap().get_version_num(), 4);
        let second = Identity::load(&dir).unwrap_err();
        assert!(second.to_string().contains("another builder is running"), "{second}");
        let id = first.builder_id.clone();
        drop(first);
        let first = Identity::load(&dir).unwrap();
        assert_eq!(first.builder_id, id);
        assert!(!first.fqdn().is_empty());
        drop(first);
        fs::write(dir.join("builder_id.txt"), "from-the-original\n").unwrap();
        assert_eq!(Identity::load(&dir).unwrap().builder_id, "from-the-original");
        fs::remove_dir_all(dir).unwrap();
    }
}
