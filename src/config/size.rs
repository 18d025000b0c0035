//! Sizes of disks and files as people write them: `10G`, `500 MB`, `1.5TiB`, or a number of bytes.

use nodepool_drivers::api::{Table, Value};

/// The size in bytes at `key`, at most what a disk may ever have. Units are powers of 1024, as `df -h` has them.
pub(super) fn read(table: &Table<'_>, key: &'static str) -> Option<u64> {
    let size = match table.value(key)? {
        Value::Int(bytes) => u64::try_from(*bytes).ok(),
        Value::Str(text) => parse(text),
        _ => None,
    };
    if size.is_none() {
        table.error(key, "expected a size such as '10G' or '500M', or a number of bytes");
    }
    size
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit.trim().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * 1024_f64.powi(power);
    // Larger ones are no numbers of bytes any more.
    (bytes < (1_u64 << 60) as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("'512'", Some(512)),
            ("10G", Some(10 << 30)),
            ("1.5 GiB", Some(3 << 29)),
            ("500 mb", Some(500 << 20)),
            ("2k", Some(2048)),
            ("1T", Some(1 << 40)),
            ("-1", None),
            ("1.5", None),
            ("ten", None),
            ("10 boxes", None),
            ("''", None),
            ("G", None),
            ("1e5", None),
            ("99999P", None),
            ("[1]", None),
        ];
        for (text, expected) in cases {
            let (size, problems) =
                testing::read(&format!("min-free-space: {text}"), |top| read(top, "min-free-space"));
            assert_eq!(size, expected, "{text}");
            let error = "min-free-space: expected a size such as '10G' or '500M', or a number of bytes";
            assert_eq!(problems, if expected.is_none() { vec![error] } else { vec![] }, "{text}");
        }
    }
}
