//! Carries frames between a client and its server, and goes on to answer the client without one.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nodepool_threads::{activity, poll_until};
use rustix::event::{PollFd, PollFlags};

use super::frames::{
    self, CLOSE_SESSION, CONNECTION_LOSS, CREATE, EVENT_XID, FrameBuffer, PING, PING_XID, RequestHead,
};
use super::stream::Stream;
use super::{Control, Upstream};

/// Bytes that may wait in one direction before the relay stops reading the other end.
const BACKLOG: usize = 4 << 20;
/// How long to wait when there is nothing to wait for but the client.
const IDLE: Duration = Duration::from_secs(60);

/// A request of the client that was not answered yet.
struct Owed {
    xid: i32,
    /// Answered by the relay, when its turn comes: the client trusts the order of answers blindly.
    here: bool,
}

/// Both ends of a link at work.
pub(super) struct Carrier<'a> {
    control: &'a Control,
    server_name: String,
    /// A third of the session timeout: the longest silence that is kept, and that is borne.
    third: Duration,
    client: TcpStream,
    /// Gone once the connection to the server has ended.
    server: Option<Stream>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    from_server: FrameBuffer,
    from_client: FrameBuffer,
    owed: VecDeque<Owed>,
    ping_owed: bool,
    /// When the server was last sent something.
    asked: Instant,
    /// Since when the server owes an answer: since the question, or since it last said anything.
    waiting_since: Instant,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(
        control: &'a Control,
        client: TcpStream,
        requests: FrameBuffer,
        upstream: Upstream,
    ) -> Self {
        let now = Instant::now();
        Self {
            control,
            server_name: upstream.server,
            third: upstream.identity.timeout / 3,
            client,
            server: Some(upstream.stream),
            to_server: Vec::new(),
            to_client: Vec::new(),
            from_server: FrameBuffer::default(),
            from_client: requests,
            owed: VecDeque::new(),
            ping_owed: false,
            asked: now,
            waiting_since: now,
        }
    }

    /// Serves the client until it closes or the link is dropped. When the server's end is over before, the
    /// reason is sent to `down`.
    pub(super) fn run(mut self, down: &Sender<String>) -> io::Result<()> {
        let mut server_ready = false;
        let mut _doing = None;
        loop {
            self.take_requests()?;
            let deadline = match self.serve_server(server_ready) {
                Ok(deadline) => deadline,
                Err(error) => {
                    self.lose_server();
                    _doing = Some(activity("waiting for the client to close"));
                    // Fails only when the supervisor is gone, and with it the interest.
                    let _ = down.send(format!("{}: {error}", self.server_name));
                    Instant::now() + IDLE
                }
            };
            flush(&mut self.to_client, &mut self.client)?;
            if self.control.end.load(Ordering::SeqCst) {
                return Ok(());
            }
            let client_ready;
            (client_ready, server_ready) = self.wait(deadline)?;
            if client_ready && !read_available(&mut self.client, &mut self.from_client)? {
                return Ok(());
            }
        }
    }

    /// Waits for either end, and says which of them has something.
    fn wait(&self, deadline: Instant) -> io::Result<(bool, bool)> {
        let for_client = interest(self.to_server.len() < BACKLOG, !self.to_client.is_empty());
        let mut descriptors =
            vec![PollFd::new(&self.control.waker, PollFlags::IN), PollFd::new(&self.client, for_client)];
        if let Some(server) = &self.server {
            let write = !self.to_server.is_empty() || server.wants_write();
            descriptors.push(PollFd::new(server, interest(self.to_client.len() < BACKLOG, write)));
        }
        poll_until(&mut descriptors, Some(deadline))?;
        let ready =
            |at: usize| descriptors.get(at).is_some_and(|descriptor| !descriptor.revents().is_empty());
        if ready(0) {
            self.control.waker.drain();
        }
        Ok((ready(1), ready(2)))
    }

    /// The server's part of a turn. The error is why the connection to it is over; else, when to look again.
    fn serve_server(&mut self, ready: bool) -> io::Result<Instant> {
        let Some(mut server) = self.server.take() else { return Ok(Instant::now() + IDLE) };
        if ready {
            let open = read_available(&mut server, &mut self.from_server)?;
            self.take_answers()?;
            if !open {
                return Err(io::Error::other("the server closed the connection"));
            }
        }
        if self.control.cut.load(Ordering::SeqCst) {
            return Err(io::Error::other("cut off after a failed call"));
        }
        let deadline = self.keep_alive()?;
        flush(&mut self.to_server, &mut server)?;
        self.server = Some(server);
        Ok(deadline)
    }

    /// From now on there is no server: what it still owed is lost.
    fn lose_server(&mut self) {
        self.to_server = Vec::new();
        self.from_server = FrameBuffer::default();
        for Owed { xid, here } in std::mem::take(&mut self.owed) {
            self.answer(xid, if here { 0 } else { CONNECTION_LOSS });
        }
    }

    /// Sends a ping when one is due; an error when the server has been silent for too long. Returns when
    /// to look again.
    fn keep_alive(&mut self) -> io::Result<Instant> {
        let now = Instant::now();
        let silence = now.duration_since(self.waiting_since);
        if self.is_waiting() && silence >= self.third {
            let why = format!("the server has not answered for {:.1} s", silence.as_secs_f64());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        let first_deadline = self.control.deadlines.lock().iter().min().copied();
        if first_deadline.is_some_and(|deadline| deadline <= now) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the server answers too slowly"));
        }
        if !self.ping_owed && now.duration_since(self.asked) >= self.third {
            self.note_question();
            self.ping_owed = true;
            self.to_server.extend(frames::ping());
        }
        let patience = self.is_waiting().then(|| self.waiting_since + self.third);
        let next_ping = (!self.ping_owed).then(|| self.asked + self.third);
        Ok([patience, next_ping, first_deadline].into_iter().flatten().min().unwrap_or(now + self.third))
    }

    fn is_waiting(&self) -> bool {
        self.ping_owed || self.owed.iter().any(|owed| !owed.here)
    }

    /// To be called before a question is added to those that wait for an answer.
    fn note_question(&mut self) {
        self.asked = Instant::now();
        if !self.is_waiting() {
            self.waiting_since = self.asked;
        }
    }

    /// Takes the client's requests that have arrived.
    fn take_requests(&mut self) -> io::Result<()> {
        while let Some(frame) = self.from_client.next()? {
            let RequestHead { xid, operation } = frames::request_head(frame)?;
            // The relay's own pings keep the session alive, and a client that is thrown away must not end it.
            let closing = operation == CLOSE_SESSION;
            let here = match operation {
                PING => true,
                _ if self.server.is_none() => closing,
                _ => closing && !self.control.close_session.load(Ordering::SeqCst),
            };
            if self.server.is_none() {
                self.answer(xid, if here { 0 } else { CONNECTION_LOSS });
                continue;
            }
            if !here {
                match operation {
                    CREATE => match frames::without_mark(frame)? {
                        Some(edited) => self.to_server.extend(edited),
                        None => self.to_server.extend_from_slice(frame),
                    },
                    _ => self.to_server.extend_from_slice(frame),
                }
                self.note_question();
            }
            self.owed.push_back(Owed { xid, here });
        }
        self.from_client.shrink();
        self.answer_here();
        Ok(())
    }

    /// Takes what the server has said.
    fn take_answers(&mut self) -> io::Result<()> {
        while let Some(frame) = self.from_server.next()? {
            let head = frames::reply_head(frame)?;
            if head.zxid > 0 {
                self.control.identity.lock().last_zxid = head.zxid;
            }
            self.waiting_since = Instant::now();
            match head.xid {
                PING_XID => self.ping_owed = false,
                EVENT_XID => self.to_client.extend_from_slice(frame),
                xid if self.owed.front().is_some_and(|owed| owed.xid == xid) => {
                    self.owed.pop_front();
                    self.to_client.extend_from_slice(frame);
                    self.answer_here();
                }
                xid => {
                    let what = format!("the server answered request {xid}, which nobody asked");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
        self.from_server.shrink();
        Ok(())
    }

    /// Gives the relay's own answers whose turn has come.
    fn answer_here(&mut self) {
        while let Some(Owed { xid, here: true }) = self.owed.front() {
            self.answer(*xid, 0);
            self.owed.pop_front();
        }
    }

    fn answer(&mut self, xid: i32, error: i32) {
        let zxid = self.control.identity.lock().last_zxid;
        self.to_client.extend(frames::reply(xid, zxid, error));
    }
}

fn interest(read: bool, write: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, read);
    flags.set(PollFlags::OUT, write);
    flags
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

#[cfg(test)]
mod tests;
