//! The little of ZooKeeper's wire format that the relay must understand: frames, their headers, and the
//! handshake (`zookeeper.jute` of ZooKeeper 3.8: ConnectRequest, ConnectResponse, RequestHeader, ReplyHeader).

use std::fmt;
use std::io;
use std::time::Duration;

/// The xid of a ping and of its answer.
pub(super) const PING_XID: i32 = -2;
/// The xid of a watch event, which answers no request.
pub(super) const EVENT_XID: i32 = -1;
/// The request that makes a znode.
pub(super) const CREATE: i32 = 1;
/// The request that ends a session.
pub(super) const CLOSE_SESSION: i32 = -11;
/// The request that keeps a session alive.
pub(super) const PING: i32 = 11;
/// The error code of an answer that stands for a lost connection.
pub(super) const CONNECTION_LOSS: i32 = -4;

/// Ends the path of a create request whose znode shall be named by the server's number alone. ZooKeeper refuses the
/// character in a name, so it can stand for nothing else.
pub(crate) const NUMBER_ONLY: char = '\u{1}';

/// More than any answer of a server whose `jute.maxbuffer` is sane. A longer frame is noise.
const MAX_FRAME: usize = 64 << 20;

/// Who the client is to the servers: what it takes to go on with a session on another connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The session's id.
    pub(crate) id: i64,
    /// The session's password.
    pub(super) password: Vec<u8>,
    /// The session timeout that the server granted.
    pub(crate) timeout: Duration,
    /// The newest transaction that the client has seen; a server that is behind it refuses the session.
    pub(super) last_zxid: i64,
}

impl fmt::Debug for Identity {
    /// Without the password: whoever has it can take the session over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&format_args!("{:#x}", self.id)).finish()
    }
}

impl Identity {
    #[cfg(test)]
    pub(super) fn new_for_tests(timeout: Duration) -> Self {
        Self { id: 77, password: vec![3; 16], timeout, last_zxid: 0 }
    }

    /// Gives up the promise that no server shows an older state than the client has seen.
    pub(crate) fn forget_transactions(&mut self) {
        self.last_zxid = 0;
    }
}

/// Bytes that arrive, cut into frames.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the first frame that was not taken yet begins.
    start: usize,
}

impl FrameBuffer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete frame with its length prefix.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(end) = self.first_end()? else { return Ok(None) };
        let begin = std::mem::replace(&mut self.start, end);
        Ok(Some(&self.bytes[begin..end]))
    }

    /// Whether there is a complete frame.
    pub(super) fn has_frame(&self) -> io::Result<bool> {
        self.first_end().map(|end| end.is_some())
    }

    /// Where the next frame ends, if it is complete.
    fn first_end(&self) -> io::Result<Option<usize>> {
        let Some(prefix) = self.bytes[self.start..].first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(i32::from_be_bytes(*prefix)).ok().filter(|length| *length <= MAX_FRAME);
        let end = self.start + 4 + length.ok_or_else(|| broken("a frame of an impossible length"))?;
        Ok((end <= self.bytes.len()).then_some(end))
    }

    /// Gives the memory of a burst back once it has been worked through.
    pub(super) fn shrink(&mut self) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(64 << 10);
            self.start = 0;
        }
    }
}

/// The head of a request, as the client sends it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestHead {
    pub(super) xid: i32,
    pub(super) operation: i32,
}

/// The head of an answer, as the server sends it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyHead {
    pub(super) xid: i32,
    pub(super) zxid: i64,
}

pub(super) fn request_head(frame: &[u8]) -> io::Result<RequestHead> {
    let mut reader = Reader(&frame[4..]);
    Ok(RequestHead { xid: reader.int()?, operation: reader.int()? })
}

pub(super) fn reply_head(frame: &[u8]) -> io::Result<ReplyHead> {
    let mut reader = Reader(&frame[4..]);
    let (xid, zxid) = (reader.int()?, reader.long()?);
    reader.int()?;
    Ok(ReplyHead { xid, zxid })
}

/// The create request without the mark [`NUMBER_ONLY`] at the end of its path: the path then ends with a slash, which
/// a server takes for a sequential znode, and the `zookeeper` crate does not. `None` for a request without the mark.
pub(super) fn without_mark(frame: &[u8]) -> io::Result<Option<Vec<u8>>> {
    // Length, xid and operation come before the path.
    const HEAD: usize = 12;
    let path = Reader(frame.get(HEAD..).unwrap_or_default()).buffer()?;
    let mut mark = [0; 4];
    let Some(path) = path.strip_suffix(NUMBER_ONLY.encode_utf8(&mut mark).as_bytes()) else {
        return Ok(None);
    };
    let rest = HEAD + 4 + path.len() + NUMBER_ONLY.len_utf8();
    let mut body = frame[4..HEAD].to_vec();
    buffer(&mut body, path);
    body.extend(&frame[rest..]);
    Ok(Some(framed(&body)))
}

/// A ping.
pub(super) fn ping() -> Vec<u8> {
    framed(&[PING_XID.to_be_bytes(), PING.to_be_bytes()].concat())
}

/// An answer without a body.
pub(super) fn reply(xid: i32, zxid: i64, error: i32) -> Vec<u8> {
    let mut body = xid.to_be_bytes().to_vec();
    body.extend(zxid.to_be_bytes());
    body.extend(error.to_be_bytes());
    framed(&body)
}

/// The request for a new session, or to go on with `identity`.
pub(super) fn connect_request(identity: Option<&Identity>, timeout: Duration) -> Vec<u8> {
    let mut body = 0i32.to_be_bytes().to_vec();
    body.extend(identity.map_or(0, |known| known.last_zxid).to_be_bytes());
    body.extend(millis(timeout).to_be_bytes());
    body.extend(identity.map_or(0, |known| known.id).to_be_bytes());
    buffer(&mut body, identity.map_or(&[0; 16], |known| known.password.as_slice()));
    body.push(0);
    framed(&body)
}

/// The answer that gives a client `identity`.
pub(super) fn connect_response(identity: &Identity) -> Vec<u8> {
    let mut body = 0i32.to_be_bytes().to_vec();
    body.extend(millis(identity.timeout).to_be_bytes());
    body.extend(identity.id.to_be_bytes());
    buffer(&mut body, &identity.password);
    body.push(0);
    framed(&body)
}

/// Reads a server's answer to [`connect_request`]: `None` says that the session has expired.
pub(super) fn read_connect_response(frame: &[u8]) -> io::Result<Option<Identity>> {
    let mut reader = Reader(&frame[4..]);
    reader.int()?;
    let timeout = reader.int()?;
    let id = reader.long()?;
    let password = reader.buffer()?;
    let timeout = u64::try_from(timeout).unwrap_or(0);
    let identity = Identity { id, password, timeout: Duration::from_millis(timeout), last_zxid: 0 };
    Ok((timeout > 0).then_some(identity))
}

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

fn buffer(body: &mut Vec<u8>, bytes: &[u8]) {
    // invariant: passwords, paths and frames of requests are far shorter than 2 GB.
    body.extend(i32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    body.extend(bytes);
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(4 + body.len());
    buffer(&mut frame, body);
    frame
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the server does not speak ZooKeeper's protocol: {what}"),
    )
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(|| broken("a frame ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn int(&mut self) -> io::Result<i32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(i32::from_be_bytes(bytes))
    }

    fn long(&mut self) -> io::Result<i64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(i64::from_be_bytes(bytes))
    }

    fn buffer(&mut self) -> io::Result<Vec<u8>> {
        // A negative length stands for an absent buffer.
        let length = usize::try_from(self.int()?).unwrap_or(0);
        Ok(self.take(length)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_bytes_are_split() {
        let bytes = [ping(), reply(7, 9, -4), ping()].concat();
        for chunk in 1..bytes.len() {
            let (mut buffer, mut frames) = (FrameBuffer::default(), Vec::new());
            for piece in bytes.chunks(chunk) {
                buffer.push(piece);
                while let Some(frame) = buffer.next().unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames.concat(), bytes, "chunks of {chunk}");
            assert_eq!(frames.len(), 3);
        }
    }

    #[test]
    fn impossible_lengths_and_short_frames_are_errors() {
        for prefix in [-1i32, i32::MAX] {
            let mut buffer = FrameBuffer::default();
            buffer.push(&prefix.to_be_bytes());
            assert!(buffer.next().is_err());
        }
        assert!(reply_head(&framed(&[0; 12])).is_err());
        assert!(read_connect_response(&framed(&[0; 19])).is_err());
    }

    #[test]
    fn the_mark_is_taken_off_the_path_of_a_create_request_and_nothing_else_changes() {
        let create = |path: &str| {
            let mut body = [7i32.to_be_bytes(), CREATE.to_be_bytes()].concat();
            buffer(&mut body, path.as_bytes());
            buffer(&mut body, b"data\x01");
            body.extend([0, 0, 0, 2]);
            framed(&body)
        };
        let edited = without_mark(&create("/root/nodes/\u{1}")).unwrap();
        assert_eq!(edited, Some(create("/root/nodes/")));
        assert_eq!(without_mark(&create("/root/nodes/a")).unwrap(), None);
        assert_eq!(without_mark(&create("")).unwrap(), None);
        assert!(without_mark(&framed(&[0; 9])).is_err());
        assert!(without_mark(&framed(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 1])).is_err());
    }

    #[test]
    fn an_identity_survives_the_handshake_and_a_timeout_of_zero_means_expired() {
        let identity =
            Identity { id: 77, password: vec![3; 16], timeout: Duration::from_secs(4), last_zxid: 0 };
        assert_eq!(read_connect_response(&connect_response(&identity)).unwrap(), Some(identity.clone()));
        let expired = Identity { timeout: Duration::ZERO, ..identity };
        assert_eq!(read_connect_response(&connect_response(&expired)).unwrap(), None);
    }
}
