//! Processes of others as `/proc` shows them, and waiting for their end.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::poll::poll_until;
use crate::proc_stat;

/// All processes but this one.
pub(crate) fn processes() -> impl Iterator<Item = Pid> {
    let own = getpid();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).filter(move |pid| *pid != own)
}

/// The process group and the session of a process that is no zombie.
pub(crate) fn group_and_session(pid: Pid) -> Option<(i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = proc_stat::after_name(&stat)?;
    if fields.next()? == "Z" {
        return None;
    }
    let mut number = || fields.next()?.parse().ok();
    let _parent: i32 = number()?;
    Some((number()?, number()?))
}

/// The same of this process. In a container both may be 0, which stands for one whose leader is outside: whoever
/// asks getsid(2) must expect that as well.
pub(crate) fn own_group_and_session() -> (i32, i32) {
    group_and_session(getpid()).unwrap_or_default()
}

/// The living members of the group of which `is_wanted`, with their groups; not this process.
pub(crate) fn members(is_wanted: impl Fn(i32) -> bool) -> impl Iterator<Item = (i32, Process)> {
    let group_of = |pid| group_and_session(pid).map(|(group, _)| group);
    processes().filter_map(move |pid| {
        let group = group_of(pid).filter(|group| is_wanted(*group))?;
        let process = Process::open(pid)?;
        // What was read is the process's own only if its number has not become another's meanwhile.
        (group_of(pid) == Some(group) && !process.has_ended()).then_some((group, process))
    })
}

/// A process that stays the same one even when its number has become another's.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// Readable once it has ended.
    descriptor: OwnedFd,
}

impl Process {
    pub(crate) fn open(pid: Pid) -> Option<Self> {
        Some(Self { pid, descriptor: pidfd_open(pid, PidfdFlags::empty()).ok()? })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.wait_for_end(Duration::ZERO)
    }

    /// Waits for at most `limit`; whether it has ended.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        poll_until(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], Some(until)).unwrap_or(false)
    }
}
