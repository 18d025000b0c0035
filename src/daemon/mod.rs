//! What every daemon of Nodepool has in common, and the daemons' command lines: becoming a daemon, the pid
//! file, signals.

mod builder;
mod pid_file;
mod stop_limit;

pub use builder::builder_main;
