//! The local syslog as an output: one datagram for each line, as in RFC 3164.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use slog::Level;

use super::console::wait;
use super::line::Line;
use super::writer::Sink;

/// The usual limit of a syslog daemon. What is longer is cut off.
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

/// The number of a facility.
pub(super) fn facility(name: &str) -> Option<u8> {
    FACILITIES.iter().zip(0..).find(|(known, _)| **known == name).map(|(_, number)| number)
}

/// The syslog daemon behind a socket.
pub(super) struct Syslog {
    path: PathBuf,
    facility: u8,
    tag: String,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// Nothing is sent yet: a syslog daemon that starts later than we do is no mistake.
    pub(super) fn new(path: PathBuf, facility: u8, program: &str) -> Self {
        Self { path, facility, tag: format!("{program}[{}]", std::process::id()), socket: None }
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

    fn message(&self, line: &Line) -> String {
        let mut stamp = Vec::new();
        // Writing to memory does not fail.
        let _ = slog_term::timestamp_local(&mut stamp);
        let text = cut(line.text.trim(), MOST_BYTES);
        let priority = u16::from(self.facility) * 8 + severity(line.level);
        format!("<{priority}>{} {}: {text}", bsd_time(&String::from_utf8_lossy(&stamp)), self.tag)
    }
}

/// `Nov  2 16:41:31`, from a time stamp with a zero before the day and a fraction.
fn bsd_time(stamp: &str) -> String {
    let seconds = stamp.split('.').next().unwrap_or_default();
    seconds.replacen(" 0", "  ", usize::from(seconds.get(3..5) == Some(" 0")))
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

/// The text up to its last whole letter within `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

impl Sink for Syslog {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let message = self.message(line);
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
        let syslog = Syslog::new("/dev/log".into(), facility("daemon").unwrap(), "nodepool");
        let line = Line { level: Level::Warning, text: "WARN a.b: x, k: v\n".into() };
        let message = syslog.message(&line);
        let (priority, rest) = message.split_once('>').unwrap();
        assert_eq!(priority, "<28");
        let (time, rest) = rest.split_at(15);
        assert_eq!(time.as_bytes()[6], b' ', "{time}");
        assert_eq!(rest, format!(" nodepool[{}]: WARN a.b: x, k: v", std::process::id()));
        let long = Line { level: Level::Critical, text: "ä".repeat(MOST_BYTES).into() };
        let message = syslog.message(&long);
        assert!(message.starts_with("<26>") && message.ends_with('ä') && message.len() < MOST_BYTES + 100);
    }

    #[test]
    fn a_day_below_ten_has_a_space_before_it() {
        assert_eq!(bsd_time("Nov 02 00:00:07.123"), "Nov  2 00:00:07");
        assert_eq!(bsd_time("Nov 22 00:00:07.123"), "Nov 22 00:00:07");
    }
}
