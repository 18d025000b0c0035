//! The ability to offer machines that stand there already.

use std::fmt;
use std::time::Duration;

use super::Value;

/// The ability to offer machines that stand there already: nobody launches or deletes them, and a job finds them as
/// the one before has left them.
pub trait Machines: Send + Sync {
    /// All of them, as they are configured. No two have the same [identity](Machine::identity).
    fn machines(&self) -> &[Machine];
}

/// A machine, and how it is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The pool that it belongs to.
    pub pool: String,
    /// Its host name or address.
    pub host: String,
    /// The labels that it can be asked for by; at least one.
    pub labels: Vec<String>,
    /// The user that it is reached as.
    pub username: String,
    /// `ssh`, `winrm`, …
    pub connection_type: String,
    /// The port of its connection.
    pub connection_port: u16,
    /// Where it has Python; `auto` has Ansible look for it.
    pub python_path: String,
    /// Which shell it has, for Ansible.
    pub shell_type: Option<String>,
    /// The host keys that it must have, as `ssh-ed25519 AAAA…`; it may have others besides.
    pub host_keys: Vec<String>,
    /// Whether its host keys are read from it. If not, it is taken to have those above, and to answer.
    pub host_key_checking: bool,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How many jobs may use it at the same time: it is as many nodes.
    pub slots: u32,
    /// What the record of each of its nodes says besides; the pool's.
    pub attributes: Option<Value>,
}

/// What tells a machine from all others of its provider, and what its nodes are known by again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId {
    /// Its host name or address.
    pub host: String,
    /// The user that it is reached as.
    pub username: String,
    /// The port of its connection.
    pub port: u16,
}

impl Machine {
    /// What it is known by.
    pub fn identity(&self) -> MachineId {
        MachineId { host: self.host.clone(), username: self.username.clone(), port: self.connection_port }
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} port {}", self.username, self.host, self.port)
    }
}
