//! The integration tests: one binary, over a real ZooKeeper.

mod builder;
mod harness;
mod nodepool_client;
mod nodepool_wait;
mod support;
mod zk;
