//! What has failed lately, and when it may be tried again: longer after each failure, and never at the
//! same moment as everybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nodepool_threads::Pauses;

/// How long a failure is remembered that was not repeated: longer than any pause and any build.
const MEMORY: f64 = 2.0 * 24.0 * 3600.0;
/// The same of a clean-up, which takes no longer than its longest pause, and which another builder may have done.
const MEMORY_OF_CLEANUP: f64 = 3600.0;
/// The pauses after attempts that were not needed.
const DELAYS: Pauses = Pauses { first: Duration::from_millis(250), longest: Duration::from_secs(30) };
/// How long such an attempt is remembered.
const MEMORY_OF_DELAY: f64 = 30.0;

/// What can fail again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// Building an image, by the request by hand that was made at this time (in milliseconds) and renewed so
    /// often, if there is one: a new request is a new attempt, whatever has failed before it.
    Build(String, Option<(u64, i32)>),
    /// Uploading an image to a provider.
    Upload(String, String),
    /// Cleaning up something of an image: see [`Cleanup`](super::plan::Cleanup).
    Clean(super::plan::Cleanup),
    /// Opening a provider.
    Open(String),
}

impl Attempt {
    /// Building an image that was requested at `request`, in seconds, and again so often.
    pub fn build(image: &str, request: Option<f64>, renewed: i32) -> Self {
        // The time only serves to tell one request from another: no clock is compared with it.
        Self::Build(image.to_owned(), request.map(|made| ((made * 1000.0).round() as u64, renewed)))
    }

    /// The pauses after failures.
    fn pauses(&self) -> Pauses {
        let (first, longest) = match self {
            // As often as the original looks for work; a build that fails is expensive.
            Self::Build(..) => (10, 1800),
            Self::Upload(..) | Self::Clean(_) | Self::Open(_) => (1, 600),
        };
        Pauses { first: Duration::from_secs(first), longest: Duration::from_secs(longest) }
    }

    /// The image that it belongs to, if it belongs to one.
    fn image(&self) -> Option<&str> {
        match self {
            Self::Build(name, _) | Self::Upload(name, _) => Some(name),
            Self::Clean(cleanup) => Some(&cleanup.image),
            Self::Open(_) => None,
        }
    }

    /// Whether it belongs to `image`.
    fn is_of(&self, image: &str) -> bool {
        self.image() == Some(image)
    }

    /// Whether it needs `provider`.
    fn is_at(&self, provider: &str) -> bool {
        match self {
            Self::Build(..) => false,
            Self::Upload(_, name) | Self::Open(name) => name == provider,
            Self::Clean(cleanup) => cleanup.what.provider() == Some(provider),
        }
    }
}

/// A record of failures. Times are UNIX seconds.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<Attempt, Failure>);

#[derive(Debug, Clone, Copy)]
struct Failure {
    /// Failures in a row.
    failed: u32,
    /// Attempts in a row that were not needed, since the last failure.
    in_vain: u32,
    not_before: f64,
}

impl Failures {
    /// Notes a failure at `now` and returns the pause before the next attempt in seconds.
    pub fn failed(&mut self, attempt: Attempt, now: f64) -> f64 {
        let failed = self.0.get(&attempt).map_or(0, |failure| failure.failed);
        let pause = attempt.pauses().jittered(failed).as_secs_f64();
        let held = self.0.get(&attempt).map_or(now, |failure| failure.not_before);
        let not_before = held.max(now + pause);
        let failure = Failure { failed: failed.saturating_add(1), in_vain: 0, not_before };
        self.0.insert(attempt, failure);
        not_before - now
    }

    /// Allows no attempt before `time`, whatever else is noted.
    pub fn hold_off(&mut self, attempt: Attempt, time: f64) {
        self.0.entry(attempt).or_insert(Failure { failed: 0, in_vain: 0, not_before: time }).not_before =
            time;
    }

    /// Puts an attempt off that was not needed after all: what is known is a little behind, and asking again
    /// at once would only bring the same answer. If it is not needed again and again, somebody else has the
    /// lock for longer, and each question costs the whole fleet a few messages.
    pub fn put_off(&mut self, attempt: Attempt, now: f64) {
        let fresh = Failure { failed: 0, in_vain: 0, not_before: now };
        let failure = self.0.entry(attempt).or_insert(fresh);
        if now > failure.not_before + MEMORY_OF_DELAY {
            failure.in_vain = 0;
        }
        failure.not_before = failure.not_before.max(now + DELAYS.after(failure.in_vain).as_secs_f64());
        failure.in_vain = failure.in_vain.saturating_add(1);
    }

    /// Forgets that an attempt has failed, but not how often it was not needed.
    pub fn forget_failures(&mut self, attempt: &Attempt) {
        if let Some(failure) = self.0.get_mut(attempt) {
            failure.failed = 0;
        }
    }

    /// Notes a success. An image that was built has no failed builds, whoever has asked for them.
    pub fn succeeded(&mut self, attempt: &Attempt) {
        match attempt {
            Attempt::Build(image, _) => {
                self.0.retain(|other, _| !matches!(other, Attempt::Build(name, _) if name == image));
            }
            attempt => drop(self.0.remove(attempt)),
        }
    }

    /// Forgets an image's failures: its configuration has changed, or it is gone.
    pub fn forget_image(&mut self, image: &str) {
        self.0.retain(|attempt, _| !attempt.is_of(image));
    }

    /// Forgets a provider's failures: its configuration has changed, or it is gone. Returns the images that
    /// have waited because of them.
    pub fn forget_provider(&mut self, provider: &str) -> BTreeSet<String> {
        let mut images = BTreeSet::new();
        self.0.retain(|attempt, _| {
            let goes = attempt.is_at(provider);
            if goes {
                images.extend(attempt.image().map(str::to_owned));
            }
            !goes
        });
        images
    }

    /// Forgets what was not repeated for a long time: most builds and uploads come and go for good.
    pub fn forget_old(&mut self, now: f64) {
        self.0.retain(|attempt, failure| {
            let memory = match attempt {
                _ if failure.failed == 0 => MEMORY_OF_DELAY,
                Attempt::Clean(_) => MEMORY_OF_CLEANUP,
                Attempt::Build(..) | Attempt::Upload(..) | Attempt::Open(_) => MEMORY,
            };
            now <= failure.not_before + memory
        });
    }

    /// What has failed and not succeeded since, how often in a row, and when it may be tried again.
    pub fn standing(&self) -> impl Iterator<Item = (&Attempt, u32, f64)> {
        let failed = self.0.iter().filter(|(_, failure)| failure.failed > 0);
        failed.map(|(attempt, failure)| (attempt, failure.failed, failure.not_before))
    }

    /// Whether the attempt has failed and not succeeded since.
    pub fn stands(&self, attempt: &Attempt) -> bool {
        self.0.get(attempt).is_some_and(|failure| failure.failed > 0)
    }

    /// When the attempt may be made; `None` if at any time.
    pub fn not_before(&self, attempt: &Attempt) -> Option<f64> {
        self.0.get(attempt).map(|failure| failure.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::plan::{Cleanup, Garbage};

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
        failures.forget_old(1100.0);
        assert_eq!(failures.not_before(&attempt), None);
    }

    #[test]
    fn the_pause_that_is_told_is_the_one_that_is_kept() {
        let mut failures = Failures::default();
        let attempt = Attempt::Upload("debian".to_owned(), "cloud".to_owned());
        failures.hold_off(attempt.clone(), 160.0);
        assert_eq!(failures.failed(attempt.clone(), 100.0), 60.0);
        assert_eq!(failures.not_before(&attempt), Some(160.0));
    }

    #[test]
    fn an_attempt_that_is_not_needed_again_and_again_is_made_less_and_less_often() {
        let mut failures = Failures::default();
        let attempt = Attempt::build("debian", Some(50.0), 0);
        let mut now = 100.0;
        for expected in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            failures.put_off(attempt.clone(), now);
            assert_eq!(failures.not_before(&attempt), Some(now + expected));
            now += expected;
        }
        failures.put_off(attempt.clone(), now + 60.0);
        assert_eq!(failures.not_before(&attempt), Some(now + 60.25), "a new story");
    }

    #[test]
    fn an_attempt_that_is_not_needed_does_not_shorten_the_pause_after_a_failure() {
        let mut failures = Failures::default();
        let attempt = Attempt::build("debian", None, 0);
        let pause = failures.failed(attempt.clone(), 100.0);
        failures.put_off(attempt.clone(), 100.0);
        assert_eq!(failures.not_before(&attempt), Some(100.0 + pause));
    }

    #[test]
    fn a_success_ends_the_failures_of_all_requests() {
        let mut failures = Failures::default();
        for request in [None, Some(1.0), Some(2.5)] {
            failures.failed(Attempt::build("debian", request, 0), 100.0);
        }
        failures.failed(Attempt::build("fedora", None, 0), 100.0);
        failures.succeeded(&Attempt::build("debian", Some(1.0), 0));
        assert_eq!(failures.0.len(), 1);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut failures = Failures::default();
        for build in 0..100 {
            let what = Garbage::Upload { provider: "cloud".to_owned(), upload: "1".to_owned() };
            let cleanup = Cleanup { image: "debian".to_owned(), build: build.to_string(), what };
            failures.put_off(Attempt::Clean(cleanup), 100.0);
        }
        failures.failed(Attempt::build("debian", None, 0), 100.0);
        failures.forget_old(110.0);
        assert_eq!(failures.0.len(), 101);
        failures.forget_old(200.0);
        assert_eq!(failures.0.len(), 1);
        failures.forget_old(300_000.0);
        assert_eq!(failures.0.len(), 0);
    }

    #[test]
    fn a_changed_provider_gets_a_new_chance() {
        let mut failures = Failures::default();
        let what = Garbage::Upload { provider: "cloud".to_owned(), upload: "1".to_owned() };
        let cleanup = Cleanup { image: "debian".to_owned(), build: "b".to_owned(), what };
        for provider in ["cloud", "other"] {
            failures.failed(Attempt::Upload("debian".to_owned(), provider.to_owned()), 100.0);
            failures.failed(Attempt::Open(provider.to_owned()), 100.0);
        }
        failures.failed(Attempt::Clean(cleanup), 100.0);
        failures.failed(Attempt::build("debian", None, 0), 100.0);
        failures.failed(Attempt::Upload("fedora".to_owned(), "other".to_owned()), 100.0);
        assert_eq!(failures.forget_provider("cloud").into_iter().collect::<Vec<_>>(), ["debian"]);
        failures.forget_image("fedora");
        assert_eq!(failures.0.len(), 3);
        failures.forget_image("debian");
        assert_eq!(failures.0.into_keys().collect::<Vec<_>>(), [Attempt::Open("other".to_owned())]);
    }
}
