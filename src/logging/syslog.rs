//! The local syslog as an output: one datagram for each line, as in RFC 3164. A line of ours may have lines in
//! it, such as a stack, and be longer than syslog takes: then it goes in several. A JSON object has to be whole,
//! so its long values are cut off instead.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use chrono::Local;
use slog::Level;

use super::console::wait;
use super::json;
use super::line::Line;
use super::settings::Format;
use super::writer::Sink;

/// How much text goes into one datagram. A syslog daemon usually takes 8 KiB, and cuts off the rest.
const MOST_BYTES: usize = 8000;

/// The names of the facilities; the number of each is its place here.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

/// What can be written for a facility.
pub(super) const FACILITY: &str = "a facility of syslog, such as 'daemon' or 'local0'";

/// The number of a facility.
pub(super) fn facility(name: &str) -> Option<u8> {
    FACILITIES.iter().zip(0..).find(|(known, _)| **known == name).map(|(_, number)| number)
}

/// The syslog daemon behind a socket.
pub(super) struct Syslog {
    path: PathBuf,
    facility: u8,
    tag: String,
    format: Format,
    socket: Option<UnixDatagram>,
    /// As much of the current line is sent.
    sent: usize,
}

impl Syslog {
    /// Nothing is sent yet: a syslog daemon that starts later than we do is no mistake.
    pub(super) fn new(path: PathBuf, facility: u8, program: &str, format: Format) -> Self {
        let tag = format!("{program}[{}]", std::process::id());
        Self { path, facility, tag, format, socket: None, sent: 0 }
    }

    fn connected(&mut self) -> io::Result<&UnixDatagram> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                socket
            }
        };
        Ok(self.socket.insert(socket))
    }

    fn message(&self, level: Level, text: &str) -> String {
        let priority = u16::from(self.facility) * 8 + severity(level);
        let time = Local::now().format("%b %e %H:%M:%S");
        format!("<{priority}>{time} {}: {text}", self.tag)
    }

    fn send(&mut self, message: &str) -> io::Result<()> {
        let socket = self.connected()?;
        let mut sent = socket.send(message.as_bytes());
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            wait(socket.as_fd())?;
            sent = socket.send(message.as_bytes());
        }
        if sent.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            // A syslog daemon that was restarted has a new socket.
            self.socket = None;
        }
        sent.map(drop)
    }
}

fn severity(level: Level) -> u16 {
    match level {
        Level::Critical => 2,
        Level::Error => 3,
        Level::Warning => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// As much of the text as fits into one datagram: whole lines, or if the first is too long, whole letters.
fn piece(text: &str) -> &str {
    if text.len() <= MOST_BYTES {
        return text;
    }
    let line_end =
        text.as_bytes()[..=MOST_BYTES].iter().rposition(|byte| *byte == b'\n').filter(|end| *end > 0);
    let letter_end = || (0..=MOST_BYTES).rev().find(|end| text.is_char_boundary(*end));
    &text[..line_end.or_else(letter_end).unwrap_or(text.len())]
}

impl Sink for Syslog {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let text = match self.format {
            Format::Json => json::shortened(line.text.trim(), MOST_BYTES),
            Format::Text | Format::Untimed => Cow::Borrowed(line.text.trim()),
        };
        while let Some(rest) = text.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let piece = piece(rest);
            self.send(&self.message(line.level, piece))?;
            // The line break between two pieces has done its work.
            self.sent += piece.len() + usize::from(rest[piece.len()..].starts_with('\n'));
        }
        self.sent = 0;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.socket = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_priority_time_and_program() {
        let syslog = Syslog::new("/dev/log".into(), facility("daemon").unwrap(), "nodepool", Format::Untimed);
        let message = syslog.message(Level::Warning, "WARN a.b: x, k: v");
        let (priority, rest) = message.split_once('>').unwrap();
        assert_eq!(priority, "<28");
        let (time, rest) = rest.split_at(15);
        assert_eq!((time.as_bytes()[3], time.as_bytes()[6]), (b' ', b' '), "{time}");
        assert_eq!(rest, format!(" nodepool[{}]: WARN a.b: x, k: v", std::process::id()));
    }

    #[test]
    fn a_long_text_is_split_at_line_ends_or_else_between_letters() {
        let line = |length: usize| format!("{}\n", "x".repeat(length - 1));
        for (text, expected) in [
            ("short\ntext".to_owned(), vec![10]),
            (line(MOST_BYTES + 1) + "y", vec![MOST_BYTES, 1]),
            (line(5000) + &line(2000) + &line(2000) + "y", vec![6999, 2001]),
            (line(100) + &"y".repeat(MOST_BYTES), vec![99, MOST_BYTES]),
            (format!("x{}", "ä".repeat(MOST_BYTES)), vec![7999, MOST_BYTES, 2]),
        ] {
            let (mut rest, mut lengths) = (text.as_str(), Vec::new());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(piece(rest).len());
                lengths.push(piece.len());
                rest = after.strip_prefix('\n').unwrap_or(after);
            }
            assert_eq!(lengths, expected, "{}", &text[..10]);
        }
    }
}
