//! What every daemon of Nodepool has in common, and the daemons' command lines: becoming a daemon, the pid
//! file, signals, stack dumps, the user and the environment that they run with.

mod arguments;
mod builder;
mod environment;
mod pid_file;
mod settle;
mod stack_dump;
mod stop_limit;
mod user;

pub use arguments::builder_command;
pub use builder::builder_main;
