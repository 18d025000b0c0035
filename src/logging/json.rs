//! A record as a JSON object on one line: `time`, `level`, `logger`, `message`, then the key-values.
//!
//! No key stands there twice: of several values of the same name the innermost counts, and a value that has the
//! name of one of the four gets an underscore behind it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use slog::{KV as _, Key, Level, OwnedKVList, Record, Result, Serializer};

use super::names::logger_of;

const FIXED: [&str; 4] = ["time", "level", "logger", "message"];

/// The object with its line break.
pub(super) fn object(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut fields = Fields { text: String::from("{"), names: Vec::new() };
    fields.put("time", &Value::from(rfc3339(SystemTime::now())));
    fields.put("level", &Value::from(level_name(record.level())));
    fields.put("logger", &Value::from(logger_of(record)));
    fields.put("message", &Value::from(record.msg().to_string()));
    // A value that cannot be formatted is left out; the line is worth more than the value.
    let _ = record.kv().serialize(record, &mut fields);
    let _ = values.serialize(record, &mut fields);
    fields.text.push_str("}\n");
    fields.text
}

/// As in a logging configuration.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

struct Fields {
    text: String,
    names: Vec<String>,
}

impl Fields {
    fn put(&mut self, name: &str, value: &Value) {
        if !self.names.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(&format!("{}:{value}", Value::from(name)));
        self.names.push(name.to_owned());
    }

    fn add(&mut self, key: Key, value: Value) -> Result {
        let name = if FIXED.contains(&key) { format!("{key}_") } else { key.to_owned() };
        if !self.names.contains(&name) {
            self.put(&name, &value);
        }
        Ok(())
    }
}

macro_rules! numbers {
    ($($method:ident $kind:ty),*) => {
        $(fn $method(&mut self, key: Key, value: $kind) -> Result {
            self.add(key, Value::from(value))
        })*
    };
}

impl Serializer for Fields {
    numbers!(emit_usize usize, emit_isize isize, emit_u8 u8, emit_i8 i8, emit_u16 u16, emit_i16 i16, emit_u32 u32);
    numbers!(emit_i32 i32, emit_u64 u64, emit_i64 i64, emit_f32 f32, emit_f64 f64, emit_bool bool, emit_str &str);

    fn emit_unit(&mut self, key: Key) -> Result {
        self.add(key, Value::Null)
    }

    fn emit_none(&mut self, key: Key) -> Result {
        self.add(key, Value::Null)
    }

    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> Result {
        self.add(key, Value::from(value.to_string()))
    }
}

/// `2026-11-22T16:41:31.123Z`.
fn rfc3339(time: SystemTime) -> String {
    // A clock before 1970 is wrong anyway.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a day since 1970. Counts from March, so that the leap day is a year's last, in cycles
/// of 400 years, which all have the same number of days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (cycle, of_cycle) = (days / 146_097, days % 146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use slog::{info, o};

    use super::*;
    use crate::logging::line::tests::lines;
    use crate::logging::settings::Format;

    #[test]
    fn an_object_has_each_key_once_and_numbers_are_numbers() {
        let lines = lines(Format::Json, |log| {
            let log = log.new(o!("image" => "the inner one", "message" => "not the message"));
            info!(log, "he said \"x\"\n"; "count" => 5u64, "half" => 0.5, "ok" => true, "build" => %"b",
                "path" => Option::<String>::None, "build" => "again");
        });
        let text = lines[0].strip_suffix('\n').unwrap();
        assert!(!text.contains('\n') && text.starts_with("{\"time\":\"2"), "{text}");
        assert_eq!(text.matches("\"image\":").count(), 1, "{text}");
        assert_eq!(text.matches("\"build\":").count(), 1, "{text}");
        let mut value: Value = serde_json::from_str(text).unwrap();
        let time = value["time"].take();
        assert_eq!(time.as_str().unwrap().len(), "2026-11-22T16:41:31.123Z".len());
        let expected = json!({
            "time": null, "level": "info", "logger": "nodepool.logging.json.tests", "message": "he said \"x\"\n",
            "count": 5, "half": 0.5, "ok": true, "build": "again", "path": null, "image": "the inner one",
            "message_": "not the message",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (1_795_365_691, "2026-11-22T16:41:31.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7);
            assert_eq!(rfc3339(time), expected);
        }
    }
}
