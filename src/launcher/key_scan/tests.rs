//! Bad servers, and what is left of a good one's words when some are missing.

use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nodepool_threads::StopSource;

use super::wire::{put_names, put_string};
use super::*;

/// What a server says, and nobody hears what it is told.
struct Script(Cursor<Vec<u8>>);

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // In small pieces, as a network may bring it.
        let count = buffer.len().min(7);
        self.0.read(&mut buffer[..count])
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let mut packet = ((1 + payload.len() + padding) as u32).to_be_bytes().to_vec();
    packet.push(padding as u8);
    packet.extend(payload);
    packet.extend(vec![0; padding]);
    packet
}

fn kexinit(methods: &[&str], keys: &[&str]) -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([7; 16]);
    for names in [methods, keys, &["x"], &["x"], &["x"], &["x"], &["none"], &["none"], &[], &[]] {
        put_names(&mut payload, names);
    }
    payload.extend([0; 5]);
    packet(&payload)
}

fn reply(key_type: &str) -> Vec<u8> {
    let mut blob = Vec::new();
    put_string(&mut blob, key_type.as_bytes());
    put_string(&mut blob, &[1; 32]);
    let mut payload = vec![31];
    for part in [blob.as_slice(), &[2; 32], &[3; 64]] {
        put_string(&mut payload, part);
    }
    packet(&payload)
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";

/// All that a server with an ed25519 key says.
fn good() -> Vec<u8> {
    let mut said = b"Welcome to the machine\r\nSSH-2.0-test it\r\n".to_vec();
    said.extend(packet(b"\x02\0\0\0\x04ABCD"));
    said.extend(kexinit(&["unknown", "curve25519-sha256"], &["ssh-ed25519", "ssh-dss"]));
    said.extend(packet(b"\x04\0\0\0\0\0\0\0\0\0"));
    said.extend(reply("ssh-ed25519"));
    said
}

fn hear(said: &[u8]) -> io::Result<Found> {
    exchange(Script(Cursor::new(said.to_vec())), &["ssh-ed25519", "rsa-sha2-512"])
}

#[test]
fn a_good_server_gives_its_key() {
    let found = hear(&good()).unwrap();
    assert_eq!(found.line(), KEY);
    assert_eq!(found.offered, ["ssh-ed25519", "ssh-dss"]);
}

#[test]
fn every_beginning_of_a_good_answer_is_an_error() {
    let said = good();
    // The padding of the last packet is a part of it.
    for length in 0..said.len() {
        assert_eq!(hear(&said[..length]).unwrap_err().to_string(), "it closed the connection", "{length}");
    }
}

#[test]
fn no_damage_to_a_good_answer_does_harm() {
    let said = good();
    for place in 0..said.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, said[place] ^ 1, said[place].wrapping_add(1)] {
            let mut damaged = said.clone();
            damaged[place] = value;
            // Whatever comes of it, it is no panic, and a key is one of the type that was asked for.
            if let Ok(found) = hear(&damaged) {
                assert_eq!(found.key_type, "ssh-ed25519");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let version = b"SSH-2.0-x\r\n".to_vec();
    let after = |packets: &[Vec<u8>]| [version.clone(), packets.concat()].concat();
    let kexinit = || kexinit(&["curve25519-sha256"], &["ssh-ed25519"]);
    let mut disconnect = b"\x01\0\0\0\x02".to_vec();
    put_string(&mut disconnect, b"too many\n\x1b[31mguests");
    let cases = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "it closed the connection"),
        (b"SSH-1.5-old\n".to_vec(), "it does not speak SSH 2.0 but 'SSH-1.5-old'"),
        ([b"SSH-2.0-", vec![b'x'; 300].as_slice(), b"\r\n"].concat(), "its version line is too long for SSH"),
        (vec![b'x'; 300_000], "it talks without end and is no SSH server"),
        (b"line\n".repeat(60_000), "it talks without end and is no SSH server"),
        (after(&vec![packet(b"\x02\0\0\0\x04ABCD"); 20_000]), "it sends no end of packets"),
        (after(&[vec![0xff; 16]]), "it sent a packet of 4294967295 bytes, 255 of them padding"),
        (after(&[vec![0; 16]]), "it sent a packet of 0 bytes, 0 of them padding"),
        (after(&[vec![0, 0, 0, 8, 8, 1, 1, 1]]), "it sent a packet of 8 bytes, 8 of them padding"),
        (after(&[packet(&[20, 1, 2])]), "it sent a packet that ends too early"),
        (after(&[packet(&[99])]), "it sent message 99 where 20 belongs"),
        (after(&[packet(&disconnect)]), "it ended the connection: 'too many??[31mguests'"),
        (after(&[packet(&[1])]), "it ended the connection: ''"),
        (
            after(&[super::tests::kexinit(&["curve25519-sha256"], &["ssh-dss"])]),
            "it has no type of host key that is known here: 'ssh-dss'",
        ),
        (
            after(&[super::tests::kexinit(&["mlkem"], &["ssh-ed25519"])]),
            "it has no method of key exchange that is known here: 'mlkem'",
        ),
        (after(&[kexinit(), packet(&[31, 0, 0, 0, 0])]), "it sent a packet that ends too early"),
        (
            after(&[kexinit(), reply("ssh-rsa")]),
            "it was asked for a key for ssh-ed25519 and sent one of the type 'ssh-rsa'",
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(hear(&said).unwrap_err().to_string(), expected);
    }
}

/// A server that treats each connection as told. It ends with the test process.
fn server(address: &str, treat: impl Fn(TcpStream) + Send + 'static) -> Target {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let target = Target { host: address.to_owned(), port: listener.local_addr().unwrap().port() };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            treat(stream.unwrap());
        }
    });
    target
}

/// Long enough for an attempt on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

fn timed_out(target: &Target) -> String {
    let source = StopSource::new();
    match scan(target, SHORT, &source.token()) {
        Err(ScanError::TimedOut { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_misbehaves_is_given_up_at_the_limit() {
    let held = Arc::new(nodepool_threads::Mutex::new("held connections", Vec::new()));
    let silent = server("127.0.0.1", move |stream| held.lock().push(stream));
    assert_eq!(timed_out(&silent), "no answer in time");
    let closing = server("127.0.0.1", drop);
    assert!(
        ["it closed the connection", "Connection reset by peer (os error 104)", "Broken pipe (os error 32)"]
            .contains(&timed_out(&closing).as_str())
    );
    let endless = server("127.0.0.1", |mut stream| while stream.write_all(&[b'x'; 1000]).is_ok() {});
    let why = timed_out(&endless);
    assert!(
        ["it talks without end and is no SSH server", "no answer in time"].contains(&why.as_str()),
        "{why}"
    );
    let trickling = server("127.0.0.1", |mut stream| {
        // The pause makes it slow; nothing is waited for by it.
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(timed_out(&trickling), "no answer in time");
}

#[test]
fn a_port_that_nobody_listens_on_is_refused_until_the_limit() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let target = Target { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    drop(listener);
    assert_eq!(timed_out(&target), "Connection refused (os error 111)");
    let source = StopSource::new();
    let waited = wait_for_port(&target, SHORT, &source.token());
    let text = waited.unwrap_err().to_string();
    let start = format!("127.0.0.1 port {} did not answer within ", target.port);
    assert!(text.starts_with(&start) && text.ends_with(" s: Connection refused (os error 111)"), "{text}");
}

#[test]
fn a_name_that_does_not_exist_is_told() {
    let target = Target { host: "no-such-host.invalid".to_owned(), port: 22 };
    let why = timed_out(&target);
    assert!(why.starts_with("its name c"), "{why}");
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    // Where `localhost` has two addresses, one of them is refused.
    for address in ["127.0.0.1", "::1"] {
        let target = Target { host: "localhost".to_owned(), ..server(address, drop) };
        let addresses = (target.host.as_str(), target.port).to_socket_addrs().unwrap();
        if addresses.map(|address| address.ip().to_string()).any(|found| found == address) {
            let source = StopSource::new();
            assert_eq!(wait_for_port(&target, Duration::from_secs(60), &source.token()), Ok(()), "{address}");
        }
    }
}

#[test]
fn a_stop_ends_a_scan() {
    let target = server("127.0.0.1", |_closed_at_once| ());
    let source = StopSource::new();
    let token = source.token();
    let scanner = std::thread::spawn(move || scan(&target, Duration::from_secs(600), &token));
    source.stop();
    assert_eq!(scanner.join().unwrap(), Err(ScanError::Stopped));
}

#[test]
fn a_port_that_answers_is_all_that_other_connections_need() {
    for address in ["127.0.0.1", "::1"] {
        let target = server(address, drop);
        let source = StopSource::new();
        assert_eq!(wait_for_port(&target, Duration::from_secs(60), &source.token()), Ok(()));
        let found = first_address(&target, Duration::from_secs(60), &source.token());
        assert_eq!(found, Ok(address.parse().unwrap()));
    }
    for (connection_type, has) in [("ssh", true), ("network_cli", true), ("winrm", false), ("psrp", false)] {
        assert_eq!(has_host_keys(connection_type), has, "{connection_type}");
    }
}

/// Says what a server with two types of keys does, and gives the first only `gives` times in all.
fn stingy(gives: u32) -> Target {
    let connections = AtomicU32::new(0);
    server("127.0.0.1", move |mut stream| {
        let begin =
            [b"SSH-2.0-x\r\n".to_vec(), kexinit(&["curve25519-sha256"], &["ssh-ed25519", "rsa-sha2-256"])];
        if stream.write_all(&begin.concat()).is_err() {
            return;
        }
        let number = connections.fetch_add(1, Ordering::SeqCst);
        if number < gives {
            let key = if number == 0 { "ssh-ed25519" } else { "ssh-rsa" };
            let _ = stream.write_all(&reply(key));
            // Until the client has read it and closes.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    })
}

#[test]
fn a_key_that_a_server_only_says_to_have_is_left_out() {
    let source = StopSource::new();
    let keys = scan(&stingy(1), Duration::from_secs(60), &source.token()).unwrap();
    assert_eq!(keys, [KEY]);
    let keys = scan(&stingy(2), Duration::from_secs(60), &source.token()).unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys[1].starts_with("ssh-rsa AAAA"), "{keys:?}");
}
