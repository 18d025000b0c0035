//! Times and sizes as people read them at a glance.

/// A span of time: its largest unit, and the next one where that says more.
pub(in crate::web) fn span(seconds: f64) -> String {
    // The cast saturates: a clock that was set back is no reason to fail.
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) if minutes % 60 == 0 => format!("{hours} h"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) if hours % 24 == 0 => format!("{days} d"),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// A number of bytes.
pub(in crate::web) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && size < 10.0);
    format!("{size:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units_at_most() {
        for (seconds, text) in [
            (-5.0, "0 s"),
            (59.9, "59 s"),
            (60.0, "1 min"),
            (3600.0, "1 h"),
            (7500.0, "2 h 5 min"),
            (86400.0, "1 d"),
            (100_000.0, "1 d 3 h"),
            (f64::NAN, "0 s"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn sizes_have_two_digits_at_least() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (45 << 30, "45 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
