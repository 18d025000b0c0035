//! What the locks are doing, for a person who wants to know why a daemon hangs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::panic::Location;
use std::time::Duration;

use super::record::{self, Fact, Kind, LockId};
use crate::registry;

/// A lock that is held or waited for.
#[derive(Debug, Clone)]
pub struct LockInfo {
    /// Which one.
    pub lock: LockId,
    /// Who holds it. Nobody while it goes from one thread to another.
    pub holder: Option<LockUser>,
    /// Who waits for it, in no order.
    pub waiters: Vec<LockUser>,
}

/// A thread that holds a lock or waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockUser {
    /// The kernel's thread id.
    pub thread: u32,
    /// Its registered name, else the kernel's.
    pub name: String,
    /// For how long it has held the lock, or waited for it.
    pub since: Duration,
    /// Where it has taken it, or wants to.
    pub place: &'static Location<'static>,
    /// Whether it waits for a limited time only.
    pub gives_up: bool,
}

/// Threads each of which waits for what the next one holds, and the last one for what the first one holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// Each thread of it once; the one with the lowest id first.
    pub links: Vec<Link>,
}

/// A thread in a [`Cycle`]. It waits for the lock of the next link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The lock that it holds.
    pub lock: LockId,
    /// The thread, with where it took that lock.
    pub holder: LockUser,
    /// The same thread, with where it waits for the next lock.
    pub waiter: LockUser,
}

/// The locks that are held or waited for at this moment. What begins or ends meanwhile is left out.
///
/// Takes no lock that a thread could hold for longer than a moment, and gives up on that one: it works in a
/// program that is deadlocked, or has threads that were stopped somewhere.
pub fn locks() -> Vec<LockInfo> {
    let before: Vec<_> = record::read_all().collect();
    let facts = agreed(&before, record::read_all());
    if facts.is_empty() {
        return Vec::new();
    }
    let names = registry::names();
    let mut found: BTreeMap<u64, LockInfo> = BTreeMap::new();
    for (thread, fact) in facts {
        let user = LockUser {
            thread,
            name: names.get(&thread).cloned().unwrap_or_else(|| kernels_name(thread)),
            since: fact.age,
            place: fact.place,
            gives_up: fact.kind == Kind::WaitsAWhile,
        };
        let nobody = || LockInfo { lock: fact.lock, holder: None, waiters: Vec::new() };
        let info = found.entry(fact.lock.number).or_insert_with(nobody);
        match fact.kind {
            Kind::Holds => info.holder = Some(user),
            Kind::Waits | Kind::WaitsAWhile => info.waiters.push(user),
        }
    }
    found.into_values().collect()
}

/// What two readings agree on. A reading takes some time, and what it says may never have been true at the
/// same time; this was, all of it, when the first had ended and the second not begun.
pub(super) fn agreed(before: &[(u32, Fact)], after: impl Iterator<Item = (u32, Fact)>) -> Vec<(u32, Fact)> {
    let before: BTreeSet<_> = before.iter().map(|(_, fact)| fact.mark()).collect();
    after.filter(|(_, fact)| before.contains(&fact.mark())).collect()
}

fn kernels_name(thread: u32) -> String {
    let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
    name.map_or_else(|_| "a thread that is gone".to_owned(), |name| name.trim_end().to_owned())
}

/// The deadlocks among `locks`, each once.
pub fn deadlocks(locks: &[LockInfo]) -> Vec<Cycle> {
    // A thread waits for one lock at most, and a lock has one holder at most: from each there is one way on.
    let mut waits: BTreeMap<u32, (&LockInfo, &LockUser, &LockUser)> = BTreeMap::new();
    for info in locks {
        let Some(holder) = &info.holder else { continue };
        let stuck = info.waiters.iter().filter(|waiter| !waiter.gives_up);
        waits.extend(stuck.map(|waiter| (waiter.thread, (info, waiter, holder))));
    }
    let mut visited = BTreeSet::new();
    let mut cycles = Vec::new();
    for &start in waits.keys() {
        let (mut way, mut at) = (Vec::new(), start);
        while visited.insert(at) {
            let Some(&wait) = waits.get(&at) else { break };
            way.push(wait);
            at = wait.2.thread;
        }
        // The way has come back to itself, or to another one, or has ended.
        let Some(begin) = way.iter().position(|(_, waiter, _)| waiter.thread == at) else { continue };
        let ring = &way[begin..];
        let mut links: Vec<Link> = (0..ring.len())
            .map(|index| {
                let (info, _, holder) = ring[index];
                let (_, waiter, _) = ring[(index + 1) % ring.len()];
                Link { lock: info.lock, holder: holder.clone(), waiter: waiter.clone() }
            })
            .collect();
        let first = (0..links.len()).min_by_key(|index| links[*index].holder.thread).unwrap_or(0);
        links.rotate_left(first);
        cycles.push(Cycle { links });
    }
    cycles
}

impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock {} ", self.lock)?;
        match &self.holder {
            Some(holder) => write!(
                f,
                "is held by {holder} since {}, taken at {}",
                Seconds(holder.since),
                Place(holder.place)
            )?,
            None => write!(f, "is changing hands")?,
        }
        for (index, waiter) in self.waiters.iter().enumerate() {
            f.write_str(if index == 0 { "; waited for by " } else { ", " })?;
            write!(f, "{waiter} since {} at {}", Seconds(waiter.since), Place(waiter.place))?;
        }
        Ok(())
    }
}

impl fmt::Display for LockUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.thread)
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DEADLOCK: ")?;
        for (index, link) in self.links.iter().enumerate() {
            let Link { lock, holder, waiter } = link;
            let next = self.links.get(index + 1).or(self.links.first()).map_or(*lock, |next| next.lock);
            let (taken, wanted) = (Place(holder.place), Place(waiter.place));
            f.write_str(if index == 0 { "" } else { "; " })?;
            write!(
                f,
                "{holder} holds {lock} ({taken}) and waits since {} for {next} ({wanted})",
                Seconds(waiter.since)
            )?;
        }
        Ok(())
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// File and line, which is enough where a line takes one lock.
struct Place(&'static Location<'static>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.file(), self.0.line())
    }
}
