//! The relay: what stands between the `zookeeper` crate's client and a real server.
//!
//! The crate speaks plain TCP to one address, never notices a silent server, and reconnects in ways that
//! lose watches. So it gets a loopback port of this process instead, and a [`Link`] behind it that carries
//! its frames to a server which has already been dialled, over TLS where configured. The link keeps the
//! session alive with pings of its own, and cuts the connection when the server has owed an answer for a
//! third of the session timeout. A link serves one client and one connection: after a cut it answers
//! whatever the client still asks with "connection loss" until the client closes, so that no call of the
//! crate can hang. The [session](super::session) then dials again and makes a new client and link.
//!
//! The port refuses every process but this one.

mod frames;
mod peer;
mod tls;
mod upstream;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nodepool_threads::{Thread, Waker, activity, spawn};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) use frames::Identity;
use frames::{CLOSE_SESSION, CONNECTION_LOSS, EVENT_XID, FrameBuffer, PING, PING_XID};
use upstream::Stream;
pub(super) use upstream::{Dialled, Upstream, dial};

/// Bytes that may wait in one direction before the relay stops reading the other end.
const BACKLOG: usize = 4 << 20;

/// A running link. Dropping it ends its thread; the client must be gone before.
#[derive(Debug)]
pub(super) struct Link {
    address: SocketAddr,
    control: Arc<Control>,
    _thread: Thread<()>,
}

/// What the link's owner and its thread share.
#[derive(Debug)]
struct Control {
    waker: Waker,
    /// The owner is gone: end.
    end: AtomicBool,
    /// Cut the connection to the server.
    cut: AtomicBool,
    /// The client's closing is meant: the server may end the session.
    close_session: AtomicBool,
    identity: Mutex<Identity>,
}

impl Link {
    /// Starts a link over `upstream`. When the connection ends, the reason is sent to `down`.
    pub(super) fn start(upstream: Upstream, down: Sender<String>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let control = Arc::new(Control {
            waker: Waker::new()?,
            end: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            close_session: AtomicBool::new(false),
            identity: Mutex::new(upstream.identity.clone()),
        });
        let shared = Arc::clone(&control);
        let server = upstream.server.clone();
        let thread = spawn("zk-relay", "ZooKeeper relay", move || {
            let _doing = activity(format!("connected to {server}"));
            let mut relay = Relay { listener, control: shared };
            let why = relay.carry(upstream.stream).unwrap_or_else(|error| error.to_string());
            // Fails only when the session's thread is gone, and with it the interest.
            let _ = down.send(format!("{server}: {why}"));
            relay.serve_dead_client();
        })?;
        Ok(Self { address, control, _thread: thread })
    }

    /// The address that the client must connect to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The session with the newest transaction that its client has seen.
    pub(super) fn identity(&self) -> Identity {
        self.control.identity.lock().clone()
    }

    /// From now on the client's closing ends the session at the server too.
    pub(super) fn let_session_close(&self) {
        self.control.close_session.store(true, Ordering::SeqCst);
    }

    /// Cuts the connection to the server, which frees every call that hangs in the client.
    pub(super) fn cut(&self) {
        self.control.cut.store(true, Ordering::SeqCst);
        self.control.waker.wake();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.control.end.store(true, Ordering::SeqCst);
        self.control.waker.wake();
    }
}

struct Relay {
    listener: TcpListener,
    control: Arc<Control>,
}

/// The state of a link while both ends are connected.
struct Carrying<'a> {
    control: &'a Control,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    from_server: FrameBuffer,
    from_client: FrameBuffer,
    /// The client's requests that the server has not answered yet, by xid.
    owed: VecDeque<i32>,
    ping_owed: bool,
    /// When the server was last sent something.
    asked: Instant,
    /// Since when the server owes an answer: since the question, or since it last said anything.
    waiting_since: Instant,
}

impl Relay {
    /// Carries frames until one end is gone, and says why it ended.
    fn carry(&mut self, mut server: Stream) -> io::Result<String> {
        let identity = self.control.identity.lock().clone();
        let Some((mut client, from_client)) = self.accept(&identity, Some(&server))? else {
            return Ok("given up before the client had connected".to_owned());
        };
        let third = identity.timeout / 3;
        let now = Instant::now();
        let mut carrying = Carrying {
            control: &self.control,
            to_server: Vec::new(),
            to_client: Vec::new(),
            from_server: FrameBuffer::default(),
            from_client,
            owed: VecDeque::new(),
            ping_owed: false,
            asked: now,
            waiting_since: now,
        };
        loop {
            // Also what arrived together with the handshake.
            carrying.take_requests()?;
            let deadline = carrying.keep_alive(third)?;
            flush(&mut carrying.to_client, &mut client)?;
            flush(&mut carrying.to_server, &mut server)?;
            if self.control.end.load(Ordering::SeqCst) {
                return Ok("given up".to_owned());
            }
            if self.control.cut.load(Ordering::SeqCst) {
                return Ok("cut".to_owned());
            }
            let client_ready = wanted(carrying.to_server.len() < BACKLOG, !carrying.to_client.is_empty());
            let server_wants = !carrying.to_server.is_empty() || server.wants_write();
            let server_ready = wanted(carrying.to_client.len() < BACKLOG, server_wants);
            let mut descriptors = [
                PollFd::new(&self.control.waker, PollFlags::IN),
                PollFd::new(&client, client_ready),
                PollFd::new(&server, server_ready),
            ];
            wait(&mut descriptors, deadline)?;
            let [woken, client_is, server_is] = descriptors.map(|descriptor| descriptor.revents());
            if !woken.is_empty() {
                self.control.waker.drain();
            }
            if !server_is.is_empty() && !carrying.read_server(&mut server)? {
                return Ok("the server closed the connection".to_owned());
            }
            if !client_is.is_empty() && !read_available(&mut client, &mut carrying.from_client)? {
                return Ok("the client closed the connection".to_owned());
            }
        }
    }

    /// Takes the client's connection and answers its handshake; returns with it what the client has sent
    /// beyond the handshake. `None` when the link was given up first.
    fn accept(
        &self,
        identity: &Identity,
        server: Option<&Stream>,
    ) -> io::Result<Option<(TcpStream, FrameBuffer)>> {
        loop {
            let mut descriptors = vec![
                PollFd::new(&self.control.waker, PollFlags::IN),
                PollFd::new(&self.listener, PollFlags::IN),
            ];
            if let Some(server) = server {
                // A server that closes already need not wait for the client.
                descriptors.push(PollFd::new(server, PollFlags::HUP));
            }
            wait(&mut descriptors, Instant::now() + identity.timeout)?;
            self.control.waker.drain();
            if self.control.end.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let (mut socket, address) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && server.is_none() => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::other("the connection ended before it was used"));
                }
                Err(error) => return Err(error),
            };
            if !peer::is_this_process(self.address()?, address) {
                continue;
            }
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            // The client sends its request at once, and its content does not matter: the server has
            // confirmed the session already.
            let mut handshake = FrameBuffer::default();
            let mut chunk = [0; 256];
            while handshake.next()?.is_none() {
                match socket.read(&mut chunk)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => handshake.push(&chunk[..length]),
                }
            }
            socket.write_all(&frames::connect_response(identity))?;
            socket.set_nonblocking(true)?;
            return Ok(Some((socket, handshake)));
        }
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// After a cut: answers every request of the client with "connection loss", so that nothing hangs, and
    /// confirms its closing, until it has closed or the link is dropped.
    fn serve_dead_client(&mut self) {
        let _doing = activity("waiting for the client to close");
        let identity = self.control.identity.lock().clone();
        while !self.control.end.load(Ordering::SeqCst) {
            match self.accept(&identity, None) {
                Ok(Some((mut client, requests))) => {
                    if self.refuse_requests(&mut client, requests, identity.last_zxid).is_ok() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    // No descriptor is left, say. Trying again at once would only burn the processor.
                    let woken = &mut [PollFd::new(&self.control.waker, PollFlags::IN)];
                    let _ = wait(woken, Instant::now() + Duration::from_millis(100));
                }
            }
        }
    }

    /// Ends with Ok once the client has closed or the link is dropped.
    fn refuse_requests(
        &self,
        client: &mut TcpStream,
        mut requests: FrameBuffer,
        zxid: i64,
    ) -> io::Result<()> {
        let mut answers = Vec::new();
        let mut closed = false;
        loop {
            while let Some(frame) = requests.next()? {
                let head = frames::request_head(frame)?;
                closed |= head.operation == CLOSE_SESSION;
                let fine = matches!(head.operation, CLOSE_SESSION | PING);
                answers.extend(frames::reply(head.xid, zxid, if fine { 0 } else { CONNECTION_LOSS }));
            }
            flush(&mut answers, client)?;
            if self.control.end.load(Ordering::SeqCst) || (closed && answers.is_empty()) {
                return Ok(());
            }
            let mut descriptors = [
                PollFd::new(&self.control.waker, PollFlags::IN),
                PollFd::new(client, wanted(true, !answers.is_empty())),
            ];
            wait(&mut descriptors, Instant::now() + Duration::from_secs(60))?;
            self.control.waker.drain();
            if !read_available(client, &mut requests)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Carrying<'_> {
    /// Sends a ping when one is due; an error when the server has been silent for too long. Returns when
    /// to look again.
    fn keep_alive(&mut self, third: Duration) -> io::Result<Instant> {
        let now = Instant::now();
        let owes = self.ping_owed || !self.owed.is_empty();
        if owes && now.duration_since(self.waiting_since) >= third {
            let silence = now.duration_since(self.waiting_since).as_secs_f64();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the server has not answered for {silence:.1} s"),
            ));
        }
        if !self.ping_owed && now.duration_since(self.asked) >= third {
            self.to_server.extend(frames::ping());
            self.ping_owed = true;
            self.note_question(now, owes);
        }
        let next_ping = if self.ping_owed { None } else { Some(self.asked + third) };
        let patience = (self.ping_owed || !self.owed.is_empty()).then(|| self.waiting_since + third);
        Ok([next_ping, patience].into_iter().flatten().min().unwrap_or(now + third))
    }

    fn note_question(&mut self, now: Instant, owed_before: bool) {
        self.asked = now;
        if !owed_before {
            self.waiting_since = now;
        }
    }

    /// Takes the client's requests that have arrived.
    fn take_requests(&mut self) -> io::Result<()> {
        let mut asked = false;
        let owed_before = self.ping_owed || !self.owed.is_empty();
        while let Some(frame) = self.from_client.next()? {
            let head = frames::request_head(frame)?;
            let zxid = self.control.identity.lock().last_zxid;
            match head.operation {
                // The relay's own pings keep the session alive.
                PING => self.to_client.extend(frames::reply(PING_XID, zxid, 0)),
                CLOSE_SESSION if !self.control.close_session.load(Ordering::SeqCst) => {
                    self.to_client.extend(frames::reply(head.xid, zxid, 0));
                }
                _ => {
                    self.to_server.extend_from_slice(frame);
                    self.owed.push_back(head.xid);
                    asked = true;
                }
            }
        }
        self.from_client.shrink();
        if asked {
            self.note_question(Instant::now(), owed_before);
        }
        Ok(())
    }

    /// Takes what the server says. False when it has closed the connection.
    fn read_server(&mut self, server: &mut Stream) -> io::Result<bool> {
        let open = read_available(server, &mut self.from_server)?;
        while let Some(frame) = self.from_server.next()? {
            let head = frames::reply_head(frame)?;
            if head.zxid > 0 {
                self.control.identity.lock().last_zxid = head.zxid;
            }
            match head.xid {
                PING_XID => self.ping_owed = false,
                EVENT_XID => self.to_client.extend_from_slice(frame),
                // The client trusts the order of answers blindly, so a wrong one must never reach it.
                xid if self.owed.front() == Some(&xid) => {
                    self.owed.pop_front();
                    self.to_client.extend_from_slice(frame);
                }
                xid => {
                    let what = format!("the server answered request {xid}, which nobody asked");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
            self.waiting_since = Instant::now();
        }
        self.from_server.shrink();
        Ok(open)
    }
}

fn wanted(read: bool, write: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, read);
    flags.set(PollFlags::OUT, write);
    flags
}

fn wait(descriptors: &mut [PollFd<'_>], until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up: a wait that ends a little early would only be repeated.
    let left = Timespec::try_from(left + Duration::from_millis(1)).map_err(io::Error::other)?;
    match poll(descriptors, Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads until nothing more is there for now. False at the end of the stream.
fn read_available(from: &mut impl Read, into: &mut FrameBuffer) -> io::Result<bool> {
    let mut chunk = [0; 16 << 10];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(length) => into.push(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes as much as can be written now.
fn flush(bytes: &mut Vec<u8>, to: &mut impl Write) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.drain(..written);
    if bytes.is_empty() {
        bytes.shrink_to(64 << 10);
        match to.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
