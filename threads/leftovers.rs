//! Processes that an earlier run of the program has left behind because it was killed: its own children can
//! only be ended by a process that lives.
//!
//! A [`Mark`] in their environment tells whose they are, and which session (setsid(2)) they were started in.
//! What has left that session, as every daemon does that somebody starts from a script, is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::processes::{Process, group_and_session, members, own_group_and_session, processes};

/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(3);
/// How long to wait for them before looking for what they have started meanwhile.
const ROUND: Duration = Duration::from_millis(100);

/// What the program puts into the environment of a child, which hands it on to what it starts.
#[derive(Debug, Clone)]
pub struct Mark {
    variable: &'static str,
    owner: String,
}

/// What came of ending leftovers, counted in process groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// As many were found.
    pub found: usize,
    /// As many still have living processes: of another user, or stuck in the kernel.
    pub left: usize,
}

impl Mark {
    /// A mark in the environment variable `variable`; `owner` is who the program is, the same in all of its
    /// runs.
    pub fn new(variable: &'static str, owner: &str) -> Self {
        Self { variable, owner: owner.to_owned() }
    }

    /// Marks a child that is about to be started.
    pub fn put_on(&self, command: &mut Command) {
        let (_, session) = own_group_and_session();
        command.env(self.variable, format!("{}/{session}", self.owner));
    }

    /// Ends all that has this mark and is still in the session that it was started in, with the process groups
    /// that it belongs to: SIGTERM, up to `grace` to clean up, then SIGKILL. To be called while no living run
    /// of the program has children.
    pub fn end_leftovers(&self, grace: Duration) -> Leftovers {
        let mut groups = Groups::default();
        groups.find(self);
        let found = groups.0.len();
        if found == 0 {
            return Leftovers { found, left: 0 };
        }
        groups.signal(Signal::TERM);
        groups.wait(Instant::now() + grace);
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            groups.find(self);
            if groups.0.is_empty() || Instant::now() >= deadline {
                return Leftovers { found: found.max(groups.0.len()), left: groups.0.len() };
            }
            groups.signal(Signal::KILL);
            groups.wait(deadline.min(Instant::now() + ROUND));
        }
    }

    /// Whether the environment has this mark, put there in `session`.
    fn is_in(&self, environment: &[u8], session: i32) -> bool {
        let wanted = format!("{}={}/{session}", self.variable, self.owner);
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    }
}

/// Process groups by their numbers. As long as a member lives, the number cannot become another group's.
#[derive(Default)]
struct Groups(BTreeMap<i32, Vec<Process>>);

impl Groups {
    /// Forgets what has ended, and adds the groups of marked processes, each with all of its members.
    fn find(&mut self, mark: &Mark) {
        for known in self.0.values_mut() {
            known.retain(|member| !member.has_ended());
        }
        self.0.retain(|_, known| !known.is_empty());
        let (own_group, _) = own_group_and_session();
        let marked = processes().filter_map(|pid| {
            let process = Process::open(pid)?;
            let (group, session) = group_and_session(pid)?;
            // Of another user's process it cannot be read; a zombie has none.
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let ours = group != own_group && mark.is_in(&environment, session);
            // What was read is the process's own only if its number has not become another's meanwhile.
            (ours && !process.has_ended()).then_some((group, process))
        });
        for (group, process) in marked {
            self.0.entry(group).or_default().push(process);
        }
        if self.0.is_empty() {
            return; // As at almost every start.
        }
        // Members without the mark: another user's below sudo, or with an environment of their own.
        let all: Vec<_> = members(|group| self.0.contains_key(&group)).collect();
        for (group, process) in all {
            self.0.entry(group).or_default().push(process);
        }
    }

    fn signal(&self, signal: Signal) {
        for group in self.0.keys().filter_map(|group| Pid::from_raw(*group)) {
            // It may have ended, or belong to somebody else.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Waits until all members have ended, at most until `deadline`.
    fn wait(&self, deadline: Instant) {
        for member in self.0.values().flatten() {
            member.wait_for_end(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Stdio};

    fn mark(owner: &str) -> Mark {
        Mark::new("NODEPOOL_LEFTOVERS_TEST", &format!("{owner}-{}", std::process::id()))
    }

    /// A marked process in a group of its own, and the line that it writes when it is ready.
    fn start(owner: &str, script: &str) -> (Child, String) {
        use std::io::{BufRead as _, BufReader};
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0).stdout(Stdio::piped());
        mark(owner).put_on(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line.trim().to_owned())
    }

    fn is_running(pid: &str) -> bool {
        Pid::from_raw(pid.parse().unwrap()).and_then(group_and_session).is_some()
    }

    const GRACE: Duration = Duration::from_millis(300);

    #[test]
    fn all_of_a_marked_group_is_ended_and_nobody_elses() {
        let (mut polite, _) = start("all", "trap 'exit 0' TERM; sleep 600 & echo $$; wait");
        let (mut foreign, _) = start("somebody else", "echo; exec sleep 600");
        let begin = Instant::now();
        assert_eq!(mark("all").end_leftovers(Duration::from_secs(60)), Leftovers { found: 1, left: 0 });
        assert!(begin.elapsed() < Duration::from_secs(30), "nothing was left to wait for");
        assert!(polite.wait().unwrap().success(), "it was asked to end before it was made to");
        assert_eq!(mark("all").end_leftovers(Duration::from_secs(60)).found, 0);
        assert_eq!(foreign.try_wait().unwrap(), None);
        foreign.kill().unwrap();
        foreign.wait().unwrap();
    }

    #[test]
    fn what_has_no_mark_and_will_not_end_is_killed_with_its_group() {
        let stubborn = "trap '' TERM; while :; do sleep 600; done";
        let script = format!("trap 'exit 0' TERM; env -i /bin/sh -c \"{stubborn}\" & echo $!; wait");
        let (mut leader, unmarked) = start("stubborn", &script);
        assert_eq!(mark("stubborn").end_leftovers(GRACE), Leftovers { found: 1, left: 0 });
        assert!(leader.wait().unwrap().success());
        assert!(!is_running(&unmarked));
    }

    /// A script may start a service, which gets its environment.
    #[test]
    fn a_daemon_that_a_marked_process_has_started_is_left_alone() {
        let (mut starter, daemon) = start("starter", "setsid sh -c 'echo $$; exec sleep 600' & wait");
        assert_eq!(mark("starter").end_leftovers(GRACE), Leftovers { found: 1, left: 0 });
        starter.wait().unwrap();
        assert!(is_running(&daemon));
        Command::new("kill").args(["-KILL", &daemon]).status().unwrap();
    }
}
