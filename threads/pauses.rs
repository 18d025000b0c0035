//! Pauses between attempts at the same thing, which grow.

use std::time::Duration;

/// A pause that doubles from one attempt to the next, up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first one.
    pub first: Duration,
    /// The longest one.
    pub longest: Duration,
}

impl Pauses {
    /// The pause when there were so many before it.
    pub fn after(&self, times: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(times)).min(self.longest)
    }

    /// The same, but up to a quarter shorter or longer: those who have failed together shall not come back together.
    pub fn jittered(&self, times: u32) -> Duration {
        self.after(times).mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: Pauses = Pauses { first: Duration::from_millis(500), longest: Duration::from_secs(20) };

    #[test]
    fn pauses_double_up_to_the_longest_however_many_there_were() {
        let pauses = [0, 1, 2, 5, 6, 31, 32, u32::MAX].map(|times| PAUSES.after(times).as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 16_000, 20_000, 20_000, 20_000, 20_000]);
    }

    #[test]
    fn jitter_stays_near_the_pause_and_is_not_the_same_each_time() {
        let some: Vec<f64> = (0..100).map(|_| PAUSES.jittered(1).as_secs_f64()).collect();
        assert!(some.iter().all(|pause| (0.75..=1.25).contains(pause)), "{some:?}");
        assert!(some.iter().any(|pause| *pause < 1.0) && some.iter().any(|pause| *pause > 1.0), "{some:?}");
    }
}
