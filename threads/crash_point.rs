//! Crash points: named steps between two effects of a daemon, where a test stops the process and kills it, to
//! see what a crash at this very moment leaves behind. They exist in builds with debug assertions only.

/// The environment variable that names the step to stop at.
#[cfg(debug_assertions)]
const STOP_AT: &str = "NODEPOOL_STOP_AT";

/// Marks the step `name`. With `NODEPOOL_STOP_AT=name` in the environment of a debug build, the process stops
/// here as by SIGSTOP, all of its threads, and this one never goes on; otherwise nothing happens.
#[cfg(debug_assertions)]
pub fn crash_point(name: &str) {
    if std::env::var_os(STOP_AT).is_some_and(|wanted| wanted == name) {
        // It cannot fail: a process may stop itself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        // The kernel may take a moment to stop the thread that has asked for it.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing: see the builds with debug assertions.
#[cfg(not(debug_assertions))]
pub fn crash_point(_name: &str) {}
