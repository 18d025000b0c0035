//! The integration tests: one binary, over a real ZooKeeper.
#![allow(clippy::disallowed_types, reason = "the harness does not use what it tests")]

mod builder;
mod client;
mod harness;
mod launcher;
mod logging;
mod openstack;
mod packages;
mod support;
mod zk;
