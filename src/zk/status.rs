//! How it stands with the session.

/// Which session of this process: a lock of another generation than the current one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub(super) u64);

/// How it stands with the connection and the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Calls can be made now.
    Connected,
    /// There is no connection. The session may live on, and with it the locks.
    Suspended,
    /// There is no session: none has begun yet, or the servers have said that it is over.
    Lost,
}

/// What the session is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether there is a connection, or a session at least.
    pub state: Connection,
    /// The current session. Changes only when one was lost.
    pub generation: Generation,
    /// The number of the connection. Watches go with it, and what was read before may be outdated.
    pub connection: u64,
}

impl Status {
    /// Whether calls can be made now.
    pub fn is_connected(&self) -> bool {
        self.state == Connection::Connected
    }
}
