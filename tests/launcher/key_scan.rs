//! The host key scan against a real SSH server, compared with `ssh-keyscan`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Duration;

use nodepool::launcher::key_scan::{ScanError, Target, scan, wait_for_port};
use nodepool_threads::StopSource;

use crate::support::Sandbox;
use crate::support::sshd::{ALL_KEYS, Sshd};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(60);

fn target(sshd: &Sshd) -> Target {
    Target { host: sshd.address().to_string(), port: sshd.port() }
}

fn keys(sshd: &Sshd) -> Vec<String> {
    let source = StopSource::new();
    scan(&target(sshd), LIMIT, &source.token()).unwrap_or_else(|error| panic!("{error}\n{}", sshd.said()))
}

fn sorted(mut keys: Vec<String>) -> Vec<String> {
    keys.sort();
    keys
}

#[test]
fn keys_of_all_types_are_those_of_ssh_keyscan() {
    for address in [V4, Ipv6Addr::LOCALHOST.into()] {
        let sshd = Sshd::start(address, &ALL_KEYS, "");
        let found = keys(&sshd);
        let types: Vec<_> = found.iter().map(|key| key.split(' ').next().unwrap()).collect();
        let expected =
            ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];
        assert_eq!(types, expected, "in the original's order");
        let found = sorted(found);
        assert_eq!(found, sshd.keys());
        // It asks for one ecdsa key only.
        let theirs = sshd.keyscan();
        assert!(theirs.len() >= 3 && theirs.iter().all(|key| found.contains(key)), "{theirs:#?}");
    }
}

#[test]
fn a_server_with_one_key_has_one_and_is_asked_once() {
    let sshd = Sshd::start(V4, &[("ed25519", 256)], "");
    let found = keys(&sshd);
    assert_eq!((found.clone(), found), (sshd.keys(), sshd.keyscan()));
    assert_eq!(sshd.clients("nodepool"), 1, "{}", sshd.said());
}

#[test]
fn each_method_of_key_exchange_gives_the_key() {
    for method in [
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group14-sha1",
    ] {
        let sshd = Sshd::start(V4, &[("ed25519", 256)], &format!("KexAlgorithms {method}"));
        assert_eq!(keys(&sshd), sshd.keys(), "{method}");
    }
}

#[test]
fn a_server_that_has_only_old_signatures_still_has_its_key() {
    let more = "HostKeyAlgorithms ssh-rsa\nCiphers aes128-cbc\nMACs hmac-sha1";
    let sshd = Sshd::start(V4, &[("rsa", 2048)], more);
    assert_eq!(keys(&sshd), sshd.keys());
}

#[test]
fn a_server_that_comes_up_late_is_waited_for() {
    let mut sshd = Sshd::prepare(V4, &ALL_KEYS, "");
    // What hangs up is no server yet; that it was called shows that the scan has begun.
    let early = TcpListener::bind((V4, sshd.port())).unwrap();
    let (target, source) = (target(&sshd), StopSource::new());
    let token = source.token();
    let scanner = std::thread::spawn(move || scan(&target, LIMIT, &token));
    drop(early.accept().unwrap());
    drop(early);
    sshd.run();
    let found = scanner.join().unwrap().unwrap_or_else(|error| panic!("{error}\n{}", sshd.said()));
    assert_eq!(sorted(found), sshd.keys());
}

#[test]
fn a_server_that_hangs_is_given_up_and_one_that_goes_on_is_not() {
    let mut sshd = Sshd::start(V4, &[("ed25519", 256)], "");
    assert_eq!(keys(&sshd), sshd.keys());
    sshd.server().freeze();
    let source = StopSource::new();
    // The kernel accepts connections in its place.
    assert_eq!(wait_for_port(&target(&sshd), LIMIT, &source.token()), Ok(()));
    match scan(&target(&sshd), Duration::from_secs(2), &source.token()) {
        Err(ScanError::TimedOut { why, .. }) => assert_eq!(why, "no answer in time"),
        other => panic!("{other:?}"),
    }
    let (hanging, token) = (target(&sshd), source.token());
    let scanner = std::thread::spawn(move || scan(&hanging, LIMIT, &token));
    sshd.server().signal(crate::support::Signal::CONT);
    assert_eq!(scanner.join().unwrap(), Ok(sshd.keys()));
}

#[test]
fn two_hundred_scans_end_with_one_stop() {
    // It never accepts; the kernel does for some, and lets the others wait.
    let silent = TcpListener::bind((V4, 0)).unwrap();
    let target = Target { host: V4.to_string(), port: silent.local_addr().unwrap().port() };
    let source = StopSource::new();
    let scanners: Vec<_> = (0..200)
        .map(|_| {
            let (target, token) = (target.clone(), source.token());
            std::thread::spawn(move || scan(&target, Duration::from_secs(600), &token))
        })
        .collect();
    source.stop();
    for scanner in scanners {
        assert_eq!(scanner.join().unwrap(), Err(ScanError::Stopped));
    }
}

#[test]
fn a_launched_node_is_ready_with_the_keys_of_its_server() {
    let mut sshd = Sshd::prepare(V4, &ALL_KEYS, "");
    let sandbox = Sandbox::new("launcher-host-keys");
    sandbox.write_body(&format!(
        "labels: [{{name: small, min-ready: 1}}]\n\
         providers:\n\
         - name: cloud\n  \
           driver: fake\n  \
           cloud: fake\n  \
           cloud-images: [{{name: image, username: zuul, connection-port: {}}}]\n  \
           pools: [{{name: main, labels: [{{name: small, cloud-image: image}}]}}]\n",
        sshd.port(),
    ));
    let zk = sandbox.zk();
    let _launcher = sandbox.launcher(&[]);
    super::wait_nodes(&zk, "building", 1);
    sshd.run();
    let node = super::wait_nodes(&zk, "ready", 1).remove(0);
    let record = super::record(&zk, &node).unwrap();
    let keys: Vec<String> = serde_json::from_value(record["host_keys"].clone()).unwrap();
    assert_eq!(sorted(keys), sshd.keys(), "{record:#}");
}
