//! What every daemon of Nodepool has in common, and the daemons' command lines: becoming a daemon, the pid
//! file, signals, stack dumps, the user and the environment that they run with.

mod arguments;
mod builder;
mod environment;
mod launcher;
mod own_file;
mod pid_file;
mod program;
mod settle;
mod stack_dump;
mod stop_limit;
mod user;

pub use arguments::{builder_command, launcher_command};
pub use builder::builder_main;
pub use launcher::launcher_main;
