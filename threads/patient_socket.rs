//! A connection that is waited for up to a limit, and no longer than until the program stops.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::poll::poll_for_a_moment;
use crate::stop::{Interrupted, StopToken};

/// A connected socket that does not block by itself. A read or write fails with [`io::ErrorKind::TimedOut`] when
/// the limit has passed, and with another kind when the program stops.
#[derive(Debug)]
pub struct PatientSocket {
    socket: TcpStream,
    until: StopToken,
}

impl PatientSocket {
    /// Connects within `patience`, and no longer than `stop` allows; all that follows has as long again.
    pub fn connect(address: SocketAddr, patience: Duration, stop: &StopToken) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            // Also after an interruption the connection is being made.
            Err(Errno::INPROGRESS | Errno::INTR) => {
                wait(&socket, PollFlags::OUT, &stop.deadline_in(patience))?;
                sockopt::socket_error(&socket)??;
            }
            done => done?,
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        Ok(Self { socket, until: stop.deadline_in(patience) })
    }

    /// From now on, everything together has `limit`, and no longer than `stop` allows.
    pub fn set_limit(&mut self, limit: Duration, stop: &StopToken) {
        self.until = stop.deadline_in(limit);
    }

    /// The socket, which does not block.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Makes a call that does not block again and again, each time when the socket is ready for it.
    fn repeat<T>(
        &mut self,
        interest: PollFlags,
        mut call: impl FnMut(&TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&self.socket, interest, &self.until)?;
                }
                done => return done,
            }
        }
    }
}

impl Read for PatientSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.repeat(PollFlags::IN, |mut socket| socket.read(buffer))
    }
}

impl Write for PatientSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.repeat(PollFlags::OUT, |mut socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait(socket: &impl AsFd, interest: PollFlags, until: &StopToken) -> io::Result<()> {
    loop {
        match until.check() {
            Ok(()) => {}
            Err(Interrupted::Stopped) => return Err(io::Error::other("stopped")),
            Err(Interrupted::DeadlinePassed) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
        }
        if poll_for_a_moment(socket, interest, until.deadline())? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::stop::StopSource;

    fn silent_server() -> (TcpListener, SocketAddr) {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = server.local_addr().unwrap();
        (server, address)
    }

    #[test]
    fn a_read_ends_at_the_limit() {
        let (_server, address) = silent_server();
        let source = StopSource::new();
        let mut socket = PatientSocket::connect(address, Duration::from_secs(60), &source.token()).unwrap();
        socket.set_limit(Duration::from_millis(20), &source.token());
        assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_stop_ends_a_read() {
        let (_server, address) = silent_server();
        let source = StopSource::new();
        let mut socket = PatientSocket::connect(address, Duration::from_secs(600), &source.token()).unwrap();
        let reader = std::thread::spawn(move || socket.read(&mut [0]));
        source.stop();
        assert_eq!(reader.join().unwrap().unwrap_err().to_string(), "stopped");
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        let (server, address) = silent_server();
        drop(server);
        let source = StopSource::new();
        let refused = PatientSocket::connect(address, Duration::from_secs(60), &source.token());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
