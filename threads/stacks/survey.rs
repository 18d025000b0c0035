//! How the stack of each thread is come by: by a look at it, or by asking it.

use std::io;
use std::time::{Duration, Instant};

use super::modules::Modules;
use super::own_memory::{Live, OwnMemory};
use super::snapshot::{Asked, Missed, STACK, Snapshots};
use super::task::{self, Place};
use super::unwind::{End, Registers, Unwinder, Unwound};
use crate::locks::thread_id;

/// How long all threads together may take to come to rest or to answer: on a busy machine they have to wait
/// for a processor.
const PATIENCE: Duration = Duration::from_secs(5);
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
    pub(super) cpu: Duration,
    pub(super) unwound: Unwound,
    pub(super) notes: Vec<String>,
    /// The signals that it blocks.
    blocked: u64,
    /// How often it has waited.
    waits: u64,
}

/// A thread that has not been found waiting yet.
struct Running {
    id: u32,
    /// How often it had waited when it was last looked at, and its CPU time just after that.
    last: Option<(u64, Duration)>,
}

/// What a look at a thread has come to.
enum Look {
    Gone,
    /// It runs, and has to be asked.
    Runs(Found),
    Seen(Found),
}

/// A thread that was asked for its stack.
struct Waiting {
    found: Found,
    asked: Asked,
    since: Instant,
}

/// Finds the stacks of threads.
pub(super) struct Survey<'a> {
    pub(super) memory: &'a OwnMemory,
    pub(super) snapshots: Snapshots,
    pub(super) modules: &'a Modules,
    /// [`task::place`].
    pub(super) place: fn(u32) -> io::Result<Place>,
}

impl Survey<'_> {
    /// Those of the threads that exist.
    ///
    /// A thread that waits is never asked. One that does not may still be on its way out of a system call,
    /// which would say that it was interrupted: it has to have run for a while without waiting. Those that do
    /// now this, now that, are looked at until they are found waiting. One that does not answer holds up the
    /// end of all this, but not the others.
    pub(super) fn all(&self, ids: &[u32]) -> Vec<Found> {
        let deadline = Instant::now() + PATIENCE;
        let (mut seen, mut waiting) = (Vec::new(), Vec::new());
        let mut running: Vec<_> = ids.iter().map(|id| Running { id: *id, last: None }).collect();
        let mut pause = PAUSES.0;
        loop {
            let too_late = Instant::now() >= deadline;
            running.retain_mut(|thread| !self.settle(thread, too_late, &mut waiting, &mut seen));
            self.take(&mut waiting, too_late, &mut seen);
            if running.is_empty() && waiting.is_empty() {
                break;
            }
            match waiting.first() {
                Some(first) => _ = first.asked.wait(Instant::now() + pause),
                None => std::thread::park_timeout(pause),
            }
            pause = PAUSES.1.min(pause * 2);
        }
        seen.sort_by_key(|found| found.id);
        seen
    }

    /// Looks at a thread, and asks it if it computes. Whether that was all there is to do for now.
    fn settle(
        &self,
        thread: &mut Running,
        too_late: bool,
        waiting: &mut Vec<Waiting>,
        seen: &mut Vec<Found>,
    ) -> bool {
        // Taken before the look, and compared with what was taken after the last one: what it has used between
        // the two it has used without waiting, if it has not waited from look to look.
        let cpu = task::cpu_time(thread.id);
        let mut found = match self.look(thread.id) {
            Look::Gone => return true,
            Look::Seen(found) => {
                seen.push(found);
                return true;
            }
            Look::Runs(found) => found,
        };
        let computes = found.id == thread_id()
            || thread.last.is_some_and(|(waits, before)| found.waits == waits && cpu >= before + BUSY);
        if too_late {
            found.notes.push(if computes {
                "it runs, and there was no time left to ask it for its stack".to_owned()
            } else {
                "it was never found at rest, nor running for a while".to_owned()
            });
            seen.push(found);
            return true;
        }
        if computes {
            return self.ask(found, waiting, seen);
        }
        if thread.last.is_none_or(|(waits, _)| waits != found.waits) {
            thread.last = Some((found.waits, task::cpu_time(found.id)));
        }
        false
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
            cpu: task::cpu_time(id),
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
        let place = if id == thread_id() { Ok(Place::Running) } else { (self.place)(id) };
        match place {
            Ok(Place::Running) => return Look::Runs(found),
            Ok(Place::Blocked { sp: 0, .. }) => found.notes.push("it is about to end".to_owned()),
            Ok(place @ Place::Blocked { sp, pc, .. }) => {
                let stack = Live::new(self.memory);
                let unwinder = Unwinder { modules: self.modules, memory: self.memory, stack: &stack };
                let unwound = unwinder.unwind(Registers::new(pc, sp));
                // In this order. If it is blocked now and has run in between, it has left the processor since,
                // which is counted; that it has woken and still runs is not, but the kernel knows its place
                // only while it is off the processor.
                let still_there = (self.place)(id).is_ok_and(|now| now == place);
                match task::status(id) {
                    Some(after) if still_there && after.switches == switches => {}
                    Some(_) => return Look::Runs(found),
                    None => return Look::Gone,
                }
                found.notes.extend(unwound.missing());
                found.unwound = unwound;
            }
            // That there is no such file says little: some kernels, and sandboxes, never have it.
            Err(_) if task::status(id).is_none() => return Look::Gone,
            // It is not asked either: it may be waiting, and a signal would disturb that.
            Err(error) => {
                found.notes.push(format!("its stack cannot be read: /proc/self/task/{id}/syscall: {error}"))
            }
        }
        Look::Seen(found)
    }

    /// Asks a thread that runs. Whether that could be done: if not, then for now.
    fn ask(&self, mut found: Found, waiting: &mut Vec<Waiting>, seen: &mut Vec<Found>) -> bool {
        if self.snapshots.is_blocked_in(found.blocked) {
            found.notes.push("it runs with all signals blocked, so its stack cannot be copied".to_owned());
            seen.push(found);
            return true;
        }
        match self.snapshots.ask(found.id) {
            Some(Ok(asked)) => waiting.push(Waiting { found, asked, since: Instant::now() }),
            Some(Err(missed)) => seen.extend(self.without_answer(found, &missed, Instant::now())),
            None => return false,
        }
        true
    }

    /// Takes the answers that are there; when it is too late, gives up those that are not.
    fn take(&self, waiting: &mut Vec<Waiting>, too_late: bool, seen: &mut Vec<Found>) {
        for Waiting { mut found, asked, since } in std::mem::take(waiting) {
            if !too_late && !asked.is_answered() {
                if task::status(found.id).is_some() {
                    waiting.push(Waiting { found, asked, since });
                }
                continue;
            }
            match asked.wait(since) {
                Ok((registers, stack)) => {
                    let unwinder = Unwinder { modules: self.modules, memory: self.memory, stack: &stack };
                    found.unwound = unwinder.unwind(registers);
                    found.notes.extend(if found.unwound.end == End::Lost && stack.bytes.len() == STACK {
                        Some(format!("only the inner {} KB of its stack were copied", STACK >> 10))
                    } else {
                        found.unwound.missing()
                    });
                    // When it was looked at it may have been on its way into a wait, or out of one.
                    found.state = 'R';
                    seen.push(found);
                }
                Err(missed) => seen.extend(self.without_answer(found, &missed, since)),
            }
        }
    }

    fn without_answer(&self, mut found: Found, missed: &Missed, since: Instant) -> Option<Found> {
        // It may have begun to wait before the signal could reach it.
        match (missed, self.look(found.id)) {
            (Missed::Gone, _) | (_, Look::Gone) => return None,
            (_, Look::Seen(seen)) => return Some(seen),
            (Missed::Late, _) => {
                let waited = since.elapsed().as_secs_f64();
                found.notes.push(format!("it has not answered within {waited:.1} s"));
            }
            (Missed::Unsent(error), _) => {
                found.notes.push(format!("it could not be asked for its stack: {error}"))
            }
        }
        Some(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_thread_whose_stack_the_kernel_does_not_tell_is_in_the_dump_with_a_note() {
        let memory = OwnMemory::open().unwrap();
        let modules = Modules::load(&memory);
        for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied] {
            let place = match kind {
                ErrorKind::NotFound => |_| Err(ErrorKind::NotFound.into()),
                _ => |_| Err(ErrorKind::PermissionDenied.into()),
            };
            let snapshots = Snapshots::install().unwrap();
            let survey = Survey { memory: &memory, snapshots, modules: &modules, place };
            // Its main thread lives, and there is none of the other number.
            let found = survey.all(&[std::process::id(), u32::MAX]);
            let [main] = found.as_slice() else { panic!("{} threads", found.len()) };
            let [note] = main.notes.as_slice() else { panic!("{:?}", main.notes) };
            assert!(note.starts_with("its stack cannot be read: /proc/self/task/"), "{note}");
            assert!(main.unwound.addresses.is_empty());
        }
    }
}
