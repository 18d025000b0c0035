//! Names to addresses, under a time limit that the system's resolver does not know.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::locks::Mutex;
use crate::registry::{Thread, activity_within, spawn};
use crate::stop::{Interrupted, StopToken, Waited};

/// As long as it takes the system's resolver to give up three dead name servers (resolv.conf(5)).
pub const SLOW_RESOLVER: Duration = Duration::from_secs(30);

/// Resolves names, each on a thread of its own. One that takes too long goes on, and its answer serves the
/// next attempt, so that a resolver that hangs costs one thread per name and caller.
#[derive(Debug)]
pub struct Resolver {
    pending: Mutex<Vec<Pending>>,
}

/// Why there is no address.
#[derive(Debug)]
pub enum Unresolved {
    /// The token has ended.
    Interrupted(Interrupted),
    /// The reason, as the end of a sentence about a server.
    Failed(String),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(why) => write!(f, "its name could not be resolved in time: {why}"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

#[derive(Debug)]
struct Pending {
    host: String,
    port: u16,
    answer: Receiver<io::Result<Vec<SocketAddr>>>,
    thread: Thread<()>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { pending: Mutex::new("names being resolved", Vec::new()) }
    }
}

impl Resolver {
    /// The addresses of a server, at least one.
    pub fn resolve(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
        stop: &StopToken,
    ) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let failed = |why: String| Err(Unresolved::Failed(why));
        let waiting = {
            let mut pending = self.pending.lock();
            let at = pending.iter().position(|pending| pending.host == host && pending.port == port);
            at.map(|at| pending.swap_remove(at))
        };
        let pending = match waiting.map_or_else(|| Pending::start(host, port), Ok) {
            Ok(pending) => pending,
            Err(error) => return failed(format!("no thread to resolve its name: {error}")),
        };
        let why = match stop.recv_timeout(&pending.answer, limit) {
            Ok(Ok(addresses)) if addresses.is_empty() => return failed("its name has no address".to_owned()),
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => return failed(format!("its name cannot be resolved: {error}")),
            Err(Waited::Interrupted(why)) => Unresolved::Interrupted(why),
            Err(Waited::TimedOut | Waited::Disconnected) => {
                Unresolved::Failed("its name could not be resolved in time".to_owned())
            }
        };
        self.pending.lock().push(pending);
        Err(why)
    }
}

impl Pending {
    fn start(host: &str, port: u16) -> io::Result<Self> {
        let (tell, answer) = bounded(1);
        let wanted = (host.to_owned(), port);
        let thread = spawn("resolver", "name resolver", move || {
            let _doing = activity_within(SLOW_RESOLVER, format!("looking up {}", wanted.0));
            let found = wanted.to_socket_addrs().map(Iterator::collect);
            // Nobody may be waiting any more.
            let _ = tell.send(found);
        })?;
        Ok(Self { host: host.to_owned(), port, answer, thread })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        for pending in self.pending.lock().drain(..) {
            // It holds nothing and ends by itself; whoever stops must not wait for a name server.
            pending.thread.detach();
        }
    }
}
