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
mod modules;
mod own_memory;
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
    /// each, between one that says that the dump begins and one that says that it ends.
    pub fn report(&mut self) -> Vec<String> {
        let begin = Instant::now();
        let (stacks, locks) = (self.dump(), locks());
        let mut texts =
            vec![format!("stack dump begins: {} threads of process {}", stacks.len(), std::process::id())];
        texts.extend(stacks.iter().map(ToString::to_string));
        if locks.is_empty() {
            texts.push("no lock is held or waited for".to_owned());
        }
        texts.extend(locks.iter().map(ToString::to_string));
        texts.extend(deadlocks(&locks).iter().map(ToString::to_string));
        texts.push(format!("stack dump ends after {:.3} s", begin.elapsed().as_secs_f64()));
        texts
    }

    /// One thread. None if there is no such thread.
    pub fn thread(&mut self, id: u32) -> Option<ThreadStack> {
        self.stacks(&[id]).pop()
    }

    /// Gives back the memory that dumps have taken. The next one takes longer for it, so this is for when no
    /// other is asked for.
    pub fn give_memory_back(&mut self) {
        self.symbols.give_memory_back();
    }

    fn stacks(&mut self, ids: &[u32]) -> Vec<ThreadStack> {
        let modules = Modules::load(&self.memory);
        let found = Survey { memory: &self.memory, snapshots: self.snapshots, modules: &modules }.all(ids);
        let addresses =
            found.iter().flat_map(|found| &found.unwound.addresses).copied().collect::<BTreeSet<_>>();
        self.symbols.learn(&modules, &addresses);
        let registered: HashMap<u32, ThreadInfo> =
            threads().into_iter().map(|thread| (thread.id, thread)).collect();
        let replaced = !self.symbols.program_unchanged(&modules);
        found.into_iter().map(|found| self.present(found, &registered, replaced)).collect()
    }

    fn present(&self, found: Found, registered: &HashMap<u32, ThreadInfo>, replaced: bool) -> ThreadStack {
        let Found { id, name, state, unwound, mut notes, .. } = found;
        let mut frames = Vec::new();
        for (index, address) in unwound.addresses.iter().enumerate() {
            if unwound.guessed_from == Some(index) {
                notes.push(format!("from frame {} on the stack is a guess", frames.len()));
            }
            frames.extend_from_slice(self.symbols.frames(*address));
        }
        if replaced && !frames.is_empty() {
            notes.push("the program's file was replaced, so there are no lines".to_owned());
        }
        let info = registered.get(&id);
        ThreadStack {
            id,
            name: info.map_or(name, |info| info.name.clone()),
            role: info.map(|info| info.role),
            activities: info.map(|info| info.activities.clone()).unwrap_or_default(),
            state,
            cpu: task::cpu_time(id),
            frames,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        }
    }
}
