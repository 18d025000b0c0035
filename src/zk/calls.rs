//! The calls of a session for one znode. Each is repeated when its connection is lost, and tells whether it was done even if
//! an answer was lost.

use super::client::{Client, Failure, Mode, Stat};
use super::error::{ZkError, ZkErrorKind, ZkResult};
use super::session::Session;
use super::shared::Orphan;

impl Session {
    /// The data of a znode.
    pub fn get(&self, path: &str) -> ZkResult<(Vec<u8>, Stat)> {
        self.repeat("get", path, |client| client.get(path))
    }

    /// A znode's description, if it exists.
    pub fn stat(&self, path: &str) -> ZkResult<Option<Stat>> {
        self.repeat("stat", path, |client| client.stat(path))
    }

    /// The names of a znode's children, in no order.
    pub fn children(&self, path: &str) -> ZkResult<Vec<String>> {
        self.repeat("list", path, |client| client.children(path))
    }

    /// Makes a znode under a name of its own. Its parent must exist.
    pub fn create(&self, path: &str, data: &[u8]) -> ZkResult<()> {
        let mut in_doubt = false;
        self.repeat("create", path, |client| match client.create(path, data, Mode::Persistent) {
            // The first attempt may have succeeded without its answer arriving.
            Err(Failure::Answer(ZkErrorKind::NodeExists, _))
                if in_doubt && version_with(client, path, data)? == Some(0) =>
            {
                Ok(())
            }
            other => other.map(|_| ()).inspect_err(|failure| in_doubt |= failure.is_connection_loss()),
        })
    }

    /// Makes a znode below `parent` whose name is the ten digits that the server gives it, and returns that name. It is
    /// tried once: after `Unavailable` there may be one whose name nobody knows.
    pub fn create_numbered(&self, parent: &str, data: &[u8]) -> ZkResult<String> {
        let mut in_doubt = false;
        let made = self.repeat("create below", parent, |client| {
            if in_doubt {
                let why = "the connection was lost before the answer came".to_owned();
                return Err(Failure::Answer(ZkErrorKind::Unavailable, why));
            }
            client
                .create(parent, data, Mode::Numbered)
                .inspect_err(|failure| in_doubt |= failure.is_connection_loss())
        })?;
        Ok(made.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Makes a znode that goes with the session, adds ten digits to its name, and returns its path. It is
    /// made once, or not at all.
    pub fn create_ephemeral(&self, path: &str, data: &[u8]) -> ZkResult<String> {
        let mut in_doubt = None;
        let made = self.repeat_in_session("create", path, |client, generation| {
            if in_doubt == Some(generation) {
                if let Some(made) = client.find_own(path)?.pop() {
                    return Ok(made);
                }
            }
            client.create(path, data, Mode::EphemeralSequential).inspect_err(|failure| {
                if failure.is_connection_loss() {
                    in_doubt = Some(generation);
                }
            })
        });
        if let (Err(_), Some(generation)) = (&made, in_doubt) {
            self.pinned(generation).abandon(&Orphan::Sequential(path.to_owned()));
        }
        made
    }

    /// Replaces a znode's data if it still has `version`, and returns its new version. `Unavailable` leaves
    /// open whether it was done; every other error says that it was not.
    pub fn set(&self, path: &str, data: &[u8], version: i32) -> ZkResult<i32> {
        let next = version.wrapping_add(1);
        let mut in_doubt = false;
        let done = self.repeat("set", path, |client| match client.set(path, data, Some(version)) {
            Err(Failure::Answer(ZkErrorKind::BadVersion, _))
                if in_doubt && version_with(client, path, data)? == Some(next) =>
            {
                Ok(next)
            }
            other => {
                other.map(|stat| stat.version).inspect_err(|failure| in_doubt |= failure.is_connection_loss())
            }
        });
        match done {
            // It may have been done before the session was lost.
            Err(error) if in_doubt && error.is(ZkErrorKind::SessionLost) => {
                let why = format!("set {path}: the session was lost before the answer came");
                Err(ZkError::new(ZkErrorKind::Unavailable, why))
            }
            done => done,
        }
    }

    /// Deletes a znode, if it still has `version` where one is given.
    pub fn delete(&self, path: &str, version: Option<i32>) -> ZkResult<()> {
        let mut in_doubt = false;
        self.repeat("delete", path, |client| match client.delete(path, version) {
            Err(Failure::Answer(ZkErrorKind::NoNode, _)) if in_doubt => Ok(()),
            other => other.inspect_err(|failure| in_doubt |= failure.is_connection_loss()),
        })
    }

    /// Deletes an ephemeral znode of the pinned generation: now if there is a connection, else at the
    /// beginning of the next one, unless the session is lost and the znode gone with it.
    pub(super) fn delete_ephemeral(&self, path: &str) {
        self.abandon(&Orphan::At(path.to_owned()));
    }
}

/// The znode's version if it has the data that an attempt with unknown outcome would have written.
fn version_with(client: &Client, path: &str, data: &[u8]) -> Result<Option<i32>, Failure> {
    match client.get(path) {
        Ok((found, stat)) => Ok((found == data).then_some(stat.version)),
        Err(failure) => Failure::unless_lost(failure).map(|()| None),
    }
}
