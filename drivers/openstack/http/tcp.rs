//! TCP below ureq: connections that end when their request must. The only place that knows sockets, so that
//! it can be replaced by ureq's own when that can be interrupted.
//!
//! Sockets do not block. Whoever waits for one looks at the stop token again and again, so that a stop ends a
//! call within a moment, even when the peer hangs.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nodepool_threads::{PatientSocket, Resolver, Unresolved, poll_for_a_moment};
use rustix::event::PollFlags;
use rustix::net::sockopt;
use ureq::http::Uri;
use ureq::unversioned::resolver::{self, ResolvedSocketAddrs};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, config::Config};

use super::limits::{Ended, Limits, current};

/// How long a server that has said something may refuse to hear more before that counts as its answer.
const ANSWERED_EARLY: Duration = Duration::from_secs(2);

/// Makes connections.
#[derive(Debug, Default)]
pub(super) struct TcpConnector(());

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(through_proxy) = chained {
            return Ok(Some(Either::A(through_proxy)));
        }
        let socket = reach(&details.addrs, &current()?)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(TcpTransport { socket, buffers })))
    }
}

/// Connects to one of the addresses. They share the time, so that one that is silent leaves some for the next.
fn reach(addresses: &[SocketAddr], limits: &Limits) -> io::Result<TcpStream> {
    let limit = Instant::now() + limits.connect;
    let mut failures = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        limits.stop.check().map_err(Ended::from)?;
        let left = limit.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match connect_to(*address, share, limits) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Ended>()) => return Err(error),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(Ended::Unreached(format!("cannot connect: {}", failures.join("; "))).into())
}

fn connect_to(address: SocketAddr, patience: Duration, limits: &Limits) -> io::Result<TcpStream> {
    let connected = PatientSocket::connect(address, patience, &limits.stop);
    // A stop, or the end of the request's own time, is none of this address's failures.
    limits.stop.check().map_err(Ended::from)?;
    let socket = connected?.into_socket();
    sockopt::set_socket_keepalive(&socket, true)?;
    Ok(socket)
}

/// A connection.
pub(super) struct TcpTransport {
    socket: TcpStream,
    buffers: LazyBuffers,
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection to {:?}", self.socket.peer_addr().ok())
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let limits = current()?;
        let mut rest = &self.buffers.output()[..amount];
        let mut moved = Instant::now();
        let mut answered = None;
        while !rest.is_empty() {
            limits.stop.check().map_err(|why| io::Error::from(Ended::from(why)))?;
            match (&self.socket).write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => {
                    rest = &rest[written..];
                    (moved, answered) = (Instant::now(), None);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let limit = moved + limits.idle;
            if poll_for_a_moment(&self.socket, PollFlags::OUT, Some(limit))? {
                continue;
            }
            if Instant::now() >= limit {
                return Err(io::Error::from(Ended::Idle(limits.idle)).into());
            }
            let has_input = self.socket.peek(&mut [0]).is_ok();
            let since = *answered.get_or_insert_with(Instant::now);
            if !has_input {
                answered = None;
            } else if since.elapsed() >= ANSWERED_EARLY {
                let why = "the server has answered before it had heard all";
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, why).into());
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let limits = current()?;
        let limit = Instant::now() + limits.idle;
        loop {
            limits.stop.check().map_err(|why| io::Error::from(Ended::from(why)))?;
            match (&self.socket).read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if !poll_for_a_moment(&self.socket, PollFlags::IN, Some(limit))? && Instant::now() >= limit {
                return Err(io::Error::from(Ended::Idle(limits.idle)).into());
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Data that nobody has asked for is as bad as an end.
        matches!(self.socket.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Names to addresses under the limits of the request.
#[derive(Debug, Default)]
pub(super) struct Names(Resolver);

impl resolver::Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let limits = current()?;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let found = self.0.resolve(host, port, limits.connect, &limits.stop).map_err(|why| match why {
            Unresolved::Interrupted(why) => Ended::Interrupted(why),
            Unresolved::Failed(why) => Ended::Unreached(why),
        });
        let mut addresses = self.empty();
        for address in found.map_err(io::Error::from)?.into_iter().take(MOST_ADDRESSES) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

/// What ureq has room for.
const MOST_ADDRESSES: usize = 16;
