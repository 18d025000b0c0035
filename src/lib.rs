//! Nodepool: keeps Zuul CI supplied with machine images and test nodes.
//!
//! The rooms, from the ground up; each knows only those before it. [`model`] has the records, [`config`]
//! the operator's file, [`logging`] the lines of the log, [`zk`] ZooKeeper, [`builder`] the building of images,
//! [`daemon`] and [`cli`] what an operator runs. ARCHITECTURE.md shows the way of a build through them.

pub mod builder;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod logging;
pub mod model;
pub mod zk;
