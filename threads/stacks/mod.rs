//! What every thread of the process is doing right now, registered or not: its stack with functions, files
//! and lines, without stopping anything.
//!
//! A thread that waits in the kernel is only looked at: the kernel tells where its stack is, and afterwards
//! whether it has moved meanwhile. No system call of it ends early for that. A thread that runs gets a
//! signal, whose handler copies its stack and returns. Everything else (unwinding, names) happens afterwards
//! in the thread that dumps.
//!
//! No lock is taken that others hold for longer than a moment, and threads are waited for five seconds at
//! most, all of them together.

mod callers;
mod debug_info;
mod elf_file;
mod modules;
mod own_memory;
mod report;
mod snapshot;
mod survey;
mod symbols;
mod task;
mod thread_stack;
mod unwind;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::time::Instant;

pub use thread_stack::{Frame, ThreadStack};

use crate::locks::{deadlocks, locks};
use crate::memory::return_freed_memory;
use crate::registry::{ThreadInfo, threads};
use modules::Modules;
use own_memory::OwnMemory;
use snapshot::Snapshots;
use survey::{Found, Survey};
use symbols::Symbols;

/// Dumps the stacks of threads.
#[derive(Debug)]
pub struct StackDumper {
    memory: OwnMemory,
    snapshots: Snapshots,
    symbols: Symbols,
}

impl StackDumper {
    /// To be made at start-up, by the process that dumps (a fork has another memory), before anything can be
    /// stuck, and before its rights are restricted.
    pub fn new() -> io::Result<Self> {
        let memory = OwnMemory::open()?;
        let snapshots = Snapshots::install()?;
        let symbols = Symbols::new(&Modules::load(&memory));
        Ok(Self { memory, snapshots, symbols })
    }

    /// All threads of the process, by their ids.
    pub fn dump(&mut self) -> Vec<ThreadStack> {
        self.stacks(&task::ids())
    }

    /// All that there is to say of the threads and of the locks between them: a text of one or more lines for
    /// each, between one that says that the dump begins and one that says that it ends. `source` is for the
    /// first: whose dump it is, and of when.
    pub fn report(&mut self, source: &str) -> Vec<String> {
        let begin = Instant::now();
        let (found, locks) = self.survey(&task::ids(), locks);
        let stacks = self.named(found);
        let mut texts = report::texts(source, &stacks, &locks, &deadlocks(&locks));
        texts.push(format!("stack dump ends after {:.3} s", begin.elapsed().as_secs_f64()));
        texts
    }

    /// One thread. None if there is no such thread.
    pub fn thread(&mut self, id: u32) -> Option<ThreadStack> {
        self.stacks(&[id]).pop()
    }

    /// Gives back the memory that dumps have taken and the allocator has kept. That takes a moment, so this is for
    /// when no other dump is asked for.
    pub fn give_memory_back(&mut self) {
        return_freed_memory();
    }

    fn stacks(&mut self, ids: &[u32]) -> Vec<ThreadStack> {
        let (found, ()) = self.survey(ids, || ());
        self.named(found)
    }

    /// The stacks of the threads as addresses, and what `besides` says once all have been read: finding their names
    /// takes long, after which much has changed.
    fn survey<T>(&self, ids: &[u32], besides: impl FnOnce() -> T) -> (Surveyed, T) {
        let modules = Modules::load(&self.memory);
        let Self { memory, snapshots, .. } = self;
        let survey = Survey { memory, snapshots: *snapshots, modules: &modules, place: task::place };
        let found = survey.all(ids);
        let registered = threads().into_iter().map(|thread| (thread.id, thread)).collect();
        let besides = besides();
        (Surveyed { modules, found, registered }, besides)
    }

    fn named(&mut self, Surveyed { modules, found, registered }: Surveyed) -> Vec<ThreadStack> {
        let addresses =
            found.iter().flat_map(|found| &found.unwound.addresses).copied().collect::<BTreeSet<_>>();
        self.symbols.learn(&modules, &addresses);
        found.into_iter().map(|found| self.present(found, &registered)).collect()
    }

    fn present(&self, found: Found, registered: &HashMap<u32, ThreadInfo>) -> ThreadStack {
        let Found { id, name, state, cpu, unwound, mut notes, .. } = found;
        let mut frames = Vec::new();
        for (index, address) in unwound.addresses.iter().enumerate() {
            if unwound.guessed_from == Some(index) {
                notes.push(format!("from frame {} on the stack is a guess", frames.len()));
            }
            frames.extend_from_slice(self.symbols.frames(*address));
        }
        let info = registered.get(&id);
        ThreadStack {
            id,
            name: info.map_or(name, |info| info.name.clone()),
            role: info.map(|info| info.role),
            activities: info.map(|info| info.activities.clone()).unwrap_or_default(),
            state,
            cpu,
            frames,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        }
    }
}

/// What all threads were doing at one moment.
struct Surveyed {
    modules: Modules,
    found: Vec<Found>,
    registered: HashMap<u32, ThreadInfo>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;
    use crate::locks::Mutex;

    #[test]
    fn what_the_locks_do_is_of_the_moment_of_the_stacks_and_not_of_when_their_names_are_found() {
        static LOCK: Mutex<()> = Mutex::new("held for a moment", ());
        let mut dumper = StackDumper::new().unwrap();
        let held = LOCK.lock();
        let (surveyed, locks) = dumper.survey(&task::ids(), locks);
        drop(held);
        assert!(dumper.symbols.is_empty(), "this takes long");
        assert!(!dumper.named(surveyed).is_empty());
        assert!(locks.iter().any(|lock| lock.lock.name == "held for a moment"), "{locks:?}");
    }
}
