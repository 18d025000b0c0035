//! Times as Keystone writes them: `2026-11-22T16:41:31.000000Z`.

/// The seconds since 1970; fractions are dropped.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
    let (date, time) = text.split_once(['T', ' '])?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let mut time = time.split('.').next()?.splitn(3, ':').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        // Of `date --date=… +%s`.
        for (text, expected) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2000-02-29T12:00:01Z", 951_825_601),
            ("2026-11-22T16:41:31.123456Z", 1_795_365_691),
            ("2026-03-01 00:00:00", 1_772_323_200),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "2026", "2026-13-01T00:00:00Z", "x-1-1T0:0:0Z", "2026-01-01T00:00"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
