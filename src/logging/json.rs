//! A record as a JSON object on one line: `time`, `level`, `logger`, `message`, then the key-values.
//!
//! All keys are small letters, digits and underscores, and none stands there twice: of several values of the
//! same name the innermost counts, and a value that has the name of one of the four, or of `truncated`, gets an
//! underscore behind it. `time` is UTC.

use std::borrow::Cow;
use std::fmt;

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};
use slog::{KV as _, Key, Level, OwnedKVList, Record, Result, Serializer};

use super::names::logger_of;

/// Those that are always there, and one that says that strings of the object were cut off.
const FIXED: [&str; 5] = ["time", "level", "logger", "message", TRUNCATED];
const TRUNCATED: &str = "truncated";

/// The object with its line break.
pub(super) fn object(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut fields = Fields { text: String::from("{"), names: Vec::new() };
    fields.put("time", &Value::from(Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)));
    fields.put("level", &Value::from(level_name(record.level())));
    fields.put("logger", &Value::from(logger_of(record)));
    fields.put("message", &Value::from(record.msg().to_string()));
    // A value that cannot be formatted is left out; the line is worth more than the value.
    let _ = record.kv().serialize(record, &mut fields);
    let _ = values.serialize(record, &mut fields);
    fields.text.push_str("}\n");
    fields.text
}

/// The object, which must be one, with its longest strings cut off so that it takes no more than `most` bytes; then
/// `truncated` is true in it. If its other values alone are longer, it keeps the fixed ones only.
pub(super) fn shortened(object: &str, most: usize) -> Cow<'_, str> {
    if object.len() <= most {
        return Cow::Borrowed(object);
    }
    let mut fields: Map<String, Value> = serde_json::from_str(object).unwrap_or_default();
    fields.insert(TRUNCATED.to_owned(), Value::from(true));
    if with_strings_of(&fields, 0).len() > most {
        fields.retain(|name, _| FIXED.contains(&name.as_str()));
    }
    let (mut fits, mut too_long) = (0, most);
    while too_long - fits > 1 {
        let middle = fits.midpoint(too_long);
        let tried = with_strings_of(&fields, middle);
        *(if tried.len() <= most { &mut fits } else { &mut too_long }) = middle;
    }
    Cow::Owned(with_strings_of(&fields, fits))
}

/// The object with all strings cut off at so many bytes, but for those that say when, how grave and whose it is.
fn with_strings_of(fields: &Map<String, Value>, most: usize) -> String {
    let cut = fields.iter().map(|(name, value)| match value {
        Value::String(text) if !FIXED[..3].contains(&name.as_str()) => {
            let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            (name, Value::from(&text[..end.unwrap_or(0)]))
        }
        value => (name, value.clone()),
    });
    let cut: Map<_, _> = cut.map(|(name, value)| (name.clone(), value)).collect();
    Value::from(cut).to_string()
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
        let mut name = key.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_").to_ascii_lowercase();
        if FIXED.contains(&&*name) {
            name.push('_');
        }
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

#[cfg(test)]
mod tests {
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
                "path" => Option::<String>::None, "build" => "again", "again in s" => 7, "Build-Timeout" => 8);
        });
        let text = lines[0].strip_suffix('\n').unwrap();
        assert!(!text.contains('\n') && text.starts_with("{\"time\":\"2"), "{text}");
        assert_eq!(text.matches("\"image\":").count(), 1, "{text}");
        assert_eq!(text.matches("\"build\":").count(), 1, "{text}");
        let mut value: Value = serde_json::from_str(text).unwrap();
        let time = value["time"].take();
        let shape = time.as_str().unwrap().replace(|letter: char| letter.is_ascii_digit(), "0");
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
        let expected = json!({
            "time": null, "level": "info", "logger": "nodepool.logging.json.tests", "message": "he said \"x\"\n",
            "count": 5, "half": 0.5, "ok": true, "build": "again", "path": null, "image": "the inner one",
            "message_": "not the message", "again_in_s": 7, "build_timeout": 8,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn an_object_that_is_too_long_is_one_with_shorter_strings() {
        const MOST: usize = 8000;
        let said = |message: &str, value: &str| {
            let lines = lines(Format::Json, |log| {
                info!(log, "{message}"; "output" => value, "count" => 5, "truncated" => "not this one");
            });
            lines[0].trim().to_owned()
        };
        for (message, value) in [
            ("x".repeat(7000), "y".to_owned()),
            ("x".repeat(9000), "y".to_owned()),
            ("short".to_owned(), "\u{1b}\n\"".repeat(3000)),
            ("ä€😀".repeat(1000), "ä€😀".repeat(100_000)),
        ] {
            let whole = said(&message, &value);
            let short = shortened(&whole, MOST);
            assert!(short.len() <= MOST, "{}", short.len());
            if whole.len() <= MOST {
                assert_eq!(short, whole);
                continue;
            }
            assert!(short.len() > MOST - 50, "room was left: {}", short.len());
            let found: Value = serde_json::from_str(&short).unwrap();
            let text = |name: &str| found[name].as_str().unwrap();
            assert!(message.starts_with(text("message")) && value.starts_with(text("output")), "{short}");
            assert!(!text("message").is_empty() && !text("output").is_empty(), "{short}");
            assert_eq!((&found["truncated"], &found["truncated_"]), (&json!(true), &json!("not this one")));
            assert_eq!((&found["count"], text("level"), text("image")), (&json!(5), "info", "debian"));
        }
        // Many small values that are no strings.
        let many: Map<_, _> = (0..1000).map(|number| (format!("value_{number}"), json!(number))).collect();
        let mut many = Value::from(many);
        many["time"] = json!("now");
        many["message"] = json!("x");
        let short: Value = serde_json::from_str(&shortened(&many.to_string(), MOST)).unwrap();
        assert_eq!(short, json!({"time": "now", "message": "x", "truncated": true}));
    }
}
