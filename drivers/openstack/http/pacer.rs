//! The provider's `rate`: the seconds between two of its calls, whichever threads make them.

use std::time::{Duration, Instant};

use nodepool_threads::{Interrupted, Mutex, StopToken};

/// Hands out the times at which calls may be made.
#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pacer {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: Mutex::new("time of a cloud's next call", None) }
    }

    /// Waits until the next call may be made. One that ends here leaves its time unused.
    pub(super) fn wait(&self, stop: &StopToken) -> Result<(), Interrupted> {
        stop.check()?;
        if self.interval.is_zero() {
            return Ok(());
        }
        let now = Instant::now();
        let mine = {
            let mut next = self.next.lock();
            let mine = next.map_or(now, |next| next.max(now));
            *next = mine.checked_add(self.interval);
            mine
        };
        stop.wait(mine.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use nodepool_threads::StopSource;

    use super::*;

    #[test]
    fn calls_of_all_threads_keep_their_distance() {
        let pacer = Pacer::new(Duration::from_millis(20));
        let stop = StopSource::new();
        let mut times: Vec<Instant> = std::thread::scope(|scope| {
            let call = || {
                let calls = (0..3).map(|_| pacer.wait(&stop.token()).map(|()| Instant::now()).unwrap());
                calls.collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(call)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        times.sort();
        // Whoever is late makes the next distance shorter, but never all of them.
        assert!(times[8] - times[0] >= Duration::from_millis(20 * 7), "{times:?}");
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let pacer = Pacer::new(Duration::from_secs(600));
        let stop = StopSource::new();
        assert_eq!(pacer.wait(&stop.token()), Ok(()));
        let late = stop.token().deadline_in(Duration::ZERO);
        assert_eq!(pacer.wait(&late), Err(Interrupted::DeadlinePassed));
        stop.stop();
        assert_eq!(pacer.wait(&stop.token()), Err(Interrupted::Stopped));
    }
}
