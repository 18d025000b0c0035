//! When a change of the files is worth a reload: a decision without clock, files or threads.
//!
//! An edit is rarely one step: editors write, rename and set times. A state of the files counts once it has
//! lasted for a moment, and one without a file only after a longer one, because whoever replaces a file may
//! take it away first.

use std::time::{Duration, Instant};

use super::files::Stamps;

/// How long a new state must last.
const SETTLED: Duration = Duration::from_millis(50);
/// How long a file must be missing.
const GONE: Duration = Duration::from_secs(2);
/// How often the files are looked at if nothing is heard of them, as on a network file system.
const NET: Duration = Duration::from_secs(30);

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look again after this time, or when something is heard of the files.
    Wait(Duration),
    /// Load the state that was looked at last.
    Load,
}

/// What is known of the files.
pub(super) struct Settle {
    loaded: Stamps,
    candidate: Option<(Stamps, Instant)>,
}

impl Settle {
    /// Goes on from the state that was loaded last.
    pub(super) fn new(loaded: Stamps) -> Self {
        Self { loaded, candidate: None }
    }

    /// Takes note of the state of the files at `now`.
    pub(super) fn step(&mut self, now: Instant, current: Stamps) -> Step {
        if current == self.loaded {
            self.candidate = None;
            return Step::Wait(NET);
        }
        let needed = if current.is_missing() { GONE } else { SETTLED };
        let lasted = match &self.candidate {
            Some((stamps, since)) if *stamps == current => now.saturating_duration_since(*since),
            _ => {
                self.candidate = Some((current.clone(), now));
                Duration::ZERO
            }
        };
        if lasted < needed {
            return Step::Wait(needed - lasted);
        }
        self.candidate = None;
        self.loaded = current;
        Step::Load
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::testing::TempDir;
    use crate::config::{ConfigFiles, Env};

    /// Distinct states of a file: two contents, and missing.
    fn states() -> (Stamps, Stamps, Stamps) {
        let dir = TempDir::new();
        let path = dir.write("n", "1");
        let stamps = || ConfigFiles::new(&path, None, Env::default()).stamps(&Default::default());
        let one = stamps();
        fs::write(&path, "22").unwrap();
        let two = stamps();
        fs::remove_file(&path).unwrap();
        (one, two, stamps())
    }

    #[test]
    fn each_state_is_loaded_once_and_only_after_it_has_lasted() {
        let (one, two, gone) = states();
        let start = Instant::now();
        // The time in milliseconds, what is seen, and the milliseconds to wait; 0 for a load.
        let cases: &[(u64, &Stamps, u64)] = &[
            (0, &one, 30_000),
            (100, &two, 50),
            (120, &two, 30),
            // Back again before it counted: nothing has happened.
            (140, &one, 30_000),
            (200, &two, 50),
            (250, &two, 0),
            (251, &two, 30_000),
            // Missing for an instant, and then another state than the one before.
            (300, &gone, 2000),
            (310, &gone, 1990),
            (350, &one, 50),
            (400, &one, 0),
            // Missing for good is a state too, loaded once.
            (1000, &gone, 2000),
            (3000, &gone, 0),
            (9000, &gone, 30_000),
            (9100, &one, 50),
            (9150, &one, 0),
        ];
        let mut settle = Settle::new(one.clone());
        for (at, seen, wait) in cases {
            let expected = if *wait == 0 { Step::Load } else { Step::Wait(Duration::from_millis(*wait)) };
            assert_eq!(
                settle.step(start + Duration::from_millis(*at), (*seen).clone()),
                expected,
                "at {at} ms"
            );
        }
    }
}
