//! The client's session with ZooKeeper.

use slog::Logger;

use super::failure::Failure;
use crate::config::{Config, Server};
use crate::zk::{Images, Nodes, Requests, Session, SessionThread};

/// A session that is connected. It is closed when this is dropped.
pub(super) struct Connection {
    /// The images in the session.
    pub(super) images: Images,
    /// The session.
    pub(super) session: Session,
    _thread: SessionThread,
}

impl Connection {
    /// Connects within the session timeout, or says which servers could not be reached and why.
    pub(super) fn open(config: &Config, log: &Logger) -> Result<Self, Failure> {
        let zookeeper = config.require_zookeeper()?;
        let (session, thread) = Session::start(zookeeper, log)
            .map_err(|error| Failure::because(format!("cannot start a thread: {error}")))?;
        session.wait_connected(zookeeper.timeout).map_err(|error| {
            let servers: Vec<_> = zookeeper.servers.iter().map(Server::to_string).collect();
            let why = error.to_string();
            // Not all of them have been tried if the first was slow.
            match servers.iter().all(|server| why.contains(server)) {
                true => Failure::because(why),
                false => Failure::because(format!("{why}; the servers are {}", servers.join(", "))),
            }
        })?;
        // Of images the client takes no locks.
        let images = Images::new(&session, "");
        Ok(Self { images, session, _thread: thread })
    }

    /// The nodes in the session.
    pub(super) fn nodes(&self) -> Nodes {
        Nodes::new(&self.session, &holder())
    }

    /// The node requests in the session.
    pub(super) fn requests(&self) -> Requests {
        Requests::new(&self.session, &holder())
    }
}

/// What is left in locks.
fn holder() -> String {
    format!("nodepool client {}", std::process::id())
}
