//! Child processes, each the leader of a process group of its own, so that ending one ends all that it
//! started.
//!
//! A waiter thread watches for the leader's end without reaping it: as long as the leader is a zombie its
//! process group id cannot be used again, and what is left of the group can be killed without hitting a
//! stranger. Only then is it reaped.
//!
//! What another user runs in the group, as below sudo, takes no signals from this one. It is waited for, and told of.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::locks::Mutex;
use crate::processes::{Process, members};
use crate::registry::{Thread, spawn};
use crate::signals::unblocked;
use crate::stop::{Interrupted, StopToken, Waited};

/// How long a process may take to clean up that is dropped without having ended: a panic, most likely.
const DROP_GRACE: Duration = Duration::from_secs(1);
/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(3);
/// How long to wait for them before looking for what they have started meanwhile.
const ROUND: Duration = Duration::from_millis(100);

static GROUPS: Mutex<Vec<Pid>> = Mutex::new("child groups", Vec::new());

/// Kills every process group that a [`ChildGroup`] started and that has not ended: for a process that is
/// about to exit without waiting for its threads.
pub fn kill_child_groups() {
    // A stopping process must not wait for a lock that another thread may hold for ever.
    if let Some(groups) = GROUPS.try_lock_for(Duration::from_millis(100)) {
        for group in groups.iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }
}

/// A running child process and everything that it started. Ended when dropped.
#[derive(Debug)]
pub struct ChildGroup {
    child: Child,
    group: Pid,
    ended: Receiver<()>,
    status: Option<ExitStatus>,
    survivors: Option<String>,
    /// Gone when the leader could not be ended, and with it all hope that the thread ends.
    waiter: Option<Thread<()>>,
}

impl ChildGroup {
    /// Starts `command` in a process group of its own. `name` names the thread that waits for it.
    pub fn spawn(command: &mut Command, name: &str) -> io::Result<Self> {
        let child = unblocked(|| command.process_group(0).spawn())?;
        let group = Pid::from_child(&child);
        GROUPS.lock().push(group);
        let (tell, ended) = bounded::<()>(0);
        let waiter = spawn(format!("wait-{name}"), "child waiter", move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(group), options), Err(Errno::INTR)) {}
            drop(tell);
        });
        let waiter = match waiter {
            Ok(waiter) => waiter,
            Err(error) => {
                let mut child = child;
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                GROUPS.lock().retain(|known| *known != group);
                return Err(error);
            }
        };
        Ok(Self { child, group, ended, status: None, survivors: None, waiter: Some(waiter) })
    }

    /// The process id of the leader, which is the id of the group as well.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the leader's end, at most as long as `stop` allows, and ends what it left behind.
    pub fn wait(&mut self, stop: &StopToken) -> Result<io::Result<ExitStatus>, Interrupted> {
        match stop.recv(&self.ended) {
            Err(Waited::Interrupted(why)) => Err(why),
            Ok(()) | Err(Waited::Disconnected | Waited::TimedOut) => Ok(self.reap()),
        }
    }

    /// Ends the whole group: SIGTERM, up to `grace` for the leader to clean up, then SIGKILL.
    pub fn terminate(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        if self.status.is_none() {
            let _ = kill_process_group(self.group, Signal::TERM);
            let _ = self.ended.recv_timeout(grace);
        }
        self.reap()
    }

    /// What of the group could not be ended, in a sentence for people: another user's, or stuck in the kernel. To be
    /// asked after [`ChildGroup::wait`] or [`ChildGroup::terminate`], which tell of the leader only.
    pub fn survivors(&self) -> Option<&str> {
        self.survivors.as_deref()
    }

    /// Kills what is left of the group and takes the leader's exit status.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let killed = kill_process_group(self.group, Signal::KILL);
        // Ends at once, but for a leader of another user, or one that the kernel does not let go.
        let patience = if self.waiter.is_some() { KILL_LIMIT } else { Duration::ZERO };
        let deadline = Instant::now() + patience;
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            if let Some(waiter) = self.waiter.take() {
                waiter.detach();
            }
            let why = killed.err().map_or("it does not end".to_owned(), |error| error.to_string());
            let what = format!("cannot end the process {} and what it has started: {why}", self.id());
            self.survivors = Some(what.clone());
            return Err(io::Error::other(what));
        }
        self.survivors = self.kill_members(deadline);
        let status = self.child.wait();
        GROUPS.lock().retain(|known| *known != self.group);
        self.status = status.as_ref().ok().copied();
        status
    }

    /// Kills what the leader has left behind, which is a zombie still, and waits for its end. That a signal was sent says
    /// nothing: one member that takes it is enough.
    fn kill_members(&self, deadline: Instant) -> Option<String> {
        let own = self.group.as_raw_nonzero().get();
        loop {
            let left: Vec<Process> = members(|group| group == own).map(|(_, member)| member).collect();
            let now = Instant::now();
            if left.is_empty() {
                return None;
            }
            if now >= deadline {
                let pids: Vec<String> = left.iter().map(|member| member.pid.to_string()).collect();
                let (leader, pids) = (self.id(), pids.join(", "));
                return Some(format!(
                    "cannot end all that the process {leader} has started, still running: {pids}"
                ));
            }
            let _ = kill_process_group(self.group, Signal::KILL);
            let round = deadline.min(now + ROUND);
            for member in &left {
                member.wait_for_end(round.saturating_duration_since(Instant::now()));
            }
        }
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        // Whoever drops it has no use for the outcome.
        let _ = self.terminate(DROP_GRACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::StopSource;
    use std::process::Stdio;

    fn shell(script: &str) -> ChildGroup {
        ChildGroup::spawn(Command::new("sh").args(["-c", script]).stdout(Stdio::null()), "test").unwrap()
    }

    fn alive(pid: &str) -> bool {
        // A killed process may stay a zombie until init reaps it.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    }

    fn eventually(what: &str, mut done: impl FnMut() -> bool) {
        let source = StopSource::new();
        let patience = source.token().deadline_in(Duration::from_secs(10));
        while !done() {
            assert!(patience.wait(Duration::from_millis(5)).is_ok(), "never happened: {what}");
        }
    }

    #[test]
    fn the_exit_status_is_that_of_the_leader() {
        let source = StopSource::new();
        let status = shell("exit 7").wait(&source.token()).unwrap().unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn a_deadline_ends_the_wait_and_terminate_ends_the_whole_group() {
        let source = StopSource::new();
        let dir = std::env::temp_dir().join(format!("child-test-{}", std::process::id()));
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", dir.display());
        let mut child = shell(&script);
        eventually("the grandchild's pid", || dir.exists());
        let pid = std::fs::read_to_string(&dir).unwrap();
        let soon = source.token().deadline_in(Duration::from_millis(20));
        assert_eq!(child.wait(&soon).unwrap_err(), Interrupted::DeadlinePassed);
        assert!(!child.terminate(Duration::from_secs(5)).unwrap().success());
        assert!(!alive(pid.trim()), "it is waited for");
        assert_eq!(child.survivors(), None);
        std::fs::remove_file(dir).unwrap();
    }

    #[test]
    fn a_process_that_ignores_the_request_is_killed() {
        let mut child = shell("trap '' TERM; while :; do sleep 600; done");
        let status = child.terminate(Duration::from_millis(50)).unwrap();
        assert!(status.code().is_none(), "ended by {status}");
    }

    #[test]
    fn a_child_takes_the_signals_that_its_starter_blocks() {
        use std::os::unix::process::ExitStatusExt as _;
        // In a thread of its own, whose mask goes with it.
        let status = std::thread::spawn(|| {
            crate::block_signals(crate::StopSignals::AlsoUsr1).unwrap();
            ["USR1", "USR2"].map(|signal| {
                let mut child = shell(&format!("kill -{signal} $$; exit 7"));
                child.wait(&StopSource::new().token()).unwrap().unwrap().signal()
            })
        });
        let taken = [signal_hook::consts::SIGUSR1, signal_hook::consts::SIGUSR2];
        assert_eq!(status.join().unwrap(), taken.map(Some));
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let child = shell("sleep 600");
        let pid = child.id().to_string();
        drop(child);
        assert!(!alive(&pid));
    }
}
