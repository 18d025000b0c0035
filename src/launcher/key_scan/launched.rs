//! How a new node's host keys are read: what a launch needs of it.

use std::time::Duration;

use nodepool_threads::StopToken;

use super::{Target, has_host_keys, scan, wait_for_port};

/// Reads the host keys of nodes.
pub trait KeyScan: Send + Sync {
    /// The keys of who answers there, none where the connection type has none, as lines of a known-hosts file have
    /// them, or why there are none. Tries again until
    /// `limit` has passed: the node may still be booting.
    fn scan(
        &self,
        connection_type: &str,
        address: &str,
        port: u16,
        limit: Duration,
        stop: &StopToken,
    ) -> Result<Vec<String>, String>;
}

/// Reads them over SSH.
pub struct SshKeyScan;

impl KeyScan for SshKeyScan {
    fn scan(
        &self,
        connection_type: &str,
        address: &str,
        port: u16,
        limit: Duration,
        stop: &StopToken,
    ) -> Result<Vec<String>, String> {
        let target = Target { host: address.to_owned(), port };
        let found = if has_host_keys(connection_type) {
            scan(&target, limit, stop)
        } else {
            wait_for_port(&target, limit, stop).map(|()| Vec::new())
        };
        found.map_err(|error| error.to_string())
    }
}
