//! What has failed lately, and when it may be tried again: longer after each failure, and never at the
//! same moment as everybody else.

use std::collections::BTreeMap;

/// What can fail again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// Building an image.
    Build(String),
    /// Uploading an image to a provider.
    Upload(String, String),
    /// Cleaning up something of an image: see [`Cleanup`](super::plan::Cleanup).
    Clean(super::plan::Cleanup),
    /// Opening a provider.
    Open(String),
}

impl Attempt {
    /// The pause after the first failure, and the longest one, in seconds.
    fn pauses(&self) -> (f64, f64) {
        match self {
            // As often as the original looks for work; a build that fails is expensive.
            Self::Build(_) => (10.0, 1800.0),
            Self::Upload(..) | Self::Clean(_) | Self::Open(_) => (1.0, 600.0),
        }
    }

    /// Whether it belongs to `image`.
    fn is_of(&self, image: &str) -> bool {
        match self {
            Self::Build(name) | Self::Upload(name, _) => name == image,
            Self::Clean(cleanup) => cleanup.image == image,
            Self::Open(_) => false,
        }
    }
}

/// A record of failures. Times are UNIX seconds.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<Attempt, Failure>);

#[derive(Debug, Clone, Copy)]
struct Failure {
    count: u32,
    at: f64,
    not_before: f64,
}

impl Failures {
    /// Notes a failure at `now` and returns the pause before the next attempt in seconds.
    pub fn failed(&mut self, attempt: Attempt, now: f64) -> f64 {
        let (first, longest) = attempt.pauses();
        let failure = self.0.entry(attempt).or_insert(Failure { count: 0, at: now, not_before: now });
        let pause = (first * 2f64.powi(failure.count.min(30) as i32)).min(longest);
        let pause = pause * (0.75 + fastrand::f64() / 2.0);
        *failure = Failure { count: failure.count.saturating_add(1), at: now, not_before: now + pause };
        pause
    }

    /// Puts an attempt off that was not needed after all: what is known is a little behind, and asking again
    /// at once would only bring the same answer.
    pub fn put_off(&mut self, attempt: Attempt, now: f64) {
        self.0.entry(attempt).or_insert(Failure { count: 0, at: now, not_before: now }).not_before = now + 0.25;
    }

    /// Notes a success.
    pub fn succeeded(&mut self, attempt: &Attempt) {
        self.0.remove(attempt);
    }

    /// Forgets an image's failures: its configuration has changed, or it is gone.
    pub fn forget_image(&mut self, image: &str) {
        self.0.retain(|attempt, _| !attempt.is_of(image));
    }

    /// Forgets what does not hold anything up any more, so that the record does not grow for ever.
    pub fn forget_old(&mut self, now: f64) {
        // What has really failed is remembered for a while, so that the next failure waits longer.
        self.0.retain(|_, failure| failure.not_before + if failure.count > 0 { 3600.0 } else { 0.0 } > now);
    }

    /// When the attempt may be made; `None` if at any time.
    pub fn not_before(&self, attempt: &Attempt) -> Option<f64> {
        self.0.get(attempt).map(|failure| failure.not_before)
    }

    /// When the attempt failed last.
    pub fn last(&self, attempt: &Attempt) -> Option<f64> {
        self.0.get(attempt).map(|failure| failure.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_a_success_ends_them() {
        let mut failures = Failures::default();
        let attempt = Attempt::Upload("debian".to_owned(), "cloud".to_owned());
        for (count, expected) in [1.0, 2.0, 4.0, 8.0].into_iter().enumerate() {
            let pause = failures.failed(attempt.clone(), 100.0);
            assert!((0.75 * expected..=1.25 * expected).contains(&pause), "failure {count}: {pause}");
            assert_eq!(failures.not_before(&attempt), Some(100.0 + pause));
        }
        for _ in 0..100 {
            assert!(failures.failed(attempt.clone(), 100.0) <= 1.25 * 600.0);
        }
        failures.forget_old(1000.0);
        assert!(failures.not_before(&attempt).is_some());
        failures.succeeded(&attempt);
        assert_eq!(failures.not_before(&attempt), None);
        failures.put_off(attempt.clone(), 1000.0);
        failures.forget_old(1001.0);
        assert_eq!(failures.not_before(&attempt), None);
    }
}
