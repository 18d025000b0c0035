//! What the kernel tells of the threads of this process, in `/proc/self/task`.
//!
//! It knows all of them, registered or not, and tells it without asking them.

use std::fs::{read_dir, read_to_string};
use std::io;
use std::time::Duration;

use crate::proc_stat::after_name;

/// The ids of all threads, the main thread's first.
pub(super) fn ids() -> Vec<u32> {
    let Ok(entries) = read_dir("/proc/self/task") else { return Vec::new() };
    let mut ids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// A thread as it was at one moment.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) name: String,
    pub(super) state: char,
    /// How often it has left the processor, by its own will and by the kernel's. It is counted when it leaves
    /// it, not when it comes back: a thread that was blocked has run since if this has changed, or if it runs
    /// now.
    pub(super) switches: (u64, u64),
    /// The signals that it does not take, as a mask.
    pub(super) blocked: u64,
}

/// None if there is no such thread any more.
pub(super) fn status(id: u32) -> Option<Status> {
    let text = read_to_string(format!("/proc/self/task/{id}/status")).ok()?;
    let mut status = Status { name: String::new(), state: '?', switches: (0, 0), blocked: 0 };
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "Name" => value.clone_into(&mut status.name),
            "State" => status.state = value.chars().next().unwrap_or('?'),
            "SigBlk" => status.blocked = u64::from_str_radix(value, 16).unwrap_or(0),
            "voluntary_ctxt_switches" => status.switches.0 = value.parse().unwrap_or(0),
            "nonvoluntary_ctxt_switches" => status.switches.1 = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    Some(status)
}

/// The processor time that the thread has used.
pub(super) fn cpu_time(id: u32) -> Duration {
    // In nanoseconds, but a kernel need not have it; the other file counts in hundredths of a second.
    let exact = read_to_string(format!("/proc/self/task/{id}/schedstat"))
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok().map(Duration::from_nanos));
    exact.unwrap_or_else(|| {
        let text = read_to_string(format!("/proc/self/task/{id}/stat")).unwrap_or_default();
        let ticks = after_name(&text).into_iter().flatten().skip(11).take(2);
        Duration::from_millis(10 * ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
    })
}

/// Where a thread is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Running,
    /// In the kernel: in which system call (-1 in none), where its stack ends, and where it goes on when the
    /// kernel lets it.
    Blocked {
        call: i64,
        sp: u64,
        pc: u64,
    },
}

pub(super) fn place(id: u32) -> io::Result<Place> {
    let text = read_to_string(format!("/proc/self/task/{id}/syscall"))?;
    let mut words = text.split_ascii_whitespace();
    let call = words.next().and_then(|call| call.parse().ok());
    let mut last = words.rev().map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
    match (call, last.next(), last.next()) {
        (Some(call), Some(Ok(pc)), Some(Ok(sp))) => Ok(Place::Blocked { call, sp, pc }),
        _ => Ok(Place::Running),
    }
}
