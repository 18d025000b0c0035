//! A reader of the configuration that reports every mistake with its path.
//!
//! [`Table`] is the one way from raw data to typed settings, here and in the daemon's own configuration.
//! It never stops at the first mistake: a reader notes a [`Problem`](super::Problem) and goes on with `None`,
//! so that one run of `nodepool config-validate` shows everything. The keys that were asked for are the known
//! keys; what is left over is unknown.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::problem::{Problems, Severity};
use super::suggest::nearest;
use super::value::Value;

/// A mapping of the configuration while it is being read.
///
/// Each method asks for one key. A missing key, and an empty one, reads as `None` without a problem unless
/// the method says otherwise. End with [`Table::finish`], which reports the keys that nobody asked for.
pub struct Table<'a> {
    path: String,
    entries: &'a [(String, Value)],
    known: RefCell<Vec<&'static str>>,
    open: Cell<bool>,
    problems: &'a Problems,
}

impl<'a> Table<'a> {
    /// A reader of `value`, which stands at `path` in the file. Notes a problem unless it is a mapping.
    pub fn new(value: &'a Value, path: impl Into<String>, problems: &'a Problems) -> Option<Self> {
        let path = path.into();
        let entries = match value {
            Value::Map(entries) => entries,
            other => {
                problems.error(path, format!("expected a mapping, found {}", other.kind()));
                return None;
            }
        };
        Some(Self { path, entries, known: RefCell::default(), open: Cell::new(false), problems })
    }

    /// Where in the file this mapping stands.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where in the file `key` of this mapping stands.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes an error at `key`.
    pub fn error(&self, key: &str, message: impl Into<String>) {
        self.problems.error(self.path_of(key), message);
    }

    /// The collector that this reader notes its problems in.
    pub fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// The whole mapping as raw data, to be kept and compared later. No key counts as asked for by this.
    pub fn to_value(&self) -> Value {
        Value::Map(self.entries.to_vec())
    }

    /// The raw value of `key`.
    pub fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(key);
        let found = self.entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value);
        found.filter(|value| !matches!(value, Value::Null))
    }

    fn typed<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = read(value);
        if read.is_none() {
            self.error(key, format!("expected {expected}, found {}", value.describe()));
        }
        read
    }

    /// A string. A number is an error: `release: 21` wants [`Table::text`].
    pub fn string(&self, key: &'static str) -> Option<String> {
        self.typed(key, "a string", |value| match value {
            Value::Str(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A string that must be there and not empty.
    pub fn required_string(&self, key: &'static str) -> Option<String> {
        if self.value(key).is_none() {
            self.problems.error(&self.path, format!("the required key '{key}' is missing"));
            return None;
        }
        let text = self.string(key)?;
        if text.is_empty() {
            self.error(key, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// A string, or a number or boolean taken as the text that it prints as.
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.typed(key, "a string or a number", Value::scalar_text)
    }

    /// A boolean; the words `yes no on off` count, as in YAML 1.1 that the original reads.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(yes) => Some(*yes),
            Value::Str(word) => match word.to_ascii_lowercase().as_str() {
                "yes" | "on" => Some(true),
                "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    /// A whole number of any sign.
    pub fn integer(&self, key: &'static str) -> Option<i64> {
        self.typed(key, "a whole number", |value| match value {
            Value::Int(number) => Some(*number),
            _ => None,
        })
    }

    /// A number with or without a fraction, not negative and finite.
    pub fn number(&self, key: &'static str) -> Option<f64> {
        self.typed(key, "a number of at least 0", |value| match value {
            Value::Int(number) if *number >= 0 => Some(*number as f64),
            Value::Float(number) if number.is_finite() && *number >= 0.0 => Some(*number),
            _ => None,
        })
    }

    /// A list of strings; each item that is none is a problem of its own and left out.
    pub fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        let items = self.list(key)?;
        let mut strings = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item {
                Value::Str(text) => strings.push(text.clone()),
                other => self.problems.error(
                    format!("{}[{index}]", self.path_of(key)),
                    format!("expected a string, found {}", other.describe()),
                ),
            }
        }
        Some(strings)
    }

    /// The raw items of a list.
    pub fn list(&self, key: &'static str) -> Option<&'a [Value]> {
        self.typed(key, "a list", |value| match value {
            Value::List(items) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// A list of mappings, each a reader of its own; an item that is no mapping is a problem and left out.
    pub fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let items = self.list(key).unwrap_or_default();
        let at = self.path_of(key);
        items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| Table::new(item, format!("{at}[{index}]"), self.problems))
            .collect()
    }

    /// A mapping below this one.
    pub fn table(&self, key: &'static str) -> Option<Table<'a>> {
        let value = self.value(key)?;
        Table::new(value, self.path_of(key), self.problems)
    }

    /// A mapping from names to text; numbers and booleans are taken as the text that they print as.
    pub fn text_map(&self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let entries = self.typed(key, "a mapping", |value| match value {
            Value::Map(entries) => Some(entries),
            _ => None,
        })?;
        let mut map = BTreeMap::new();
        for (name, value) in entries {
            match value.scalar_text() {
                Some(text) => drop(map.insert(name.clone(), text)),
                None => self.problems.error(
                    format!("{}.{name}", self.path_of(key)),
                    format!("expected a string, found {}", value.describe()),
                ),
            }
        }
        Some(map)
    }

    /// Declares keys that are allowed here but that this reader has no use for.
    pub fn accept(&self, keys: &[&'static str]) {
        self.known.borrow_mut().extend_from_slice(keys);
    }

    /// Accepts every key: the mapping belongs to somebody whose keys are not known here.
    pub fn accept_all(&self) {
        self.open.set(true);
    }

    /// Reports each key that nobody asked for, with the known key that was probably meant.
    pub fn finish(self) {
        if self.open.get() {
            return;
        }
        let known = self.known.borrow();
        for (name, _) in self.entries {
            if known.contains(&name.as_str()) {
                continue;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("unknown key, did you mean '{meant}'?"),
                None => "unknown key".to_owned(),
            };
            self.problems.note(Severity::UnknownKey, self.path_of(name), hint);
        }
    }
}
