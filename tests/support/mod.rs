//! The harness of the integration tests: real ZooKeepers, networks, certificates, and a sandbox per test.
//!
//! A test takes a [`Sandbox`] (a directory and a chroot of its own on the ZooKeeper that all tests of this
//! process share), writes a configuration, starts daemons and looks at ZooKeeper through [`ZkClient`]. The
//! harness never uses the code it tests: what it knows of the ZooKeeper contract stands here a second time.
//! Nothing sleeps and hopes: every wait is a condition under a deadline, see [`eventually`]. Only what must not happen
//! during an outage, or what dawdles on purpose, takes a fixed time.
//! Whatever it starts ends with the test process, even when that is killed: see [`leash`].
#![allow(dead_code, missing_docs, unused_imports)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

mod again;
mod client;
mod daemon;
mod ensemble;
pub mod history;
pub mod http;
mod jvm;
pub mod leash;
mod network;
pub mod openstack;
pub mod original;
pub mod pages;
mod sandbox;
pub mod sshd;
mod statsd;
pub mod tls;
mod wait;
mod zk_client;
mod zookeeper;

pub use again::{again, passes};
pub use client::{CLIENT_LIMIT, Outcome};
pub use daemon::Daemon;
pub use ensemble::Ensemble;
pub use network::Network;
pub use openstack::OpenStack;
pub use original::Original;
pub use sandbox::{Header, Sandbox, Transport};
pub use statsd::{Statsd, Values};
pub use wait::{eventually, scratch_dir, within};
pub use zk_client::{ZkClient, Znode};
pub use zookeeper::{Options, ZooKeeper, shared};

/// The signals that [`Daemon::signal`] sends.
pub use rustix::process::Signal;
