//! Whether a daemon is ready.

use crate::zk::Connection;

/// Why a daemon is not ready, as far as its connection and its copies of ZooKeeper's trees go; none if it is.
pub(in crate::web) fn unready(connection: Connection, trees_complete: bool) -> Option<&'static str> {
    match connection {
        Connection::Lost => Some("no session with ZooKeeper"),
        Connection::Suspended => Some("the connection to ZooKeeper is interrupted"),
        Connection::Connected if !trees_complete => Some("the records are still being read from ZooKeeper"),
        Connection::Connected => None,
    }
}
