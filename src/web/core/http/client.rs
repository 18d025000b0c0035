//! One client: its request is read, its answer written, and its last words are waited for, each within a
//! limit.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::request::Request;
use super::response::{Body, Response, Status};

/// How long a client may take to send its request.
const SENDING: Duration = Duration::from_secs(5);
/// How long a client may take to read the answer, however long that is.
const READING: Duration = Duration::from_secs(20);
/// How long it is waited for that the client closes: if we did so first while something of its request is
/// still unread, the kernel would throw the answer away.
const CLOSING: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Client {
    stream: TcpStream,
    state: State,
    /// When its time for the state is up.
    pub(super) deadline: Instant,
}

enum State {
    /// What has come of the request.
    Request(Vec<u8>),
    /// Head and body of the answer, and how much of them has gone.
    Answer { head: Vec<u8>, body: Body, sent: usize },
    /// All is said; what still comes is thrown away.
    Closing,
}

impl Client {
    /// A client that has just connected.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, state: State::Request(Vec::new()), deadline: Instant::now() + SENDING })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// What is waited for.
    pub(super) fn waits_for(&self) -> PollFlags {
        match self.state {
            State::Request(_) | State::Closing => PollFlags::IN,
            State::Answer { .. } => PollFlags::OUT,
        }
    }

    /// Goes on as far as possible without waiting. False at its end.
    pub(super) fn go_on(&mut self, answer: &mut dyn FnMut(&Request) -> Response) -> bool {
        // Any error is the client's to bear: it has gone away.
        self.step(answer).unwrap_or(false)
    }

    /// Its time is up. False at its end, which is at once unless there is something to tell.
    pub(super) fn time_is_up(&mut self) -> bool {
        match &self.state {
            State::Request(received) if !received.is_empty() => {
                self.answer(&Response::refusal(Status::Timeout), false);
                true
            }
            _ => false,
        }
    }

    fn step(&mut self, answer: &mut dyn FnMut(&Request) -> Response) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            match &mut self.state {
                State::Request(received) => {
                    let Some(count) = at_once(self.stream.read(&mut buffer))? else { return Ok(true) };
                    if count == 0 {
                        return Ok(false);
                    }
                    received.extend_from_slice(&buffer[..count]);
                    match Request::parse(received) {
                        Ok(None) => {}
                        Ok(Some(request)) => self.answer(&answer(&request), request.head_only),
                        Err(status) => self.answer(&Response::refusal(status), false),
                    }
                }
                State::Answer { head, body, sent } => {
                    let unsent_head = head.get(*sent..).unwrap_or_default();
                    let unsent_body = body.get(sent.saturating_sub(head.len())..).unwrap_or_default();
                    if unsent_head.is_empty() && unsent_body.is_empty() {
                        self.stream.shutdown(Shutdown::Write)?;
                        (self.state, self.deadline) = (State::Closing, Instant::now() + CLOSING);
                        continue;
                    }
                    let pieces = [IoSlice::new(unsent_head), IoSlice::new(unsent_body)];
                    match at_once(self.stream.write_vectored(&pieces))? {
                        Some(count) => *sent += count,
                        None => return Ok(true),
                    }
                }
                State::Closing => match at_once(self.stream.read(&mut buffer))? {
                    Some(0) => return Ok(false),
                    // One piece at a time: a client that sends for ever must not keep the thread.
                    Some(_) | None => return Ok(true),
                },
            }
        }
    }

    fn answer(&mut self, response: &Response, head_only: bool) {
        let body = if head_only { Body::default() } else { Body::clone(&response.body) };
        self.state = State::Answer { head: response.head(), body, sent: 0 };
        self.deadline = Instant::now() + READING;
    }
}

/// None if the socket is not ready for it.
fn at_once(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
