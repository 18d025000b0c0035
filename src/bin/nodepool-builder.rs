//! The daemon that builds images.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodepool::daemon::builder_main()
}
