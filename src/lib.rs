//! Nodepool: keeps Zuul CI supplied with machine images and test nodes.
//!
//! The rooms, from the ground up; each knows only those before it. [`model`] has the records, [`config`] the
//! operator's file, [`logging`] the lines of the log, [`zk`] ZooKeeper, [`stats`] the metrics, [`listing`] the
//! tables of what it has, [`host_name`] the name of this host, [`window`] how others look at a daemon's thread,
//! [`builder`] the building of images, [`launcher`] the nodes, [`web`] the pages that show how it stands, [`daemon`]
//! and [`cli`] what an operator runs. ARCHITECTURE.md shows the way of a build through them.

mod arguments;
pub mod builder;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod host_name;
pub mod launcher;
pub mod listing;
pub mod logging;
pub mod model;
pub mod stats;
pub mod web;
pub mod window;
pub mod zk;
