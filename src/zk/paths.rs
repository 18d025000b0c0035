//! What takes several calls of a [`Session`]: whole paths and whole trees. Together they are over as soon as
//! a single call would have to be.

use super::client::Client;
use super::error::{ZkErrorKind, ZkResult};
use super::session::Session;

impl Session {
    /// Makes a znode and its missing ancestors, all without data, where they do not exist yet.
    pub fn ensure_path(&self, path: &str) -> ZkResult<()> {
        let this = self.as_one_call();
        match this.create(path, b"") {
            Err(error) if error.is(ZkErrorKind::NodeExists) => Ok(()),
            Err(error) if error.is(ZkErrorKind::NoNode) => {
                this.ensure_parent(path)?;
                this.ensure_path(path)
            }
            other => other,
        }
    }

    /// Looks upwards for what exists: a look costs the servers less than a creation that fails.
    fn ensure_parent(&self, path: &str) -> ZkResult<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) if !parent.is_empty() => {
                if self.stat(parent)?.is_some() {
                    return Ok(());
                }
                self.ensure_parent(parent)?;
                self.ensure_path(parent)
            }
            // Even the first level has no parent: the configured root does not exist yet.
            _ => self.repeat("create the chroot above", path, Client::ensure_root),
        }
    }

    /// Makes the znodes along `below` that are missing, one after the other from `base` downwards, all
    /// without data. False if `base` does not exist.
    pub fn ensure_below(&self, base: &str, below: &str) -> ZkResult<bool> {
        if base.is_empty() {
            return self.ensure_path(&format!("/{below}")).map(|()| true);
        }
        let this = self.as_one_call();
        let mut path = base.to_owned();
        for name in below.split('/') {
            path = format!("{path}/{name}");
            match this.create(&path, b"") {
                Ok(()) => {}
                Err(error) if error.is(ZkErrorKind::NodeExists) => {}
                Err(error) if error.is(ZkErrorKind::NoNode) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Deletes a znode with everything below it. One that is not there counts as deleted.
    pub fn delete_tree(&self, path: &str) -> ZkResult<()> {
        let this = self.as_one_call();
        let children = match this.children(path) {
            Err(error) if error.is(ZkErrorKind::NoNode) => return Ok(()),
            other => other?,
        };
        for child in children {
            this.delete_tree(&format!("{path}/{child}"))?;
        }
        match this.delete(path, None) {
            Err(error) if error.is(ZkErrorKind::NoNode) => Ok(()),
            // Somebody made a child in between.
            Err(error) if error.is(ZkErrorKind::NotEmpty) => this.delete_tree(path),
            other => other,
        }
    }
}
