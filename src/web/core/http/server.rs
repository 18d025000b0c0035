//! The server's thread: it waits in `poll` for new clients, for those that it has, and for a change of its
//! address.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nodepool_threads::{Resolver, StopToken, Waker, poll_until};
use rustix::event::{PollFd, PollFlags};
use slog::{Logger, info, warn};

use super::client::Client;
use super::request::Request;
use super::response::Response;

/// How many connections there may be. Beyond that the oldest has to go: it is the one that dawdles.
const MOST_CLIENTS: usize = 32;
/// How long to wait before an address that cannot be had is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// The pause when no connection can be accepted, as when all descriptors are in use.
const PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for the address of a host's name.
const RESOLVING: Duration = Duration::from_secs(5);

/// Where pages are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::web) struct Place {
    /// The address of an interface, or a name that has one.
    pub(in crate::web) host: String,
    /// The port; 0 is any that is free.
    pub(in crate::web) port: u16,
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What is served.
pub(in crate::web) trait Site {
    /// Where, at present; none for nowhere.
    fn place(&self) -> Option<Place>;

    /// The answer to a request. Must not take long: all others wait for it.
    fn answer(&mut self, request: &Request) -> Response;

    /// Throws away what is not needed any more, and says when there will be more of it.
    fn tidy(&mut self) -> Option<Instant>;
}

/// A server that has not begun.
pub(in crate::web) struct Server<S> {
    site: S,
    /// Woken when the address has changed, and to stop.
    waker: Waker,
    door: Door,
    resolver: Resolver,
    /// Opened while the process had the right to, for the first address.
    early: Option<TcpListener>,
    clients: Vec<Client>,
    log: Logger,
}

/// Where clients come in.
enum Door {
    /// Nowhere is wanted, or nothing was tried yet.
    None,
    /// There, from this time on.
    Open(Place, TcpListener, Instant),
    /// It cannot be had; to be tried again then.
    Stuck(Place, Instant),
}

impl Door {
    fn place(&self) -> Option<&Place> {
        match self {
            Self::None => None,
            Self::Open(place, ..) | Self::Stuck(place, _) => Some(place),
        }
    }
}

impl<S: Site> Server<S> {
    pub(in crate::web) fn new(site: S, waker: Waker, log: &Logger) -> Self {
        let (door, resolver) = (Door::None, Resolver::default());
        Self { site, waker, door, resolver, early: None, clients: Vec::new(), log: log.clone() }
    }

    /// Takes over a listener that was opened before, where this process may not listen any more. It is used if it
    /// is at the address that is wanted first.
    pub(in crate::web) fn with_listener(self, early: Option<TcpListener>) -> Self {
        Self { early, ..self }
    }

    /// Serves until it is stopped. Connections end with it, whatever they are at.
    pub(in crate::web) fn run(mut self, stop: &StopToken) {
        while !stop.is_stopped() {
            self.follow_place(stop);
            let until = self.next_deadline();
            match self.wait(until) {
                // In this order, because the clients' events are told by their places.
                Ok(events) => self.serve(&events),
                Err(error) => {
                    warn!(self.log, "cannot wait for clients"; "reason" => %error);
                    let _ = stop.wait(PAUSE);
                }
            }
        }
    }

    /// Opens the door where it is wanted now, if it can be.
    fn follow_place(&mut self, stop: &StopToken) {
        let wanted = self.site.place();
        let retry = matches!(self.door, Door::Stuck(_, again) if again <= Instant::now());
        if wanted.as_ref() == self.door.place() && !retry {
            return;
        }
        let first = wanted.as_ref() != self.door.place();
        // Closed first: it may be the same port on another interface.
        self.door = Door::None;
        let Some(place) = wanted else {
            info!(self.log, "the status pages are not served any more");
            return;
        };
        match self.open(&place, stop) {
            Ok((listener, bound)) => {
                info!(self.log, "serving the status pages"; "address" => %bound);
                self.door = Door::Open(place, listener, Instant::now());
            }
            Err(why) => {
                if first {
                    warn!(self.log, "cannot serve the status pages, to be tried again each minute";
                        "address" => %place, "reason" => why);
                }
                self.door = Door::Stuck(place, Instant::now() + RETRY);
            }
        }
    }

    /// A listener that never waits, and where it is. A name may have several addresses: the first that can be had
    /// counts.
    fn open(&mut self, place: &Place, stop: &StopToken) -> Result<(TcpListener, SocketAddr), String> {
        let found = self.resolver.resolve(&place.host, place.port, RESOLVING, stop);
        let addresses = found.map_err(|why| why.to_string())?;
        let early =
            self.early.take().filter(|early| early.local_addr().is_ok_and(|at| addresses.contains(&at)));
        let opened = early.map_or_else(|| TcpListener::bind(&*addresses), Ok).and_then(ready);
        opened.map_err(|error| error.to_string())
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let door = match self.door {
            Door::None => None,
            Door::Open(_, _, from) => Some(from).filter(|from| *from > now),
            Door::Stuck(_, again) => Some(again),
        };
        let clients = self.clients.iter().map(|client| client.deadline);
        clients.chain(door).chain(self.site.tidy()).min()
    }

    /// Waits for something to do, and returns what has happened to the listener and then to each client.
    fn wait(&self, until: Option<Instant>) -> io::Result<Vec<PollFlags>> {
        let mut polled = vec![PollFd::new(&self.waker, PollFlags::IN)];
        let listener = match &self.door {
            Door::Open(_, listener, from) if *from <= Instant::now() => Some(listener.as_fd()),
            _ => None,
        };
        // Nothing is asked of the waker a second time: it only keeps the place.
        polled.push(match &listener {
            Some(listener) => PollFd::new(listener, PollFlags::IN),
            None => PollFd::new(&self.waker, PollFlags::empty()),
        });
        polled.extend(self.clients.iter().map(|client| PollFd::new(client.stream(), client.waits_for())));
        poll_until(&mut polled, until)?;
        let events: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        if !events[0].is_empty() {
            self.waker.drain();
        }
        Ok(events[1..].to_vec())
    }

    fn serve(&mut self, events: &[PollFlags]) {
        let Some((door, clients)) = events.split_first() else { return };
        let (site, mut index) = (&mut self.site, 0);
        self.clients.retain_mut(|client| {
            let event = clients.get(index).copied().unwrap_or(PollFlags::empty());
            index += 1;
            let goes_on = event.is_empty() || client.go_on(&mut |request| site.answer(request));
            // Also of a client that is never quiet.
            goes_on && (Instant::now() < client.deadline || client.time_is_up())
        });
        if !door.is_empty() {
            self.let_in();
        }
    }

    /// Lets those in who wait at the door.
    fn let_in(&mut self) {
        for _ in 0..MOST_CLIENTS {
            let Door::Open(_, listener, from) = &mut self.door else { return };
            match listener.accept().and_then(|(stream, _)| Client::new(stream)) {
                Ok(client) => {
                    if self.clients.len() == MOST_CLIENTS {
                        self.clients.remove(0);
                    }
                    self.clients.push(client);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
                    _ => {
                        warn!(self.log, "cannot accept a connection"; "reason" => %error);
                        *from = Instant::now() + PAUSE;
                        return;
                    }
                },
            }
        }
    }
}

/// A listener that never waits, and where it is: port 0 is any that is free.
fn ready(listener: TcpListener) -> io::Result<(TcpListener, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

#[cfg(test)]
mod tests {
    use nodepool_threads::StopSource;
    use slog::{Discard, o};

    use super::super::response::Status;
    use super::*;

    /// A site at a place, or nowhere.
    struct Nothing(Option<Place>);

    impl Site for Nothing {
        fn place(&self) -> Option<Place> {
            self.0.clone()
        }

        fn answer(&mut self, _request: &Request) -> Response {
            Response::refusal(Status::NotFound)
        }

        fn tidy(&mut self) -> Option<Instant> {
            None
        }
    }

    fn server(place: Option<Place>) -> Server<Nothing> {
        Server::new(Nothing(place), Waker::new().unwrap(), &Logger::root(Discard, o!()))
    }

    #[test]
    fn an_address_that_is_taken_is_tried_again_after_a_while_and_not_before() {
        let (taken, stop) = (TcpListener::bind("127.0.0.1:0").unwrap(), StopSource::new());
        let address = taken.local_addr().unwrap();
        let mut server = server(Some(address.into()));
        server.follow_place(&stop.token());
        let again = match &server.door {
            Door::Stuck(at, again) if *at == address.into() => *again,
            _ => panic!("two listeners at one address"),
        };
        assert!(again > Instant::now() && again <= Instant::now() + RETRY);
        assert_eq!(server.next_deadline(), Some(again));
        drop(taken);
        server.follow_place(&stop.token());
        assert!(matches!(server.door, Door::Stuck(_, same) if same == again));
        server.door = Door::Stuck(address.into(), Instant::now());
        server.follow_place(&stop.token());
        assert!(matches!(&server.door, Door::Open(at, ..) if *at == address.into()));
        // It is a deadline for nobody any more.
        assert_eq!(server.next_deadline(), None);
        server.site = Nothing(None);
        server.follow_place(&stop.token());
        assert!(TcpListener::bind(address).is_ok());
    }

    #[test]
    fn a_name_is_looked_up_and_one_that_has_no_address_is_tried_again() {
        let stop = StopSource::new();
        let place = |host: &str| Place { host: host.to_owned(), port: 0 };
        let mut local = server(Some(place("localhost")));
        local.follow_place(&stop.token());
        assert!(
            matches!(&local.door, Door::Open(_, listener, _) if listener.local_addr().unwrap().ip().is_loopback())
        );
        let mut nowhere = server(Some(place("no-such-host.invalid")));
        nowhere.follow_place(&stop.token());
        assert!(matches!(nowhere.door, Door::Stuck(..)));
        assert_eq!(Place { host: "::".to_owned(), port: 1 }.to_string(), "[::]:1");
    }
}
