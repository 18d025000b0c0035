//! Becoming a daemon the classic way: fork, new session, fork, and a pipe through which the process that
//! the operator started learns whether the start succeeded.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::poll::poll_until;

/// The daemon's side of its start: it must say how it went. Dropped without a word, the start has failed.
#[derive(Debug)]
pub struct Startup {
    report: File,
}

/// Which of the two processes returned from [`detach`].
#[derive(Debug)]
pub enum Detached {
    /// The process that the operator started, once the daemon has reported: the reason of a failed start.
    Starter(Result<(), String>),
    /// The daemon.
    Daemon(Startup),
}

/// Turns the process into a daemon: a session of its own, `/` as working directory. The standard streams stay
/// until [`Startup::succeeded`], so that early messages reach the terminal. The starter waits for `limit` at most:
/// a disk that hangs must not hold up the boot of the machine.
///
/// Must be called while the process has one thread.
pub fn detach(limit: Duration) -> io::Result<Detached> {
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
    if fork()? {
        drop(write_end);
        return Ok(Detached::Starter(match report_within(limit, File::from(read_end))?.as_deref() {
            Some("ok") => Ok(()),
            Some("") => Err("the daemon ended before it had started".to_owned()),
            Some(reason) => Err(reason.to_owned()),
            None => {
                let seconds = limit.as_secs();
                Err(format!(
                    "the daemon has not started within {seconds} s; it goes on trying, and its log may say more"
                ))
            }
        }));
    }
    drop(read_end);
    rustix::process::setsid()?;
    if fork()? {
        // Not a session leader any more, so the daemon can never get a controlling terminal again.
        signal_hook::low_level::exit(0);
    }
    rustix::process::chdir("/")?;
    Ok(Detached::Daemon(Startup { report: File::from(write_end) }))
}

/// What the daemon reports; `None` if it has said nothing when `limit` is over.
fn report_within(limit: Duration, mut pipe: File) -> io::Result<Option<String>> {
    let deadline = Instant::now() + limit;
    let mut report = Vec::new();
    loop {
        if !poll_until(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(deadline))? {
            return Ok(None);
        }
        let mut bytes = [0; 4096];
        match pipe.read(&mut bytes)? {
            0 => return Ok(Some(String::from_utf8_lossy(&report).into_owned())),
            length => report.extend_from_slice(&bytes[..length]),
        }
    }
}

impl Startup {
    /// Lets the starter exit with success, and puts the standard streams on `/dev/null`.
    pub fn succeeded(mut self) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(null.as_fd())?;
        rustix::stdio::dup2_stdout(null.as_fd())?;
        rustix::stdio::dup2_stderr(null.as_fd())?;
        self.report.write_all(b"ok")
    }

    /// Lets the starter print `reason` and exit with failure.
    pub fn failed(mut self, reason: &str) {
        // A starter that has been killed meanwhile reads nothing; the daemon's log has the reason too.
        let _ = self.report.write_all(reason.as_bytes());
    }
}

/// Whether the caller is the parent.
#[allow(unsafe_code)]
fn fork() -> io::Result<bool> {
    // SAFETY: the process has one thread (the caller's duty), so the child finds no lock held by a thread
    // that does not exist there, and may go on with anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            crate::locks::after_fork();
            Ok(false)
        }
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_says_nothing_is_not_waited_for_without_end() {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let limit = Duration::from_millis(20);
        let pipe = File::from(read_end);
        assert_eq!(report_within(limit, pipe.try_clone().unwrap()).unwrap(), None);
        let mut daemon = File::from(write_end);
        daemon.write_all(b"no such ").unwrap();
        daemon.write_all(b"directory").unwrap();
        drop(daemon);
        let said = report_within(Duration::from_secs(60), pipe).unwrap();
        assert_eq!(said.as_deref(), Some("no such directory"));
    }
}
