//! How far an upload is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far an upload is: written by the driver, if it can tell, and read by whoever watches. Clones are one and
/// the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    whole: AtomicU64,
}

impl Progress {
    /// Begins anew, with so many bytes to bring.
    pub fn begin(&self, whole: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.whole.store(whole, Ordering::Relaxed);
    }

    /// So many more bytes are there.
    pub fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes that are there, of how many; `None` while that is not known.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        let (done, whole) = (self.0.done.load(Ordering::Relaxed), self.0.whole.load(Ordering::Relaxed));
        (whole > 0).then(|| (done.min(whole), whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_watches_sees_what_the_driver_has_done() {
        let progress = Progress::default();
        let watched = progress.clone();
        assert_eq!(watched.bytes(), None);
        progress.begin(10);
        progress.add(4);
        assert_eq!(watched.bytes(), Some((4, 10)));
        progress.begin(10);
        assert_eq!(watched.bytes(), Some((0, 10)));
    }
}
