//! YAML text to a [`Value`]; the only place that names `serde_yaml`.
//!
//! Reads what PyYAML's safe loader reads from the same file: the last of repeated keys counts, and merge
//! keys (`<<: *anchor`) are resolved. A file is read in several passes: an anchor that is used over and over
//! can make gigabytes out of a few lines, so the first one only adds up how large the tree would be; and the
//! last one mends numbers that are none to PyYAML.

use std::cell::Cell;
use std::fmt;

use nodepool_drivers::api::{Problem, Severity, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::yaml_numbers::{Respell, has_numbers};

/// How much memory the parsed file may take, roughly. Real ones take less than a hundredth of it.
const MOST_BYTES: usize = 16 << 20;

/// The tree that `text` stands for; [`Value::Null`] when there is nothing in it.
pub(crate) fn parse(text: &str) -> Result<Value, Problem> {
    if text.lines().all(|line| line.trim_start().starts_with('#') || line.trim().is_empty()) {
        return Ok(Value::Null);
    }
    let left = Cell::new(MOST_BYTES);
    Budget(&left).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(syntax_error)?;
    let mut raw: Value = serde_yaml::from_str(text).map_err(syntax_error)?;
    if has_numbers(&raw) {
        Respell(&mut raw).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(syntax_error)?;
    }
    tidy(raw)
}

fn syntax_error(error: serde_yaml::Error) -> Problem {
    let text = error.to_string();
    let Some(at) = error.location() else {
        let message = if text.contains("more than one document") {
            "expected one YAML document, found several (a line '---' begins a new one)".to_owned()
        } else {
            format!("not valid YAML: {text}")
        };
        return problem(String::new(), message);
    };
    let (line, column) = (at.line(), at.column());
    // The place stands before the message already.
    let text = text.replacen(&format!(" at line {line} column {column}"), "", 1);
    problem(format!("line {line}, column {column}"), format!("not valid YAML: {text}"))
}

fn problem(path: String, message: String) -> Problem {
    Problem { severity: Severity::Error, path, message }
}

/// Resolves merge keys and repeated keys in the whole tree.
fn tidy(value: Value) -> Result<Value, Problem> {
    match value {
        Value::List(items) => items.into_iter().map(tidy).collect::<Result<_, _>>().map(Value::List),
        Value::Map(entries) => tidy_map(entries).map(Value::Map),
        scalar => Ok(scalar),
    }
}

fn tidy_map(entries: Vec<(String, Value)>) -> Result<Vec<(String, Value)>, Problem> {
    let (merges, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == "<<");
    let mut tidied = Vec::with_capacity(own.len());
    for (_, merge) in merges {
        merge_into(&mut tidied, tidy(merge)?)?;
    }
    // The mapping's own keys come last, and so win over merged ones.
    for (key, value) in own {
        put(&mut tidied, key, tidy(value)?);
    }
    Ok(tidied)
}

/// Adds the entries of a merge key's value: a mapping, or a list of mappings of which earlier ones win.
fn merge_into(entries: &mut Vec<(String, Value)>, merge: Value) -> Result<(), Problem> {
    match merge {
        Value::Map(merged) => {
            for (key, value) in merged {
                put(entries, key, value);
            }
            Ok(())
        }
        Value::List(items) if items.iter().all(|item| matches!(item, Value::Map(_))) => {
            items.into_iter().rev().try_for_each(|item| merge_into(entries, item))
        }
        other => Err(problem(
            String::new(),
            format!("the merge key '<<' needs a mapping or a list of mappings, found {}", other.kind()),
        )),
    }
}

fn put(entries: &mut Vec<(String, Value)>, key: String, value: Value) {
    match entries.iter_mut().find(|(name, _)| *name == key) {
        Some((_, old)) => *old = value,
        None => entries.push((key, value)),
    }
}

/// Walks a document without keeping anything, and fails when it would take more than what is left.
#[derive(Clone, Copy)]
struct Budget<'a>(&'a Cell<usize>);

impl Budget<'_> {
    fn spend<E: Error>(self, text: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(size_of::<Value>() + text);
        self.0.set(left.ok_or_else(|| E::custom("the aliases of the file make it too large"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Budget<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Budget<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a special tag")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.spend(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while map.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
        Value::Map(entries.map(|(key, value)| (key.to_owned(), value)).into())
    }

    fn text(text: &str) -> Value {
        Value::Str(text.to_owned())
    }

    #[test]
    fn reads_the_same_as_pyyaml_does() {
        let cases = [
            ("a: 1\nb: x\n", map([("a", Value::Int(1)), ("b", text("x"))])),
            ("a: 1\na: 2\n", map([("a", Value::Int(2))])),
            (
                "a: &x {p: 1}\nb: *x\n",
                map([("a", map([("p", Value::Int(1))])), ("b", map([("p", Value::Int(1))]))]),
            ),
            ("b: {<<: {p: 1, q: 2}, q: 3}", map([("b", map([("p", Value::Int(1)), ("q", Value::Int(3))]))])),
            // The mapping's own key wins even if the merge key comes after it.
            ("b: {q: 3, <<: {p: 1, q: 2}}", map([("b", map([("p", Value::Int(1)), ("q", Value::Int(3))]))])),
            (
                "b: {<<: [{p: 1}, {p: 2, q: 2}]}",
                map([("b", map([("p", Value::Int(1)), ("q", Value::Int(2))]))]),
            ),
            ("b: {<<: {<<: {p: 1}, q: 2}}", map([("b", map([("p", Value::Int(1)), ("q", Value::Int(2))]))])),
            ("21: x", map([("21", text("x"))])),
            (
                "- 1\n- [a, ~]\n- !!str 5\n",
                Value::List(vec![Value::Int(1), Value::List(vec![text("a"), Value::Null]), text("5")]),
            ),
            ("---\na: yes\n...\n", map([("a", text("yes"))])),
            ("", Value::Null),
            ("# nothing\n\n  # at all\n", Value::Null),
            ("---\n", Value::Null),
        ];
        for (source, expected) in cases {
            assert_eq!(parse(source), Ok(expected), "{source}");
        }
    }

    #[test]
    fn numbers_are_those_of_yaml_1_1() {
        let cases = [
            ("1234e56", text("1234e56")),
            ("1E5", text("1E5")),
            ("1.5e3", text("1.5e3")),
            ("1.5e+3", Value::Float(1500.0)),
            ("0o17", text("0o17")),
            ("0x10", Value::Int(16)),
            ("08", text("08")),
            ("-5", Value::Int(-5)),
            ("2.50", Value::Float(2.5)),
            (".inf", Value::Float(f64::INFINITY)),
            ("'1.5'", text("1.5")),
        ];
        for (number, expected) in cases {
            assert_eq!(parse(&format!("a: {number}")), Ok(map([("a", expected.clone())])), "{number}");
            let nested = format!("- &x {{p: [1, {number}], 5: {number}}}\n- {{<<: *x, q: ~}}\n- true\n");
            let list = Value::List(vec![Value::Int(1), expected.clone()]);
            let first = map([("p", list.clone()), ("5", expected.clone())]);
            let second = map([("p", list), ("5", expected), ("q", Value::Null)]);
            assert_eq!(parse(&nested), Ok(Value::List(vec![first, second, Value::Bool(true)])), "{number}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        let cases = [
            (
                "a: 1\nb: [1, 2\n",
                "line 3, column 1: not valid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 2 column 4",
            ),
            (
                "a:\n\t- b\n",
                "line 2, column 1: not valid YAML: found character that cannot start any token, while scanning for the next token",
            ),
            ("a: *nowhere\n", "line 1, column 4: not valid YAML: unknown anchor"),
            (
                "a: !thing x\n",
                "not valid YAML: a: invalid type: enum, expected a value without a special tag",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "expected one YAML document, found several (a line '---' begins a new one)",
            ),
            ("a: {<<: 5}", "the merge key '<<' needs a mapping or a list of mappings, found a whole number"),
            (
                "a: {<<: [{b: 1}, 5]}",
                "the merge key '<<' needs a mapping or a list of mappings, found a list",
            ),
            ("[1]: 2", "not valid YAML: a key must be a string, this one is a list"),
        ];
        for (source, expected) in cases {
            let found = parse(source).unwrap_err();
            assert!(found.to_string().ends_with(expected), "{source:?}: {found}");
            assert_eq!(found.severity, Severity::Error);
        }
    }

    #[test]
    fn hostile_files_are_refused_and_do_not_crash() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{},", level - 1).repeat(10);
            laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(20_000), "*a, ".repeat(20_000));
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000));
        let deep = "[".repeat(10_000);
        let closed = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for hostile in [laughs, wide, text, deep, closed, "a: &a [*a]\n".to_owned(), "&a {<<: *a}".to_owned()]
        {
            assert!(parse(&hostile).is_err(), "{}", &hostile[..20.min(hostile.len())]);
        }
    }
}
