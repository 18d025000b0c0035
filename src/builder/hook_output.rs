//! What a hook says: read while it runs, however much it is, and the end of it kept for the log.
//!
//! A file would grow for as long as the hook runs, and one without a name, as memfd makes, in memory.

use std::io;
use std::os::fd::OwnedFd;

use nodepool_threads::{Thread, Waker, activity, poll_until, spawn};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};

/// As much is kept. A pipe has room for no more, unless somebody has enlarged it.
const KEPT: usize = 64 << 10;

/// The thread that listens.
pub(super) struct HookOutput {
    ended: Waker,
    listener: Option<Thread<Said>>,
}

impl HookOutput {
    /// Begins to listen to whoever gets the other value for its output.
    pub(super) fn listen() -> io::Result<(Self, OwnedFd)> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&from, OFlags::NONBLOCK)?;
        let ended = Waker::new()?;
        let waker = ended.clone();
        let listener = spawn("hook-output", "hook output", move || {
            let _doing = activity("reading what a hook says");
            listen(&from, &waker)
        })?;
        Ok((Self { ended, listener: Some(listener) }, to))
    }

    /// What the hook has said until its end, which has come.
    pub(super) fn end(mut self) -> String {
        self.ended.wake();
        let said = self.listener.take().and_then(|listener| listener.join().ok());
        said.unwrap_or_default().text()
    }
}

impl Drop for HookOutput {
    fn drop(&mut self) {
        // Something that the hook has started may have its output still.
        self.ended.wake();
    }
}

fn listen(from: &OwnedFd, ended: &Waker) -> Said {
    let mut said = Said::default();
    let mut buffer = vec![0; KEPT];
    loop {
        let mut waited = [PollFd::new(from, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        if poll_until(&mut waited, None).is_err() {
            return said;
        }
        let over = !waited[1].revents().is_empty();
        match read(from, &mut buffer) {
            Ok(0) => return said,
            Ok(length) => said.add(&buffer[..length]),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {}
            Err(_) => return said,
        }
        // What it wrote before its end was all in the pipe.
        if over {
            return said;
        }
    }
}

/// The end of what was said.
#[derive(Default)]
struct Said {
    end: Vec<u8>,
    total: u64,
}

impl Said {
    fn add(&mut self, more: &[u8]) {
        self.total += more.len() as u64;
        self.end.extend_from_slice(more);
        self.end.drain(..self.end.len().saturating_sub(KEPT));
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.end);
        let left_out = self.total - self.end.len() as u64;
        let note = if left_out > 0 { format!("({left_out} bytes left out) ") } else { String::new() };
        format!("{note}{}", text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodepool_threads::{ChildGroup, StopSource};
    use std::process::{Command, Stdio};

    /// What is kept of a script's output.
    fn said_by(script: &str) -> String {
        let (output, to) = HookOutput::listen().unwrap();
        let mut child = {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(Stdio::from(to.try_clone().unwrap())).stderr(Stdio::from(to));
            ChildGroup::spawn(&mut command, "hook").unwrap()
        };
        assert!(child.wait(&StopSource::new().token()).unwrap().unwrap().success());
        output.end()
    }

    #[test]
    fn both_streams_are_read_to_their_end() {
        assert_eq!(said_by("echo one; echo two >&2; echo three >/dev/stderr; echo"), "one\ntwo\nthree");
        assert_eq!(said_by(":"), "");
    }

    #[test]
    fn of_much_the_end_is_kept_and_nothing_waits() {
        // Nor does it grow anywhere.
        let script = "head -c 50000000 /dev/zero | tr '\\0' x; stat -L -c %s /proc/$$/fd/1";
        let said = said_by(script);
        assert!(said.ends_with("xx0"), "{}", &said[said.len() - 20..]);
        assert!(said.starts_with("(49934466 bytes left out) xx") && said.len() < KEPT + 40, "{}", said.len());
    }

    #[test]
    fn what_a_hook_leaves_running_is_not_waited_for() {
        let daemon = "echo \\$\\$; kill -USR1 $$; exec sleep 600";
        let pid = said_by(&format!("trap 'exit 0' USR1; setsid sh -c \"{daemon}\" & wait"));
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success(), "it runs: {pid}");
    }
}
