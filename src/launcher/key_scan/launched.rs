//! How a new node's host keys are read: what a launch needs of it.

use std::time::Duration;

use nodepool_threads::StopToken;

use super::{Target, has_host_keys, scan, wait_for_port};

/// The host keys of who answers there, none where the connection type has none, as lines of a known-hosts file have
/// them, or why there are none. Tries again until `limit` has passed: the node may still be booting.
pub(in crate::launcher) fn keys_of_node(
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
