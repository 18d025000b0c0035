//! The connection to a real server: found among several, over TCP or TLS, with the session's handshake
//! already done, so that nothing slow or uncertain is left for the client that will use it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::{PatientSocket, Resolver, StopToken, activity, activity_within};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::frames::{FrameBuffer, Identity, connect_request, read_connect_response};
use super::stream::Stream;
use super::tls;
use crate::config::{Server, Tls, ZooKeeperConfig};

/// How long one server may take at first for each of: resolving its name, connecting, TLS with handshake. No
/// longer than a third of the session timeout, of which something must be left for the next attempt.
const STEP_LIMIT: Duration = Duration::from_millis(1500);

/// A server that has accepted the session.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// The server's name, for the log.
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

/// Finds servers that answer.
#[derive(Debug)]
pub(crate) struct Dialler {
    candidates: Vec<Candidate>,
    tls: Option<Tls>,
    timeout: Duration,
    resolver: Resolver,
    /// Rounds in a row in which no server has said anything in time.
    silent_rounds: u32,
}

/// A server that may be dialled.
#[derive(Debug)]
struct Candidate {
    server: Server,
    /// Since when it is in doubt: it has not answered, or its connection has ended. The others come first, for
    /// a server that hangs costs seconds each time it is tried.
    doubtful: Option<Instant>,
}

/// One attempt.
struct Attempt<'a> {
    tls: Option<(&'a Tls, Arc<ClientConfig>)>,
    identity: Option<&'a Identity>,
    /// The session timeout to ask for.
    timeout: Duration,
    /// How long each step may take.
    patience: Duration,
}

impl Dialler {
    pub(crate) fn new(config: &ZooKeeperConfig) -> Self {
        let candidates = config.servers.iter().cloned();
        let candidates = candidates.map(|server| Candidate { server, doubtful: None }).collect();
        Self {
            candidates,
            tls: config.tls.clone(),
            timeout: config.timeout,
            resolver: Resolver::default(),
            silent_rounds: 0,
        }
    }

    /// Notes that the connection to a server has ended: it may be in trouble.
    pub(crate) fn doubt(&mut self, server: &str) {
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.server.to_string() == server)
        {
            candidate.doubtful = Some(Instant::now());
        }
    }

    /// Tries the servers until one answers: in random order, those in doubt last. The error names what each of
    /// them said.
    ///
    /// A silent server is left quickly for the next one. After rounds in which all were silent there is more
    /// patience: they may all be slow, because all their clients come back at once.
    pub(crate) fn dial(&mut self, identity: Option<&Identity>, stop: &StopToken) -> Result<Dialled, String> {
        let third = identity.map_or(self.timeout, |known| known.timeout) / 3;
        let patience = STEP_LIMIT.min(third).saturating_mul(self.silent_rounds.saturating_add(1));
        let patience = patience.min(STEP_LIMIT.max(third));
        let tls = self.tls.as_ref().map(|files| Ok::<_, io::Error>((files, tls::client_config(files)?)));
        let tls = tls.transpose().map_err(|error| error.to_string())?;
        let attempt = Attempt { tls, identity, timeout: self.timeout, patience };
        let mut failures = Vec::new();
        fastrand::shuffle(&mut self.candidates);
        self.candidates.sort_by_key(|candidate| candidate.doubtful);
        for Candidate { server, doubtful } in &mut self.candidates {
            let begin = Instant::now();
            let answered = attempt.try_server(server, &self.resolver, stop);
            *doubtful = (begin.elapsed() >= patience).then(Instant::now);
            match answered {
                Ok(dialled) => {
                    self.silent_rounds = 0;
                    return Ok(dialled);
                }
                Err(why) => failures.extend(why),
            }
        }
        let all_silent = self.candidates.iter().all(|candidate| candidate.doubtful.is_some());
        self.silent_rounds = if all_silent { self.silent_rounds.saturating_add(1) } else { 0 };
        // The same trouble must read the same, whatever the order was.
        failures.sort();
        Err(failures.join("; "))
    }
}

impl Attempt<'_> {
    /// Tries all addresses of a server. The error says what came of each.
    fn try_server(
        &self,
        server: &Server,
        resolver: &Resolver,
        stop: &StopToken,
    ) -> Result<Dialled, Vec<String>> {
        let name = server.to_string();
        let _doing = activity(format!("connecting to {name}"));
        let addresses = resolver.resolve(&server.host, server.port, self.patience, stop);
        let mut failures = Vec::new();
        for address in addresses.map_err(|why| vec![format!("{name}: {why}")])? {
            if stop.is_stopped() {
                return Err(vec!["stopped".to_owned()]);
            }
            match self.try_address(server, address, stop) {
                Ok(dialled) => return Ok(dialled),
                Err(why) if name.parse() == Ok(address) => failures.push(format!("{name}: {why}")),
                Err(why) => failures.push(format!("{name} ({}): {why}", address.ip())),
            }
        }
        Err(failures)
    }

    fn try_address(&self, server: &Server, address: SocketAddr, stop: &StopToken) -> Result<Dialled, String> {
        // Two steps, for connecting and for the rest.
        let _doing = activity_within(2 * self.patience, format!("shaking hands with {address}"));
        let connected = PatientSocket::connect(address, self.patience, stop);
        let mut socket = connected.map_err(|error| error.to_string())?;
        let request = connect_request(self.identity, self.timeout);
        let (answer, tls) = match &self.tls {
            None => (exchange(&mut socket, &request), None),
            Some((files, config)) => {
                let mut tls = start_tls(&mut socket, server, (files, config))?;
                (exchange(&mut rustls::Stream::new(&mut tls, &mut socket), &request), Some(tls))
            }
        };
        let answer = answer.map_err(|error| self.explain(&error))?;
        match read_connect_response(&answer).map_err(|error| error.to_string())? {
            None if self.identity.is_some() => Ok(Dialled::Expired),
            // There was none that could have expired. As any failure it is left for the next server, and for a pause.
            None => Err("the server begins no session".to_owned()),
            Some(confirmed) => {
                let last_zxid = self.identity.map_or(0, |known| known.last_zxid);
                let identity = Identity { last_zxid, ..confirmed };
                let socket = socket.into_socket();
                let stream = match tls {
                    None => Stream::Plain(socket),
                    Some(tls) => Stream::Tls(Box::new(tls), socket),
                };
                Ok(Dialled::Connected(Upstream { server: server.to_string(), identity, stream }))
            }
        }
    }

    /// What a failed handshake means to an operator.
    fn explain(&self, error: &io::Error) -> String {
        let closed = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        match (self.tls.as_ref().map(|(files, _)| files), error.kind()) {
            (_, io::ErrorKind::TimedOut) => "no answer in time".to_owned(),
            (None, _) if closed => {
                "the server closed the connection; is it starting, without a quorum, or is this its TLS port?"
                    .to_owned()
            }
            (Some(files), _) if closed => format!(
                "the server closed the connection after the TLS handshake; it may not accept the client \
                 certificate {} (zookeeper-tls: cert), be starting, or be without a quorum",
                files.cert.display()
            ),
            (Some(files), _) => tls::explain(error, files),
            (None, _) => error.to_string(),
        }
    }
}

fn start_tls(
    socket: &mut PatientSocket,
    server: &Server,
    (files, config): (&Tls, &Arc<ClientConfig>),
) -> Result<ClientConnection, String> {
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| format!("'{}' is no host name that a certificate could carry", server.host))?;
    let mut connection =
        ClientConnection::new(Arc::clone(config), name).map_err(|error| format!("TLS: {error}"))?;
    while connection.is_handshaking() {
        connection.complete_io(socket).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => "TLS: no answer in time".to_owned(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                "the server closed the connection during the TLS handshake; is this its plain port?"
                    .to_owned()
            }
            _ => tls::explain(&error, files),
        })?;
    }
    Ok(connection)
}

/// Asks for the session and reads the answer, which nothing follows before the client asks.
fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let (mut buffer, mut chunk) = (FrameBuffer::default(), [0; 256]);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => buffer.push(&chunk[..length]),
        }
        if let Some(frame) = buffer.next()? {
            return Ok(frame.to_vec());
        }
    }
}
