//! One connection to an SSH server, as far as its host key: versions, algorithms, key exchange. It ends before
//! anything would have to be encrypted.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::offer::{self, CIPHERS, COMPRESSIONS, KEXES, KEY_TYPES, Kex, MACS};
use super::wire::{Parts, Wire, broken, printable, put_names, put_string};

const VERSION: &[u8] = b"SSH-2.0-nodepool\r\n";

// Messages (RFC 4253 section 12).
const DISCONNECT: u8 = 1;
const IGNORE: u8 = 2;
const DEBUG: u8 = 4;
const KEXINIT: u8 = 20;
const KEX_INIT: u8 = 30;
const KEX_REPLY: u8 = 31;

/// What a server has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The host key algorithms that it has.
    pub(super) offered: Vec<String>,
    /// The type of the key that it has given.
    pub(super) key_type: &'static str,
    /// The key itself, its type included.
    blob: Vec<u8>,
}

impl Found {
    /// The key as `known_hosts` and a node's record have it.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.key_type, STANDARD.encode(&self.blob))
    }
}

/// Asks a server for its key of the first of `algorithms` that it has.
pub(super) fn exchange(stream: impl Read + Write, algorithms: &[&str]) -> io::Result<Found> {
    let mut wire = Wire::new(stream);
    wire.send(VERSION)?;
    wire.version()?;
    wire.send_packet(&our_offer(algorithms)?)?;
    let (methods, offered) = their_offer(&message(&mut wire, KEXINIT)?)?;
    let kex = KEXES.iter().find(|ours| methods.iter().any(|theirs| theirs == ours.name));
    let kex: Kex = *kex.ok_or_else(|| nothing_common("method of key exchange", &methods))?;
    let chosen = algorithms.iter().find(|ours| offered.iter().any(|theirs| theirs == *ours));
    let chosen = chosen.ok_or_else(|| nothing_common("type of host key", &offered))?;

    let mut payload = vec![KEX_INIT];
    let public_value = kex.public_value().ok_or_else(|| io::Error::other("no random numbers"))?;
    put_string(&mut payload, &public_value);
    wire.send_packet(&payload)?;
    let reply = message(&mut wire, KEX_REPLY)?;
    let mut parts = Parts::of(&reply);
    parts.bytes(1)?;
    let blob = parts.string()?;
    // The rest is the server's public value and signature. They must be there: a key without is no answer.
    if parts.string()?.is_empty() || parts.string()?.is_empty() {
        return Err(broken("it sent a key without a signature"));
    }
    let name = Parts::of(blob).string()?;
    let key = KEY_TYPES.iter().find(|key| key.algorithms.contains(chosen));
    match key.filter(|key| key.name.as_bytes() == name) {
        Some(key) => Ok(Found { offered, key_type: key.name, blob: blob.to_vec() }),
        None => {
            let name = printable(&String::from_utf8_lossy(name));
            Err(broken(format!("it was asked for a key for {chosen} and sent one of the type '{name}'")))
        }
    }
}

fn our_offer(algorithms: &[&str]) -> io::Result<Vec<u8>> {
    let cookie = offer::random::<16>().ok_or_else(|| io::Error::other("no random numbers"))?;
    let mut payload = vec![KEXINIT];
    payload.extend(cookie);
    put_names(&mut payload, &KEXES.map(|kex| kex.name));
    put_names(&mut payload, algorithms);
    // From us and to us.
    for names in [CIPHERS, CIPHERS, MACS, MACS, COMPRESSIONS, COMPRESSIONS, &[], &[]] {
        put_names(&mut payload, names);
    }
    // No guessed packet follows; the rest is reserved.
    payload.extend([0; 5]);
    Ok(payload)
}

/// The methods of key exchange and the host key algorithms of the server's KEXINIT.
fn their_offer(payload: &[u8]) -> io::Result<(Vec<String>, Vec<String>)> {
    let mut parts = Parts::of(payload);
    parts.bytes(1 + 16)?;
    Ok((parts.names()?, parts.names()?))
}

/// Waits for a message of one kind.
fn message(wire: &mut Wire<impl Read + Write>, wanted: u8) -> io::Result<Vec<u8>> {
    loop {
        let payload = wire.packet()?;
        match payload.first().copied() {
            Some(kind) if kind == wanted => return Ok(payload),
            Some(IGNORE | DEBUG) => {}
            Some(DISCONNECT) => {
                let mut parts = Parts::of(&payload[1..]);
                let why = parts.number().and_then(|_| parts.string()).unwrap_or_default();
                let why = printable(&String::from_utf8_lossy(why));
                return Err(broken(format!("it ended the connection: '{why}'")));
            }
            other => {
                let other = other.unwrap_or(0);
                return Err(broken(format!("it sent message {other} where {wanted} belongs")));
            }
        }
    }
}

fn nothing_common(what: &str, theirs: &[String]) -> io::Error {
    broken(format!("it has no {what} that is known here: '{}'", printable(&theirs.join(","))))
}
