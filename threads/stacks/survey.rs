//! How the stack of each thread is come by: by a look at it, or by asking it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::modules::Modules;
use super::own_memory::{Live, OwnMemory};
use super::snapshot::{Asked, Missed, SLOTS, STACK, Snapshots};
use super::task::{self, Place};
use super::unwind::{Registers, Unwinder, Unwound};

/// How long a thread may take to come to rest, and how long to answer: that long it may have to wait for a
/// processor.
const PATIENCE: Duration = Duration::from_secs(2);
/// A thread that has used so much CPU time without waiting computes; its next system call is probably far
/// away.
const BUSY: Duration = Duration::from_millis(2);
/// The pauses between two looks at those that run, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// What was found out about one thread.
pub(super) struct Found {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) state: char,
    pub(super) unwound: Unwound,
    pub(super) notes: Vec<String>,
    /// The signals that it blocks.
    blocked: u64,
    /// How often it has waited.
    waits: u64,
}

/// A thread that ran when it was looked at: how often it had waited until then, and its CPU time.
struct Running {
    id: u32,
    waits: u64,
    cpu: Duration,
}

/// What a look at a thread has come to.
enum Look {
    Gone,
    /// It runs, and has to be asked.
    Runs(Found),
    Seen(Found),
}

struct Waiting {
    found: Found,
    asked: Asked,
    until: Instant,
}

/// Finds the stacks of threads.
pub(super) struct Survey<'a> {
    pub(super) memory: &'a OwnMemory,
    pub(super) snapshots: Snapshots,
    pub(super) modules: &'a Modules,
}

impl Survey<'_> {
    /// Those of the threads that exist.
    ///
    /// A thread that waits is never asked. One that does not may still be on its way out of a system call,
    /// which would say that it was interrupted: it has to have run for a while without waiting. Those that do
    /// now this, now that, are looked at until they are found waiting.
    pub(super) fn all(&self, ids: &[u32]) -> Vec<Found> {
        let (mut seen, mut running, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            match self.look(*id) {
                Look::Gone => {}
                Look::Runs(found) if *id == own_id() => self.ask(found, &mut waiting, &mut seen),
                Look::Runs(found) => {
                    running.push(Running { id: *id, waits: found.waits, cpu: task::cpu_time(*id) });
                }
                Look::Seen(found) => seen.push(found),
            }
        }
        let until = Instant::now() + PATIENCE;
        let mut pause = PAUSES.0;
        while !running.is_empty() {
            std::thread::park_timeout(pause);
            pause = PAUSES.1.min(pause * 2);
            let too_late = Instant::now() > until;
            running.retain_mut(|running| {
                match self.look(running.id) {
                    Look::Gone => return false,
                    Look::Seen(found) => seen.push(found),
                    Look::Runs(found) if found.waits != running.waits && !too_late => {
                        *running =
                            Running { id: found.id, waits: found.waits, cpu: task::cpu_time(found.id) };
                        return true;
                    }
                    Look::Runs(found) if task::cpu_time(found.id) >= running.cpu + BUSY => {
                        self.ask(found, &mut waiting, &mut seen);
                    }
                    Look::Runs(_) if !too_late => return true,
                    Look::Runs(mut found) => {
                        found.notes.push("it was never found at rest, nor running for a while".to_owned());
                        seen.push(found);
                    }
                }
                false
            });
            self.take(&mut waiting, &mut seen);
        }
        self.take(&mut waiting, &mut seen);
        seen.sort_by_key(|found| found.id);
        seen
    }

    /// Reads the stack of a thread that is blocked, without the thread's knowledge.
    fn look(&self, id: u32) -> Look {
        let Some(task::Status { name, state, blocked, switches }) = task::status(id) else {
            return Look::Gone;
        };
        let mut found = Found {
            id,
            name,
            state,
            unwound: Unwound::default(),
            notes: Vec::new(),
            blocked,
            waits: switches.0,
        };
        if cfg!(not(target_arch = "x86_64")) {
            found.notes.push("stacks can be read on x86-64 only".to_owned());
            return Look::Seen(found);
        }
        // Of the thread that asks the kernel says that it waits, for the answer.
        let place = if id == own_id() { Ok(Place::Running) } else { task::place(id) };
        match place {
            Ok(Place::Running) => return Look::Runs(found),
            Ok(Place::Blocked { sp: 0, .. }) => found.notes.push("it is about to end".to_owned()),
            Ok(Place::Blocked { sp, pc }) => {
                let stack = Live::new(self.memory);
                let unwinder = Unwinder { modules: self.modules, memory: self.memory, stack: &stack };
                found.unwound = unwinder.unwind(Registers::new(pc, sp));
                match task::status(id) {
                    Some(after) if after.switches == switches => {}
                    Some(_) => return Look::Runs(found),
                    None => return Look::Gone,
                }
                if !found.unwound.complete {
                    found.notes.push("the outer frames could not be found".to_owned());
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Look::Gone,
            // It is not asked either: it may be waiting, and a signal would disturb that.
            Err(error) => {
                found.notes.push(format!("its stack cannot be read: /proc/self/task/{id}/syscall: {error}"))
            }
        }
        Look::Seen(found)
    }

    fn ask(&self, mut found: Found, waiting: &mut Vec<Waiting>, seen: &mut Vec<Found>) {
        found.unwound = Unwound::default();
        if waiting.len() == SLOTS {
            self.take(waiting, seen);
        }
        if self.snapshots.is_blocked_in(found.blocked) {
            found.notes.push("it runs with all signals blocked, so its stack cannot be copied".to_owned());
            seen.push(found);
            return;
        }
        match self.snapshots.ask(found.id) {
            Some(Ok(asked)) => waiting.push(Waiting { found, asked, until: Instant::now() + PATIENCE }),
            Some(Err(missed)) => seen.extend(self.without_answer(found, &missed)),
            None => {
                found.notes.push("it runs, and too many threads are being asked for their stacks".to_owned());
                seen.push(found);
            }
        }
    }

    fn take(&self, waiting: &mut Vec<Waiting>, seen: &mut Vec<Found>) {
        for Waiting { mut found, asked, until } in waiting.drain(..) {
            match asked.wait(until) {
                Ok((registers, stack)) => {
                    let unwinder = Unwinder { modules: self.modules, memory: self.memory, stack: &stack };
                    found.unwound = unwinder.unwind(registers);
                    if !found.unwound.complete {
                        found.notes.push(if stack.bytes.len() == STACK {
                            format!("only the inner {} KB of its stack were copied", STACK >> 10)
                        } else {
                            "the outer frames could not be found".to_owned()
                        });
                    }
                    seen.push(found);
                }
                Err(missed) => seen.extend(self.without_answer(found, &missed)),
            }
        }
    }

    fn without_answer(&self, mut found: Found, missed: &Missed) -> Option<Found> {
        // It may have begun to wait before the signal could reach it.
        match (missed, self.look(found.id)) {
            (Missed::Gone, _) | (_, Look::Gone) => return None,
            (_, Look::Seen(seen)) => return Some(seen),
            (Missed::Late, _) => {
                found.notes.push(format!("it has not answered within {} s", PATIENCE.as_secs()));
            }
            (Missed::Unsent(error), _) => {
                found.notes.push(format!("it could not be asked for its stack: {error}"))
            }
        }
        Some(found)
    }
}

fn own_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}
