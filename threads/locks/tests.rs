//! The named locks with real threads. Threads that are deadlocked on purpose are left behind.

mod busy;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::*;
use crate::registry::{Thread, spawn};

const SOON: Duration = Duration::from_secs(20);

fn info(name: &str) -> Option<LockInfo> {
    locks().into_iter().find(|info| info.lock.name == name)
}

fn cycles_of(name: &str) -> Vec<Cycle> {
    let all = deadlocks(&locks());
    all.into_iter().filter(|cycle| cycle.links.iter().any(|link| link.lock.name == name)).collect()
}

/// Looks again and again until there is something to be seen.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < SOON, "never happened: {what}");
        std::thread::yield_now();
    }
}

fn leave_behind(thread: Thread<()>) {
    std::mem::forget(thread);
}

/// Starts a thread that runs `work` with its number, and returns its id.
fn started(name: &str, work: impl FnOnce() + Send + 'static) -> (u32, Thread<()>) {
    let (tell, id) = bounded(1);
    let thread = spawn(name, "tester", move || {
        tell.send(thread_id()).unwrap();
        work();
    });
    (id.recv_timeout(SOON).unwrap(), thread.unwrap())
}

/// Threads each of which takes its own lock and then, when all have one, that of the next.
fn deadlock(name: &'static str, size: usize) -> Vec<u32> {
    let ring: Arc<Vec<_>> = Arc::new((0..size).map(|_| Mutex::new(name, ())).collect());
    let all_have_one = Arc::new(std::sync::Barrier::new(size));
    let thread = |index: usize| {
        let (ring, all_have_one) = (Arc::clone(&ring), Arc::clone(&all_have_one));
        let (id, thread) = started(&format!("{name}-{index}"), move || {
            let _own = ring[index].lock();
            all_have_one.wait();
            let _next = ring[(index + 1) % ring.len()].lock();
        });
        leave_behind(thread);
        id
    };
    (0..size).map(thread).collect()
}

#[test]
fn two_threads_that_wait_for_each_other_are_found_and_spelled_out() {
    let ids = deadlock("of-two", 2);
    let cycle = eventually("the deadlock", || cycles_of("of-two").pop());
    assert_eq!(cycles_of("of-two").len(), 1, "each cycle is found once");
    assert_eq!(cycle.links.len(), 2);
    let (one, two) = (&cycle.links[0], &cycle.links[1]);
    assert_eq!(one.holder.thread, one.waiter.thread);
    let mut found =
        [(one.holder.thread, one.holder.name.as_str()), (two.holder.thread, two.holder.name.as_str())];
    found.sort_unstable_by_key(|(_, name)| *name);
    assert_eq!(found, [(ids[0], "of-two-0"), (ids[1], "of-two-1")]);
    let text = cycle.to_string();
    let (taken, wanted) = (line_of("let _own = ring["), line_of("let _next = ring["));
    let clause = |link: &Link, next: &Link| {
        let LockUser { name, thread, .. } = &link.holder;
        let since = link.waiter.since.as_secs_f64();
        let (has, wants) = (link.lock.number, next.lock.number);
        format!(
            "{name} ({thread}) holds \"of-two\" #{has} ({taken}) and waits since {since:.1} s for \"of-two\" #{wants} ({wanted})"
        )
    };
    assert_eq!(text, format!("DEADLOCK: {}; {}", clause(one, two), clause(two, one)));
}

/// File and line of the only line of this file that begins with `code`.
fn line_of(code: &str) -> String {
    let lines = include_str!("tests.rs").lines();
    let (index, _) = lines.enumerate().find(|(_, line)| line.trim_start().starts_with(code)).unwrap();
    format!("{}:{}", file!(), index + 1)
}

fn place(user: &LockUser) -> String {
    format!("{}:{}", user.place.file(), user.place.line())
}

#[test]
fn a_cycle_of_three_is_one_cycle_in_the_order_of_waiting() {
    let ids = deadlock("of-three", 3);
    let cycle = eventually("the deadlock", || cycles_of("of-three").pop());
    assert_eq!(cycles_of("of-three").len(), 1);
    let found: Vec<u32> = cycle.links.iter().map(|link| link.holder.thread).collect();
    let mut expected = ids.clone();
    let first = (0..3).min_by_key(|index| ids[*index]).unwrap();
    expected.rotate_left(first);
    assert_eq!(found, expected);
}

#[test]
fn a_thread_that_takes_what_it_holds_is_a_deadlock_by_itself() {
    let (id, thread) = started("alone", || {
        let lock = Mutex::new("of-one", ());
        let _first = lock.lock();
        let _again = lock.lock();
    });
    leave_behind(thread);
    let cycle = eventually("the deadlock", || cycles_of("of-one").pop());
    let threads: Vec<u32> = cycle.links.iter().map(|link| link.holder.thread).collect();
    assert_eq!(threads, [id]);
    assert!(cycle.to_string().starts_with(&format!("DEADLOCK: alone ({id}) holds \"of-one\"")), "{cycle}");
}

/// A thread that holds a lock, until the other value is dropped.
fn holder(name: &str, lock: &Arc<Mutex<u32>>) -> (u32, Thread<()>, crossbeam_channel::Sender<()>) {
    let (release, wait) = bounded::<()>(0);
    let (taken, seen) = bounded(1);
    let lock = Arc::clone(lock);
    let (id, thread) = started(name, move || {
        let _held = lock.lock();
        taken.send(()).unwrap();
        let _ = wait.recv();
    });
    seen.recv_timeout(SOON).unwrap();
    (id, thread, release)
}

#[test]
fn holder_and_waiters_are_named_with_their_places_until_they_are_gone() {
    let lock = Arc::new(Mutex::new("named", 0));
    let (holder_id, holder, release) = holder("named-holder", &lock);
    let waiting = Arc::clone(&lock);
    let (waiter_id, waiter) = started("named-waiter", move || *waiting.lock() += 1);
    let seen = eventually("a waiter", || info("named").filter(|info| !info.waiters.is_empty()));
    // Held for as long as the clock says, in steps of some milliseconds.
    let before = seen.holder.as_ref().unwrap().since;
    eventually("a later time", || info("named")?.holder.filter(|holder| holder.since > before));
    let deadlocks = cycles_of("named");
    drop(release);
    holder.join().unwrap();
    waiter.join().unwrap();
    let found = seen.holder.as_ref().unwrap();
    assert_eq!((found.thread, found.name.as_str()), (holder_id, "named-holder"));
    assert_eq!(place(found), line_of("let _held = lock.lock();"));
    let [found] = seen.waiters.as_slice() else { panic!("{seen}") };
    assert_eq!((found.thread, found.name.as_str()), (waiter_id, "named-waiter"));
    assert_eq!(place(found), line_of("let (waiter_id, waiter) ="));
    let number = seen.lock.number;
    let text = format!("lock \"named\" #{number} is held by named-holder ({holder_id}) since ");
    assert!(seen.to_string().starts_with(&text), "{seen}");
    let text = format!("; waited for by named-waiter ({waiter_id}) since ");
    assert!(seen.to_string().contains(&text), "{seen}");
    assert!(deadlocks.is_empty());
    assert!(info("named").is_none());
    assert_eq!(*lock.lock(), 1);
}

#[test]
fn a_wait_with_a_limit_ends_by_itself_and_is_no_deadlock() {
    let lock = Arc::new(Mutex::new("limited", 0));
    let (id, holder, release) = holder("limited-holder", &lock);
    assert!(lock.try_lock_for(Duration::from_millis(1)).is_none());
    assert!(info("limited").unwrap().waiters.is_empty(), "nobody waits any more");
    drop(release);
    holder.join().unwrap();
    assert!(lock.try_lock_for(SOON).is_some());
    // What a holder that waits for his own lock for a while would look like.
    let user = |gives_up| LockUser {
        thread: id,
        name: "x".to_owned(),
        since: SOON,
        place: Location::caller(),
        gives_up,
    };
    let lock = LockId { name: "limited", number: 0 };
    let info = |gives_up| LockInfo { lock, holder: Some(user(false)), waiters: vec![user(gives_up)] };
    assert_eq!(deadlocks(&[info(true)]).len(), 0);
    assert_eq!(deadlocks(&[info(false)]).len(), 1);
}

#[test]
fn a_thread_that_waits_for_a_change_does_not_hold_the_lock() {
    let shared = Arc::new((Mutex::new("changing", "nothing yet"), Condvar::new()));
    let theirs = Arc::clone(&shared);
    let (id, thread) = started("changing-waiter", move || {
        let (lock, changed) = &*theirs;
        let mut state = lock.lock();
        *state = "waits";
        while *state == "waits" {
            changed.wait(&mut state);
        }
        assert_eq!(info("changing").unwrap().holder.unwrap().thread, thread_id(), "it has it again");
    });
    let (lock, changed) = &*shared;
    eventually("the wait", || (*lock.lock() == "waits").then_some(()));
    let while_it_waits = info("changing");
    let mut state = lock.lock();
    *state = "done";
    changed.notify_all();
    // Woken, it waits for the lock like any other.
    let waiter = eventually("the wait for the lock", || info("changing")?.waiters.pop());
    drop(state);
    thread.join().unwrap();
    assert!(while_it_waits.is_none(), "nobody holds it, or waits for it: {}", while_it_waits.unwrap());
    assert_eq!((waiter.thread, place(&waiter)), (id, line_of("changed.wait(&mut state);")));
    assert!(info("changing").is_none());
}

#[test]
fn a_wait_for_a_change_ends_at_its_deadline_or_with_the_change() {
    let shared = Arc::new((Mutex::new("timed", false), Condvar::new()));
    let (lock, changed) = &*shared;
    assert!(changed.wait_until(&mut lock.lock(), Instant::now() + Duration::from_millis(5)));
    let mut done = lock.lock();
    let theirs = Arc::clone(&shared);
    let (_, thread) = started("timed-changer", move || {
        *theirs.0.lock() = true;
        theirs.1.notify_all();
    });
    while !*done {
        assert!(!changed.wait_until(&mut done, Instant::now() + SOON));
    }
    drop(done);
    thread.join().unwrap();
}

#[test]
fn a_deadlock_of_a_woken_thread_is_found() {
    let shared = Arc::new((Mutex::new("woken", false), Condvar::new(), Mutex::new("woken-outer", ())));
    let theirs = Arc::clone(&shared);
    let (_, sleeper) = started("woken-sleeper", move || {
        let _outer = theirs.2.lock();
        let mut waits = theirs.0.lock();
        *waits = true;
        theirs.1.wait(&mut waits);
    });
    leave_behind(sleeper);
    let (_, waker) = started("woken-waker", move || {
        let waits = eventually("the wait", || Some(shared.0.lock()).filter(|waits| **waits));
        shared.1.notify_all();
        let _outer = shared.2.lock();
        drop(waits);
    });
    leave_behind(waker);
    let cycle = eventually("the deadlock", || cycles_of("woken").pop());
    assert_eq!(cycle.links.len(), 2, "{cycle}");
}

#[test]
fn a_panic_releases_the_lock_and_its_record() {
    let lock = Arc::new(Mutex::new("panicked", 0));
    let theirs = Arc::clone(&lock);
    let (_, thread) = started("panicker", move || {
        let _held = theirs.lock();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(info("panicked").is_none());
    let _held = lock.lock();
    assert_eq!(info("panicked").unwrap().holder.unwrap().thread, thread_id());
}

#[test]
fn a_thread_may_hold_many_locks_and_release_them_in_any_order() {
    let all: Vec<_> = (0..50).map(|_| Mutex::new("one-of-many", ())).collect();
    let count = || locks().iter().filter(|info| info.lock.name == "one-of-many").count();
    let mut guards: Vec<_> = all.iter().map(Mutex::lock).collect();
    assert_eq!(count(), 50);
    for left in (0..50).rev() {
        drop(guards.swap_remove(left / 2));
        assert_eq!(count(), left);
    }
}

#[test]
fn a_lock_that_a_thread_took_with_it_is_still_shown_as_held() {
    let lock = Arc::new(Mutex::new("taken-along", ()));
    let theirs = Arc::clone(&lock);
    let (id, thread) = started("taker", move || std::mem::forget(theirs.lock()));
    thread.join().unwrap();
    // The kernel may need a moment more to forget it.
    let holder = eventually("the end of the thread", || {
        info("taken-along").unwrap().holder.filter(|holder| holder.name == "a thread that is gone")
    });
    assert_eq!(holder.thread, id);
}

#[test]
fn what_was_released_and_taken_again_between_two_readings_is_not_said_to_be_held() {
    let (kept, taken_again) = (Mutex::new("kept", ()), Mutex::new("taken-again", ()));
    let read = || record::read_all().filter(|(thread, _)| *thread == thread_id());
    let names =
        |facts: &[(u32, record::Fact)]| facts.iter().map(|(_, fact)| fact.lock.name).collect::<Vec<_>>();
    let _kept = kept.lock();
    let guard = taken_again.lock();
    let before: Vec<_> = read().collect();
    drop(guard);
    let _again = taken_again.lock();
    let after: Vec<_> = read().collect();
    assert_eq!((names(&before), names(&after)), (vec!["kept", "taken-again"], vec!["kept", "taken-again"]));
    assert_eq!(names(&report::agreed(&before, after.into_iter())), ["kept"]);
}
