//! The integration tests: one binary, over a real ZooKeeper.
#![allow(clippy::disallowed_types, reason = "the harness does not use what it tests")]

mod builder;
mod harness;
mod logging;
mod nodepool_client;
mod nodepool_wait;
mod packages;
mod support;
mod zk;
