//! Signals are taken by one thread, which turns them into messages.
//!
//! The first SIGINT or SIGTERM asks for a stop; a second one ends the process at once, with all child
//! process groups, because a stop that hangs must not need `kill -9`.

use std::io;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

use crate::child;
use crate::registry::{Thread, spawn};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT or SIGTERM: stop cleanly.
    Stop,
    /// SIGHUP: look at the files again.
    Reload,
    /// SIGUSR2: say what every thread is doing.
    Dump,
}

/// The thread that takes signals. Dropping it ends the thread; the signals then do nothing.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    _thread: Thread<()>,
}

impl SignalThread {
    /// Begins to take signals, which arrive at the returned receiver. `last_words` is called before a second
    /// signal ends the process.
    pub fn start(last_words: impl Fn() + Send + 'static) -> io::Result<(Self, Receiver<Signal>)> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR2])?;
        let handle = signals.handle();
        let (sender, receiver) = bounded(16);
        let thread = spawn("signals", "signals", move || {
            let mut stopping = false;
            for signal in signals.forever() {
                let message = match signal {
                    SIGHUP => Signal::Reload,
                    SIGUSR2 => Signal::Dump,
                    _ if stopping => {
                        child::kill_child_groups();
                        last_words();
                        signal_hook::low_level::exit(128 + signal);
                    }
                    _ => {
                        stopping = true;
                        Signal::Stop
                    }
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
