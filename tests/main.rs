//! The integration tests: one binary, over a real ZooKeeper.

mod harness;
mod support;
