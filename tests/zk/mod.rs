//! The ZooKeeper layer over a real server: plainly used, over bad networks, over TLS.
//!
//! A test that only needs to be cut off puts a [`proxy::Proxy`] before the shared server; one that kills or
//! stops the server has its own.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::unwrap_used, missing_docs)]

mod cache;
mod doubt;
mod ensemble;
mod failover;
mod granted;
mod kazoo;
mod leaks;
mod locks;
mod membership;
mod names;
mod network;
mod numbered;
mod outage;
mod plain;
mod proxy;
mod server_down;
mod tls;

use std::time::Duration;

use nodepool::config::{Server, ZooKeeperConfig};
use nodepool::zk::{Session, SessionThread};
use slog::{Drain, Logger, o};

use crate::support::{Sandbox, ZooKeeper, within};

/// The session timeout where a test waits for it; the test server's shortest is 0.5 s.
const T: Duration = Duration::from_secs(2);
/// For what needs no waiting on a machine that works.
const SOON: Duration = Duration::from_secs(10);

fn log() -> Logger {
    let plain = slog_term::PlainSyncDecorator::new(slog_term::TestStdoutWriter);
    Logger::root(slog_term::FullFormat::new(plain).build().fuse(), o!())
}

fn at(host: &str, port: u16) -> Server {
    Server { host: host.to_owned(), port }
}

fn config(port: u16, chroot: &str, timeout: Duration) -> ZooKeeperConfig {
    ZooKeeperConfig { servers: vec![at("127.0.0.1", port)], chroot: chroot.to_owned(), tls: None, timeout }
}

/// A session that is connected.
fn connect(config: &ZooKeeperConfig) -> (Session, SessionThread) {
    let (session, thread) = Session::start(config, &log()).unwrap();
    session.wait_connected(SOON).unwrap();
    (session, thread)
}

/// A session in the sandbox.
fn open(sandbox: &Sandbox<'_>) -> (Session, SessionThread) {
    connect(&config(sandbox.server().plain_port(), sandbox.chroot(), SOON))
}

/// Waits until the session says why it cannot connect, in a text with all `parts`.
#[track_caller]
fn assert_trouble(config: &ZooKeeperConfig, parts: &[&str]) {
    let (session, _thread) = Session::start(config, &log()).unwrap();
    let mut last = String::new();
    let said = within(SOON, || {
        let error = session.wait_connected(Duration::from_millis(50)).expect_err("a session that is refused");
        last = error.to_string();
        parts.iter().all(|part| last.contains(part)).then_some(())
    });
    assert!(said.is_some(), "waited in vain for {parts:?}: {last}");
    eprintln!("{last}");
}

/// The session that owns an ephemeral znode.
fn owner(server: &ZooKeeper, chroot: &str, path: &str) -> Option<i64> {
    let client = crate::support::ZkClient::connect(server, chroot);
    client.get(path).map(|znode| znode.ephemeral_owner)
}
