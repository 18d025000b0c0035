//! A byte stream to a server, plain or TLS, that can be used blocking for the handshake and polled after it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ClientConnection;

/// A byte stream to a server.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

impl Stream {
    pub(super) fn socket(&self) -> &TcpStream {
        let (Self::Plain(socket) | Self::Tls(_, socket)) = self;
        socket
    }

    /// Whether TLS has bytes to send that the caller has not asked for, or could not be sent yet.
    pub(super) fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(tls, _) if tls.wants_write())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Read for Stream {
    /// Unlike rustls' own stream, reads also while what is to be sent cannot be sent.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (tls, socket) = match self {
            Self::Plain(socket) => return socket.read(buffer),
            Self::Tls(tls, socket) => (tls, socket),
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            // At the end of the stream, the reader will say so the next time.
            tls.read_tls(socket)?;
            if let Err(error) = tls.process_new_packets() {
                // The alert that says why; if it cannot be sent, the server just sees the end.
                let _ = tls.write_tls(socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls, socket) => {
                // Everything taken before must be gone first, or TLS would store without limit.
                send(tls, socket)?;
                let taken = tls.writer().write(bytes)?;
                match send(tls, socket) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    _ => Ok(taken),
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls, socket) => send(tls, socket),
        }
    }
}

/// Sends what TLS has ready.
fn send(tls: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(socket)? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}
