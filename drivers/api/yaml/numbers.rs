//! Numbers of YAML 1.2 that are text in YAML 1.1, which the original reads.
//!
//! To the parser, `1e3` and `0o17` are numbers, so a commit such as `1234e56` in an image's environment
//! would silently become another text. This pass goes through the document again along the tree that was
//! read from it, asks for the spelling of each number, and takes it for what YAML 1.1 takes it for.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::api::Value;

/// Whether a value has numbers that have to be looked at.
pub(super) fn has_numbers(value: &Value) -> bool {
    match value {
        Value::Int(_) | Value::Float(_) => true,
        Value::List(items) => items.iter().any(has_numbers),
        Value::Map(entries) => entries.iter().any(|(_, value)| has_numbers(value)),
        Value::Null | Value::Bool(_) | Value::Str(_) => false,
    }
}

/// Goes along a value that was read from the same document.
pub(super) struct Respell<'a>(pub(super) &'a mut Value);

impl<'de> DeserializeSeed<'de> for Respell<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            Value::Int(_) | Value::Float(_) => deserializer.deserialize_str(self),
            Value::List(_) => deserializer.deserialize_seq(self),
            Value::Map(_) => deserializer.deserialize_map(self),
            Value::Null | Value::Bool(_) | Value::Str(_) => {
                deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
            }
        }
    }
}

impl<'de> Visitor<'de> for Respell<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let is_text = match self.0 {
            Value::Int(_) => text.contains('o'),
            Value::Float(_) => !text.contains('.') || exponent_without_sign(text),
            _ => false,
        };
        if is_text {
            *self.0 = Value::Str(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Value::List(items) = self.0 else {
            return Err(A::Error::custom("a list was something else before"));
        };
        for item in items {
            seq.next_element_seed(Respell(item))?;
        }
        // The sequence has an end, too, that must be read.
        seq.next_element::<IgnoredAny>().map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Value::Map(entries) = self.0 else {
            return Err(A::Error::custom("a mapping was something else before"));
        };
        for (_, value) in entries {
            if map.next_key::<IgnoredAny>()?.is_some() {
                map.next_value_seed(Respell(value))?;
            }
        }
        map.next_key::<IgnoredAny>().map(drop)
    }
}

fn exponent_without_sign(text: &str) -> bool {
    let exponent = text.split_once(['e', 'E']).map(|(_, exponent)| exponent);
    exponent.is_some_and(|exponent| !exponent.starts_with(['+', '-']))
}
