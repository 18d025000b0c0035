//! A socket for the time of the handshake: it waits for the server, up to a limit, and no longer than until
//! the program stops.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nodepool_threads::StopToken;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// How long a stop may go unnoticed.
const SLICE: Duration = Duration::from_millis(100);

/// A connected socket that does not block by itself.
pub(super) struct Waiting<'a> {
    socket: TcpStream,
    limit: Instant,
    stop: &'a StopToken,
}

impl<'a> Waiting<'a> {
    /// Connects within `patience`; all that follows has as long again.
    pub(super) fn connect(address: SocketAddr, patience: Duration, stop: &'a StopToken) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            // Also after an interruption the connection is being made.
            Err(Errno::INPROGRESS | Errno::INTR) => {
                wait(&socket, PollFlags::OUT, Instant::now() + patience, stop)?;
                sockopt::socket_error(&socket)??;
            }
            done => done?,
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        Ok(Self { socket, limit: Instant::now() + patience, stop })
    }

    /// The socket, which does not block.
    pub(super) fn into_socket(self) -> TcpStream {
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
                    wait(&self.socket, interest, self.limit, self.stop)?;
                }
                done => return done,
            }
        }
    }
}

impl Read for Waiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.repeat(PollFlags::IN, |mut socket| socket.read(buffer))
    }
}

impl Write for Waiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.repeat(PollFlags::OUT, |mut socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait(socket: &impl AsFd, interest: PollFlags, limit: Instant, stop: &StopToken) -> io::Result<()> {
    loop {
        if stop.is_stopped() {
            return Err(io::Error::other("stopped"));
        }
        let now = Instant::now();
        if now >= limit {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        let mut waited = [PollFd::new(socket, interest)];
        super::wait(&mut waited, limit.min(now + SLICE))?;
        if !waited[0].revents().is_empty() {
            return Ok(());
        }
    }
}
