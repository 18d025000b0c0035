//! Processes that an earlier run of the program has left behind because it was killed: its own children can
//! only be ended by a process that lives.
//!
//! They are known by a variable that the program has put into their environment, which they hand on to what
//! they start. What clears its environment is still found by its process group, unless it has left that too.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpgid, getpgrp, getpid, kill_process_group, pidfd_open};

/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(3);

/// What came of ending leftovers, counted in process groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// As many were found.
    pub found: usize,
    /// As many are still there: of another user, or stuck in the kernel.
    pub left: usize,
}

/// Ends all processes with `variable=value` in their environment, and their process groups: SIGTERM, up to
/// `grace` to clean up, then SIGKILL. This process and its own group are left alone, and so is what belongs
/// to other users as far as the system forbids it.
pub fn end_leftovers(variable: &str, value: &str, grace: Duration) -> Leftovers {
    let mark = format!("{variable}={value}");
    let found = Marked::find(&mark);
    if found.groups.is_empty() {
        return Leftovers { found: 0, left: 0 };
    }
    found.signal(Signal::TERM);
    found.wait(grace);
    let rest = Marked::find(&mark);
    rest.signal(Signal::KILL);
    rest.wait(KILL_LIMIT);
    Leftovers { found: found.groups.len(), left: Marked::find(&mark).groups.len() }
}

#[derive(Default)]
struct Marked {
    groups: BTreeSet<i32>,
    /// Readable once the process has ended.
    processes: Vec<OwnedFd>,
}

impl Marked {
    fn find(mark: &str) -> Self {
        let (own, own_group) = (getpid(), getpgrp());
        let mut found = Self::default();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let Some(pid) = number.and_then(Pid::from_raw).filter(|pid| *pid != own) else { continue };
            // Of another user's process it cannot be read; a zombie has none.
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            if !environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
                continue;
            }
            // Opened before the group is asked for: then the group is this process's, and no later one's.
            let (Ok(process), Ok(group)) = (pidfd_open(pid, PidfdFlags::empty()), getpgid(Some(pid))) else {
                continue; // It has just ended.
            };
            if group != own_group {
                found.groups.insert(group.as_raw_nonzero().get());
                found.processes.push(process);
            }
        }
        found
    }

    fn signal(&self, signal: Signal) {
        for group in self.groups.iter().filter_map(|group| Pid::from_raw(*group)) {
            // It may have ended, or belong to somebody else.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Waits until all have ended, at most for `limit`.
    fn wait(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for process in &self.processes {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut waited = [PollFd::new(process, PollFlags::IN)];
            while matches!(poll(&mut waited, Some(&left)), Err(rustix::io::Errno::INTR)) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    const VARIABLE: &str = "NODEPOOL_LEFTOVERS_TEST";

    fn marked(value: &str, script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(VARIABLE, value).process_group(0).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The line that the process writes when it is ready.
    fn ready(child: &mut Child) -> String {
        use std::io::{BufRead as _, BufReader};
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn is_running(pid: &str) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    }

    #[test]
    fn all_of_a_marked_group_is_ended_and_nobody_else() {
        let value = format!("ours-{}", std::process::id());
        let script = "trap '' TERM; env -i sleep 600 & echo $!; while :; do wait; done";
        let mut stubborn = marked(&value, script);
        let mut polite = marked(&value, "trap 'exit 0' TERM; sleep 600 & echo $$; wait");
        let mut foreign = marked("somebody's", "echo; exec sleep 600");
        let unmarked = ready(&mut stubborn);
        ready(&mut polite);
        ready(&mut foreign);

        let begin = Instant::now();
        let ended = end_leftovers(VARIABLE, &value, Duration::from_millis(300));
        assert_eq!(ended, Leftovers { found: 2, left: 0 });
        assert!(begin.elapsed() < Duration::from_millis(300) + KILL_LIMIT);
        assert!(polite.wait().unwrap().success(), "it was asked to end before it was made to");
        assert!(stubborn.wait().unwrap().code().is_none());
        assert!(!is_running(&unmarked), "what has no mark is ended with its group");
        assert_eq!(foreign.try_wait().unwrap(), None);
        assert_eq!(end_leftovers(VARIABLE, &value, Duration::from_secs(60)).found, 0);
        foreign.kill().unwrap();
        foreign.wait().unwrap();
    }
}
