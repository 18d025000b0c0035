//! Looking at locks that threads take and release all the time, or were stopped in the middle of taking.

use std::sync::atomic::{AtomicBool, AtomicU32};

use super::*;

/// Ends the busy threads, also when the test has failed.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Threads that take some of the locks, always in the same order, until told to end. Returns how often.
fn busy_threads(name: &'static str, count: usize, stop: &Arc<AtomicBool>) -> Vec<(u32, Thread<u32>)> {
    let ring: Arc<Vec<_>> = Arc::new((0..3).map(|_| Mutex::new(name, 0u64)).collect());
    let run = |index: usize| {
        let (ring, stop) = (Arc::clone(&ring), Arc::clone(stop));
        let (tell, id) = bounded(1);
        let thread = spawn(format!("{name}-{index}"), "tester", move || {
            let mut rounds = 0u32;
            while !stop.load(Ordering::Relaxed) {
                // Each nonempty choice of the three locks in turn. Without allocating: a thread that is stopped
                // while it does would stop others that allocate.
                let choice = (rounds as usize + index) % 7 + 1;
                let mut held = [const { None }; 3];
                for (lock, (place, mutex)) in held.iter_mut().zip(ring.iter()).enumerate() {
                    *place = (choice & (1 << lock) != 0).then(|| mutex.lock());
                }
                held.iter_mut().flatten().for_each(|value| **value += 1);
                rounds += 1;
                if rounds == 1 {
                    tell.send(thread_id()).unwrap();
                }
            }
            rounds
        });
        (id.recv_timeout(SOON).unwrap(), thread.unwrap())
    };
    (0..count).map(run).collect()
}

#[test]
fn threads_that_take_locks_in_order_are_never_taken_for_deadlocked() {
    let stop = Arc::new(AtomicBool::new(false));
    let threads = busy_threads("ordered", 8, &stop);
    let release = Release(stop);
    let (mut held, mut waited) = (0, 0);
    // A look while nothing happens proves nothing.
    eventually("many looks at held locks and waiting threads", || {
        for _ in 0..100 {
            let all = locks();
            let ours = || all.iter().filter(|info| info.lock.name == "ordered");
            held += ours().filter(|info| info.holder.is_some()).count();
            waited += ours().filter(|info| info.holder.is_some() && !info.waiters.is_empty()).count();
            let cycles = deadlocks(&all);
            let false_one =
                cycles.iter().find(|cycle| cycle.links.iter().any(|link| link.lock.name == "ordered"));
            assert!(false_one.is_none(), "{}", false_one.unwrap());
        }
        (held > 2_000 && waited > 2_000).then_some(())
    });
    drop(release);
    let rounds: u32 = threads.into_iter().map(|(_, thread)| thread.join().unwrap()).sum();
    assert!(rounds > 10_000, "{rounds}");
}

/// The number of the stop that is asked for, or 0; and of the one that a thread stands still for.
static STOP: AtomicU32 = AtomicU32::new(0);
static STANDS: AtomicU32 = AtomicU32::new(0);

extern "C" fn stand_still(_signal: libc::c_int) {
    let number = STOP.load(Ordering::SeqCst);
    STANDS.store(number, Ordering::SeqCst);
    while number != 0 && STOP.load(Ordering::SeqCst) == number {
        std::hint::spin_loop();
    }
}

#[test]
#[allow(unsafe_code)]
fn locks_are_listed_while_a_thread_is_stopped_wherever_it_is() {
    let signal = libc::SIGRTMIN() + 7;
    let handler = stand_still as extern "C" fn(libc::c_int);
    // SAFETY: the handler only uses atomics, and nobody else uses this signal.
    unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    let stop = Arc::new(AtomicBool::new(false));
    let threads = busy_threads("stopped", 2, &stop);
    let (ask, asked) = bounded::<()>(1);
    let (tell, listed) = bounded(1);
    // A thread of its own, so that a hang is a failure and not a hang. It has allocated before.
    let (_, lister) = started("lister", move || {
        for () in asked {
            tell.send(locks()).unwrap();
        }
    });
    let release = Release(stop);
    let mut seen_held = 0;
    for number in 1..=200 {
        let target = threads[number as usize % 2].0;
        STOP.store(number, Ordering::SeqCst);
        // SAFETY: a signal to a thread of this process that has not been joined.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), target, signal) };
        assert_eq!(sent, 0);
        eventually("a thread that stands still", || (STANDS.load(Ordering::SeqCst) == number).then_some(()));
        ask.send(()).unwrap();
        let found: Vec<LockInfo> = listed.recv_timeout(SOON).unwrap();
        STOP.store(0, Ordering::SeqCst);
        let of_target = |info: &&LockInfo| info.holder.as_ref().is_some_and(|holder| holder.thread == target);
        seen_held += found.iter().filter(of_target).count();
    }
    drop((release, ask));
    lister.join().unwrap();
    threads.into_iter().for_each(|(_, thread)| _ = thread.join().unwrap());
    assert!(seen_held > 0, "it was never stopped while it held a lock");
}
