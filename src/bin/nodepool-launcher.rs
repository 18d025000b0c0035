//! The daemon that serves node requests.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodepool::daemon::launcher_main()
}
