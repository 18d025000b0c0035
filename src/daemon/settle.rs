//! What a program does before everything else: it takes on the rights, limits and environment that it keeps.

use std::path::Path;

use nodepool_threads::{Account, close_inherited_files, no_core_dumps};
use rustix::fs::Mode;
use rustix::process::umask;

use super::arguments::Arguments;
use super::environment;
use super::stack_dump::Fallback;
use super::user::{UserName, become_user, give_directory, give_file};
use crate::logging::LOG_DIR;

/// Takes on the rights, limits and environment that the program keeps. A daemon, which has a pid file, also lets go of
/// what it has got from whoever started it.
pub(super) fn settle(arguments: &Arguments, daemon: Option<&Path>) -> Result<(), String> {
    if daemon.is_some() {
        // First of all, because files and directories are made next.
        umask(Mode::from_raw_mode(0o022));
        close_inherited_files()
            .map_err(|error| format!("cannot close the files of whoever has started this: {error}"))?;
    }
    let wanted = arguments.user.as_ref().map(UserName::find).transpose()?;
    if let (Some(account), Some(pid_file)) = (&wanted, daemon) {
        give_file("pid file", pid_file, 0o644, account)?;
        give_file("file for stack dumps", &Fallback::beside(pid_file, false).file, 0o600, account)?;
        if arguments.logging.is_none() {
            give_directory(Path::new(LOG_DIR), account)?;
        }
    }
    if let Some(account) = &wanted {
        become_user(account)?;
    }
    // Private keys are in its memory.
    no_core_dumps().map_err(|error| format!("cannot turn core dumps off: {error}"))?;
    let prepared = || {
        if daemon.is_some() {
            environment::leave_the_session()?;
        }
        // A daemon of a user that the database does not know keeps what it was given.
        let known = if daemon.is_some() { Account::of_process()? } else { None };
        wanted.or(known).map_or(Ok(()), |account| environment::belong_to(&account))
    };
    prepared().map_err(|error| format!("cannot prepare the environment: {error}"))
}
