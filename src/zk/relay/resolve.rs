//! Names to addresses, under a time limit that the system's resolver does not know.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use nodepool_threads::{StopToken, Thread, spawn};

use crate::config::Server;

/// Resolves names, each on a thread of its own. One that takes too long goes on, and its answer serves the
/// next attempt, so that a resolver that hangs costs one thread per server.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    server: Server,
    answer: Receiver<io::Result<Vec<SocketAddr>>>,
    thread: Thread<()>,
}

impl Resolver {
    /// The addresses of a server.
    pub(super) fn resolve(
        &mut self,
        server: &Server,
        limit: Duration,
        stop: &StopToken,
    ) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = server.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, server.port)]);
        }
        let pending = match self.pending.iter().position(|pending| pending.server == *server) {
            Some(at) => self.pending.swap_remove(at),
            None => {
                Pending::start(server).map_err(|error| format!("no thread to resolve its name: {error}"))?
            }
        };
        match stop.recv_timeout(&pending.answer, limit) {
            Ok(Ok(addresses)) if addresses.is_empty() => Err("its name has no address".to_owned()),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(format!("its name cannot be resolved: {error}")),
            Err(_) => {
                self.pending.push(pending);
                Err("its name could not be resolved in time".to_owned())
            }
        }
    }
}

impl Pending {
    fn start(server: &Server) -> io::Result<Self> {
        let (tell, answer) = bounded(1);
        let wanted = (server.host.clone(), server.port);
        let thread = spawn("resolver", "name resolver", move || {
            let found = wanted.to_socket_addrs().map(Iterator::collect);
            // Nobody may be waiting any more.
            let _ = tell.send(found);
        })?;
        Ok(Self { server: server.clone(), answer, thread })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        for pending in self.pending.drain(..).filter(|pending| !pending.thread.is_finished()) {
            // It holds nothing and ends by itself; whoever stops must not wait for a name server.
            std::mem::forget(pending.thread);
        }
    }
}
