//! What a program does before everything else: it takes on the rights, limits and environment that it keeps.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use nodepool_threads::{Account, close_inherited_files, no_core_dumps};
use rustix::fs::Mode;
use rustix::process::umask;

use super::arguments::CommonArguments;
use super::environment;
use super::pid_file::{self, PidFile};
use super::stack_dump::dump_file;
use super::user::{UserName, become_user, give_directory, give_file};
use crate::logging::LOG_DIR;

/// Below it only root may listen (ip(7)).
const FIRST_FREE_PORT: u16 = 1024;

/// Takes on the rights, limits and environment that the program keeps. A daemon, which has a pid file, also lets go of
/// what it has got from whoever started it. Returns what only root could open for the user that it becomes; `pages`
/// says where it wants to serve pages.
pub(super) fn settle(
    arguments: &CommonArguments,
    daemon: Option<&Path>,
    pages: impl FnOnce() -> Option<SocketAddr>,
) -> Result<Option<TcpListener>, String> {
    if daemon.is_some() {
        // First of all, because files and directories are made next.
        umask(Mode::from_raw_mode(0o022));
        close_inherited_files()
            .map_err(|error| format!("cannot close the files of whoever has started this: {error}"))?;
    }
    let wanted = arguments.user.as_ref().map(UserName::find).transpose()?;
    if let Some(missing) = daemon.map(pid_file::directory).transpose()?.flatten() {
        give_directory(missing, wanted.as_ref())?;
    }
    if let (Some(account), Some(pid_file)) = (&wanted, daemon) {
        // Refused if one is running; otherwise a file that was left there goes, whosever it is.
        drop(PidFile::lock(pid_file)?);
        give_file("pid file", pid_file, 0o644, account)?;
        give_file("file for stack dumps", &dump_file(pid_file), 0o600, account)?;
    }
    if daemon.is_some() {
        // Whether it is needed the logging configuration says, and whoever opens a file there says why it cannot be.
        let _ = give_directory(Path::new(LOG_DIR), wanted.as_ref());
    }
    let mut door = None;
    if let Some(account) = &wanted {
        // What is wrong with the configuration or the address is told later, by those who need them.
        let of_root = pages().filter(|pages| (1..FIRST_FREE_PORT).contains(&pages.port()));
        door = of_root.and_then(|pages| TcpListener::bind(pages).ok());
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
    prepared().map_err(|error| format!("cannot prepare the environment: {error}"))?;
    Ok(door)
}
