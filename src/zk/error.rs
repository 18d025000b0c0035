//! What can come of a ZooKeeper call, in the terms that callers decide on.

use std::fmt;

/// The outcome that a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZkErrorKind {
    /// The znode does not exist.
    NoNode,
    /// The znode exists already.
    NodeExists,
    /// The znode has children and cannot be deleted.
    NotEmpty,
    /// The znode has another version than the caller read: somebody wrote in between.
    BadVersion,
    /// The session that the call belongs to is over, and with it every lock that was taken in it.
    SessionLost,
    /// There was no connection within the time that a call may take. For a write, the outcome is unknown.
    Unavailable,
    /// The server, or this client, refuses the call: its arguments, rights or size.
    Refused,
}

/// A failed ZooKeeper call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZkError {
    kind: ZkErrorKind,
    message: String,
}

/// The result of a ZooKeeper call.
pub type ZkResult<T> = Result<T, ZkError>;

impl ZkError {
    pub(super) fn new(kind: ZkErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What the caller decides on.
    pub fn kind(&self) -> ZkErrorKind {
        self.kind
    }

    /// Whether it is of `kind`.
    pub fn is(&self, kind: ZkErrorKind) -> bool {
        self.kind == kind
    }
}

impl fmt::Display for ZkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZooKeeper: {}", self.message)
    }
}

impl std::error::Error for ZkError {}

/// Turns the absence of a znode into `None`.
pub fn optional<T>(result: ZkResult<T>) -> ZkResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is(ZkErrorKind::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}
