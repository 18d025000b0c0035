//! Signals are taken by one thread, which turns them into messages.
//!
//! The first SIGINT or SIGTERM, or whatever else is among the [`StopSignals`], asks for a stop; a second one, half a
//! second later or more, ends the process at once, with all child process groups, because a stop that hangs must not
//! need `kill -9`.
//!
//! Every other thread blocks these signals ([`block_signals`]), so that they interrupt no system call of its work. A
//! thread has the mask of the one that starts it, and so has a process, which must not keep it: see [`unblocked`].

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

use crate::child;
use crate::registry::{Thread, spawn};

/// Which signals ask for a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignals {
    /// SIGINT and SIGTERM.
    Usual,
    /// SIGUSR1 as well.
    AlsoUsr1,
}

impl StopSignals {
    /// All signals that are taken then.
    fn taken(self) -> &'static [i32] {
        match self {
            Self::Usual => &[SIGHUP, SIGINT, SIGTERM, SIGUSR2],
            Self::AlsoUsr1 => &[SIGHUP, SIGINT, SIGTERM, SIGUSR2, SIGUSR1],
        }
    }
}

/// A signal that comes so soon after the first is the same request: some programs signal a process and then its
/// whole group.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// One of the [`StopSignals`]: stop cleanly.
    Stop,
    /// SIGHUP: look at the files again.
    Reload,
}

/// The thread that takes signals. Dropping it ends the thread; the signals then do nothing.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    _thread: Thread<()>,
}

impl SignalThread {
    /// Begins to take signals. SIGUSR2 calls `dump`, which must not wait for anything: the thread that runs the
    /// daemon may be stuck, and that is when a dump is wanted. The others arrive at the returned receiver.
    /// `last_words` is called before a second signal ends the process.
    ///
    /// To be called by a thread that has called [`block_signals`] with the same `stops` before it started any other.
    pub fn start(
        stops: StopSignals,
        dump: impl Fn() + Send + 'static,
        last_words: impl Fn() + Send + 'static,
    ) -> io::Result<(Self, Receiver<Signal>)> {
        let mut signals = Signals::new(stops.taken())?;
        let handle = signals.handle();
        let (sender, receiver) = bounded(16);
        let thread = spawn("signals", "signals", move || {
            // Fails for a signal that does not exist only.
            let _ = change(libc::SIG_UNBLOCK, &mask(stops.taken()));
            let mut stopping: Option<Instant> = None;
            for signal in signals.forever() {
                let message = match signal {
                    SIGHUP => Signal::Reload,
                    SIGUSR2 => {
                        dump();
                        continue;
                    }
                    _ => match stopping {
                        None => {
                            stopping = Some(Instant::now());
                            Signal::Stop
                        }
                        Some(first) if first.elapsed() < SAME_REQUEST => continue,
                        Some(_) => {
                            last_words();
                            child::kill_child_groups();
                            signal_hook::low_level::exit(128 + signal);
                        }
                    },
                };
                // A receiver that has sixteen signals before it has the request already.
                let _ = sender.try_send(message);
            }
        })?;
        Ok((Self { handle, _thread: thread }, receiver))
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Runs `start`, which starts a process, with the signals unblocked, as the process shall have them.
///
/// A signal may come to the caller meanwhile. Starting a process has no system call that it could interrupt
/// without being repeated. Changing the mask in the child instead would take a `fork` of the whole process
/// where the system has something faster, and a moment in which the child has our handlers, but not our
/// threads.
pub(crate) fn unblocked<T>(start: impl FnOnce() -> T) -> T {
    let before = change(libc::SIG_UNBLOCK, &mask(StopSignals::AlsoUsr1.taken()));
    let result = start();
    if let Ok(before) = before {
        // Fails for a mask that is none only.
        let _ = change(libc::SIG_SETMASK, &before);
    }
    result
}

/// Has the calling thread, and all threads that it starts from now on, block the signals. They wait until there
/// is a [`SignalThread`].
pub fn block_signals(stops: StopSignals) -> io::Result<()> {
    change(libc::SIG_BLOCK, &mask(stops.taken())).map(drop)
}

/// Has the calling thread, and all threads that it starts from now on, block SIGUSR2 alone: for the time before
/// [`block_signals`], in which it would end the program, and the others still have to.
pub fn block_dump_signal() -> io::Result<()> {
    change(libc::SIG_BLOCK, &mask(&[libc::SIGUSR2])).map(drop)
}

/// A mask of these signals.
pub(crate) fn mask(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset(3) fills in the whole of it, and the others change what is filled in.
    #[expect(unsafe_code, reason = "masks of signals exist in the C library only")]
    unsafe {
        let mut mask = MaybeUninit::uninit();
        libc::sigemptyset(mask.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(mask.as_mut_ptr(), *signal);
        }
        mask.assume_init()
    }
}

/// Changes the calling thread's mask, and returns the one before.
pub(crate) fn change(how: i32, mask: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both are masks that live during the call, and `before` is filled in if it succeeds.
    #[expect(unsafe_code, reason = "there is no safe way to block signals")]
    unsafe {
        match libc::pthread_sigmask(how, ptr::from_ref(mask), before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
