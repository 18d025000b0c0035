//! A thread that goes on while its stack is read: what the dump then says must have been so at one moment.
//!
//! The thread waits at the end of one deep recursion and computes at the end of another, whose frames lie
//! at the same addresses. The stack of one read with the place or the frames of the other is seen at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nodepool_threads::{StackDumper, ThreadStack};

/// So deep that reading the stack takes a while, and more than one read.
const DEPTH: usize = 100;

macro_rules! recursion {
    ($name:ident) => {
        #[inline(never)]
        fn $name(depth: usize, end: &mut dyn FnMut()) {
            let large = black_box([depth; 8]);
            match depth {
                1 => end(),
                _ => $name(depth - 1, end),
            }
            black_box(large);
        }
    };
}
recursion!(goes_down_to_wait);
recursion!(goes_down_to_compute);

#[inline(never)]
fn waits(socket: &mut UnixStream) -> bool {
    socket.read(&mut [0]).unwrap() == 1
}

#[inline(never)]
fn computes(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Whether the stack says that the thread waits. Panics if the thread cannot ever have been there.
fn is_waiting(stack: &ThreadStack) -> bool {
    let count = |name: &str| stack.frames.iter().filter(|frame| frame.function.ends_with(name)).count();
    let [to_wait, to_compute] = ["::goes_down_to_wait", "::goes_down_to_compute"].map(count);
    assert!(to_wait == 0 || to_compute == 0, "both at once:\n{stack}");
    assert!(to_wait.max(to_compute) <= DEPTH, "deeper than it ever goes:\n{stack}");
    let waiting = stack.state == 'S' && count("::waits") == 1;
    if stack.state == 'S' && !stack.frames.is_empty() {
        // It tells its partner that it is about to wait, for which it may have to wait a moment, too.
        let complete = waiting && to_wait == DEPTH;
        assert!(complete || to_wait + to_compute == 0, "it never waits there:\n{stack}");
    }
    if count("::computes") > 0 {
        assert_eq!((to_wait, to_compute, count("::waits")), (0, DEPTH, 0), "{stack}");
    }
    waiting
}

#[test]
fn a_thread_that_goes_on_while_its_stack_is_read_is_never_said_to_be_where_it_was_not() {
    let (mut socket, mut partner) = UnixStream::pair().unwrap();
    let (tell, told) = channel();
    let moving = nodepool_threads::spawn("moving", "tester", move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
        let mut goes_on = true;
        while goes_on && socket.write(&[0]).is_ok() {
            goes_down_to_wait(DEPTH, &mut || goes_on = waits(&mut socket));
            goes_down_to_compute(DEPTH, &mut || computes(Duration::from_millis(8)));
        }
    });
    let waker = nodepool_threads::spawn("waker", "tester", move || {
        // After another time each time, so that it happens at any point of the reading.
        for micros in (0..3000).step_by(37).cycle() {
            if partner.read(&mut [0]).unwrap_or(0) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_micros(micros));
            if partner.write(&[0]).is_err() {
                break;
            }
        }
    });
    // Nobody tells them to end; they do with the process.
    std::mem::forget((moving, waker));
    let id = told.recv().unwrap();
    let mut dumper = StackDumper::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut waiting, mut others) = (0, 0);
    while waiting < 100 || others < 10 {
        let stack = dumper.thread(id).expect("the thread lives");
        if stack.note.is_none() {
            *if is_waiting(&stack) { &mut waiting } else { &mut others } += 1;
        }
        assert!(Instant::now() < deadline, "only {waiting} times waiting and {others} times not");
    }
}
