//! The connection to a real server: found among several, over TCP or TLS, with the session's handshake
//! already done, so that nothing slow or uncertain is left for the client that will use it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use nodepool_threads::{StopToken, activity};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::frames::{FrameBuffer, Identity, connect_request, read_connect_response};
use super::tls;
use crate::config::{Server, Tls};

/// How long one server may take for each of: resolving its name, connecting, TLS and handshake.
const STEP_LIMIT: Duration = Duration::from_millis(1500);

/// A byte stream to a server.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Whether TLS has bytes to send that the caller has not asked for, or could not be sent yet.
    pub(super) fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.conn.wants_write())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A server that has accepted the session.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// The server's address, for the log.
    pub(crate) server: String,
    /// The session, as the server has just confirmed it.
    pub(crate) identity: Identity,
    pub(super) stream: Stream,
}

/// What dialling came to.
#[derive(Debug)]
pub(crate) enum Dialled {
    /// A server has accepted the session.
    Connected(Upstream),
    /// A server says that the session has expired.
    Expired,
}

/// Tries the servers in the order given until one answers. The error names what each of them said.
pub(crate) fn dial(
    servers: &[Server],
    tls: Option<&Tls>,
    identity: Option<&Identity>,
    timeout: Duration,
    stop: &StopToken,
) -> Result<Dialled, String> {
    let mut failures = Vec::new();
    for server in servers {
        if stop.is_stopped() {
            return Err("stopped".to_owned());
        }
        let name = name_of(server);
        let _doing = activity(format!("connecting to {name}"));
        match try_server(server, tls, identity, timeout, stop) {
            Ok(dialled) => return Ok(dialled),
            Err(why) => failures.push(format!("{name}: {why}")),
        }
    }
    Err(failures.join("; "))
}

/// A server as it stands in messages.
fn name_of(server: &Server) -> String {
    let Server { host, port } = server;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn try_server(
    server: &Server,
    tls: Option<&Tls>,
    identity: Option<&Identity>,
    timeout: Duration,
    stop: &StopToken,
) -> Result<Dialled, String> {
    let mut last = "its name has no address".to_owned();
    for address in resolve(server, stop)? {
        match TcpStream::connect_timeout(&address, STEP_LIMIT) {
            Ok(socket) => return handshake(socket, server, tls, identity, timeout),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// The addresses of a server. The system's resolver knows no deadline, so it runs on a thread of its own,
/// which is left alone when it takes too long: it holds nothing and ends when the resolver gives up.
fn resolve(server: &Server, stop: &StopToken) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = server.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, server.port)]);
    }
    let (tell, answer) = bounded(1);
    let wanted = (server.host.clone(), server.port);
    let resolver = nodepool_threads::spawn("resolver", "name resolver", move || {
        let found = wanted.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody may be waiting any more.
        let _ = tell.send(found);
    });
    let resolver = resolver.map_err(|error| format!("no thread to resolve its name: {error}"))?;
    match stop.recv_timeout(&answer, STEP_LIMIT) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(format!("its name cannot be resolved: {error}")),
        Err(_) => {
            std::mem::forget(resolver);
            Err("its name could not be resolved in time".to_owned())
        }
    }
}

fn handshake(
    socket: TcpStream,
    server: &Server,
    tls: Option<&Tls>,
    identity: Option<&Identity>,
    timeout: Duration,
) -> Result<Dialled, String> {
    let limit = Instant::now() + STEP_LIMIT;
    let prepare = || -> io::Result<()> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STEP_LIMIT))?;
        socket.set_write_timeout(Some(STEP_LIMIT))
    };
    prepare().map_err(|error| error.to_string())?;
    let mut stream = match tls {
        None => Stream::Plain(socket),
        Some(files) => Stream::Tls(Box::new(start_tls(socket, server, files)?)),
    };
    let mut exchange = || -> io::Result<Vec<u8>> {
        stream.write_all(&connect_request(identity, timeout))?;
        stream.flush()?;
        read_frame(&mut stream, limit)
    };
    let answer = exchange().map_err(|error| match (tls, error.kind()) {
        (_, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => "no answer in time".to_owned(),
        (Some(files), _) => tls::explain(&error, files),
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "the connection was closed during the handshake; is this a TLS port, or the server without a quorum?"
                .to_owned()
        }
        (None, _) => error.to_string(),
    })?;
    match read_connect_response(&answer).map_err(|error| error.to_string())? {
        None => Ok(Dialled::Expired),
        Some(confirmed) => {
            stream.socket().set_nonblocking(true).map_err(|error| error.to_string())?;
            let last_zxid = identity.map_or(0, |known| known.last_zxid);
            let identity = Identity { last_zxid, ..confirmed };
            Ok(Dialled::Connected(Upstream { server: name_of(server), identity, stream }))
        }
    }
}

fn start_tls(
    mut socket: TcpStream,
    server: &Server,
    files: &Tls,
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let config = tls::client_config(files).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| format!("'{}' is no host name that a certificate could carry", server.host))?;
    let mut connection = ClientConnection::new(config, name).map_err(|error| format!("TLS: {error}"))?;
    let limit = Instant::now() + STEP_LIMIT;
    while connection.is_handshaking() {
        if Instant::now() > limit {
            return Err("TLS: the handshake took too long".to_owned());
        }
        connection.complete_io(&mut socket).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "TLS: no answer in time".to_owned(),
            io::ErrorKind::UnexpectedEof => {
                "the server closed the connection during the TLS handshake; is this its plain port?".to_owned()
            }
            _ => tls::explain(&error, files),
        })?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// Reads one frame from a blocking stream. Nothing follows the handshake's answer before the client asks.
fn read_frame(stream: &mut Stream, limit: Instant) -> io::Result<Vec<u8>> {
    let (mut buffer, mut chunk) = (FrameBuffer::default(), [0; 256]);
    loop {
        if Instant::now() > limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => buffer.push(&chunk[..length]),
        }
        if let Some(frame) = buffer.next()? {
            return Ok(frame.to_vec());
        }
    }
}
