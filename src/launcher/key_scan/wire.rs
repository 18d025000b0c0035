//! SSH's lines and packets before encryption (RFC 4253 sections 4.2 and 6, RFC 4251 section 5).

use std::io::{self, ErrorKind, Read, Write};

use super::offer;

/// The longest packet that anybody has to take (RFC 4253 section 6.1).
const LONGEST_PACKET: usize = 35_000;
/// The longest version line, with its end (RFC 4253 section 4.2).
const LONGEST_VERSION: usize = 255;
/// How much a server may say altogether. What comes in a whole exchange is a few kilobytes.
const MOST_BYTES: usize = 256 * 1024;

/// The two directions of a connection.
pub(super) struct Wire<S> {
    stream: S,
    received: Vec<u8>,
    /// How much of what was received has been read.
    read: usize,
    total: usize,
}

/// An error about what the server sent.
pub(super) fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

impl<S: Read + Write> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, received: Vec::new(), read: 0, total: 0 }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a packet with this content.
    pub(super) fn send_packet(&mut self, payload: &[u8]) -> io::Result<()> {
        // Length, padding length, payload and padding are a multiple of 8 bytes, at least 4 of them padding.
        let padding = 4 + (8 - (4 + 1 + payload.len() + 4) % 8) % 8;
        let length = 1 + payload.len() + padding;
        let mut packet = Vec::with_capacity(4 + length);
        packet.extend((length as u32).to_be_bytes());
        packet.push(padding as u8);
        packet.extend(payload);
        let random = offer::random::<11>().ok_or_else(|| io::Error::other("no random numbers"))?;
        packet.extend(&random[..padding]);
        self.send(&packet)
    }

    /// The server's version line without its end; other lines may come before it.
    pub(super) fn version(&mut self) -> io::Result<String> {
        loop {
            let line = self.line()?;
            if !line.starts_with(b"SSH-") {
                continue;
            }
            if line.len() + 2 > LONGEST_VERSION {
                return Err(broken("its version line is too long for SSH"));
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.starts_with("SSH-2.0-") || line.starts_with("SSH-1.99-") {
                return Ok(line);
            }
            return Err(broken(format!("it does not speak SSH 2.0 but '{}'", printable(&line))));
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = self.read;
        loop {
            if let Some(length) = self.received[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + length;
                let line = &self.received[self.read..end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.read = end + 1;
                return Ok(line);
            }
            searched = self.received.len();
            self.receive("it talks without end and is no SSH server")?;
        }
    }

    /// The content of the next packet; it is not empty.
    pub(super) fn packet(&mut self) -> io::Result<Vec<u8>> {
        let head = self.take(5)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let padding = usize::from(head[4]);
        // At least the padding's length, one byte and the smallest padding. That everything is a multiple of 8
        // bytes is of use to ciphers only.
        if !(6..=LONGEST_PACKET).contains(&length) || padding < 4 || padding + 2 > length {
            return Err(broken(format!("it sent a packet of {length} bytes, {padding} of them padding")));
        }
        let mut payload = self.take(length - 1)?;
        payload.truncate(length - 1 - padding);
        Ok(payload)
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() - self.read < count {
            self.receive("it sends no end of packets")?;
        }
        let taken = self.received[self.read..][..count].to_vec();
        self.read += count;
        // What was read is of no more use.
        self.received.drain(..self.read);
        self.read = 0;
        Ok(taken)
    }

    /// Waits for more bytes; `endless` is what it means if they never end.
    fn receive(&mut self, endless: &str) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let count = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            done => done?,
        };
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        self.total += count;
        if self.total > MOST_BYTES {
            return Err(broken(endless));
        }
        self.received.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

/// Text from outside, fit for a log: short and without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(100).collect()
}

/// Reads the parts of a packet's content.
pub(super) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    pub(super) fn of(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    pub(super) fn bytes(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(broken("it sent a packet that ends too early"));
        };
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn number(&mut self) -> io::Result<u32> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.number()?;
        self.bytes(length as usize)
    }

    pub(super) fn names(&mut self) -> io::Result<Vec<String>> {
        let list = self.string()?;
        let list = std::str::from_utf8(list).map_err(|_| broken("it sent names that are no text"))?;
        Ok(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

/// Appends a string to a packet's content.
pub(super) fn put_string(payload: &mut Vec<u8>, string: &[u8]) {
    payload.extend((string.len() as u32).to_be_bytes());
    payload.extend(string);
}

/// Appends a list of names.
pub(super) fn put_names(payload: &mut Vec<u8>, names: &[&str]) {
    put_string(payload, names.join(",").as_bytes());
}
