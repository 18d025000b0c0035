//! Times as the records have them: UNIX seconds with a fraction.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The current time in UNIX seconds.
pub fn now() -> f64 {
    // A clock before 1970 makes every record look old, which is the best that can be said about it.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A duration in the form of the client's tables, `DD:HH:MM:SS`; in JSON its seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Age(u64);

impl Age {
    /// The age at `now` of something that happened at `time`, to the fraction; zero for the future.
    pub fn exactly(time: f64, now: f64) -> Self {
        // The cast saturates: neither a negative nor an absurd time is a reason to fail.
        Self((now - time).max(0.0) as u64)
    }

    /// The same of something that happened in the second of `time`, as the original has it of builds and uploads.
    pub fn between(time: f64, now: f64) -> Self {
        Self::exactly(time.floor(), now)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0 / 60, self.0 % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let text = format!("{:02}:{:02}:{minutes:02}:{seconds:02}", hours / 24, hours % 24);
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_days_hours_minutes_and_seconds() {
        for (seconds, text) in [(0, "00:00:00:00"), (59, "00:00:00:59"), (93784, "01:02:03:04")] {
            assert_eq!(Age(seconds).to_string(), text);
        }
        assert_eq!((Age::exactly(0.5, 60.0), Age::between(0.5, 60.0)), (Age(59), Age(60)));
        assert_eq!(Age::between(100.0, 40.0).to_string(), "00:00:00:00");
    }
}
