//! Logging: where the lines of a program go, and that writing them never holds up its work.
//!
//! [`LogSettings`] says which outputs there are and which logger's lines go to which of them: the defaults, or a
//! file of ours (`own`) or of the original's two forms (`dict_config`, `ini`; both come together in `python`). In
//! each, `checks` looks for what can hardly be meant. [`Logging`] is the program's handle of them all. A line is
//! formatted by the thread that says it (`line`, `json`) and goes into a bounded queue for each output that wants
//! it (`outputs`, `queue`); a thread for each output writes them (`writer`) to a file (`log_file`), a stream
//! (`console`) or syslog (`syslog`).

mod checks;
mod console;
mod dict_config;
mod handle;
mod ini;
mod json;
mod levels;
mod line;
mod literal;
mod log_file;
mod names;
mod outputs;
mod own;
mod python;
mod queue;
mod read;
mod settings;
mod syslog;
#[cfg(test)]
mod tests;
mod writer;

pub use console::write_to_stderr;
pub use handle::{Logging, Stuck, Writers};
pub use settings::{LOG_DIR, LogSettings, Stream};
