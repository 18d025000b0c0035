//! Waiting for a condition under a deadline, and directories that no other test has.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Calls `probe` until it answers `Some`, and panics with `what` when the deadline passes first.
///
/// The probe is always called once more after the deadline: a machine that slept does not fail the test.
#[track_caller]
pub fn eventually<T>(deadline: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> T {
    match within(deadline, probe) {
        Some(value) => value,
        None => panic!("waited {:.1} s in vain for: {what}", deadline.as_secs_f64()),
    }
}

/// Like [`eventually`], for callers that have more to say than a sentence when the time is up.
pub fn within<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    loop {
        let last = Instant::now() >= end;
        if let Some(value) = probe() {
            return Some(value);
        }
        if last {
            return None;
        }
        std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Creates a directory of its own below the system's temporary directory; the caller removes it.
pub fn scratch_dir(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nodepool-{name}-{}-{count}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return path,
            // Left by an earlier process of the same number: its test failed, so it stays.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("cannot create {}: {error}", path.display()),
        }
    }
}
