//! Names of servers and their addresses, of both kinds.
//!
//! The tests of names run in a process of their own, which sees a file of ours in place of `/etc/hosts`; nobody
//! else does.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Instant;

use nodepool::config::ZooKeeperConfig;
use nodepool::zk::Lock;

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, T, at, config, connect};
use crate::support::{Options, Sandbox, ZooKeeper, again, passes, shared};

/// What the process of its own finds its file of names by.
const HOSTS: &str = "NODEPOOL_TEST_HOSTS";
const NAME: &str = "zookeeper.test";

#[test]
fn a_server_on_ipv6_is_reached_by_its_address() {
    let address = Ipv6Addr::LOCALHOST.into();
    let server = ZooKeeper::start_with(Options { address, ..Options::default() });
    let servers = vec![at("::1", server.plain_port())];
    let (session, _thread) = connect(&ZooKeeperConfig { servers, ..config(0, "", T) });
    session.ensure_path("/a/b").unwrap();
    let client = crate::support::ZkClient::connect(&server, "");
    assert!(client.exists("/a/b"));
    drop(client);
    server.kill();
    server.restart();
    session.ensure_path("/a/c").unwrap();
}

/// Runs one of the ignored tests below where `/etc/hosts` is a file of the test's own.
fn with_own_hosts(test: &str) {
    let sandbox = Sandbox::new(test);
    let hosts = sandbox.path("hosts");
    std::fs::write(&hosts, "").unwrap();
    let mut command = Command::new("unshare");
    // Mounts are private there by default.
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(&hosts);
    let again = again(&format!("zk::names::{test}"));
    command.arg(again.get_program()).args(again.get_args()).env(HOSTS, &hosts);
    let text = passes(command);
    text.lines().filter(|line| line.contains("FIGURE")).for_each(|line| eprintln!("{line}"));
}

/// Makes [`NAME`] mean these addresses from now on. In place, because it is this file that is mounted.
fn set_addresses(addresses: &[&str]) {
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    std::fs::write(std::env::var(HOSTS).unwrap(), format!("127.0.0.1 localhost\n{lines}")).unwrap();
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    with_own_hosts("tries_all_addresses_of_a_name");
}

/// Not a test: what the one above runs.
#[test]
#[ignore = "run by all_addresses_of_a_name_are_tried"]
fn tries_all_addresses_of_a_name() {
    set_addresses(&["::1", "127.0.0.1"]);
    // Whichever comes first, one of them is wrong.
    for listens in [SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))] {
        let proxy = Proxy::at(listens, shared().plain_port());
        let servers = vec![at(NAME, proxy.port())];
        let (session, _thread) = connect(&ZooKeeperConfig { servers, ..config(0, "", T) });
        session.stat("/").unwrap();
        assert!(proxy.accepted() > 0);
    }
}

#[test]
fn a_name_is_resolved_again_for_each_connection() {
    with_own_hosts("resolves_a_name_again");
}

/// Not a test: what the one above runs.
#[test]
#[ignore = "run by a_name_is_resolved_again_for_each_connection"]
fn resolves_a_name_again() {
    let old = Proxy::before(shared().plain_port());
    // An address of the loopback network that is not the old one, with the same port.
    let new = Proxy::at((Ipv4Addr::new(127, 0, 0, 2), old.port()).into(), shared().plain_port());
    set_addresses(&["127.0.0.1"]);
    let servers = vec![at(NAME, old.port())];
    let (session, _thread) = connect(&ZooKeeperConfig { servers, ..config(0, "", SOON) });
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    assert_eq!((old.accepted(), new.accepted()), (1, 0));
    set_addresses(&["127.0.0.2"]);
    let moved = Instant::now();
    old.set(Net::Refuse);
    old.cut();
    lock.session().ensure_path("/work").unwrap();
    eprintln!("FIGURE server moved to another address: a call {:?} later", moved.elapsed());
    assert_eq!((old.accepted(), new.accepted()), (1, 1));
}
