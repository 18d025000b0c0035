//! Serving node requests (spec/zookeeper.md, Nodes and requests).
//!
//! [`NodepoolLauncherApp`] starts and stops it all. The launcher thread in `manager` keeps the `world`, decoded from
//! copies of ZooKeeper's tree, has nodes kept in stock (`min_ready`, by `errands`), and runs a thread for each
//! provider. That one (`provider_worker`) owns the handlers of the requests that its pools serve: it asks `assign`
//! about each new request and `cleaner` about each node, and hands `jobs` to its workers: requests (`handler`),
//! launches (`launch`), deletions; a `survey` looks at the provider. Whether a new node answers is found out by
//! [`key_scan`]; [`standing`] has the nodes of machines that stand there already. What is decided and not to be seen
//! yet is in the `ledger`; what is known of a provider are its `facts`, and what the work for it is done with its
//! `tools`; what goes on stands on the
//! `board`, and others see it through the `window`.

mod allot;
mod app;
mod assign;
mod board;
mod cleaner;
mod ended;
mod errand_queue;
mod errands;
mod event;
mod facts;
mod handler;
mod jobs;
pub mod key_scan;
mod launch;
mod leader;
mod ledger;
mod manager;
mod metrics;
mod min_ready;
mod offer;
mod provider_worker;
mod shared;
pub mod standing;
mod survey;
mod tools;
mod window;
mod world;

pub use app::NodepoolLauncherApp;
pub use board::{Fault, Goings, LaunchFailure, Launching, PoolName, StuckNode, Trouble};
pub use window::{Copies, PoolView, ProviderView, Room, View, Window};
