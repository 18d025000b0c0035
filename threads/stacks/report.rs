//! A dump as a person reads it who has just been woken up: how much of what there is, deadlocks, the threads
//! that are in trouble, those that work, those that wait for work, and the locks.
//!
//! Each thread is there with the whole of its stack, also where several wait at the same place: what is
//! searched for a thread's name or function is found there.

use std::collections::BTreeSet;

use super::thread_stack::ThreadStack;
use crate::locks::{Cycle, LockInfo, thread_id};

/// Where a thread stands in a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// It does something for longer than that may take, or waits for a lock.
    Trouble,
    /// It runs, says what it is doing, or cannot be interrupted.
    Busy,
    /// It waits for what it is there for.
    Idle,
}

const GROUPS: [(Group, &str); 3] =
    [(Group::Trouble, "overdue or waiting for a lock"), (Group::Busy, "busy"), (Group::Idle, "idle")];

/// The texts of a dump without its last line. `source` says whose it is, and when it was made.
pub(super) fn texts(
    source: &str,
    stacks: &[ThreadStack],
    locks: &[LockInfo],
    deadlocks: &[Cycle],
) -> Vec<String> {
    let waiting: BTreeSet<u32> =
        locks.iter().flat_map(|lock| &lock.waiters).map(|waiter| waiter.thread).collect();
    let in_group = |wanted| {
        let mut found: Vec<_> = stacks.iter().filter(|stack| group(stack, &waiting) == wanted).collect();
        // The thread that makes the dump is at work because of it, and of the least interest.
        found.sort_by_key(|stack| (stack.id == thread_id(), stack.id));
        found
    };
    let groups = GROUPS.map(|(group, name)| (name, in_group(group)));
    let counts: Vec<_> = groups.iter().map(|(name, stacks)| format!("{} {name}", stacks.len())).collect();
    let mut texts = vec![format!(
        "stack dump begins: {source}: {} ({}), {} held or waited for, {}",
        count(stacks.len(), "thread"),
        counts.join(", "),
        count(locks.len(), "lock"),
        count(deadlocks.len(), "deadlock"),
    )];
    texts.extend(deadlocks.iter().map(ToString::to_string));
    for (name, stacks) in groups.iter().filter(|(_, stacks)| !stacks.is_empty()) {
        texts.push(format!("-- {name}: {}", count(stacks.len(), "thread")));
        texts.extend(stacks.iter().map(ToString::to_string));
    }
    texts.push(format!("-- locks held or waited for: {}", locks.len()));
    texts.extend(locks.iter().map(ToString::to_string));
    texts
}

fn group(stack: &ThreadStack, waiting_for_locks: &BTreeSet<u32>) -> Group {
    let overdue = stack.activities.iter().any(|activity| activity.is_overdue());
    if overdue || waiting_for_locks.contains(&stack.id) {
        Group::Trouble
    } else if !stack.activities.is_empty() || !matches!(stack.state, 'S' | 'I') {
        Group::Busy
    } else {
        Group::Idle
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::panic::Location;
    use std::time::Duration;

    use super::*;
    use crate::locks::{LockId, LockUser};
    use crate::registry::Ongoing;

    fn stack(id: u32, state: char, doing: Option<(u64, Option<u64>)>) -> ThreadStack {
        let doing = doing.map(|(since, limit)| Ongoing {
            what: "storing".to_owned(),
            since: Duration::from_secs(since),
            limit: limit.map(Duration::from_secs),
        });
        ThreadStack {
            id,
            name: "worker".to_owned(),
            role: None,
            activities: doing.into_iter().collect(),
            state,
            cpu: Duration::ZERO,
            frames: Vec::new(),
            note: None,
        }
    }

    #[test]
    fn what_is_wrong_comes_first_and_what_waits_for_work_last() {
        let user = |thread| LockUser {
            thread,
            name: "worker".to_owned(),
            since: Duration::from_secs(1),
            place: Location::caller(),
            gives_up: false,
        };
        let lock = LockInfo {
            lock: LockId { name: "queue", number: 1 },
            holder: Some(user(1)),
            waiters: vec![user(6)],
        };
        let stacks = [
            stack(1, 'S', None),
            stack(2, 'R', None),
            stack(3, 'D', None),
            stack(4, 'S', Some((9, Some(10)))),
            stack(5, 'S', Some((11, Some(10)))),
            stack(6, 'S', None),
            stack(7, 'S', Some((1_000_000, None))),
            stack(thread_id(), 'R', Some((0, None))),
        ];
        let texts = texts("x 1.0", &stacks, &[lock], &[]);
        let heads: Vec<_> =
            texts.iter().map(|text| text.split([' ', ':']).take(2).collect::<String>()).collect();
        let own = format!("thread{}", thread_id());
        let order = [
            "stackdump",
            "--overdue",
            "thread5",
            "thread6",
            "--busy",
            "thread2",
            "thread3",
            "thread4",
            "thread7",
            &own,
            "--idle",
            "thread1",
            "--locks",
            "lock\"queue\"",
        ];
        assert_eq!(heads, order, "{texts:?}");
        assert_eq!(
            texts[0],
            "stack dump begins: x 1.0: 8 threads (2 overdue or waiting for a lock, 5 busy, 1 idle), \
             1 lock held or waited for, 0 deadlocks"
        );
    }
}
