//! System calls that a signal would end, in spite of SA_RESTART (signal(7)), and threads that sit in them.

use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::in_background;

/// How often a system call of a thread that sits in it has ended, which none may.
pub static DISTURBED: AtomicU64 = AtomicU64::new(0);

const HOUR: Duration = Duration::from_secs(3600);

const CALLS: [(&str, fn(&mut UnixStream)); 10] = [
    ("sits-in-read", |socket| _ = socket.read(&mut [0])),
    ("sits-in-timed-read", |socket| {
        socket.set_read_timeout(Some(HOUR)).expect("a socket has time limits");
        let _ = socket.read(&mut [0]);
    }),
    ("sits-in-timed-write", |socket| {
        socket.set_write_timeout(Some(HOUR)).expect("a socket has time limits");
        // Until nobody has taken it for an hour.
        while socket.write(&[0; 4096]).is_ok() {}
    }),
    ("sits-in-poll", |socket| _ = wait_for_input(socket, HOUR)),
    ("sits-in-epoll", |socket| {
        let queue = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue");
        let data = epoll::EventData::new_u64(0);
        epoll::add(&queue, socket, data, epoll::EventFlags::IN).expect("a socket can be added");
        let mut events = Vec::with_capacity(1);
        let _ = epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), None);
    }),
    ("sits-in-select", |socket| {
        let descriptor = socket.as_raw_fd();
        // SAFETY: the set is filled in before it is used, and has room for the descriptor, which is open
        // meanwhile: the process has few of them.
        #[expect(unsafe_code, reason = "no crate has a safe one")]
        unsafe {
            let mut set = MaybeUninit::uninit();
            libc::FD_ZERO(set.as_mut_ptr());
            libc::FD_SET(descriptor, set.as_mut_ptr());
            libc::select(descriptor + 1, set.as_mut_ptr(), ptr::null_mut(), ptr::null_mut(), &mut hour());
        }
    }),
    ("sits-in-nanosleep", |_| {
        let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 3600, tv_nsec: 0 });
    }),
    ("sits-in-usleep", |_| {
        // SAFETY: it takes a number.
        #[expect(unsafe_code, reason = "no crate has a safe one")]
        unsafe {
            libc::usleep(3_600_000_000);
        }
    }),
    ("sits-in-sem-timedwait", |_| {
        // SAFETY: the semaphore is made before it is used, and lives until the end.
        #[expect(unsafe_code, reason = "no crate has a safe one")]
        unsafe {
            let mut semaphore = MaybeUninit::uninit();
            libc::sem_init(semaphore.as_mut_ptr(), 0, 0);
            let until = libc::timespec { tv_sec: libc::time(ptr::null_mut()) + 3600, tv_nsec: 0 };
            libc::sem_timedwait(semaphore.as_mut_ptr(), &until);
        }
    }),
    ("sits-in-sigtimedwait", |_| {
        // SAFETY: the set is made before it is used, and concerns this thread alone.
        #[expect(unsafe_code, reason = "no crate has a safe one")]
        unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGURG);
            let limit = libc::timespec { tv_sec: 3600, tv_nsec: 0 };
            libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &limit);
        }
    }),
];

/// As many threads does [`sit`] start.
pub const SITTING: usize = CALLS.len();

/// Starts a thread for each of the calls.
pub fn sit() {
    for (name, call) in CALLS {
        let (mut socket, keep) = UnixStream::pair().expect("a socket pair");
        in_background(name.to_owned(), move || {
            call(&mut socket);
            drop(keep);
            DISTURBED.fetch_add(1, Ordering::Relaxed);
        });
    }
}

fn hour() -> libc::timeval {
    libc::timeval { tv_sec: 3600, tv_usec: 0 }
}

pub fn wait_for_input(socket: &UnixStream, limit: Duration) -> rustix::io::Result<usize> {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&limit))
}
