//! Whether a node answers, and the host keys that its SSH server has, as `ssh-keyscan` would find them.
//!
//! A node that boots has no network at first, then refuses connections, then has half an SSH server. Whatever
//! goes wrong is therefore tried again with growing pauses until the limit. Nothing that the other side sends
//! costs more than a bounded amount of memory, or time beyond the limit.
//!
//! A scan blocks its thread: it is for the worker that launches the node, and has nothing else to do meanwhile.
//! The thread sleeps in the kernel; two hundred of them cost no processor time to speak of.
//!
//! Knows sockets, and nothing of nodes.

mod exchange;
mod launched;
mod offer;
mod wire;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nodepool_threads::{Interrupted, PatientSocket, Resolver, StopToken, activity_within};

use exchange::{Found, exchange};
pub(super) use launched::keys_of_node;
use offer::KEY_TYPES;

/// The pause after the first failure; it grows by half from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: how long a node that answers at last may wait to be noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one connection may take to be made. A node without a network answers nothing at all, and a new
/// attempt gets through sooner than the kernel's own.
const CONNECTING: Duration = Duration::from_secs(10);
/// How often a key is asked for that the server has already said to have.
const ATTEMPTS_PER_KEY: u32 = 3;

/// What is scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A host name, or an address without brackets. Of several addresses, the first that answers counts.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// Why a scan found nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanError {
    /// The stop token ended it.
    Stopped,
    /// The limit passed, or the token's own deadline.
    TimedOut {
        /// What was scanned.
        target: Target,
        /// How long it was tried.
        tried_for: Duration,
        /// What went wrong the last time.
        why: String,
    },
}

/// Whether a connection of this type has SSH host keys (`ssh`, `network_cli`). Of others, such as `winrm`, it can
/// only be known whether their [port answers](wait_for_port).
pub fn has_host_keys(connection_type: &str) -> bool {
    matches!(connection_type, "ssh" | "network_cli")
}

/// Waits until the SSH server answers, for up to `limit`, and returns its host keys of all types as lines like
/// `ssh-ed25519 AAAA…`, which is what a node's record has in `host_keys`. There is at least one.
///
/// It makes one connection for each type of key that the server has. Signatures are not verified: whoever can
/// answer in the server's place can also let it answer.
///
/// # Errors
/// When `limit` or the token ends before the first key is there. A key that the server only says to have, and
/// does not give when it is asked three times, is left out.
pub fn scan(target: &Target, limit: Duration, stop: &StopToken) -> Result<Vec<String>, ScanError> {
    let _doing = activity_within(limit, format!("scanning the host keys of {target}"));
    let attempts = &mut Attempts::new(target, limit, stop);
    let all: Vec<&str> = KEY_TYPES.iter().flat_map(|key| key.algorithms).copied().collect();
    let ask = |socket: PatientSocket| exchange(socket, &all);
    let (address, found) =
        attempts.until_one_succeeds(|address, attempts| attempts.connect(address).and_then(ask))?;
    let mut keys: Vec<Option<String>> = vec![None; KEY_TYPES.len()];
    let place = |found: &Found| KEY_TYPES.iter().position(|key| key.name == found.key_type);
    if let Some(place) = place(&found) {
        keys[place] = Some(found.line());
    }
    for (key, place) in KEY_TYPES.iter().zip(&mut keys) {
        let offered = key.algorithms.iter().any(|name| found.offered.iter().any(|offered| offered == name));
        if place.is_none() && offered {
            *place = attempts.key(address, key.algorithms)?;
        }
    }
    Ok(keys.into_iter().flatten().collect())
}

/// Waits until the port accepts a connection, for up to `limit`.
///
/// # Errors
/// When `limit` or the token ends before.
pub fn wait_for_port(target: &Target, limit: Duration, stop: &StopToken) -> Result<(), ScanError> {
    let _doing = activity_within(limit, format!("connecting to {target}"));
    let connect = |address, attempts: &Attempts<'_>| attempts.connect(address).map(drop);
    Attempts::new(target, limit, stop).until_one_succeeds(connect).map(drop)
}

/// The first address of the target's host, which is looked up for up to `limit`.
///
/// # Errors
/// When `limit` or the token ends before.
pub fn first_address(target: &Target, limit: Duration, stop: &StopToken) -> Result<IpAddr, ScanError> {
    let found = Attempts::new(target, limit, stop).until_one_succeeds(|_, _| Ok(()));
    found.map(|(address, ())| address.ip())
}

/// Attempts at one target, under one limit.
struct Attempts<'a> {
    target: &'a Target,
    begin: Instant,
    stop: StopToken,
    resolver: Resolver,
    pause: Duration,
    /// How many addresses there are to try in the time that is left.
    addresses: u32,
}

impl<'a> Attempts<'a> {
    fn new(target: &'a Target, limit: Duration, stop: &StopToken) -> Self {
        Self {
            target,
            begin: Instant::now(),
            stop: stop.deadline_in(limit),
            resolver: Resolver::default(),
            pause: FIRST_PAUSE,
            addresses: 1,
        }
    }

    /// Tries all addresses again and again.
    fn until_one_succeeds<T>(
        &mut self,
        attempt: impl Fn(SocketAddr, &Self) -> io::Result<T>,
    ) -> Result<(SocketAddr, T), ScanError> {
        let mut why = None;
        loop {
            self.stop.check().map_err(|end| self.ended(end, why.clone()))?;
            let Target { host, port } = self.target;
            match self.resolver.resolve(host, *port, CONNECTING, &self.stop) {
                Ok(addresses) => {
                    self.addresses = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
                    for address in addresses {
                        match attempt(address, self) {
                            Ok(value) => return Ok((address, value)),
                            // The end of all attempts says less than what they have met before.
                            Err(_) if self.stop.check().is_err() && why.is_some() => {}
                            Err(error) => why = Some(self.explain(address, &error)),
                        }
                    }
                }
                Err(error) => why = Some(error.to_string()),
            }
            self.rest().map_err(|end| self.ended(end, why.clone()))?;
        }
    }

    /// One more key of a server that has given one. `None` if it does not give this one.
    fn key(&mut self, address: SocketAddr, algorithms: &[&str]) -> Result<Option<String>, ScanError> {
        self.pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS_PER_KEY {
            match self.connect(address).and_then(|socket| exchange(socket, algorithms)) {
                Ok(found) => return Ok(Some(found.line())),
                Err(_) if attempt == ATTEMPTS_PER_KEY => {}
                Err(_) => match self.rest() {
                    Err(Interrupted::Stopped) => return Err(ScanError::Stopped),
                    // What was found by then must do.
                    Err(Interrupted::DeadlinePassed) => break,
                    Ok(()) => {}
                },
            }
        }
        if self.stop.is_stopped() { Err(ScanError::Stopped) } else { Ok(None) }
    }

    /// Connects, with a share of the time that is left.
    ///
    /// An address that swallows everything must leave some time for the others. What follows has half of the time, so
    /// that a server that dies in the middle can be asked again, but enough for a slow one.
    fn connect(&self, address: SocketAddr) -> io::Result<PatientSocket> {
        let left = || self.stop.deadline().map(|end| end.saturating_duration_since(Instant::now()));
        let patience = left().map_or(CONNECTING, |left| CONNECTING.min(left / self.addresses));
        let mut socket = PatientSocket::connect(address, patience, &self.stop)?;
        socket.set_limit(left().map_or(CONNECTING, |left| CONNECTING.max(left / 2)), &self.stop);
        Ok(socket)
    }

    fn rest(&mut self) -> Result<(), Interrupted> {
        let pause = self.pause;
        self.pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        self.stop.wait(pause)
    }

    fn explain(&self, address: SocketAddr, error: &io::Error) -> String {
        if self.target.host.parse() == Ok(address.ip()) {
            error.to_string()
        } else {
            format!("{}: {error}", address.ip())
        }
    }

    fn ended(&self, end: Interrupted, why: Option<String>) -> ScanError {
        match end {
            Interrupted::Stopped => ScanError::Stopped,
            Interrupted::DeadlinePassed => ScanError::TimedOut {
                target: self.target.clone(),
                tried_for: self.begin.elapsed(),
                why: why.unwrap_or_else(|| "there was no time for an attempt".to_owned()),
            },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.host, self.port)
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::TimedOut { target, tried_for, why } => {
                write!(f, "{target} did not answer within {:.1} s: {why}", tried_for.as_secs_f64())
            }
        }
    }
}

impl std::error::Error for ScanError {}

#[cfg(test)]
mod tests;
