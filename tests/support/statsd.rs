//! A statsd server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use super::eventually;

/// How long a metric may take.
const SOON: Duration = Duration::from_secs(40);

/// The last value of each metric, and how often it came. Names end with `|` and the kind.
pub type Values = BTreeMap<String, (String, usize)>;

/// A server that keeps the first and the last value of each metric, and how often it came.
pub struct Statsd {
    socket: UdpSocket,
    pub found: RefCell<Values>,
    first: RefCell<BTreeMap<String, String>>,
}

impl Statsd {
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket, found: RefCell::default(), first: RefCell::default() }
    }

    /// Has a daemon send to here.
    pub fn receive_from(&self, command: &mut Command) {
        let port = self.socket.local_addr().unwrap().port();
        command.env("STATSD_HOST", "127.0.0.1").env("STATSD_PORT", port.to_string());
    }

    pub fn receive(&self) {
        let mut packet = [0; 65536];
        while let Ok(length) = self.socket.recv(&mut packet) {
            assert!(length <= 1400, "a packet of {length} bytes");
            for line in std::str::from_utf8(&packet[..length]).unwrap().lines() {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
                // Timer and counter of one thing have one name.
                let kind = value.rsplit('|').next().unwrap();
                let (name, value) = (format!("{name}|{kind}"), value.split('|').next().unwrap());
                self.first.borrow_mut().entry(name.clone()).or_insert_with(|| value.to_owned());
                let mut found = self.found.borrow_mut();
                let (last, times) = found.entry(name).or_default();
                *last = value.to_owned();
                *times += 1;
            }
        }
    }

    /// Waits for a value of the metric that fits.
    #[track_caller]
    pub fn wait(&self, name: &str, fits: impl Fn(f64) -> bool) {
        eventually(SOON, &format!("a value of {name}"), || {
            self.receive();
            let found = self.found.borrow();
            let (value, _) = found.get(name)?;
            value.parse().is_ok_and(&fits).then_some(())
        });
    }

    #[track_caller]
    pub fn wait_for(&self, name: &str, expected: i64) {
        self.wait(name, |value| value == expected as f64);
    }

    /// The first value that came of a metric.
    pub fn first(&self, name: &str) -> Option<String> {
        self.receive();
        self.first.borrow().get(name).cloned()
    }

    pub fn times(&self, name: &str) -> usize {
        self.receive();
        self.found.borrow().get(name).map_or(0, |(_, times)| *times)
    }
}
