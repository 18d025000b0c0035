//! Threads that are stuck in every way that a thread can be stuck, and the stack dump that must show where.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]
#![allow(clippy::disallowed_types, reason = "threads may be stuck in locks of any kind")]

use std::ffi::c_int;
use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use nodepool_threads::{Condvar as NamedCondvar, Mutex as NamedMutex, StackDumper, ThreadStack, activity};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};

/// The file that the stuck functions are in.
const HERE: &str = "tests/stacks.rs";

/// Starts a thread that goes into `stuck`, and leaves it there.
fn start(name: &str, stuck: impl FnOnce() + Send + 'static) -> u32 {
    let (tell, told) = channel();
    let thread = nodepool_threads::spawn(name, "stuck", move || {
        let _activity = activity("being stuck");
        tell.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
        stuck();
    });
    std::mem::forget(thread.unwrap());
    told.recv().unwrap()
}

/// Dumps the thread again and again until its stack is as expected, which takes it a moment to reach.
#[track_caller]
fn dump_until(id: u32, expected: impl Fn(&ThreadStack) -> bool) -> ThreadStack {
    let mut dumper = StackDumper::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stack = dumper.thread(id).expect("the thread lives");
        if expected(&stack) {
            println!("{stack}");
            return stack;
        }
        assert!(Instant::now() < deadline, "not as expected:\n{stack}");
        std::thread::yield_now();
    }
}

/// Whether the stack has the function with its line, and goes on from there to where the thread began.
fn is_in(stack: &ThreadStack, function: &str) -> bool {
    let found = stack.frames.iter().position(|frame| {
        frame.function.ends_with(&format!("::{function}"))
            && frame.file.ends_with(HERE)
            && frame.line.is_some()
    });
    let began = stack.frames.iter().rposition(|frame| frame.function.ends_with("thread_start"));
    matches!((found, began), (Some(found), Some(began)) if found < began)
}

#[track_caller]
fn assert_waits_in(id: u32, function: &str) -> ThreadStack {
    dump_until(id, |stack| stack.state != 'R' && is_in(stack, function))
}

fn leak<T: Default>() -> &'static T {
    Box::leak(Box::default())
}

#[inline(never)]
fn locks_a_std_mutex(mutex: &Mutex<u32>) {
    *mutex.lock().unwrap() += 1;
}

#[test]
fn a_thread_that_waits_for_a_mutex_is_seen_there_with_its_role_and_activity() {
    let mutex: &Mutex<u32> = leak();
    let _held = mutex.lock().unwrap();
    let stack = assert_waits_in(
        start("a-mutex-of-the-standard-library", || locks_a_std_mutex(mutex)),
        "locks_a_std_mutex",
    );
    assert_eq!((stack.name.as_str(), stack.role), ("a-mutex-of-the-standard-library", Some("stuck")));
    assert_eq!(stack.activities[0].what, "being stuck");
    assert!(stack.frames.iter().any(|frame| frame.function.contains("Mutex>::lock_contended")), "{stack}");
}

#[inline(never)]
fn locks_a_parking_lot_mutex(mutex: &parking_lot::Mutex<u32>) {
    *mutex.lock() += 1;
}

#[test]
fn a_thread_that_waits_for_a_parking_lot_mutex_is_seen_there() {
    let mutex: &parking_lot::Mutex<u32> = leak();
    let _held = mutex.lock();
    assert_waits_in(start("parking-lot", || locks_a_parking_lot_mutex(mutex)), "locks_a_parking_lot_mutex");
}

#[inline(never)]
fn waits_for_a_condition(mutex: &Mutex<bool>, condition: &Condvar) {
    let _now = condition.wait_while(mutex.lock().unwrap(), |now| !*now).unwrap();
}

#[test]
fn a_thread_that_waits_for_a_condition_is_seen_there() {
    assert_waits_in(start("condvar", || waits_for_a_condition(leak(), leak())), "waits_for_a_condition");
}

#[inline(never)]
fn waits_for_a_named_condition(mutex: &NamedMutex<bool>, condition: &NamedCondvar) {
    condition.wait(&mut mutex.lock());
}

#[test]
fn a_thread_that_waits_for_a_condition_of_ours_is_seen_there_and_holds_no_lock() {
    static MUTEX: NamedMutex<bool> = NamedMutex::new("of a condition", false);
    static CONDITION: NamedCondvar = NamedCondvar::new();
    let id = start("named-condvar", || waits_for_a_named_condition(&MUTEX, &CONDITION));
    let stack = assert_waits_in(id, "waits_for_a_named_condition");
    assert!(stack.frames.iter().any(|frame| frame.function.contains("Condvar::wait")), "{stack}");
    let _free = MUTEX.try_lock_for(Duration::from_secs(60)).unwrap();
}

#[inline(never)]
fn locks_a_named_mutex(mutex: &NamedMutex<bool>) {
    *mutex.lock() = true;
}

#[test]
fn a_thread_that_waits_for_a_lock_of_ours_is_seen_there_before_all_that_are_not_in_trouble() {
    static MUTEX: NamedMutex<bool> = NamedMutex::new("somebody else's", false);
    let _held = MUTEX.lock();
    let id = start("named-mutex", || locks_a_named_mutex(&MUTEX));
    assert_waits_in(id, "locks_a_named_mutex");
    let report = StackDumper::new().unwrap().report("some program");
    let at = |begin: &str| report.iter().position(|text| text.starts_with(begin)).unwrap();
    assert!(at("-- overdue or waiting for a lock: ") < at(&format!("thread {id} ")));
    assert!(at(&format!("thread {id} ")) < at("-- busy: "));
    let lock = &report[at("lock \"somebody else's\"")];
    assert!(lock.contains(&format!("waited for by named-mutex ({id}) since ")), "{lock}");
}

#[inline(never)]
fn locks_a_file(file: &File) {
    flock(file, FlockOperation::LockExclusive).unwrap();
}

#[test]
fn a_thread_that_waits_for_the_lock_of_a_file_is_seen_there() {
    let path = std::env::temp_dir().join(format!("stacks-{}.lock", std::process::id()));
    // Opened twice: each may have the lock without the other.
    let [held, wanted] = [(); 2].map(|()| File::create(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    assert_waits_in(start("flock", move || locks_a_file(&wanted)), "locks_a_file");
}

#[inline(never)]
fn receives_from_a_channel(receiver: &crossbeam_channel::Receiver<u32>) {
    receiver.recv().unwrap();
}

#[test]
fn a_thread_that_receives_from_a_channel_is_seen_there() {
    let (_keep, receiver) = crossbeam_channel::bounded(0);
    assert_waits_in(start("channel", move || receives_from_a_channel(&receiver)), "receives_from_a_channel");
}

#[inline(never)]
fn receives_within(limit: Duration, receiver: &crossbeam_channel::Receiver<u32>) {
    let _ = black_box(receiver.recv_timeout(limit));
}

/// With optimisation the channel loads the address of `park_timeout` long before it calls it.
#[test]
fn a_thread_that_receives_within_a_limit_is_seen_there_for_certain() {
    let (_keep, receiver) = crossbeam_channel::bounded(0);
    let long = Duration::from_secs(600);
    let stack = assert_waits_in(start("limit", move || receives_within(long, &receiver)), "receives_within");
    assert!(stack.frames.iter().any(|frame| frame.function.contains("park_timeout")), "{stack}");
    assert_eq!(stack.note, None, "{stack}");
}

#[inline(never)]
fn selects_over_channels(receiver: &crossbeam_channel::Receiver<u32>) {
    crossbeam_channel::select! {
        recv(receiver) -> _ => {}
        recv(crossbeam_channel::never::<u32>()) -> _ => {}
        default(Duration::from_secs(600)) => {}
    }
}

#[test]
fn a_thread_that_selects_over_channels_is_seen_there() {
    let (_keep, receiver) = crossbeam_channel::bounded(0);
    assert_waits_in(start("select", move || selects_over_channels(&receiver)), "selects_over_channels");
}

#[inline(never)]
fn reads_a_socket(mut socket: &UnixStream) {
    let _ = socket.read(&mut [0]).unwrap();
}

#[test]
fn a_thread_that_reads_is_seen_there() {
    let (_keep, socket) = UnixStream::pair().unwrap();
    assert_waits_in(start("read", move || reads_a_socket(&socket)), "reads_a_socket");
}

#[inline(never)]
fn polls_a_socket(socket: &UnixStream) {
    poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], None).unwrap();
}

#[test]
fn a_thread_that_polls_is_seen_there() {
    let (_keep, socket) = UnixStream::pair().unwrap();
    assert_waits_in(start("poll", move || polls_a_socket(&socket)), "polls_a_socket");
}

#[inline(never)]
fn waits_for_a_process(child: &mut Child) {
    child.wait().unwrap();
}

#[test]
fn a_thread_that_waits_for_a_process_is_seen_there() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    // Ends when the other end of its input is closed, with this process at the latest.
    let _input = child.stdin.take().unwrap();
    assert_waits_in(start("waitpid", move || waits_for_a_process(&mut child)), "waits_for_a_process");
}

#[inline(never)]
fn sleeps_for_long() {
    std::thread::sleep(Duration::from_secs(600));
    // With nothing left to do, an optimised function is not on the stack of what it calls last.
    black_box(());
}

#[test]
fn a_thread_that_sleeps_is_seen_there() {
    let stack = assert_waits_in(start("sleep", sleeps_for_long), "sleeps_for_long");
    assert!(stack.frames[0].function.ends_with("clock_nanosleep"), "without the version: {stack}");
}

#[inline(never)]
fn sleeps_with_much_on_the_stack() -> u64 {
    let much = black_box([7_u64; 12 << 10]);
    sleeps_for_long();
    much.iter().sum()
}

#[test]
fn a_thread_with_a_large_frame_is_seen_in_all_its_functions() {
    let id = start("large-frame", || assert_eq!(sleeps_with_much_on_the_stack(), 1));
    let stack = assert_waits_in(id, "sleeps_with_much_on_the_stack");
    assert!(is_in(&stack, "sleeps_for_long"), "{stack}");
}

#[inline(never)]
fn spins(until: &AtomicBool) {
    while !until.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_thread_that_spins_is_seen_there_and_goes_on() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let id = start("spin", || spins(&STOP));
    let stack = dump_until(id, |stack| is_in(stack, "spins"));
    assert_eq!((stack.state, stack.note), ('R', None));
    STOP.store(true, Ordering::Relaxed);
    let mut dumper = StackDumper::new().unwrap();
    while dumper.thread(id).is_some() {
        std::thread::yield_now();
    }
}

#[inline(never)]
fn recurses_before_it_sleeps(depth: u32) -> u32 {
    if depth == 0 {
        sleeps_for_long();
    }
    black_box(if depth == 0 { 0 } else { recurses_before_it_sleeps(depth - 1) }) + 1
}

#[test]
fn a_stack_that_is_too_deep_is_said_to_be() {
    let id = start("deep", || assert_eq!(recurses_before_it_sleeps(2000), 1));
    let deep = |stack: &ThreadStack| {
        stack.note.as_ref().is_some_and(|note| note.contains("its stack is deeper than 4"))
    };
    let stack = dump_until(id, deep);
    let recursion = stack.frames.iter().filter(|frame| frame.function.ends_with("recurses_before_it_sleeps"));
    assert!(recursion.count() > 390, "{stack}");
}

#[inline(never)]
fn block_all_signals() {
    // SAFETY: both calls only look at, and fill in, this mask of signals, and concern this thread alone.
    #[expect(unsafe_code, reason = "there is no safe way to block signals")]
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK as c_int, &raw const all, std::ptr::null_mut());
    }
}

#[test]
fn a_thread_that_waits_with_all_signals_blocked_is_seen_and_one_that_spins_so_is_said_to() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let waits = start("blocked-waits", || {
        block_all_signals();
        sleeps_for_long();
    });
    assert_waits_in(waits, "sleeps_for_long");
    let spinning = start("blocked-spins", || {
        block_all_signals();
        spins(&STOP);
    });
    let why =
        |stack: &ThreadStack| stack.note.clone().is_some_and(|note| note.contains("all signals blocked"));
    let stack = dump_until(spinning, why);
    assert_eq!((stack.name.as_str(), stack.frames.len()), ("blocked-spins", 0));
    STOP.store(true, Ordering::Relaxed);
}

#[inline(never)]
fn locks_first_then_second(first: &NamedMutex<u32>, second: &NamedMutex<u32>, both: &Barrier) {
    let held = first.lock();
    both.wait();
    *second.lock() += *held;
}

#[test]
fn a_deadlock_is_spelled_out_and_both_of_its_threads_are_seen_in_it() {
    static ONE: NamedMutex<u32> = NamedMutex::new("one", 1);
    static TWO: NamedMutex<u32> = NamedMutex::new("two", 2);
    let both: &Barrier = Box::leak(Box::new(Barrier::new(2)));
    let ids = [
        start("deadlock-1", move || locks_first_then_second(&ONE, &TWO, both)),
        start("deadlock-2", move || locks_first_then_second(&TWO, &ONE, both)),
    ];
    for id in ids {
        dump_until(id, |stack| stack.state != 'R' && is_in(stack, "locks_first_then_second"));
    }
    let report = StackDumper::new().unwrap().report("some program");
    assert!(report[0].starts_with("stack dump begins: some program: "), "{}", report[0]);
    for id in ids {
        let head = format!("thread {id} \"deadlock-");
        let stack = report.iter().find(|text| text.starts_with(&head)).unwrap();
        assert!(stack.contains("::locks_first_then_second at "), "{stack}");
    }
    let [first, second] = ids.map(|id| report.iter().filter(move |text| text.contains(&format!("({id})"))));
    for (lock, mut said) in [("one", first), ("two", second)] {
        let held = said.find(|text| text.starts_with(&format!("lock \"{lock}\""))).unwrap();
        assert!(held.contains("is held by deadlock-") && held.contains(HERE), "{held}");
    }
    let deadlocks: Vec<_> = report.iter().filter(|text| text.starts_with("DEADLOCK: ")).collect();
    let [deadlock] = deadlocks.as_slice() else { panic!("not one deadlock: {deadlocks:?}") };
    for part in ["deadlock-1", "deadlock-2", "\"one\"", "\"two\"", HERE] {
        assert!(deadlock.contains(part), "{deadlock}");
    }
    assert_eq!(report.iter().position(|text| text == *deadlock), Some(1), "the first thing that is said");
    assert!(report.last().unwrap().starts_with("stack dump ends after "));
}

#[test]
fn threads_that_are_not_registered_are_in_the_dump_under_the_kernels_name_as_is_the_one_that_dumps() {
    let (_keep, receiver) = channel::<()>();
    std::thread::Builder::new().name("stranger".to_owned()).spawn(move || receiver.recv()).unwrap();
    let mut dumper = StackDumper::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // A thread gives itself its name, some time after it has begun.
    let (all, role) = loop {
        let all = dumper.dump();
        let stranger = all.iter().find(|stack| stack.name == "stranger");
        if let Some(role) = stranger.map(|stranger| stranger.role) {
            break (all, role);
        }
        assert!(Instant::now() < deadline, "no stranger among {all:?}");
    };
    assert_eq!(role, None);
    let own = std::process::id();
    assert!(
        all.iter().any(|stack| stack.id == own && !stack.frames.is_empty()),
        "the main thread is missing"
    );
    let dumping =
        all.iter().find(|stack| stack.frames.iter().any(|frame| frame.function.ends_with("::dump")));
    assert!(dumping.is_some(), "the thread that dumps is missing");
    assert!(dumper.thread(u32::MAX).is_none());
}
